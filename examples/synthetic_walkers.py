"""Draw a contact sheet of synthetic walkers: one gait cycle, rows of views and conditions."""

import argparse
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from gaitzoo.synthetic import SegmentationNoise, render_walk, sample_identity

VIEWS = (0, 36, 72, 90, 108, 144, 180)
TITLE_WIDTH, GAP = 64, 2


def rows_of_sheet(seed: int) -> list[tuple[str, dict[str, Any]]]:
    """Titles, and what each row changes about the walk."""
    bad = SegmentationNoise(holes=0.5, ragged=0.6, cut_limbs=0.6, scale_jitter=0.3)
    rows: list[tuple[str, dict[str, Any]]] = [(f"view {view}", {"view": view}) for view in VIEWS]
    rows += [(f"bag {walk}", {"condition": "bag", "seed": walk}) for walk in (0, 3, 2)]
    rows += [("bag, view 36", {"condition": "bag", "seed": 3, "view": 36})]
    rows += [(f"coat {walk}", {"condition": "coat", "seed": walk}) for walk in (0, 1)]
    rows += [("coat, view 0", {"condition": "coat", "seed": 1, "view": 0})]
    rows += [("noise", {"noise": bad}), ("fast", {"speed": 1.4}), ("slow", {"speed": 0.6})]
    others = range(seed + 1, seed + 4)
    rows += [(f"person {other}", {"identity": sample_identity(other)}) for other in others]
    return rows


def main() -> None:
    """Read the command line, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="synthetic_walkers.png", help="picture to write")
    parser.add_argument("--person", type=int, default=7, help="seed of the person who walks")
    parser.add_argument("--height", type=int, default=128, help="height of a frame, pixels")
    parser.add_argument("--frames", type=int, default=12, help="frames in a row")
    options = parser.parse_args()

    person = sample_identity(options.person)
    cycle = round(25 / person.cadence)  # clips have 25 frames a second
    height, width = options.height, options.height * 11 // 16
    rows = rows_of_sheet(options.person)
    sheet_width = TITLE_WIDTH + options.frames * (width + GAP)
    sheet = Image.new("L", (sheet_width, len(rows) * (height + GAP)), 60)
    draw = ImageDraw.Draw(sheet)
    moments = np.linspace(0, cycle - 1, options.frames).round().astype(int)
    for row, (title, changes) in enumerate(rows):
        usual: dict[str, Any] = {"identity": person, "phase": 0.0, "elevation": 4.0}
        walk = render_walk(**(usual | changes), frames=cycle, size=(height, width))
        top = row * (height + GAP)
        draw.text((4, top + 4), title.replace(", ", "\n"), fill=255)
        for column, moment in enumerate(moments):
            picture = Image.fromarray(walk.silhouettes[moment].numpy())
            sheet.paste(picture, (TITLE_WIDTH + column * (width + GAP), top))
    sheet.save(options.output)
    print(f"wrote {options.output}: {sheet.width} x {sheet.height} pixels")


if __name__ == "__main__":
    main()
