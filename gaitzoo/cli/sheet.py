"""Pictures of probes beside their matches."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from gaitzoo.data.atomic import whole_files
from gaitzoo.evaluation.pictures import Panel, contact_sheet, evenly_spaced
from gaitzoo.inference.identify import Match

__all__ = ["FRAMES_SHOWN", "MATCHES_SHOWN", "draw", "panel_of"]

FRAMES_SHOWN = 5
MATCHES_SHOWN = 3


def panel_of(
    frames: Tensor, name: str, match: Match | None = None, true_label: str | int | None = None
) -> Panel:
    """The panel of a probe, or of a match with a border by whether it is the right person."""
    frames = evenly_spaced(frames, FRAMES_SHOWN)
    if match is None:
        return Panel(frames, [name])
    distance = f"distance {match.distance:.4f}"
    if true_label is None:
        return Panel(frames, [name, distance])
    if match.label == true_label:
        return Panel(frames, [name, f"{distance}, same person"], "right")
    return Panel(frames, [name, f"{distance}, another person"], "wrong")


def draw(rows: list[list[Panel]], title: str, path: Path) -> None:
    """Writes a contact sheet."""
    sheet = contact_sheet(rows, title=title, headings=("probe", "nearest", "second", "third"))
    with whole_files(path) as unfinished:
        sheet.save(unfinished, "PNG")
