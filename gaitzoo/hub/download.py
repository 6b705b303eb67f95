"""Files on the Hugging Face Hub: fetched, checked, converted once and kept."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
import zlib
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from gaitzoo.hub.checkpoint import to_our_layout
from gaitzoo.hub.reading import (
    WrongFileError,
    check_file,
    read_safetensors,
    read_state_dict,
    write_safetensors,
)
from gaitzoo.hub.structure import has_structure_of
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.conversion import StateDict
from gaitzoo.models.registry import find_architecture

__all__ = ["converted_file", "download", "published_weights"]

# Raise it when a conversion starts to give other numbers: kept files of other numbers are remade.
_CONVERSION = "1"

# The base of all errors of the HTTP library that this version of huggingface_hub is built on.
_HTTPError: type[Exception] = HfHubHTTPError.__bases__[0]


def published_weights(
    cfg: PretrainedCfg, num_classes: int | None = None, cache_dir: str | Path | None = None
) -> tuple[StateDict, Path]:
    """Weights from the Hub repository of a cfg, in our layout.

    The file is downloaded by the Hub's client into its own cache, checked against the cfg's size
    and hash, converted, and the result kept as safetensors. Later calls read that result and
    need neither the network nor the original.

    Args:
        cfg: With repository, file, revision, size and hash.
        num_classes: Classes that the model will have; a kept classifier with another count is
            not read. ``None`` reads everything.
        cache_dir: Where both files are kept; ``None`` = the Hub's folders (``HF_HOME``).

    Returns:
        Parameters and the file they were read from.

    Raises:
        ValueError: If the file is not the one that the cfg speaks of, is damaged, or holds
            anything but tensors.
        FileNotFoundError: If repository, revision or file do not exist.
        ConnectionError: If the file is not here and the Hub cannot be reached.
        OSError: If the download cannot be written.
    """
    if cfg.hub_id is None or cfg.filename is None or cfg.sha256 is None:
        raise ValueError(
            f"expected hub_id, filename and sha256 in the cfg of {cfg.name}, got {cfg.hub_id}, "
            f"{cfg.filename}, {cfg.sha256}; files are only read if they are known to be right"
        )
    kept = converted_file(cfg, cache_dir)
    state_dict = _read_converted(kept, cfg, num_classes)
    if state_dict is not None:
        return state_dict, kept
    original = _checked_download(cfg, cache_dir)
    state_dict = to_our_layout(read_state_dict(original), cfg.architecture, original)
    _keep_converted(kept, cfg, state_dict)
    return state_dict, original


def _checked_download(cfg: PretrainedCfg, cache_dir: str | Path | None) -> Path:
    """The file of a cfg; one that was damaged in the cache is downloaded once more."""
    assert cfg.hub_id is not None
    assert cfg.filename is not None
    fetch_args = {"revision": cfg.revision, "cache_dir": cache_dir}
    cached = None
    with contextlib.suppress(HFValidationError):  # download says it better
        cached = try_to_load_from_cache(cfg.hub_id, cfg.filename, **fetch_args)
    original = download(cfg.hub_id, cfg.filename, **fetch_args)
    try:
        check_file(original, cfg)
    except WrongFileError as error:
        # What has just come would come again.
        if not isinstance(cached, str) or constants.HF_HUB_OFFLINE:
            raise
        try:
            original = download(cfg.hub_id, cfg.filename, force_download=True, **fetch_args)
        except (OSError, ValueError):
            raise error from None
        check_file(original, cfg)
    return original


def converted_file(cfg: PretrainedCfg, cache_dir: str | Path | None = None) -> Path:
    """Where the converted weights of a cfg are kept: a folder ``gaitzoo`` of the cache.

    Args:
        cfg: Of what was converted.
        cache_dir: The cache; ``None`` = where the Hub's client keeps other libraries' files
            (``HF_HOME/assets``, or ``HF_ASSETS_CACHE``).
    """
    cache = constants.HF_ASSETS_CACHE if cache_dir is None else cache_dir
    name = f"{cfg.architecture}-{(cfg.sha256 or 'unknown').lower()}.safetensors"
    return Path(cache).expanduser() / "gaitzoo" / name


def _read_converted(kept: Path, cfg: PretrainedCfg, num_classes: int | None) -> StateDict | None:
    """The kept result, or ``None`` if there is none that can be used."""
    if not kept.is_file():
        return None
    try:
        state_dict, metadata = read_safetensors(
            kept, num_classes, find_architecture(cfg.architecture).classifier_key
        )
        checksums = json.loads(metadata.get("crc32", "{}"))
    except ValueError:
        return None
    usable = (
        isinstance(checksums, dict)
        and metadata.get("conversion") == _CONVERSION
        and metadata.get("source_sha256") == cfg.sha256
        and all(checksums.get(key) == _checksum(tensor) for key, tensor in state_dict.items())
        and has_structure_of(cfg, state_dict)
    )
    return state_dict if usable else None


def _keep_converted(kept: Path, cfg: PretrainedCfg, state_dict: StateDict) -> None:
    metadata = {
        "conversion": _CONVERSION,
        "source": f"{cfg.hub_id}/{cfg.filename}",
        "source_sha256": cfg.sha256 or "",
        "license": cfg.license,
        "crc32": json.dumps({key: _checksum(tensor) for key, tensor in state_dict.items()}),
    }
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_safetensors(kept, state_dict, metadata)
    except OSError as error:
        warnings.warn(
            f"cannot keep the converted weights of {cfg.name} in {kept.parent} ({error}); they "
            "are used now and converted again next time. Make room or make it writable, or "
            "choose another folder with cache_dir=...",
            stacklevel=6,
        )


def _checksum(tensor: torch.Tensor) -> int:
    return zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data)


def download(repo_id: str, filename: str, **fetch_args: Any) -> Path:
    """Downloads a file from the Hub, or finds it in the cache.

    Args:
        repo_id: ``"organisation/name"``.
        filename: Path inside the repository.
        **fetch_args: ``revision``, ``cache_dir``, ``token``, ``local_files_only``,
            ``force_download``, as for ``hf_hub_download``.

    Raises:
        FileNotFoundError: If there is no such repository, revision or file.
        PermissionError: If the repository's owners must grant access first.
        ConnectionError: If the Hub cannot be reached, or the connection is lost for good, and
            the file is not in the cache.
        OSError: If the file cannot be written to the cache.
        ValueError: If ``repo_id`` is no repository name.
    """
    where = f"{filename!r} of the Hub repository {repo_id!r}"
    try:
        return Path(hf_hub_download(repo_id, filename, **fetch_args))
    except HFValidationError as error:
        raise ValueError(
            f"expected a Hub repository 'organisation/name', got {repo_id!r}; for a folder on "
            "disk write local-dir:path"
        ) from error
    except GatedRepoError as error:
        raise PermissionError(
            f"cannot get {where}: its owners grant access on request; ask for it on the "
            "repository's page, then log in with 'hf auth login'"
        ) from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"cannot get {where}: there is no such repository, or it is private (log in with "
            "'hf auth login')"
        ) from error
    except RevisionNotFoundError as error:
        raise FileNotFoundError(
            f"cannot get {where}: it has no revision {fetch_args.get('revision')!r}"
        ) from error
    except LocalEntryNotFoundError as error:
        raise ConnectionError(
            f"cannot get {where}: it is not in the cache and the Hub cannot be reached (is the "
            "network up? is HF_HUB_OFFLINE set?)"
        ) from error
    except EntryNotFoundError as error:
        raise FileNotFoundError(f"cannot get {where}: the repository has no such file") from error
    except HfHubHTTPError as error:
        raise ConnectionError(f"cannot get {where}: the Hub answered with {error}") from error
    except (_HTTPError, OSError) as error:
        code = error.errno if isinstance(error, OSError) else None
        if code is None:
            raise ConnectionError(
                f"cannot get {where}: the connection was lost ({error}); try again"
            ) from error
        # The number makes it a PermissionError where it is one.
        raise OSError(
            code,
            f"cannot write {where} to the cache ({os.strerror(code)}); make room or make it "
            "writable, or choose another folder with cache_dir=... or HF_HOME",
        ) from error
