"""Embeddings of many sequences made part by part, so that a kill costs one part."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from gaitzoo.hub.reading import read_safetensors, write_safetensors

__all__ = ["Parts", "files_hash"]

_SIZE = 256  # sequences that a kill may cost


class Parts:
    """What is done of a run.

    Args:
        count: Sequences of the run.
        run: Hash of all that its numbers depend on.
        folder: Where parts are kept, made if it is not there; ``None`` = in memory, as one part.

    Raises:
        ValueError: If the folder holds parts of another run.
    """

    def __init__(self, count: int, run: str, folder: Path | None) -> None:
        size = count if folder is None else _SIZE
        self.blocks = [range(start, min(start + size, count)) for start in range(0, count, size)]
        self.run, self.folder = run, folder
        self.held: dict[int, tuple[Tensor, dict[int, str]]] = {}
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob("*.safetensors")):
            if _content(path)[1].get("run") != run:
                raise ValueError(
                    f"expected parts of this run in {folder}, got those of another (other "
                    "sequences, weights or options); delete the folder, or choose another output"
                )

    def waiting(self) -> list[range]:
        """Numbers of the sequences of each part that is still to be made."""
        if self.folder is None:
            return self.blocks
        return [block for block in self.blocks if not self._path(self.folder, block).is_file()]

    def keep(self, block: range, embeddings: Tensor, skipped: dict[int, str] | None = None) -> None:
        """Keeps a part.

        Args:
            block: Numbers of its sequences.
            embeddings: ``[M, P, C]`` of those that could be read.
            skipped: Numbers of the others, with the reason.
        """
        if self.folder is None:
            self.held[block.start] = embeddings, skipped or {}
            return
        metadata = {"run": self.run, "skipped": json.dumps(skipped or {})}
        write_safetensors(self._path(self.folder, block), {"embeddings": embeddings}, metadata)

    def joined(self) -> tuple[Tensor, dict[int, str]]:
        """Embeddings of all parts, and the sequences that were skipped; all must be done."""
        found = [self._read(block) for block in self.blocks]
        skipped = {number: reason for _, lost in found for number, reason in lost.items()}
        some = [embeddings for embeddings, _ in found if embeddings.numel()]
        return torch.cat(some or [torch.empty(0)]), skipped

    def remove(self) -> None:
        """Deletes what was kept."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self, block: range) -> tuple[Tensor, dict[int, str]]:
        if self.folder is None:
            return self.held[block.start]
        tensors, metadata = _content(self._path(self.folder, block))
        skipped = json.loads(metadata["skipped"])
        return tensors["embeddings"], {int(number): text for number, text in skipped.items()}

    def _path(self, folder: Path, block: range) -> Path:
        return folder / f"{block.start:08d}.safetensors"


def _content(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        return read_safetensors(path)
    except ValueError as error:
        raise ValueError(
            f"expected a part of an earlier run, got a damaged file, {path}; delete it, and give "
            "the same command again"
        ) from error


def files_hash(paths: Iterable[Path]) -> str:
    """A hash that is another once a file, or a frame in a folder, was replaced.

    Made of paths, sizes and times of change; nothing is read.
    """
    digest = hashlib.sha256()
    for path in paths:
        # The time of a folder does not tell of frames that were written anew.
        inner = sorted(path.iterdir()) if path.is_dir() else []
        for file in (path, *inner):
            facts = file.stat() if file.exists() else file.lstat()  # a link to nothing
            digest.update(f"{file.absolute()} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()
