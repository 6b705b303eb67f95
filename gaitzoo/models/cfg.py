"""What is known of one set of weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from gaitzoo.data.modalities import MODALITIES

__all__ = ["FIDELITIES", "PretrainedCfg", "PretrainedNotAvailable"]


# How code stands to its authors', for cards and tables.
FIDELITIES = {
    "parity": "gives the numbers of its authors' code, shown on their outputs",
    "paper": "built from the full text of the paper",
    "reconstruction": (
        "built from an abstract and notes: expect the ideas, not the authors' numbers"
    ),
}


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
        mean: What is subtracted from colours in [0, 1]: red, green, blue; ``None`` = nothing.
        std: What they are then divided by; ``None`` = by nothing.
        modalities: What this variant reads; empty = what its model reads by itself.
        embedding: Which vector is compared: ``"before_bn"``, ``"after_bn"``, or ``"output"`` of
            models without a batch-norm neck.
        distance: How two embeddings are compared, as in
            :func:`gaitzoo.metrics.part_distances`.
        license: Terms of the weights (not of this library's code).
        paper: Link to the paper.
        origin: Link to where code or weights came from.
        training_data: What the weights were trained on.
        metrics: Published results in percent, with ``"protocol"`` saying how they were measured.
        reproduced: Whether this library measured the published results itself.
        fidelity: How the code stands to its authors': ``"parity"`` (the same numbers, shown on
            their outputs), ``"paper"`` (built from the full text), ``"reconstruction"`` (built
            from an abstract and notes: no numbers of theirs are to be expected); empty for what
            is nobody else's.
        hub_id: Repository of the weights on the Hugging Face Hub.
        url: Address of the file where it lies on no Hub; nobody states its hash, so that of the
            first download is recorded and compared ever after.
        filename: File in that repository, or at that address.
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
        >>> cfg["input_size"], cfg.get("mean")
        ((64, 44), None)
    """

    architecture: str = ""
    tag: str = ""
    model_args: Mapping[str, Any] = field(default_factory=dict)
    num_classes: int = 0
    input_size: tuple[int, int] = (64, 44)
    value_range: tuple[float, float] = (0.0, 1.0)
    crop: str = "equal columns cut from both sides"
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    modalities: tuple[str, ...] = ()
    embedding: str = "before_bn"
    distance: str = "euclidean"
    license: str = "unknown"
    paper: str = ""
    origin: str = ""
    training_data: str = "none"
    metrics: Mapping[str, Any] = field(default_factory=dict)
    reproduced: bool = False
    fidelity: str = ""
    hub_id: str | None = None
    url: str | None = None
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
        object.__setattr__(self, "modalities", tuple(self.modalities))
        object.__setattr__(self, "value_range", tuple(self.value_range))
        for name in ("mean", "std"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))

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

    def get(self, name: str, default: Any = None) -> Any:
        """A field by its name, as of a dictionary; ``default`` if there is no such field."""
        return getattr(self, name) if name in self else default

    def keys(self) -> tuple[str, ...]:
        """Names of the fields; with ``cfg[name]`` they make ``dict(cfg)`` work."""
        return tuple(self.__dataclass_fields__)

    def __getitem__(self, name: str) -> Any:
        if name not in self:
            raise KeyError(f"expected a field among {', '.join(self.keys())}, got {name!r}")
        return getattr(self, name)

    def __contains__(self, name: object) -> bool:
        return name in self.__dataclass_fields__

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

    if cfg.embedding not in ("before_bn", "after_bn", "output"):
        refuse("embedding", '"before_bn", "after_bn" or "output"')
    if not isinstance(cfg.modalities, tuple | list) or set(cfg.modalities) - set(MODALITIES):
        refuse("modalities", f"among {', '.join(MODALITIES)}")
    if cfg.distance not in ("euclidean", "cosine"):
        refuse("distance", '"euclidean" or "cosine"')
    if cfg.fidelity not in ("", *FIDELITIES):
        refuse("fidelity", f"among {', '.join(FIDELITIES)}, or empty")
    for name in _TEXTS:
        if not isinstance(getattr(cfg, name), str):
            refuse(name, "as text")
    for name in ("hub_id", "url", "filename", "revision", "sha256"):
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
    for name in ("mean", "std"):
        colours = getattr(cfg, name)
        if colours is None:
            continue
        lowest = -math.inf if name == "mean" else 0
        if not _are_numbers(colours, 3) or not all(lowest < n < math.inf for n in colours):
            refuse(name, "as three finite numbers (of std above 0), or None")


def _are_numbers(value: object, count: int) -> bool:
    given = isinstance(value, tuple | list) and len(value) == count
    return given and all(type(v) in (int, float) for v in value)  # pyright: ignore


def _is_pair_of(value: object, kinds: tuple[type, ...]) -> bool:
    return (
        isinstance(value, tuple | list) and len(value) == 2 and all(type(v) in kinds for v in value)
    )


def _rebuild_cfg(fields: dict[str, Any]) -> PretrainedCfg:
    return PretrainedCfg(**fields)
