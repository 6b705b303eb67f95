"""Residual blocks of the OpenGait family: per frame, over time, or split into both.

Source: DeepGaitV2 (https://arxiv.org/abs/2303.03301), Sec. 3.2, and GaitBase
(https://arxiv.org/abs/2211.06597), Sec. 4; the split of space and time follows P3D
(https://arxiv.org/abs/1711.10305). Written from the papers and measured shapes.

Batch-norm statistics of these blocks see whatever is in the batch, padding included: train on
clips of equal length. In eval mode padding never matters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_features, check_size, shape_of
from gaitzoo.layers.conv import Conv2d, Conv3d
from gaitzoo.layers.fused import channels_last
from gaitzoo.layers.fused_residual import (
    FusedResidualBlock2d,
    FusedResidualBlock3d,
    FusedResidualBlockP3d,
)
from gaitzoo.layers.modes import channels_stand_last
from gaitzoo.layers.sequence import mask_fill, to_frames, to_sequences

__all__ = [
    "FrameWise",
    "ResidualBackbone",
    "ResidualBlock2d",
    "ResidualBlock3d",
    "ResidualBlockP3d",
    "call_block",
    "residual_layer",
]


class FrameWise(nn.Module):
    """Runs a block for images on every frame of a sequence.

    Args:
        block: Takes ``[B, C, H, W]`` and gives ``[B, C', H', W']``.

    Shapes:
        x: ``[N, C, T, H, W]``, any values.
        returns: ``[N, C', T, H', W']``.

    Raises:
        TypeError: If ``x`` is no tensor of floats.
        ValueError: If it has other axes or no frame.

    Example:
        >>> FrameWise(torch.nn.Conv2d(1, 8, kernel_size=3, stride=2))(
        ...     torch.rand(2, 1, 9, 65, 45)
        ... ).shape
        torch.Size([2, 8, 9, 32, 22])
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """Returns the frames after the block."""
        check_features(x, None)
        frames = to_frames(x)
        if x.shape[1] == 1 and channels_stand_last():
            frames = channels_last(frames)
        return to_sequences(self.block(frames), x.shape[0])


class ResidualBlock2d(nn.Module):
    """Two 3x3 convolutions with batch norm and a shortcut, for images.

    Source: ResNet (https://arxiv.org/abs/1512.03385), Fig. 5 left.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Step of the first convolution, pixels.

    Shapes:
        x: ``[B, C_in, H, W]``, any values.
        returns: ``[B, C_out, H', W']``, zero or more; ``H' = ceil(H / stride)``.

    Raises:
        TypeError: If ``x`` is no tensor of floats.
        ValueError: If an argument is no positive whole number, or axes or channels do not fit.

    Example:
        >>> ResidualBlock2d(4, 8, stride=2)(torch.rand(2, 4, 64, 44)).shape
        torch.Size([2, 8, 32, 22])
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        check_size(in_channels=in_channels, out_channels=out_channels, stride=stride)
        self.conv1 = Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def fused(self, dtype: torch.dtype) -> nn.Module:
        """The form for inference, see :func:`gaitzoo.fuse_for_inference`; takes over weights."""
        return FusedResidualBlock2d(self)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the features plus the shortcut."""
        _check_images(x, self.conv1.in_channels)
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResidualBlock3d(nn.Module):
    """Two 3x3x3 convolutions with batch norm and a shortcut; time keeps its length.

    Source: DeepGaitV2 (https://arxiv.org/abs/2303.03301), Sec. 3.2, "3D". Differs from upstream:
    what stands past the end of a sequence is zeroed before each of the two convolutions.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Step of the first convolution over height and width, pixels.

    Shapes:
        x: ``[N, C_in, T, H, W]``, any values.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: ``[N, C_out, T, H', W']``; frames past the end hold no meaning.

    Raises:
        TypeError: If ``x`` is no tensor of floats or ``lengths`` no integer tensor.
        ValueError: If an argument is no positive whole number, or axes, channels or lengths do
            not fit.

    Example:
        >>> ResidualBlock3d(4, 8, stride=2)(torch.rand(2, 4, 9, 64, 44)).shape
        torch.Size([2, 8, 9, 32, 22])
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        check_size(in_channels=in_channels, out_channels=out_channels, stride=stride)
        steps = (1, stride, stride)
        self.conv1 = Conv3d(in_channels, out_channels, 3, steps, padding=1, bias=False)
        self.bn1 = nn.BatchNorm3d(out_channels)
        self.conv2 = Conv3d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm3d(out_channels)
        self.shortcut = _shortcut3d(in_channels, out_channels, stride)

    def fused(self, dtype: torch.dtype) -> nn.Module:
        """The form for inference, see :func:`gaitzoo.fuse_for_inference`; takes over weights."""
        return FusedResidualBlock3d(self)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the features plus the shortcut."""
        check_features(x, self.conv1.in_channels, lengths)
        x = mask_fill(x, lengths)
        y = mask_fill(F.relu(self.bn1(self.conv1(x))), lengths)
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResidualBlockP3d(nn.Module):
    """A 3x3 convolution per frame, one over three frames with its own shortcut, a 3x3 per frame.

    Source: DeepGaitV2 (https://arxiv.org/abs/2303.03301), Sec. 3.2, "pseudo 3D". Differs from
    upstream: what stands past the end of a sequence is zeroed before the convolution over time.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Step of the first convolution over height and width, pixels.

    Shapes:
        x: ``[N, C_in, T, H, W]``, any values.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: ``[N, C_out, T, H', W']``; frames past the end hold no meaning.

    Raises:
        TypeError: If ``x`` is no tensor of floats or ``lengths`` no integer tensor.
        ValueError: If an argument is no positive whole number, or axes, channels or lengths do
            not fit.

    Example:
        >>> ResidualBlockP3d(4, 8, stride=2)(torch.rand(2, 4, 9, 64, 44)).shape
        torch.Size([2, 8, 9, 32, 22])
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        check_size(in_channels=in_channels, out_channels=out_channels, stride=stride)
        self.conv1 = Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.temporal_conv = Conv3d(
            out_channels, out_channels, (3, 1, 1), padding=(1, 0, 0), bias=False
        )
        self.temporal_bn = nn.BatchNorm3d(out_channels)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = _shortcut3d(in_channels, out_channels, stride)

    def fused(self, dtype: torch.dtype) -> nn.Module:
        """The form for inference, see :func:`gaitzoo.fuse_for_inference`; takes over weights."""
        return FusedResidualBlockP3d(self)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the features plus the shortcut."""
        check_features(x, self.conv1.in_channels, lengths)
        y = F.relu(self.bn1(self.conv1(to_frames(x))))
        y = mask_fill(to_sequences(y, x.shape[0]), lengths)
        y = F.relu(y + self.temporal_bn(self.temporal_conv(y)))
        y = to_sequences(self.bn2(self.conv2(to_frames(y))), x.shape[0])
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))


