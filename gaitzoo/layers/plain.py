"""Plain convolutions of silhouettes: pairs of them, over strips of the body, over shifted frames.

Sources: GaitSet (https://arxiv.org/abs/1811.06186), GaitPart (CVPR 2020,
https://openaccess.thecvf.com/content_CVPR_2020/html/Fan_GaitPart_Temporal_Part-Based_Model_for_Gait_Recognition_CVPR_2020_paper.html)
and MTSGait (https://arxiv.org/abs/2209.00355). No biases; LeakyReLU with slope 0.01.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_features, shape_of
from gaitzoo.layers.fused import channels_last
from gaitzoo.layers.residual import FrameWise, call_block
from gaitzoo.layers.sequence import mask_fill, masked_max, masked_mean

__all__ = ["FocalConv2d", "PlainBlock", "PlainCNN", "SetPool", "TemporalSwitch"]


class SetPool(nn.Module):
    """Frames of a sequence as a set: a statistic of them that no order and no doubling changes.

    Source: GaitSet (https://arxiv.org/abs/1811.06186), Sec. 3.3, statistical functions; the
    published models take the maximum.

    Args:
        mode: ``"max"``, ``"mean"`` or ``"median"`` (of an even number of frames the lower one).

    Shapes:
        x: ``[N, C, T, ...]``, any values.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: ``[N, C, ...]``.

    Raises:
        ValueError: If ``mode`` is unknown.

    Example:
        >>> SetPool()(torch.tensor([[[1.0, 5.0, 9.0]]]), torch.tensor([2])).item()
        5.0
    """

    def __init__(self, mode: str = "max") -> None:
        super().__init__()
        if mode not in ("max", "mean", "median"):
            raise ValueError(f'expected mode "max", "mean" or "median", got {mode!r}')
        self.mode = mode

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the statistic."""
        if self.mode == "max":
            return masked_max(x, lengths)
        if self.mode == "mean":
            return masked_mean(x, lengths).squeeze(2)
        if lengths is None:
            return x.median(dim=2).values
        return mask_fill(x, lengths, float("nan")).nanmedian(dim=2).values


class FocalConv2d(nn.Module):
    """A convolution of horizontal strips, each with zeros of its own around it.

    Source: GaitPart (CVPR 2020), Sec. 3.2. Strips are computed as images of a batch.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Odd size of the kernel.
        halving: The height is cut into ``2 ** halving`` strips; 0 = an ordinary convolution.

    Shapes:
        x: ``[B, C_in, H, W]``; ``2 ** halving`` divides ``H``.
        returns: ``[B, C_out, H, W]``.

    Raises:
        ValueError: If the kernel is even, ``halving`` negative or the strips do not divide ``H``.

    Example:
        >>> FocalConv2d(4, 8, 3, halving=2)(torch.rand(2, 4, 16, 11)).shape
        torch.Size([2, 8, 16, 11])
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, halving: int = 0
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0 or type(halving) is not int or halving < 0:
            raise ValueError(
                f"expected an odd kernel_size and halving >= 0, got {kernel_size!r} and {halving!r}"
            )
        self.num_strips = 2**halving
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """Returns the map."""
        if self.num_strips == 1:
            return self.conv(x)
        if x.ndim != 4 or x.shape[2] % self.num_strips:
            raise ValueError(
                f"expected a map [B, C, H, W] with a height that {self.num_strips} strips divide, "
                f"got {shape_of(x)}"
            )
        strips = x.unflatten(2, (self.num_strips, -1)).transpose(1, 2).flatten(0, 1)
        y = self.conv(strips)
        return y.unflatten(0, (-1, self.num_strips)).transpose(1, 2).flatten(2, 3)


class PlainBlock(nn.Module):
    """Two convolutions of single frames, each with LeakyReLU, and perhaps a smaller map.

    Source: GaitSet (https://arxiv.org/abs/1811.06186), Fig. 2, and GaitPart (CVPR 2020), Table 1.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of both convolutions.
        kernel_size: Kernel of the first one; the second one's is 3.
        pool: A maximum over 2 x 2 pixels at the end.
        halving: As for :class:`FocalConv2d`.

    Shapes:
        x: ``[B, C_in, H, W]``.
        returns: ``[B, C_out, H, W]``, with ``pool`` half as high and wide (rounded down).

    Example:
        >>> PlainBlock(1, 8, kernel_size=5)(torch.rand(2, 1, 64, 44)).shape
        torch.Size([2, 8, 32, 22])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        pool: bool = True,
        halving: int = 0,
    ) -> None:
        super().__init__()
        self.conv1 = FocalConv2d(in_channels, out_channels, kernel_size, halving)
        self.conv2 = FocalConv2d(out_channels, out_channels, 3, halving)
        self.pool = nn.MaxPool2d(2) if pool else None

    def forward(self, x: Tensor) -> Tensor:
        """Returns the map."""
        y = F.leaky_relu(self.conv1(x), 0.01, inplace=not torch.is_grad_enabled())
        y = F.leaky_relu(self.conv2(y), 0.01, inplace=not torch.is_grad_enabled())
        return y if self.pool is None else self.pool(y)


class PlainCNN(nn.Module):
    """Blocks of two convolutions on every frame, with a smaller map behind some of them.

    The network of GaitPart, SMPLGait and MTSGait (sources at the top of this file).

    Args:
        in_channels: Channels of the input.
        channels: Widths of the blocks.
        halving: Strips of each block, see :class:`FocalConv2d`.
        num_pools: How many of the first blocks end with a maximum over 2 x 2 pixels.

    Shapes:
        x: ``[N, C, T, H, W]``, any values.
        returns: ``[N, channels[-1], T, H', W']``.

    Raises:
        ValueError: If ``channels`` and ``halving`` differ in length, or axes do not fit.

    Example:
        >>> PlainCNN(1, (4, 8, 8), (0, 2, 3))(torch.rand(2, 1, 5, 64, 44)).shape
        torch.Size([2, 8, 5, 16, 11])
    """

    def __init__(
        self,
        in_channels: int,
        channels: tuple[int, ...],
        halving: tuple[int, ...] | None = None,
        num_pools: int = 2,
    ) -> None:
        super().__init__()
        halving = (0,) * len(channels) if halving is None else tuple(halving)
        if not channels or len(halving) != len(channels):
            raise ValueError(
                f"expected as many numbers in halving as widths, got {halving!r} and {channels!r}"
            )
        self.in_channels = in_channels
        self.blocks = nn.ModuleList()
        before = in_channels
        for i, (width, halves) in enumerate(zip(channels, halving, strict=True)):
            block = PlainBlock(
                before, width, 5 if i == 0 else 3, pool=i < num_pools, halving=halves
            )
            self.blocks.append(FrameWise(block))
            before = width

    def forward(self, x: Tensor, run: Callable[..., Any] = call_block) -> Tensor:
        """Returns the maps of all frames.

        Args:
            x: See the class.
            run: Calls a block; a model puts its gradient checkpointing here.
        """
        check_features(x, self.in_channels)
        for block in self.blocks:
            x = run(block, x)
        return x


class TemporalSwitch(nn.Module):
    """A convolution of frames, added to that of frames with some channels from their neighbours.

    ``conv(x) + sum over hops of conv(shift(x, hop))`` with one weight for all: the first
    ``C // divisor`` channels come from ``hop`` frames later, the last ones from ``hop`` frames
    before; zeros come in at the ends of every sequence.

    Source: MTSGait (https://arxiv.org/abs/2209.00355), multi-hop temporal switch. Differs from
    upstream: the end of a sequence is its own, not that of the batch; the shifts are added before
    the one convolution, which is linear.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        hops: Distances in frames.
        divisor: What part of the channels moves in either direction.

    Shapes:
        x: ``[N, C_in, T, H, W]``, any values.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: ``[N, C_out, T, H, W]``; what stands past the end holds no meaning.

    Raises:
        ValueError: If axes, channels or lengths do not fit.

    Example:
        >>> TemporalSwitch(16, 8)(torch.rand(2, 16, 5, 8, 6), torch.tensor([5, 3])).shape
        torch.Size([2, 8, 5, 8, 6])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hops: tuple[int, ...] = (1, 3),
        divisor: int = 16,
    ) -> None:
        super().__init__()
        self.in_channels, self.hops = in_channels, tuple(hops)
        self.num_moved = in_channels // divisor
        self.conv = FrameWise(nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False))

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the map."""
        check_features(x, self.in_channels, lengths)
        return self.conv(self.gather(x, lengths))

    def gather(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """The input plus all its shifted copies, ``[N, C_in, T, H, W]``.

        Args:
            x: As for a call.
            lengths: As for a call.
        """
        moved = self.num_moved
        x = mask_fill(x, lengths)
        total = x * (1 + len(self.hops))
        if not moved:
            return total
        later, before = x[:, :moved], x[:, -moved:]
        sum_later, sum_before = later.clone(), before.clone()
        for hop in self.hops:
            sum_later = sum_later + _shifted(later, hop)
            sum_before = sum_before + _shifted(before, -hop)
        gathered = torch.cat([sum_later, total[:, moved:-moved], sum_before], dim=1)
        # Convolutions go on in the layout that they get.
        return channels_last(gathered) if x.stride(1) == 1 else gathered


def _shifted(x: Tensor, hop: int) -> Tensor:
    """Frame t gets frame ``t + hop``; zeros where there is none."""
    num_frames = x.shape[2]
    frame = torch.arange(num_frames, device=x.device) + hop
    inside = (frame >= 0) & (frame < num_frames)
    taken = x.index_select(2, frame.clamp(0, num_frames - 1))
    return taken * inside.to(x.dtype)[:, None, None]
