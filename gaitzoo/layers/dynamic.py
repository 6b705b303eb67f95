"""Blocks of DyGait: what moves is convolved apart from the whole.

Source: DyGait (ICCV 2023), https://arxiv.org/abs/2303.14953; what differs from the authors' code
stands with each block.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_features
from gaitzoo.layers.conv import Conv3d
from gaitzoo.layers.fused_dynamic import FusedDyGaitBlock, FusedStem
from gaitzoo.layers.sequence import mask_fill, mask_fill_, masked_mean

__all__ = ["DAM", "DyGaitBlock", "DyGaitStage", "DyGaitStem"]


class DAM(nn.Module):
    """Dynamic augmentation: what moves is convolved apart from the whole and added to it.

    The dynamic branch sees each frame minus the sequence's mean over time (the "template"), the
    static branch sees the frames themselves: ``ReLU(dynamic(x - mean(x)) + static(x))``.

    Source: DyGait (https://arxiv.org/abs/2303.14953), dynamic augmentation module; the ReLU on the
    sum is the authors' code. Differs from upstream: padded frames take no part in the mean.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        static_kernel_size: Kernel of the static branch, (time, height, width), all odd. The
            authors use (1, 3, 3) in the first stage of a block and (3, 3, 3) in the second.

    Shapes:
        x: ``[N, C_in, T, H, W]``, any real values.
        lengths: ``[N]`` int64, valid frames per sequence; ``None`` means all ``T``.
        returns: ``[N, C_out, T, H, W]``; frames at or past ``lengths`` are zero.

    Raises:
        ValueError: If a kernel size is even, or axes, channels or lengths do not fit.

    Example:
        >>> DAM(1, 8)(torch.rand(2, 1, 9, 16, 11)).shape
        torch.Size([2, 8, 9, 16, 11])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        static_kernel_size: tuple[int, int, int] = (1, 3, 3),
    ) -> None:
        super().__init__()
        self.dynamic = _conv(in_channels, out_channels, (3, 3, 3))
        self.static = _conv(in_channels, out_channels, static_kernel_size)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the augmented features."""
        check_features(x, self.static.in_channels, lengths)
        return self.augment(mask_fill(x, lengths), lengths)

    def augment(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """As a call, for features that are zero past the end already."""
        moving = mask_fill_(x - masked_mean(x, lengths), lengths)
        return F.relu(mask_fill_(self.dynamic(moving) + self.static(x), lengths))


class DyGaitStage(nn.Module):
    """A dynamic augmentation module beside a plain 3x3x3 convolution; their ReLUs are added.

    Source: DyGait (https://arxiv.org/abs/2303.14953) and its code; shapes as for :class:`DAM`.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        static_kernel_size: As for :class:`DAM`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, static_kernel_size: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.parallel = _conv(in_channels, out_channels, (3, 3, 3))
        self.dam = DAM(in_channels, out_channels, static_kernel_size)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the sum of both branches; ``x`` must be zero past the end."""
        plain = F.relu(mask_fill_(self.parallel(x), lengths))
        return plain + self.dam.augment(x, lengths)


class DyGaitBlock(nn.Module):
    """Two stages and a residual; no activation after the addition.

    Source: the authors' code; the paper's figure has one stage and no residual. Where the
    authors' addition is not defined, see ``shortcut``.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        shortcut: What is added where the width changes from more than one channel:
            ``"projection"`` = a bias-free 1x1x1 convolution of the input (inferred),
            ``"authors"`` = nothing. One channel is broadcast, equal widths are added as they are.
        single_stage: One stage instead of two, as the paper's figure.

    Shapes:
        x: ``[N, C_in, T, H, W]``, any real values.
        lengths: ``[N]`` int64; ``None`` means all ``T``.
        returns: ``[N, C_out, T, H, W]``; frames at or past ``lengths`` are zero.

    Raises:
        ValueError: If ``shortcut`` is unknown, or axes, channels or lengths do not fit.

    Example:
        >>> DyGaitBlock(4, 8)(torch.rand(2, 4, 9, 16, 11)).shape
        torch.Size([2, 8, 9, 16, 11])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        shortcut: str = "projection",
        single_stage: bool = False,
    ) -> None:
        super().__init__()
        if shortcut not in ("projection", "authors"):
            raise ValueError(f'expected shortcut "projection" or "authors", got {shortcut!r}')
        self.in_channels = in_channels
        self.stage1 = DyGaitStage(in_channels, out_channels, (1, 3, 3))
        self.stage2 = None if single_stage else DyGaitStage(out_channels, out_channels, (3, 3, 3))
        self.adds_input = in_channels in (1, out_channels)
        self.shortcut = (
            Conv3d(in_channels, out_channels, kernel_size=1, bias=False)
            if shortcut == "projection" and not self.adds_input
            else None
        )

    def fused(self, dtype: torch.dtype) -> nn.Module:
        """The form for inference, see :func:`gaitzoo.fuse_for_inference`; takes over weights."""
        return FusedDyGaitBlock(self)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the features plus the residual."""
        check_features(x, self.in_channels, lengths)
        x = mask_fill(x, lengths)
        y = self.stage1(x, lengths)
        if self.stage2 is not None:
            y = self.stage2(y, lengths)
        if self.adds_input:
            return y + x
        return y if self.shortcut is None else y + self.shortcut(x)


class DyGaitStem(nn.Module):
    """A 3x3x3 convolution and LeakyReLU in front of the shallow network.

    Source: DyGait (https://arxiv.org/abs/2303.14953), Fig. 2; shapes as for :class:`DAM`, but
    ``x`` must be zero past the end.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = _conv(in_channels, out_channels, (3, 3, 3))

    def fused(self, dtype: torch.dtype) -> nn.Module:
        """The form for inference, see :func:`gaitzoo.fuse_for_inference`; takes over weights."""
        return FusedStem(self.conv)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the first map."""
        return F.leaky_relu(mask_fill_(self.conv(x), lengths), 0.01)


def _conv(in_channels: int, out_channels: int, kernel_size: tuple[int, int, int]) -> nn.Conv3d:
    """A bias-free convolution that keeps time and space as they are."""
    if any(size % 2 == 0 for size in kernel_size):
        raise ValueError(f"expected odd kernel sizes (time, height, width), got {kernel_size}")
    time, height, width = (size // 2 for size in kernel_size)
    return Conv3d(in_channels, out_channels, kernel_size, padding=(time, height, width), bias=False)
