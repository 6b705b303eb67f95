"""Branches of transformed convolutions, each with its own pooling: the head of RRS-Gait.

Source: RRS-Gait (https://arxiv.org/abs/2601.05604). A reconstruction: the abstract says that
kernels are reflected, rotated and scaled, and that each of the three features is pooled globally;
all else is [inferred] and an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gaitzoo.layers.checks import check_features, check_size
from gaitzoo.layers.pooling import HorizontalPyramidPooling, TemporalMax
from gaitzoo.layers.replace import check_kind, swap_convs
from gaitzoo.layers.residual import (
    ResidualBlock2d,
    ResidualBlockP3d,
    call_block,
    residual_layer,
)
from gaitzoo.layers.sequence import to_frames, to_sequences

__all__ = ["RRSBranch", "RRSHead"]

_BLOCKS = {"2d": ResidualBlock2d, "p3d": ResidualBlockP3d}


class RRSBranch(nn.Module):
    """Residual blocks with transformed convolutions in each frame; those over time are plain.

    Source: RRS-Gait (https://arxiv.org/abs/2601.05604); blocks and depth are [inferred].

    Args:
        kind: ``"reflect"``, ``"rotate"`` or ``"scale"``.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        depth: Number of blocks.
        mode: ``"p3d"`` (with a convolution over three frames in each block) or ``"2d"`` (frames
            apart).
        **options: Of :class:`RotateConv2d` (``angles``), :class:`ScaleConv2d` (``scales``,
            ``mode`` as ``scale_mode``), and ``reduce``.

    Shapes:
        x: ``[N, C_in, T, H, W]``, any values.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: ``[N, C_out, T, H, W]``, zero or more; frames past the end hold no meaning.

    Raises:
        TypeError: If ``x`` is no tensor of floats or ``lengths`` no integer tensor.
        ValueError: If an argument has none of the values named here, or axes, channels or lengths
            do not fit.

    Example:
        >>> network = nn.Sequential(
        ...     nn.Conv3d(1, 4, 3, padding=1), RRSBranch("scale", 4, 8), nn.AdaptiveMaxPool3d(1)
        ... )
        >>> network(torch.rand(2, 1, 5, 16, 11)).shape
        torch.Size([2, 8, 1, 1, 1])
    """

    def __init__(
        self,
        kind: str,
        in_channels: int,
        out_channels: int,
        depth: int = 1,
        *,
        mode: Literal["p3d", "2d"] = "p3d",
        **options: Any,
    ) -> None:
        super().__init__()
        check_size(in_channels=in_channels, out_channels=out_channels, depth=depth)
        if mode not in _BLOCKS:
            raise ValueError(f'expected mode "p3d" or "2d", got {mode!r}')
        if "scale_mode" in options:
            options["mode"] = options.pop("scale_mode")
        self.kind, self.in_channels, self.mode = check_kind(kind), in_channels, mode
        self.blocks = residual_layer(_BLOCKS[mode], in_channels, out_channels, depth)
        swap_convs(self.blocks, kind, **options)

    def reach(self) -> int:
        """Frames before and after that a frame of the map depends on."""
        return len(self.blocks) if self.mode == "p3d" else 0

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        run: Callable[..., Any] = call_block,
    ) -> Tensor:
        """Returns the map.

        Args:
            x: See the class.
            lengths: See the class.
            run: Calls a block; a model puts its gradient checkpointing here.
        """
        check_features(x, self.in_channels, lengths)
        if self.mode == "2d":
            frames = to_frames(x)
            for block in self.blocks:
                frames = run(block, frames)
            return to_sequences(frames, x.shape[0])
        for block in self.blocks:
            x = run(block, x, lengths)
        return x


class RRSHead(nn.Module):
    """Branches side by side, the maximum over time of each, and its pools: part vectors.

    Global parts are the truly invariant ones: a reflection, and with quarter turns a rotation, of
    the map leaves those of its branch as they are. Bands of rows are left as they are by a
    reflection alone.

    Source: RRS-Gait (https://arxiv.org/abs/2601.05604). That every branch is pooled by itself is
    the abstract's, its global pooling too; bands beside it are [inferred] (they carry most accuracy
    in this field).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the parts.
        branches: Kinds of branches, in order; some of ``"reflect"``, ``"rotate"``, ``"scale"``.
        depth: Blocks of each branch.
        mode: Blocks, see :class:`RRSBranch`.
        pool: ``"global"`` (one part per branch, maximum plus mean of the map), ``"hpp"`` (of
            ``num_bands`` bands of rows), or ``"both"``.
        num_bands: Bands; they must divide the height of the map.
        angles: Of the rotation, degrees; see :class:`RotateConv2d`.
        scales: Of the scale; see :class:`ScaleConv2d`.
        scale_mode: ``"dilate"`` or ``"resize"``; see :class:`ScaleConv2d`.
        reduce: How forms of a kernel are joined, ``"max"`` or ``"mean"``.

    Shapes:
        x: ``[N, C_in, T, H, W]``, any values.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: ``[N, P, C]``, the bands of the first branch from the top, its global part, those
            of the second branch, ...

    Raises:
        TypeError: If ``x`` is no tensor of floats or ``lengths`` no integer tensor.
        ValueError: If an argument has none of the values named here, or axes, channels or lengths
            do not fit.

    Example:
        >>> trunk, head = nn.Conv3d(1, 4, (1, 3, 3), (1, 4, 4)), RRSHead(4, 8, num_bands=4)
        >>> head(trunk(torch.rand(2, 1, 5, 66, 44)), torch.tensor([5, 2])).shape
        torch.Size([2, 15, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        branches: Sequence[str] = ("reflect", "rotate", "scale"),
        *,
        depth: int = 1,
        mode: Literal["p3d", "2d"] = "p3d",
        pool: Literal["global", "hpp", "both"] = "both",
        num_bands: int = 16,
        angles: Sequence[float] = (-15.0, 0.0, 15.0),
        scales: Sequence[int] = (1, 2),
        scale_mode: Literal["dilate", "resize"] = "dilate",
        reduce: Literal["max", "mean"] = "max",
    ) -> None:
        super().__init__()
        check_size(num_bands=num_bands)
        bins = {"global": (1,), "hpp": (num_bands,), "both": (num_bands, 1)}
        if pool not in bins:
            raise ValueError(f'expected pool "global", "hpp" or "both", got {pool!r}')
        kinds = [branches] if isinstance(branches, str) else list(branches)
        if not kinds or len({check_kind(kind) for kind in kinds}) < len(kinds):
            raise ValueError(f"expected one branch or more, each once, got {branches!r}")
        options: dict[str, dict[str, Any]] = {
            "reflect": {},
            "rotate": {"angles": angles},
            "scale": {"scales": scales, "scale_mode": scale_mode},
        }
        build = partial(RRSBranch, depth=depth, mode=mode, reduce=reduce)
        self.branches = nn.ModuleDict(
            {kind: build(kind, in_channels, out_channels, **options[kind]) for kind in kinds}
        )
        self.temporal_pool = TemporalMax()
        self.part_pool = HorizontalPyramidPooling(bins[pool])
        self.out_channels = out_channels
        self.num_parts = len(kinds) * self.part_pool.num_parts

    def reach(self) -> int:
        """Frames before and after that a frame of the maps depends on."""
        return max(branch.reach() for branch in self.branches.values())  # pyright: ignore

    def maps(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        run: Callable[..., Any] = call_block,
    ) -> Tensor:
        """The maps of all branches, one behind the other along the channels.

        Args:
            x: See the class.
            lengths: See the class.
            run: Calls a block; a model puts its gradient checkpointing here.

        Returns:
            ``[N, B * C, T, H, W]`` of B branches; frames past the end hold no meaning.
        """
        return torch.cat([branch(x, lengths, run) for branch in self.branches.values()], dim=1)

    def pool(self, maps: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Part vectors of the maps.

        Args:
            maps: From :meth:`maps`.
            lengths: See the class.

        Returns:
            ``[N, P, C]``.
        """
        parts = self.part_pool(self.temporal_pool(maps, lengths))
        by_branch = parts.unflatten(2, (len(self.branches), -1))
        return by_branch.transpose(1, 2).flatten(1, 2)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the part vectors."""
        return self.pool(self.maps(x, lengths), lengths)
