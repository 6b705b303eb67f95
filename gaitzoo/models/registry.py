"""Which models exist, and what is known of their weights."""

from __future__ import annotations

import difflib
import fnmatch
import re
import typing
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from torch import Tensor

from gaitzoo.models.cfg import PretrainedCfg

__all__ = [
    "is_model",
    "list_models",
    "list_tags",
    "model_info",
    "register_model",
]

StateDict = dict[str, Tensor]


class UnknownKeysError(ValueError):
    """A state dict has keys that the authors' layout of a model does not have.

    Args:
        model: What the layout belongs to.
        unknown: The keys.
        known: How many keys the layout does have.
    """

    def __init__(self, model: str, unknown: list[str], known: int) -> None:
        shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        super().__init__(f"{len(unknown)} key(s) are not of the authors' {model}: {shown}")
        self.unknown = unknown
        self.known = known


def rename_keys(
    state_dict: StateDict, new_key: Callable[[str], str | None], model: str
) -> StateDict:
    """Renames every key, or refuses the whole state dict.

    Args:
        state_dict: Parameters under other names.
        new_key: Gives our name for a key, ``None`` for an unknown one.
        model: Whose layout this is, for the message.

    Raises:
        UnknownKeysError: If a key has no new name.
        ValueError: If two keys have the same new name.
    """
    renamed = {key: new_key(key) for key in state_dict}
    unknown = [key for key, new in renamed.items() if new is None]
    if unknown:
        raise UnknownKeysError(model, unknown, len(renamed) - len(unknown))
    new_names = [new for new in renamed.values() if new is not None]
    doubled = sorted({new for new in new_names if new_names.count(new) > 1})
    if doubled:
        raise ValueError(
            f"expected one tensor for every parameter of {model}, got several for "
            f"{', '.join(doubled)}; is this a mixture of two files?"
        )
    return {new: state_dict[key] for key, new in renamed.items() if new is not None}


@dataclass(frozen=True)
class Architecture:
    """One entry of the registry."""

    name: str
    build: Callable[..., Any]
    model_class: type
    cfgs: Mapping[str, PretrainedCfg]
    convert: Callable[[StateDict], StateDict] | None
    is_tiny: bool = False

    @property
    def default_tag(self) -> str:
        """The first tag: the published structure."""
        return next(iter(self.cfgs))

    @property
    def default_pretrained_tag(self) -> str:
        """The first tag with weights; the first of all where none has any."""
        return next((tag for tag, cfg in self.cfgs.items() if cfg.has_weights), self.default_tag)

    @property
    def classifier_key(self) -> str | None:
        """Dotted name of the classifier in the models' state dicts."""
        return getattr(self.model_class, "classifier_key", None)


_ARCHITECTURES: dict[str, Architecture] = {}


def register_model(
    name: str,
    build: Callable[..., Any],
    cfgs: Mapping[str, PretrainedCfg] | None = None,
    *,
    convert: Callable[[StateDict], StateDict] | None = None,
    tiny: PretrainedCfg | None = None,
) -> None:
    """Makes a model known by a name.

    A name that is registered already gets the new model, with a warning: a cell of a notebook may
    run twice.

    Args:
        name: Lower-case name.
        build: The model's class, or a function with the model's class as return annotation;
            called with keyword arguments.
        cfgs: Tag to what is known of it; the first tag is the default, weights that are not of
            the published structure come last. ``None`` registers a model without tags.
        convert: Turns a state dict in the authors' layout into the model's own; raises
            ``ValueError`` for any other layout.
        tiny: A very small variant for tests, registered as ``NAME_tiny`` and not listed.

    Raises:
        ValueError: If the name is not a lower-case Python name.
        TypeError: If ``build`` cannot be called.

    Warns:
        UserWarning: If the name was taken.

    Example:
        >>> register_model("my_model", torch.nn.Identity, {"demo": PretrainedCfg(num_classes=3)})
        >>> list_tags("my_model")
        ['demo']
    """
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"expected a lower-case Python name as model name, got {name!r}")
    if not callable(build):
        raise TypeError(
            f"expected a class or function that builds {name}, got {type(build).__name__}; "
            "register_model(name, MyModel, cfgs)"
        )
    if name in _ARCHITECTURES:
        warnings.warn(
            f"a model named {name!r} was registered already; it is replaced", stacklevel=2
        )
    _add(name, build, cfgs or {"": PretrainedCfg()}, convert, is_tiny=False)
    if tiny is not None:
        _add(f"{name}_tiny", build, {"test": tiny}, convert, is_tiny=True)


