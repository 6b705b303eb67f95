"""Regions that a network finds by itself, for every frame anew.

Source: GaitRDAE (https://arxiv.org/abs/2510.16541, IEEE TMM 2025). A reconstruction; see
:mod:`gaitzoo.layers.region_dynamics`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from gaitzoo.layers.checks import check_features, check_size, shape_of
from gaitzoo.layers.conv import Conv3d
from gaitzoo.layers.sequence import mask_fill

__all__ = ["RegionBalanceLoss", "RegionReport", "RegionSearcher", "check_regions"]


class RegionReport(NamedTuple):
    """What a block has found in N sequences, R regions.

    Attributes:
        regions: ``[N, R, T, H, W]`` in [0, 1], adding up to 1 at every pixel; zeros past the end.
        receptive_fields: ``[N, R]``, mean kernel of each region, frames; ``None`` without RDA.
        weights: ``[N, R]`` (``[N, R, T]`` with ``per_frame``) in (-1, 1): a pixel is multiplied by
            1 plus the weight of its region; ``None`` without RDE.
    """

    regions: Tensor
    receptive_fields: Tensor | None
    weights: Tensor | None


class RegionSearcher(nn.Module):
    """Regions of a map, for every frame anew: a softmax over R maps.

    Source: GaitRDAE (https://arxiv.org/abs/2510.16541); the form is [inferred].

    Args:
        channels: Channels of the map; a quarter of them stand between the two convolutions.
        num_regions: R.
        tau: The maps are divided by it before the softmax; smaller = more decided.
        hard: Each pixel belongs to one region alone; gradients are those of the softmax.

    Shapes:
        x: ``[N, C, T, H, W]``, any values.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: ``[N, R, T, H, W]`` in [0, 1], adding up to 1 over R; zeros past the end.

    Raises:
        TypeError: If ``x`` is no tensor of floats or ``lengths`` no integer tensor.
        ValueError: If an argument has none of the values named here, or axes, channels or lengths
            do not fit.

    Example:
        >>> network = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.ReLU(), RegionSearcher(8))
        >>> regions = network(torch.rand(2, 1, 5, 16, 11))
        >>> regions.shape, bool(torch.allclose(regions.sum(1), torch.ones(())))
        (torch.Size([2, 4, 5, 16, 11]), True)
    """

    def __init__(
        self, channels: int, num_regions: int = 4, tau: float = 1.0, hard: bool = False
    ) -> None:
        super().__init__()
        check_size(channels=channels, num_regions=num_regions)
        if not 0 < tau < float("inf"):
            raise ValueError(f"expected tau above 0, got {tau!r}")
        self.channels, self.tau, self.hard = channels, tau, hard
        hidden = max(1, channels // 4)
        self.scores = nn.Sequential(
            Conv3d(channels, hidden, (3, 1, 1), padding=(1, 0, 0), bias=False),
            nn.BatchNorm3d(hidden),
            nn.ReLU(),
            Conv3d(hidden, num_regions, (1, 3, 3), padding=(0, 1, 1)),
        )

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the regions."""
        check_features(x, self.channels, lengths)
        regions = (self.scores(mask_fill(x, lengths)) / self.tau).softmax(dim=1)
        if self.hard:
            largest = torch.zeros_like(regions).scatter(1, regions.argmax(1, keepdim=True), 1.0)
            regions = largest + regions - regions.detach()
        return mask_fill(regions, lengths)


class RegionBalanceLoss(nn.Module):
    """How unequal regions are in size: 0 where all hold as many pixels, ``log(R)`` where one does.

    The Kullback-Leibler divergence of the mean region from equal shares. An optional term (weight
    0 by default) against one region that takes everything.

    Source: none, [inferred]; GaitRDAE (https://arxiv.org/abs/2510.16541) is not known to use it.

    Shapes:
        regions: ``[N, R, T, H, W]``, adding up to 1 over R.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: ``[]``, 0 or more.

    Raises:
        TypeError: If ``regions`` are no tensor of floats or ``lengths`` no integer tensor.
        ValueError: If axes or lengths do not fit.

    Example:
        >>> regions = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1, 1).expand(1, 2, 3, 8, 6)
        >>> RegionBalanceLoss()(regions)
        tensor(0.6931)
    """

    def forward(self, regions: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the loss."""
        check_features(regions, None, lengths)
        wide = torch.promote_types(regions.dtype, torch.float32)
        sizes = mask_fill(regions, lengths).to(wide).sum((0, 2, 3, 4))
        shares = sizes / sizes.sum()
        tiny = torch.finfo(wide).tiny
        return (shares * (shares * len(shares)).clamp(min=tiny).log()).sum()


def check_regions(
    regions: Tensor, x: Tensor, num_regions: int, lengths: Tensor | None = None
) -> Tensor:
    """Raises unless regions fit a map; returns them with zeros past the end.

    Args:
        regions: ``[N, R, T, H, W]``.
        x: The map, ``[N, C, T, H, W]``.
        num_regions: R.
        lengths: ``[N]`` int64, or ``None``.

    Raises:
        TypeError: If they are no tensor of floats.
        ValueError: If their shape is another one.
    """
    if not isinstance(regions, Tensor) or not regions.is_floating_point():
        got = regions.dtype if isinstance(regions, Tensor) else type(regions).__name__
        raise TypeError(f"expected regions [N, {num_regions}, T, H, W] of floats, got {got}")
    wanted = (x.shape[0], num_regions, *x.shape[2:])
    if regions.shape != wanted:
        raise ValueError(f"expected regions {list(wanted)} of the map, got {shape_of(regions)}")
    return mask_fill(regions, lengths)
