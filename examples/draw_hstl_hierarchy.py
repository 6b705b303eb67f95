"""Draw which rows of a frame belong to which part, level by level, for HSTL's hierarchies."""

import argparse
from itertools import pairwise

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import gaitzoo
from gaitzoo.synthetic import render_walk, sample_identity

TAGS = {"casiab": "casiab", "casiab_17": "casiab_17", "oumvlp": "oumvlp", "gait3d": "gait3d, grew"}


def columns_of(model: gaitzoo.HSTL) -> list[tuple[str, list[int]]]:
    """Title of each pooling, and the heights of its regions in rows of the frame."""
    columns, scale = [], 1
    for number, level in enumerate(model.hierarchy, start=1):
        heights = [rows * scale for rows in level.heights]
        names = [f"level {number}", f"level {number}\nafter FTA"]
        columns += [(name, heights) for name in names[: 1 + level.shorten]]
        scale *= 2 if level.halve else 1
    if isinstance(model.last_pool, gaitzoo.ASTP):
        last = [rows * scale for rows in model.last_pool.heights]
    else:
        last = [64 // model.last_pool.num_parts] * model.last_pool.num_parts
    return [*columns, ("last", last)]


def draw_column(axes: Axes, silhouette: np.ndarray, heights: list[int], first_part: int) -> None:
    """Paint a silhouette in the colours of its regions; number the parts at the right."""
    rows, width = silhouette.shape
    edges = np.cumsum([0, *heights])
    for part, (top, bottom) in enumerate(pairwise(edges), start=first_part):
        # One colour for one place of the body, whatever the level.
        colour = np.array(matplotlib.colormaps["turbo"](0.1 + 0.8 * (top + bottom) / 2 / rows)[:3])
        strength = 0.16 + 0.84 * silhouette[top:bottom, :, None]
        axes.imshow(1 - strength * (1 - colour), extent=(0, width, bottom, top), aspect="auto")
        axes.axhline(bottom, color="white", linewidth=1.2 if len(heights) <= 8 else 0.4)
        if len(heights) <= 8:
            axes.text(width + 2, (top + bottom) / 2, str(part), fontsize=7, va="center")
    if len(heights) > 8:
        each = "a row each" if heights[0] == 1 else f"{heights[0]} rows each"
        text = f"{first_part} to {first_part + len(heights) - 1}, {each}"
        axes.text(width + 2, rows / 2, text, fontsize=7, va="center", rotation=270)
    axes.set(xlim=(0, width), ylim=(rows, 0), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def main() -> None:
    """Read the command line, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="hstl_hierarchy.png", help="picture to write")
    options = parser.parse_args()
    silhouette = render_walk(sample_identity(7), frames=4, view=72.0).silhouettes[3].numpy() / 255
    figure = Figure(figsize=(12, 7.2), dpi=110, layout="constrained")
    blocks = figure.subfigures(2, 2, squeeze=False).flat
    for block, (tag, title) in zip(blocks, TAGS.items(), strict=True):
        with torch.device("meta"):
            model = gaitzoo.create_model(f"hstl.{tag}", num_classes=0)
        assert isinstance(model, gaitzoo.HSTL)
        columns, first = columns_of(model), 0
        block.suptitle(f"hstl: {title} ({model.num_parts} parts)", fontsize=11, fontweight="bold")
        for axes, (name, heights) in zip(block.subplots(1, 6), columns, strict=False):
            draw_column(axes, silhouette, heights, first)
            axes.set_title(name, fontsize=8)
            first += len(heights)
        for axes in block.axes[len(columns) :]:
            axes.set_visible(False)
        block.axes[0].set_yticks(range(0, 65, 16), labels=range(0, 65, 16), fontsize=7)
        block.axes[0].set_ylabel("rows of the frame", fontsize=8)
    figure.savefig(options.output)


if __name__ == "__main__":
    main()
