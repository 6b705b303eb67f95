"""Files of weights recognised by keys and shapes, and loaded completely or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import nn

from gaitzoo.hub.reading import num_classes_in, printable, read_state_dict
from gaitzoo.hub.structure import (
    has_place_for_classes,
    has_structure_of,
    known_names,
    without_classes,
)
from gaitzoo.layers.modes import unwrapped
from gaitzoo.models.base import GaitModel
from gaitzoo.models.conversion import StateDict, UnknownKeysError
from gaitzoo.models.registry import Architecture, all_architectures, find_architecture

__all__ = ["check_fits", "load_checkpoint", "load_into", "to_our_layout"]

# Parts of names that wrappers of torch put between those of modules.
_WRAPPER_PARTS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# What profilers and averaging of weights add to a state dict: no parameter of the model.
_ADDED = ("total_ops", "total_params", "n_averaged")
# Wrappers of wrappers are finite; names in a file of strangers need not be.
_MOST_PREFIXES = 8


def load_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Loads a file of weights into a model, completely or not at all.

    Takes the authors' files, files of trainers (a pickled dictionary, read with
    ``weights_only=True``, with the parameters alone or under a name such as ``"model"``,
    ``"state_dict"`` or ``"state_dict_ema"``) and safetensors written by ``save_pretrained``.
    The keys tell the layout; prefixes of ``DistributedDataParallel``,
    ``torch.compile`` or Lightning before them do not matter.

    Args:
        model: A :class:`GaitModel`, also inside ``nn.DataParallel``, ``DistributedDataParallel``
            or ``torch.compile``; filled in place.
        path: ``.pt``, ``.pth``, ``.ckpt`` or ``.safetensors`` file.

    Raises:
        TypeError: If there is no gaitzoo model in ``model``.
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, holds objects other than tensors and numbers, belongs
            to another model or variant (which is named if it is a known one), or lacks or adds a
            parameter.

    Warns:
        UserWarning: If the file holds several sets of parameters; names the one taken.
    """
    inner = unwrapped(model) if isinstance(model, nn.Module) else model
    if not isinstance(inner, GaitModel):
        raise TypeError(
            f"expected a gaitzoo model to load {path} into, got {type(inner).__name__}; pass the "
            "model that create_model returned"
        )
    state_dict = to_our_layout(read_state_dict(path), inner.architecture, path)
    load_into(inner, state_dict, path)
    # Whatever tag its numbers came from before, they are of this file now.
    inner.weights_of = None


def to_our_layout(state_dict: StateDict, architecture: str, path: str | Path) -> StateDict:
    """Renames the authors' keys, or returns our own layout, in both cases without prefixes.

    Args:
        state_dict: Parameters of a file.
        architecture: The model that they are wanted for.
        path: Where they came from, for messages.

    Raises:
        ValueError: If they belong to another model (named if it is a known one), or are mostly
            of this one's authors but have unknown keys.
    """
    entry = find_architecture(architecture)
    recognised: list[StateDict] = []
    closest: UnknownKeysError | None = None
    reason = ""
    for reading in _readings(state_dict):
        try:
            if entry.convert is not None:
                recognised.append(entry.convert(reading))
                continue
        except UnknownKeysError as error:
            if error.known > len(error.unknown):
                closest = closest or error
                continue
        except ValueError as error:
            reason = reason or f" ({error})"
        if _is_our_layout(reading, entry):
            recognised.append(reading)
    if recognised:
        # A prefix may be the name of a module, too: the reading with most known names is right.
        return max(recognised, key=lambda found: len(found.keys() & known_names(entry)))
    if closest is not None:
        raise ValueError(
            f"{path} looks like the authors' {architecture}, but {printable(str(closest))}; is it "
            f"a changed variant? {_owners(state_dict)}"
        ) from closest
    raise ValueError(
        f"expected weights of {architecture} in {path}, got keys like "
        f"{printable(', '.join(list(state_dict)[:3]))}{printable(reason)}; {_owners(state_dict)}"
    )


def _readings(state_dict: StateDict) -> Iterator[StateDict]:
    """The state dict as it is, then with one more prefix that most of its keys share removed."""
    names: StateDict = {}
    for key, tensor in state_dict.items():
        parts = key.split(".")
        kept = [part for part in parts if part not in _WRAPPER_PARTS]
        if parts[-1] not in _ADDED:
            names[".".join(kept)] = tensor
    for _ in range(_MOST_PREFIXES):
        yield names
        firsts = Counter(key.partition(".")[0] for key in names if "." in key)
        first, count = max(firsts.items(), key=lambda item: item[1], default=("", 0))
        shorter = {key.removeprefix(f"{first}."): tensor for key, tensor in names.items()}
        if 2 * count <= len(names) or len(shorter) < len(names):
            return
        names = shorter


def _is_our_layout(state_dict: StateDict, architecture: Architecture) -> bool:
    """Whether these may be our names: most begin as those of the architecture's models do."""
    known = {name.partition(".")[0] for name in known_names(architecture)}
    return 2 * sum(key.partition(".")[0] in known for key in state_dict) > len(state_dict)


