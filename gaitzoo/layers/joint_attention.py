"""Attention among the joints of a frame, and the norms around it.

Maps are ``[N, C, T, V]``: channels, frames, joints (V of the papers). Source: GaitTR,
https://arxiv.org/abs/2204.03873. Written from the paper and measured shapes.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_size
from gaitzoo.layers.conv import Conv2d
from gaitzoo.layers.graph import Affine, affine_of, check_joints

__all__ = ["JointAttention", "JointNorm", "MishNorm"]


class JointAttention(nn.Module):
    """Self-attention among the joints of a frame, all to all, several heads.

    Source: GaitTR, https://arxiv.org/abs/2204.03873, Sec. 3 (spatial transformer).

    Args:
        in_channels: C_in.
        out_channels: C_out, a multiple of ``4 * num_heads``: queries and keys have a quarter.
        num_heads: Heads.

    Shapes:
        x: ``[N, C_in, T, V]``.
        returns: ``[N, C_out, T, V]``.

    Raises:
        ValueError: If a size is no positive whole number or does not divide, or ``x`` has another
            shape.

    Example:
        >>> JointAttention(10, 64)(torch.rand(2, 10, 5, 17)).shape
        torch.Size([2, 64, 5, 17])
    """

    def __init__(self, in_channels: int, out_channels: int, num_heads: int = 8) -> None:
        super().__init__()
        check_size(in_channels=in_channels, out_channels=out_channels, num_heads=num_heads)
        if out_channels % (4 * num_heads):
            raise ValueError(
                f"expected out_channels as a multiple of {4 * num_heads}, four times the heads, "
                f"got {out_channels}"
            )
        self.num_heads = num_heads
        keys = out_channels // 4
        self.widths = (keys, keys, out_channels)
        self.qkv = Conv2d(in_channels, sum(self.widths), 1)
        self.out = Conv2d(out_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the mixed joints."""
        check_joints(x, self.qkv.in_channels)
        query, key, value = (self._heads(part) for part in self.qkv(x).split(self.widths, dim=1))
        mixed = F.scaled_dot_product_attention(query, key, value)
        mixed = mixed.unflatten(0, (x.shape[0], x.shape[2]))
        return self.out(mixed.permute(0, 2, 4, 1, 3).flatten(1, 2))

    def _heads(self, x: Tensor) -> Tensor:
        """``[N, C, T, V]`` as frames of heads: ``[N * T, heads, V, C / heads]``."""
        return x.unflatten(1, (self.num_heads, -1)).permute(0, 3, 1, 4, 2).flatten(0, 1)


class MishNorm(nn.Module):
    """Mish, then batch norm, in this order.

    Args:
        channels: C.

    Shapes:
        x: ``[N, C, T, V]``.
        returns: The same shape.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm: nn.Module = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the normalised map."""
        return self.norm(F.mish(x))

    def fused(self, dtype: torch.dtype) -> nn.Module:
        """The same with a scale and a shift instead of statistics."""
        made = copy.deepcopy(self)
        if isinstance(made.norm, nn.BatchNorm2d):
            made.norm = Affine(*affine_of(made.norm))
        return made


class JointNorm(nn.Module):
    """Batch norm with statistics of its own for every channel of every joint.

    Args:
        channels: C.
        num_joints: V.
        order: How the statistics lie in memory, ``"joint"`` (index ``v * C + c``) or ``"channel"``
            (index ``c * V + v``).

    Shapes:
        x: ``[N, C, T, V]``.
        returns: The same shape.
    """

    keeps_float32 = True

    def __init__(self, channels: int, num_joints: int, order: str) -> None:
        super().__init__()
        self.order = order
        self.norm = nn.BatchNorm1d(channels * num_joints)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the normalised map."""
        n, c, t, v = x.shape
        if self.order == "joint":
            flat = self.norm(x.permute(0, 3, 1, 2).reshape(n, v * c, t))
            return flat.view(n, v, c, t).permute(0, 2, 3, 1)
        flat = self.norm(x.transpose(2, 3).reshape(n, c * v, t))
        return flat.view(n, c, v, t).transpose(2, 3)
