"""Blur and zoom of a camera.

Source: RobustGait (https://arxiv.org/abs/2511.13065); the constants are those of its published code
(https://github.com/Reeshoon/RobustGait). Frames are treated one by one.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gaitzoo.data.corruption import Corruption

__all__ = ["DefocusBlur", "MotionBlur", "ZoomBlur", "ZoomIn", "gaussian_kernel", "pad_mirrored"]


def pad_mirrored(frames: Tensor, before: int, after: int) -> Tensor:
    """Continues frames beyond all four edges by their mirror image, the edge not repeated.

    Unlike ``torch``'s own it goes on mirroring where frames are smaller than what is added.

    Args:
        frames: ``[..., H, W]``.
        before: Pixels above and left.
        after: Pixels below and right.

    Example:
        >>> pad_mirrored(torch.tensor([[0.0, 1.0]]), 0, 3)[0]
        tensor([0., 1., 0., 1., 0.])
    """
    for axis in (-2, -1):
        size = frames.shape[axis]
        places = torch.arange(-before, size + after, device=frames.device)
        period = max(1, 2 * size - 2)
        places = places.remainder(period)
        frames = frames.index_select(
            axis, torch.minimum(places, period - places).clamp(max=size - 1)
        )
    return frames


def gaussian_kernel(size: int, sigma: float) -> Tensor:
    """Weights ``[size]`` float64 of a normal bell around the middle, sum 1."""
    places = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    return torch.softmax(-(places**2) / (2 * sigma**2), 0)


class DefocusBlur(Corruption):
    """Every point becomes a disk.

    The disk has a radius of 3, 4, 6, 8 or 10 pixels; its edge is smoothed. Frames go on mirrored
    beyond their edges. Arguments, shapes and errors: :class:`Corruption`.

    Shapes:
        video: ``[..., T, C, H, W]`` or ``[..., T, H, W, 3]``; returns the same shape and type.

    Example:
        >>> DefocusBlur(2)(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 3, 32, 32])
    """

    def corrupt(self, frames: Tensor) -> Tensor:
        """See :class:`Corruption`."""
        kernel = self.kernel().to(frames)
        reach = kernel.shape[0] // 2
        padded = pad_mirrored(frames.flatten(0, 2), reach, reach)
        # Images as channels of one: ten times faster on processors than as a batch.
        kernels = kernel.expand(len(padded), 1, -1, -1)
        return F.conv2d(padded, kernels, groups=len(padded)).reshape(frames.shape)

    def kernel(self) -> Tensor:
        """The smoothed disk, ``[k, k]`` float64, sum 1 but for what the smoothing loses."""
        radius = int(self.row((3, 4, 6, 8, 10)))
        reach = max(8, radius)
        places = torch.arange(-reach, reach + 1)
        disk = (places**2 + places[:, None] ** 2 <= radius**2).double()
        bell = gaussian_kernel(3 if radius <= 8 else 5, self.row((0.1, 0.5, 0.5, 0.5, 0.5)))
        smooth = torch.outer(bell, bell)[None, None]
        padded = pad_mirrored(disk / disk.sum(), len(bell) // 2, len(bell) // 2)
        return F.conv2d(padded[None, None], smooth)[0, 0]


class MotionBlur(Corruption):
    """A smear along one direction, as of a moving camera; another direction in every frame.

    The smear reaches 10, 15, 15, 15 or 20 pixels and fades as a bell of sigma 3, 5, 8, 12 or 15;
    directions are drawn from -45 to 45 degrees. Edges go on beyond the frame. It is in the
    published list, but not among the 15 types of the benchmark. Arguments, shapes and errors:
    :class:`Corruption`.

    Shapes:
        video: ``[..., T, C, H, W]`` or ``[..., T, H, W, 3]``; returns the same shape and type.

    Example:
        >>> MotionBlur(2)(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 3, 32, 32])
    """

    def corrupt(self, frames: Tensor) -> Tensor:
        """See :class:`Corruption`."""
        flat = frames.flatten(0, 1)
        degrees = (90 * self.uniform(len(flat)) - 45).tolist()
        blurred = [self.smear(frame, angle) for frame, angle in zip(flat, degrees, strict=True)]
        return torch.stack(blurred).reshape(frames.shape)

    def smear(self, frame: Tensor, degrees: float) -> Tensor:
        """One frame ``[C, H, W]`` smeared in a direction, 0 = to the right, 90 = down."""
        radius = int(self.row((10, 15, 15, 15, 20)))
        sigma = self.row((3, 5, 8, 12, 15))
        weights = torch.softmax(-(torch.arange(2 * radius + 1.0) ** 2) / (2 * sigma**2), 0)
        rows = torch.arange(frame.shape[1], device=frame.device)
        columns = torch.arange(frame.shape[2], device=frame.device)
        step_y, step_x = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
        total = torch.zeros_like(frame)
        for place, weight in enumerate(weights.tolist()):
            # Halves go down.
            y = (rows + math.ceil(place * step_y - 0.5)).clamp(0, len(rows) - 1)
            x = (columns + math.ceil(place * step_x - 0.5)).clamp(0, len(columns) - 1)
            total += weight * frame[:, y][:, :, x]
        return total


class ZoomBlur(Corruption):
    """The mean of a frame and its magnifications, as of a lens that zooms during the exposure.

    Magnifications go up to 1.11, 1.15, 1.20, 1.24 or 1.30 in steps of 0.01 to 0.03, by splines of
    order 2; the frame itself counts twice, as published.

    With ``upstream=True``, frames wider than high become their leading square, and frames higher
    than wide stay as they are, as in the published code (a caught error there). Else both axes are
    magnified about the middle. Arguments, shapes and errors: :class:`Corruption`.

    Shapes:
        video: ``[..., T, C, H, W]`` or ``[..., T, H, W, 3]``; returns the same shape and type
            (squares for wide frames with ``upstream=True``).

    Example:
        >>> ZoomBlur(2)(torch.rand(2, 3, 32, 24)).shape
        torch.Size([2, 3, 32, 24])
    """

    def corrupt(self, frames: Tensor) -> Tensor:
        """See :class:`Corruption`."""
        height, width = frames.shape[-2:]
        if self.upstream:
            if height > width:
                return frames
            frames = frames[..., :height]
            width = height
        count, step = int(self.row((12, 16, 11, 13, 11))), self.row((0.01, 0.01, 0.02, 0.02, 0.03))
        # Steps as numpy's arange adds them up: 1.3 is a little more, which decides sizes.
        zooms = [1 + place * ((1 + step) - 1) for place in range(count)]
        total = frames.clone()
        for zoom in zooms:
            rows, columns = (_spline_zoom(size, zoom).to(frames) for size in (height, width))
            total += rows @ frames @ columns.T
        return total / (len(zooms) + 1)


class ZoomIn(Corruption):
    """The camera zooms in on the middle while the clip runs.

    Magnification grows evenly from 1 in the first frame to 1.5, 2, 2.5, 3 or 3.5 in the last
    (bilinear). A clip of one frame stays as it is. Arguments, shapes and errors:
    :class:`Corruption`.

    Shapes:
        video: ``[..., T, C, H, W]`` or ``[..., T, H, W, 3]``; returns the same shape and type.

    Example:
        >>> video = torch.rand(4, 3, 32, 32)
        >>> torch.equal(ZoomIn(5)(video)[0], video[0])
        True
    """

    rounds = True

    def corrupt(self, frames: Tensor) -> Tensor:
        """See :class:`Corruption`."""
        end = self.row((1.5, 2.0, 2.5, 3.0, 3.5))
        zooms = torch.linspace(1, end, frames.shape[1], dtype=torch.float64)
        rows, columns = (_linear_zoom(size, zooms).to(frames) for size in frames.shape[-2:])
        return rows[:, None] @ frames @ columns[:, None].transpose(-1, -2)


def _linear_zoom(size: int, zooms: Tensor) -> Tensor:
    """``[T, size, size]``: magnification of one axis about its middle by linear interpolation."""
    middle = size // 2
    source = middle + (torch.arange(size) - middle) / zooms[:, None]
    distance = (source[:, :, None] - torch.arange(size)).abs()
    return (1 - distance).clamp(min=0)


@functools.lru_cache(maxsize=128)
def _spline_zoom(size: int, zoom: float) -> Tensor:
    """``[size, size]`` float64: one axis cut to its middle, and magnified to more than it was."""
    kept = math.ceil(size / zoom)
    start = (size - kept) // 2
    zoomed = round(kept * zoom)
    trim = (zoomed - size) // 2
    magnified = torch.from_numpy(_spline_matrix(kept, zoomed))[trim : trim + size]
    matrix = torch.zeros(size, size, dtype=torch.float64)
    matrix[:, start : start + kept] = magnified
    return matrix


def _spline_matrix(size: int, zoomed: int) -> np.ndarray:
    """``[zoomed, size]``: interpolation by splines of order 2, first on first and last on last."""

    def weights(places: np.ndarray) -> np.ndarray:
        """Of the coefficients at each place; mirrored at the ends."""
        nearest = np.floor(places + 0.5).astype(int)
        off = places - nearest
        matrix = np.zeros((len(places), size))
        period = max(1, 2 * size - 2)
        for shift, weight in (
            (-1, 0.5 * (0.5 - off) ** 2),
            (0, 0.75 - off**2),
            (1, 0.5 * (0.5 + off) ** 2),
        ):
            index = (nearest + shift) % period
            index = np.minimum(np.minimum(index, period - index), size - 1)
            np.add.at(matrix, (np.arange(len(places)), index), weight)
        return matrix

    places = np.linspace(0, size - 1, zoomed)
    matrix = weights(places) @ np.linalg.inv(weights(np.arange(size, dtype=np.float64)))
    # They fade within a few pixels to numbers that processors are slow with.
    return np.where(np.abs(matrix) < 1e-12, 0, matrix)
