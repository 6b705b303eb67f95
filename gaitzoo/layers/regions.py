"""Blocks that treat horizontal regions of the body apart: convolution, pooling, shortening.

A map is cut along its rows into regions whose heights are given from top to bottom; every region
has weights of its own. From HSTL (https://arxiv.org/abs/2307.09856); nothing of the authors' code
is contained here. Each block works alone in other networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_features, check_size, check_sizes, shape_of
from gaitzoo.layers.conv import Conv2d, Conv3d
from gaitzoo.layers.fused_regions import FusedASTP, FusedFTABlock, FusedRegions
from gaitzoo.layers.pooling import GeMHPP
from gaitzoo.layers.sequence import mask_fill, masked_max

__all__ = ["ASTP", "FTA", "ARMERow", "ARME_Conv", "FTABlock"]

# Frames of the two pooling windows, and how far they move.
_SHORT_WINDOW, _LONG_WINDOW, _STRIDE = 3, 5, 3


class ARME_Conv(nn.Module):  # noqa: N801 - the name of the paper, which people search for
    """Adaptive region-based motion extractor: a 3x3x3 convolution of its own for every region.

    Regions see zeros beyond their borders, not their neighbours. With one region this is a plain
    convolution. LeakyReLU (slope 0.01) follows; time and space keep their sizes.

    Source: HSTL (https://arxiv.org/abs/2307.09856), adaptive region-based motion extractor.
    Differs from upstream: padded frames count as zeros, as the frames beyond a sequence's end do.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        heights: Rows of each region, from the top.

    Shapes:
        x: ``[N, C_in, T, H, W]``, any real values; ``H`` is the sum of ``heights``.
        lengths: ``[N]`` int64, valid frames per sequence; ``None`` means all ``T``.
        returns: ``[N, C_out, T, H, W]``; frames at or past ``lengths`` are zero.

    Raises:
        ValueError: If ``heights`` are not positive or do not add up to the rows of ``x``, or
            channels or lengths do not fit.

    Example:
        >>> ARME_Conv(1, 8, heights=(10, 6))(torch.rand(2, 1, 9, 16, 11)).shape
        torch.Size([2, 8, 9, 16, 11])
    """

    def __init__(self, in_channels: int, out_channels: int, heights: Sequence[int]) -> None:
        super().__init__()
        check_size(in_channels=in_channels)
        self.in_channels = in_channels
        self.heights = check_sizes("heights", heights)
        self.convs = nn.ModuleList(
            Conv3d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
            for _ in self.heights
        )

    def extra_repr(self) -> str:
        """Text inside the printed module."""
        return f"heights={self.heights}"

    def fused(self, dtype: torch.dtype) -> nn.Module:
        """The form for inference, see :func:`gaitzoo.fuse_for_inference`; takes over weights."""
        return FusedRegions([self])

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the regions, convolved and put together again."""
        check_features(x, self.in_channels, lengths)
        _check_rows(x, self.heights)
        regions = mask_fill(x, lengths).split(self.heights, dim=3)
        y = [conv(region) for conv, region in zip(self.convs, regions, strict=True)]
        # The convolutions' output is needed by nobody else, so the activation may overwrite it.
        joined = F.leaky_relu(_join(y), 0.01, inplace=True)
        return mask_fill(joined, lengths)


class ARMERow(nn.ModuleList):
    """Region-wise convolutions of equal regions that are called one behind the other.

    A list like any other, and the promise that its fused form may be one block.

    Args:
        widths: Channels before, between and behind them.
        heights: Rows of each region, from the top.
    """

    def __init__(self, widths: Sequence[int], heights: Sequence[int]) -> None:
        super().__init__(ARME_Conv(before, after, heights) for before, after in pairwise(widths))

    def fused(self, dtype: torch.dtype) -> nn.Module:
        """The form for inference, see :func:`gaitzoo.fuse_for_inference`; takes over weights."""
        return nn.ModuleList([FusedRegions(self)])


class ASTP(nn.Module):
    """Adaptive spatio-temporal pooling: one vector per region of a sequence of maps.

    The maximum over time, a 1x1 convolution to the width of the parts (no activation), then a
    generalised mean over each region with an exponent of its own.

    Source: HSTL (https://arxiv.org/abs/2307.09856), adaptive spatio-temporal pooling.
    Differs from upstream: the maximum sees valid frames only, and the mean is computed as
    :class:`GeMHPP` says. Negative values count as almost zero there: the convolution's output is
    cut at 1e-6, as the authors do.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of a part.
        heights: Rows of each region, from the top.
        project: Whether the 1x1 convolution is there; without it both widths must be equal.

    Shapes:
        x: ``[N, C_in, T, H, W]``, any real values; ``H`` is the sum of ``heights``.
        lengths: ``[N]`` int64, valid frames per sequence; ``None`` means all ``T``.
        returns: ``[N, P, C_out]``, one part per region, from top to bottom.

    Raises:
        ValueError: If ``heights`` are not positive or do not add up to the rows of ``x``, or the
            widths differ without a projection.

    Example:
        >>> ASTP(4, 8, heights=(10, 6))(torch.rand(2, 4, 9, 16, 11)).shape
        torch.Size([2, 2, 8])
    """

    def __init__(
        self, in_channels: int, out_channels: int, heights: Sequence[int], project: bool = True
    ) -> None:
        super().__init__()
        if not project and in_channels != out_channels:
            raise ValueError(
                "expected equal in_channels and out_channels without a projection, got "
                f"{in_channels} and {out_channels}; pass project=True"
            )
        check_size(in_channels=in_channels)
        self.in_channels = in_channels
        self.heights = check_sizes("heights", heights)
        self.project = Conv2d(in_channels, out_channels, 1, bias=False) if project else None
        self.pools = nn.ModuleList(GeMHPP((1,)) for _ in self.heights)

    def extra_repr(self) -> str:
        """Text inside the printed module."""
        return f"heights={self.heights}"

    def fused(self, dtype: torch.dtype) -> nn.Module:
        """The form for inference, see :func:`gaitzoo.fuse_for_inference`; takes over weights."""
        return FusedASTP(self)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the parts."""
        check_features(x, self.in_channels, lengths)
        _check_rows(x, self.heights)
        x = masked_max(x, lengths)
        if self.project is not None:
            x = self.project(x)
        regions = x.split(self.heights, dim=2)
        parts = [pool(region) for pool, region in zip(self.pools, regions, strict=True)]
        return torch.cat(parts, dim=1)


class FTA(nn.Module):
    """Frame-level temporal aggregation: a third of the frames, mixed from two pooling windows.

    Output frame ``t`` sees the maximum of frames ``3t .. 3t + 2`` and that of ``3t - 1 .. 3t + 3``.
    From the mean of their sum over space, one 1x1 convolution per window gives a score for every
    channel and frame; the softmax over the windows weighs the two maxima.

    Source: HSTL (https://arxiv.org/abs/2307.09856), frame-level temporal aggregation.
    Differs from upstream: the long window of a sequence's last frame ends with the sequence, also
    where padding follows.

    Args:
        channels: Channels of input and output.

    Shapes:
        x: ``[N, C, T, H, W]``, any real values, ``T >= 3``.
        lengths: ``[N]`` int64, valid frames per sequence, 3 or more; ``None`` means all ``T``.
        returns: ``[N, C, T // 3, H, W]``; zeros past ``out_lengths(lengths)``.

    Raises:
        ValueError: If a sequence has fewer than three frames, or channels or lengths do not fit.

    Example:
        >>> shorten = FTA(8)
        >>> shorten(torch.rand(2, 8, 9, 16, 11)).shape
        torch.Size([2, 8, 3, 16, 11])
        >>> shorten.out_lengths(torch.tensor([9, 7])).tolist()
        [3, 2]
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        check_size(channels=channels)
        self.short_score = nn.Conv1d(channels, channels, 1)
        self.long_score = nn.Conv1d(channels, channels, 1)

    def out_lengths(self, lengths: Tensor) -> Tensor:
        """Valid frames after the block, ``[N]``."""
        return lengths // _STRIDE

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the shortened sequence."""
        check_features(x, self.short_score.in_channels, lengths, shortest=_SHORT_WINDOW)
        return self.mix(*_pool_windows(x, lengths))

    def mix(self, short: Tensor, long: Tensor) -> Tensor:
        """Weighs the maxima of the two windows.

        Args:
            short: ``[N, C, T', H, W]``, maxima of three frames.
            long: ``[N, C, T', H, W]``, maxima of five frames.

        Returns:
            ``[N, C, T', H, W]``.
        """
        summary = (short + long).mean(dim=(3, 4))
        scores = torch.stack([self.short_score(summary), self.long_score(summary)])
        weights = scores.softmax(dim=0)[..., None, None]
        return weights[0] * short + weights[1] * long


class FTABlock(nn.Module):
    """One :class:`FTA` for every region.

    Source: HSTL (https://arxiv.org/abs/2307.09856), frame-level temporal aggregation by regions.

    Args:
        channels: Channels of input and output.
        heights: Rows of each region, from the top.

    Shapes:
        x: ``[N, C, T, H, W]``, any real values, ``T >= 3``; ``H`` is the sum of ``heights``.
        lengths: ``[N]`` int64, valid frames per sequence, 3 or more; ``None`` means all ``T``.
        returns: ``[N, C, T // 3, H, W]``; zeros past ``out_lengths(lengths)``.

    Raises:
        ValueError: If ``heights`` are not positive or do not add up to the rows of ``x``, or there
            are fewer than three frames.

    Example:
        >>> FTABlock(8, heights=(10, 6))(torch.rand(2, 8, 9, 16, 11)).shape
        torch.Size([2, 8, 3, 16, 11])
    """

    def __init__(self, channels: int, heights: Sequence[int]) -> None:
        super().__init__()
        check_size(channels=channels)
        self.channels = channels
        self.heights = check_sizes("heights", heights)
        self.regions = nn.ModuleList(FTA(channels) for _ in self.heights)

    def extra_repr(self) -> str:
        """Text inside the printed module."""
        return f"heights={self.heights}"

    def out_lengths(self, lengths: Tensor) -> Tensor:
        """Valid frames after the block, ``[N]``."""
        return lengths // _STRIDE

    def fused(self, dtype: torch.dtype) -> nn.Module:
        """The form for inference, see :func:`gaitzoo.fuse_for_inference`; takes over weights."""
        return FusedFTABlock(self)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the shortened sequence."""
        check_features(x, self.channels, lengths, shortest=_SHORT_WINDOW)
        _check_rows(x, self.heights)
        # The windows run over time only: pooling before the cut saves a copy of every region.
        short, long = _pool_windows(x, lengths)
        windows = zip(short.split(self.heights, 3), long.split(self.heights, 3), strict=True)
        mixed = []
        for region, pair in zip(self.regions, windows, strict=True):
            assert isinstance(region, FTA)
            mixed.append(region.mix(*pair))
        return _join(mixed)


def _check_rows(x: Tensor, heights: tuple[int, ...]) -> None:
    if x.shape[3] != sum(heights):
        raise ValueError(
            f"expected maps [N, C, T, {sum(heights)}, W] for regions of {heights} rows, got "
            f"{shape_of(x)}; resize the frames, or pass heights that add up to the rows"
        )


def _join(regions: list[Tensor]) -> Tensor:
    return regions[0] if len(regions) == 1 else torch.cat(regions, dim=3)


def _pool_windows(x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """Maxima over both windows; zeros past the end, so that means and softmax stay finite."""
    x = mask_fill(x, lengths, torch.finfo(x.dtype).min)
    stride = (_STRIDE, 1, 1)
    short = F.max_pool3d(x, (_SHORT_WINDOW, 1, 1), stride)
    long = F.max_pool3d(x, (_LONG_WINDOW, 1, 1), stride, padding=(1, 0, 0))
    shortened = None if lengths is None else lengths // _STRIDE
    return mask_fill(short, shortened), mask_fill(long, shortened)
