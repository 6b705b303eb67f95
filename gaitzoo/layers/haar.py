"""Haar wavelets of images: half the height and width, and nothing lost.

Source: Haar wavelet downsampling as used by TrackletGait (https://arxiv.org/abs/2508.02143).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import shape_of
from gaitzoo.layers.fused import channels_last, fold_inside

__all__ = ["HaarDownsample2d", "haar_dwt2d", "haar_idwt2d"]


def haar_dwt2d(x: Tensor) -> Tensor:
    """The four bands of the orthonormal Haar transform of every 2 x 2 cell.

    Of a cell ``[[a, b], [c, d]]``: ``(a+b+c+d)/2``, the difference along the width
    ``(a-b+c-d)/2``, along the height ``(a+b-c-d)/2``, and along both ``(a-b-c+d)/2``.

    Args:
        x: ``[B, C, H, W]``, any values; odd sizes get a zero at the far edge.

    Returns:
        ``[B, 4, C, H / 2, W / 2]``, rounded up.

    Raises:
        ValueError: If ``x`` is no map of images.

    Example:
        >>> haar_dwt2d(torch.ones(1, 3, 4, 6))[0, :, 0, 0, 0].tolist()
        [2.0, 0.0, 0.0, 0.0]
    """
    if x.ndim != 4 or not x.is_floating_point():
        raise ValueError(f"expected images [B, C, H, W] of floats, got {shape_of(x)} {x.dtype}")
    x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
    top, bottom = x[:, :, ::2], x[:, :, 1::2]
    total, height = top + bottom, top - bottom
    bands = (
        total[..., ::2] + total[..., 1::2],
        total[..., ::2] - total[..., 1::2],
        height[..., ::2] + height[..., 1::2],
        height[..., ::2] - height[..., 1::2],
    )
    return torch.stack(bands, dim=1) / 2


def haar_idwt2d(bands: Tensor) -> Tensor:
    """The images whose four bands are given.

    Args:
        bands: ``[B, 4, C, H, W]`` as from :func:`haar_dwt2d`.

    Returns:
        ``[B, C, 2 H, 2 W]``; a padded edge is still there.

    Raises:
        ValueError: If there are no four bands.

    Example:
        >>> x = torch.rand(1, 3, 4, 6)
        >>> torch.allclose(haar_idwt2d(haar_dwt2d(x)), x, atol=1e-6)
        True
    """
    if bands.ndim != 5 or bands.shape[1] != 4:
        raise ValueError(f"expected bands [B, 4, C, H, W], got {shape_of(bands)}")
    low, width, height, both = bands.unbind(1)
    left_top, right_top = low + width + height + both, low - width + height - both
    left_bottom, right_bottom = low + width - height - both, low - width - height + both
    top = torch.stack([left_top, right_top], dim=-1).flatten(-2)
    bottom = torch.stack([left_bottom, right_bottom], dim=-1).flatten(-2)
    return torch.stack([top, bottom], dim=-2).flatten(-3, -2) / 2


class HaarDownsample2d(nn.Module):
    """Half the height and width without losing a number: bands, a matrix, batch norm, ReLU.

    Source: TrackletGait (https://arxiv.org/abs/2508.02143), Haar wavelet downsampling.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.

    Shapes:
        x: ``[B, C_in, H, W]``; odd sizes get a zero at the far edge.
        returns: ``[B, C_out, H / 2, W / 2]``, rounded up, 0 or more.

    Example:
        >>> HaarDownsample2d(4, 8)(torch.rand(2, 4, 9, 6)).shape
        torch.Size([2, 8, 5, 3])
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4 * in_channels, out_channels, 1)
        self.bn = nn.BatchNorm2d(out_channels)

    def fused(self, dtype: torch.dtype) -> nn.Module:
        """Itself, with the batch norm folded: for inference alone."""
        fold_inside(self, ("conv", "bn"))
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Returns the smaller map."""
        bands = haar_dwt2d(x).flatten(1, 2)
        # Convolutions go on in the layout that they get.
        return F.relu(self.bn(self.conv(channels_last(bands) if x.stride(1) == 1 else bands)))
