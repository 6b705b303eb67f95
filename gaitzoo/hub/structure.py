"""Models without numbers: shapes alone, to compare with files before memory is taken."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.conversion import StateDict
from gaitzoo.models.registry import Architecture, find_architecture

__all__ = [
    "construct",
    "has_place_for_classes",
    "has_structure_of",
    "known_names",
    "refuse_meta",
    "structure_alone",
    "wants_structure_alone",
    "without_classes",
]

Value = TypeVar("Value")

_STRUCTURE_ALONE: ContextVar[bool] = ContextVar("structure_alone", default=False)

# Far more than the layers of any model here and the network inside it.
_MOST_TENSORS = 50_000

# By what builds the models; with the cfgs, which a model that is registered again may change.
_KNOWN: dict[Callable[..., Any], tuple[object, frozenset[str]]] = {}


def construct(architecture: Architecture, arguments: Mapping[str, Any]) -> Any:
    """A model, fresh, also of a class that knows no classes.

    Args:
        architecture: Entry of the registry.
        arguments: Of the model; ``num_classes=0`` is left out where there is no such argument.

    Raises:
        TypeError: If the model has no such argument.
        ValueError: If a model without classifier is to have classes.
    """
    arguments = dict(arguments)
    accepted = inspect.signature(architecture.build).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
    if "num_classes" not in accepted and not takes_all and "num_classes" in arguments:
        num_classes = arguments.pop("num_classes")
        if num_classes:
            raise ValueError(
                f"expected num_classes=0 for {architecture.name}, which has no classifier, got "
                f"{num_classes!r}; train with a loss on its embeddings"
            )
    return architecture.build(**arguments)


@contextlib.contextmanager
def structure_alone() -> Iterator[None]:
    """Models built in this block have shapes but no numbers, and take no memory.

    Raises:
        ValueError: If more tensors are made than any known model has: arguments of strangers
            could go on for hours.
    """
    token = _STRUCTURE_ALONE.set(True)
    try:
        with torch.device("meta"), _Unfilled():
            yield
    finally:
        _STRUCTURE_ALONE.reset(token)


def wants_structure_alone() -> bool:
    """Whether models are being built inside :func:`structure_alone`: nothing is to be loaded."""
    return _STRUCTURE_ALONE.get()


def refuse_meta(what: str) -> None:
    """Raises under a caller's own meta device, where loaded numbers would be lost.

    Args:
        what: What is to be loaded, for the message.

    Raises:
        ValueError: If new tensors are made on the meta device.
    """
    # torch.get_default_device does not see the block of a device in all versions.
    if torch.empty(0).device.type == "meta":
        raise ValueError(
            f"expected a device with memory for {what}, got the meta device; build the structure "
            "alone, or load the weights outside of the block"
        )


class _Unfilled(TorchFunctionMode):
    """Leaves new parameters unfilled: without memory there is nothing to fill.

    Drawing numbers on the meta device would import a large part of torch first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.num_tensors = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("normal_", "uniform_"):
            # As a method of a tensor, or as torch.nn.init's function of the same name.
            return args[0] if args else kwargs["tensor"]
        if name == "empty":
            self.num_tensors += 1
            if self.num_tensors > _MOST_TENSORS:
                raise ValueError(
                    f"expected a model of at most {_MOST_TENSORS:,} tensors, got one with more"
                )
        elif name == "linspace":
            # Image networks read the numbers of these: their rates of dropping layers.
            kwargs = {"device": "cpu", **kwargs}
        return func(*args, **kwargs)


def known_names(architecture: Architecture) -> frozenset[str]:
    """Names of the parameters, buffers and direct children of an architecture's variants.

    Args:
        architecture: Entry of the registry.
    """
    cfgs, names = _KNOWN.get(architecture.build, (None, frozenset()))
    if cfgs is not architecture.cfgs:
        found: set[str] = set()
        for cfg in architecture.cfgs.values():
            with structure_alone():
                model = construct(architecture, {**cfg.model_args, "num_classes": cfg.num_classes})
            found.update(model.state_dict(), dict(model.named_children()))
        names = frozenset(found)
        _KNOWN[architecture.build] = architecture.cfgs, names
    return names


def has_structure_of(cfg: PretrainedCfg, state_dict: StateDict) -> bool:
    """Whether names and shapes, apart from the classifier's, are those of a cfg's model.

    Args:
        cfg: Of a registered model.
        state_dict: Parameters in our layout; counters of batch norms may be absent.
    """
    with structure_alone():
        entry = find_architecture(cfg.architecture)
        model = construct(entry, {**cfg.model_args, "num_classes": 0})
    key = getattr(model, "classifier_key", None)
    return _shapes(model.state_dict(), key) == _shapes(state_dict, key)


def has_place_for_classes(model: nn.Module) -> bool:
    """Whether there is a module around the place that the model's classifier key names.

    Args:
        model: With or without classifier.
    """
    key = getattr(model, "classifier_key", None) or ""
    around, _, name = key.rpartition(".")
    modules = dict(model.named_modules())
    return bool(key) and around in modules and hasattr(modules[around], name)


def without_classes(
    state_dict: Mapping[str, Value], classifier_key: str | None
) -> dict[str, Value]:
    """A state dict without the parameters of the classifier.

    Args:
        state_dict: Parameters in our layout.
        classifier_key: Dotted name of the classifier, ``None`` = there is none.
    """
    return {k: v for k, v in state_dict.items() if not k.startswith(f"{classifier_key}.")}


def _shapes(state_dict: StateDict, classifier_key: str | None) -> dict[str, torch.Size]:
    kept = without_classes(state_dict, classifier_key)
    return {k: v.shape for k, v in kept.items() if not k.endswith("num_batches_tracked")}
