"""Blocks shared by the models: pooling over time and over body parts.

Parts come out on the middle axis, ``[N, P, C]``, and each block works alone in other networks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from gaitzoo.layers.checks import (
    check_features,
    check_lengths,
    check_parts_divide,
    check_size,
    check_sizes,
)
from gaitzoo.layers.fused import FusedAggregation, WideTemporalMax
from gaitzoo.layers.sequence import mask_fill, masked_max

__all__ = [
    "GeMHPP",
    "HorizontalPyramidPooling",
    "LocalTemporalAggregation",
    "TemporalMax",
]


class TemporalMax(nn.Module):
    """Maximum over the valid frames of each sequence.

    Source: GaitSet (https://arxiv.org/abs/1811.06186), Sec. 3.3, "set pooling" with max.

    Shapes:
        x: ``[N, C, T, ...]``, any values.
        lengths: ``[N]`` int64, ``None`` = all T.
        returns: ``[N, C, ...]``.

    Example:
        >>> TemporalMax()(torch.rand(2, 8, 9, 16, 11), torch.tensor([9, 4])).shape
        torch.Size([2, 8, 16, 11])
    """

    def fused(self, dtype: torch.dtype) -> nn.Module:
        """The form for inference, see :func:`gaitzoo.fuse_for_inference`; takes over weights."""
        return WideTemporalMax()

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the maximum over time."""
        if lengths is not None:
            check_lengths(lengths, x.shape[0], x.shape[2])
        return masked_max(x, lengths)


class LocalTemporalAggregation(nn.Module):
    """Shortens a sequence by a strided convolution over time, then LeakyReLU (slope 0.01).

    Source: GaitGL (https://arxiv.org/abs/2011.01461), Sec. 3.2, "local temporal aggregation".

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Frames joined into one; also the stride. Frames left over at the end of a
            sequence are dropped.

    Shapes:
        x: ``[N, C_in, T, H, W]``, any values, ``T >= kernel_size``.
        lengths: ``[N]`` int64, ``None`` = all T.
        returns: ``[N, C_out, T // kernel_size, H, W]``; zeros past ``out_lengths(lengths)``.

    Raises:
        ValueError: If axes or channels are wrong, or a sequence has fewer frames than
            ``kernel_size``.

    Example:
        >>> aggregate = LocalTemporalAggregation(8, 8)
        >>> aggregate(torch.rand(2, 8, 9, 16, 11)).shape
        torch.Size([2, 8, 3, 16, 11])
        >>> aggregate.out_lengths(torch.tensor([9, 7])).tolist()
        [3, 2]
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        check_size(in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size)
        self.kernel_size = kernel_size
        self.conv = nn.Conv3d(
            in_channels,
            out_channels,
            kernel_size=(kernel_size, 1, 1),
            stride=(kernel_size, 1, 1),
            bias=False,
        )

    def out_lengths(self, lengths: Tensor) -> Tensor:
        """Valid frames after the block, ``[N]``."""
        return lengths // self.kernel_size

    def fused(self, dtype: torch.dtype) -> nn.Module:
        """The form for inference, see :func:`gaitzoo.fuse_for_inference`; takes over weights."""
        return FusedAggregation(self.conv)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the shortened sequence."""
        check_features(x, self.conv.in_channels, lengths, shortest=self.kernel_size)
        x = F.leaky_relu(self.conv(x), 0.01)
        return mask_fill(x, None if lengths is None else self.out_lengths(lengths))


class GeMHPP(nn.Module):
    """Generalised-mean pooling of horizontal bands: one vector per body part.

    For every number of bands ``b`` the map is cut into ``b`` bands of equal height and each band
    becomes ``mean(clamp(x, eps) ** p) ** (1 / p)`` with one learned exponent ``p`` for all.

    Source: GaitGL (https://arxiv.org/abs/2011.01461), Sec. 3.4, Eq. 7.
    Differs from upstream: the band is divided by its maximum before the power and multiplied by it
    afterwards, and float16/bfloat16 inputs are pooled in float32. The value is the same to 1e-5,
    but bands without any silhouette, whose power underflows, keep finite gradients.

    Args:
        part_bins: Numbers of bands; their sum is the number of parts.
        p: First value of the exponent.
        eps: Smallest value of a pixel before the power.
        learnable: Whether the exponent is trained; else it is no parameter and is not saved.

    Shapes:
        x: ``[N, C, H, W]``, any values; every entry of ``part_bins`` divides H.
        returns: ``[N, P, C]``, bands from top to bottom, in the order of ``part_bins``.

    Raises:
        ValueError: If bands do not divide the height, or ``p`` or ``eps`` is not positive.

    Example:
        >>> GeMHPP((4, 2, 1))(torch.rand(2, 8, 16, 11)).shape
        torch.Size([2, 7, 8])
    """

    keeps_float32 = True

    def __init__(
        self,
        part_bins: tuple[int, ...] = (16, 8, 4, 2, 1),
        p: float = 6.5,
        eps: float = 1e-6,
        learnable: bool = True,
    ) -> None:
        super().__init__()
        self.part_bins = check_sizes("part_bins", part_bins)
        if not (eps > 0 and 0 < p < float("inf")):
            raise ValueError(f"expected p and eps above 0, got p={p} and eps={eps}")
        self.eps = eps
        exponent = torch.full((1,), float(p))
        self.p: Tensor
        if learnable:
            self.p = nn.Parameter(exponent)
        else:
            self.register_buffer("p", exponent, persistent=False)

    @property
    def num_parts(self) -> int:
        """Number of parts that come out."""
        return sum(self.part_bins)

    def extra_repr(self) -> str:
        """Text inside the printed module."""
        return f"part_bins={self.part_bins}, eps={self.eps}"

    def forward(self, x: Tensor) -> Tensor:
        """Returns the pooled parts."""
        check_parts_divide(x, self.part_bins)
        # Autocast leaves these operations in the type they are given.
        bands_dtype = torch.promote_types(x.dtype, torch.float32)
        parts = [
            self._pool(rearrange(x.to(bands_dtype), "n c (b h) w -> n c b (h w)", b=bins))
            for bins in self.part_bins
        ]
        return torch.cat(parts, dim=2).transpose(1, 2).to(x.dtype)

    def _pool(self, bands: Tensor) -> Tensor:
        """Pools the last axis of ``[N, C, bins, pixels]``."""
        bands = bands.clamp(min=self.eps)
        p = self.p.to(bands.dtype)
        # The value does not depend on the scale, so no gradient has to pass through it.
        scale = bands.detach().amax(dim=-1, keepdim=True)
        pooled = (bands / scale).pow(p).mean(dim=-1).pow(1.0 / p)
        return pooled * scale.squeeze(-1)


class HorizontalPyramidPooling(nn.Module):
    """Mean plus maximum of horizontal bands: one vector per body part, nothing learned.

    Source: Horizontal Pyramid Matching (https://arxiv.org/abs/1804.05275), Sec. 3.2; in gait since
    GaitSet (https://arxiv.org/abs/1811.06186), Sec. 3.4.

    Args:
        part_bins: Numbers of bands; their sum is the number of parts.

    Shapes:
        x: ``[N, C, H, W]``, any values; every entry of ``part_bins`` divides H.
        returns: ``[N, P, C]``, bands from top to bottom, in the order of ``part_bins``.

    Raises:
        ValueError: If bands do not divide the height.

    Example:
        >>> HorizontalPyramidPooling((16,))(torch.rand(2, 8, 16, 11)).shape
        torch.Size([2, 16, 8])
    """

    keeps_float32 = True

    def __init__(self, part_bins: tuple[int, ...] = (16,)) -> None:
        super().__init__()
        self.part_bins = check_sizes("part_bins", part_bins)

    @property
    def num_parts(self) -> int:
        """Number of parts that come out."""
        return sum(self.part_bins)

    def extra_repr(self) -> str:
        """Text inside the printed module."""
        return f"part_bins={self.part_bins}"

    def forward(self, x: Tensor) -> Tensor:
        """Returns the pooled parts."""
        check_parts_divide(x, self.part_bins)
        x = x.contiguous()  # pixels of a band side by side: several times faster to add up
        parts = []
        for bins in self.part_bins:
            bands = rearrange(x, "n c (b h) w -> n c b (h w)", b=bins)
            parts.append(bands.mean(dim=-1) + bands.amax(dim=-1))
        return torch.cat(parts, dim=2).transpose(1, 2)
