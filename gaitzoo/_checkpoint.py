"""Files of weights: read without running code, recognised by keys and shapes, loaded whole."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from gaitzoo._base import GaitModel
from gaitzoo._registry import (
    Architecture,
    StateDict,
    UnknownKeysError,
    all_architectures,
    find_architecture,
)

__all__ = ["load_checkpoint"]

CLASSIFIER = "neck.classifier."


def load_checkpoint(model: GaitModel, path: str | Path) -> None:
    """Loads a file of weights into a model, completely or not at all.

    Takes the authors' files (a pickled dictionary with the parameters under ``"model"``, read
    with ``weights_only=True``) and safetensors written by ``save_pretrained``. Which of the two
    layouts it is shows in the keys.

    Args:
        model: Filled in place.
        path: ``.pt``, ``.pth``, ``.ckpt`` or ``.safetensors`` file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, holds anything but tensors, belongs to another model
            or variant (which is named if it is a known one), or lacks or adds a parameter.
    """
    state_dict = to_our_layout(read_state_dict(path), model.architecture, path)
    load_into(model, state_dict, path)


def read_state_dict(path: str | Path) -> StateDict:
    """Reads parameters from a safetensors file or a pickle, running no code of the file.

    Args:
        path: The file.

    Returns:
        Parameter name to tensor, without a ``module.`` prefix.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged or holds anything but tensors and plain containers.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"expected a file of weights, got {str(path)!r}, which is none")
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error
    return _parameters(_unpickle(path), path)


def _unpickle(path: Path) -> object:
    try:
        # Mapping the file keeps an optimizer's state, which nobody asked for, out of memory.
        return torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"refused to read {path}: it is damaged, no torch file, or holds objects other than "
            f"tensors and plain containers, which could run code ({_first_line(error)})"
        ) from error
    except (RuntimeError, EOFError, OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is damaged or no torch file ({_first_line(error)}); get it again"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _parameters(content: object, path: Path) -> StateDict:
    for wrapper in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    ):
        raise ValueError(
            f"expected {path} to hold parameters (name to tensor), alone or under 'model' or "
            f"'state_dict', got {_describe(content)}"
        )
    return {key.removeprefix("module."): tensor for key, tensor in content.items()}


def _describe(content: object) -> str:
    if isinstance(content, Mapping):
        return f"a dictionary with {', '.join(map(repr, list(content)[:5])) or 'nothing'}"
    return type(content).__name__


def to_our_layout(state_dict: StateDict, architecture: str, path: str | Path) -> StateDict:
    """Renames the authors' keys, or returns our own layout as it is.

    Args:
        state_dict: Parameters of a file.
        architecture: The model that they are wanted for.
        path: Where they came from, for messages.

    Raises:
        ValueError: If they belong to another model (named if it is a known one), or are mostly
            of this one's authors but have unknown keys.
    """
    convert = find_architecture(architecture).convert
    try:
        if convert is not None:
            return convert(state_dict)
    except UnknownKeysError as error:
        if error.known > len(error.unknown):
            raise ValueError(
                f"{path} looks like the authors' {architecture}, but {error}; is it a changed "
                f"variant? {_owners(state_dict)}"
            ) from error
    if any(key.startswith("neck.") for key in state_dict):
        return state_dict
    raise ValueError(
        f"expected weights of {architecture} in {path}, got keys like "
        f"{', '.join(list(state_dict)[:3])}; {_owners(state_dict)}"
    )


def num_classes_in(state_dict: StateDict) -> int:
    """Classes of a state dict in our layout, 0 = none."""
    weight = state_dict.get(f"{CLASSIFIER}weight")
    return 0 if weight is None else weight.shape[-1]


def load_into(
    model: nn.Module, state_dict: StateDict, path: str | Path, new_classifier: bool = False
) -> None:
    """Copies parameters into a model after checking that all of them fit.

    Args:
        model: Filled in place; left untouched if anything does not fit.
        state_dict: Parameters in our layout; converted to the types of the model's.
        path: Where they came from, for messages.
        new_classifier: Leave the model's classifier as it is (fresh, or absent).

    Raises:
        ValueError: If parameters are missing, left over, or of other shapes.
    """
    wanted = model.state_dict()
    if new_classifier:
        state_dict = {k: v for k, v in state_dict.items() if not k.startswith(CLASSIFIER)}
        wanted = {k: v for k, v in wanted.items() if not k.startswith(CLASSIFIER)}
    missing = [key for key in wanted if key not in state_dict]
    extra = [key for key in state_dict if key not in wanted]
    misshapen = [
        f"{key} {list(state_dict[key].shape)} instead of {list(wanted[key].shape)}"
        for key in wanted
        if key in state_dict and state_dict[key].shape != wanted[key].shape
    ]
    if missing or extra or misshapen:
        problems = [
            f"{len(found)} {what} ({', '.join(found[:3])}{', ...' if len(found) > 3 else ''})"
            for found, what in (
                (missing, "missing"),
                (extra, "left over"),
                (misshapen, "of another shape"),
            )
            if found
        ]
        raise ValueError(
            f"expected {path} to hold exactly the parameters of this model, got "
            f"{'; '.join(problems)}; {_owners(state_dict)} Nothing was loaded."
        )
    model.load_state_dict(state_dict, strict=not new_classifier)


def _owners(state_dict: StateDict) -> str:
    """Says which registered variants a state dict fits, in either layout."""
    owners = [
        name
        for architecture in all_architectures()
        if not architecture.name.endswith("_tiny")
        for name in _fitting_names(architecture, state_dict)
    ]
    if owners:
        return f"it fits {', '.join(owners)}."
    return "it fits no model known here; if its structure differs, pass the model's arguments."


def _fitting_names(architecture: Architecture, state_dict: StateDict) -> list[str]:
    try:
        converted = architecture.convert(state_dict) if architecture.convert else state_dict
    except UnknownKeysError:
        converted = state_dict
    shapes = _shapes_without_classes(converted)
    names = []
    for cfg in architecture.cfgs.values():
        with torch.device("meta"):
            model = architecture.build(num_classes=0, **cfg.model_args)
        if _shapes_without_classes(model.state_dict()) == shapes:
            names.append(cfg.name)
    return names


def _shapes_without_classes(state_dict: StateDict) -> dict[str, torch.Size]:
    return {k: v.shape for k, v in state_dict.items() if not k.startswith(CLASSIFIER)}
