"""Eval mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["evaluating"]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Puts a model into eval mode, and each of its modules back into its own afterwards.

    Args:
        model: Any module.

    Example:
        >>> layers = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
        >>> with evaluating(layers):
        ...     layers[0].training
        False
        >>> layers[0].training, layers[1].training
        (True, False)
    """
    training = [module for module in model.modules() if module.training]
    try:
        model.eval()
        yield
    finally:
        for module in training:
            module.training = True
