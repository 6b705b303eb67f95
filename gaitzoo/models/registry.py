"""Which models exist, and what is known of their weights."""

from __future__ import annotations

import difflib
import fnmatch
import re
import typing
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.conversion import StateDict

__all__ = [
    "get_pretrained_cfg",
    "is_model",
    "is_model_pretrained",
    "list_models",
    "list_pretrained",
    "list_tags",
    "model_info",
    "register_model",
]


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
    def module(self) -> str:
        """The file that the model stands in, as ``list_models(module=...)`` takes it."""
        defined_in = getattr(self.build, "__module__", "") or ""
        ours = defined_in.removeprefix("gaitzoo.models.")
        return ours.partition(".")[0] if ours != defined_in else ours.rpartition(".")[2]

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
    cfgs = cfgs or {"": PretrainedCfg()}
    _add(name, build, cfgs, convert, is_tiny=False)
    if tiny is not None:
        tiny = replace(tiny, fidelity=next(iter(cfgs.values())).fidelity)
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


def list_models(
    filter: str | Iterable[str] = "",
    module: str | Iterable[str] = "",
    pretrained: bool = False,
    exclude_filters: str | Iterable[str] = "",
    include_tags: bool | None = None,
) -> list[str]:
    """Names of models, by the rules of timm's function of the same name.

    Args:
        filter: Shell-style wildcard, or several; names that fit one of them. ``""`` = all.
        module: File that models stand in (``"deepgaitv2"``), or several. ``""`` = all.
        pretrained: Only names with weights to load.
        exclude_filters: Wildcard, or several, of names to leave out.
        include_tags: Give ``arch.tag`` instead of ``arch``. ``None`` = if ``pretrained``, or if a
            wildcard in ``filter`` has a dot. Wildcards without a dot then stand for all tags.

    Returns:
        Names, with numbers in the order of their values. Small variants for tests are left out.

    Example:
        >>> list_models("dygait")
        ['dygait']
        >>> list_models("dygait.g*")
        ['dygait.gait3d', 'dygait.grew']
        >>> list_models(["dygait*", "hstl*"], exclude_filters="hstl", pretrained=True)
        ['dygait.walkers']
    """
    filters, excluded, modules = _texts(filter), _texts(exclude_filters), _texts(module)
    if include_tags is None:
        include_tags = pretrained or any("." in pattern for pattern in filters)
    names = []
    for architecture in all_architectures():
        if architecture.is_tiny or (modules and architecture.module not in modules):
            continue
        cfgs = [cfg for cfg in architecture.cfgs.values() if cfg.has_weights or not pretrained]
        found = [cfg.name for cfg in cfgs] if include_tags else [architecture.name] * bool(cfgs)
        names += [
            name
            for name in found
            if (not filters or _fits(name, filters)) and not _fits(name, excluded)
        ]
    return sorted(names, key=_natural_order)


def list_pretrained(
    filter: str | Iterable[str] = "",
    exclude_filters: str | Iterable[str] = "",
) -> list[str]:
    """Names ``arch.tag`` with weights to load.

    Args:
        filter: As for :func:`list_models`.
        exclude_filters: As for :func:`list_models`.

    Example:
        >>> list_pretrained("dygait*")
        ['dygait.walkers']
    """
    return list_models(filter, pretrained=True, exclude_filters=exclude_filters)


def is_model_pretrained(name: str) -> bool:
    """Whether ``create_model(name, pretrained=True)`` finds weights.

    Args:
        name: ``arch`` or ``arch.tag``; unknown ones have no weights.

    Example:
        >>> is_model_pretrained("dygait"), is_model_pretrained("dygait.grew")
        (True, False)
    """
    if not is_model(name):
        return False
    architecture, dot, tag = name.partition(".")
    entry = _ARCHITECTURES[architecture]
    return entry.cfgs[tag if dot else entry.default_pretrained_tag].has_weights


def get_pretrained_cfg(name: str, allow_unregistered: bool = True) -> PretrainedCfg | None:
    """What is known of a model, as :func:`model_info`; ``None`` for a model that is not known.

    Args:
        name: ``arch`` (its default tag) or ``arch.tag``.
        allow_unregistered: Whether an unknown ``arch`` gives ``None``; ``False`` = it raises.

    Raises:
        ValueError: If a known model has no such tag, or as ``allow_unregistered`` says.

    Example:
        >>> get_pretrained_cfg("dygait").name, get_pretrained_cfg("resnet50")
        ('dygait.casiab', None)
    """
    if allow_unregistered and name.partition(".")[0] not in _ARCHITECTURES:
        return None
    return model_info(name)


def _texts(value: str | Iterable[str]) -> list[str]:
    """One text or several as a list, without empty ones."""
    texts = [value] if isinstance(value, str) else list(value or ())
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"expected a text or several to choose models by, got {text!r}")
    return [text for text in texts if text]


def _fits(name: str, patterns: list[str]) -> bool:
    """Whether a wildcard fits the name; one without a dot is for names without their tag."""
    architecture = name.partition(".")[0]
    return any(fnmatch.fnmatchcase(name if "." in p else architecture, p) for p in patterns)


def _natural_order(name: str) -> list[tuple[int, str]]:
    """Sorts numbers in names by their values: r2 before r10."""
    pieces = re.split(r"(\d+)", name)
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in pieces]
