"""Convolutions that give the right numbers on every processor, in half precision and in training.

Measured with torch 2.14.1 on a processor with AMX, over memory full of NaN: oneDNN's bfloat16
convolutions read memory that nobody has written, or write where they must not, in two cases:

- three dimensions, a kernel over several frames, zeros before and after, one frame, and an odd
  number of input channels (per group), or an even one below 16 and a wide kernel (12 channels and
  three columns, 8 and five, 4 and nine);
- two or three dimensions, a step over columns, and one column left.

The results are finite garbage, NaN or a crash. All other shapes tried (channels 1 to 65, 1 to 5
frames, widths from 1, steps up to 3, kernels up to 5, both layouts, float16, float32 and one
dimension) are right. These calls are small: here they are computed in float32 and rounded.

And on a processor with AVX2 and nothing wider, in training in float32: the gradient of the weights
of a 1 x 1 convolution with a step, over two to five input channels that stand last, is written
past the end of its buffer, which ends the process, now or later. The step is taken before the
convolution here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Conv2d", "Conv3d", "guard_convolutions", "needs_float32"]

_HALF = (torch.bfloat16, torch.float16)
_FEWEST_CHANNELS = 16  # fewer over one frame go wrong with some kernels: none is trusted
_VECTOR = 8  # float32 numbers in a register of AVX2; fewer channels than that are not trusted


def needs_float32(conv: nn.Conv2d | nn.Conv3d, x: Tensor) -> bool:
    """Whether a call would be one of those that this file's header lists.

    By the rule alone, whatever the processor: which of them read wrongly cannot be asked.

    Args:
        conv: The convolution.
        x: What it would be called with, ``[N, C, (T,) H, W]``.

    Example:
        >>> conv, x = nn.Conv3d(3, 4, 3, padding=1).bfloat16(), torch.rand(1, 3, 1, 8, 6).bfloat16()
        >>> needs_float32(conv, x), needs_float32(conv, x.repeat(1, 1, 2, 1, 1))
        (True, False)
    """
    if x.device.type != "cpu" or _computed_in(x) not in _HALF or x.ndim != conv.weight.ndim:
        return False
    channels = conv.weight.shape[1]
    awkward = channels % 2 == 1 or channels < _FEWEST_CHANNELS
    if x.ndim == 5 and awkward and conv.kernel_size[0] > 1 and x.shape[2] == 1:
        return True
    step = conv.stride[-1]
    if step == 1:
        return False
    border = 0 if isinstance(conv.padding, str) else conv.padding[-1]
    return x.shape[-1] + 2 * border - conv.dilation[-1] * (conv.kernel_size[-1] - 1) <= step


class Conv2d(nn.Conv2d):
    """``torch.nn.Conv2d`` without the calls that this file's header lists."""

    def forward(self, input: Tensor) -> Tensor:
        """``[N, C_in, H, W]`` to ``[N, C_out, H', W']``."""
        if needs_float32(self, input):
            return _in_float32(self, input)
        if _writes_too_far(self, input):
            rows, columns = self.stride
            every = input[..., ::rows, ::columns]
            return F.conv2d(every, self.weight, self.bias, groups=self.groups)
        return super().forward(input)


class Conv3d(nn.Conv3d):
    """``torch.nn.Conv3d``, in float32 where half precision would read unwritten memory."""

    def forward(self, input: Tensor) -> Tensor:
        """``[N, C_in, T, H, W]`` to ``[N, C_out, T', H', W']``."""
        if needs_float32(self, input):
            return _in_float32(self, input)
        return super().forward(input)


def guard_convolutions(module: nn.Module) -> None:
    """Makes torch's own convolutions inside a module those of this file, in place.

    Parameters, hooks and names stay. Subclasses, which compute in their own way, stay too.

    Args:
        module: Any module.

    Example:
        >>> layers = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
        >>> guard_convolutions(layers)
        >>> type(layers[0]) is Conv2d
        True
    """
    guarded = {nn.Conv2d: Conv2d, nn.Conv3d: Conv3d}
    for inner in module.modules():
        if kind := guarded.get(type(inner)):
            inner.__class__ = kind


def _writes_too_far(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether the gradient of the weights would be one of those that this file's header lists."""
    return (
        max(conv.stride) > 1
        and conv.kernel_size == (1, 1)
        and conv.padding in ((0, 0), "valid")
        and conv.in_channels // conv.groups < _VECTOR
        and x.device.type == "cpu"
        and torch.is_grad_enabled()
        and conv.weight.requires_grad
    )


def _computed_in(x: Tensor) -> torch.dtype:
    """The type that a convolution of ``x`` on a processor is computed in."""
    if torch.is_autocast_enabled("cpu") and x.dtype != torch.float64:
        return torch.get_autocast_dtype("cpu")
    return x.dtype


def _in_float32(conv: nn.Conv2d | nn.Conv3d, x: Tensor) -> Tensor:
    dtype = _computed_in(x)
    with torch.autocast("cpu", enabled=False):
        bias = None if conv.bias is None else conv.bias.float()
        # One channel and one column left go wrong in float32 too where channels stand last.
        x, weight = (
            t.float().clone(memory_format=torch.contiguous_format) for t in (x, conv.weight)
        )
        return conv._conv_forward(x, weight, bias).to(dtype)
