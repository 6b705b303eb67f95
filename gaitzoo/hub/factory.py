"""The one door to all models: by name, with or without weights."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, overload

from gaitzoo.hub.arguments import check_arguments, choose_cfg, own_arguments, refuse_unknown
from gaitzoo.hub.checkpoint import check_fits, load_into, to_our_layout
from gaitzoo.hub.reading import check_file, num_classes_in, read_state_dict
from gaitzoo.hub.shipped import SHIPPED
from gaitzoo.hub.structure import (
    construct,
    refuse_meta,
    structure_alone,
    wants_structure_alone,
)
from gaitzoo.models.base import GaitModel
from gaitzoo.models.cfg import PretrainedCfg, PretrainedNotAvailable
from gaitzoo.models.conversion import StateDict
from gaitzoo.models.features import GaitFeatures
from gaitzoo.models.registry import find_architecture, is_model
from gaitzoo.models.walkers import warn_of_walkers

__all__ = ["LicenseWarning", "create_model", "model_entrypoint"]

# Terms that need no reminder.
_OPEN_LICENSES = ("apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc0-1.0", "mit")

_licenses_shown: set[tuple[str, str]] = set()


class LicenseWarning(UserWarning):
    """The terms of weights that somebody else published, shown once per process and tag.

    Example:
        >>> import warnings
        >>> warnings.filterwarnings("ignore", category=LicenseWarning)
    """


@overload
def create_model(
    name: str,
    pretrained: bool = False,
    *,
    features_only: Literal[True],
    **arguments: Any,
) -> GaitFeatures: ...


@overload
def create_model(
    name: str,
    pretrained: bool = False,
    *,
    features_only: Literal[False] = False,
    **arguments: Any,
) -> GaitModel: ...


def create_model(
    name: str,
    pretrained: bool = False,
    *,
    num_classes: int | None = None,
    checkpoint_path: str | Path | None = None,
    cache_dir: str | Path | None = None,
    pretrained_cfg: PretrainedCfg | Mapping[str, Any] | str | None = None,
    pretrained_cfg_overlay: Mapping[str, Any] | None = None,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    **model_args: Any,
) -> GaitModel | GaitFeatures:
    """Builds a model by name.

    Args:
        name: ``arch``, ``arch.tag``, ``hf-hub:org/repo[@revision]`` or ``local-dir:path``. The
            last two are models saved by ``save_pretrained``; they always come with their weights.
            ``arch`` alone is its first tag, the published structure; with ``pretrained`` its first
            tag that has weights. ``model.pretrained_cfg.name`` says which it was.
        pretrained: Load the weights of the tag: those that come with the library, or the
            authors' file from the Hub, which is downloaded once.
        num_classes: Identities of the classifier, 0 = none. ``None`` = as the weights have it,
            else as the tag says. Weights with another class count load without their classifier,
            and the model's is fresh.
        checkpoint_path: Load this file instead: the authors' ``.pt`` or our safetensors.
        cache_dir: Where downloads are kept; ``None`` = the Hub's own folders (``HF_HOME``).
        pretrained_cfg: A cfg, a mapping of its fields, or a tag, instead of that of the name.
        pretrained_cfg_overlay: Fields that replace those of the cfg.
        features_only: Give a :class:`GaitFeatures`, the maps inside the model without its head.
        out_indices: Which maps, for ``features_only``: indices, a number of last ones, or
            ``None`` = all.
        **model_args: Arguments of the model; they replace those of the tag. Those that are
            ``None`` are left out, ``in_chans`` is ``in_channels``. Pretrained weights take another
            ``in_channels``: their first convolutions are summed, or repeated and scaled.

    Returns:
        The model, in training mode as every new module; call ``.eval()`` before embedding.

    Raises:
        ValueError: If the name is unknown, arguments contradict each other or the weights do not
            fit exactly.
        TypeError: If the model has no such argument.
        FileNotFoundError: If a file, folder or repository does not exist.
        ConnectionError: If weights are not in the cache and the Hub cannot be reached.
        PretrainedNotAvailable: If nobody has published these weights.

    Warns:
        LicenseWarning: If the weights have terms of their own; once per process and tag.
        UserWarning: If the weights of ``walkers`` get a classifier: a small network for trials.

    Example:
        >>> model = create_model("dygait.grew", channels=(8, 8, 8, 8), num_classes=0)
        >>> model.num_parts, model.num_features
        (31, 8)
    """
    check_arguments(name, pretrained, checkpoint_path)
    if out_indices is not None and not features_only:
        raise ValueError("expected features_only=True with out_indices, got features_only=False")
    if features_only:
        num_classes = 0
    scheme, _, location = name.partition(":")
    built = name.partition(".")[0]
    kind = find_architecture(built).model_class if is_model(built) else None
    model_args = own_arguments(model_args, getattr(kind, "none_counts", ()))
    if scheme in ("hf-hub", "local-dir"):
        others = {
            "checkpoint_path": checkpoint_path,
            "pretrained_cfg": pretrained_cfg,
            "pretrained_cfg_overlay": pretrained_cfg_overlay,
        }
        given = [*model_args, *(key for key, value in others.items() if value is not None)]
        if given:
            raise ValueError(
                f"expected {scheme}: names with num_classes at most, got {', '.join(given)}; the "
                "saved configuration says everything else"
            )
        model = _load_saved(scheme, location, num_classes, cache_dir)
    else:
        cfg = choose_cfg(name, pretrained, pretrained_cfg, pretrained_cfg_overlay)
        refuse_unknown(find_architecture(cfg.architecture), model_args)
        model = _create(cfg, pretrained, num_classes, checkpoint_path, cache_dir, model_args)
    return GaitFeatures(model, out_indices) if features_only else model


def model_entrypoint(name: str) -> Callable[..., GaitModel]:
    """The function that builds a model: :func:`create_model` for one name.

    Args:
        name: ``arch`` or ``arch.tag``.

    Raises:
        ValueError: If the model is unknown.

    Example:
        >>> model_entrypoint("gaitbase_tiny")(num_classes=3).num_classes
        3
    """
    find_architecture(name.partition(".")[0])
    return functools.partial(create_model, name)


def _create(
    cfg: PretrainedCfg,
    pretrained: bool,
    num_classes: int | None,
    checkpoint_path: str | Path | None,
    cache_dir: str | Path | None,
    model_args: dict[str, Any],
) -> GaitModel:
    state_dict, path, channels = None, None, None
    if pretrained:
        fitting = dict(model_args)
        if "in_channels" in fitting:
            channels = _trained_channels(cfg)
            fitting.pop("in_channels")
        _refuse_other_arguments(cfg, fitting)
        _refuse_missing(cfg)
        _refuse_other_structure(cfg, num_classes, fitting)
        if wants_structure_alone():
            return _build(cfg, num_classes, model_args)
        refuse_meta(f"the weights of {cfg.name}")
        state_dict, path = _pretrained_weights(cfg, num_classes, cache_dir)
    elif checkpoint_path is not None:
        path = Path(checkpoint_path)
        refuse_meta(f"the weights in {path}")
        state_dict = _read(path, cfg, num_classes)
    if state_dict is None or path is None:
        return _build(cfg, num_classes, model_args)
    key = find_architecture(cfg.architecture).classifier_key
    classes_in_file = num_classes_in(state_dict, key)
    model = _build(cfg, classes_in_file if num_classes is None else num_classes, model_args)
    if channels is not None and model.in_channels != channels:
        state_dict = model.adapt_input_channels(state_dict, channels)
        model.pretrained_cfg = replace(
            model.pretrained_cfg,
            training_data=cfg.training_data,
            notes=f"weights of {cfg.name}, adapted from {channels} to {model.in_channels} channels",
        )
    load_into(model, state_dict, path, new_classifier=model.num_classes != classes_in_file)
    if pretrained:
        model.weights_of = cfg.name
        _show_license(cfg)
        if model.num_classes != classes_in_file and model.num_classes:
            warn_of_walkers(cfg.name, stacklevel=3)
    return model


def _trained_channels(cfg: PretrainedCfg) -> int:
    """Input channels of the model that weights were trained for."""
    with structure_alone():
        return _build(cfg, 0, {}).in_channels


def _pretrained_weights(
    cfg: PretrainedCfg, num_classes: int | None, cache_dir: str | Path | None
) -> tuple[StateDict, Path]:
    """The weights of a tag, in our layout, and the file they came from."""
    assert cfg.filename is not None
    if cfg.hub_id is not None:
        # Here, because huggingface_hub takes longer to import than this library.
        from gaitzoo.hub.download import published_weights

        return published_weights(cfg, num_classes, cache_dir)
    if cfg.url is not None:
        from gaitzoo.hub.release import download_release

        path = download_release(cfg, cache_dir)
        try:
            return _read(path, cfg, num_classes), path
        except ValueError as error:
            raise ValueError(
                f"{error} Delete {path} and {path.name}.sha256 beside it to download it anew."
            ) from error
    path = SHIPPED / cfg.filename
    if not path.is_file():
        raise FileNotFoundError(
            f"expected the weights of {cfg.name} in {path}, where the library keeps them, got no "
            "such file; install gaitzoo again"
        )
    check_file(path, cfg)
    return _read(path, cfg, num_classes), path


def _read(path: Path, cfg: PretrainedCfg, num_classes: int | None) -> StateDict:
    key = find_architecture(cfg.architecture).classifier_key
    return to_our_layout(read_state_dict(path, num_classes, key), cfg.architecture, path)


def _refuse_missing(cfg: PretrainedCfg) -> None:
    if cfg.filename is None:
        others = [
            other.name
            for other in find_architecture(cfg.architecture).cfgs.values()
            if other.has_weights
        ]
        advice = f". There are weights for {', '.join(others)}" if others else ""
        raise PretrainedNotAvailable(f"no weights for {cfg.name}: {cfg.unavailable}{advice}")


def _show_license(cfg: PretrainedCfg) -> None:
    seen = (cfg.name, cfg.license)
    if cfg.license.lower() in _OPEN_LICENSES or seen in _licenses_shown:
        return
    warnings.warn(
        f"the weights of {cfg.name} ({cfg.hub_id or cfg.url or 'shipped with gaitzoo'}) are not "
        f"under this library's licence. Theirs: {cfg.license}. Shown once; "
        "warnings.filterwarnings('ignore', category=gaitzoo.LicenseWarning) hides it",
        LicenseWarning,
        stacklevel=4,
    )
    # Only now: under a filter that turns warnings into errors, the next call must say it again.
    _licenses_shown.add(seen)


def _build(cfg: PretrainedCfg, num_classes: int | None, model_args: dict[str, Any]) -> GaitModel:
    classes = cfg.num_classes if num_classes is None else num_classes
    arguments = {**cfg.model_args, **model_args, "num_classes": classes}
    model = construct(find_architecture(cfg.architecture), arguments)
    if "modalities" in vars(model):  # its arguments say what it reads
        cfg = replace(cfg, modalities=model.modalities)
    elif cfg.modalities:
        model.modalities = cfg.modalities
    # Arguments may move the embedding to the other side of the batch norm, or change the frames.
    own = getattr(model, "pretrained_cfg", cfg)
    input_size = getattr(model, "input_size", None) or cfg.input_size
    cfg = replace(cfg, embedding=own.embedding, input_size=input_size)
    if model_args and any(cfg.model_args.get(key) != value for key, value in model_args.items()):
        # Another structure than the published numbers were measured with.
        cfg = replace(
            cfg,
            metrics={},
            notes=f"built with other arguments than {cfg.name}",
            training_data="none",
            reproduced=False,
            hub_id=None,
            url=None,
            filename=None,
            revision=None,
            size=None,
            sha256=None,
            unavailable=f"no weights fit these arguments, which are not those of {cfg.name}",
        )
    model.pretrained_cfg = cfg
    return model


def _refuse_other_arguments(cfg: PretrainedCfg, model_args: dict[str, Any]) -> None:
    for key, value in model_args.items():
        value = tuple(value) if isinstance(value, list) else value
        if key in cfg.model_args and cfg.model_args[key] != value:
            raise ValueError(
                f"expected {key}={cfg.model_args[key]!r}, which the weights of {cfg.name} were "
                f"trained with, got {value!r}; leave it out, or use pretrained=False"
            )


def _refuse_other_structure(
    cfg: PretrainedCfg, num_classes: int | None, model_args: dict[str, Any]
) -> None:
    """Raises for arguments that the weights cannot fit: before they are downloaded."""
    if num_classes is None and not model_args:
        return
    with structure_alone():
        model = _build(cfg, num_classes, model_args)
        trained = _build(cfg, 0, {}) if model_args else model
    try:
        check_fits(trained, model.state_dict(), "these arguments", new_classifier=True)
    except ValueError as error:
        arguments = ", ".join(f"{key}={value!r}" for key, value in model_args.items())
        raise ValueError(
            f"expected the arguments which the weights of {cfg.name} were trained with, got "
            f"{arguments}; leave them out, or use pretrained=False"
        ) from error


def _load_saved(
    scheme: str, location: str, num_classes: int | None, cache_dir: str | Path | None
) -> GaitModel:
    from gaitzoo.hub.sharing import load_saved

    if scheme == "local-dir":
        if not Path(location).is_dir():
            raise FileNotFoundError(f"expected a folder after local-dir:, got {location!r}")
        return load_saved(Path(location), num_classes).train()
    repo_id, _, revision = location.partition("@")
    if not repo_id or location.endswith("@"):
        raise ValueError(
            f"expected hf-hub:organisation/name or hf-hub:organisation/name@revision, got "
            f"{scheme}:{location}"
        )
    return load_saved(repo_id, num_classes, revision=revision or None, cache_dir=cache_dir).train()
