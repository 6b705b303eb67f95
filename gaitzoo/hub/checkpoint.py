"""Files of weights: written whole, read without running code, recognised by keys and shapes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import struct
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gaitzoo.models.base import GaitModel, num_classes_of
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.registry import (
    Architecture,
    StateDict,
    UnknownKeysError,
    all_architectures,
    find_architecture,
)

__all__ = ["load_checkpoint"]

_STRUCTURE_ALONE: ContextVar[bool] = ContextVar("structure_alone", default=False)

# What torch's readers raise on damaged files, found by damaging files at random.
_DAMAGE = (
    RuntimeError,
    EOFError,
    OSError,
    KeyError,
    IndexError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    struct.error,
    zipfile.BadZipFile,
)

# Far more than the layers of any model here and the network inside it.
_MOST_TENSORS = 50_000


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


def read_state_dict(
    path: str | Path, num_classes: int | None = None, classifier_key: str | None = None
) -> StateDict:
    """Reads parameters from a safetensors file or a pickle, running no code of the file.

    Args:
        path: The file.
        num_classes: Classes that the model will have. A classifier in our layout with another
            count is not read: it can be most of a file. ``None`` reads everything.
        classifier_key: Dotted name of the classifier, ``None`` = unknown.

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
        return _parameters(read_safetensors(path, num_classes, classifier_key)[0], path)
    return _parameters(_unpickle(path), path)


