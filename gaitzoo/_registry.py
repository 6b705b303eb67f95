"""Which models exist, and what is known of their weights."""

from __future__ import annotations

import difflib
import fnmatch
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeVar

from torch import Tensor

__all__ = [
    "PretrainedCfg",
    "PretrainedNotAvailable",
    "is_model",
    "list_models",
    "list_tags",
    "model_info",
    "register_model",
]

StateDict = dict[str, Tensor]
Entry = TypeVar("Entry", bound=Callable[..., Any])


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


class PretrainedNotAvailable(RuntimeError):  # noqa: N818 - reads as what happened
    """Weights were asked for that nobody has published."""


@dataclass(frozen=True, kw_only=True)
class PretrainedCfg:
    """What is known of one set of weights, or of one data set's variant of a model.

    Args:
        architecture: Name of the model; filled in by :func:`register_model`.
        tag: Data set and recipe; filled in by :func:`register_model`.
        model_args: Structure that differs per data set, as keyword arguments of the model.
        num_classes: Training subjects, K of the file's classifier.
        input_size: Height and width of a frame, in pixels.
        value_range: Lowest and highest input value.
        crop: How a frame gets from the height-normalised square to ``input_size``.
        embedding: Which vector is compared: ``"before_bn"`` or ``"after_bn"``.
        distance: How two embeddings are compared, as in
            :func:`gaitzoo.metrics.part_distances`.
        license: Terms of the weights (not of this library's code).
        paper: Link to the paper.
        origin: Link to where code or weights came from.
        training_data: What the weights were trained on.
        metrics: Published results in percent, with ``"protocol"`` saying how they were measured.
        reproduced: Whether this library measured the published results itself.
        hub_id: Repository of the weights on the Hugging Face Hub.
        filename: File in that repository.
        revision: Commit in that repository.
        size: Size of the file in bytes.
        sha256: Hash of the file.
        unavailable: Why there are no weights, and what to do instead.
        notes: Anything a user should know.

    Raises:
        ValueError: If a field has another type, or a value that is not one of those named here.

    Example:
        >>> cfg = PretrainedCfg(architecture="dygait", tag="casiab", input_size=(64, 44))
        >>> cfg.name, cfg.has_weights
        ('dygait.casiab', False)
    """

    architecture: str = ""
    tag: str = ""
    model_args: Mapping[str, Any] = field(default_factory=dict)
    num_classes: int = 0
    input_size: tuple[int, int] = (64, 44)
    value_range: tuple[float, float] = (0.0, 1.0)
    crop: str = "equal columns cut from both sides"
    embedding: str = "before_bn"
    distance: str = "euclidean"
    license: str = "unknown"
    paper: str = ""
    origin: str = ""
    training_data: str = "none"
    metrics: Mapping[str, Any] = field(default_factory=dict)
    reproduced: bool = False
    hub_id: str | None = None
    filename: str | None = None
    revision: str | None = None
    size: int | None = None
    sha256: str | None = None
    unavailable: str = "no weights have been published for this model"
    notes: str = ""

    def __post_init__(self) -> None:
        _check_cfg(self)
        # Read-only views: every user of a model sees the same cfg.
        object.__setattr__(self, "model_args", MappingProxyType(dict(self.model_args)))
        object.__setattr__(self, "metrics", MappingProxyType(dict(self.metrics)))
        object.__setattr__(self, "input_size", tuple(self.input_size))
        object.__setattr__(self, "value_range", tuple(self.value_range))

    def __reduce__(self) -> tuple[Any, ...]:
        # Mapping proxies cannot be pickled or deep-copied; plain dictionaries can.
        return _rebuild_cfg, (self.to_dict(),)

    @property
    def name(self) -> str:
        """``arch.tag``, the name that ``create_model`` takes."""
        return f"{self.architecture}.{self.tag}" if self.tag else self.architecture

    @property
    def has_weights(self) -> bool:
        """Whether there are weights to load."""
        return self.filename is not None

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain types, ready for JSON."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {k: dict(v) if isinstance(v, Mapping) else v for k, v in plain.items()}


_TEXTS = (
    "architecture",
    "tag",
    "crop",
    "license",
    "paper",
    "origin",
    "training_data",
    "unavailable",
    "notes",
)


