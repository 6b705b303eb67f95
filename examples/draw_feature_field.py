"""Draw gait feature fields of a painted walker, and what suppression of texture leaves of them."""

import argparse

import torch
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from torch import Tensor

import gaitzoo
from gaitzoo.synthetic import render_walk, sample_identity

SKIN, SHIRT, TROUSERS, SHOE = (214, 170, 140), (60, 96, 160), (58, 58, 66), (30, 30, 34)
# Ground, head, torso, arms, hands, legs, feet, dress.
COLOURS = torch.tensor(
    (
        *((168, 174, 170), SKIN, SHIRT, SHIRT, SHIRT, SKIN, SKIN, TROUSERS, TROUSERS),
        *(SHOE, SHOE, (150, 60, 70)),
    )
)
STRIPE = torch.tensor((235, 235, 225))
# How much alike two pixels must be: the larger, the more the likest pixel of a window counts.
SHARPNESS = 60.0
FRAME = 3


def main() -> None:
    """Read the command line, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="feature_field.png", help="picture to write")
    options = parser.parse_args()
    frames, mask = striped_walk()
    features = unit_features(frames)
    query, key = SHARPNESS * features, features
    matching = gaitzoo.LocalFeatureMatching(3)
    seen = mask[:, None]
    static = matching(query, key) * seen
    dynamic = matching(query, key.roll(-1, dims=2)) * seen
    plain = gaitzoo.TextureSuppression(share=1.0).train()(static, mask) * seen
    figure = Figure(figsize=(9.6, 3.9), dpi=110, layout="constrained")
    columns = figure.subplots(1, 5, width_ratios=(1, 1, 1, 1, 0.8))
    columns[0].imshow(frames[0, :, FRAME].permute(1, 2, 0))
    columns[0].set_title("frame", fontsize=9)
    for axes, field, title in (
        (columns[1], static, "static field,\nradius 3"),
        (columns[2], plain, "its texture\nsuppressed"),
        (columns[3], dynamic, "dynamic field,\nto the next frame"),
    ):
        axes.imshow(coloured(field[0, :, FRAME]))
        axes.set_title(title, fontsize=9)
    steps = torch.linspace(-3, 3, 61)
    down, right = torch.meshgrid(steps, steps, indexing="ij")
    columns[4].imshow(coloured(torch.stack([right, down])), extent=(-3, 3, 3, -3))
    columns[4].set_title("offset, pixels", fontsize=9)
    for axes in columns[:4]:
        axes.set(xticks=[], yticks=[])
    columns[4].set(xticks=(-3, 0, 3), yticks=(-3, 0, 3))
    figure.savefig(options.output)


def striped_walk() -> tuple[Tensor, Tensor]:
    """A walker in a striped shirt: colours ``[1, 3, T, 96, 48]`` in [0, 1] and the mask."""
    walk = render_walk(
        sample_identity(3), frames=9, view=90.0, size=(96, 48), phase=0.1, parsing=True
    )
    assert walk.parsing is not None
    labels = walk.parsing.long()
    colours = COLOURS[labels].float() / 255
    stripes = (labels >= 2) & (labels <= 4) & (torch.arange(96)[:, None] % 4 < 2)
    colours[stripes] = STRIPE.float() / 255
    return colours.permute(3, 0, 1, 2)[None], (labels > 0).float()[None]


def unit_features(colours: Tensor) -> Tensor:
    """Colours as vectors of one length: two resemble each other most where they are equal."""
    centred = (colours - 0.5) / 3**0.5
    rest = (1 - centred.square().sum(dim=1, keepdim=True)).clamp(min=0).sqrt()
    return torch.cat([centred, rest], dim=1) * 2


def coloured(field: Tensor) -> Tensor:
    """Directions ``[2, H, W]`` as hues and lengths as saturation, ``[H, W, 3]``."""
    right, down = field
    hue = (torch.atan2(down, right) / (2 * torch.pi)) % 1
    length = (field.norm(dim=0) / 2).clamp(max=1)
    return torch.as_tensor(hsv_to_rgb(torch.stack([hue, length, torch.ones_like(hue)], -1).numpy()))


if __name__ == "__main__":
    main()