def _add(
    name: str,
    build: Callable[..., Any],
    cfgs: Mapping[str, PretrainedCfg],
    convert: Callable[[StateDict], StateDict] | None,
    *,
    is_tiny: bool,
) -> None:
    named = {tag: replace(cfg, architecture=name, tag=tag) for tag, cfg in cfgs.items()}
    if isinstance(build, type):
        model_class: Any = build
        if "architecture" not in vars(build):
            # A subclass of a registered model is saved by its own name.
            model_class.architecture = name
    else:
        model_class = typing.get_type_hints(build).get("return")
    _ARCHITECTURES[name] = Architecture(
        name,
        build,
        model_class if isinstance(model_class, type) else object,
        MappingProxyType(named),
        convert,
        is_tiny,
    )


def find_architecture(name: str) -> Architecture:
    """The registry's entry for ``name`` (without tag), or an error that names the closest."""
    if name in _ARCHITECTURES:
        return _ARCHITECTURES[name]
    if "/" in name:
        raise ValueError(
            f"unknown model {name!r}; for a Hub repository write 'hf-hub:{name}', for a folder on "
            f"disk write 'local-dir:{name}'"
        )
    listed = [known.name for known in _ARCHITECTURES.values() if not known.is_tiny]
    closest = difflib.get_close_matches(name.lower(), listed, n=3, cutoff=0.0)
    raise ValueError(
        f"unknown model {name!r}; closest names: {', '.join(closest) or 'none'}. "
        "gaitzoo.list_models() gives all"
    )


def all_architectures() -> list[Architecture]:
    """Every entry, by name."""
    return [_ARCHITECTURES[name] for name in sorted(_ARCHITECTURES)]


def model_info(name: str) -> PretrainedCfg:
    """What is known of a model: structure, input, licence, published numbers, weights.

    Args:
        name: ``arch`` (its default tag) or ``arch.tag``.

    Raises:
        ValueError: If the model or its tag is unknown; the message names what there is.

    Example:
        >>> model_info("dygait.gait3d").input_size
        (128, 88)
    """
    architecture_name, dot, tag = name.partition(".")
    architecture = find_architecture(architecture_name)
    tag = tag if dot else architecture.default_tag
    if tag not in architecture.cfgs:
        raise ValueError(
            f"unknown tag {tag!r} of {architecture_name!r}; expected one of: "
            f"{', '.join(architecture.cfgs)}"
        )
    return architecture.cfgs[tag]


def is_model(name: str) -> bool:
    """Whether ``create_model(name)`` knows the name (``arch`` or ``arch.tag``).

    Example:
        >>> is_model("dygait"), is_model("dygait.casiab"), is_model("resnet50")
        (True, True, False)
    """
    architecture, dot, tag = name.partition(".")
    known = _ARCHITECTURES.get(architecture)
    return known is not None and (not dot or tag in known.cfgs)


def list_tags(architecture: str) -> list[str]:
    """The tags of a model, the default first.

    Args:
        architecture: Name without tag.

    Raises:
        ValueError: If the model is unknown.

    Example:
        >>> "gait3d" in list_tags("dygait")
        True
    """
    return list(find_architecture(architecture).cfgs)


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """Names of models.

    Args:
        pattern: Shell-style wildcard on ``arch``, or on ``arch.tag`` if it has a dot.
        pretrained: Only names with weights to load; these are given as ``arch.tag``.

    Returns:
        Sorted names: architectures, or ``arch.tag`` if the pattern has a dot or ``pretrained``.

    Example:
        >>> list_models("dygait")
        ['dygait']
        >>> list_models("dygait.g*")
        ['dygait.gait3d', 'dygait.grew']
    """
    names = []
    for architecture in all_architectures():
        if architecture.is_tiny:
            continue
        if pretrained or "." in pattern:
            cfgs = architecture.cfgs.values()
            tagged = [cfg.name for cfg in cfgs if cfg.has_weights or not pretrained]
            names += [
                name
                for name in tagged
                if fnmatch.fnmatchcase(name if "." in pattern else architecture.name, pattern)
            ]
        elif fnmatch.fnmatchcase(architecture.name, pattern):
            names.append(architecture.name)
    return sorted(names)
