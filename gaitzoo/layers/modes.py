"""Eval mode or another layout for a while, and models out of what wraps them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch
from torch import nn

__all__ = ["channels_stand_last", "evaluating", "standing_last", "unwrapped", "without_autocast"]

# Of a thread or task: others may be using the same model.
_STANDING_LAST = ContextVar("standing_last", default=False)


def channels_stand_last() -> bool:
    """Whether this is inside :func:`standing_last`, and no graph is being made of the model."""
    return not torch.compiler.is_compiling() and _STANDING_LAST.get()


@contextmanager
def standing_last() -> Iterator[None]:
    """Frames of one channel are laid out such that convolutions go on with channels last.

    Convolutions take over the layout of what they are given, and torch takes both layouts of one
    channel for the same. Numbers differ by rounding only.

    Example:
        >>> with standing_last():
        ...     channels_stand_last()
        True
        >>> channels_stand_last()
        False
    """
    token = _STANDING_LAST.set(True)
    try:
        yield
    finally:
        _STANDING_LAST.reset(token)


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


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Types as they are, on any device; the meta device knows no autocast.

    Args:
        device: Where is computed.

    Example:
        >>> with torch.autocast("cpu", torch.bfloat16), without_autocast(torch.device("cpu")):
        ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
        torch.float32
    """
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside ``nn.DataParallel``, ``DistributedDataParallel`` or ``torch.compile``.

    Args:
        model: A module, wrapped any number of times or not at all.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> unwrapped(nn.DataParallel(layer)) is layer
        True
    """
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model
