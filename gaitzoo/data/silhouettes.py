"""From raw silhouettes to what a model reads: crop, resize, centre, cut the sides, scale.

Source: the pre-treatment that the published gait models were trained on, common to OpenGait
(https://github.com/ShiqiYu/OpenGait) and the code bases before it. Differs from it: torch
resizes instead of OpenCV; on the reference clips in the tests every pixel agrees within one
grey level. What that pre-treatment takes for granted (one person, bright on black, no specks, no
traces of compression) is looked for here, and put right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from gaitzoo.data.content import Finding, is_normalized, refuse, warn_of
from gaitzoo.data.frames import as_grey_levels, check_frames
from gaitzoo.data.normalize import Component, bright_on_black, normalize_frames

__all__ = ["SilhouetteTransform", "normalize_silhouettes"]

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
        raise ValueError(f"expected an even size of 2 or more pixels, got {size!r}. Use 64 or 128.")
    if component not in ("largest", "all", None):
        raise ValueError(f'expected component "largest", "all" or None, got {component!r}.')
    found: list[Finding] = []
    checked = bright_on_black(check_frames(frames, found), found)
    normalized = normalize_frames(as_grey_levels(checked), size, component, found)
    warn_of(found)
    return normalized


def _is_even_length(length: object) -> bool:
    """Tells whether ``length`` is an even positive int."""
    return type(length) is int and length >= 2 and length % 2 == 0


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
                f"expected input_size as (height, width), even pixels with height >= width, "
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
        frames = bright_on_black(check_frames(frames, found), found)
        shape = tuple(frames.shape[1:])
        is_ready = shape == (height, width) and self.normalized is not False
        is_square = shape == (height, height) and self.normalized is not False
        brightest = frames.max()
        if frames.is_floating_point() and 0 < brightest < _FAINTEST:
            refuse(
                found,
                "faint",
                f"expected float silhouettes whose brightest pixels are 1, got at most "
                f"{float(brightest):.4f}. Masks of 0 and 1 are not divided by 255.",
            )
        if self.normalized and not (is_ready or is_square):
            raise ValueError(
                f"expected normalised frames of {height} x {width} or {height} x {height} pixels "
                f"(normalized=True), got {shape[0]} x {shape[1]}. Leave normalized out."
            )
        if (is_ready or is_square) and brightest == 0:
            refuse(
                found,
                "empty",
                f"expected at least one frame with a silhouette, got {len(frames)} black frames. "
                f"Check the segmentation, or leave the sequence out.",
            )
        if is_ready:
            if self.normalized is None and not is_normalized(frames, strict=False):
                found.append(_not_normalized(shape))
            return frames
        if not (is_square and (self.normalized or is_normalized(frames))):
            frames = normalize_frames(as_grey_levels(frames), height, None, found)
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
        f"expected a person who fills frames of the model's own size ({shape[0]} x {shape[1]}) in "
        f"height and stands in their middle, got one who does not; the frames were taken as they "
        f"are. Raw masks: create_transform(model, normalized=False); ready ones: normalized=True."
    )
    return Finding("not normalised", "warning", text)


def _few_frames(count: int) -> Finding:
    text = (
        f"expected {_FEWEST_FRAMES} frames with a person or more, got {count}: so few show no "
        f"gait. A step takes about 13 frames at 25 per second."
    )
    return Finding("few frames", "warning", text)
