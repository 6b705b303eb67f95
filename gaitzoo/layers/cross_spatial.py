"""Local and global context of a map, fusion of aligned maps by each other's places, a neck.

A reconstruction: https://arxiv.org/abs/2512.04425 ("Explainable Parkinson's Disease Gait
Recognition") is known by its abstract, which names multi-scale local-global extraction and
cross-spatial neck fusion; every equation here is inferred from the names and the stated purpose.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_size, check_sizes, shape_of
from gaitzoo.layers.conv import Conv2d
from gaitzoo.layers.csp import CSPBlock, conv_bn_silu
from gaitzoo.layers.token_attention import TokenAttention

__all__ = ["MLGE", "CrossSpatialFusion", "PyramidNeck"]


class MLGE(nn.Module):
    """Adds to a map what is near a pixel, at several sizes, and what the whole picture holds.

    Near: depthwise convolutions of several sizes, weighted by a softmax of learned numbers. Far:
    the map averaged to a grid of tokens, attention among them, brought back to the size of the map
    and scaled per channel by a gate of the whole map. A 1x1 convolution joins both.

    Source: multi-scale local-global extraction of https://arxiv.org/abs/2512.04425; a
    reconstruction. The abstract says what it is for; all else is inferred.

    Args:
        channels: C, a multiple of ``num_heads``.
        kernels: Sizes of the depthwise convolutions, odd.
        grid: Rows and columns of the tokens.
        num_heads: Heads of the attention.
        zero_init: Whether the block changes nothing before it is trained.

    Shapes:
        x: ``[B, C, H, W]``, any values.
        returns: ``[B, C, H, W]``.

    Raises:
        ValueError: If a size is no positive whole number, a kernel is even, or the map has other
            channels.

    Example:
        >>> block = MLGE(8)
        >>> net = nn.Sequential(nn.Conv2d(1, 8, 3), block, nn.ReLU(), nn.Flatten(2))
        >>> net(torch.rand(2, 1, 16, 11)).shape
        torch.Size([2, 8, 126])
        >>> x = torch.rand(2, 8, 16, 11)
        >>> torch.equal(block(x), x)
        True
    """

    def __init__(
        self,
        channels: int,
        kernels: Sequence[int] = (3, 5, 7),
        grid: int = 4,
        num_heads: int = 4,
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        check_size(channels=channels, grid=grid)
        kernels = check_sizes("kernels", kernels)
        if any(size % 2 == 0 for size in kernels):
            raise ValueError(f"expected odd kernels, got {kernels}")
        self.channels, self.grid = channels, grid
        self.near = nn.ModuleList(
            Conv2d(channels, channels, size, padding=size // 2, groups=channels, bias=False)
            for size in kernels
        )
        self.shares = nn.Parameter(torch.zeros(len(kernels)))
        self.far = TokenAttention(channels, num_heads)
        hidden = max(1, channels // 4)
        self.gate = nn.Sequential(
            nn.Linear(channels, hidden), nn.SiLU(), nn.Linear(hidden, channels), nn.Sigmoid()
        )
        self.join = Conv2d(2 * channels, channels, 1)
        if zero_init:
            nn.init.zeros_(self.join.weight)
            assert self.join.bias is not None
            nn.init.zeros_(self.join.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the map with both added."""
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ValueError(f"expected a map [B, {self.channels}, H, W], got {shape_of(x)}")
        shares = self.shares.softmax(0)
        near = sum(share * conv(x) for share, conv in zip(shares, self.near, strict=True))
        assert isinstance(near, Tensor)
        tokens = _averages(_averages(x, self.grid, 2), self.grid, 3).flatten(2).transpose(1, 2)
        far = self.far(tokens, tokens).transpose(1, 2).unflatten(2, (self.grid, self.grid))
        far = F.interpolate(far, size=x.shape[2:], mode="bilinear", align_corners=False)
        far = far * self.gate(x.mean((2, 3)))[..., None, None]
        return x + self.join(torch.cat([near, far.to(near.dtype)], dim=1))


def _averages(x: Tensor, count: int, axis: int) -> Tensor:
    """Means of ``count`` equal stretches of an axis, as adaptive pooling takes them.

    As a product, which also exports to formats without adaptive pooling.
    """
    size = x.shape[axis]
    place = torch.arange(size, device=x.device)
    stretch = torch.arange(count, device=x.device)[:, None]
    first, last = stretch * size // count, -((stretch + 1) * size // -count)
    inside = ((place >= first) & (place < last)).to(x.dtype)
    weights = inside / inside.sum(1, keepdim=True)
    return (x.movedim(axis, -1) @ weights.T).movedim(-1, axis)


