"""Branches of several inputs that are joined into one map, pixel by pixel, and what follows.

Source: SkeletonGait++ (https://arxiv.org/abs/2311.13444, AAAI 2024), Sec. 3.3, and MultiGait++
(https://arxiv.org/abs/2412.11495, AAAI 2025), Sec. 4. Written from the papers and measured shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from gaitzoo.layers.checks import check_features, check_size, shape_of
from gaitzoo.layers.conv import Conv2d
from gaitzoo.layers.residual import ResidualBlockP3d, call_block, residual_layer
from gaitzoo.layers.sequence import to_frames, to_sequences

__all__ = ["AttentionFusion", "P3dLayers", "SharedSpecificFusion"]


class AttentionFusion(nn.Module):
    """Two maps, mixed by weights of every channel and pixel that add up to one.

    Source: SkeletonGait++ (https://arxiv.org/abs/2311.13444), Sec. 3.3, the attention-based fusion
    module.

    Args:
        channels: Channels of each map.
        hidden_channels: Channels between the convolutions that give the weights.
        kernel_size: Rows and columns of the second of these convolutions, odd; DenoisingGait has 1.

    Shapes:
        one: ``[N, C, T, H, W]``, any values.
        other: The same.
        returns: The same.

    Raises:
        TypeError: If a map is no tensor of floats.
        ValueError: If an argument is no positive whole number, ``kernel_size`` is even, or the
            maps have other channels or different shapes.

    Example:
        >>> AttentionFusion(8)(torch.rand(2, 8, 5, 16, 11), torch.rand(2, 8, 5, 16, 11)).shape
        torch.Size([2, 8, 5, 16, 11])
    """

    def __init__(self, channels: int, hidden_channels: int = 4, kernel_size: int = 3) -> None:
        super().__init__()
        check_size(channels=channels, hidden_channels=hidden_channels, kernel_size=kernel_size)
        if kernel_size % 2 == 0:
            raise ValueError(f"expected kernel_size as an odd number, got {kernel_size!r}")
        self.channels = channels
        self.scores = nn.Sequential(
            Conv2d(2 * channels, hidden_channels, 1, bias=False),
            nn.BatchNorm2d(hidden_channels),
            nn.ReLU(),
            Conv2d(
                hidden_channels,
                hidden_channels,
                kernel_size,
                padding=kernel_size // 2,
                bias=False,
            ),
            nn.BatchNorm2d(hidden_channels),
            nn.ReLU(),
            Conv2d(hidden_channels, 2 * channels, 1, bias=False),
        )

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Returns the mixed map."""
        check_pair(one, other, self.channels)
        frames = to_frames(one), to_frames(other)
        scores = self.scores(torch.cat(frames, dim=1)).unflatten(1, (2, self.channels))
        first, second = scores.softmax(dim=1).unbind(1)
        return to_sequences(frames[0] * first + frames[1] * second, one.shape[0])


class SharedSpecificFusion(nn.Module):
    """Two maps taken apart into what both hold and what either holds alone.

    Every map has a score per channel and pixel; the two scores become weights that add up to one.
    Where even the smaller of them is large (against the other channels of the pixel), the mean of
    the maps counts as shared; the rest of each map, times its weight, is its own.

    Source: MultiGait++ (https://arxiv.org/abs/2412.11495), Sec. 4.2, the C-square fusion.

    Args:
        channels: Channels of each map.
        hidden_channels: Channels between the convolutions that give the scores.
        eps: Added to the range of the weights of a pixel before it divides.

    Shapes:
        one: ``[N, C, T, H, W]``, any values.
        other: The same.
        returns: What is shared, what is of ``one`` and what is of ``other`` alone: three times the
            same.

    Raises:
        TypeError: If a map is no tensor of floats.
        ValueError: If an argument is no positive whole number, or the maps have other channels or
            different shapes.

    Example:
        >>> maps = torch.rand(2, 8, 5, 16, 11), torch.rand(2, 8, 5, 16, 11)
        >>> [x.shape[1] for x in SharedSpecificFusion(8)(*maps)]
        [8, 8, 8]
    """

    def __init__(self, channels: int, hidden_channels: int = 4, eps: float = 1e-6) -> None:
        super().__init__()
        check_size(channels=channels, hidden_channels=hidden_channels)
        self.channels, self.eps = channels, eps
        self.scores_one = _pixel_scores(channels, hidden_channels)
        self.scores_other = _pixel_scores(channels, hidden_channels)

    def forward(self, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the three maps."""
        check_pair(one, other, self.channels)
        x, y = to_frames(one), to_frames(other)
        scores = torch.stack([self.scores_one(x), self.scores_other(y)])
        weights = scores.softmax(dim=0)
        smaller = weights.amin(dim=0)
        lowest, highest = smaller.aminmax(dim=1, keepdim=True)
        common = ((smaller - lowest) / (highest - lowest + self.eps)).clamp(0, 1)
        own = (1 - common) * weights
        maps = common * (x + y) / 2, x * own[0], y * own[1]
        shared, of_one, of_other = (to_sequences(frames, one.shape[0]) for frames in maps)
        return shared, of_one, of_other


class P3dLayers(nn.Module):
    """Layers of pseudo-3-D blocks, one after another.

    Source: the last layers of DeepGaitV2 (https://arxiv.org/abs/2303.03301), Table 2.

    Args:
        in_channels: Channels of the input.
        layers: Blocks of each layer.
        channels: Width of each layer.
        strides: Step of the first block of each layer over height and width, pixels.

    Shapes:
        x: ``[N, C_in, T, H, W]``, any values.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: ``[N, channels[-1], T, H', W']``; frames past the end hold no meaning.

    Raises:
        TypeError: If ``x`` is no tensor of floats or ``lengths`` no integer tensor.
        ValueError: If the three do not have as many numbers as each other, all positive, or axes,
            channels or lengths do not fit.

    Example:
        >>> P3dLayers(4, (1, 2), (6, 8), (2, 1))(torch.rand(2, 4, 9, 16, 12)).shape
        torch.Size([2, 8, 9, 8, 6])
    """

    def __init__(
        self,
        in_channels: int,
        layers: tuple[int, ...],
        channels: tuple[int, ...],
        strides: tuple[int, ...],
    ) -> None:
        super().__init__()
        if not 0 < len(layers) == len(channels) == len(strides):
            raise ValueError(
                "expected as many layers as channels and strides, got "
                f"{layers!r}, {channels!r} and {strides!r}"
            )
        self.in_channels = in_channels
        self.layers = nn.ModuleList()
        for depth, width, stride in zip(layers, channels, strides, strict=True):
            check_size(layers=depth)
            self.layers.append(residual_layer(ResidualBlockP3d, in_channels, width, depth, stride))
            in_channels = width

    @property
    def _blocks(self) -> list[nn.Module]:
        return [block for layer in self.layers for block in layer.children()]

    def stage_names(self, prefix: str = "") -> tuple[str, ...]:
        """Names of the last block of every layer.

        Args:
            prefix: Put before each, for example ``"backbone."``.
        """
        ends = [len(list(layer.children())) - 1 for layer in self.layers]
        return tuple(f"{prefix}layers.{i}.{end}" for i, end in enumerate(ends))

    def reach(self) -> int:
        """Frames before and after that a frame of the map depends on."""
        return len(self._blocks)

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        run: Callable[..., Any] = call_block,
    ) -> Tensor:
        """Returns the feature map.

        Args:
            x: See the class.
            lengths: See the class.
            run: Calls a block; a model puts its gradient checkpointing here.
        """
        check_features(x, self.in_channels, lengths)
        for block in self._blocks:
            x = run(block, x, lengths)
        return x


def _pixel_scores(channels: int, hidden_channels: int) -> nn.Sequential:
    widths = (channels, hidden_channels, hidden_channels)
    layers: list[nn.Module] = []
    for before, width in pairwise(widths):
        layers += [Conv2d(before, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, Conv2d(hidden_channels, channels, 1, bias=False))


def check_pair(one: Tensor, other: Tensor, channels: int) -> None:
    """Raises unless both are maps of one shape, with as many channels.

    Args:
        one: ``[N, C, T, H, W]``.
        other: The same.
        channels: C.

    Raises:
        TypeError: If a map is no tensor of floats.
        ValueError: If axes, channels or shapes do not fit.
    """
    for x in (one, other):
        check_features(x, channels)
    # Compared one by one: lists of sizes would fix them in a graph that is to hold for all.
    if one.ndim != other.ndim or any(a != b for a, b in zip(one.shape, other.shape, strict=True)):
        raise ValueError(
            f"expected two maps of one shape, got {shape_of(one)} and {shape_of(other)}"
        )