def read_safetensors(
    path: Path, num_classes: int | None = None, classifier_key: str | None = None
) -> tuple[StateDict, dict[str, str]]:
    """Reads the tensors that a model needs, and the metadata, of a safetensors file.

    Args:
        path: The file.
        num_classes: As for :func:`read_state_dict`.
        classifier_key: As for :func:`read_state_dict`.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            keys = list(file.keys())
            weight = f"{classifier_key}.weight"
            if num_classes is not None and weight in keys:
                shape = tuple(file.get_slice(weight).get_shape())
                if num_classes_of(shape) != num_classes:
                    keys = [key for key in keys if not key.startswith(f"{classifier_key}.")]
            return {key: file.get_tensor(key) for key in keys}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is damaged or no safetensors file ({_first_line(error)}); get it again"
        ) from error


def write_safetensors(
    path: Path, state_dict: StateDict, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a safetensors file that is there as a whole or not at all.

    Args:
        path: The file; replaced if it exists.
        state_dict: Parameter name to tensor.
        metadata: What else the file says.

    Raises:
        OSError: If the file cannot be written.
    """
    tensors = {key: tensor.detach().contiguous() for key, tensor in state_dict.items()}
    # Beside it under a name of this writer's own: two processes may write the same file at once.
    unfinished = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.unfinished")
    try:
        unfinished.touch()
        mode = unfinished.stat().st_mode
        safetensors.torch.save_file(
            tensors, unfinished, metadata={"format": "pt", **(metadata or {})}
        )
        # safetensors makes files that nobody else may read; caches and folders are shared.
        unfinished.chmod(mode)
        with unfinished.open("rb+") as file:
            # On the disk before it gets its name, or a crash could leave an empty file.
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except SafetensorError as error:
        raise OSError(f"cannot write {path}: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


class WrongFileError(ValueError):
    """A file is not the one that a cfg speaks of."""


def check_file(path: Path, cfg: PretrainedCfg) -> None:
    """Checks that a file is the one that a cfg speaks of, before anything in it is read.

    Args:
        path: The file.
        cfg: Says ``sha256`` and, perhaps, ``size``.

    Raises:
        WrongFileError: If size or hash differ.
        ValueError: If the cfg has no hash.
    """
    if cfg.sha256 is None:
        raise ValueError(
            f"expected a sha256 in the cfg of {cfg.name}, got none; files of weights are only "
            "read if they are known to be the right ones"
        )
    size = path.stat().st_size
    # The Hub's cache shows links: deleting one would leave the wrong content behind.
    file_itself = path.resolve()
    advice = (
        "It was not read. Delete it and try again; if that does not help, its publisher has "
        "replaced it, and gaitzoo needs an update"
    )
    if cfg.size is not None and size != cfg.size:
        raise WrongFileError(
            f"expected {file_itself} (weights of {cfg.name}) to have {cfg.size} bytes, got "
            f"{size}. {advice}"
        )
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != cfg.sha256.lower():
        raise WrongFileError(
            f"expected {file_itself} (weights of {cfg.name}) to have the sha256 {cfg.sha256}, got "
            f"{digest.hexdigest()}. {advice}"
        )


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
    except _DAMAGE as error:
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
    odd = [key for key, tensor in content.items() if not _is_plain(tensor)]
    if odd:
        raise ValueError(
            f"expected plain dense tensors in {path}, got sparse, quantized, empty-handed or "
            f"expanded ones: {', '.join(odd[:3])}"
        )
    return {key.removeprefix("module."): tensor for key, tensor in content.items()}


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is dense and has all its numbers in the file (a pickle may claim more)."""
    return (
        tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
        and tensor.untyped_storage().nbytes() >= tensor.nbytes
    )


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
    reason = ""
    try:
        if convert is not None:
            return convert(state_dict)
    except ValueError as error:
        if isinstance(error, UnknownKeysError) and error.known > len(error.unknown):
            raise ValueError(
                f"{path} looks like the authors' {architecture}, but {error}; is it a changed "
                f"variant? {_owners(state_dict)}"
            ) from error
        if not isinstance(error, UnknownKeysError):
            reason = f" ({error})"
    if _is_our_layout(state_dict, find_architecture(architecture)):
        return state_dict
    raise ValueError(
        f"expected weights of {architecture} in {path}, got keys like "
        f"{', '.join(list(state_dict)[:3])}{reason}; {_owners(state_dict)}"
    )


def _is_our_layout(state_dict: StateDict, architecture: Architecture) -> bool:
    """Whether these may be our names: they begin as those of the architecture's models do."""
    first = {key.partition(".")[0] for key in state_dict}
    return bool(first) and first <= _first_parts(architecture)


_FIRST_PARTS: dict[Callable[..., Any], frozenset[str]] = {}


def _first_parts(architecture: Architecture) -> frozenset[str]:
    build = architecture.build
    if build not in _FIRST_PARTS:
        found = set()
        for cfg in architecture.cfgs.values():
            with structure_alone():
                model = build(**{**cfg.model_args, "num_classes": cfg.num_classes})
            names = (*model.state_dict(), *dict(model.named_children()))
            found |= {name.partition(".")[0] for name in names}
        _FIRST_PARTS[build] = frozenset(found)
    return _FIRST_PARTS[build]


def num_classes_in(state_dict: StateDict, classifier_key: str | None) -> int:
    """Classes of a state dict in our layout, 0 = none.

    Args:
        state_dict: Parameters.
        classifier_key: Dotted name of the classifier.
    """
    weight = state_dict.get(f"{classifier_key}.weight")
    return 0 if weight is None else num_classes_of(tuple(weight.shape))


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
    if new_classifier:
        state_dict = _without_classes(state_dict, _classifier_key(model))
    check_fits(model, state_dict, path, new_classifier)
    model.load_state_dict(state_dict, strict=not new_classifier)


def check_fits(
    model: nn.Module, state_dict: StateDict, path: str | Path, new_classifier: bool = False
) -> None:
    """Raises unless parameters are exactly those of a model, which may stand on the meta device.

    Args:
        model: Left as it is.
        state_dict: Parameters in our layout.
        path: Where they came from, for messages.
        new_classifier: As for :func:`load_into`.

    Raises:
        ValueError: If parameters are missing, left over, or of other shapes.
    """
    wanted = model.state_dict()
    if new_classifier:
        key = _classifier_key(model)
        state_dict, wanted = _without_classes(state_dict, key), _without_classes(wanted, key)
    missing = [key for key in wanted if key not in state_dict]
    extra = [key for key in state_dict if key not in wanted]
    shared = [key for key in wanted if key in state_dict]
    misshapen = [
        f"{key} {list(state_dict[key].shape)} instead of {list(wanted[key].shape)}"
        for key in shared
        if state_dict[key].shape != wanted[key].shape
    ]
    mistyped = [
        f"{key} {state_dict[key].dtype} instead of {wanted[key].dtype}"
        for key in shared
        if state_dict[key].dtype.is_floating_point != wanted[key].dtype.is_floating_point
    ]
    if missing or extra or misshapen or mistyped:
        problems = [
            f"{len(found)} {what} ({', '.join(found[:3])}{', ...' if len(found) > 3 else ''})"
            for found, what in (
                (missing, "missing"),
                (extra, "left over"),
                (misshapen, "of another shape"),
                (mistyped, "of another kind of number"),
            )
            if found
        ]
        raise ValueError(
            f"expected {path} to hold exactly the parameters of this model, got "
            f"{'; '.join(problems)}; {_owners(state_dict)} Nothing was loaded."
        )


def _owners(state_dict: StateDict) -> str:
    """Says which registered variants a state dict fits, in either layout."""
    owners = [
        name
        for architecture in all_architectures()
        if not architecture.is_tiny
        for name in _fitting_names(architecture, state_dict)
    ]
    if owners:
        return f"it fits {', '.join(owners)}."
    return "it fits no model known here; if its structure differs, pass the model's arguments."


def _fitting_names(architecture: Architecture, state_dict: StateDict) -> list[str]:
    try:
        converted = architecture.convert(state_dict) if architecture.convert else state_dict
    except ValueError:
        converted = state_dict
    if not _is_our_layout(converted, architecture):
        return []
    return [cfg.name for cfg in architecture.cfgs.values() if has_structure_of(cfg, converted)]


@contextlib.contextmanager
def structure_alone() -> Iterator[None]:
    """Models built in this block have shapes but no numbers, and take no memory.

    Raises:
        ValueError: If more tensors are made than any known model has: arguments of strangers
            could go on for hours.
    """
    token = _STRUCTURE_ALONE.set(True)
    try:
        with torch.device("meta"), _Unfilled():
            yield
    finally:
        _STRUCTURE_ALONE.reset(token)


def wants_structure_alone() -> bool:
    """Whether models are being built inside :func:`structure_alone`: nothing is to be loaded."""
    return _STRUCTURE_ALONE.get()


def refuse_meta(what: str) -> None:
    """Raises under a caller's own meta device, where loaded numbers would be lost.

    Args:
        what: What is to be loaded, for the message.

    Raises:
        ValueError: If new tensors are made on the meta device.
    """
    # torch.get_default_device does not see the block of a device in all versions.
    if torch.empty(0).device.type == "meta":
        raise ValueError(
            f"expected a device with memory for {what}, got the meta device; build the structure "
            "alone, or load the weights outside of the block"
        )


class _Unfilled(TorchFunctionMode):
    """Leaves new parameters unfilled: without memory there is nothing to fill.

    Drawing numbers on the meta device would import a large part of torch first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.num_tensors = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("normal_", "uniform_"):
            # As a method of a tensor, or as torch.nn.init's function of the same name.
            return args[0] if args else kwargs["tensor"]
        if name == "empty":
            self.num_tensors += 1
            if self.num_tensors > _MOST_TENSORS:
                raise ValueError(
                    f"expected a model of at most {_MOST_TENSORS:,} tensors, got one with more"
                )
        elif name == "linspace":
            # Image networks read the numbers of these: their rates of dropping layers.
            kwargs = {"device": "cpu", **kwargs}
        return func(*args, **kwargs)


def has_structure_of(cfg: PretrainedCfg, state_dict: StateDict) -> bool:
    """Whether names and shapes, apart from the classifier's, are those of a cfg's model."""
    with structure_alone():
        model = find_architecture(cfg.architecture).build(**{**cfg.model_args, "num_classes": 0})
    key = _classifier_key(model)
    return _shapes_without_classes(model.state_dict(), key) == _shapes_without_classes(
        state_dict, key
    )


def _classifier_key(model: nn.Module) -> str | None:
    return getattr(model, "classifier_key", None)


def _without_classes(state_dict: StateDict, classifier_key: str | None) -> StateDict:
    return {k: v for k, v in state_dict.items() if not k.startswith(f"{classifier_key}.")}


def _shapes_without_classes(
    state_dict: StateDict, classifier_key: str | None
) -> dict[str, torch.Size]:
    kept = _without_classes(state_dict, classifier_key)
    return {key: tensor.shape for key, tensor in kept.items()}
