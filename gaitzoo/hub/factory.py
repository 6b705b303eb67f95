"""The one door to all models: by name, with or without weights."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from gaitzoo.models.registry import StateDict, find_architecture, model_info

__all__ = ["LicenseWarning", "create_model"]

# Terms that need no reminder.
_OPEN_LICENSES = ("apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc0-1.0", "mit")

_licenses_shown: set[tuple[str, str]] = set()


class LicenseWarning(UserWarning):
    """The terms of weights that somebody else published, shown once per process and tag.

    Example:
        >>> import warnings
        >>> warnings.filterwarnings("ignore", category=LicenseWarning)
    """


def create_model(
    name: str,
    pretrained: bool = False,
    *,
    num_classes: int | None = None,
    checkpoint_path: str | Path | None = None,
    cache_dir: str | Path | None = None,
    **model_args: Any,
) -> GaitModel:
    """Builds a model by name.

    Args:
        name: ``arch`` (its default tag), ``arch.tag``, ``hf-hub:org/repo[@revision]`` or
            ``local-dir:path``. The last two are models saved by ``save_pretrained``; they always
            come with their weights.
        pretrained: Load the weights of the tag: those that come with the library, or the
            authors' file from the Hub, which is downloaded once.
        num_classes: Identities of the classifier, 0 = none. ``None`` = as the weights have it,
            else as the tag says. Weights with another class count load without their classifier,
            and the model's is fresh.
        checkpoint_path: Load this file instead: the authors' ``.pt`` or our safetensors.
        cache_dir: Where downloads are kept; ``None`` = the Hub's own folders (``HF_HOME``).
        **model_args: Arguments of the model; they replace those of the tag.

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

    Example:
        >>> model = create_model("dygait.grew", channels=(8, 8, 8, 8), num_classes=0)
        >>> model.num_parts, model.num_features
        (31, 8)
    """
    _check_arguments(name, pretrained, checkpoint_path)
    scheme, _, location = name.partition(":")
    if scheme in ("hf-hub", "local-dir"):
        if checkpoint_path is not None or model_args:
            raise ValueError(
                f"expected {scheme}: names with num_classes at most, got "
                f"{', '.join(model_args) or 'checkpoint_path'}; the saved configuration says "
                "everything else"
            )
        return _load_saved(scheme, location, num_classes, cache_dir)
    cfg = model_info(name)
    if pretrained and "." not in name:
        architecture = find_architecture(name)
        cfg = architecture.cfgs[architecture.default_pretrained_tag]
    state_dict, path = None, None
    if pretrained:
        _refuse_other_arguments(cfg, model_args)
        _refuse_missing(cfg)
        _refuse_other_structure(cfg, num_classes, model_args)
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
    load_into(model, state_dict, path, new_classifier=model.num_classes != classes_in_file)
    if pretrained:
        model.weights_of = cfg.name
        _show_license(cfg)
    return model


def _check_arguments(name: str, pretrained: bool, checkpoint_path: str | Path | None) -> None:
    if not isinstance(name, str):
        raise TypeError(f"expected the name of a model, got {type(name).__name__}")
    if not isinstance(pretrained, bool):
        raise TypeError(
            f"expected pretrained=True or False, got {pretrained!r}; a tag is part of the name, "
            f"as in 'dygait.grew'"
        )
    if pretrained and checkpoint_path is not None:
        raise ValueError("expected pretrained=True or checkpoint_path, got both; choose one")
    if not name.startswith(("hf-hub:", "local-dir:")) and ("/" in name or "\\" in name):
        raise ValueError(
            f"unknown model {name!r}; for a Hub repository write 'hf-hub:{name}', for a folder on "
            f"disk write 'local-dir:{name}'"
        )


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
        return _read(path, cfg, num_classes), path
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
        f"the weights of {cfg.name} ({cfg.hub_id or cfg.url or 'shipped with gaitzoo'}) are not under this "
        f"library's licence. Theirs: {cfg.license}. Shown once; "
        "warnings.filterwarnings('ignore', category=gaitzoo.LicenseWarning) hides it",
        LicenseWarning,
        stacklevel=3,
    )
    # Only now: under a filter that turns warnings into errors, the next call must say it again.
    _licenses_shown.add(seen)


def _build(cfg: PretrainedCfg, num_classes: int | None, model_args: dict[str, Any]) -> GaitModel:
    classes = cfg.num_classes if num_classes is None else num_classes
    arguments = {**cfg.model_args, **model_args, "num_classes": classes}
    model = construct(find_architecture(cfg.architecture), arguments)
    if cfg.modalities:
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