_BLOCKS = {"2d": ResidualBlock2d, "3d": ResidualBlock3d, "p3d": ResidualBlockP3d}
_STRIDES = (1, 2, 2, 1)


def call_block(block: Callable[..., Any], *inputs: Any) -> Any:
    """Calls a block as it is: what stands where a model puts its gradient checkpointing."""
    return block(*inputs)


def residual_layer(
    block: Callable[..., nn.Module],
    in_channels: int,
    out_channels: int,
    depth: int,
    stride: int = 1,
) -> nn.ModuleList:
    """Blocks of one width, the first of which changes width and size.

    Args:
        block: One of the three kinds of blocks.
        in_channels: Channels of the input.
        out_channels: Channels of the blocks.
        depth: Number of blocks.
        stride: Step of the first block over height and width, pixels.
    """
    blocks = nn.ModuleList([block(in_channels, out_channels, stride)])
    blocks.extend(block(out_channels, out_channels) for _ in range(depth - 1))
    return blocks


class ResidualBackbone(nn.Module):
    """A 3x3 stem and four layers of residual blocks; the map is a quarter as high and wide.

    The stem and the first layer see single frames; ``mode`` says what the other three do.

    Source: DeepGaitV2 (https://arxiv.org/abs/2303.03301), Table 2; with mode ``"2d"`` and one
    block per layer it is the ResNet9 of GaitBase (https://arxiv.org/abs/2211.06597).

    Args:
        mode: Blocks of layers 2 to 4: ``"2d"``, ``"3d"`` or ``"p3d"``.
        layers: Blocks of each of the four layers; fewer numbers leave the last ones out.
        channels: Widths of the layers.
        in_channels: Channels of the input.
        strides: Step of each layer over height and width, pixels.

    Shapes:
        x: ``[N, C_in, T, H, W]``, any values; zeros past the end of a sequence.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: ``[N, channels[3], T, H / 4, W / 4]`` with the usual strides, both rounded up.

    Raises:
        TypeError: If ``x`` is no tensor of floats or ``lengths`` no integer tensor.
        ValueError: If ``mode`` is unknown, ``layers`` or ``channels`` are no positive
            numbers, or axes, channels or lengths do not fit.

    Example:
        >>> backbone = ResidualBackbone("p3d", (1, 1, 1, 1), (4, 4, 8, 8))
        >>> backbone(torch.rand(2, 1, 5, 64, 44)).shape
        torch.Size([2, 8, 5, 16, 11])
    """

    def __init__(
        self,
        mode: str = "p3d",
        layers: tuple[int, ...] = (1, 4, 4, 1),
        channels: tuple[int, ...] = (64, 128, 256, 512),
        in_channels: int = 1,
        strides: tuple[int, ...] = _STRIDES,
    ) -> None:
        super().__init__()
        if not isinstance(mode, str) or mode not in _BLOCKS:
            raise ValueError(f'expected mode "2d", "3d" or "p3d", got {mode!r}')
        for name, numbers in (("layers", layers), ("channels", channels)):
            given = isinstance(numbers, tuple | list)
            if (
                not given
                or len(numbers) != len(layers)
                or not 1 <= len(numbers) <= 4
                or any(type(n) is not int or n < 1 for n in numbers)
            ):
                raise ValueError(
                    f"expected {name} as up to four positive whole numbers, as many of layers as "
                    f"of channels, got {numbers!r}"
                )
        check_size(in_channels=in_channels)
        self.mode, self.in_channels = mode, in_channels
        self.stem = nn.Sequential(
            Conv2d(in_channels, channels[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(channels[0]),
            nn.ReLU(),
        )
        self.layers = nn.ModuleList()
        before = channels[0]
        for i, (depth, width, stride) in enumerate(zip(layers, channels, strides, strict=False)):
            block = ResidualBlock2d if i == 0 else _BLOCKS[mode]
            self.layers.append(residual_layer(block, before, width, depth, stride))
            before = width

    def stage_names(self, prefix: str = "") -> tuple[str, ...]:
        """Names of the modules that end a stage: the stem and the last block of every layer.

        Args:
            prefix: Put before each, for example ``"backbone."``.
        """
        ends = [len(layer) - 1 for layer in self.layers]  # pyright: ignore[reportArgumentType]
        return (f"{prefix}stem", *(f"{prefix}layers.{i}.{end}" for i, end in enumerate(ends)))

    def reach(self) -> int:
        """Frames before and after that a frame of the map depends on."""
        layers: Any = list(self.layers.children())[1:]
        return {"2d": 0, "p3d": 1, "3d": 2}[self.mode] * sum(map(len, layers))

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
        x = self.run_stem(x, run)
        for index in range(len(self.layers)):
            x = self.run_layer(index, x, lengths, run)
        return x

    def run_stem(self, x: Tensor, run: Callable[..., Any] = call_block) -> Tensor:
        """The map after the stem, ``[N, channels[0], T, H, W]``.

        Args:
            x: See the class.
            run: See :meth:`forward`.
        """
        return to_sequences(run(self.stem, to_frames(x)), x.shape[0])

    def run_layer(
        self,
        index: int,
        x: Tensor,
        lengths: Tensor | None = None,
        run: Callable[..., Any] = call_block,
    ) -> Tensor:
        """The map after one layer, for networks that do something between layers.

        Args:
            index: Number of the layer, from 0.
            x: The map before it, ``[N, C, T, H, W]``.
            lengths: See the class.
            run: See :meth:`forward`.
        """
        blocks = self.layers[index].children()
        if self.mode != "2d" and index > 0:
            for block in blocks:
                x = run(block, x, lengths)
            return x
        frames = to_frames(x)
        for block in blocks:
            frames = run(block, frames)
        return to_sequences(frames, x.shape[0])


def _check_images(x: Tensor, channels: int) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"expected images [B, {channels}, H, W] of floats, got {got}")
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(
            f"expected images [B, {channels}, H, W], got {shape_of(x)}; FrameWise runs the block "
            "on the frames of [N, C, T, H, W]"
        )


def _shortcut3d(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """A 1x1x1 convolution and batch norm where the shape changes."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        Conv3d(in_channels, out_channels, 1, (1, stride, stride), bias=False),
        nn.BatchNorm3d(out_channels),
    )
