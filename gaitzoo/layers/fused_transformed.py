"""Transformed convolutions for inference: the forms of their kernels computed once."""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from gaitzoo.layers.conv import Conv2d

__all__ = ["FusedTransformedConv2d", "join_forms"]


def join_forms(maps: list[Tensor], num_forms: int, mode: str) -> Tensor:
    """The maximum or mean over forms of a kernel, in the layout that the maps have.

    Args:
        maps: One map ``[N, C * G, H, W]``, the G forms of a channel side by side; or G maps
            ``[N, C, H, W]``.
        num_forms: G.
        mode: ``"max"`` or ``"mean"``.

    Returns:
        ``[N, C, H, W]``.

    Example:
        >>> join_forms([torch.tensor([1.0, 3.0, 2.0, 0.0]).view(1, 4, 1, 1)], 2, "max").flatten()
        tensor([3., 2.])
    """
    if len(maps) > 1:
        joined = reduce(torch.maximum if mode == "max" else torch.add, maps)
        return joined if mode == "max" else joined / num_forms
    if num_forms == 1:
        return maps[0]
    # A reduction gives its result in the order of the axes.
    last = maps[0].stride(1) == 1
    x = maps[0].movedim(1, -1) if last else maps[0]
    axis = -1 if last else 1
    x = x.unflatten(axis, (-1, num_forms))
    x = x.amax(axis if last else 2) if mode == "max" else x.mean(axis if last else 2)
    return x.movedim(-1, 1) if last else x


class FusedTransformedConv2d(nn.Module):
    """:class:`gaitzoo.TransformedKernelConv2d` and perhaps the batch norm behind it.

    Shapes as there.

    Args:
        conv: The plain layer.
    """

    def __init__(self, conv: Any) -> None:
        super().__init__()
        with torch.no_grad():
            kernels = conv.kernels()
            dilations = [transform.dilation for transform in conv.transforms]
            alike = len({(k.shape[-1], d) for k, d in zip(kernels, dilations, strict=True)}) == 1
            self.num_forms = len(kernels)
            if alike:
                kernels = [torch.stack(kernels, dim=1).flatten(0, 1)]
            self.convs = nn.ModuleList(
                _plain(conv, kernel, dilation)
                for kernel, dilation in zip(kernels, dilations, strict=False)
            )
            bias = torch.zeros_like(conv.weight[:, 0, 0, 0]) if conv.bias is None else conv.bias
            self._set(torch.ones_like(bias), bias)
        self.mode = conv.reduce

    def _set(self, scale: Tensor, bias: Tensor) -> None:
        self.scale, self.bias = (
            nn.Parameter(x.detach()[:, None, None].clone(), requires_grad=False)
            for x in (scale, bias)
        )

    def absorb(self, norm: nn.Module) -> Self:
        """Does the work of the batch norm behind it from now on.

        Args:
            norm: With statistics.

        Returns:
            Itself.
        """
        assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = (norm.running_var + norm.eps).rsqrt()
        scale = scale if norm.weight is None else scale * norm.weight
        shift = -norm.running_mean * scale
        shift = shift if norm.bias is None else shift + norm.bias
        self._set(self.scale.flatten() * scale, self.bias.flatten() * scale + shift)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Returns the joined map."""
        maps = [conv(x) for conv in self.convs]
        if self.mode is not None:
            # The scale may be negative: not before the maximum.
            joined = join_forms(maps, self.num_forms, self.mode)
            return torch.addcmul(self.bias, joined, self.scale)
        if len(maps) > 1:
            lifted = torch.stack(maps, dim=2)
        else:
            lifted = maps[0].unflatten(1, (-1, self.num_forms))
        return torch.addcmul(self.bias[:, None], lifted, self.scale[:, None])


def _plain(conv: Any, kernel: Tensor, dilation: int) -> Conv2d:
    """A convolution with one form, or with several side by side."""
    border = dilation * (kernel.shape[-1] // 2)
    made = Conv2d(
        conv.in_channels,
        len(kernel),
        kernel.shape[-1],
        conv.stride,
        border,
        dilation,
        conv.groups,
        bias=False,
        device="meta",
    )
    made.weight = nn.Parameter(kernel.detach(), requires_grad=False)
    return made
