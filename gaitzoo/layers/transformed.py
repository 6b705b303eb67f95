"""Convolutions with one kernel in several forms: mirrored, turned, or of other sizes.

Source: RRS-Gait (https://arxiv.org/abs/2601.05604). A reconstruction: only the abstract was read,
which says that kernels are changed by reflection, rotation and scale, so that features change with
the input (equivariance), and that pooling makes them invariant. That the forms of one kernel are
computed on the fly and joined by a maximum, the angles and the scales are [inferred]. Networks for
continuous groups of transformations: the library ``escnn``.

Why such layers may be stacked: where the input changes by one of the transformations, the maps of
all forms change with it and trade places; the maximum over forms does not see their places. Batch
norm, ReLU and sums keep that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_size, check_sizes, shape_of
from gaitzoo.layers.conv import Conv2d, needs_float32
from gaitzoo.layers.fused_transformed import FusedTransformedConv2d, join_forms
from gaitzoo.layers.kernel_forms import KernelTransform

__all__ = [
    "GroupPool",
    "ReflectConv2d",
    "RotateConv2d",
    "ScaleConv2d",
    "TransformedKernelConv2d",
]

Reduce = Literal["max", "mean"]


class GroupPool(nn.Module):
    """Joins the maps of all forms of a kernel: which form gave what is forgotten.

    Source: RRS-Gait (https://arxiv.org/abs/2601.05604), [inferred].

    Args:
        dim: Axis of the forms.
        mode: ``"max"`` or ``"mean"``.

    Shapes:
        x: ``[N, C, G, H, W]`` with ``dim=2``, any values.
        returns: The same without that axis.

    Raises:
        ValueError: If ``mode`` is unknown.

    Example:
        >>> network = nn.Sequential(ReflectConv2d(3, 8, reduce=None), GroupPool(), nn.ReLU())
        >>> network(torch.rand(2, 3, 16, 11)).shape
        torch.Size([2, 8, 16, 11])
    """

    def __init__(self, dim: int = 2, mode: Reduce = "max") -> None:
        super().__init__()
        _check_reduce(mode, "mode")
        self.dim, self.mode = dim, mode

    def forward(self, x: Tensor) -> Tensor:
        """Returns the joined map."""
        return x.amax(self.dim) if self.mode == "max" else x.mean(self.dim)

    def extra_repr(self) -> str:
        """Text inside the printed module."""
        return f"dim={self.dim}, mode={self.mode!r}"


class TransformedKernelConv2d(Conv2d):
    """A convolution with all forms of one kernel, joined pixel by pixel.

    It has the parameters of ``nn.Conv2d`` under the same names. Zeros stand around the map, half a
    kernel wide.

    Source: RRS-Gait (https://arxiv.org/abs/2601.05604); what is inferred is said at the top of this
    file.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Rows and columns of the kernel, odd.
        stride: Step over height and width, pixels.
        groups: As of ``nn.Conv2d``.
        bias: Whether there is one.
        transforms: The forms, G of them; callables like :class:`KernelTransform`, which also say
            their ``dilation``.
        reduce: How forms are joined, ``"max"`` or ``"mean"``; ``None`` = they are not.

    Shapes:
        x: ``[N, C_in, H, W]``, any values.
        returns: ``[N, C_out, H', W']``, ``H' = ceil(H / stride)``; with ``reduce=None``
            ``[N, C_out, G, H', W']``.

    Raises:
        TypeError: If ``x`` is no tensor of floats.
        ValueError: If the kernel is even, there is no form, ``reduce`` is unknown, or axes or
            channels do not fit.

    Example:
        >>> both = (KernelTransform(), KernelTransform(angle=180))
        >>> network = nn.Sequential(
        ...     TransformedKernelConv2d(1, 8, 5, transforms=both), nn.ReLU(), nn.Flatten()
        ... )
        >>> network(torch.rand(2, 1, 8, 6)).shape
        torch.Size([2, 384])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        *,
        transforms: Sequence[KernelTransform],
        reduce: Reduce | None = "max",
    ) -> None:
        check_size(in_channels=in_channels, out_channels=out_channels, stride=stride, groups=groups)
        check_size(kernel_size=kernel_size)
        if kernel_size % 2 == 0:
            raise ValueError(f"expected an odd kernel_size, got {kernel_size}")
        if reduce is not None:
            _check_reduce(reduce, "reduce")
        if not transforms:
            raise ValueError("expected at least one transform, got none; KernelTransform() is one")
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=bias,
        )
        self.transforms = tuple(transforms)
        self.reduce = reduce

    def kernels(self) -> list[Tensor]:
        """All forms of the kernel, each ``[C_out, C_in / groups, k', k']``."""
        return [transform(self.weight) for transform in self.transforms]

    def with_norm(self, norm: nn.Module) -> nn.Module:
        """The form for inference, which does the batch norm behind it too.

        Args:
            norm: A batch norm with statistics.
        """
        return FusedTransformedConv2d(self).absorb(norm)

    def fused(self, dtype: torch.dtype) -> nn.Module:
        """The form for inference, see :func:`gaitzoo.fuse_for_inference`."""
        return FusedTransformedConv2d(self)

    def forward(self, input: Tensor) -> Tensor:
        """Returns the joined map."""
        _check_images(input, self.in_channels)
        if not needs_float32(self, input):
            return self._convolved(input, self.kernels(), self.bias)
        with torch.autocast("cpu", enabled=False):
            bias = None if self.bias is None else self.bias.float()
            kernels = [kernel.float() for kernel in self.kernels()]
            return self._convolved(input.float(), kernels, bias).to(input.dtype)

    def _convolved(self, x: Tensor, kernels: list[Tensor], bias: Tensor | None) -> Tensor:
        dilations = [transform.dilation for transform in self.transforms]
        count = len(kernels)

        def convolve(kernel: Tensor, dilation: int, bias: Tensor | None) -> Tensor:
            border = dilation * (kernel.shape[-1] // 2)
            return F.conv2d(x, kernel, bias, self.stride, border, dilation, self.groups)

        if len({(k.shape[-1], d) for k, d in zip(kernels, dilations, strict=True)}) > 1:
            maps = [convolve(k, d, bias) for k, d in zip(kernels, dilations, strict=True)]
            if self.reduce is None:
                return torch.stack(maps, dim=2)
            return join_forms(maps, count, self.reduce)
        if self.reduce == "mean":
            # A mean of convolutions is the convolution with the mean kernel.
            return convolve(torch.stack(kernels).mean(0), dilations[0], bias)
        # Forms of a channel side by side, so that groups of channels stay together.
        together = torch.stack(kernels, dim=1).flatten(0, 1)
        repeated = None if bias is None else bias.repeat_interleave(count)
        y = convolve(together, dilations[0], repeated)
        if self.reduce is None:
            return y.unflatten(1, (self.out_channels, count))
        return join_forms([y], count, self.reduce)


class ReflectConv2d(TransformedKernelConv2d):
    """A convolution with a kernel and its mirror image.

    With a step of 1, the mirrored map is the map of the mirrored input, exactly. With a step of 2
    that holds for odd widths only.

    Source: RRS-Gait (https://arxiv.org/abs/2601.05604); that the reflection is along the width is
    [inferred] (who walks to the left mirrors who walks to the right).

    Args:
        in_channels: As for :class:`TransformedKernelConv2d`, and so all others.
        out_channels: See there.
        kernel_size: See there.
        stride: See there.
        groups: See there.
        bias: See there.
        reduce: See there.

    Shapes:
        x: ``[N, C_in, H, W]``, any values.
        returns: ``[N, C_out, H', W']``; with ``reduce=None`` ``[N, C_out, 2, H', W']``.

    Example:
        >>> layers = nn.Sequential(ReflectConv2d(3, 4), nn.ReLU(), nn.AdaptiveMaxPool2d(1))
        >>> x = torch.rand(2, 3, 16, 11)
        >>> torch.allclose(layers(x.flip(-1)), layers(x), atol=1e-6)
        True
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        *,
        reduce: Reduce | None = "max",
    ) -> None:
        forms = (KernelTransform(), KernelTransform(flipped=True))
        sizes = (in_channels, out_channels, kernel_size, stride, groups, bias)
        super().__init__(*sizes, transforms=forms, reduce=reduce)


class RotateConv2d(TransformedKernelConv2d):
    """A convolution with a kernel turned by several angles.

    With the four quarter turns the turned map is the map of the turned input, exactly; with the
    default of a few degrees, by which silhouettes roll, nearly so.

    Source: RRS-Gait (https://arxiv.org/abs/2601.05604); the angles are [inferred].

    Args:
        in_channels: As for :class:`TransformedKernelConv2d`, and so all others.
        out_channels: See there.
        kernel_size: See there.
        stride: See there.
        groups: See there.
        bias: See there.
        angles: Degrees, counter-clockwise; see :class:`KernelTransform`.
        reduce: See :class:`TransformedKernelConv2d`.

    Shapes:
        x: ``[N, C_in, H, W]``, any values.
        returns: ``[N, C_out, H', W']``; with ``reduce=None`` ``[N, C_out, len(angles), H', W']``.

    Example:
        >>> conv = RotateConv2d(3, 4, angles=(0, 90, 180, 270))
        >>> layers = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveMaxPool2d(1))
        >>> x = torch.rand(2, 3, 9, 9)
        >>> torch.allclose(layers(x.rot90(1, (2, 3))), layers(x), atol=1e-6)
        True
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        *,
        angles: Sequence[float] = (-15.0, 0.0, 15.0),
        reduce: Reduce | None = "max",
    ) -> None:
        if isinstance(angles, str) or not isinstance(angles, Sequence):
            raise ValueError(f"expected angles as a tuple of degrees, got {angles!r}")
        forms = [KernelTransform(angle=angle) for angle in angles]
        sizes = (in_channels, out_channels, kernel_size, stride, groups, bias)
        super().__init__(*sizes, transforms=forms, reduce=reduce)


