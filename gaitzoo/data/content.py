"""What stands in silhouettes: class ids, photographs, inverted masks, traces of compression.

Segmenters, annotation tools and cameras write masks in many ways. What is found here is put right,
warned of, or refused by :mod:`gaitzoo.data.silhouettes`; :func:`gaitzoo.check_silhouettes` lists
it. Grey levels are judged by one histogram of the clip, which Pillow counts without the copies
that numpy and torch would make.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal, NoReturn

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gaitzoo.layers.checks import LOWEST_WHITE

__all__ = [
    "FAINT",
    "WHITE",
    "Finding",
    "SilhouetteWarning",
    "check_class_ids",
    "check_greys",
    "histogram",
    "is_compressed",
    "is_inverted",
    "is_normalized",
    "refuse",
    "warn_of",
]

FAINT = 32
"""Grey levels below this are leftovers of compression where there are many of them."""
WHITE = 224
"""Grey levels from here on are white; those between ``FAINT`` and it are outlines, or a picture."""
_DIM = 200
_FEW_LEVELS = 32
_VOID = 64  # class ids of people are below it
_SMALL_PART = 0.05  # of the lit pixels; less may be stray pixels
_MOST_GREY = 0.8  # of the lit pixels; more is a picture
_MUCH_GREY = 0.5
_SMALL = 500  # lit pixels of a frame; of fewer, many are outline
_BRIGHT_BORDER = 0.75
_SMALLEST_SHARE = 0.001  # of a frame that a person covers
_FILLED = 0.85  # of the height of normalised frames
_OFF_CENTRE = 0.1  # of the height


class SilhouetteWarning(UserWarning):
    """Silhouettes that are used, though not quite as they are, or though they look doubtful."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in a clip that its user should know.

    Args:
        kind: One or two words.
        severity: ``"refused"`` (such clips raise ``ValueError``), ``"warning"`` (they are used,
            with a :class:`SilhouetteWarning`), or ``"note"`` (they are used without a word).
        text: What was expected, what came, and the fix.
        frames: Numbers of the frames that it is about; empty = the clip.
    """

    kind: str
    severity: Literal["refused", "warning", "note"]
    text: str
    frames: tuple[int, ...] = ()


def refuse(found: list[Finding], kind: str, text: str) -> NoReturn:
    """Adds a finding and raises it.

    Args:
        found: Findings so far.
        kind: See :class:`Finding`.
        text: See :class:`Finding`.

    Raises:
        ValueError: Always.
    """
    found.append(Finding(kind, "refused", text))
    raise ValueError(text)


def warn_of(found: list[Finding]) -> None:
    """Warns of the findings that are warnings.

    Args:
        found: Findings of a clip.

    Example:
        >>> warn_of([Finding("specks", "note", "specks removed")])
    """
    for finding in found:
        if finding.severity == "warning":
            warnings.warn(finding.text, SilhouetteWarning, stacklevel=4)


def histogram(frames: Tensor) -> np.ndarray:
    """Counts the grey levels of a clip.

    Args:
        frames: ``[T, H, W]`` uint8.

    Returns:
        ``[256]`` int64.

    Example:
        >>> histogram(torch.tensor([[[0, 0, 255]]], dtype=torch.uint8))[[0, 255]].tolist()
        [2, 1]
    """
    counts = np.zeros(256, np.int64)
    if frames.device.type != "cpu":
        for frame in frames:
            counts += torch.bincount(frame.flatten(), minlength=256).cpu().numpy()
        return counts
    pictures = [frames.flatten(0, 1)] if frames.is_contiguous() else list(frames)
    for picture in pictures:
        counts += np.asarray(Image.fromarray(picture.numpy()).histogram())
    return counts


def check_class_ids(levels: np.ndarray, found: list[Finding]) -> None:
    """Refuses label maps; whole numbers that stay far below 255 are no grey silhouettes.

    Args:
        levels: ``[256]``, see :func:`histogram`; not of masks of 0 and 1.
        found: Findings so far; one of dim frames may be added.

    Raises:
        ValueError: If the values are class ids, also with 255 for pixels without a class.
    """
    used = np.flatnonzero(levels)
    highest = int(used[-1])
    ids = [int(level) for level in used if 0 < level < LOWEST_WHITE]
    low, high = levels[1:_VOID].sum(), levels[_VOID:].sum()
    # However much has no class: outlines and compression leave levels just below 255 too.
    alone = not levels[_VOID:-1].any() and low > _SMALL_PART * high
    with_void = len(used) <= _FEW_LEVELS and levels[0] > 0 and (low > high or alone)
    if 1 < highest < LOWEST_WHITE or with_void:
        some = ", ".join(map(str, ids[:8])) + (", ..." if len(ids) > 8 else "")
        refuse(
            found,
            "class ids",
            f"expected silhouettes in 0..255 or masks of 0 and 1, got whole numbers {some} "
            f"(highest {highest}), which look like class ids of a label map. Give the mask of the "
            f"person, frames == id, or frames > 0 for all body parts; scale a dim grey mask to "
            f"0..255.",
        )
    if 1 < highest < _DIM:
        found.append(
            Finding(
                "dim",
                "warning",
                f"expected silhouettes whose brightest pixels are white (255), got at most "
                f"{highest}: models see a faint person. Give a mask (frames > {highest // 2}).",
            )
        )


def check_greys(levels: np.ndarray, num_frames: int, found: list[Finding]) -> None:
    """Refuses pictures: of a silhouette, only the outline is neither black nor white.

    Args:
        levels: ``[256]``, see :func:`histogram`, of frames bright on black.
        num_frames: T.
        found: Findings so far; one of grey frames may be added.

    Raises:
        ValueError: If most lit pixels are grey.
    """
    lit = levels[FAINT:].sum()
    share = levels[FAINT:WHITE].sum() / max(1, lit)
    text = (
        f"expected silhouettes, white on black, got frames in which {share:.0%} of the lit pixels "
        f"are grey (levels {FAINT} to {WHITE - 1}), as in a photograph or a video. Segment the "
        f"person first and give the mask; make a mask of soft or dim silhouettes (frames > 127)."
    )
    if share > _MOST_GREY:
        refuse(found, "grey picture", text)
    if share > _MUCH_GREY and lit > _SMALL * num_frames:
        found.append(Finding("grey", "warning", text))


def is_compressed(levels: np.ndarray) -> bool:
    """Whether faint pixels are many enough to be traces of compression, not of a soft outline.

    Along a sharp outline grey levels are spread evenly, along a blurred one nearly so: those
    below ``FAINT`` are fewer than those between it and ``WHITE``.

    Args:
        levels: ``[256]``, see :func:`histogram`.
    """
    return bool(levels[1:FAINT].sum() > levels[FAINT:WHITE].sum())


def is_inverted(frames: Tensor) -> bool:
    """Whether a dark figure stands before a bright ground.

    Args:
        frames: ``[T, H, W]``, uint8 or floats in [0, 1].
    """
    half = 127 if frames.dtype == torch.uint8 else 0.5
    edges = (frames[:, 0], frames[:, -1], frames[:, :, 0], frames[:, :, -1])
    bright = sum(int((edge > half).sum()) for edge in edges)
    if bright < _BRIGHT_BORDER * sum(edge.numel() for edge in edges):
        return False
    lit = sum(int((frame > half).sum()) for frame in frames)
    return 0.5 * frames.numel() < lit < (1 - _SMALLEST_SHARE) * frames.numel()


def is_normalized(frames: Tensor, *, strict: bool = True) -> bool:
    """Whether the person fills the height of the frames and stands in their middle.

    Args:
        frames: ``[T, H, W]``, uint8 or floats in [0, 1], small.
        strict: Whether the person must; otherwise, whether it may well be so (noise, limbs cut
            off by segmentation).

    Example:
        >>> frames = torch.zeros(1, 64, 64)
        >>> frames[:, :, 20:40] = 1
        >>> is_normalized(frames), is_normalized(frames.roll(15, dims=2))
        (True, False)
    """
    height, width = frames.shape[1:]
    lit = frames >= (FAINT if frames.dtype == torch.uint8 else FAINT / 255)
    rows = lit.any(2)
    seen = rows.any(1)
    if not seen.any():
        return True
    rows = rows[seen].int()
    filled = height - rows.argmax(1) - rows.flip(1).argmax(1)
    mass = frames.sum(1, dtype=torch.float32)[seen].cumsum(1)
    centre = (2 * mass <= mass[:, -1:]).sum(1)
    off = (centre - width // 2).abs()
    if strict:
        enough, most = _FILLED * height, _OFF_CENTRE * height
    else:
        enough, most = 0.5 * height, 0.25 * width
    return bool(filled.median() >= enough and off.median() <= most)
