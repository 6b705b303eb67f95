"""Draw label maps of body parts beside the silhouettes that they belong to, of three walks."""

import argparse

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from gaitzoo.synthetic import render_walk, sample_identity

PARTS = (
    "background", "head", "torso", "left arm", "right arm", "left hand", "right hand",
    "left leg", "right leg", "left foot", "right foot", "dress",
)  # fmt: skip
WALKS = (
    ("from the side", 90.0, "normal"),
    ("towards the camera", 0.0, "normal"),
    ("from behind, long coat", 144.0, "coat"),
)


def main() -> None:
    """Read the command line, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="label_maps.png", help="picture to write")
    options = parser.parse_args()
    pairs = matplotlib.colormaps["tab20"](np.arange(20))
    # Left and right are light and dark of one colour.
    colours = ListedColormap([(1, 1, 1, 1), *pairs[[6, 14, 1, 0, 3, 2, 5, 4, 9, 8, 12]]])
    figure = Figure(figsize=(11, 3.9), dpi=110, layout="constrained")
    columns = figure.subplots(1, 2 * len(WALKS))
    for i, (title, view, condition) in enumerate(WALKS):
        walk = render_walk(
            sample_identity(7),
            frames=5,
            view=view,
            condition=condition,
            size=(128, 88),
            phase=0.85,
            seed=3,
            parsing=True,
        )
        assert walk.parsing is not None
        silhouette, labels = columns[2 * i : 2 * i + 2]
        silhouette.imshow(walk.silhouettes[4], cmap="gray")
        labels.imshow(walk.parsing[4], cmap=colours, vmin=0, vmax=11, interpolation="nearest")
        silhouette.set_title(f"{title}:\nsilhouette", fontsize=9)
        labels.set_title("label map", fontsize=9)
        for axes in (silhouette, labels):
            axes.set(xticks=[], yticks=[])
    legend = [
        Patch(facecolor=colours(i), edgecolor="gray", label=f"{i} {part}")
        for i, part in enumerate(PARTS)
    ]
    figure.legend(handles=legend, loc="outside lower center", ncols=6, fontsize=9, frameon=False)
    figure.savefig(options.output)


if __name__ == "__main__":
    main()
