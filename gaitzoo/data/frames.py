"""Frames of any number type, checked and brought to grey levels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gaitzoo.data.content import Finding, check_class_ids, histogram, refuse

__all__ = ["as_frames", "as_grey_levels", "check_frames", "to_grey_levels"]


def as_frames(frames: Tensor | np.ndarray) -> Tensor:
    """Checks silhouettes of any number type and brings them to grey levels 0..255.

    Args:
        frames: ``[T, H, W]``; booleans, integers in 0..255, or floats in [0, 1]. Integers that
            are all 0 or 1 count as a mask and become 0 and 255; those that stay far below 255
            are class ids and refused.

    Returns:
        ``[T, H, W]`` uint8 on the device of ``frames``; may share its memory.

    Raises:
        TypeError: If ``frames`` is neither a tensor nor an array of plain numbers.
        ValueError: If the shape has not three axes, an axis is empty, or a value is out of range.

    Example:
        >>> as_frames(torch.tensor([[[0.0, 0.5, 1.0]]]))
        tensor([[[  0, 128, 255]]], dtype=torch.uint8)
    """
    return as_grey_levels(check_frames(frames, []))


def check_frames(frames: Tensor | np.ndarray, found: list[Finding]) -> Tensor:
    """Checks silhouettes; gives floats in [0, 1] as they are and all else as grey levels.

    Args:
        frames: See :func:`as_frames`.
        found: What is found is added.

    Raises:
        TypeError: See :func:`as_frames`.
        ValueError: See :func:`as_frames`.
    """
    if isinstance(frames, np.ndarray):
        frames = _from_numpy(frames)
    if not isinstance(frames, Tensor) or frames.is_complex():
        got = frames.dtype if isinstance(frames, Tensor) else type(frames).__name__
        raise TypeError(
            f"expected silhouettes as a tensor or numpy array of booleans, integers or floats, "
            f"got {got}. Stack separate frames with numpy.stack; read files with load_silhouettes."
        )
    if frames.ndim != 3:
        raise ValueError(
            f"expected silhouettes [T, H, W], got shape {tuple(frames.shape)}. Give one sequence "
            f"of one-channel frames; one frame alone becomes a sequence with frames[None]."
        )
    if frames.numel() == 0:
        raise ValueError(
            f"expected at least one frame of at least one pixel, got shape {tuple(frames.shape)}. "
            f"Leave empty sequences out."
        )
    frames = frames.detach()
    if frames.dtype == torch.bool:
        return frames.to(torch.uint8) * 255
    if frames.is_floating_point():
        return _check_unit_floats(frames, found)
    return _check_integers(frames, found)


def _check_integers(frames: Tensor, found: list[Finding]) -> Tensor:
    """Refuses integers outside 0..255 and class ids; gives grey levels."""
    if frames.dtype != torch.uint8:
        frames = frames.to(torch.int64)
    lowest, highest = (int(bound) for bound in torch.aminmax(frames))
    if lowest < 0 or highest > 255:
        refuse(
            found,
            "values",
            f"expected integer grey levels in 0..255, got values from {lowest} to {highest}. "
            f"Scale them to 0..255, or give a boolean mask (frames > 0; one class: frames == id).",
        )
    frames = frames.to(torch.uint8)
    if highest <= 1:
        return frames * 255
    check_class_ids(histogram(frames), found)
    return frames


def _from_numpy(frames: np.ndarray) -> Tensor:
    """Makes a tensor of an array in any byte order, stride or integer width."""
    if frames.dtype.kind not in "biuf":
        raise TypeError(
            f"expected an array of booleans, integers or floats, got dtype {frames.dtype}. "
            f"Convert it with frames.astype('uint8')."
        )
    if frames.dtype.kind == "f" and frames.dtype not in (np.float16, np.float32, np.float64):
        frames = frames.astype(np.float64)  # long double and foreign byte orders
    elif frames.dtype.kind in "iu" and frames.dtype.itemsize > 1:
        frames = frames.astype(np.int64)
    if not frames.flags.writeable:
        frames = frames.copy()  # torch warns about memory that it must not write to
    return torch.from_numpy(np.ascontiguousarray(frames))


def _check_unit_floats(frames: Tensor, found: list[Finding]) -> Tensor:
    """Refuses floats outside [0, 1]."""
    lowest, highest = (float(bound) for bound in torch.aminmax(frames))
    if not (lowest >= 0 and highest <= 1):  # written so that NaN fails as well
        refuse(
            found,
            "values",
            f"expected float silhouettes in [0, 1], got values from {lowest:g} to {highest:g}. "
            f"Divide grey levels by 255; of class ids take one (frames == id); replace NaN before.",
        )
    return frames


def as_grey_levels(frames: Tensor) -> Tensor:
    """Rounds checked floats to grey levels; gives uint8 as it is.

    Args:
        frames: uint8, or floats in [0, 1].
    """
    return to_grey_levels(frames.float() * 255) if frames.is_floating_point() else frames


def to_grey_levels(values: Tensor) -> Tensor:
    """Rounds to the nearest grey level and limits to 0..255, as OpenCV does.

    Args:
        values: Floats around 0..255; overwritten.
    """
    return values.add(0.5).floor_().clamp_(0, 255).to(torch.uint8)