def _check_cfg(cfg: PretrainedCfg) -> None:
    """Raises unless every field is what its users rely on: saved models come from anybody."""

    def refuse(name: str, wanted: str) -> None:
        raise ValueError(f"expected {name} {wanted}, got {getattr(cfg, name)!r}")

    if cfg.embedding not in ("before_bn", "after_bn"):
        refuse("embedding", '"before_bn" or "after_bn"')
    if cfg.distance not in ("euclidean", "cosine"):
        refuse("distance", '"euclidean" or "cosine"')
    for name in _TEXTS:
        if not isinstance(getattr(cfg, name), str):
            refuse(name, "as text")
    for name in ("hub_id", "filename", "revision", "sha256"):
        if not isinstance(getattr(cfg, name), str | None):
            refuse(name, "as text or None")
    for name in ("model_args", "metrics"):
        value = getattr(cfg, name)
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            refuse(name, "as a mapping with names as keys")
    if not isinstance(cfg.reproduced, bool):
        refuse("reproduced", "as True or False")
    if type(cfg.num_classes) is not int or cfg.num_classes < 0:
        refuse("num_classes", "as a whole number of 0 or more")
    if cfg.size is not None and (type(cfg.size) is not int or cfg.size < 0):
        refuse("size", "as bytes, a whole number, or None")
    size, values = cfg.input_size, cfg.value_range
    if not _is_pair_of(size, (int,)) or min(size) < 1:
        refuse("input_size", "as (height, width) in pixels")
    if not _is_pair_of(values, (int, float)) or not -math.inf < values[0] < values[1] < math.inf:
        refuse("value_range", "as two finite numbers, the lower first")


def _is_pair_of(value: object, kinds: tuple[type, ...]) -> bool:
    return (
        isinstance(value, tuple | list) and len(value) == 2 and all(type(v) in kinds for v in value)
    )


def _rebuild_cfg(fields: dict[str, Any]) -> PretrainedCfg:
    return PretrainedCfg(**fields)


@dataclass(frozen=True)
class Architecture:
    """One entry of the registry."""

    name: str
    build: Callable[..., Any]
    cfgs: Mapping[str, PretrainedCfg]
    convert: Callable[[StateDict], StateDict] | None

    @property
    def default_tag(self) -> str:
        """The first tag."""
        return next(iter(self.cfgs))


_ARCHITECTURES: dict[str, Architecture] = {}


def register_model(
    cfgs: Mapping[str, PretrainedCfg] | None = None,
    *,
    convert: Callable[[StateDict], StateDict] | None = None,
) -> Callable[[Entry], Entry]:
    """Makes a function that builds a model known by its name.

    Args:
        cfgs: Tag to what is known of it; the first tag is the default. ``None`` registers a
            model without tags.
        convert: Turns a state dict in the authors' layout into the model's own; raises
            ``ValueError`` for any other layout.

    Returns:
        A decorator that returns the function unchanged.

    Raises:
        ValueError: If the name is taken or not a lower-case Python name.

    Example:
        >>> @register_model({"demo": PretrainedCfg(num_classes=3)})
        ... def my_model(**model_args):
        ...     return torch.nn.Identity()
        >>> list_tags("my_model")
        ['demo']
    """

    def decorate(build: Entry) -> Entry:
        name = getattr(build, "__name__", "")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError(f"expected a lower-case function name as model name, got {name!r}")
        if name in _ARCHITECTURES:
            raise ValueError(f"a model named {name!r} is registered already; choose another name")
        filled = {
            tag: replace(cfg, architecture=name, tag=tag)
            for tag, cfg in (cfgs or {"": PretrainedCfg()}).items()
        }
        _ARCHITECTURES[name] = Architecture(name, build, MappingProxyType(filled), convert)
        return build

    return decorate


def find_architecture(name: str) -> Architecture:
    """The registry's entry for ``name`` (without tag), or an error that names the closest."""
    if name in _ARCHITECTURES:
        return _ARCHITECTURES[name]
    if "/" in name:
        raise ValueError(
            f"unknown model {name!r}; for a Hub repository write 'hf-hub:{name}', for a folder on "
            f"disk write 'local-dir:{name}'"
        )
    closest = difflib.get_close_matches(name.lower(), _ARCHITECTURES, n=3, cutoff=0.0)
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
