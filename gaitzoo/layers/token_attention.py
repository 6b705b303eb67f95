"""Attention among tokens of which some may be missing.

What stands in a missing token never matters, not even NaN. Source: "Attention Is All You Need"
(https://arxiv.org/abs/1706.03762), Sec. 3, with the norms in front.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_size, shape_of

__all__ = ["TokenAttention", "TokenBlock", "check_tokens", "sinusoidal_positions"]


class TokenAttention(nn.Module):
    """Multi-head attention in which missing keys take no part.

    A row without any key gives finite numbers that mean nothing.

    Source: https://arxiv.org/abs/1706.03762, Sec. 3.2.

    Args:
        dim: D, a multiple of ``num_heads``.
        num_heads: Heads.

    Shapes:
        queries: ``[N, Q, D]``.
        keys: ``[N, S, D]``, finite; also the values.
        seen: ``[N, S]`` bool, True = a key that is there; ``None`` = all are.
        returns: ``[N, Q, D]``.

    Raises:
        ValueError: If a size is no positive whole number or does not divide.

    Example:
        >>> x = torch.rand(2, 5, 16)
        >>> TokenAttention(16, 4)(x, x, torch.ones(2, 5, dtype=torch.bool)).shape
        torch.Size([2, 5, 16])
    """

    def __init__(self, dim: int, num_heads: int = 8) -> None:
        super().__init__()
        check_size(dim=dim, num_heads=num_heads)
        if dim % num_heads:
            raise ValueError(f"expected dim as a multiple of {num_heads} heads, got {dim}")
        self.num_heads = num_heads
        self.query, self.key_value = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, keys: Tensor, seen: Tensor | None = None) -> Tensor:
        """Returns what every query gathers."""
        query = self._heads(self.query(queries))
        key, value = (self._heads(x) for x in self.key_value(keys).chunk(2, dim=2))
        mask = None
        if seen is not None:
            # Softmax over nothing is NaN.
            seen = seen | ~seen.any(1, keepdim=True)
            mask = seen[:, None, None, :]
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(found.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class TokenBlock(nn.Module):
    """A transformer block with its norms in front, among tokens of which some may be missing.

    Source: https://arxiv.org/abs/1706.03762, Sec. 3.1, pre-norm, GELU.

    Args:
        dim: D, a multiple of ``num_heads``.
        num_heads: Heads.
        mlp_ratio: Width of the MLP, times ``dim``.
        drop_rate: Dropout behind attention and MLP, in training.

    Shapes:
        x: ``[N, S, D]``, finite.
        seen: ``[N, S]`` bool, True = a token that the others see; ``None`` = all.
        returns: ``[N, S, D]``.

    Raises:
        ValueError: If a size is no positive whole number or does not divide.

    Example:
        Among the patches of a foreign network:

        >>> patches = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 8, stride=8), torch.nn.Flatten(2))
        >>> network = torch.nn.Sequential(TokenBlock(16, 4), torch.nn.LayerNorm(16))
        >>> network(patches(torch.rand(2, 3, 32, 16)).transpose(1, 2)).shape
        torch.Size([2, 8, 16])
    """

    keeps_float32 = True

    def __init__(
        self, dim: int, num_heads: int = 8, mlp_ratio: int = 4, drop_rate: float = 0.1
    ) -> None:
        super().__init__()
        check_size(mlp_ratio=mlp_ratio)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = TokenAttention(dim, num_heads)
        self.mlp = nn.Sequential(
            nn.Linear(dim, mlp_ratio * dim), nn.GELU(), nn.Linear(mlp_ratio * dim, dim)
        )
        self.dropout = nn.Dropout(drop_rate)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """Returns the refreshed tokens."""
        y = self.norm1(x)
        x = x + self.dropout(self.attention(y, y, seen))
        return x + self.dropout(self.mlp(self.norm2(x)))


def check_tokens(name: str, x: Tensor, num_tokens: int | None, dim: int) -> None:
    """Raises unless ``x`` holds as many tokens of the width as expected.

    Args:
        name: What they are, for the message.
        x: ``[N, S, D]``.
        num_tokens: S; ``None`` = any.
        dim: D.

    Raises:
        ValueError: If the shape is another.
    """
    if x.ndim != 3 or x.shape[2] != dim or num_tokens not in (None, x.shape[1]):
        wanted = "S" if num_tokens is None else num_tokens
        raise ValueError(f"expected {name} [N, {wanted}, {dim}], got {shape_of(x)}")


def sinusoidal_positions(length: int, dim: int, like: Tensor) -> Tensor:
    """Sines and cosines of falling frequency, one row per place.

    Source: https://arxiv.org/abs/1706.03762, Sec. 3.5; all sines first, then all cosines.

    Args:
        length: Number of places.
        dim: Even width.
        like: Gives device and type.

    Returns:
        ``[length, dim]`` in [-1, 1].

    Example:
        >>> sinusoidal_positions(2, 2, torch.empty(0))
        tensor([[0.0000, 1.0000],
                [0.8415, 0.5403]])
    """
    half = dim // 2
    place = torch.arange(length, device=like.device, dtype=torch.float32)
    rate = torch.arange(half, device=like.device, dtype=torch.float32) / half
    angle = place[:, None] * 10000.0**-rate
    return torch.cat([angle.sin(), angle.cos()], dim=1).to(like.dtype)