class CrossSpatialFusion(nn.Module):
    """Joins aligned maps, each looked at where the others say that something is.

    Every map gives a number in (0, 1) per pixel (a 7x7 convolution of its mean and maximum over
    channels). Every map is multiplied by one plus the mean of the others' numbers, and a 1x1
    convolution with batch norm and SiLU joins all. A missing map counts as zeros, its numbers too,
    and the joined map is scaled by M over the maps that are there.

    Source: cross-spatial neck fusion of https://arxiv.org/abs/2512.04425; a reconstruction. The
    abstract has the name; the equations, and any number of maps instead of two, are inferred.

    Args:
        channels: C of every map.
        modalities: M, two or more.
        out_channels: Of the joined map; ``None`` = C.
        kernel_size: Of the convolutions that give the numbers, odd.

    Shapes:
        maps: M maps ``[B, C, H, W]`` of one size; ``None`` in place of one that no sample has.
        present: ``[B, M]`` bool, True = the sample has this map; what stands in the others never
            matters. ``None`` = all that are given.
        returns: the joined map ``[B, out_channels, H, W]``, and the numbers ``[B, M, H, W]``, 0 of
            what is missing.

    Raises:
        TypeError: If ``present`` holds no booleans.
        ValueError: If shapes do not fit or a sample has no map.

    Example:
        >>> colours, depth = nn.Conv2d(3, 8, 3), nn.Conv2d(1, 8, 3)
        >>> fusion = CrossSpatialFusion(8).eval()
        >>> maps = [colours(torch.rand(2, 3, 16, 11)), depth(torch.rand(2, 1, 16, 11))]
        >>> joined, where = fusion(maps)
        >>> joined.shape, where.shape
        (torch.Size([2, 8, 14, 9]), torch.Size([2, 2, 14, 9]))
        >>> fusion([maps[0], None])[1][:, 1].any().item()
        False
    """

    def __init__(
        self,
        channels: int,
        modalities: int = 2,
        out_channels: int | None = None,
        kernel_size: int = 7,
    ) -> None:
        super().__init__()
        out_channels = channels if out_channels is None else out_channels
        check_size(channels=channels, out_channels=out_channels, kernel_size=kernel_size)
        if type(modalities) is not int or modalities < 2:
            raise ValueError(f"expected two modalities or more, got {modalities!r}")
        if kernel_size % 2 == 0:
            raise ValueError(f"expected an odd kernel_size, got {kernel_size}")
        self.channels, self.modalities = channels, modalities
        self.where = nn.ModuleList(
            Conv2d(2, 1, kernel_size, padding=kernel_size // 2) for _ in range(modalities)
        )
        self.join = conv_bn_silu(modalities * channels, out_channels)

    def forward(
        self, maps: Sequence[Tensor | None], present: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns the joined map and the numbers of every pixel."""
        given = self._check(maps)
        first = given[0][1]
        seen = _presence(present, first, self.modalities, [index for index, _ in given])
        zeros = torch.zeros_like(first)
        full = [zeros if x is None else x for x in maps]
        full = [x.masked_fill(~seen[:, m, None, None, None], 0) for m, x in enumerate(full)]
        places = [
            conv(torch.stack([x.mean(1), x.amax(1)], dim=1)).sigmoid()
            for conv, x in zip(self.where, full, strict=True)
        ]
        where = torch.cat(places, dim=1).masked_fill(~seen[..., None, None], 0)
        counts = seen.sum(1, keepdim=True)
        others = (counts - seen.int()).clamp(min=1)[..., None, None]
        gates = 1 + (where.sum(1, keepdim=True) - where) / others
        scale = (self.modalities / counts.clamp(min=1))[:, :, None, None].to(first.dtype)
        gated = [x * gates[:, m, None] for m, x in enumerate(full)]
        return self.join(torch.cat(gated, dim=1) * scale), where

    def _check(self, maps: Sequence[Tensor | None]) -> list[tuple[int, Tensor]]:
        """The maps that are there, with their indices."""
        given = [(index, x) for index, x in enumerate(maps) if x is not None]
        if len(maps) != self.modalities or not given:
            raise ValueError(
                f"expected {self.modalities} maps, one of them at least not None, got {len(maps)} "
                f"with {len(given)} of them there"
            )
        shape = given[0][1].shape
        for _, x in given:
            if x.ndim != 4 or x.shape[1] != self.channels or x.shape != shape:
                raise ValueError(
                    f"expected maps [B, {self.channels}, H, W] of one size, got "
                    f"{', '.join(shape_of(x) for _, x in given)}"
                )
        return given


def _presence(present: Tensor | None, x: Tensor, count: int, given: list[int]) -> Tensor:
    """Checked ``[B, M]`` bool: what every sample has."""
    there = torch.zeros(count, dtype=torch.bool, device=x.device)
    there[given] = True
    if present is None:
        return there.expand(x.shape[0], -1)
    if not isinstance(present, Tensor) or present.dtype != torch.bool:
        got = present.dtype if isinstance(present, Tensor) else type(present).__name__
        raise TypeError(f"expected present as a bool tensor [B, {count}], got {got}")
    if present.shape != (x.shape[0], count):
        raise ValueError(f"expected present [{x.shape[0]}, {count}], got {shape_of(present)}")
    seen = present.to(x.device) & there
    if not torch.compiler.is_compiling() and x.device.type == "cpu" and not seen.any(1).all():
        raise ValueError(
            "expected a modality of every sample, got none of sample "
            f"{int((~seen.any(1)).nonzero()[0])}; leave it out"
        )
    return seen


class PyramidNeck(nn.Module):
    """Leads three maps into each other, from the coarse to the fine and back.

    Down: the coarser map is enlarged (nearest pixel), laid beside the finer one and goes through a
    :class:`CSPBlock`. Up: a 3x3 convolution of step 2, laid beside the coarser one, another block.

    Source: path aggregation (https://arxiv.org/abs/1803.01534), Sec. 3.1, as YOLO-like networks
    use it; part of the reconstruction of https://arxiv.org/abs/2512.04425, where it is inferred.

    Args:
        in_channels: Of the three maps, fine to coarse.
        out_channels: Of what comes out.
        blocks: Links of each block.

    Shapes:
        maps: Three ``[B, in_channels[i], H_i, W_i]``, each half as large as the one before, rounded
            up.
        returns: Three ``[B, out_channels[i], H_i, W_i]``.

    Raises:
        ValueError: If a size is no positive whole number, or maps do not fit.

    Example:
        >>> first, second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
        >>> neck = PyramidNeck((3, 8, 8), (4, 5, 6)).eval()
        >>> x = torch.rand(1, 3, 18, 11)
        >>> [list(y.shape[1:]) for y in neck([x, first(x), second(first(x))])]
        [[4, 18, 11], [5, 9, 6], [6, 5, 3]]
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: Sequence[int] = (128, 256, 256),
        blocks: int = 1,
    ) -> None:
        super().__init__()
        self.in_channels = check_sizes("in_channels", in_channels)
        self.channels = check_sizes("out_channels", out_channels)
        if len(self.in_channels) != 3 or len(self.channels) != 3:
            raise ValueError(
                f"expected channels of three maps, got {self.in_channels} and {self.channels}"
            )
        fine, middle, coarse = self.in_channels
        out_fine, out_middle, out_coarse = self.channels
        self.down_middle = CSPBlock(coarse + middle, out_middle, blocks, shortcut=False)
        self.down_fine = CSPBlock(out_middle + fine, out_fine, blocks, shortcut=False)
        self.step_middle = conv_bn_silu(out_fine, out_fine, 3, 2)
        self.up_middle = CSPBlock(out_fine + out_middle, out_middle, blocks, shortcut=False)
        self.step_coarse = conv_bn_silu(out_middle, out_middle, 3, 2)
        self.up_coarse = CSPBlock(out_middle + coarse, out_coarse, blocks, shortcut=False)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the three maps."""
        if len(maps) != 3 or any(
            x.ndim != 4 or x.shape[1] != n for x, n in zip(maps, self.in_channels, strict=True)
        ):
            raise ValueError(
                f"expected three maps [B, C, H, W] with {self.in_channels} channels, got "
                f"{', '.join(shape_of(x) for x in maps)}"
            )
        fine, middle, coarse = maps
        for large, small in ((fine, middle), (middle, coarse)):
            if any(-(-a // 2) != b for a, b in zip(large.shape[2:], small.shape[2:], strict=True)):
                raise ValueError(
                    "expected maps each half as large as the one before, rounded up, got "
                    f"{', '.join(shape_of(x) for x in maps)}"
                )
        between = self.down_middle(_beside(coarse, middle))
        fine = self.down_fine(_beside(between, fine))
        middle = self.up_middle(torch.cat([self.step_middle(fine), between], dim=1))
        coarse = self.up_coarse(torch.cat([self.step_coarse(middle), coarse], dim=1))
        return fine, middle, coarse


def _beside(coarse: Tensor, fine: Tensor) -> Tensor:
    return torch.cat([F.interpolate(coarse, size=fine.shape[2:], mode="nearest"), fine], dim=1)
