"""Draw the 15 corruptions of RobustGait on a walker, with what a segmentation makes of them.

    python examples/draw_corruptions.py --out docs/images/corruptions.png

Each cell: the same frame at severity 1 and at severity 5, each beside its mask.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from gaitzoo.data.corruptions import GROUPS, corruption
from gaitzoo.synthetic import find_warm_colours, paint_walk, render_walk, sample_identity

SIZE = (128, 80)
COLUMNS = 3


def main() -> None:
    """Reads the command line and draws."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("corruptions.png"))
    parser.add_argument("--frame", type=int, default=14, help="frame of 20 to show")
    options = parser.parse_args()
    walk = render_walk(sample_identity(3), frames=20, view=54.0, size=SIZE, aligned=False)
    video = paint_walk(walk.silhouettes, seed=1)
    names = [name for group in GROUPS.values() for name in group]
    rows = -(-len(names) // COLUMNS)
    figure = Figure(figsize=(3.6 * COLUMNS, 1.7 * rows), layout="constrained")
    for place, name in enumerate(names):
        strip = []
        for severity in (1, 5):
            # Frames are about half as high as those that the darkness is published for.
            more: dict[str, Any] = {"radius": 187.0} if name == "low_light" else {}
            generator = torch.Generator().manual_seed(severity)
            spoilt = corruption(name, severity, generator=generator, **more)(video)
            mask = find_warm_colours(spoilt)[options.frame]
            strip += [spoilt[options.frame], mask.expand(3, -1, -1)]
        axes = figure.add_subplot(rows, COLUMNS, place + 1)
        axes.imshow(torch.cat(strip, 2).permute(1, 2, 0).numpy())
        axes.set_title(name.replace("_", " "), fontsize=9)
        axes.axis("off")
    figure.savefig(options.out, dpi=90)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
