"""Pieces of fused models: for inference only, they overwrite what they are given or have made.

Inside a fused model every map is zero past the end of its sequence wherever a convolution over
time reads it, so that the blocks mask their own output, in place, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from gaitzoo.layers.checks import shape_of
from gaitzoo.layers.conv import Conv2d, Conv3d, needs_float32
from gaitzoo.layers.sequence import mask_fill_, masked_max, to_frames, to_sequences
from gaitzoo.layers.winograd import WinogradConv3d

__all__ = [
    "FrameMaxPool",
    "FusedAggregation",
    "WideTemporalMax",
    "channels_last",
    "conv_like",
    "convolve",
    "fold",
    "fold_inside",
    "folded",
]


def convolve(conv: nn.Conv3d, x: Tensor) -> Tensor:
    """Calls a 3-D convolution, on CPUs always oneDNN's.

    For a batch of one small map torch's own rule falls back to a convolution several times slower.

    Args:
        conv: The convolution; zero padding.
        x: ``[N, C, T, H, W]``.
    """
    if (
        (isinstance(conv, WinogradConv3d) and conv.takes(x))
        or x.device.type != "cpu"
        or x.dtype != conv.weight.dtype
        or torch.compiler.is_compiling()
        or not _onednn_convolves(x.dtype)
        or torch.is_autocast_enabled("cpu")
        or not torch.backends.mkldnn.is_available()
        or not torch.backends.mkldnn.enabled
        or needs_float32(conv, x)
    ):
        return conv(x)
    assert not isinstance(conv.padding, str)
    return torch.mkldnn_convolution(
        x, conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, conv.groups
    )


@cache
def _onednn_convolves(dtype: torch.dtype) -> bool:
    """Whether the library takes this type on this processor; some cannot do bfloat16."""
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32


def channels_last(x: Tensor) -> Tensor:
    """The same values with the channels of a pixel side by side in memory.

    Unlike ``x.to(memory_format=...)`` also for one channel, where torch takes both layouts for
    the same and convolutions would go on in the other one.

    Args:
        x: ``[N, C, ...]``.
    """
    return x.movedim(1, -1).clone(memory_format=torch.contiguous_format).movedim(-1, 1)


def fold(
    conv: nn.Conv1d | nn.Conv2d | nn.Conv3d, bn: nn.Module
) -> tuple[nn.Parameter, nn.Parameter]:
    """Weight and bias of a convolution that does the batch norm behind it too.

    Args:
        conv: The convolution.
        bn: Its batch norm, with statistics.
    """
    assert isinstance(bn, nn.modules.batchnorm._BatchNorm)
    assert bn.running_mean is not None
    assert bn.running_var is not None
    return fuse_conv_bn_weights(
        conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
    )


def folded(conv: nn.Conv2d | nn.Conv3d, bn: nn.Module) -> nn.Module:
    """A convolution that does the batch norm behind it too.

    Args:
        conv: Of this library's or torch's kind, or with a method ``with_norm(bn)`` that gives it.
        bn: Its batch norm, with statistics.
    """
    own: Callable[[nn.Module], nn.Module] | None = getattr(conv, "with_norm", None)
    return conv_like(conv, *fold(conv, bn)) if own is None else own(bn)


def fold_inside(module: nn.Module, *pairs: tuple[str, str]) -> None:
    """Folds batch norms into the convolutions before them, in place.

    Args:
        module: The parent of both.
        pairs: Names of a convolution and of the batch norm that alone reads what it gives. Batch
            norms that are not there, or have no statistics, are left out.
    """
    for conv_name, bn_name in pairs:
        bn = getattr(module, bn_name)
        if not isinstance(bn, nn.modules.batchnorm._BatchNorm) or bn.running_mean is None:
            continue
        conv = module.get_submodule(conv_name)
        assert isinstance(conv, (nn.Conv2d, nn.Conv3d))
        if hasattr(conv, "with_norm"):
            parent, _, last = conv_name.rpartition(".")
            setattr(module.get_submodule(parent), last, folded(conv, bn))
        else:
            conv.weight, conv.bias = fold(conv, bn)
        setattr(module, bn_name, nn.Identity())


def conv_like(
    conv: nn.Conv2d | nn.Conv3d, weight: Tensor, bias: Tensor | None = None
) -> nn.Conv2d | nn.Conv3d:
    """A convolution with other weights, of any widths and kernel size, that steps as another one.

    Args:
        conv: Gives stride, and padding where the kernel size stays.
        weight: ``[C_out, C_in, ...]``, all sizes odd; 4 axes for a 2-D convolution, 5 for 3-D.
        bias: ``[C_out]``.
    """
    kernel_size = weight.shape[2:]
    kind = Conv2d if len(kernel_size) == 2 else Conv3d
    made = kind(
        weight.shape[1],
        weight.shape[0],
        tuple(kernel_size),  # pyright: ignore[reportArgumentType]
        stride=conv.stride[-len(kernel_size) :],  # pyright: ignore[reportArgumentType]
        padding=conv.padding[-len(kernel_size) :],  # pyright: ignore[reportArgumentType]
        bias=bias is not None,
        device="meta",
    )
    made.weight = nn.Parameter(weight.detach(), requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return made


class FusedAggregation(nn.Module):
    """A strided convolution over time that overwrites its own intermediate maps.

    Args:
        conv: That of :class:`gaitzoo.LocalTemporalAggregation`.
    """

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__()
        self.conv = conv

    def out_lengths(self, lengths: Tensor) -> Tensor:
        """Valid frames after the block, ``[N]``."""
        return lengths // self.conv.stride[0]

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the shortened sequence."""
        if x.shape[2] < self.conv.stride[0]:
            raise ValueError(
                f"expected at least {self.conv.stride[0]} frames, got {x.shape[2]} in {shape_of(x)}"
            )
        y = F.leaky_relu_(convolve(self.conv, x), 0.01)
        return mask_fill_(y, None if lengths is None else self.out_lengths(lengths))


class FrameMaxPool(nn.Module):
    """A maximum over pixels of every frame, as an operation on images."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Returns the smaller frames."""
        return to_sequences(F.max_pool2d(to_frames(x), self.size), x.shape[0])


class WideTemporalMax(nn.Module):
    """The maximum over time in float32 or wider: what follows is small and stays exact."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the maximum over time."""
        pooled = masked_max(x, lengths)
        return pooled.to(torch.promote_types(pooled.dtype, torch.float32))
