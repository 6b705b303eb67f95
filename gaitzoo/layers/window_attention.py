"""Attention inside windows of a video that move by half a window from block to block.

Source: Video Swin Transformer (https://arxiv.org/abs/2106.13230), Sec. 3; written from the paper
and measured numbers. Every sequence of a padded batch gets what it would get alone.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from gaitzoo.layers.sequence import lengths_for

__all__ = [
    "WindowMasks",
    "WindowTransformerBlock",
    "relative_index",
    "whole_lengths",
    "window_masks",
]

# Added between tokens that a shift has brought together from far apart, as published.
_APART = -100.0


class WindowMasks(NamedTuple):
    """What the blocks of one depth share."""

    inside: Tensor  # [N, T'] True for frames of the sequence; T' is whole windows
    order: Tensor  # [N, T'] which frame stands where once windows have moved
    plain: Tensor  # added to scores, [N * windows, 1, 1, tokens]
    moved: Tensor  # [N * windows, 1, tokens, tokens]


def window_masks(
    lengths: Tensor,
    num_frames: int,
    size: tuple[int, int],
    window: tuple[int, int, int],
    dtype: torch.dtype,
) -> WindowMasks:
    """What may look at what, in windows that stand still and in moved ones.

    A sequence alone is padded with zeros to whole windows, and its frames see this padding; one
    that is no longer than a window is neither padded nor moved in time.

    Args:
        lengths: ``[N]`` int64, valid frames.
        num_frames: T of the batch.
        size: Rows and columns of the map.
        window: Frames, rows and columns of a window.
        dtype: Type of the scores.
    """
    frames, rows, columns = window
    # ONNX rounds quotients towards zero: no negative ones here, and no % of an open number below.
    padded = (num_frames + frames - 1) // frames * frames
    time = torch.arange(padded, device=lengths.device)
    long = lengths > frames
    ends = torch.where(long, (lengths + frames - 1) // frames * frames, lengths)[:, None]
    lowest = torch.finfo(dtype).min / 2
    hidden = torch.zeros_like(time < ends, dtype=dtype).masked_fill(time >= ends, lowest)
    order = time + (frames // 2) * long.long()[:, None]
    order = torch.where(order < padded, order, order - padded)
    num_windows = (size[0] // rows) * (size[1] // columns)
    cells = rows * columns

    def per_window(values: Tensor) -> Tensor:
        """``[N, T']`` to ``[N * windows, tokens]``."""
        values = values.unflatten(1, (-1, frames))[:, :, None, :, None]
        return values.expand(-1, -1, num_windows, -1, cells).flatten(0, 2).flatten(1)

    # Regions of the moved map: what came round the border is no neighbour.
    behind = _regions(padded, frames, lengths.device)
    time_region = torch.where(long[:, None], behind, 0)
    region = per_window(time_region) * 9 + _space_regions(size, window, lengths.device).repeat(
        lengths.shape[0] * (padded // frames), 1
    )
    differs = region[:, None] != region[:, :, None]
    apart = torch.zeros_like(differs, dtype=dtype).masked_fill(differs, _APART)
    moved = (apart + per_window(hidden.gather(1, order))[:, None]).unsqueeze(1)
    plain = per_window(hidden)[:, None, None]
    return WindowMasks(time < lengths[:, None], order, plain, moved)


def _regions(size: int, window: int, device: torch.device) -> Tensor:
    """0 up to the last window, 1 in it, 2 where what came round stands."""
    place = torch.arange(size, device=device)
    return (place >= size - window).long() + (place >= size - window // 2).long()


def _space_regions(
    size: tuple[int, int], window: tuple[int, int, int], device: torch.device
) -> Tensor:
    """Regions of rows and columns, ``[windows of a frame, tokens of a window]``."""
    of_axis = [
        _regions(total, part, device) if total > part else torch.zeros(total, dtype=torch.long)
        for total, part in zip(size, window[1:], strict=True)
    ]
    both = of_axis[0].to(device)[:, None] * 3 + of_axis[1].to(device)
    cells = rearrange(both, "(h r) (w c) -> (h w) (r c)", r=window[1], c=window[2])
    return cells.repeat(1, window[0])


def relative_index(window: tuple[int, int, int]) -> Tensor:
    """Which entry of the table belongs to two tokens of a window.

    Args:
        window: Frames, rows and columns; tokens are counted in this order, columns fastest.

    Returns:
        ``[tokens, tokens]`` int64.

    Example:
        >>> relative_index((1, 1, 2)).tolist()
        [[1, 0], [2, 1]]
    """
    places = torch.tensor(list(product(*(range(size) for size in window))))
    apart = places[:, None] - places[None] + torch.tensor(window) - 1
    rows, columns = 2 * window[1] - 1, 2 * window[2] - 1
    return (apart[..., 0] * rows + apart[..., 1]) * columns + apart[..., 2]


class _Attention(nn.Module):
    """Attention of the tokens of a window, with a learned bias for every distance."""

    relative_index: Tensor

    def __init__(self, dim: int, num_heads: int, window: tuple[int, int, int]) -> None:
        super().__init__()
        self.num_heads = num_heads
        distances = (2 * window[0] - 1) * (2 * window[1] - 1) * (2 * window[2] - 1)
        self.bias_table = nn.Parameter(torch.zeros(distances, num_heads))
        self.register_buffer("relative_index", relative_index(window), persistent=False)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        nn.init.trunc_normal_(self.bias_table, std=0.02)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``[B, tokens, C]``; ``mask`` is added to the scores."""
        q, k, v = rearrange(
            self.qkv(x), "b t (three h c) -> three b h t c", three=3, h=self.num_heads
        )
        bias = self.bias_table[self.relative_index].permute(2, 0, 1)
        mask = (bias + mask).to(q.dtype)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(rearrange(y, "b h t c -> b t (h c)"))


class WindowTransformerBlock(nn.Module):
    """Attention in windows and an MLP, both added to their input.

    Source: Video Swin Transformer (https://arxiv.org/abs/2106.13230), Eq. 3, pre-norm; MLP and
    drop path are timm's.

    Args:
        dim: Channels; a multiple of ``num_heads``.
        num_heads: Heads of the attention.
        window: Frames, rows and columns of a window; the latter two must divide the map's.
        moved: Windows are moved by half their size along the axes that have several.
        mlp_ratio: Hidden width of the MLP, as a multiple.
        drop_path: Share of samples whose branches are left out in training.

    Shapes:
        x: ``[N, T, H, W, C]``, any values.
        masks: From :func:`window_masks` for these sequences.
        returns: ``[N, T, H, W, C]``; what stands past the end holds no meaning.

    Example:
        >>> block = WindowTransformerBlock(8, 2, (3, 2, 2), moved=True)
        >>> masks = window_masks(torch.tensor([5, 2]), 5, (4, 6), (3, 2, 2), torch.float32)
        >>> block(torch.rand(2, 5, 4, 6, 8), masks).shape
        torch.Size([2, 5, 4, 6, 8])
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window: tuple[int, int, int],
        moved: bool = False,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        # Here, because timm takes long to import.
        from timm.layers.drop import DropPath
        from timm.layers.mlp import Mlp

        if dim % num_heads:
            raise ValueError(f"expected dim as a multiple of num_heads, got {dim} and {num_heads}")
        self.window, self.moved = tuple(window), moved
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = _Attention(dim, num_heads, window)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, masks: WindowMasks) -> Tensor:
        """Returns the tokens."""
        y = x + self.drop_path(self._attend(self.norm1(x), masks))
        return y + self.drop_path(self.mlp(self.norm2(y)))

    def _attend(self, x: Tensor, masks: WindowMasks) -> Tensor:
        num_frames, rows, columns = x.shape[1:4]
        frames, window_rows, window_columns = self.window
        x = F.pad(x, (0, 0, 0, 0, 0, 0, 0, masks.inside.shape[1] - num_frames))
        x = x.masked_fill(~masks.inside[:, :, None, None, None], 0)
        # Along an axis with one window there is nothing to move.
        shift = (
            window_rows // 2 if rows > window_rows else 0,
            window_columns // 2 if columns > window_columns else 0,
        )
        if self.moved:
            x = _in_order(x, masks.order).roll((-shift[0], -shift[1]), (2, 3))
        sizes = {"f": frames, "r": window_rows, "c": window_columns}
        windows = rearrange(x, "n (t f) (h r) (w c) d -> (n t h w) (f r c) d", **sizes)
        y = self.attention(windows, masks.moved if self.moved else masks.plain)
        y = rearrange(
            y,
            "(n t h w) (f r c) d -> n (t f) (h r) (w c) d",
            n=x.shape[0],
            h=rows // window_rows,
            w=columns // window_columns,
            **sizes,
        )
        if self.moved:
            back = masks.order.argsort(dim=1)
            y = _in_order(y.roll(shift, (2, 3)), back)
        return y[:, :num_frames]


def _in_order(x: Tensor, order: Tensor) -> Tensor:
    """Frames of ``[N, T, ...]`` in another order for every sequence."""
    index = order[:, :, None, None, None].expand(-1, -1, *x.shape[2:])
    return x.gather(1, index)


def whole_lengths(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Lengths as int64 on the device of ``[N, T, ...]``; all T where none are given.

    Args:
        x: ``[N, T, ...]``.
        lengths: ``[N]``, or ``None``.
    """
    checked = lengths_for(lengths, x, axis=1)
    if checked is not None:
        return checked
    return torch.full((x.shape[0],), x.shape[1], dtype=torch.int64, device=x.device)
