"""Files of weights that lie at plain addresses: release assets of the authors' repositories.

Nobody has published their hashes. What came first is recorded beside the file and compared ever
after; the file is read without running code, and only used if it fits the structure exactly.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from filelock import FileLock
from huggingface_hub import constants
from tqdm.auto import tqdm

from gaitzoo.data.atomic import whole_files
from gaitzoo.hub.reading import WrongFileError, file_hash
from gaitzoo.models.cfg import PretrainedCfg

__all__ = ["download_release"]

# More than the largest file that is known by far; a cfg with a size allows no more than that.
_MOST_BYTES = 4 * 2**30
_BLOCK = 1 << 20
_SECONDS = 30


def download_release(cfg: PretrainedCfg, cache_dir: str | Path | None = None) -> Path:
    """The file at the address of a cfg, downloaded once.

    An interrupted download goes on where it ended, if the server can tell that the file is still
    the same. Its hash is recorded in ``NAME.sha256`` beside
    it when it has come, and compared whenever it is read.

    Args:
        cfg: With ``url`` and, where known, ``size`` and ``sha256``.
        cache_dir: Where the file is kept; ``None`` = a folder of the Hub's cache (``HF_HOME``).

    Returns:
        The file.

    Raises:
        ValueError: If the address is not https, or leads to one that is not.
        WrongFileError: If the file has another hash or size than the cfg says or was recorded.
        FileNotFoundError: If there is no such file.
        ConnectionError: If the file is not here and the server cannot be reached, answers with an
            error, or ends early.
    """
    if cfg.url is None:
        raise ValueError(f"expected a url in the cfg of {cfg.name}, got none")
    check_address(cfg.url)
    cache = Path(constants.HF_ASSETS_CACHE if cache_dir is None else cache_dir).expanduser()
    name = hashlib.sha256(cfg.url.encode()).hexdigest()[:16]
    folder = cache / "gaitzoo" / "releases" / name
    path = folder / urlsplit(cfg.url).path.rpartition("/")[2]
    record = path.with_name(f"{path.name}.sha256")
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.is_file():
            if constants.HF_HUB_OFFLINE:
                raise ConnectionError(
                    f"expected {cfg.url} (weights of {cfg.name}) in {folder}, got no such file, "
                    "and HF_HUB_OFFLINE forbids to download it"
                )
            _fetch(cfg, path)
        found = file_hash(path)
        wanted = cfg.sha256 or (record.read_text().strip() if record.is_file() else None)
        if wanted is None:
            with whole_files(record) as unfinished:
                unfinished.write_text(f"{found}\n")
        elif found != wanted.lower():
            raise WrongFileError(
                f"expected {path} (weights of {cfg.name}) to have the sha256 {wanted}, which "
                f"{'is known' if cfg.sha256 else 'it had when it first came'}, got {found}. It was "
                f"not read. Delete it and {record.name} beside it to download it anew"
            )
    return path


def check_address(url: str) -> None:
    """Raises unless an address is https, or http on this machine.

    Args:
        url: The address.

    Raises:
        ValueError: If it is anything else.
    """
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and _is_this_machine(parts.hostname or ""):
        return
    raise ValueError(f"expected an https address of weights, got {url!r}")


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https only (or on this machine), with the range that was asked for."""

    def redirect_request(
        self, req: Any, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        """The next request."""
        if urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme != "https":
            raise ValueError(f"expected an https address behind {req.full_url}, got {newurl!r}")
        check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _fetch(cfg: PretrainedCfg, path: Path) -> None:
    """Downloads to ``path``; what is unfinished stays beside it for the next time."""
    assert cfg.url is not None
    unfinished = path.with_name(f"{path.name}.unfinished")
    mark = path.with_name(f"{path.name}.etag")
    begin = unfinished.stat().st_size if unfinished.is_file() and mark.is_file() else 0
    # If the file has been replaced since, the server begins again.
    headers = {"Range": f"bytes={begin}-", "If-Range": mark.read_text()} if begin else {}
    request = urllib.request.Request(cfg.url, headers={"User-Agent": "gaitzoo", **headers})
    opener = urllib.request.build_opener(_SafeRedirects)
    try:
        with opener.open(request, timeout=_SECONDS) as answer:
            if begin and answer.status != 206:
                begin = 0  # the server starts again
            total = _total(answer.headers, begin, cfg)
            if etag := answer.headers.get("ETag"):
                mark.write_text(etag)
            else:
                mark.unlink(missing_ok=True)
            _copy(answer, unfinished, begin, total, cfg)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left, or what is here is no beginning of the file
            unfinished.unlink(missing_ok=True)
        if error.code == 404:
            raise FileNotFoundError(f"there is no file at {cfg.url}") from error
        raise ConnectionError(f"cannot download {cfg.url}: {error}") from error
    except (urllib.error.URLError, TimeoutError, HTTPException, ConnectionError) as error:
        raise ConnectionError(
            f"cannot download {cfg.url}: {error}; what has come is kept, call again to go on"
        ) from error
    os.replace(unfinished, path)
    mark.unlink(missing_ok=True)


def _total(headers: Mapping[str, str], begin: int, cfg: PretrainedCfg) -> int | None:
    length = headers.get("Content-Length")
    total = None if length is None else begin + int(length)
    most = _MOST_BYTES if cfg.size is None else cfg.size
    if total is not None and (total > most or (cfg.size is not None and total != cfg.size)):
        raise WrongFileError(
            f"expected {'at most ' if cfg.size is None else ''}{most} bytes at {cfg.url}, the "
            f"server announces {total}; nothing was kept"
        )
    return total


def _copy(answer: Any, path: Path, begin: int, total: int | None, cfg: PretrainedCfg) -> None:
    most = _MOST_BYTES if cfg.size is None else cfg.size
    size = begin
    with (
        path.open("ab" if begin else "wb") as file,
        tqdm(total=total, initial=begin, unit="B", unit_scale=True, desc=cfg.name) as bar,
    ):
        while block := answer.read(_BLOCK):
            size += len(block)
            if size > most:
                file.close()
                path.unlink()
                raise WrongFileError(
                    f"expected at most {most} bytes at {cfg.url}, got more; nothing was kept"
                )
            file.write(block)
            bar.update(len(block))
        file.flush()
        os.fsync(file.fileno())
    if total is not None and size != total:
        raise ConnectionError(f"the connection ended after {size} of {total} bytes")
