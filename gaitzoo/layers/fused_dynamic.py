"""DyGait's blocks with one convolution where the plain ones have three."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.fused import conv_like, convolve
from gaitzoo.layers.sequence import mask_fill_, over_time

__all__ = ["FusedDyGaitBlock", "FusedDyGaitStage", "FusedStem"]


class FusedStem(nn.Module):
    """A convolution and LeakyReLU in front of the shallow network.

    Args:
        conv: The convolution.

    Shapes:
        x: ``[N, C_in, T, H, W]``, zero past the end.
        lengths: ``[N]`` int64; ``None`` means all ``T``.
        returns: ``[N, C_out, T, H, W]``, zero past the end.
    """

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the first map."""
        return mask_fill_(F.leaky_relu_(convolve(self.conv, x), 0.01), lengths)


class FusedDyGaitStage(nn.Module):
    r"""``ReLU(A x) + ReLU(D (x - mean) + G x)`` as one convolution of twice the width.

    Convolutions are linear: ``D (x - mean) + G x = (D + G) x - D mean``, and ``[A; D + G]`` is one
    convolution. The mean does not change with time, so ``D mean`` is the sum of three images, one
    per time slice of ``D``. Two frames differ: zeros stand before the first and after the last
    one of a sequence, so one of the three images is missing there.

    Args:
        stage: The plain :class:`gaitzoo.layers.dynamic.DyGaitStage`.

    Shapes:
        x: ``[N, C_in, T, H, W]``, zero past the end.
        lengths: ``[N]`` int64; ``None`` means all ``T``.
        returns: ``[N, C_out, T, H, W]``, zero past the end.
    """

    def __init__(self, stage: Any) -> None:
        super().__init__()
        dynamic, static = stage.dam.dynamic.weight, stage.dam.static.weight
        # A static branch on single frames is one over three whose outer slices are zero.
        missing = (dynamic.shape[2] - static.shape[2]) // 2
        joined = dynamic + F.pad(static, (0, 0, 0, 0, missing, missing))
        self.conv = conv_like(stage.parallel, torch.cat([stage.parallel.weight, joined]))
        self.template_conv = conv_like(stage.parallel, torch.cat(dynamic.unbind(2)))

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the sum of both branches."""
        assert isinstance(self.conv, nn.Conv3d)
        y = convolve(self.conv, x)
        plain, moving = y.chunk(2, dim=1)
        template = self.template_conv(_mean_of_zero_padded(x, lengths))
        before, now, after = template.unsqueeze(2).chunk(3, dim=1)
        moving -= before + now + after
        moving[:, :, :1] += before
        if lengths is None:
            moving[:, :, -1:] += after
        else:
            sequence = torch.arange(x.shape[0], device=x.device)
            moving[sequence, :, lengths - 1] += after[:, :, 0]
        F.relu_(y)
        return mask_fill_(plain + moving, lengths)


class FusedDyGaitBlock(nn.Module):
    """Two fused stages and the residual.

    Args:
        block: The plain :class:`gaitzoo.layers.dynamic.DyGaitBlock`.

    Shapes:
        x: ``[N, C_in, T, H, W]``, zero past the end.
        lengths: ``[N]`` int64; ``None`` means all ``T``.
        returns: ``[N, C_out, T, H, W]``, zero past the end.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            FusedDyGaitStage(stage) for stage in (block.stage1, block.stage2) if stage is not None
        )
        self.adds_input = block.adds_input
        self.shortcut = block.shortcut

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the features plus the residual."""
        y = x
        for stage in self.stages:
            y = stage(y, lengths)
        if self.adds_input:
            y += x
        elif self.shortcut is not None:
            y += convolve(self.shortcut, x)
        return y


def _mean_of_zero_padded(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Mean over time, ``[N, C, H, W]``, of maps that are zero past the end."""
    if lengths is None:
        return over_time(x, torch.mean)
    # Sums of half-precision numbers overflow long before their means do.
    add_up = partial(torch.sum, dtype=torch.promote_types(x.dtype, torch.float32))
    return (over_time(x, add_up) / lengths.view(-1, 1, 1, 1)).to(x.dtype)
