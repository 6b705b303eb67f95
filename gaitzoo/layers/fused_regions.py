"""HSTL's blocks with fewer passes over the maps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import shape_of
from gaitzoo.layers.fused import convolve
from gaitzoo.layers.sequence import mask_fill, mask_fill_, masked_max

__all__ = ["FusedASTP", "FusedFTABlock", "FusedRegions"]


class FusedRegions(nn.Module):
    """Several region-wise convolutions of equal regions: the map is cut once and joined once.

    Args:
        blocks: The plain blocks, one behind the other.

    Shapes:
        x: ``[N, C_in, T, H, W]``, zero past the end.
        lengths: ``[N]`` int64; ``None`` means all ``T``.
        returns: ``[N, C_out, T, H, W]``, zero past the end.
    """

    def __init__(self, blocks: Iterable[Any]) -> None:
        super().__init__()
        blocks = list(blocks)
        self.heights = blocks[0].heights
        self.regions = nn.ModuleList(
            nn.ModuleList(convs)
            for convs in zip(*(block.convs.children() for block in blocks), strict=True)
        )

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the regions, convolved and put together again."""
        if x.shape[3] != sum(self.heights):
            raise ValueError(f"expected maps of {sum(self.heights)} rows, got {shape_of(x)}")
        done = []
        for region, convs in zip(x.split(self.heights, dim=3), self.regions, strict=True):
            y = region
            for conv in convs.children():
                assert isinstance(conv, nn.Conv3d)
                y = mask_fill_(F.leaky_relu_(convolve(conv, y), 0.01), lengths)
            done.append(y)
        return done[0] if len(done) == 1 else torch.cat(done, dim=3)


class FusedFTABlock(nn.Module):
    """:class:`gaitzoo.FTABlock` by comparing frames, all regions at once; shapes as there.

    The softmax over two windows is a sigmoid of the difference of their scores, so one 1x1
    convolution gives the weight, and mixing is one interpolation.

    Args:
        block: The plain block.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.heights = block.heights
        self.scores = nn.ModuleList()
        for region in block.regions:
            short, long = region.short_score, region.long_score
            assert short.bias is not None
            assert long.bias is not None
            score = nn.Linear(short.in_channels, short.out_channels, device="meta")
            score.weight = nn.Parameter(short.weight[:, :, 0] - long.weight[:, :, 0])
            score.bias = nn.Parameter(short.bias - long.bias)
            self.scores.append(score)

    def out_lengths(self, lengths: Tensor) -> Tensor:
        """Valid frames after the block, ``[N]``."""
        return lengths // 3

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the shortened sequence."""
        short, long = _pool_windows(x, lengths)
        summary = (short + long).mean(dim=4)
        weights = []
        for rows, score in zip(summary.split(self.heights, dim=3), self.scores, strict=True):
            weight = torch.sigmoid(score(rows.mean(dim=3).transpose(1, 2))).transpose(1, 2)
            weights.append(weight[..., None].expand(-1, -1, -1, rows.shape[3]))
        mixed = torch.lerp(long, short, torch.cat(weights, dim=3)[..., None])
        return mask_fill_(mixed, None if lengths is None else self.out_lengths(lengths))


class FusedASTP(nn.Module):
    """:class:`gaitzoo.ASTP` in float32 or wider behind the maximum over time; shapes as there.

    Args:
        plain: The plain pooling.
    """

    def __init__(self, plain: Any) -> None:
        super().__init__()
        self.heights = plain.heights
        self.project = plain.project
        if self.project is not None:
            self.project.keeps_float32 = True
        self.pools = plain.pools

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the parts."""
        x = masked_max(x, lengths)
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        if self.project is not None:
            x = self.project(x)
        regions = x.split(self.heights, dim=2)
        return torch.cat([pool(rows) for pool, rows in zip(self.pools, regions, strict=True)], 1)


def _pool_windows(x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """Maxima of frames ``3t .. 3t + 2`` and of ``3t - 1 .. 3t + 3``."""
    if x.shape[2] < 3:
        raise ValueError(f"expected at least 3 frames, got {x.shape[2]} in {shape_of(x)}")
    steps = x.shape[2] // 3
    first, second, third = (x[:, :, k : 3 * steps : 3] for k in range(3))
    short = torch.maximum(torch.maximum(first, second), third)
    long = short.clone()
    long[:, :, 1:] = torch.maximum(long[:, :, 1:], third[:, :, :-1])
    # Frame 3t + 3 stands behind every window but perhaps the last. If there is none, this is a
    # frame of the last window itself: one rule for all T, or a compiled model would need several.
    following, behind = first[:, :, 1:], x.narrow(2, (x.shape[2] - 1) // 3 * 3, 1)
    if lengths is not None:
        lowest = torch.finfo(x.dtype).min
        # Windows that are followed by a frame of the sequence.
        followed = (lengths - 1) // 3
        following = mask_fill(following, followed, lowest)
        behind = mask_fill(behind, (followed - steps + 1).clamp(min=0), lowest)
    long[:, :, :-1] = torch.maximum(long[:, :, :-1], following)
    long[:, :, -1:] = torch.maximum(long[:, :, -1:], behind)
    return short, long
