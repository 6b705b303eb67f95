"""Forms of one kernel: mirrored, turned, or of other sizes; gradients pass through all of them.

Source: RRS-Gait (https://arxiv.org/abs/2601.05604); see :mod:`gaitzoo.layers.transformed`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gaitzoo.layers.checks import check_size

__all__ = ["KernelTransform"]


@dataclass(frozen=True)
class KernelTransform:
    """One form of a kernel: mirrored, then turned, then made larger.

    Args:
        flipped: Mirrored along the width.
        angle: Degrees, counter-clockwise as one looks at the kernel with its first row on top
            (``torch.rot90(kernel, 1, (-2, -1))`` is 90). Multiples of 90 are exact, others are
            interpolated between four neighbours, with zeros outside the kernel.
        growth: The kernel is interpolated to ``growth * (k - 1) + 1`` rows and columns, such that
            its sum stays: what it makes of a constant map does not change.
        dilation: Pixels between the neighbours that the kernel reads.

    Raises:
        ValueError: If the angle is not finite, or a size no positive whole number.

    Example:
        >>> KernelTransform(flipped=True)(torch.tensor([[[[1.0, 2.0, 3.0]]]]))
        tensor([[[[3., 2., 1.]]]])
        >>> KernelTransform(angle=90)(torch.arange(9.0).reshape(1, 1, 3, 3))[0, 0]
        tensor([[2., 5., 8.],
                [1., 4., 7.],
                [0., 3., 6.]])
    """

    flipped: bool = False
    angle: float = 0.0
    growth: int = 1
    dilation: int = 1

    def __post_init__(self) -> None:
        check_size(growth=self.growth, dilation=self.dilation)
        if isinstance(self.angle, bool) or not isinstance(self.angle, int | float):
            raise ValueError(f"expected angle in degrees, got {self.angle!r}")
        if not math.isfinite(self.angle):
            raise ValueError(f"expected a finite angle in degrees, got {self.angle!r}")

    def __call__(self, kernel: Tensor) -> Tensor:
        """The form of a kernel, through which gradients pass.

        Args:
            kernel: ``[C_out, C_in, k, k]``.

        Returns:
            ``[C_out, C_in, k', k']``.
        """
        if self.flipped:
            kernel = kernel.flip(-1)
        quarters, rest = divmod(self.angle, 90)
        if rest:
            kernel = _turned(kernel, self.angle)
        elif quarters % 4:
            kernel = kernel.rot90(int(quarters) % 4, (-2, -1))
        return _grown(kernel, self.growth) if self.growth > 1 else kernel


def _hat(positions: Tensor, size: int) -> Tensor:
    """Weights of ``size`` pixels for values between them, ``[..., size]``; none beyond the ends."""
    pixels = torch.arange(size, dtype=positions.dtype, device=positions.device)
    return (1 - (positions[..., None] - pixels).abs()).clamp(min=0)


def _turned(kernel: Tensor, angle: float) -> Tensor:
    """A kernel turned by any angle."""
    size, wide = kernel.shape[-1], torch.promote_types(kernel.dtype, torch.float32)
    steps = torch.arange(size, dtype=wide, device=kernel.device) - (size - 1) / 2
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    down, right = steps[:, None], steps[None]
    rows = down * cosine + right * sine + (size - 1) / 2
    columns = right * cosine - down * sine + (size - 1) / 2
    weights = _hat(rows, size)[..., None] * _hat(columns, size)[..., None, :]
    turned = kernel.to(wide).flatten(-2) @ weights.reshape(size**2, size**2).T
    return turned.unflatten(-1, (size, size)).to(kernel.dtype)


def _grown(kernel: Tensor, growth: int) -> Tensor:
    """A kernel interpolated to more pixels, with the same sum."""
    size, wide = kernel.shape[-1], torch.promote_types(kernel.dtype, torch.float32)
    if size == 1:
        return kernel
    count = growth * (size - 1) + 1
    positions = torch.arange(count, dtype=wide, device=kernel.device) / growth
    weights = _hat(positions, size)
    weights = weights / weights.sum(0)
    return (weights @ kernel.to(wide) @ weights.T).to(kernel.dtype)
