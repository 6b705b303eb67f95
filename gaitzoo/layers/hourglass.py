"""Hourglasses of convolutions and attention: the blocks of SBCFormer.

Source: SBCFormer (WACV 2024, https://github.com/xyongLu/SBCFormer).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_size, shape_of
from gaitzoo.layers.conv import Conv2d
from gaitzoo.layers.fused import fold

__all__ = ["NORM_EPS", "HourglassAttention", "SBCFormerBlock", "conv_norm"]

NORM_EPS = 1e-6
"""What layer norms add to variances."""


def conv_norm(in_channels: int, out_channels: int, kernel: int, **options: Any) -> list[nn.Module]:
    """A convolution without bias, with zeros around that keep a map's size, and a batch norm.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        kernel: Rows and columns of the kernel, odd.
        **options: As for ``nn.Conv2d``.
    """
    conv = Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False, **options)
    return [conv, nn.BatchNorm2d(out_channels)]


class _InvertedResidual(nn.Module):
    """Wide in the middle: 1 x 1, 3 x 3 within channels, 1 x 1, added to the input."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *conv_norm(channels, hidden, 1),
            nn.GELU(),
            *conv_norm(hidden, hidden, 3, groups=hidden),
            nn.GELU(),
            *conv_norm(hidden, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class HourglassAttention(nn.Module):
    """Attention among the few tokens of a map that was pooled, with a bias for every distance.

    Source: SBCFormer (WACV 2024, https://github.com/xyongLu/SBCFormer). Values get a local share
    from a 3 x 3 convolution within channels, and every head has a learned bias for each distance
    in rows and columns, whatever its sign. The biases are zero at first.

    Args:
        channels: C.
        num_heads: Heads.
        key_dim: Width of a head's queries and keys; its values are twice as wide.
        resolution: R, rows and columns of the map.

    Shapes:
        x: ``[N, C, R, R]``, any values.
        returns: ``[N, C, R, R]``.

    Raises:
        ValueError: If a size is no positive whole number, or the map has another shape.

    Example:
        >>> HourglassAttention(12, num_heads=3, key_dim=4, resolution=5)(
        ...     torch.rand(2, 12, 5, 5)
        ... ).shape
        torch.Size([2, 12, 5, 5])
    """

    offsets: Tensor

    def __init__(
        self, channels: int, num_heads: int, key_dim: int = 16, resolution: int = 7
    ) -> None:
        super().__init__()
        check_size(channels=channels, num_heads=num_heads, key_dim=key_dim, resolution=resolution)
        self.channels, self.num_heads, self.key_dim = channels, num_heads, key_dim
        self.resolution = resolution
        width = 2 * key_dim * num_heads
        self.qkv = Conv2d(channels, 2 * width, 1)
        self.local = nn.Sequential(*conv_norm(width, width, 3, groups=width), nn.GELU())
        self.proj = nn.Linear(width, channels)
        self.bias_table = nn.Parameter(torch.zeros(resolution**2, num_heads))
        rows, columns = (x.flatten() for x in _grid(resolution))
        apart = [(x[:, None] - x).abs() for x in (rows, columns)]
        self.register_buffer("offsets", apart[0] * resolution + apart[1], persistent=False)

    def bias(self) -> Tensor:
        """What is added to the scores of every pair of tokens, ``[heads, R * R, R * R]``."""
        return self.bias_table[self.offsets].permute(2, 0, 1)

    def weights(self, x: Tensor) -> Tensor:
        """How much every token looks at every other, ``[N, heads, R * R, R * R]``; rows sum to 1.

        Args:
            x: As for the call.
        """
        self._check(x)
        queries, keys, _ = self._split(self.qkv(x))
        return self._weights(queries, keys)

    def forward(self, x: Tensor) -> Tensor:
        """Returns what the tokens see."""
        self._check(x)
        queries, keys, values = self._split(self.qkv(x))
        values = values + self.local(values)
        values = values.flatten(2).unflatten(1, (self.num_heads, -1)).transpose(2, 3)
        seen = self._weights(queries, keys) @ values
        tokens = self.proj(seen.transpose(1, 2).flatten(2))
        return tokens.transpose(1, 2).unflatten(2, (self.resolution, self.resolution))

    def _split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys ``[N, heads, R * R, key_dim]``, and the map of values."""
        half = self.num_heads * self.key_dim
        queries, keys, values = qkv.split((half, half, 2 * half), dim=1)
        tokens = [
            x.flatten(2).unflatten(1, (self.num_heads, -1)).transpose(2, 3) for x in (queries, keys)
        ]
        return tokens[0], tokens[1], values

    def _weights(self, queries: Tensor, keys: Tensor) -> Tensor:
        scores = queries @ keys.transpose(2, 3) * self.key_dim**-0.5
        return (scores + self.bias()).softmax(dim=-1)

    def _check(self, x: Tensor) -> None:
        side = self.resolution
        if x.ndim != 4 or x.shape[1] != self.channels or tuple(x.shape[2:]) != (side, side):
            raise ValueError(
                f"expected a map [N, {self.channels}, {side}, {side}], got {shape_of(x)}; build "
                "the layer for this resolution"
            )


def _grid(side: int) -> tuple[Tensor, Tensor]:
    """Row and column of every token; on the CPU, so that tables hold numbers on any device."""
    steps = torch.arange(side, device="cpu")
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    return rows, columns


class _TransformerBlock(nn.Module):
    """Attention and an MLP on the tokens, both behind a layer norm and added to their input."""

    def __init__(self, channels: int, num_heads: int, key_dim: int, resolution: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=NORM_EPS)
        self.attention = HourglassAttention(channels, num_heads, key_dim, resolution)
        self.norm2 = nn.LayerNorm(channels, eps=NORM_EPS)
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm1(x.movedim(1, -1)).movedim(-1, 1)
        x = x + self.attention(tokens)
        tokens = self.norm2(x.movedim(1, -1))
        return x + self.fc2(F.gelu(self.fc1(tokens))).movedim(-1, 1)


class _Upsample(nn.Module):
    """Every pixel becomes a square of learned shares, within its channel; then batch norm."""

    def __init__(self, channels: int, times: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(channels, channels, times, stride=times, groups=channels)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))

    def fused(self, dtype: torch.dtype) -> nn.Module:
        """The transposed convolution with the batch norm in it."""
        # Within channels, the first axis of its weight is that of the output, as fold wants it.
        self.conv.weight, self.conv.bias = fold(self.conv, self.bn)  # pyright: ignore
        return self.conv


class SBCFormerBlock(nn.Module):
    """A stage of SBCFormer: what is near from convolutions, what is far from attention, joined.

    Source: SBCFormer (WACV 2024, https://github.com/xyongLu/SBCFormer). An hourglass: the map is
    pooled to few tokens, which mix by convolutions and attention, and is brought back to its size;
    that gates the map from before, and both are joined. A map that is not pooled (``pool=1``) has
    nothing to bring it back with.

    Args:
        channels: C.
        num_heads: Heads of the attention.
        resolution: R, rows and columns of the map.
        pool: Rows and columns that become one token; divides ``resolution``.
        conv_layers: Inverted residual blocks before the pooling.
        layers: Transformer blocks.
        key_dim: Width of a head's queries and keys.
        expansion: Times that inverted residual blocks are wider in the middle.

    Shapes:
        x: ``[N, C, R, R]``, any values.
        returns: ``[N, C, R, R]``.

    Raises:
        ValueError: If a size is no positive whole number, or ``pool`` does not divide the map.

    Example:
        >>> SBCFormerBlock(12, num_heads=2, resolution=8, pool=4)(torch.rand(2, 12, 8, 8)).shape
        torch.Size([2, 12, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        resolution: int,
        pool: int = 1,
        *,
        conv_layers: int = 2,
        layers: int = 2,
        key_dim: int = 16,
        expansion: int = 2,
    ) -> None:
        super().__init__()
        check_size(channels=channels, resolution=resolution, pool=pool)
        check_size(conv_layers=conv_layers, layers=layers, expansion=expansion)
        if resolution % pool:
            raise ValueError(
                f"expected pool as a divisor of the {resolution} rows of the map, got {pool}"
            )
        hidden = expansion * channels
        self.residuals = nn.ModuleList(
            _InvertedResidual(channels, hidden) for _ in range(conv_layers)
        )
        self.pool = nn.AvgPool2d(pool) if pool > 1 else nn.Identity()
        # Two of them, always twice as wide in the middle.
        self.mixers = nn.ModuleList(_InvertedResidual(channels, 2 * channels) for _ in range(2))
        self.transformers = nn.ModuleList(
            _TransformerBlock(channels, num_heads, key_dim, resolution // pool)
            for _ in range(layers)
        )
        self.upsample = _Upsample(channels, pool) if pool > 1 else nn.Identity()
        self.gate = nn.Sequential(*conv_norm(channels, channels, 1), nn.Hardsigmoid())
        self.join = nn.Sequential(*conv_norm(2 * channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Returns the joined map."""
        for block in self.residuals:
            x = block(x)
        near = x
        x = self.pool(x)
        for block in (*self.mixers, *self.transformers):
            x = block(x)
        x = self.upsample(x)
        return self.join(torch.cat([x, near * self.gate(x)], dim=1))
