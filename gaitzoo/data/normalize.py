"""Raw masks cleaned, cropped, resized and centred; the work behind ``normalize_silhouettes``."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gaitzoo.data.bodies import OTHER, PERSON, SPECK, erase, find_pieces, judge
from gaitzoo.data.content import (
    Finding,
    check_greys,
    histogram,
    is_compressed,
    is_inverted,
    refuse,
)
from gaitzoo.data.frames import to_grey_levels

__all__ = ["EMPTY_GREY_SUM", "Component", "bright_on_black", "normalize_frames"]

Component = Literal["largest", "all"]

EMPTY_GREY_SUM = 10_000
"""Frames whose grey values (0..255) add up to no more than this hold no usable silhouette."""

_LOSS = 64  # rings around what is white are darker, also in strongly compressed images
_PIXELS_AT_ONCE = 2**22  # of frames that are looked at together


def bright_on_black(frames: Tensor, found: list[Finding]) -> Tensor:
    """Inverts frames of a dark person on a bright ground.

    Args:
        frames: ``[T, H, W]``, uint8 or floats in [0, 1].
        found: A finding is added where they were inverted.
    """
    if not is_inverted(frames):
        return frames
    found.append(
        Finding(
            "inverted",
            "warning",
            "expected a person bright on black, got a dark figure on a bright ground; the frames "
            "were inverted. Give 255 - frames (booleans: ~frames) to say so yourself.",
        )
    )
    return 255 - frames if frames.dtype == torch.uint8 else 1 - frames


def normalize_frames(
    frames: Tensor, size: int, component: Component | None, found: list[Finding]
) -> Tensor:
    """Cleans, crops, resizes and centres frames; see :func:`gaitzoo.normalize_silhouettes`.

    Args:
        frames: ``[T, H, W]`` uint8, bright on black.
        size: Height and width of the result.
        component: Which connected pieces of a frame are the person.
        found: What is found is added.

    Returns:
        ``[T', size, size]`` uint8.

    Raises:
        ValueError: If there is no silhouette in any frame, or the frames are pictures.
    """
    levels = histogram(frames)
    check_greys(levels, len(frames), found)
    compressed = component != "all" and is_compressed(levels)
    if compressed:
        found.append(
            Finding(
                "compressed",
                "note",
                f"Faint pixels (levels below {_LOSS}), as lossy compression leaves them, were "
                "blackened. Save masks without loss (PNG).",
            )
        )
    seen = _Seen(len(frames))
    normalized = []
    largest_sum = 0
    # Few frames at a time: the copies of large ones would take many times their memory.
    for group in frames.split(max(1, _PIXELS_AT_ONCE // frames[0].numel())):
        if compressed:
            group = group.masked_fill(group < _LOSS, 0)
        if component != "all":
            group = _person_alone(group, component, seen)
        grey_sums = group.sum(dim=(1, 2), dtype=torch.int64).cpu()
        largest_sum = max(largest_sum, int(grey_sums.max()))
        lit_rows = group.amax(dim=2).cpu() > 0
        for frame, rows, grey_sum in zip(group, lit_rows, grey_sums, strict=True):
            if grey_sum > EMPTY_GREY_SUM:
                normalized.append(_normalize_frame(frame, rows, size))
            else:
                seen.empty.append(seen.frames)
            seen.frames += 1
    if not normalized:
        refuse(
            found,
            "empty",
            f"expected at least one frame with a silhouette, got {len(frames)} frames whose grey "
            f"levels all add up to {EMPTY_GREY_SUM} or less (largest sum {largest_sum}). "
            f"Check the segmentation: the person must be bright on black.",
        )
    if not levels[:128].any():
        refuse(
            found,
            "empty",
            f"expected silhouettes, white on black, got {len(frames)} frames that are bright all "
            f"over. Check the segmentation.",
        )
    seen.report(found)
    return torch.stack(normalized)


class _Seen:
    """What was seen in the frames of a clip of ``total`` frames, by their numbers."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.frames = 0  # looked at so far
        self.empty: list[int] = []
        self.specks: list[int] = []
        self.others: list[int] = []
        self.wide: list[int] = []

    def report(self, found: list[Finding]) -> None:
        """Adds findings."""
        kept = self.total - len(self.empty)
        if self.empty:
            text = "Frames without a person were left out."
            found.append(Finding("empty frames", "note", text, tuple(self.empty)))
        if self.specks:
            text = "Specks and small things beside the person were removed."
            found.append(Finding("specks", "note", text, tuple(self.specks)))
        if self.others:
            text = (
                f"expected one person, got several bodies in {len(self.others)} of "
                f"{self.total} frames; the largest of each frame was kept. Give each person a "
                f'mask of its own; normalize_silhouettes(frames, component="all") keeps all.'
            )
            found.append(Finding("several bodies", "warning", text, tuple(self.others)))
        wide = sorted({*self.wide}.difference(self.empty))
        if 2 * len(wide) > kept:
            text = (
                f"expected upright people, got a figure wider than high in {len(wide)} of "
                f"{self.total} frames. Turn frames that lie on their side (frames.rot90(1, (1, 2)))"
                f", and give people who touch a mask each."
            )
            found.append(Finding("wide", "warning", text, tuple(wide)))


def _person_alone(frames: Tensor, component: Component | None, seen: _Seen) -> Tensor:
    """Blackens all that is not the person; ``seen.frames`` is the number of the first frame."""
    pixels = frames.cpu().contiguous().numpy()
    pieces = find_pieces(pixels > 0)
    kinds = judge(pieces)
    top, bottom, left, right = pieces.box.T
    numbers = pieces.frame + seen.frames
    seen.wide += numbers[(kinds == PERSON) & (right - left > bottom - top)].tolist()
    if component is None:
        seen.specks += np.unique(numbers[kinds == SPECK]).tolist()
        seen.others += np.unique(numbers[kinds == OTHER]).tolist()
        unwanted = (kinds == SPECK) | (kinds == OTHER)
    else:
        unwanted = kinds != PERSON
    if not unwanted.any():
        return frames
    pixels = pixels.copy()
    erase(pixels, pieces, unwanted)
    return torch.from_numpy(pixels).to(frames.device)


def _normalize_frame(frame: Tensor, lit_rows: Tensor, size: int) -> Tensor:
    """Crops, resizes and centres one frame ``[H, W]`` whose ``lit_rows [H]`` hold the person."""
    rows = lit_rows.nonzero()
    cropped = frame[int(rows[0]) : int(rows[-1]) + 1].float()
    height, width = cropped.shape
    resized = F.interpolate(
        cropped[None, None],
        size=(size, max(1, size * width // height)),
        mode="bicubic",
        align_corners=False,
    )
    resized = to_grey_levels(resized)[0, 0]
    cumulative = resized.sum(dim=0, dtype=torch.int64).cumsum(dim=0)
    center = int((2 * cumulative <= cumulative[-1]).sum())  # columns before half the total
    padded = F.pad(resized, (size // 2, size // 2))
    # The window starts at image column center - size // 2, which is column center after padding.
    return padded[:, center : center + size]
