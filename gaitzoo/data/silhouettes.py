"""From raw silhouettes to what a model reads: crop, resize, centre, cut the sides, scale.

Source: the pre-treatment that the published gait models were trained on, common to OpenGait
(https://github.com/ShiqiYu/OpenGait) and the code bases before it. Differs from it: torch
resizes instead of OpenCV; on the reference clips in the tests every pixel agrees within one
grey level. What that pre-treatment takes for granted (one person, bright on black, no specks, no
traces of compression) is looked for here, and put right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gaitzoo.data.bodies import OTHER, PERSON, SPECK, erase, find_pieces, judge
from gaitzoo.data.content import (
    FAINT,
    Finding,
    check_greys,
    histogram,
    is_compressed,
    is_inverted,
    is_normalized,
    refuse,
    warn_of,
)
from gaitzoo.data.frames import as_grey_levels, check_frames, to_grey_levels

__all__ = ["SilhouetteTransform", "create_transform", "normalize_silhouettes"]

Component = Literal["largest", "all"]

EMPTY_GREY_SUM = 10_000
"""Frames whose grey values (0..255) add up to no more than this hold no usable silhouette."""

_PIXELS_AT_ONCE = 2**22  # of frames that are looked at together
_FEWEST_FRAMES = 4  # fewer show no movement
_FAINTEST = 0.1  # brightest pixel of floats


def normalize_silhouettes(
    frames: Tensor | np.ndarray, size: int = 64, *, component: Component | None = None
) -> Tensor:
    """Crops every person to full height, resizes and centres: the field's usual pre-treatment.

    Per frame: drop it if its grey levels add up to at most 10000; keep the rows that hold
    anything; resize to height ``size`` with the sides in proportion (bicubic, no antialias); find
    the first column at which the cumulative grey sum passes half of the total; keep
    ``size // 2`` columns to either side of it, zeros where the image ends.

    Before that, masks are cleaned: those of a dark person on a bright ground are inverted, faint
    traces of compression are blackened, specks are removed, and of several bodies the largest is
    kept (of a person in pieces, all of them). Clean masks are not changed by it.

    Source: the pre-treatment of OpenGait (https://github.com/ShiqiYu/OpenGait). Differs: torch's
    bicubic resize instead of OpenCV's, at most one grey level apart on the reference clips; the
    cleaning.

    Args:
        frames: ``[T, H, W]`` masks of any size, person bright on black; booleans, integers in
            0..255 (only 0 and 1: taken as a mask), or floats in [0, 1].
        size: Height and width of the result in pixels, even; 64 for most published models.
        component: Which connected pieces of a frame are the person: ``"largest"`` = that one
            alone, ``"all"`` = everything lit, as in the published pre-treatment; ``None`` = the
            largest and what stands close to it as a limb or the other half of a body does, with
            a warning where other bodies were left out.

    Returns:
        ``[T', size, size]`` uint8, 0..255, on the device of ``frames``; ``T' <= T`` because
        frames without a person are dropped.

    Raises:
        TypeError: If ``frames`` is no tensor or array of plain numbers.
        ValueError: If shape, values, ``size`` or ``component`` are out of range, if every frame
            is empty, or if the frames are label maps or pictures.

    Warns:
        SilhouetteWarning: If masks were inverted, bodies left out, or the result is doubtful.

    Example:
        >>> masks = torch.zeros(6, 240, 320, dtype=torch.bool)
        >>> masks[:5, 50:200, 100:140] = True
        >>> normalize_silhouettes(masks).shape  # the sixth frame is empty
        torch.Size([5, 64, 64])
    """
    if not _is_even_length(size):
        raise ValueError(f"Expected an even size of 2 or more pixels, got {size!r}. Use 64 or 128.")
    if component not in ("largest", "all", None):
        raise ValueError(f'Expected component "largest", "all" or None, got {component!r}.')
    found: list[Finding] = []
    checked = _bright_on_black(check_frames(frames, found), found)
    normalized = _normalize_frames(as_grey_levels(checked), size, component, found)
    warn_of(found)
    return normalized


def _is_even_length(length: object) -> bool:
    """Tells whether ``length`` is an even positive int."""
    return type(length) is int and length >= 2 and length % 2 == 0


def _bright_on_black(frames: Tensor, found: list[Finding]) -> Tensor:
    """Inverts checked frames of a dark person on a bright ground."""
    if not is_inverted(frames):
        return frames
    found.append(
        Finding(
            "inverted",
            "warning",
            "Expected a person bright on black, got a dark figure on a bright ground; the frames "
            "were inverted. Give 255 - frames (booleans: ~frames) to say so yourself.",
        )
    )
    return 255 - frames if frames.dtype == torch.uint8 else 1 - frames


def _normalize_frames(
    frames: Tensor, size: int, component: Component | None, found: list[Finding]
) -> Tensor:
    """Normalises checked uint8 frames ``[T, H, W]``, bright on black, to ``[T', size, size]``."""
    levels = histogram(frames)
    check_greys(levels, found)
    compressed = is_compressed(levels)
    if compressed and levels[1:FAINT].any():
        found.append(
            Finding(
                "compressed",
                "note",
                f"Faint pixels (levels below {FAINT}), as lossy compression leaves them, were "
                "blackened. Save masks without loss (PNG).",
            )
        )
    seen = _Seen(len(frames))
    normalized = []
    largest_sum = 0
    # Few frames at a time: the copies of large ones would take many times their memory.
    for group in frames.split(max(1, _PIXELS_AT_ONCE // frames[0].numel())):
        if compressed:
            group = group.masked_fill(group < FAINT, 0)
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
            f"Expected at least one frame with a silhouette, got {len(frames)} frames whose grey "
            f"levels all add up to {EMPTY_GREY_SUM} or less (largest sum {largest_sum}). "
            f"Check the segmentation: the person must be bright on black.",
        )
    if not levels[:128].any():
        refuse(
            found,
            "empty",
            f"Expected silhouettes, white on black, got {len(frames)} frames that are bright all "
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
            text = "Specks, smaller than any limb, were removed."
            found.append(Finding("specks", "note", text, tuple(self.specks)))
        if self.others:
            text = (
                f"Expected one person, got other bodies or objects in {len(self.others)} of "
                f"{self.total} frames; the largest of each frame was kept. Give each person a "
                f'mask of its own; normalize_silhouettes(frames, component="all") keeps all.'
            )
            found.append(Finding("several bodies", "warning", text, tuple(self.others)))
        wide = sorted({*self.wide}.difference(self.empty))
        if 2 * len(wide) > kept:
            text = (
                f"Expected upright people, got a figure wider than high in {len(wide)} of "
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


@dataclass(frozen=True)
class SilhouetteTransform:
    """Brings silhouettes in any of the usual forms to the input of a model.

    Shape and content decide, for a model that reads ``(H, W)``:

    * ``[T, H, W]`` is ready and stays as it is;
    * ``[T, H, H]`` is normalised if the person fills the height and stands in the middle:
      ``(H - W) / 2`` columns are cut on either side;
    * all else is a raw mask: :func:`normalize_silhouettes`, then the cut. Frames without a person
      are dropped here, and only here.

    A dark person on a bright ground is inverted, with a warning, in each of these forms.

    Args:
        input_size: Height and width in pixels that the model reads; ``H >= W``, both even.
        normalized: Overrules the content: ``True`` = frames are ready or normalised and are cut
            at most, ``False`` = they are raw masks of whatever size; ``None`` = as above.

    Raises:
        ValueError: If ``input_size`` is not such a pair.

    Example:
        >>> transform = SilhouetteTransform((64, 44))
        >>> transform(torch.ones(30, 64, 64)).shape
        torch.Size([30, 64, 44])
    """

    input_size: tuple[int, int]
    normalized: bool | None = None

    def __post_init__(self) -> None:
        size = self.input_size
        is_pair = isinstance(size, (tuple, list)) and len(size) == 2
        if not is_pair or not all(map(_is_even_length, size)) or size[0] < size[1]:
            raise ValueError(
                f"Expected input_size as (height, width), even pixels with height >= width, "
                f"got {size!r}. Most gait models read (64, 44)."
            )
        object.__setattr__(self, "input_size", tuple(size))

    def align(self, frames: Tensor | np.ndarray) -> Tensor:
        """Crops, resizes and cuts, but leaves grey levels: a quarter of the memory of floats.

        Floats that need no resizing stay floats, so that nothing is rounded.

        Args:
            frames: ``[T, h, w]``; booleans, integers in 0..255 (only 0 and 1: taken as a mask),
                or floats in [0, 1].

        Returns:
            ``[T', H, W]`` on the device of ``frames``, uint8 in 0..255 or floats in [0, 1]; may
            share the memory of ``frames``.

        Raises:
            TypeError: If ``frames`` is no tensor or array of plain numbers.
            ValueError: If shape or values are out of range, all frames are empty, or they are
                label maps or pictures.

        Warns:
            SilhouetteWarning: If masks were inverted, bodies left out, or the result is doubtful.

        Example:
            >>> mask = torch.ones(2, 64, 64, dtype=torch.bool)
            >>> SilhouetteTransform((64, 44)).align(mask).dtype
            torch.uint8
        """
        found: list[Finding] = []
        aligned = self.examine(frames, found)
        warn_of(found)
        return aligned

    def examine(self, frames: Tensor | np.ndarray, found: list[Finding]) -> Tensor:
        """Aligns like :meth:`align`, but collects what it finds instead of warning.

        Args:
            frames: See :meth:`align`.
            found: Findings are added, also that for which frames are refused.

        Returns:
            See :meth:`align`.

        Raises:
            TypeError: See :meth:`align`.
            ValueError: See :meth:`align`.
        """
        height, width = self.input_size
        frames = _bright_on_black(check_frames(frames, found), found)
        shape = tuple(frames.shape[1:])
        is_ready = shape == (height, width) and self.normalized is not False
        is_square = shape == (height, height) and self.normalized is not False
        brightest = frames.max()
        if frames.is_floating_point() and 0 < brightest < _FAINTEST:
            refuse(
                found,
                "faint",
                f"Expected float silhouettes whose brightest pixels are 1, got at most "
                f"{float(brightest):.4f}. Masks of 0 and 1 are not divided by 255.",
            )
        if self.normalized and not (is_ready or is_square):
            raise ValueError(
                f"Expected normalised frames of {height} x {width} or {height} x {height} pixels "
                f"(normalized=True), got {shape[0]} x {shape[1]}. Leave normalized out."
            )
        if (is_ready or is_square) and brightest == 0:
            refuse(
                found,
                "empty",
                f"Expected at least one frame with a silhouette, got {len(frames)} black frames. "
                f"Check the segmentation, or leave the sequence out.",
            )
        if is_ready:
            if self.normalized is None and not is_normalized(frames, strict=False):
                found.append(_not_normalized(shape))
            return frames
        if not (is_square and (self.normalized or is_normalized(frames))):
            frames = _normalize_frames(as_grey_levels(frames), height, None, found)
            if len(frames) < _FEWEST_FRAMES:
                found.append(_few_frames(len(frames)))
        margin = (height - width) // 2
        return frames[:, :, margin : margin + width].contiguous()

    def __call__(self, frames: Tensor | np.ndarray) -> Tensor:
        """Aligns and scales to what ``model(silhouettes)`` reads.

        Args:
            frames: ``[T, h, w]``, see :meth:`align`.

        Returns:
            ``[T', H, W]`` float32 in [0, 1]; add the batch axis with ``[None]``.

        Raises:
            TypeError: See :meth:`align`.
            ValueError: See :meth:`align`.
        """
        aligned = self.align(frames)
        return aligned.float() if aligned.is_floating_point() else aligned.float() / 255


def _not_normalized(shape: tuple[int, ...]) -> Finding:
    text = (
        f"Expected a person who fills frames of the model's own size ({shape[0]} x {shape[1]}) in "
        f"height and stands in their middle, got one who does not; the frames were taken as they "
        f"are. Raw masks: create_transform(model, normalized=False); ready ones: normalized=True."
    )
    return Finding("not normalised", "warning", text)


def _few_frames(count: int) -> Finding:
    text = (
        f"Expected {_FEWEST_FRAMES} frames with a person or more, got {count}: so few show no gait. "
        f"A step takes about 13 frames at 25 per second."
    )
    return Finding("few frames", "warning", text)


def create_transform(
    model_or_cfg: object, *, normalized: bool | None = None
) -> SilhouetteTransform:
    """Makes the transform that fits a model or its pretrained configuration.

    Args:
        model_or_cfg: A model with ``pretrained_cfg.input_size``, or anything with
            ``input_size``, as (height, width) in pixels, also a mapping of
            :func:`gaitzoo.data.resolve_data_config`.
        normalized: See :class:`SilhouetteTransform`.

    Returns:
        The transform, frames of any usual form in, model input out.

    Raises:
        TypeError: If there is no ``input_size`` to read.
        ValueError: If ``input_size`` is no (height, width) pair.

    Example:
        >>> from types import SimpleNamespace
        >>> create_transform(SimpleNamespace(input_size=(64, 44)))
        SilhouetteTransform(input_size=(64, 44), normalized=None)
    """
    cfg = getattr(model_or_cfg, "pretrained_cfg", None)
    if isinstance(model_or_cfg, Mapping):
        input_size = model_or_cfg.get("input_size")
    else:
        input_size = getattr(model_or_cfg if cfg is None else cfg, "input_size", None)
    if input_size is None:
        raise TypeError(
            f"Expected a model with pretrained_cfg.input_size or an object with input_size, "
            f"got {type(model_or_cfg).__name__}. Pass create_model(name), or call "
            f"SilhouetteTransform((height, width)) directly."
        )
    return SilhouetteTransform(input_size, normalized)
