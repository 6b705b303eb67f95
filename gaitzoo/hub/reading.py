"""Files of weights: read without running code, written whole, compared with their hash."""

from __future__ import annotations

import hashlib
import pickle
import re
import struct
import threading
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gaitzoo.data.atomic import whole_files
from gaitzoo.models.base import num_classes_of
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.conversion import StateDict

__all__ = [
    "WrongFileError",
    "check_file",
    "file_hash",
    "num_classes_in",
    "printable",
    "read_safetensors",
    "read_state_dict",
    "write_safetensors",
]

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

# Names under which trainers keep parameters. Averaged ones come first, as in timm: they are what
# such a trainer evaluates.
_WRAPPERS = (
    "state_dict_ema",
    "ema_state_dict",
    "model_ema",
    "ema_model",
    "ema",
    "model",
    "state_dict",
    "model_state_dict",
    "model_state",
    "net",
    "network",
    "module",
    "params",
    "weights",
)


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
        Parameter name to tensor, under the names of the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or holds anything but tensors, numbers and plain containers.

    Warns:
        UserWarning: If the file holds several sets of parameters; names the one taken.
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
        metadata: What else stands in the file.

    Raises:
        OSError: If the file cannot be written.
    """
    tensors = {key: tensor.detach().contiguous() for key, tensor in state_dict.items()}
    try:
        with whole_files(path) as unfinished:
            safetensors.torch.save_file(
                tensors, unfinished, metadata={"format": "pt", **(metadata or {})}
            )
    except SafetensorError as error:
        raise OSError(f"cannot write {path}: {error}") from error


class WrongFileError(ValueError):
    """A file is not the one that a cfg speaks of."""


def check_file(path: Path, cfg: PretrainedCfg) -> None:
    """Checks that a file is the one that a cfg speaks of, before anything in it is read.

    Args:
        path: The file.
        cfg: With ``sha256`` and, perhaps, ``size``.

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
    found = file_hash(path)
    if found != cfg.sha256.lower():
        raise WrongFileError(
            f"expected {file_itself} (weights of {cfg.name}) to have the sha256 {cfg.sha256}, got "
            f"{found}. {advice}"
        )


def file_hash(path: str | Path) -> str:
    """The SHA-256 of a file, as 64 lower-case hexadecimal digits.

    Args:
        path: The file.

    Raises:
        OSError: If it cannot be read.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def num_classes_in(state_dict: StateDict, classifier_key: str | None) -> int:
    """Classes of a state dict in our layout, 0 = none.

    Args:
        state_dict: Parameters.
        classifier_key: Dotted name of the classifier.
    """
    weight = state_dict.get(f"{classifier_key}.weight")
    return 0 if weight is None else num_classes_of(tuple(weight.shape))


class _Ignored:
    """Stands for a numpy object beside the weights: takes what the pickle says, and does nothing.

    So that not even numpy's own reading, which was not written for files of strangers, is run.
    """

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


def _ignored(module: str, name: str) -> type[_Ignored]:
    return type(name, (_Ignored,), {"__module__": module, "__qualname__": name})


# What scalars and arrays of numbers consist of, as both generations of numpy write them.
_NUMPY: list[Any] = [
    _ignored("numpy", "dtype"),
    _ignored("numpy", "ndarray"),
    *(
        _ignored(f"numpy.{core}.multiarray", name)
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct")
    ),
]
# torch keeps one list of what it allows for the whole process.
_allowing = threading.Lock()


def _unpickle(path: Path) -> object:
    options: dict[str, Any] = {"map_location": "cpu", "weights_only": True}
    try:
        # Mapping the file keeps an optimizer's state, which nobody asked for, out of memory.
        options["mmap"] = zipfile.is_zipfile(path)
        try:
            return torch.load(path, **options)
        except pickle.UnpicklingError as error:
            if not (_refused_object(error) or "").startswith("numpy."):
                raise
            with _allowing, torch.serialization.safe_globals(_NUMPY):
                return torch.load(path, **options)
    except pickle.UnpicklingError as error:
        name = _refused_object(error)
        if name is None:
            raise ValueError(
                f"refused to read {path}: it is damaged, no torch file, or holds objects other "
                "than tensors and plain containers, which could run code "
                f"({_first_line(error)}); get it again, or save the model's state_dict() alone"
            ) from error
        raise ValueError(
            f"refused to read {path}: expected tensors, numbers and plain containers, got the "
            f"object {name}, which could run code; where the file was made, save the parameters "
            "without it: torch.save(model.state_dict(), path)"
        ) from error
    except _DAMAGE as error:
        raise ValueError(
            f"{path} is damaged or no torch file ({_first_line(error)}); get it again"
        ) from error


def _refused_object(error: pickle.UnpicklingError) -> str | None:
    """Dotted name of the object that torch did not allow, ``None`` = another cause."""
    found = re.search(r"\b(?:GLOBAL|Unsupported class|unsupported class) ([\w.]+)", str(error))
    return found[1] if found else None


def _first_line(error: BaseException) -> str:
    # Torch's messages come in bold, and both may repeat what a damaged file says.
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip() or type(error).__name__
    return printable(text.splitlines()[0])


def printable(text: str) -> str:
    """A text from a file, fit for a terminal: control codes become question marks."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _parameters(content: object, path: Path) -> StateDict:
    while isinstance(content, Mapping) and not _is_state_dict(content):
        inner = _inner(content, path)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping) or not _is_state_dict(content):
        raise ValueError(
            f"expected {path} to hold parameters (name to tensor), alone or under a name such as "
            f"'model' or 'state_dict', got {_describe(content)}"
        )
    odd = [key for key, tensor in content.items() if not _is_plain(tensor)]
    if odd:
        raise ValueError(
            f"expected plain dense tensors in {path}, got sparse, quantized, expanded ones or some "
            f"without numbers: {printable(', '.join(odd[:3]))}"
        )
    return dict(content)


def _is_state_dict(content: Mapping[Any, Any]) -> bool:
    return bool(content) and all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()
    )


def _inner(content: Mapping[Any, Any], path: Path) -> Mapping[Any, Any] | None:
    """The parameters inside a trainer's dictionary, or what may hold them one level deeper."""
    held = {k: v for k, v in content.items() if isinstance(v, Mapping) and _is_state_dict(v)}
    found = [name for name in _WRAPPERS if name in held]
    if not found and len(held) > 1:
        raise ValueError(
            f"expected one set of parameters in {path}, got {', '.join(map(repr, held))}; save "
            "one of them alone: torch.save(torch.load(path)[name], new_path)"
        )
    if not found:
        deeper = (content[name] for name in _WRAPPERS if isinstance(content.get(name), Mapping))
        return next(iter(held.values()), None) or next(deeper, None)
    taken, *others = found
    if others:
        warnings.warn(
            f"{path} holds several sets of parameters; {taken!r} was taken, not "
            f"{', '.join(map(repr, others))}. For another, save it alone: "
            "torch.save(torch.load(path)[name], new_path)",
            stacklevel=5,
        )
    return held[taken]


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
