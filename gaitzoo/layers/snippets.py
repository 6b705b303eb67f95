"""Snippets: frames of one short stretch of a walk, and blocks that let them see each other.

Source: GaitSnippet (https://arxiv.org/abs/2508.07782), snippet modeling, rebuilt from the abstract
and from others' notes on the paper: no code was published. A snippet is a few frames of one segment
of a walk, in any order; a walk is a set of snippets. What is inferred is said at each block.

Snippets are given to all blocks in one of two ways:

- a whole number ``L``: every ``L`` frames from the first on are a snippet, the last one may have
  fewer. Fast, and what training draws (:class:`gaitzoo.SnippetSampler`) and tests have;
- ``[N, T]`` integers: the number of each frame's snippet from 0, -1 = the frame belongs to none.
  Frames of a snippet may stand anywhere and be as many as they like.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_features, check_size, shape_of
from gaitzoo.layers.conv import Conv2d
from gaitzoo.layers.fold import fold_sequential
from gaitzoo.layers.fused import fold_inside
from gaitzoo.layers.residual import ResidualBackbone, call_block, residual_layer
from gaitzoo.layers.sequence import (
    lengths_for,
    lengths_to_mask,
    mask_fill,
    over_time,
    to_frames,
    to_sequences,
)

__all__ = [
    "ResidualSnippetBlock",
    "SnippetBackbone",
    "SnippetBlock",
    "check_snippets",
    "snippet_pool",
]

_STRIDES = (1, 2, 2, 1)


def check_snippets(
    snippets: Any, num_sequences: int, num_frames: int, num_snippets: int | None = None
) -> int:
    """Raises unless snippets fit a batch; returns how many a sequence has at most.

    Args:
        snippets: Frames of each snippet, or ``[N, T]`` numbers of snippets.
        num_sequences: N.
        num_frames: T.
        num_snippets: M that was asked for; ``None`` = as many as there are. Numbers on an
            accelerator are then read, which waits for it, and otherwise are not.

    Raises:
        TypeError: If they are neither a whole number nor an integer tensor.
        ValueError: If shape or numbers do not fit.

    Example:
        >>> check_snippets(16, num_sequences=2, num_frames=40)
        3
    """
    if type(snippets) is int:
        check_size(snippets=snippets)
        count = (num_frames + snippets - 1) // snippets
        if num_snippets is not None and num_snippets != count:
            raise ValueError(
                f"expected num_snippets {count} for {num_frames} frames in snippets of {snippets}, "
                f"got {num_snippets!r}; leave it out"
            )
        return count
    kinds = (torch.int64, torch.int32, torch.int16, torch.int8)
    if not isinstance(snippets, Tensor) or snippets.dtype not in kinds:
        got = snippets.dtype if isinstance(snippets, Tensor) else type(snippets).__name__
        raise TypeError(
            "expected snippets as a whole number of frames or as an int64 tensor [N, T] of numbers "
            f"of snippets, got {got}"
        )
    if snippets.shape != (num_sequences, num_frames):
        raise ValueError(
            f"expected a snippet for every frame, shape [{num_sequences}, {num_frames}], got "
            f"{shape_of(snippets)}"
        )
    if num_snippets is not None:
        check_size(num_snippets=num_snippets)
    if num_snippets is not None and (
        snippets.device.type != "cpu" or torch.compiler.is_compiling()
    ):
        return num_snippets
    lowest, highest = (int(number) for number in snippets.aminmax())
    if lowest < -1 or highest < 0 or highest >= (num_snippets or highest + 1):
        upper = "" if num_snippets is None else f" below {num_snippets}"
        raise ValueError(
            f"expected numbers of snippets from 0 on{upper} (-1 = none), got {lowest} to {highest}"
        )
    return num_snippets or highest + 1


def snippet_pool(
    x: Tensor,
    snippets: Tensor | int,
    lengths: Tensor | None = None,
    num_snippets: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Maximum over the frames of each snippet.

    Source: GaitSnippet (https://arxiv.org/abs/2508.07782), gathering.

    Args:
        x: ``[N, C, T, H, W]``, any values; those of padded frames and of frames in no snippet may
            even be NaN.
        snippets: Frames of each snippet, or ``[N, T]`` numbers of snippets, -1 = in none.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        num_snippets: M; ``None`` = as many as there are.

    Returns:
        ``[N, C, M, H, W]``, zeros where a snippet has no frame, and ``[N, M]`` bool, True = it has
        one.

    Raises:
        TypeError: If ``x`` holds no floats, or ``lengths`` or ``snippets`` no integers.
        ValueError: If shapes or numbers do not fit.

    Example:
        >>> x = torch.tensor([1.0, 5.0, 2.0, 3.0]).reshape(1, 1, 4, 1, 1)
        >>> pooled, valid = snippet_pool(x, torch.tensor([[0, 1, 0, -1]]))
        >>> pooled.flatten().tolist(), valid.tolist()
        ([2.0, 5.0], [[True, True]])
        >>> snippet_pool(x, 3)[0].flatten().tolist()
        [5.0, 3.0]
    """
    check_features(x, None, lengths)
    count = check_snippets(snippets, x.shape[0], x.shape[2], num_snippets)
    lengths = lengths_for(lengths, x)
    if isinstance(snippets, int):
        return _pool_runs(x, snippets, count, lengths)
    return _pool_any(x, snippets.to(x.device, torch.int64), count, lengths)


