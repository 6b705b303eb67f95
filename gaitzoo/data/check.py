"""A look at silhouettes before they are embedded: what is wrong, doubtful, or put right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gaitzoo.data.content import FAINT, Finding
from gaitzoo.data.frames import as_grey_levels, check_frames
from gaitzoo.data.silhouettes import SilhouetteTransform

__all__ = ["SilhouetteReport", "check_silhouettes", "frame_ranges"]

_CYCLE = 25  # frames of a gait cycle at 25 per second, about
_FEW_ROWS = 32  # of a person; models read twice as many and more
_JUMP = 2.0  # of the lit area, from frame to frame
_SEVERITIES = ("refused", "warning", "note")


@dataclass(frozen=True)
class SilhouetteReport:
    """Findings of one clip, the gravest first; ``str`` gives a table.

    Args:
        num_frames: T; 0 where the input is no clip.
        size: Height and width in pixels.
        findings: What was found; empty = nothing to say.
    """

    num_frames: int
    size: tuple[int, int]
    findings: tuple[Finding, ...]

    @property
    def is_usable(self) -> bool:
        """Whether models take the clip."""
        return all(finding.severity != "refused" for finding in self.findings)

    @property
    def is_clean(self) -> bool:
        """Whether models take the clip without a warning."""
        return all(finding.severity == "note" for finding in self.findings)

    @property
    def worst_frames(self) -> tuple[int, ...]:
        """Numbers of the frames of the gravest finding that is about some of them."""
        return next((finding.frames for finding in self.findings if finding.frames), ())

    def __str__(self) -> str:
        height, width = self.size
        lines = [f"{self.num_frames} frames of {height} x {width}: {self.summary()}"]
        for finding in self.findings:
            about = f" [frames {frame_ranges(finding.frames)}]" if finding.frames else ""
            lines.append(f"  {finding.severity:8} {finding.kind}: {finding.text}{about}")
        return "\n".join(lines)

    def summary(self) -> str:
        """One word: ``"refused"``, ``"doubtful"`` or ``"fine"``.

        Example:
            >>> SilhouetteReport(9, (64, 44), ()).summary()
            'fine'
        """
        if not self.is_usable:
            return "refused"
        return "fine" if self.is_clean else "doubtful"


def check_silhouettes(
    frames: Tensor | np.ndarray, *, input_size: tuple[int, int] = (64, 44)
) -> SilhouetteReport:
    """Looks at one clip as a model's transform would, and lists what it finds.

    Args:
        frames: ``[T, H, W]``, as for :func:`gaitzoo.embed`: raw masks, normalised or ready frames,
            uint8 in 0..255, masks, or floats in [0, 1].
        input_size: Height and width that the model reads.

    Returns:
        The report. What models refuse is a finding here, not an error.

    Raises:
        TypeError: If ``frames`` is no tensor or array of plain numbers.

    Example:
        >>> labels = torch.zeros(30, 240, 320, dtype=torch.uint8)
        >>> labels[:, 50:200, 100:140] = 12
        >>> report = check_silhouettes(labels)
        >>> report.summary(), [finding.kind for finding in report.findings]
        ('refused', ['class ids'])
    """
    found: list[Finding] = []
    shape = [int(size) for size in getattr(frames, "shape", ())]
    try:
        aligned = SilhouetteTransform(input_size).examine(frames, found)
    except ValueError as error:
        if all(finding.severity != "refused" for finding in found):
            found.append(Finding("values", "refused", str(error)))
    else:
        levels = as_grey_levels(check_frames(frames, []))
        inverted = any(finding.kind == "inverted" for finding in found)
        is_raw = list(aligned.shape[1:]) != shape[1:] and shape[1] != shape[2]
        found += _looks(255 - levels if inverted else levels, len(aligned), is_raw)
    found.sort(key=lambda finding: _SEVERITIES.index(finding.severity))
    count, height, width = shape if len(shape) == 3 else (0, 0, 0)
    return SilhouetteReport(count, (height, width), tuple(found))


def _looks(frames: Tensor, kept: int, is_raw: bool) -> list[Finding]:
    """Findings that no transform cares about."""
    found = []
    if kept < _CYCLE:
        text = (
            f"A gait cycle takes about {_CYCLE} frames at 25 per second, got {kept} with a person; "
            f"longer clips are recognised better."
        )
        found.append(Finding("short", "note", text))
    rows = frames.amax(2).cpu() >= FAINT
    areas = torch.stack([(frame > 127).sum() for frame in frames]).cpu().double()
    seen = areas > 0
    if not is_raw or not seen.any():
        return found
    height = rows[seen].sum(1).double().median()
    if height < _FEW_ROWS:
        text = (
            f"The person is about {int(height)} pixels high and gets blurred when enlarged; film "
            f"from nearer, or with more pixels."
        )
        found.append(Finding("small", "note", text))
    cut = seen & (rows[:, 0] ^ rows[:, -1])  # tight crops touch both
    if cut.any():
        text = "The person touches the upper or lower edge: head or feet may be cut off."
        found.append(Finding("cut off", "note", text, tuple(cut.nonzero().flatten().tolist())))
    ratio = areas[1:] / areas[:-1].clamp(min=1)
    jumps = seen[1:] & seen[:-1] & ((ratio > _JUMP) | (ratio < 1 / _JUMP))
    if jumps.any():
        text = "The lit area doubles or halves from one frame to the next, as in flickering masks."
        places = tuple((jumps.nonzero().flatten() + 1).tolist())
        found.append(Finding("flicker", "note", text, places))
    return found


def frame_ranges(numbers: tuple[int, ...]) -> str:
    """Numbers of frames in words, the first few ranges.

    Args:
        numbers: In rising order.

    Example:
        >>> frame_ranges((0, 1, 2, 3, 7))
        '0-3, 7'
    """
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    words = ["-".join(map(str, part)) for part in parts]
    return ", ".join(words[:6]) + (", ..." if len(words) > 6 else "")