class ScaleConv2d(TransformedKernelConv2d):
    """A convolution with a kernel in several sizes.

    Source: RRS-Gait (https://arxiv.org/abs/2601.05604); scales and both modes are [inferred].

    Args:
        in_channels: As for :class:`TransformedKernelConv2d`, and so all others.
        out_channels: See there.
        kernel_size: See there.
        stride: See there.
        groups: See there.
        bias: See there.
        scales: Whole numbers: how many times as far apart the outer pixels of the kernel are.
        mode: ``"dilate"`` leaves gaps between the pixels of the kernel, ``"resize"`` interpolates
            them: 3 x 3 becomes 5 x 5 at scale 2, 7 x 7 at 3, with the same sum.
        reduce: See :class:`TransformedKernelConv2d`.

    Shapes:
        x: ``[N, C_in, H, W]``, any values.
        returns: ``[N, C_out, H', W']``; with ``reduce=None`` ``[N, C_out, len(scales), H', W']``.

    Raises:
        ValueError: If scales are no positive whole numbers or ``mode`` is unknown; as
            :class:`TransformedKernelConv2d` besides.

    Example:
        >>> layers = nn.Sequential(nn.Conv2d(3, 4, 1), ScaleConv2d(4, 8, mode="resize"), nn.ReLU())
        >>> layers(torch.rand(2, 3, 16, 11)).shape
        torch.Size([2, 8, 16, 11])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        *,
        scales: Sequence[int] = (1, 2),
        mode: Literal["dilate", "resize"] = "dilate",
        reduce: Reduce | None = "max",
    ) -> None:
        if mode not in ("dilate", "resize"):
            raise ValueError(f'expected mode "dilate" or "resize", got {mode!r}')
        forms = [
            KernelTransform(dilation=s) if mode == "dilate" else KernelTransform(growth=s)
            for s in check_sizes("scales", scales)
        ]
        sizes = (in_channels, out_channels, kernel_size, stride, groups, bias)
        super().__init__(*sizes, transforms=forms, reduce=reduce)


def _check_reduce(reduce: Any, name: str) -> None:
    if reduce not in ("max", "mean"):
        raise ValueError(f'expected {name} "max" or "mean", got {reduce!r}')


def _check_images(x: Tensor, channels: int) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"expected images [N, {channels}, H, W] of floats, got {got}")
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(
            f"expected images [N, {channels}, H, W], got {shape_of(x)}; gaitzoo.FrameWise runs the "
            "layer on the frames of [N, C, T, H, W]"
        )