def load_into(
    model: nn.Module, state_dict: StateDict, path: str | Path, new_classifier: bool = False
) -> None:
    """Copies parameters into a model after checking that all of them fit.

    Args:
        model: Filled in place; left untouched if anything does not fit.
        state_dict: Parameters in our layout; converted to the types of the model's. Counters of
            batch norms may be absent: the model's stay.
        path: Where they came from, for messages.
        new_classifier: Leave the model's classifier as it is (fresh, or absent).

    Raises:
        ValueError: If parameters are missing, left over, of other shapes, NaN or infinite.
    """
    key = getattr(model, "classifier_key", None)
    if new_classifier:
        state_dict = without_classes(state_dict, key)
    check_fits(model, state_dict, path, new_classifier)
    broken = [
        key
        for key, tensor in state_dict.items()
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
    ]
    if broken:
        raise ValueError(
            f"expected finite parameters in {path}, got NaN or infinite numbers in {len(broken)} "
            f"of them ({printable(', '.join(broken[:3]))}); training has diverged, take an earlier "
            "checkpoint. Nothing was loaded."
        )
    counters = {k: v for k, v in model.state_dict().items() if _is_counter(k)}
    model.load_state_dict({**counters, **state_dict}, strict=not new_classifier)


def check_fits(
    model: nn.Module, state_dict: StateDict, path: str | Path, new_classifier: bool = False
) -> None:
    """Raises unless parameters are exactly those of a model, which may stand on the meta device.

    Args:
        model: Left as it is.
        state_dict: Parameters in our layout; counters of batch norms may be absent.
        path: Where they came from, for messages.
        new_classifier: As for :func:`load_into`.

    Raises:
        ValueError: If parameters are missing, left over, or of other shapes.
    """
    wanted = model.state_dict()
    if new_classifier:
        key = getattr(model, "classifier_key", None)
        state_dict, wanted = without_classes(state_dict, key), without_classes(wanted, key)
    missing = [key for key in wanted if key not in state_dict and not _is_counter(key)]
    extra = [key for key in state_dict if key not in wanted]
    shared = [key for key in wanted if key in state_dict]
    misshapen = [key for key in shared if state_dict[key].shape != wanted[key].shape]
    mistyped = [
        f"{key} {state_dict[key].dtype} instead of {wanted[key].dtype}"
        for key in shared
        if state_dict[key].dtype.is_floating_point != wanted[key].dtype.is_floating_point
    ]
    shapes = [
        f"{key} {list(state_dict[key].shape)} instead of {list(wanted[key].shape)}"
        for key in misshapen
    ]
    if missing or extra or misshapen or mistyped:
        problems = [
            f"{len(found)} {what} ({', '.join(found[:3])}{', ...' if len(found) > 3 else ''})"
            for found, what in (
                (missing, "missing"),
                (extra, "left over"),
                (shapes, "of another shape"),
                (mistyped, "of another kind of number"),
            )
            if found
        ]
        key = getattr(model, "classifier_key", None)
        wrong = [*missing, *extra, *misshapen]
        if not wrong:
            advice = "it was damaged or changed."
        elif not without_classes(dict.fromkeys(wrong), key):
            advice = _about_classes(num_classes_in(state_dict, key))
        elif (advice := _owners(state_dict)) == _UNKNOWN:
            if head := _unknown_head(model, wrong):
                advice = (
                    f"if {head} is the classifier, say so in the class of the model: "
                    f'classifier_key = "{head}".'
                )
            elif misshapen or _blocks(wanted) != _blocks(state_dict):
                advice = _about_arguments(model)
        cfg = getattr(model, "pretrained_cfg", None)
        name = type(model).__name__ if cfg is None else cfg.name or type(model).__name__
        raise ValueError(
            f"expected {path} to hold exactly the parameters of this model ({printable(name)}), "
            f"got {printable('; '.join(problems))}; {advice} Nothing was loaded."
        )


_UNKNOWN = "it fits no model known here."


def _about_classes(in_file: int) -> str:
    return (
        f"the file has {in_file or 'no'} classes: build the model with num_classes={in_file}, or "
        "load it with create_model(..., checkpoint_path=...), which may change their number."
    )


def _about_arguments(model: nn.Module) -> str:
    names = [name for name in getattr(model, "model_args", {}) if name != "num_classes"]
    return (
        f"it fits no model known here; build {type(model).__name__} with the arguments that it "
        f"was trained with (among {', '.join(names)})."
    )


def _unknown_head(model: nn.Module, wrong: list[str]) -> str | None:
    """The one module that does not fit, in a model whose classifier is not where its key says."""
    modules = {key.rpartition(".")[0] for key in wrong}
    takes_classes = "num_classes" in getattr(model, "model_args", {})
    if len(modules) > 1 or not takes_classes or has_place_for_classes(model):
        return None
    return modules.pop() or None


def _blocks(names: Iterable[str]) -> set[str]:
    """The numbered blocks that parameters stand in."""
    found = set()
    for name in names:
        parts = name.split(".")
        found |= {".".join(parts[:i]) for i in range(1, len(parts)) if parts[i - 1][-1:].isdigit()}
    return found


def _is_counter(key: str) -> bool:
    """Whether this is a batch norm's count of batches, which old files lack and nothing reads."""
    return key.rpartition(".")[2] == "num_batches_tracked"


def _owners(state_dict: StateDict) -> str:
    """Which registered variants a state dict fits, in either layout, as a sentence."""
    owners = [
        name
        for architecture in all_architectures()
        if not architecture.is_tiny
        for name in _fitting_names(architecture, state_dict)
    ]
    return f"it fits {', '.join(owners)}." if owners else _UNKNOWN


def _fitting_names(architecture: Architecture, state_dict: StateDict) -> list[str]:
    for reading in _readings(state_dict):
        try:
            converted = architecture.convert(reading) if architecture.convert else reading
        except ValueError:
            converted = reading
        if _is_our_layout(converted, architecture):
            fitting = [c.name for c in architecture.cfgs.values() if has_structure_of(c, converted)]
            if fitting:
                return fitting
    return []
