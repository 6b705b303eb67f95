"""Cross-stage-partial blocks and a pyramid of them: three maps of a picture.

Written from a public description of the block types and widths of YOLO11 alone; no code of that
package, which is under another licence, is contained or needed. Its trained weights do not fit.
Source of the idea: CSPNet (https://arxiv.org/abs/1911.11929), Sec. 3; pooling after
https://arxiv.org/abs/1406.4729, Sec. 2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_size, shape_of
from gaitzoo.layers.conv import Conv2d

__all__ = ["SPPF", "CSPBlock", "CSPPyramid", "PartialSelfAttention", "conv_bn_silu"]

# Channels at width 1 and blocks at depth 1.
_CHANNELS = (64, 128, 256, 256, 512, 512, 512, 1024, 1024)
_BLOCKS = 2


def conv_bn_silu(
    in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1
) -> nn.Sequential:
    """A convolution that keeps the size (over ``stride``, rounded up), batch norm and SiLU.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Odd.
        stride: Step.

    Example:
        >>> conv_bn_silu(3, 8, 3, stride=2).eval()(torch.rand(1, 3, 9, 7)).shape
        torch.Size([1, 8, 5, 4])
    """
    conv = Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
    # torch's own start halves the signal at every layer, and there are dozens.
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.SiLU())


class CSPBlock(nn.Module):
    """Half of the channels goes through a chain of residual blocks; all that arises is joined.

    A 1x1 convolution gives two halves, the second goes through the chain, and both halves and the
    output of every link are joined by another 1x1 convolution.

    Source: CSPNet (https://arxiv.org/abs/1911.11929), Sec. 3, in the form that YOLO11 calls C3k2.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        blocks: Links of the chain.
        expansion: Channels of a half, as a share of ``out_channels``.
        nested: Links are small blocks of the same kind instead of two 3x3 convolutions.
        shortcut: Links add their input.

    Shapes:
        x: ``[B, in_channels, H, W]``, any values.
        returns: ``[B, out_channels, H, W]``.

    Raises:
        ValueError: If a size is no positive whole number, or ``expansion`` is not positive.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 6, 3), CSPBlock(6, 8), nn.Flatten(), nn.LazyLinear(2))
        >>> net.eval()(torch.rand(2, 1, 10, 8)).shape
        torch.Size([2, 2])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        blocks: int = 1,
        expansion: float = 0.5,
        nested: bool = False,
        shortcut: bool = True,
    ) -> None:
        super().__init__()
        check_size(in_channels=in_channels, out_channels=out_channels, blocks=blocks)
        if not expansion > 0:
            raise ValueError(f"expected a positive expansion, got {expansion!r}")
        half = max(1, round(out_channels * expansion))
        self.spread = conv_bn_silu(in_channels, 2 * half)
        self.chain = nn.ModuleList(
            _Nested(half, shortcut) if nested else _Bottleneck(half, 0.5, shortcut)
            for _ in range(blocks)
        )
        self.join = conv_bn_silu((2 + blocks) * half, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the map."""
        found = list(self.spread(x).chunk(2, dim=1))
        for link in self.chain:
            found.append(link(found[-1]))
        return self.join(torch.cat(found, dim=1))


class _Bottleneck(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, channels: int, expansion: float, shortcut: bool) -> None:
        super().__init__()
        hidden = max(1, round(channels * expansion))
        self.shortcut = shortcut
        self.convs = nn.Sequential(
            conv_bn_silu(channels, hidden, 3), conv_bn_silu(hidden, channels, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convs(x) if self.shortcut else self.convs(x)


class _Nested(nn.Module):
    """One half through two bottlenecks, the other past them, joined at the end."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        half = max(1, channels // 2)
        self.into, self.past = conv_bn_silu(channels, half), conv_bn_silu(channels, half)
        self.chain = nn.Sequential(*(_Bottleneck(half, 1.0, shortcut) for _ in range(2)))
        self.join = conv_bn_silu(2 * half, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(torch.cat([self.chain(self.into(x)), self.past(x)], dim=1))


class SPPF(nn.Module):
    """Maxima of three growing neighbourhoods beside the map itself, joined.

    Three 5x5 maximum poolings one after the other see 5, 9 and 13 pixels.

    Source: spatial pyramid pooling (https://arxiv.org/abs/1406.4729), Sec. 2, in the chained form
    of the YOLO family.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.

    Shapes:
        x: ``[B, in_channels, H, W]``, any values.
        returns: ``[B, out_channels, H, W]``.

    Raises:
        ValueError: If a size is no positive whole number.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), SPPF(8, 5), nn.Flatten(2))
        >>> net.eval()(torch.rand(2, 3, 33, 21)).shape
        torch.Size([2, 5, 40])
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        check_size(in_channels=in_channels, out_channels=out_channels)
        half = max(1, in_channels // 2)
        self.narrow = conv_bn_silu(in_channels, half)
        self.join = conv_bn_silu(4 * half, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the map."""
        found = [self.narrow(x)]
        for _ in range(3):
            found.append(F.max_pool2d(found[-1], 5, 1, 2))
        return self.join(torch.cat(found, dim=1))


class PartialSelfAttention(nn.Module):
    """Half of the channels goes through attention among all pixels, the other half past it.

    The attention adds a depthwise 3x3 convolution of its values, which tells places apart; behind
    it stand two 1x1 convolutions. Both are residual.

    Source: the C2PSA block of YOLO11, by its public description; heads have as many channels for
    keys as for values, which is our choice.

    Args:
        channels: C, even.
        num_heads: Heads, which divide half of C; ``None`` = one per 64 channels of the half.

    Shapes:
        x: ``[B, C, H, W]``, any values.
        returns: ``[B, C, H, W]``.

    Raises:
        ValueError: If a size is no positive whole number or does not divide.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 8, 3, stride=4), PartialSelfAttention(8, 2), nn.ReLU())
        >>> net.eval()(torch.rand(2, 1, 33, 21)).shape
        torch.Size([2, 8, 8, 5])
    """

    def __init__(self, channels: int, num_heads: int | None = None) -> None:
        super().__init__()
        check_size(channels=channels)
        half = channels // 2
        heads = max(1, half // 64) if num_heads is None else num_heads
        check_size(num_heads=heads)
        if channels % 2 or half % heads:
            raise ValueError(
                f"expected an even number of channels, half of them a multiple of {heads} heads, "
                f"got {channels}"
            )
        self.num_heads = heads
        self.spread, self.join = conv_bn_silu(channels, channels), conv_bn_silu(channels, channels)
        self.query_key_value = _conv_bn(half, 3 * half)
        self.places = nn.Sequential(
            Conv2d(half, half, 3, padding=1, groups=half, bias=False), nn.BatchNorm2d(half)
        )
        self.out = _conv_bn(half, half)
        self.feed_forward = nn.Sequential(conv_bn_silu(half, 2 * half), _conv_bn(2 * half, half))

    def forward(self, x: Tensor) -> Tensor:
        """Returns the map."""
        past, x = self.spread(x).chunk(2, dim=1)
        x = x + self._attend(x)
        x = x + self.feed_forward(x)
        return self.join(torch.cat([past, x], dim=1))

    def _attend(self, x: Tensor) -> Tensor:
        query, key, value = self.query_key_value(x).chunk(3, dim=1)
        found = F.scaled_dot_product_attention(
            self._heads(query), self._heads(key), self._heads(value)
        )
        found = found.transpose(2, 3).flatten(1, 2).unflatten(2, x.shape[2:])
        return self.out(found + self.places(value))

    def _heads(self, x: Tensor) -> Tensor:
        return x.flatten(2).unflatten(1, (self.num_heads, -1)).transpose(2, 3)


def _conv_bn(in_channels: int, out_channels: int) -> nn.Sequential:
    conv = Conv2d(in_channels, out_channels, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


class CSPPyramid(nn.Module):
    """A small network of CSP blocks that gives three maps of a picture, at 1/8, 1/16 and 1/32.

    Source: the layout of YOLO11's backbone by its public description (stem, then four times a
    3x3 convolution of step 2 and a :class:`CSPBlock`, then :class:`SPPF` and
    :class:`PartialSelfAttention`). [inferred]: widths and number of blocks, recalled from there.

    Args:
        in_channels: Channels of the picture: 3 for colours, 1 for depth.
        width: Factor of all channels; 0.25, 0.5 and 1 are its sizes n, s and l.
        depth: Factor of the number of links in each block, two at 1.

    Shapes:
        x: ``[B, in_channels, H, W]``, any values.
        returns: P3, P4 and P5, ``[B, channels[i], H / 8, W / 8]`` and so on, rounded up.

    Attributes:
        channels: Of the three maps: 128, 128 and 256 at width 0.25.

    Raises:
        ValueError: If a size is not positive, or the picture has other channels.

    Example:
        >>> pyramid, classify = CSPPyramid(1, width=0.125).eval(), nn.Linear(128, 2)
        >>> maps = pyramid(torch.rand(2, 1, 64, 48))
        >>> [list(x.shape[1:]) for x in maps]
        [[64, 8, 6], [64, 4, 3], [128, 2, 2]]
        >>> classify(maps[2].mean((2, 3))).shape
        torch.Size([2, 2])
    """

    def __init__(self, in_channels: int = 3, width: float = 0.25, depth: float = 0.5) -> None:
        super().__init__()
        check_size(in_channels=in_channels)
        for name, factor in (("width", width), ("depth", depth)):
            if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not factor > 0:
                raise ValueError(f"expected a positive {name}, got {factor!r}")
        # Even, so that all can be halved.
        sizes = [max(2, 2 * round(n * width / 2)) for n in _CHANNELS]
        blocks = max(1, round(_BLOCKS * depth))
        self.in_channels, self.channels = in_channels, (sizes[4], sizes[6], sizes[8])
        self.stem = nn.Sequential(
            conv_bn_silu(in_channels, sizes[0], 3, 2),
            conv_bn_silu(sizes[0], sizes[1], 3, 2),
            CSPBlock(sizes[1], sizes[2], blocks, 0.25),
        )
        self.p3 = nn.Sequential(
            conv_bn_silu(sizes[2], sizes[3], 3, 2), CSPBlock(sizes[3], sizes[4], blocks, 0.25)
        )
        self.p4 = nn.Sequential(
            conv_bn_silu(sizes[4], sizes[5], 3, 2),
            CSPBlock(sizes[5], sizes[6], blocks, nested=True),
        )
        self.p5 = nn.Sequential(
            conv_bn_silu(sizes[6], sizes[7], 3, 2),
            CSPBlock(sizes[7], sizes[8], blocks, nested=True),
            SPPF(sizes[8], sizes[8]),
            PartialSelfAttention(sizes[8]),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the three maps."""
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f"expected pictures [B, {self.in_channels}, H, W], got {shape_of(x)}")
        p3 = self.p3(self.stem(x))
        p4 = self.p4(p3)
        return p3, p4, self.p5(p4)
