"""Two networks side by side, joined at every level: maps of one size mixed, levels in one chain.

Source: DepthGait (https://arxiv.org/abs/2508.03397, ACM MM 2025). A reconstruction: the abstract
says that silhouettes and depth are fused at several scales and across levels, and nothing of the
form. [inferred]: everything else. The blocks take any two maps that show the same.

Batch-norm statistics of these blocks see whatever is in the batch, padding included: train on clips
of equal length. In eval mode padding never matters, as no block mixes frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.branches import check_pair
from gaitzoo.layers.checks import check_features, check_size, check_sizes
from gaitzoo.layers.conv import Conv2d
from gaitzoo.layers.residual import FrameWise, call_block
from gaitzoo.layers.sequence import to_frames, to_sequences

__all__ = ["CrossLevelFusion", "ModalityGate", "MultiScaleContext"]

_DIRECTIONS = ("none", "bottom_up", "bidirectional")


class ModalityGate(nn.Module):
    """Two maps, mixed by weights of every channel and pixel that add up to one.

    Two 1x1 convolutions give the weights, so that a pixel is judged by itself;
    :class:`AttentionFusion` looks at its neighbours too.

    Source: DepthGait (https://arxiv.org/abs/2508.03397); the form is [inferred].

    Args:
        channels: Channels of each map.
        squeeze: How many times fewer channels than both maps have are between the convolutions.

    Shapes:
        one: ``[N, C, T, H, W]``, any values.
        other: The same.
        returns: The same.

    Raises:
        TypeError: If a map is no tensor of floats.
        ValueError: If an argument is no positive whole number, or the maps have other channels or
            different shapes.

    Example:
        >>> stems = [torch.nn.Conv3d(1, 8, 1), torch.nn.Conv3d(2, 8, 1)]  # silhouettes, flow
        >>> one, other = torch.rand(2, 1, 5, 16, 11), torch.rand(2, 2, 5, 16, 11)
        >>> gate, last = ModalityGate(8), torch.nn.Conv3d(8, 3, 1)
        >>> last(gate(stems[0](one), stems[1](other))).shape
        torch.Size([2, 3, 5, 16, 11])
    """

    def __init__(self, channels: int, squeeze: int = 16) -> None:
        super().__init__()
        check_size(channels=channels, squeeze=squeeze)
        self.channels = channels
        hidden = max(1, 2 * channels // squeeze)
        self.scores = nn.Sequential(
            Conv2d(2 * channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            Conv2d(hidden, 2 * channels, 1),
        )

    def weights(self, one: Tensor, other: Tensor) -> Tensor:
        """The weights of both maps.

        Args:
            one: See the class.
            other: See the class.

        Returns:
            ``[N, 2, C, T, H, W]`` in (0, 1), adding up to 1 over axis 1.
        """
        check_pair(one, other, self.channels)
        scores = self.scores(to_frames(torch.cat([one, other], dim=1)))
        return to_sequences(scores, one.shape[0]).unflatten(1, (2, self.channels)).softmax(dim=1)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Returns the mixed map."""
        first, second = self.weights(one, other).unbind(1)
        return one * first + other * second


class MultiScaleContext(nn.Module):
    """What stands near every pixel, nearer and farther, added to the map.

    ``x + relu(bn(conv(sum of depthwise 3x3 convolutions with several dilations)))``.

    Source: DepthGait (https://arxiv.org/abs/2508.03397), "multi-scale"; the form is [inferred].

    Args:
        channels: Channels of the map.
        dilations: Distances between the pixels that a convolution sees, pixels.

    Shapes:
        x: ``[N, C, T, H, W]``, any values.
        returns: The same.

    Raises:
        TypeError: If ``x`` is no tensor of floats.
        ValueError: If an argument is no positive whole number, or axes or channels do not fit.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Conv3d(1, 8, 1), MultiScaleContext(8))
        >>> net(torch.rand(2, 1, 5, 16, 11)).shape
        torch.Size([2, 8, 5, 16, 11])
    """

    def __init__(self, channels: int, dilations: tuple[int, ...] = (1, 2, 3)) -> None:
        super().__init__()
        check_size(channels=channels)
        self.channels = channels
        self.scales = nn.ModuleList(
            Conv2d(channels, channels, 3, padding=n, dilation=n, groups=channels, bias=False)
            for n in check_sizes("dilations", dilations)
        )
        self.join = nn.Sequential(
            Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Returns the map with its context."""
        check_features(x, self.channels)
        frames = to_frames(x)
        first, *others = (scale(frames) for scale in self.scales)
        for other in others:
            first = first + other
        return to_sequences(frames + self.join(first), x.shape[0])


class CrossLevelFusion(nn.Module):
    """Two stacks of maps joined into one: level by level, shallow levels led into deeper ones.

    At each level ``m = context(gate(one, other))`` and ``fused = m + down(fused before)``, ``down``
    a 3x3 convolution with batch norm that brings the level before to the size of this one. With
    ``"bidirectional"``, what is deeper then goes back up, ``up[l] = fused[l] + resized(conv(up[l +
    1]))``, and down once more, in place of m. :meth:`feedback` gives what each of the two networks
    may add to its own map before its next level.

    Source: DepthGait (https://arxiv.org/abs/2508.03397), cross-level fusion; the form is
    [inferred].

    Args:
        channels: Channels of the maps, level by level.
        direction: ``"bottom_up"``, ``"bidirectional"``, or ``"none"``, levels by themselves.
        squeeze: See :class:`ModalityGate`.
        dilations: See :class:`MultiScaleContext`.
        strides: Steps from each level to the next, pixels; ``None`` = 2.
        gain: Factor of the feedback at first; 0 leaves both networks to themselves until it has
            been learned.

    Shapes:
        ones: A map ``[N, C, T, H, W]`` per level, any values.
        others: The same.
        returns: The same.

    Raises:
        TypeError: If a map is no tensor of floats.
        ValueError: If an argument has none of the values named here, or maps do not fit.

    Example:
        >>> pool = torch.nn.AvgPool3d((1, 2, 2))
        >>> ones = [torch.rand(2, 4, 3, 16, 12), torch.rand(2, 8, 3, 8, 6)]
        >>> others = [torch.rand_like(x) for x in ones]
        >>> fused = CrossLevelFusion((4, 8))(ones, others)
        >>> [list(pool(x).shape) for x in fused]
        [[2, 4, 3, 8, 6], [2, 8, 3, 4, 3]]
    """

    def __init__(
        self,
        channels: tuple[int, ...] = (64, 128, 256),
        direction: str = "bottom_up",
        squeeze: int = 16,
        dilations: tuple[int, ...] = (1, 2, 3),
        strides: tuple[int, ...] | None = None,
        gain: float = 0.0,
    ) -> None:
        super().__init__()
        if direction not in _DIRECTIONS:
            raise ValueError(
                f"expected a direction among {', '.join(_DIRECTIONS)}, got {direction!r}"
            )
        self.channels, self.direction = check_sizes("channels", channels), direction
        strides = (2,) * (len(self.channels) - 1) if strides is None else tuple(strides)
        if len(strides) != len(self.channels) - 1:
            raise ValueError(
                f"expected strides between {len(self.channels)} levels, got {strides!r}"
            )
        self.gates = nn.ModuleList(ModalityGate(n, squeeze) for n in self.channels)
        self.contexts = nn.ModuleList(MultiScaleContext(n, dilations) for n in self.channels)
        chained = [] if direction == "none" else list(pairwise(self.channels))
        self.down = nn.ModuleList(
            FrameWise(
                nn.Sequential(
                    Conv2d(before, after, 3, stride, padding=1, bias=False),
                    nn.BatchNorm2d(after),
                )
            )
            for (before, after), stride in zip(chained, strides, strict=False)
        )
        raised = chained if direction == "bidirectional" else []
        self.up = nn.ModuleList(Conv2d(after, before, 1, bias=False) for before, after in raised)
        self.to_one, self.to_other = (
            nn.ModuleList(FrameWise(Conv2d(n, n, 1)) for n in self.channels[:-1]) for _ in range(2)
        )
        self.gains = nn.Parameter(torch.full((len(self.channels) - 1, 2), float(gain)))

    def level(
        self,
        index: int,
        one: Tensor,
        other: Tensor,
        before: Tensor | None = None,
        run: Callable[..., Any] = call_block,
    ) -> Tensor:
        """The fused map of one level, for networks whose next level depends on it.

        Args:
            index: Number of the level, from 0.
            one: Map of the first network.
            other: Map of the second one.
            before: Fused map of the level before; unused with direction ``"none"``.
            run: Calls a block; a model puts its gradient checkpointing here.
        """
        fused = run(self.contexts[index], run(self.gates[index], one, other))
        return self._led(index, fused, before, run)

    def feedback(self, index: int, fused: Tensor) -> tuple[Tensor, Tensor]:
        """What the first and the second network may add to their maps of a level.

        Args:
            index: Number of the level, from 0; the last has none after it, and no feedback.
            fused: Its fused map.
        """
        first, second = self.gains[index]
        return first * self.to_one[index](fused), second * self.to_other[index](fused)

    def join(self, fused: Sequence[Tensor], run: Callable[..., Any] = call_block) -> list[Tensor]:
        """The way back up and down again, of ``"bidirectional"``; otherwise what was given.

        Args:
            fused: Fused maps of all levels.
            run: See :meth:`level`.
        """
        if self.direction != "bidirectional":
            return list(fused)
        raised = [fused[-1]]
        for x, conv in zip(reversed(fused[:-1]), reversed(list(self.up)), strict=True):
            small = run(conv, to_frames(raised[0]))
            large = F.interpolate(small, x.shape[-2:], mode="bilinear", align_corners=False)
            raised.insert(0, x + to_sequences(large, x.shape[0]))
        joined = raised[:1]
        for index, x in enumerate(raised[1:], 1):
            joined.append(self._led(index, x, joined[-1], run))
        return joined

    def forward(self, ones: Sequence[Tensor], others: Sequence[Tensor]) -> list[Tensor]:
        """Returns the fused maps."""
        if not len(ones) == len(others) == len(self.channels):
            raise ValueError(
                f"expected {len(self.channels)} maps of each, got {len(ones)} and {len(others)}"
            )
        fused: list[Tensor] = []
        for index, (one, other) in enumerate(zip(ones, others, strict=True)):
            fused.append(self.level(index, one, other, fused[-1] if fused else None))
        return self.join(fused)

    def _led(self, index: int, x: Tensor, before: Tensor | None, run: Callable[..., Any]) -> Tensor:
        """A level with the one before it led into it."""
        if index == 0 or before is None or self.direction == "none":
            return x
        led = run(self.down[index - 1], before)
        if led.shape[-2] != x.shape[-2] or led.shape[-1] != x.shape[-1]:
            raise ValueError(
                f"expected level {index} of {led.shape[-2]} x {led.shape[-1]} pixels, a step "
                f"after the one before, got {x.shape[-2]} x {x.shape[-1]}"
            )
        return x + led
