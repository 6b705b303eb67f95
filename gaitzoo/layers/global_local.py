"""Convolutions of the whole body and of its strips, side by side.

Source: GaitGL (ICCV 2021), https://arxiv.org/abs/2011.01461, Sec. 3.2; written from the paper and
measured shapes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_features, shape_of
from gaitzoo.layers.conv import Conv3d
from gaitzoo.layers.fused import convolve
from gaitzoo.layers.sequence import mask_fill

__all__ = ["FusedGLConv", "GLConv"]


class FusedGLConv(nn.Module):
    """:class:`GLConv` with the channels of a pixel side by side; shapes as there.

    Args:
        block: The plain block.
    """

    def __init__(self, block: GLConv) -> None:
        super().__init__()
        self.num_strips, self.mode = block.num_strips, block.mode
        self.whole, self.strips = block.whole, block.strips

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the map."""
        if x.shape[3] % self.num_strips:
            raise ValueError(
                f"expected a height that {self.num_strips} strips divide, got {shape_of(x)}"
            )
        x = mask_fill(x, lengths)
        whole = convolve(self.whole, x)
        rows = x.movedim(1, -1).unflatten(2, (self.num_strips, -1))
        strips = rows.transpose(1, 2).flatten(0, 1).movedim(-1, 1)
        found = convolve(self.strips, strips).movedim(1, -1)
        found = found.unflatten(0, (-1, self.num_strips)).transpose(1, 2)
        local = found.flatten(2, 3).movedim(-1, 1)
        if self.mode == "cat":
            return F.leaky_relu_(torch.cat([whole, local], dim=3), 0.01)
        return F.leaky_relu_(whole, 0.01).add_(F.leaky_relu(local, 0.01))


class GLConv(nn.Module):
    """A 3x3x3 convolution of the whole map and another one of its horizontal strips.

    ``"add"``: ``LeakyReLU(whole) + LeakyReLU(strips)``. ``"cat"``: both below each other, the
    whole first, so that the map is twice as high. Strips have zeros of their own around them.

    Source: GaitGL (https://arxiv.org/abs/2011.01461), Sec. 3.2, Eqs. 2 to 4. Differs from upstream:
    strips are computed as sequences of a batch; heights that they do not divide are refused.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        halving: The height is cut into ``2 ** halving`` strips.
        mode: ``"add"`` or ``"cat"``.

    Shapes:
        x: ``[N, C_in, T, H, W]``, any values.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: ``[N, C_out, T, H, W]``, with ``"cat"`` ``[N, C_out, T, 2 H, W]``; what stands past
            the end of a sequence holds no meaning.

    Raises:
        ValueError: If ``mode`` is unknown, ``halving`` negative, the strips do not divide ``H``,
            or axes, channels or lengths do not fit.

    Example:
        >>> GLConv(4, 8, halving=1, mode="cat")(torch.rand(2, 4, 5, 16, 11)).shape
        torch.Size([2, 8, 5, 32, 11])
    """

    def __init__(
        self, in_channels: int, out_channels: int, halving: int = 3, mode: str = "add"
    ) -> None:
        super().__init__()
        if mode not in ("add", "cat"):
            raise ValueError(f'expected mode "add" or "cat", got {mode!r}')
        if type(halving) is not int or halving < 0:
            raise ValueError(f"expected halving as a whole number of 0 or more, got {halving!r}")
        self.in_channels, self.num_strips, self.mode = in_channels, 2**halving, mode
        self.whole = Conv3d(in_channels, out_channels, 3, padding=1, bias=False)
        self.strips = Conv3d(in_channels, out_channels, 3, padding=1, bias=False)

    def fused(self, dtype: torch.dtype) -> nn.Module:
        """The form for inference, see :func:`gaitzoo.fuse_for_inference`; takes over weights."""
        return FusedGLConv(self)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the map."""
        check_features(x, self.in_channels, lengths)
        if x.shape[3] % self.num_strips:
            raise ValueError(
                f"expected a height that {self.num_strips} strips divide, got {shape_of(x)}; use "
                "frames of 64 or 128 rows, or another halving"
            )
        x = mask_fill(x, lengths)
        whole = self.whole(x)
        strips = x.unflatten(3, (self.num_strips, -1)).permute(0, 3, 1, 2, 4, 5).flatten(0, 1)
        local = self.strips(strips).unflatten(0, (-1, self.num_strips))
        local = local.permute(0, 2, 3, 1, 4, 5).flatten(3, 4)
        inplace = not torch.is_grad_enabled()
        if self.mode == "cat":
            return F.leaky_relu(torch.cat([whole, local], dim=3), 0.01, inplace=inplace)
        return F.leaky_relu(whole, 0.01, inplace=inplace) + F.leaky_relu(local, 0.01)
