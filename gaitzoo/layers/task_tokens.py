"""One transformer for several inputs and several tasks, and heads that read its task tokens.

Source: Combo-Gait (https://arxiv.org/abs/2510.10417). A reconstruction: the abstract and notes
name the parts (encoders, one transformer, heads of tasks); sizes and all details are inferred.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gaitzoo.layers.checks import check_features, check_size
from gaitzoo.layers.pooling import HorizontalPyramidPooling, TemporalMax
from gaitzoo.layers.residual import call_block
from gaitzoo.layers.token_attention import TokenBlock, check_tokens

__all__ = ["BinaryHead", "PartTokenizer", "RegressionHead", "UnifiedGaitTransformer"]


class PartTokenizer(nn.Module):
    """A token per horizontal band of the body: maximum over time, bands, a linear layer.

    Source: Combo-Gait (https://arxiv.org/abs/2510.10417), silhouette encoder. A reconstruction:
    pooling and sizes are inferred.

    Args:
        backbone: Called with ``[N, C, T, H, W]`` and ``lengths``, gives a map
            ``[N, C', T, H', W']``; ``None`` = the input is that map.
        in_channels: C' of the map.
        dim: D of the tokens.
        bins: Numbers of horizontal bands; each must divide H'.

    Shapes:
        x: ``[N, C, T, H, W]``, as the backbone takes it.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: ``[N, P, D]``, P the sum of ``bins``.

    Raises:
        TypeError: If ``x`` is no map of floats or ``lengths`` no integers.
        ValueError: If a size is no positive whole number, or axes do not fit.

    Example:
        Tokens of the map of a foreign network, for a foreign transformer:

        >>> conv, tokenize = nn.Conv3d(1, 8, (1, 4, 4), (1, 4, 4)), PartTokenizer(None, 8, 16, (4,))
        >>> join = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        >>> join(tokenize(conv(torch.rand(2, 1, 5, 16, 12)).relu(), torch.tensor([5, 2]))).shape
        torch.Size([2, 4, 16])
    """

    def __init__(
        self,
        backbone: nn.Module | None,
        in_channels: int,
        dim: int = 256,
        bins: tuple[int, ...] = (16,),
    ) -> None:
        super().__init__()
        check_size(in_channels=in_channels, dim=dim)
        self.backbone, self.in_channels = backbone, in_channels
        self.temporal_pool = TemporalMax()
        self.part_pool = HorizontalPyramidPooling(bins)
        self.project = nn.Linear(in_channels, dim)

    @property
    def num_parts(self) -> int:
        """Number of tokens."""
        return self.part_pool.num_parts

    def pool(self, maps: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Tokens of a map that is there already.

        Args:
            maps: ``[N, C', T, H', W']``.
            lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        """
        check_features(maps, self.in_channels, lengths)
        parts = self.part_pool(self.temporal_pool(maps, lengths))
        return self.project(parts.to(self.project.weight.dtype))

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the tokens."""
        return self.pool(x if self.backbone is None else self.backbone(x, lengths), lengths)


class UnifiedGaitTransformer(nn.Module):
    """One transformer over learned task tokens and the tokens of any inputs that are there.

    Tokens stand in groups, one per input. Every task has a learned token; every group one vector
    that says what it is and one per place in it. A token that is missing counts as zeros: others
    do not see it, but it still sees them, and comes back filled in from the others.

    Source: Combo-Gait (https://arxiv.org/abs/2510.10417), unified transformer. A reconstruction:
    depth, widths and the way of missing inputs are inferred.

    Args:
        dim: D, a multiple of ``heads``.
        depth: Transformer blocks.
        heads: Heads of each.
        tasks: Names of the task tokens, without dots.
        groups: Name of each group, without dots, to its number of tokens.
        mlp_ratio: Width of the blocks' MLPs, times ``dim``.
        drop_rate: Dropout, in training.

    Shapes:
        tokens: Name of a group to ``[N, S, D]``; groups may be absent, not all of them.
        seen: Name of a group to ``[N, S]`` bool, True = a token that is there; what stands in
            others, even NaN, never matters. ``None``, or no entry = all of the group.
        returns: Name of each task to ``[N, D]``; name of each group, absent ones too, to the
            refreshed tokens ``[N, S, D]``.

    Raises:
        ValueError: If a size or name is none, there is no group, a group is unknown, or shapes do
            not fit.

    Example:
        Pictures and a text in a foreign network, any of them missing:

        >>> eye, ear = torch.nn.Linear(48, 16), torch.nn.Embedding(100, 16)
        >>> join = UnifiedGaitTransformer(16, 1, 4, tasks=("mood",), groups={"eye": 4, "ear": 3})
        >>> words = ear(torch.tensor([[5, 9, 2]]))
        >>> both, _ = join({"eye": eye(torch.rand(1, 4, 48)), "ear": words})
        >>> heard, _ = join({"ear": words})
        >>> both["mood"].shape, heard["mood"].shape
        (torch.Size([1, 16]), torch.Size([1, 16]))
    """

    keeps_float32 = True

    def __init__(
        self,
        dim: int = 256,
        depth: int = 4,
        heads: int = 8,
        *,
        tasks: Sequence[str] = ("id", "age", "bmi", "gender"),
        groups: Mapping[str, int],
        mlp_ratio: int = 4,
        drop_rate: float = 0.1,
    ) -> None:
        super().__init__()
        check_size(depth=depth, **dict(groups))
        self.dim, self.tasks, self.groups = dim, tuple(tasks), dict(groups)
        for name in (*self.tasks, *self.groups):
            if not isinstance(name, str) or not name or "." in name:
                raise ValueError(f"expected names of tasks and groups without dots, got {name!r}")
        if not self.groups:
            raise ValueError("expected one group of tokens or more, got none")
        self.task_tokens = nn.Parameter(torch.randn(len(self.tasks), dim) * 0.02)
        self.kinds = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(dim) * 0.02) for name in self.groups}
        )
        self.positions = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(n, dim) * 0.02) for name, n in self.groups.items()}
        )
        self.blocks = nn.ModuleList(
            TokenBlock(dim, heads, mlp_ratio, drop_rate) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        tokens: Mapping[str, Tensor],
        seen: Mapping[str, Tensor] | None = None,
        run: Callable[..., Any] = call_block,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Returns the task tokens and the refreshed groups.

        Args:
            tokens: See the class.
            seen: See the class.
            run: Calls a block; a model puts its gradient checkpointing here.
        """
        seen = seen or {}
        unknown = set(tokens) | set(seen)
        if not tokens or unknown - set(self.groups):
            raise ValueError(
                f"expected tokens of {', '.join(self.groups)}, one of them or more, got "
                f"{', '.join(sorted(unknown)) or 'none'}"
            )
        for name, x in tokens.items():
            check_tokens(f"tokens of {name}", x, self.groups[name], self.dim)
        first = next(iter(tokens.values()))
        count = first.shape[0]  # len() would fix it in a graph
        pieces = [self.task_tokens.expand(count, -1, -1)]
        masks = [first.new_ones(count, len(self.tasks), dtype=torch.bool)]
        for name, size in self.groups.items():
            place = (self.positions[name] + self.kinds[name]).expand(count, -1, -1)
            if name not in tokens:
                pieces.append(place)
                masks.append(first.new_zeros(count, size, dtype=torch.bool))
                continue
            mask = first.new_ones(count, size, dtype=torch.bool)
            mask = seen[name] if seen.get(name) is not None else mask
            pieces.append(place + tokens[name].masked_fill(~mask[..., None], 0))
            masks.append(mask)
        x, mask = torch.cat(pieces, dim=1), torch.cat(masks, dim=1)
        for block in self.blocks:
            x = run(block, x, mask)
        ours, *rest = self.norm(x).split([len(self.tasks), *self.groups.values()], dim=1)
        return dict(zip(self.tasks, ours.unbind(1), strict=True)), dict(
            zip(self.groups, rest, strict=True)
        )


class RegressionHead(nn.Module):
    """A number in real units from a token: years, kg/m^2.

    A small MLP gives the number in standard deviations from the mean. With ``bins`` it gives
    scores of these values instead, and the number is their expectation (as DEX does for ages,
    https://doi.org/10.1109/ICCVW.2015.41).

    Source: Combo-Gait (https://arxiv.org/abs/2510.10417), heads of age and BMI. A reconstruction:
    the MLP is inferred.

    Args:
        dim: D of the token.
        mean: Mean of the training labels.
        std: Their standard deviation, above 0.
        bins: Values to choose among, in the same units; ``None`` = any number.
        hidden: Width of the MLP.

    Shapes:
        token: ``[N, D]``.
        returns: ``[N]``.

    Raises:
        ValueError: If ``mean`` or ``std`` are no finite numbers, ``std`` is not above 0, or there
            is only one bin.

    Example:
        >>> trunk = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 16))
        >>> torch.nn.Sequential(trunk, RegressionHead(16, 41.0, 15.0))(torch.rand(3, 8, 8)).shape
        torch.Size([3])
    """

    keeps_float32 = True
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        dim: int,
        mean: float,
        std: float,
        *,
        bins: Sequence[float] | None = None,
        hidden: int = 64,
    ) -> None:
        super().__init__()
        check_size(dim=dim, hidden=hidden)
        if not (math.isfinite(mean) and 0 < std < math.inf):
            raise ValueError(f"expected a finite mean and an std above 0, got {mean} and {std}")
        if bins is not None and len(bins) < 2:
            raise ValueError(f"expected two bins or more, got {len(bins)}")
        self.register_buffer("mean", torch.tensor(float(mean)))
        self.register_buffer("std", torch.tensor(float(std)))
        values = None if bins is None else (torch.tensor(bins, dtype=torch.float32) - mean) / std
        self.register_buffer("values", values)
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, 1 if bins is None else len(bins))
        )

    def forward(self, token: Tensor) -> Tensor:
        """Returns the numbers."""
        found = self.mlp(token)
        if self.values is None:
            return self.mean + self.std * found[:, 0]
        return self.mean + self.std * (found.softmax(dim=1) * self.values).sum(1)


class BinaryHead(nn.Module):
    """The logit of a yes from a token; its sigmoid is the probability.

    Source: Combo-Gait (https://arxiv.org/abs/2510.10417), head of gender. A reconstruction.

    Args:
        dim: D of the token.

    Shapes:
        token: ``[N, D]``.
        returns: ``[N]``.

    Example:
        >>> network = torch.nn.Sequential(torch.nn.Linear(5, 16), torch.nn.ReLU(), BinaryHead(16))
        >>> network(torch.rand(3, 5)).sigmoid().shape
        torch.Size([3])
    """

    keeps_float32 = True

    def __init__(self, dim: int) -> None:
        super().__init__()
        check_size(dim=dim)
        self.linear = nn.Linear(dim, 1)

    def forward(self, token: Tensor) -> Tensor:
        """Returns the logits."""
        return self.linear(token)[:, 0]
