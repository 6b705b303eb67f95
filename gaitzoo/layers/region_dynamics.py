"""Regions with their own reach over time (RDA) and their own weight (RDE).

Source: GaitRDAE (https://arxiv.org/abs/2510.16541, IEEE TMM 2025). A reconstruction: only the
abstract was read. From it: moving regions are found automatically and change over time; each gets
the temporal receptive field that suits it (RDA); moving regions of stable behaviour are raised,
static ones, which clothes and bags disturb, are lowered (RDE). [inferred]: that regions are a
softmax over maps, that receptive fields are mixed from a few kernels, that motion is the difference
of frames, and all widths.

Batch-norm statistics of these blocks see whatever is in the batch, padding included: train on clips
of equal length. In eval mode padding never matters.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_features, check_size, check_sizes
from gaitzoo.layers.conv import Conv3d
from gaitzoo.layers.region_search import RegionReport, RegionSearcher, check_regions
from gaitzoo.layers.sequence import mask_fill

__all__ = ["RDAEBlock", "RegionDynamicAggregation", "RegionDynamicExcitation"]

_EPS = 1e-6


class RegionDynamicAggregation(nn.Module):
    """RDA: each region is convolved over time with a mixture of kernels that it chooses itself.

    ``relu(x + bn(conv(y)))``, where ``y = sum over kernels k, regions r of a[r, k] * region[r] *
    conv_k(x)``, and the weights ``a[r]`` (a softmax over kernels) come from the mean of the map
    over the region. At first all kernels weigh the same, and the block gives ``relu(x)``.

    Source: GaitRDAE (https://arxiv.org/abs/2510.16541); the form is [inferred].

    Args:
        channels: Channels of the map.
        kernels: Odd numbers of frames; 1 is the map itself.
        num_regions: R.
        search: Whether the block has a :class:`RegionSearcher` of its own, for calls without
            regions.
        zero_init_last: Start as ``relu(x)``; ``False`` = with random last layers.

    Shapes:
        x: ``[N, C, T, H, W]``, any values.
        regions: ``[N, R, T, H, W]``; ``None`` = those of its own searcher.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: ``[N, C, T, H, W]``, zero or more; zeros past the end.

    Raises:
        TypeError: If ``x`` is no tensor of floats or ``lengths`` no integer tensor.
        ValueError: If a kernel is even, there are no regions and no searcher, or axes, channels or
            lengths do not fit.

    Example:
        >>> network = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), RegionDynamicAggregation(8))
        >>> network(torch.rand(2, 1, 5, 16, 11)).shape
        torch.Size([2, 8, 5, 16, 11])
    """

    def __init__(
        self,
        channels: int,
        kernels: tuple[int, ...] = (1, 3, 5, 7),
        num_regions: int = 4,
        *,
        search: bool = True,
        zero_init_last: bool = True,
    ) -> None:
        super().__init__()
        check_size(channels=channels, num_regions=num_regions)
        self.kernels = check_sizes("kernels", kernels)
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise ValueError(f"expected kernels of odd numbers of frames, got {kernels!r}")
        self.channels, self.num_regions = channels, num_regions
        self.searcher = RegionSearcher(channels, num_regions) if search else None
        self.convs = nn.ModuleList(
            nn.Identity()
            if kernel == 1
            else Conv3d(
                channels,
                channels,
                (kernel, 1, 1),
                padding=(kernel // 2, 0, 0),
                groups=channels,
                bias=False,
            )
            for kernel in self.kernels
        )
        hidden = max(1, channels // 4)
        self.choose = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, len(self.kernels))
        )
        self.join = nn.Sequential(
            Conv3d(channels, channels, 1, bias=False), nn.BatchNorm3d(channels)
        )
        if zero_init_last:
            _start_at_zero(self.choose[-1], self.join[-1])

    def kernel_weights(self, x: Tensor, regions: Tensor) -> Tensor:
        """How much of each kernel every region takes, ``[N, R, K]``, adding up to 1 over K.

        Args:
            x: The map, zeros past the end.
            regions: See the class, zeros past the end.
        """
        # Per frame first: sums over whole sequences overflow in half precision.
        sums = torch.einsum("nrthw,ncthw->nrct", regions, x).sum(-1, dtype=_wide(x))
        sizes = regions.sum((3, 4)).sum(-1, dtype=_wide(x))
        means = (sums / (sizes[..., None] + _EPS)).to(x.dtype)
        return self.choose(means).softmax(dim=-1)

    def receptive_fields(self, kernel_weights: Tensor) -> Tensor:
        """The mean kernel of every region, ``[N, R]``, frames.

        Args:
            kernel_weights: From :meth:`kernel_weights`.
        """
        frames = torch.tensor(self.kernels, device=kernel_weights.device)
        return (kernel_weights * frames).sum(-1)

    def forward(
        self, x: Tensor, regions: Tensor | None = None, lengths: Tensor | None = None
    ) -> Tensor:
        """Returns the map."""
        check_features(x, self.channels, lengths)
        x = mask_fill(x, lengths)
        if regions is not None:
            regions = check_regions(regions, x, self.num_regions, lengths)
        elif self.searcher is not None:
            regions = self.searcher(x, lengths)
        else:
            raise ValueError("expected regions of a block built with search=False, got none")
        assert regions is not None
        return self.aggregate(x, regions, self.kernel_weights(x, regions), lengths)

    def aggregate(
        self, x: Tensor, regions: Tensor, kernel_weights: Tensor, lengths: Tensor | None
    ) -> Tensor:
        """The map for given weights of the kernels.

        Args:
            x: The map, zeros past the end.
            regions: See the class, zeros past the end.
            kernel_weights: ``[N, R, K]``.
            lengths: See the class.
        """
        shares = torch.einsum("nrk,nrthw->nkthw", kernel_weights.to(regions.dtype), regions)
        mixed = torch.zeros_like(x)
        for share, conv in zip(shares.unbind(1), self.convs, strict=True):
            mixed = mixed + share[:, None] * conv(x)
        return mask_fill(F.relu(x + self.join(mixed)), lengths)


class RegionDynamicExcitation(nn.Module):
    """RDE: each region is multiplied by a number from 0 to 2, by how it moves.

    The difference of each frame and the (convolved) next one, averaged over a region, is its motion
    in that frame; mean and deviation over time say how much it moves and how steadily. From both a
    small network, the same for all regions, makes the weight. At first all weights are 0, and the
    block gives its input.

    Source: GaitRDAE (https://arxiv.org/abs/2510.16541); the form is [inferred] from excitation by
    motion in action recognition (TEA, https://arxiv.org/abs/2004.01398). The last frame of a
    sequence, without a next one, has no motion and does not count.

    Args:
        channels: Channels of the map.
        reduction: Motion is seen in ``channels // reduction`` channels.
        num_regions: R.
        per_frame: A weight for every frame: motion of the frame instead of the mean, and a
            convolution over three frames.
        zero_init_last: Start as the identity; ``False`` = with a random last layer.
        hidden_channels: Width of the network behind the statistics [unknown].

    Shapes:
        x: ``[N, C, T, H, W]``, any values.
        regions: ``[N, R, T, H, W]``, from a :class:`RegionSearcher` for example.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: ``[N, C, T, H, W]``; zeros past the end.

    Raises:
        TypeError: If ``x`` is no tensor of floats or ``lengths`` no integer tensor.
        ValueError: If axes, channels, regions or lengths do not fit.

    Example:
        >>> halves = torch.zeros(2, 2, 5, 16, 11)
        >>> halves[:, 0, :, :8], halves[:, 1, :, 8:] = 1, 1  # upper and lower body
        >>> x = nn.Conv3d(1, 8, 3, padding=1)(torch.rand(2, 1, 5, 16, 11))
        >>> torch.equal(RegionDynamicExcitation(8, 4, num_regions=2)(x, halves), x)
        True
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        num_regions: int = 4,
        *,
        per_frame: bool = False,
        zero_init_last: bool = True,
        hidden_channels: int = 16,
    ) -> None:
        super().__init__()
        check_size(channels=channels, reduction=reduction, num_regions=num_regions)
        check_size(hidden_channels=hidden_channels)
        self.channels, self.num_regions, self.per_frame = channels, num_regions, per_frame
        narrow = max(1, channels // reduction)
        self.squeeze = nn.Sequential(
            Conv3d(channels, narrow, 1, bias=False), nn.BatchNorm3d(narrow)
        )
        self.next_frame = Conv3d(
            narrow, narrow, (1, 3, 3), padding=(0, 1, 1), groups=narrow, bias=False
        )
        nn.init.dirac_(self.next_frame.weight, groups=narrow)  # a true difference at first
        self.judge = nn.Sequential(
            nn.Conv1d(3, hidden_channels, 3, padding=1)
            if per_frame
            else nn.Conv1d(3, hidden_channels, 1),
            nn.ReLU(),
            nn.Conv1d(hidden_channels, 1, 1),
        )
        if zero_init_last:
            _start_at_zero(self.judge[-1])

    def motion(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Difference of every frame and the next one, ``[N, T, H, W]``, 0 or more.

        Args:
            x: The map, zeros past the end.
            lengths: See the class. The last frame of each sequence, and what is past it, is 0.
        """
        narrow = self.squeeze(x)
        step = (self.next_frame(narrow)[:, :, 1:] - narrow[:, :, :-1]).abs().mean(dim=1)
        step = F.pad(step, (0, 0, 0, 0, 0, 1))
        return mask_fill(step, None if lengths is None else lengths - 1, axis=1)

    def region_weights(self, x: Tensor, regions: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The weight of every region, ``[N, R]``, or ``[N, R, T]`` with ``per_frame``, in (-1, 1).

        Args:
            x: The map, zeros past the end.
            regions: See the class, zeros past the end.
            lengths: See the class.
        """
        num_frames, wide = x.shape[2], _wide(x)
        energy = torch.einsum("nrthw,nthw->nrt", regions, self.motion(x, lengths)).to(wide)
        energy = energy / (regions.sum((3, 4)).to(wide) + _EPS)
        steps = torch.full(x.shape[:1], num_frames, device=x.device) if lengths is None else lengths
        steps = steps - 1
        counted = torch.arange(num_frames, device=x.device) < steps[:, None]
        count = steps.clamp(min=1)[:, None, None]
        mean = (energy * counted[:, None]).sum(-1, keepdim=True) / count
        spread = ((energy - mean).square() * counted[:, None]).sum(-1, keepdim=True) / count
        deviation = (spread + _EPS**2).sqrt()
        level = energy if self.per_frame else mean
        deviation = deviation.expand_as(level)
        facts = [level.log1p(), deviation.log1p(), level / (level + deviation + _EPS)]
        # Regions as a batch of their own, so that one network judges them all.
        facts = torch.stack(facts, dim=2).flatten(0, 1).to(x.dtype)
        if self.per_frame:
            repeated = None if lengths is None else lengths.repeat_interleave(regions.shape[1])
            facts = mask_fill(facts, repeated)
        # 2 * sigmoid(z) - 1, in fewer steps.
        weights = (self.judge(facts) / 2).tanh().squeeze(1).unflatten(0, (x.shape[0], -1))
        return weights if self.per_frame else weights.squeeze(-1)

    def forward(self, x: Tensor, regions: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the map with regions raised and lowered."""
        check_features(x, self.channels, lengths)
        x = mask_fill(x, lengths)
        regions = check_regions(regions, x, self.num_regions, lengths)
        return self.excite(x, regions, self.region_weights(x, regions, lengths))

    def excite(self, x: Tensor, regions: Tensor, weights: Tensor) -> Tensor:
        """The map for given weights of the regions.

        Args:
            x: The map, zeros past the end.
            regions: See the class.
            weights: From :meth:`region_weights`.
        """
        letters = "nrt" if self.per_frame else "nr"
        change = torch.einsum(f"{letters},nrthw->nthw", weights.to(regions.dtype), regions)
        return x * (1 + change[:, None])


class RDAEBlock(nn.Module):
    """RDA, then RDE, with the same regions, found in the block's input.

    The shape stays: it goes behind any stage that gives ``[N, C, T, H, W]``. With
    ``zero_init_last`` it starts as ``relu(x)``, which behind a ReLU is the identity, so that it can
    be put into a trained network.

    Source: GaitRDAE (https://arxiv.org/abs/2510.16541); the form is [inferred].

    Args:
        channels: Channels of the map.
        use_rda: With :class:`RegionDynamicAggregation`.
        use_rde: With :class:`RegionDynamicExcitation`.
        num_regions: R.
        kernels: Of RDA, odd numbers of frames.
        reduction: Of RDE.
        tau: Of :class:`RegionSearcher`.
        hard: Of :class:`RegionSearcher`.
        per_frame: Of RDE.
        zero_init_last: Of both.

    Shapes:
        x: ``[N, C, T, H, W]``, any values.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: ``[N, C, T, H, W]``, zeros past the end; with ``return_regions`` also a
            :class:`RegionReport`.

    Raises:
        TypeError: If ``x`` is no tensor of floats or ``lengths`` no integer tensor.
        ValueError: If both parts are switched off, an argument has none of the values named here,
            or axes, channels or lengths do not fit.

    Example:
        >>> network = nn.Sequential(
        ...     nn.Conv3d(1, 8, 3, padding=1), nn.ReLU(), RDAEBlock(8), nn.AdaptiveMaxPool3d(1)
        ... )
        >>> network(torch.rand(2, 1, 5, 16, 11)).shape
        torch.Size([2, 8, 1, 1, 1])
        >>> _, report = RDAEBlock(8)(torch.rand(2, 8, 5, 16, 11), return_regions=True)
        >>> report.receptive_fields.tolist()[0]
        [4.0, 4.0, 4.0, 4.0]
    """

    def __init__(
        self,
        channels: int,
        use_rda: bool = True,
        use_rde: bool = True,
        *,
        num_regions: int = 4,
        kernels: tuple[int, ...] = (1, 3, 5, 7),
        reduction: int = 16,
        tau: float = 1.0,
        hard: bool = False,
        per_frame: bool = False,
        zero_init_last: bool = True,
    ) -> None:
        super().__init__()
        if not (use_rda or use_rde):
            raise ValueError("expected use_rda, use_rde or both, got neither")
        self.searcher = RegionSearcher(channels, num_regions, tau, hard)
        self.rda = (
            RegionDynamicAggregation(
                channels, kernels, num_regions, search=False, zero_init_last=zero_init_last
            )
            if use_rda
            else None
        )
        self.rde = (
            RegionDynamicExcitation(
                channels,
                reduction,
                num_regions,
                per_frame=per_frame,
                zero_init_last=zero_init_last,
            )
            if use_rde
            else None
        )

    def forward(
        self, x: Tensor, lengths: Tensor | None = None, return_regions: bool = False
    ) -> Any:
        """Returns the map, and what was found if that is asked for."""
        check_features(x, self.searcher.channels, lengths)
        x = mask_fill(x, lengths)
        regions = self.searcher(x, lengths)
        fields = weights = None
        if self.rda is not None:
            kernel_weights = self.rda.kernel_weights(x, regions)
            fields = self.rda.receptive_fields(kernel_weights)
            x = self.rda.aggregate(x, regions, kernel_weights, lengths)
        if self.rde is not None:
            weights = self.rde.region_weights(x, regions, lengths)
            x = self.rde.excite(x, regions, weights)
        return (x, RegionReport(regions, fields, weights)) if return_regions else x


def _start_at_zero(*layers: nn.Module) -> None:
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
