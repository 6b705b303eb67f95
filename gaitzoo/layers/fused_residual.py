"""Residual blocks with their batch norms folded into the convolutions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.fused import conv_like, convolve, fold, folded
from gaitzoo.layers.sequence import mask_fill_, to_frames, to_sequences

__all__ = ["FusedResidualBlock2d", "FusedResidualBlock3d", "FusedResidualBlockP3d"]


class FusedResidualBlock2d(nn.Module):
    """:class:`gaitzoo.ResidualBlock2d` without batch norm; shapes as there.

    Args:
        block: The plain block.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.conv1 = folded(block.conv1, block.bn1)
        self.conv2 = folded(block.conv2, block.bn2)
        self.shortcut = _folded_shortcut(block.shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the features plus the shortcut."""
        y = self.conv2(F.relu_(self.conv1(x)))
        y += x if self.shortcut is None else self.shortcut(x)
        return F.relu_(y)


class FusedResidualBlock3d(nn.Module):
    """:class:`gaitzoo.ResidualBlock3d` without batch norm; shapes as there.

    Args:
        block: The plain block.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.conv1 = folded(block.conv1, block.bn1)
        self.conv2 = folded(block.conv2, block.bn2)
        self.shortcut = _folded_shortcut(block.shortcut)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the features plus the shortcut."""
        assert isinstance(self.conv1, nn.Conv3d)
        assert isinstance(self.conv2, nn.Conv3d)
        x = mask_fill_(x, lengths)
        y = mask_fill_(F.relu_(convolve(self.conv1, x)), lengths)
        y = convolve(self.conv2, y)
        y += x if self.shortcut is None else _on_frames(self.shortcut, x)
        return F.relu_(y)


class FusedResidualBlockP3d(nn.Module):
    """:class:`gaitzoo.ResidualBlockP3d` without batch norm and middle shortcut; shapes as there.

    The middle shortcut is the identity: one more on the diagonal of the middle time slice of the
    convolution over time.

    Args:
        block: The plain block.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.conv1 = folded(block.conv1, block.bn1)
        weight, bias = fold(block.temporal_conv, block.temporal_bn)
        identity = torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
        weight = weight.detach().clone()
        weight[:, :, 1, 0, 0] += identity
        self.temporal_conv = conv_like(block.temporal_conv, weight, bias)
        self.conv2 = folded(block.conv2, block.bn2)
        self.shortcut = _folded_shortcut(block.shortcut)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the features plus the shortcut."""
        assert isinstance(self.temporal_conv, nn.Conv3d)
        frames = to_frames(x)
        y = to_sequences(F.relu_(self.conv1(frames)), x.shape[0])
        y = F.relu_(convolve(self.temporal_conv, mask_fill_(y, lengths)))
        y = self.conv2(to_frames(y))
        y += frames if self.shortcut is None else self.shortcut(frames)
        return to_sequences(F.relu_(y), x.shape[0])


def _folded_shortcut(shortcut: nn.Sequential | None) -> nn.Conv2d | nn.Conv3d | None:
    """The shortcut's 1x1 convolution, on single frames also where it was a 3-D one."""
    if shortcut is None:
        return None
    conv, bn = shortcut
    assert isinstance(conv, (nn.Conv2d, nn.Conv3d))
    weight, bias = fold(conv, bn)
    return conv_like(conv, weight.flatten(2)[..., None], bias)


def _on_frames(conv: nn.Module, x: Tensor) -> Tensor:
    return to_sequences(conv(to_frames(x)), x.shape[0])
