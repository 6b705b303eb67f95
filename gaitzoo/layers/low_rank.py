"""Low-rank adapters: a trained network changed by few new numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = ["LowRank", "add_lora", "merge_lora"]

_ADAPTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class LowRank(nn.Module):
    """A weight plus a product of two thin matrices, 0 at first.

    The weight is seen as a matrix of output channels by all else.

    Source: LoRA (https://arxiv.org/abs/2106.09685), Sec. 4.1.

    Args:
        weight: What is adapted.
        rank: Columns of the first matrix, rows of the second.
        alpha: The product is multiplied by ``alpha / rank``.

    Shapes:
        weight: ``[out, ...]``.
        returns: The same.

    Example:
        >>> weight = torch.rand(8, 4, 3, 3)
        >>> torch.equal(LowRank(weight, rank=2, alpha=2.0)(weight), weight)
        True
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        new = {"dtype": weight.dtype, "device": weight.device}
        self.down = nn.Parameter(torch.empty(rank, weight[0].numel(), **new))
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank, **new))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.scale = alpha / rank

    def forward(self, weight: Tensor) -> Tensor:
        """Returns the adapted weight."""
        return weight + self.scale * (self.up @ self.down).reshape(weight.shape)


def add_lora(
    model: nn.Module,
    rank: int = 8,
    alpha: float | None = None,
    targets: Callable[[str, nn.Module], bool] | None = None,
) -> list[nn.Parameter]:
    """Freezes a model and gives its convolutions and linear layers low-rank adapters.

    The outputs stay as they were until the adapters are trained. They sit on the weights
    (``torch.nn.utils.parametrize``), so that they count wherever a model reads them. Buffers such
    as statistics of batch normalisation still move in training mode: keep the model in eval mode,
    or those layers. Call :func:`merge_lora` before saving, fusing or exporting.

    Args:
        model: Changed in place.
        rank: Of the adapters; those of weights with fewer rows or columns are as thin.
        alpha: Adapters are multiplied by ``alpha / rank``; ``None`` = by 1.
        targets: Called with name and module of each convolution and linear layer: whether it is
            adapted; ``None`` = all of them.

    Returns:
        The parameters of the adapters, for an optimizer. All others are frozen.

    Raises:
        ValueError: If the rank is no whole number of 1 or more, ``alpha`` is not above 0, no layer
            is adapted, or the model has adapters already.

    Example:
        >>> layer = nn.Linear(16, 16)
        >>> [tuple(p.shape) for p in add_lora(layer, rank=2)]
        [(2, 16), (16, 2)]
    """
    if type(rank) is not int or rank < 1:
        raise ValueError(f"expected rank as a whole number of 1 or more, got {rank!r}")
    if alpha is not None and not 0 < alpha < float("inf"):
        raise ValueError(f"expected alpha above 0, got {alpha!r}")
    if any(isinstance(module, LowRank) for module in model.modules()):
        raise ValueError("expected a model without adapters, got one with; merge_lora first")
    chosen = [
        module
        for name, module in model.named_modules()
        if isinstance(module, _ADAPTED) and (targets is None or targets(name, module))
    ]
    if not chosen:
        raise ValueError("expected convolutions or linear layers to adapt, got none; see targets")
    model.requires_grad_(False)
    adapters = []
    for module in chosen:
        weight = module.weight
        thin = min(rank, weight.shape[0], weight[0].numel())
        low_rank = LowRank(weight, thin, thin if alpha is None else alpha * thin / rank)
        parametrize.register_parametrization(module, "weight", low_rank)
        adapters += low_rank.parameters()
    return adapters


def merge_lora(model: nn.Module) -> None:
    """Adds the adapters of :func:`add_lora` to the weights and removes them, in place.

    Outputs stay the same, keys are those of the model before. All parameters stay frozen.

    Args:
        model: With adapters.

    Raises:
        ValueError: If the model has none.

    Example:
        >>> layer = nn.Linear(4, 4)
        >>> _ = add_lora(layer)
        >>> merge_lora(layer)
        >>> sorted(layer.state_dict())
        ['bias', 'weight']
    """
    adapted = [
        module
        for module in model.modules()
        if parametrize.is_parametrized(module, "weight")
        and isinstance(module.parametrizations["weight"][0], LowRank)  # pyright: ignore
    ]
    if not adapted:
        raise ValueError("expected a model with adapters, got one without; add_lora first")
    for module in adapted:
        parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
        module.weight.requires_grad_(False)  # pyright: ignore
