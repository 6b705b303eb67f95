"""The one door to all models: by name, with or without weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from gaitzoo._base import GaitModel
from gaitzoo._checkpoint import load_into, num_classes_in, read_state_dict, to_our_layout
from gaitzoo._registry import (
    PretrainedCfg,
    PretrainedNotAvailable,
    find_architecture,
    model_info,
)

__all__ = ["create_model"]


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
        pretrained: Load the weights of the tag.
        num_classes: Identities of the classifier, 0 = none. ``None`` = as the weights have it,
            else as the tag says. Weights with another class count load without their classifier,
            and the model's is fresh.
        checkpoint_path: Load this file instead: the authors' ``.pt`` or our safetensors.
        cache_dir: Where downloads are kept; ``None`` = the Hub's own cache.
        **model_args: Arguments of the model; they replace those of the tag.

    Returns:
        The model, in training mode as every new module; call ``.eval()`` before embedding.

    Raises:
        ValueError: If the name is unknown, arguments contradict each other or the weights do not
            fit exactly.
        TypeError: If the model has no such argument.
        FileNotFoundError: If a file, folder or repository does not exist.
        PretrainedNotAvailable: If nobody has published these weights.

    Example:
        >>> model = create_model("dygait.grew", channels=(8, 8, 8, 8), num_classes=0)
        >>> model.num_parts, model.num_features
        (31, 8)
    """
    scheme, _, location = name.partition(":")
    if scheme in ("hf-hub", "local-dir"):
        if checkpoint_path is not None or model_args:
            raise ValueError(
                f"expected {scheme}: names with num_classes at most, got "
                f"{', '.join(model_args) or 'checkpoint_path'}; the saved configuration says "
                "everything else"
            )
        return _load_saved(scheme, location, num_classes, cache_dir)
    if pretrained and checkpoint_path is not None:
        raise ValueError("expected pretrained=True or checkpoint_path, got both; choose one")
    cfg = model_info(name)
    if pretrained:
        _refuse_other_structure(cfg, model_args)
        raise PretrainedNotAvailable(f"no weights for {cfg.name}: {cfg.unavailable}")
    state_dict = None
    if checkpoint_path is not None:
        state_dict = read_state_dict(checkpoint_path)
        state_dict = to_our_layout(state_dict, cfg.architecture, checkpoint_path)
        if num_classes is None:
            num_classes = num_classes_in(state_dict)
    model = _build(cfg, num_classes, model_args)
    if state_dict is not None and checkpoint_path is not None:
        load_into(
            model,
            state_dict,
            checkpoint_path,
            new_classifier=num_classes_in(state_dict) != model.num_classes,
        )
    return model


def _build(cfg: PretrainedCfg, num_classes: int | None, model_args: dict[str, Any]) -> GaitModel:
    build = find_architecture(cfg.architecture).build
    classes = cfg.num_classes if num_classes is None else num_classes
    model = build(**{**cfg.model_args, **model_args, "num_classes": classes})
    # Arguments may move the embedding to the other side of the batch norm.
    own = getattr(model, "pretrained_cfg", cfg)
    model.pretrained_cfg = replace(cfg, embedding=own.embedding)
    return model


def _refuse_other_structure(cfg: PretrainedCfg, model_args: dict[str, Any]) -> None:
    for key, value in model_args.items():
        if key in cfg.model_args and cfg.model_args[key] != value:
            raise ValueError(
                f"expected {key}={cfg.model_args[key]!r}, which the weights of {cfg.name} were "
                f"trained with, got {value!r}; leave it out, or use pretrained=False"
            )


def _load_saved(
    scheme: str, location: str, num_classes: int | None, cache_dir: str | Path | None
) -> GaitModel:
    revision = None
    if scheme == "local-dir":
        if not Path(location).is_dir():
            raise FileNotFoundError(f"expected a folder after local-dir:, got {location!r}")
    else:
        location, _, revision = location.partition("@")
    return GaitModel.from_pretrained(
        location, revision=revision or None, num_classes=num_classes, cache_dir=cache_dir
    ).train()
