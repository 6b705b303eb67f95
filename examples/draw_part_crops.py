"""Draw what teacher and student of FoundationGait's pretraining see of one walk."""

import argparse

import numpy as np
from matplotlib.figure import Figure

from gaitzoo.synthetic import render_walk, sample_identity

ROWS = (("teacher:\nwhole", 1, 0), ("student:\n2 bands", 2, 0), ("4 bands", 4, 0),
        ("4 bands,\nmoved", 4, 8), ("8 bands", 8, 0), ("8 bands,\nmoved", 8, 4))  # fmt: skip


def main() -> None:
    """Read the command line, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="part_crops.png", help="picture to write")
    options = parser.parse_args()
    walk = render_walk(sample_identity(7), frames=5, view=90.0, phase=0.85, seed=3)
    frame = walk.silhouettes[4].numpy()
    figure = Figure(figsize=(9, 3.4), dpi=110, layout="constrained")
    for column, (title, bands, moved) in zip(figure.subplots(1, len(ROWS)), ROWS, strict=True):
        height, gap = 64 // bands, 3
        padded = np.pad(frame, ((moved, moved), (0, 0)))
        for band, seen in enumerate(padded.reshape(-1, height, 44)):
            top = band * (height + gap)
            extent = (0, 44, top + height, top)
            column.imshow(seen, cmap="gray", vmin=0, vmax=255, extent=extent)
        column.set(xlim=(0, 44), ylim=(9 * (8 + gap), -2), aspect="equal")
        column.set_title(title, fontsize=9)
        column.axis("off")
    figure.savefig(options.output)


if __name__ == "__main__":
    main()
