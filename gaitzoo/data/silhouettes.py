"""From raw silhouettes to what a model reads: crop, resize, centre, cut the sides, scale.

Source: the pre-treatment that the published gait models were trained on, common to OpenGait
(https://github.com/ShiqiYu/OpenGait) and the code bases before it. Differs from it: torch
resizes instead of OpenCV; on the reference clips in the tests every pixel agrees within one
grey level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["SilhouetteTransform", "create_transform", "normalize_silhouettes"]

EMPTY_GREY_SUM = 10_000
"""Frames whose grey values (0..255) add up to no more than this hold no usable silhouette."""


def as_frames(frames: Tensor | np.ndarray) -> Tensor:
    """Checks silhouettes of any number type and brings them to grey levels 0..255.

    Args:
        frames: ``[T, H, W]``; booleans, integers in 0..255, or floats in [0, 1]. Integers that
            are all 0 or 1 count as a mask and become 0 and 255.

    Returns:
        ``[T, H, W]`` uint8 on the device of ``frames``; may share its memory.

    Raises:
        TypeError: If ``frames`` is neither a tensor nor an array of plain numbers.
        ValueError: If the shape has not three axes, an axis is empty, or a value is out of range.

    Example:
        >>> as_frames(torch.tensor([[[0.0, 0.5, 1.0]]]))
        tensor([[[  0, 128, 255]]], dtype=torch.uint8)
    """
    return _as_grey_levels(_check_frames(frames))


def _check_frames(frames: Tensor | np.ndarray) -> Tensor:
    """Checks silhouettes; gives floats in [0, 1] as they are and all else as grey levels."""
    if isinstance(frames, np.ndarray):
        frames = _from_numpy(frames)
    if not isinstance(frames, Tensor) or frames.is_complex():
        got = frames.dtype if isinstance(frames, Tensor) else type(frames).__name__
        raise TypeError(
            f"Expected silhouettes as a tensor or numpy array of booleans, integers or floats, "
            f"got {got}. Stack separate frames with numpy.stack; read files with load_silhouettes."
        )
    if frames.ndim != 3:
        raise ValueError(
            f"Expected silhouettes [T, H, W], got shape {tuple(frames.shape)}. Give one sequence "
            f"of one-channel frames; one frame alone becomes a sequence with frames[None]."
        )
    if frames.numel() == 0:
        raise ValueError(
            f"Expected at least one frame of at least one pixel, got shape {tuple(frames.shape)}. "
            f"Leave empty sequences out."
        )
    frames = frames.detach()
    if frames.dtype == torch.bool:
        return frames.to(torch.uint8) * 255
    if frames.is_floating_point():
        return _check_unit_floats(frames)
    if frames.dtype != torch.uint8:
        frames = frames.to(torch.int64)
    lowest, highest = (int(bound) for bound in torch.aminmax(frames))
    if lowest < 0 or highest > 255:
        raise ValueError(
            f"Expected integer grey levels in 0..255, got values from {lowest} to {highest}. "
            f"Scale them to 0..255, or give a boolean mask (frames > 0)."
        )
    frames = frames.to(torch.uint8)
    return frames if highest > 1 else frames * 255


def _from_numpy(frames: np.ndarray) -> Tensor:
    """Makes a tensor of an array in any byte order, stride or integer width."""
    if frames.dtype.kind not in "biuf":
        raise TypeError(
            f"Expected an array of booleans, integers or floats, got dtype {frames.dtype}. "
            f"Convert it with frames.astype('uint8')."
        )
    if frames.dtype.kind == "f" and frames.dtype not in (np.float16, np.float32, np.float64):
        frames = frames.astype(np.float64)  # long double and foreign byte orders
    elif frames.dtype.kind in "iu" and frames.dtype.itemsize > 1:
        frames = frames.astype(np.int64)
    if not frames.flags.writeable:
        frames = frames.copy()  # torch warns about memory that it must not write to
    return torch.from_numpy(np.ascontiguousarray(frames))


def _check_unit_floats(frames: Tensor) -> Tensor:
    """Refuses floats outside [0, 1]."""
    lowest, highest = (float(bound) for bound in torch.aminmax(frames))
    if not (lowest >= 0 and highest <= 1):  # written so that NaN fails as well
        raise ValueError(
            f"Expected float silhouettes in [0, 1], got values from {lowest:g} to {highest:g}. "
            f"Divide grey levels by 255 or cast them to uint8; replace NaN before."
        )
    return frames


def _as_grey_levels(frames: Tensor) -> Tensor:
    """Rounds checked floats to grey levels; gives uint8 as it is."""
    return _to_grey_levels(frames.float() * 255) if frames.is_floating_point() else frames


def _to_grey_levels(values: Tensor) -> Tensor:
    """Rounds to the nearest grey level and limits to 0..255, as OpenCV does."""
    return values.add(0.5).floor_().clamp_(0, 255).to(torch.uint8)


def normalize_silhouettes(frames: Tensor | np.ndarray, size: int = 64) -> Tensor:
    """Crops every person to full height, resizes and centres: the field's usual pre-treatment.

    Per frame: drop it if its grey levels add up to at most 10000; keep the rows that hold
    anything; resize to height ``size`` with the sides in proportion (bicubic, no antialias); find
    the first column at which the cumulative grey sum passes half of the total; keep
    ``size // 2`` columns to either side of it, zeros where the image ends.

    Source: the pre-treatment of OpenGait (https://github.com/ShiqiYu/OpenGait). Differs: torch's
    bicubic resize instead of OpenCV's, at most one grey level apart on the reference clips.

    Args:
        frames: ``[T, H, W]`` masks of any size, person bright on black; booleans, integers in
            0..255 (only 0 and 1: taken as a mask), or floats in [0, 1].
        size: Height and width of the result in pixels, even; 64 for most published models.

    Returns:
        ``[T', size, size]`` uint8, 0..255, on the device of ``frames``; ``T' <= T`` because
        frames without a person are dropped.

    Raises:
        TypeError: If ``frames`` is no tensor or array of plain numbers.
        ValueError: If shape, values or ``size`` are out of range, or if every frame is empty.

    Example:
        >>> masks = torch.zeros(3, 240, 320, dtype=torch.bool)
        >>> masks[:2, 50:200, 100:140] = True
        >>> normalize_silhouettes(masks).shape  # the third frame is empty
        torch.Size([2, 64, 64])
    """
    if not _is_even_length(size):
        raise ValueError(f"Expected an even size of 2 or more pixels, got {size!r}. Use 64 or 128.")
    return _normalize_frames(as_frames(frames), size)


def _is_even_length(length: object) -> bool:
    """Tells whether ``length`` is an even positive int."""
    return type(length) is int and length >= 2 and length % 2 == 0


def _normalize_frames(frames: Tensor, size: int) -> Tensor:
    """Normalises checked uint8 frames ``[T, H, W]`` to ``[T', size, size]``."""
    grey_sums = frames.sum(dim=(1, 2), dtype=torch.int64)
    kept = frames[grey_sums > EMPTY_GREY_SUM]
    if len(kept) == 0:
        raise ValueError(
            f"Expected at least one frame with a silhouette, got {len(frames)} frames whose grey "
            f"levels all add up to {EMPTY_GREY_SUM} or less (largest sum {int(grey_sums.max())}). "
            f"Check the segmentation: the person must be bright on black."
        )
    lit_rows = kept.amax(dim=2).cpu() > 0
    return torch.stack(
        [_normalize_frame(frame, rows, size) for frame, rows in zip(kept, lit_rows, strict=True)]
    )


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
    resized = _to_grey_levels(resized)[0, 0]
    cumulative = resized.sum(dim=0, dtype=torch.int64).cumsum(dim=0)
    center = int((2 * cumulative <= cumulative[-1]).sum())  # columns before half the total
    padded = F.pad(resized, (size // 2, size // 2))
    # The window starts at image column center - size // 2, which is column center after padding.
    return padded[:, center : center + size]


@dataclass(frozen=True)
class SilhouetteTransform:
    """Brings silhouettes in any of the usual forms to the input of a model.

    The shape of the frames decides, for a model that reads ``(H, W)``:

    * ``[T, H, W]`` is ready and stays as it is;
    * ``[T, H, H]`` is normalised: ``(H - W) / 2`` columns are cut on either side;
    * any other size is a raw mask: :func:`normalize_silhouettes`, then the cut. Frames without
      a person are dropped here, and only here.

    Args:
        input_size: Height and width in pixels that the model reads; ``H >= W``, both even.

    Raises:
        ValueError: If ``input_size`` is not such a pair.

    Example:
        >>> transform = SilhouetteTransform((64, 44))
        >>> transform(torch.ones(30, 64, 64)).shape
        torch.Size([30, 64, 44])
    """

    input_size: tuple[int, int]

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
            ValueError: If shape or values are out of range, or all raw masks are empty.

        Example:
            >>> mask = torch.ones(2, 64, 64, dtype=torch.bool)
            >>> SilhouetteTransform((64, 44)).align(mask).dtype
            torch.uint8
        """
        height, width = self.input_size
        frames = _check_frames(frames)
        if frames.shape[1:] == (height, width):
            return frames
        if frames.shape[1:] != (height, height):
            frames = _normalize_frames(_as_grey_levels(frames), height)
        margin = (height - width) // 2
        return frames[:, :, margin : margin + width].contiguous()

    def __call__(self, frames: Tensor | np.ndarray) -> Tensor:
        """Aligns and scales to what ``model(silhouettes)`` reads.

        Args:
            frames: ``[T, h, w]``, see :meth:`align`.

        Returns:
            ``[T', H, W]`` float32 in [0, 1]; add the batch axis with ``[None]``.

        Raises:
            TypeError: If ``frames`` is no tensor or array of plain numbers.
            ValueError: If shape or values are out of range, or all raw masks are empty.
        """
        aligned = self.align(frames)
        return aligned.float() if aligned.is_floating_point() else aligned.float() / 255


def create_transform(model_or_cfg: object) -> SilhouetteTransform:
    """Makes the transform that fits a model or its pretrained configuration.

    Args:
        model_or_cfg: A model with ``pretrained_cfg.input_size``, or anything with
            ``input_size``, as (height, width) in pixels.

    Returns:
        The transform, frames of any usual form in, model input out.

    Raises:
        TypeError: If there is no ``input_size`` to read.
        ValueError: If ``input_size`` is no (height, width) pair.

    Example:
        >>> from types import SimpleNamespace
        >>> create_transform(SimpleNamespace(input_size=(64, 44)))
        SilhouetteTransform(input_size=(64, 44))
    """
    cfg = getattr(model_or_cfg, "pretrained_cfg", None)
    input_size = getattr(model_or_cfg if cfg is None else cfg, "input_size", None)
    if input_size is None:
        raise TypeError(
            f"Expected a model with pretrained_cfg.input_size or an object with input_size, "
            f"got {type(model_or_cfg).__name__}. Pass create_model(name), or call "
            f"SilhouetteTransform((height, width)) directly."
        )
    return SilhouetteTransform(input_size)
