"""Arguments of models, kept as they were given: what builds the same structure again."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn

from gaitzoo.layers.checks import plain_values

__all__ = ["ReadyModule", "record_args"]

Init = TypeVar("Init", bound=Callable[..., None])


@dataclass(frozen=True)
class ReadyModule:
    """Stands among a model's arguments for a module that was handed over.

    The module itself is in the model; a configuration cannot hold it.

    Args:
        kind: Name of the module's class.

    Example:
        >>> ReadyModule("Linear")
        ReadyModule(kind='Linear')
    """

    kind: str


def record_args(init: Init) -> Init:
    """Decorates a model's constructor: its arguments become ``model.model_args``.

    Defaults are recorded too, lists as tuples, modules as :class:`ReadyModule`. Where constructors
    call each other, the arguments of the outermost one count: they are what builds the model
    again.

    Args:
        init: ``__init__`` of a :class:`GaitModel`.

    Example:
        >>> from gaitzoo import GaitModel
        >>> class Net(GaitModel):
        ...     @record_args
        ...     def __init__(self, *, width: int = 3) -> None:
        ...         super().__init__()
        >>> Net().model_args
        {'width': 3}
    """
    signature = inspect.signature(init)

    @functools.wraps(init)
    def recorded(self: Any, *args: Any, **kwargs: Any) -> None:
        if "model_args" not in vars(self):
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            named = {
                key: ReadyModule(type(value).__name__) if isinstance(value, nn.Module) else value
                for key, value in list(bound.arguments.items())[1:]
            }
            # Not through nn.Module.__setattr__, which needs a finished nn.Module.
            object.__setattr__(self, "model_args", plain_values(named))
        init(self, *args, **kwargs)

    return recorded  # pyright: ignore[reportReturnType]