def _pool_runs(x: Tensor, frames: int, count: int, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """Snippets of equally many frames in a row, as one more axis."""
    num_sequences, num_frames = x.shape[0], x.shape[2]
    y = mask_fill(x, lengths, torch.finfo(x.dtype).min)
    # A graph has to hold for any number of frames.
    if torch.compiler.is_compiling() or num_frames % frames:
        # The last frame again and again changes no maximum, nor do frames past the end.
        frame = torch.arange(count * frames, device=x.device).clamp(max=num_frames - 1)
        y = _take(y, frame)
    runs = y.unflatten(2, (count, frames)).transpose(1, 2).flatten(0, 1)
    pooled = to_sequences(over_time(runs, torch.amax), num_sequences)
    starts = torch.arange(count, device=x.device) * frames
    if lengths is None:
        return pooled, torch.ones(num_sequences, count, dtype=torch.bool, device=x.device)
    valid = starts < lengths[:, None]
    return pooled.masked_fill(~valid[:, None, :, None, None], 0), valid


def _pool_any(
    x: Tensor, numbers: Tensor, count: int, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Snippets of any frames; those of none go to a place of their own that is cut off."""
    belongs = numbers >= 0
    if lengths is not None:
        belongs = belongs & lengths_to_mask(lengths, x.shape[2])
    places = torch.where(belongs, numbers, count)
    valid = torch.zeros(x.shape[0], count + 1, dtype=torch.bool, device=x.device)
    valid = valid.scatter(1, places, True)[:, :count]
    x = x.masked_fill(~belongs[:, None, :, None, None], 0)
    empty = x.new_zeros(*x.shape[:2], count + 1, *x.shape[3:])
    index = places[:, None, :, None, None].expand_as(x)
    pooled = empty.scatter_reduce(2, index, x, "amax", include_self=False)
    return pooled[:, :, :count], valid


def _take(x: Tensor, frames: Tensor) -> Tensor:
    """Frames by their numbers, in the order in which the values lie in memory."""
    if x.stride(1) != 1:
        return x.transpose(1, 2).index_select(1, frames).transpose(1, 2)
    return x.movedim(1, -1).index_select(1, frames).movedim(-1, 1)


def _spread(pooled: Tensor, snippets: Tensor | int, num_frames: int) -> Tensor:
    """Gives every frame what its snippet has: ``[N, C, M, H, W]`` to ``[N, C, T, H, W]``."""
    if isinstance(snippets, int):
        place = torch.arange(num_frames, device=pooled.device) // snippets
        return _take(pooled, place)
    numbers = snippets.to(pooled.device, torch.int64).clamp(min=0)[:, None, :, None, None]
    index = numbers.expand(-1, pooled.shape[1], -1, *pooled.shape[3:])
    return pooled.gather(2, index)


class SnippetBlock(nn.Module):
    """What a snippet has in common, added to each of its frames.

    Maximum over the frames of each snippet (gathering), a 1x1 convolution and a norm (smoothing),
    then ``ReLU(frame + that of its snippet)`` (residual). Frames of other snippets have no
    influence. With a smoothing of zero it leaves maps of zero or more as they are.

    Source: GaitSnippet (https://arxiv.org/abs/2508.07782), snippet block, rebuilt from notes.
    Inferred: the norm, and the ReLU behind the sum (both as in the P3D block, which inspired it).

    Args:
        channels: C.
        norm: Makes the norm behind the convolution, from the number of channels.

    Shapes:
        x: ``[N, C, T, H, W]``, any values.
        snippets: Frames of each snippet, or ``[N, T]`` numbers of snippets, -1 = in none: such
            frames hold no meaning afterwards.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: ``[N, C, T, H, W]``, zero or more; frames past the end hold no meaning.

    Raises:
        TypeError: As for :func:`snippet_pool`.
        ValueError: If ``channels`` is no positive whole number, or shapes or numbers do not fit.

    Example:
        >>> SnippetBlock(4)(torch.rand(2, 4, 9, 16, 11), snippets=3).shape
        torch.Size([2, 4, 9, 16, 11])
    """

    def __init__(self, channels: int, norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        check_size(channels=channels)
        self.conv = Conv2d(channels, channels, 1, bias=False)
        self.bn = norm(channels)

    def fused(self, dtype: torch.dtype) -> nn.Module:
        """Itself, with the batch norm folded: for inference alone."""
        fold_inside(self, ("conv", "bn"))
        return self

    def forward(
        self,
        x: Tensor,
        snippets: Tensor | int,
        lengths: Tensor | None = None,
        num_snippets: int | None = None,
    ) -> Tensor:
        """Returns the frames with what their snippets have.

        Args:
            x: See the class.
            snippets: See the class.
            lengths: See the class.
            num_snippets: M; ``None`` = as many as there are.
        """
        check_features(x, self.conv.in_channels, lengths)
        pooled, _ = snippet_pool(x, snippets, lengths, num_snippets)
        smooth = to_sequences(self.bn(self.conv(to_frames(pooled))), x.shape[0])
        return F.relu(x + _spread(smooth, snippets, x.shape[2]))


class ResidualSnippetBlock(nn.Module):
    """A 3x3 convolution per frame, a snippet block, a 3x3 per frame, and a shortcut.

    :class:`ResidualBlock2d` with a :class:`SnippetBlock` in its middle; parameters that both have
    are named alike.

    Source: GaitSnippet (https://arxiv.org/abs/2508.07782), residual snippet block, rebuilt from
    notes.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Step of the first convolution over height and width, pixels.

    Shapes:
        x: ``[N, C_in, T, H, W]``, any values.
        snippets: As for :class:`SnippetBlock`.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: ``[N, C_out, T, H', W']``, zero or more; frames past the end hold no meaning.

    Raises:
        TypeError: As for :func:`snippet_pool`.
        ValueError: If an argument is no positive whole number, or shapes or numbers do not fit.

    Example:
        >>> block = ResidualSnippetBlock(4, 8, stride=2)
        >>> block(torch.rand(2, 4, 9, 64, 44), 3, torch.tensor([9, 4])).shape
        torch.Size([2, 8, 9, 32, 22])
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        check_size(in_channels=in_channels, out_channels=out_channels, stride=stride)
        self.conv1 = Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.snippet = SnippetBlock(out_channels)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def fused(self, dtype: torch.dtype) -> nn.Module:
        """Itself, with the batch norms folded: for inference alone."""
        fold_inside(self, ("conv1", "bn1"), ("conv2", "bn2"))
        self.snippet.fused(dtype)
        if self.shortcut is not None:
            fold_sequential(self.shortcut)
        return self

    def forward(
        self,
        x: Tensor,
        snippets: Tensor | int,
        lengths: Tensor | None = None,
        num_snippets: int | None = None,
    ) -> Tensor:
        """Returns the features plus the shortcut; for arguments see :class:`SnippetBlock`."""
        check_features(x, self.conv1.in_channels, lengths)
        frames = to_frames(x)
        y = to_sequences(F.relu(self.bn1(self.conv1(frames))), x.shape[0])
        y = self.snippet(y, snippets, lengths, num_snippets)
        y = self.bn2(self.conv2(to_frames(y)))
        y = F.relu(y + (frames if self.shortcut is None else self.shortcut(frames)))
        return to_sequences(y, x.shape[0])


class SnippetBackbone(ResidualBackbone):
    """The residual network of DeepGaitV2-2D with snippet blocks in some of its layers.

    Frames see those of their own snippet and no others: ``reach()``, which counts the others, is 0.

    Source: GaitSnippet (https://arxiv.org/abs/2508.07782), rebuilt from notes. Inferred: layer 1
    sees single frames, as in DeepGaitV2-P3D.

    Args:
        layers: Blocks of each of the four layers; fewer numbers leave the last ones out.
        channels: Widths of the layers.
        in_channels: Channels of the input.
        snippet_stages: Numbers of the layers, from 1, that have snippet blocks.

    Shapes:
        x: ``[N, C_in, T, H, W]``, any values; finite past the end of a sequence.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        snippets: As for :class:`SnippetBlock`.
        returns: ``[N, channels[3], T, H / 4, W / 4]``, both rounded up; frames past the end hold no
            meaning.

    Raises:
        TypeError: As for :func:`snippet_pool`.
        ValueError: If an argument has none of the values named here, or shapes do not fit.

    Example:
        >>> backbone = SnippetBackbone((1, 1, 1, 1), (4, 4, 8, 8))
        >>> backbone(torch.rand(2, 1, 5, 64, 44), snippets=4).shape
        torch.Size([2, 8, 5, 16, 11])
    """

    def __init__(
        self,
        layers: tuple[int, ...] = (1, 4, 4, 1),
        channels: tuple[int, ...] = (64, 128, 256, 512),
        in_channels: int = 1,
        snippet_stages: tuple[int, ...] = (2, 3, 4),
    ) -> None:
        super().__init__("2d", layers, channels, in_channels, _STRIDES)
        if not set(snippet_stages) <= set(range(1, len(layers) + 1)):
            raise ValueError(
                f"expected snippet_stages as numbers of layers, 1 to {len(layers)}, got "
                f"{snippet_stages!r}"
            )
        self.snippet_stages = tuple(snippet_stages)
        before = (channels[0], *channels)
        for stage in snippet_stages:
            i = stage - 1
            self.layers[i] = residual_layer(
                ResidualSnippetBlock, before[i], channels[i], layers[i], _STRIDES[i]
            )

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        run: Callable[..., Any] = call_block,
        snippets: Tensor | int = 16,
        num_snippets: int | None = None,
    ) -> Tensor:
        """Returns the feature map.

        Args:
            x: See the class.
            lengths: See the class.
            run: Calls a block; a model puts its gradient checkpointing here.
            snippets: See the class.
            num_snippets: M; ``None`` = as many as there are.
        """
        check_features(x, self.in_channels, lengths)
        count = check_snippets(snippets, x.shape[0], x.shape[2], num_snippets)
        known = None if isinstance(snippets, int) else count
        x = self.run_stem(x, run)
        for index, layer in enumerate(self.layers):
            if index + 1 not in self.snippet_stages:
                x = self.run_layer(index, x, lengths, run)
                continue
            for block in layer.children():
                x = run(block, x, snippets, lengths, known)
        return x
