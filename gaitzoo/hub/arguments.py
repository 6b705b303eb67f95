"""Arguments of ``create_model``: names of other libraries, tags, cfgs, and what does not exist."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.registry import Architecture, find_architecture, model_info

__all__ = ["check_arguments", "choose_cfg", "own_arguments", "refuse_unknown"]

# Words of timm for arguments that every model here calls otherwise.
_ALIASES = {"in_chans": "in_channels"}
_SOURCES = ("hf-hub", "local-dir")


def check_arguments(name: str, pretrained: bool, checkpoint_path: str | Path | None) -> None:
    """Raises for what ``create_model`` cannot take, before anything is built.

    Args:
        name: As for ``create_model``.
        pretrained: As for ``create_model``.
        checkpoint_path: As for ``create_model``.

    Raises:
        TypeError: If ``name`` is no text or ``pretrained`` neither ``True`` nor ``False``.
        ValueError: If the name is that of a place without a prefix or with a wrong one, or two
            sources of weights are named.
    """
    if not isinstance(name, str):
        raise TypeError(f"expected the name of a model, got {type(name).__name__}")
    if not isinstance(pretrained, bool):
        raise TypeError(
            f"expected pretrained=True or False, got {pretrained!r}; a tag is part of the name, "
            f"as in 'dygait.grew'"
        )
    if pretrained and checkpoint_path is not None:
        raise ValueError("expected pretrained=True or checkpoint_path, got both; choose one")
    source, colon, place = name.partition(":")
    if colon and source not in _SOURCES and source.lower().replace("_", "-") in _SOURCES:
        right = source.lower().replace("_", "-")
        raise ValueError(f"unknown source {source!r} in {name!r}; write '{right}:{place}'")
    if source not in _SOURCES and ("/" in name or "\\" in name):
        raise ValueError(
            f"unknown model {name!r}; for a Hub repository write 'hf-hub:{name}', for a folder on "
            f"disk write 'local-dir:{name}'"
        )


def own_arguments(
    model_args: Mapping[str, Any], none_counts: Collection[str] = ()
) -> dict[str, Any]:
    """Arguments of a model without those that are ``None``, under the names they have here.

    Args:
        model_args: As the user wrote them.
        none_counts: Names of arguments of which ``None`` is a value of its own.

    Raises:
        ValueError: If an argument is there under both of its names.

    Example:
        >>> own_arguments({"in_chans": 3, "channels": None})
        {'in_channels': 3}
    """
    given = {k: value for k, value in model_args.items() if value is not None or k in none_counts}
    for alias, own in _ALIASES.items():
        if alias in given:
            value = given.pop(alias)
            if given.setdefault(own, value) != value:
                raise ValueError(f"expected {alias} or {own}, got both; choose one")
    return given


def choose_cfg(
    name: str,
    pretrained: bool,
    pretrained_cfg: PretrainedCfg | Mapping[str, Any] | str | None,
    overlay: Mapping[str, Any] | None,
) -> PretrainedCfg:
    """The cfg that a model is built by.

    Args:
        name: ``arch`` or ``arch.tag``.
        pretrained: Whether weights are wanted, so that ``arch`` means its first tag with some.
        pretrained_cfg: A cfg, its fields, or a tag, instead of that of the name.
        overlay: Fields that replace those of the cfg.

    Raises:
        ValueError: If model or tag are unknown, or a field has a value that it cannot have.
        TypeError: If there is no such field.
    """
    entry = find_architecture(name.partition(".")[0])
    if isinstance(pretrained_cfg, str):
        cfg = model_info(f"{entry.name}.{pretrained_cfg}")
    elif pretrained_cfg is not None:
        fields = dict(pretrained_cfg)  # pyright: ignore[reportArgumentType] - has keys
        _check_fields(fields, "pretrained_cfg")
        cfg = PretrainedCfg(**{**fields, "architecture": entry.name})
    elif pretrained and "." not in name:
        cfg = entry.cfgs[entry.default_pretrained_tag]
    else:
        cfg = model_info(name)
    if overlay is not None:
        _check_fields(overlay, "pretrained_cfg_overlay")
        cfg = replace(cfg, **overlay)
    return cfg


def _check_fields(fields: Mapping[str, Any], argument: str) -> None:
    if not isinstance(fields, Mapping):
        raise TypeError(f"expected {argument} as a mapping, got {type(fields).__name__}")
    known = PretrainedCfg().keys()
    unknown = [key for key in fields if key not in known]
    if unknown:
        raise TypeError(
            f"expected {argument} with fields among {', '.join(known)}, got "
            f"{', '.join(map(str, unknown))}"
        )


def refuse_unknown(architecture: Architecture, model_args: Mapping[str, Any]) -> None:
    """Raises for arguments that a model does not have.

    Args:
        architecture: Entry of the registry.
        model_args: Arguments under the names they have here.

    Raises:
        TypeError: If there is one; names the model and what it takes.
    """
    accepted = inspect.signature(architecture.build).parameters
    if _takes_all(accepted):
        # A function that builds one variant of a class passes arguments on.
        accepted = inspect.signature(architecture.model_class).parameters
    unknown = [key for key in model_args if key not in accepted]
    if not unknown or _takes_all(accepted):
        return
    closest = difflib.get_close_matches(unknown[0], accepted, n=1)
    raise TypeError(
        f"expected arguments of {architecture.name} among {', '.join(accepted)}, got "
        f"{', '.join(unknown)}" + (f"; did you mean {closest[0]}?" if closest else "")
    )


def _takes_all(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in parameters.values())
