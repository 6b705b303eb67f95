"""Draw crops of a painted walker, and what colour models read of them."""

import argparse

import torch
from matplotlib.figure import Figure
from torch import Tensor

import gaitzoo
from gaitzoo.data.colours import IMAGENET_MEAN, IMAGENET_STD
from gaitzoo.synthetic import render_walk, sample_identity

SKIN, SHIRT, TROUSERS, SHOE = (214, 170, 140), (60, 96, 160), (58, 58, 66), (30, 30, 34)
# Ground, head, torso, arms, hands, legs, feet, dress.
COLOURS = torch.tensor(
    (
        *((168, 174, 170), SKIN, SHIRT, SHIRT, SHIRT, SKIN, SKIN, TROUSERS, TROUSERS),
        *(SHOE, SHOE, (150, 60, 70)),
    ),
    dtype=torch.uint8,
)
# Frames, and the columns and rows of a detector's boxes, which are never quite right.
BOXES = ((0, 20, 156, 10, 246), (4, 50, 126, 0, 250), (8, 0, 176, 0, 256))


def main() -> None:
    """Read the command line, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="colour_crops.png", help="picture to write")
    options = parser.parse_args()
    transform = gaitzoo.create_transform(gaitzoo.model_info("biggergait.ccpg"))
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    figure = Figure(figsize=(10, 3.6), dpi=110, layout="constrained")
    columns = figure.subplots(1, 2 * len(BOXES))
    for i, crop in enumerate(crops()):
        given, read = columns[2 * i : 2 * i + 2]
        given.imshow(crop[:, 0].permute(1, 2, 0))
        given.set_title(f"crop,\n{crop.shape[2]} x {crop.shape[3]}", fontsize=9)
        standard = transform(crop)[:, 0]
        read.imshow((standard * std + mean).clamp(0, 1).permute(1, 2, 0))
        read.set_title("as read,\n256 x 128", fontsize=9)
        # Patches of DINOv2: 14 pixels of its images are 8 of these.
        read.hlines(torch.arange(0, 257, 8) - 0.5, -0.5, 127.5, color="white", linewidth=0.3)
        read.vlines(torch.arange(0, 129, 8) - 0.5, -0.5, 255.5, color="white", linewidth=0.3)
        for axes in (given, read):
            axes.set(xticks=[], yticks=[])
    figure.savefig(options.output)


def crops() -> list[Tensor]:
    """Crops ``[3, 1, H, W]`` of a walker with painted parts, uint8."""
    walk = render_walk(
        sample_identity(3), frames=9, view=54.0, size=(256, 176), phase=0.1, parsing=True
    )
    assert walk.parsing is not None
    painted = COLOURS[walk.parsing.long()].permute(3, 0, 1, 2)
    return [
        painted[:, frame : frame + 1, top:bottom, left:right]
        for frame, left, right, top, bottom in BOXES
    ]


if __name__ == "__main__":
    main()
