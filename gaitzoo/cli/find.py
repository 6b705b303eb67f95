"""Sequences that the command line reads, found by what a model needs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from gaitzoo.data.arrays import ARRAY_SUFFIXES
from gaitzoo.data.files import SequencePath, find_sequences
from gaitzoo.data.natural import natural_order
from gaitzoo.data.sequences import entry_of

__all__ = ["check_paths", "find_sequences_at", "name_sequences"]

_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
# Names that pose estimators give to the file of one frame.
_ONE_FRAME = re.compile(r".*(\d|_keypoints)")


def check_paths(*paths: str) -> None:
    """Raises, before a model is loaded, unless there is something at every path.

    Raises:
        FileNotFoundError: If nothing is at one of them.
    """
    for path in paths:
        if not Path(path).exists():
            raise FileNotFoundError(
                f"expected a sequence or a folder of sequences, got {path}, which does not exist"
            )


def find_sequences_at(path: str | Path, modalities: Sequence[str]) -> list[SequencePath]:
    """The sequences below a folder, or the one that ``path`` is.

    Several modalities stand together in a folder per sequence. Of one modality, a file of an array
    or of poses is a sequence, and so is a folder of images or of one JSON file per frame.

    Args:
        path: A file or folder.
        modalities: What the model reads.

    Raises:
        ValueError: If there is none.
    """
    path = Path(path)
    if path.is_file():
        return [SequencePath(path.stem, path.stem, path)]
    if tuple(modalities) == ("silhouettes",):
        return _silhouettes_at(path)
    paths = list(_walk(path, modalities, frozenset()))
    if paths == [path]:
        return [_alone(path)]
    if not paths:
        raise ValueError(
            f"expected sequences of {', '.join(modalities)} below {path}, found none; "
            "docs/modalities.md names the files of each"
        )
    names = [found.relative_to(path) for found in paths]
    names = [name if (path / name).is_dir() else name.with_suffix("") for name in names]
    return [
        SequencePath(name.parts[0], name.as_posix(), found)
        for name, found in zip(names, paths, strict=True)
    ]


def _silhouettes_at(folder: Path) -> list[SequencePath]:
    try:
        return find_sequences(folder)
    except ValueError:
        # The folder itself may hold the frames of one sequence; its reader says if not.
        if not any(entry.is_file() for entry in folder.iterdir()):
            raise
        return [_alone(folder)]


def _alone(folder: Path) -> SequencePath:
    name = folder.resolve().name
    return SequencePath(name, name, folder)


def _walk(folder: Path, modalities: Sequence[str], above: frozenset[Path]) -> Iterator[Path]:
    """Sequences in natural order; ``above`` stops links that lead back up."""
    resolved = folder.resolve()
    if resolved in above:
        return
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    entries.sort(key=lambda entry: natural_order(entry.name))
    files = [entry for entry in entries if entry.is_file()]
    if len(modalities) > 1:
        if _holds_some(folder, files, modalities):
            yield folder
            return
    elif _is_frames(files, modalities[0]):
        yield folder
    else:
        suffixes = ARRAY_SUFFIXES
        if modalities[0] in ("poses", "skeleton_maps"):
            suffixes = (*suffixes, ".json")
        yield from (file for file in files if file.suffix in suffixes)
    for entry in entries:
        if entry.is_dir():
            yield from _walk(entry, modalities, above | {resolved})


def _holds_some(folder: Path, files: list[Path], modalities: Sequence[str]) -> bool:
    """Whether a folder is a sequence, perhaps one that lacks something."""
    return any(file.suffix == ".pkl" for file in files) or any(
        entry_of(folder, name) is not None for name in modalities
    )


def _is_frames(files: list[Path], modality: str) -> bool:
    if modality in ("poses", "skeleton_maps"):
        frames = [file for file in files if file.suffix == ".json"]
        return len(frames) > 1 and all(_ONE_FRAME.fullmatch(file.stem) for file in frames)
    return any(file.suffix.lower() in _IMAGES for file in files)


def name_sequences(
    path: str, modalities: Sequence[str], several: bool
) -> Iterator[tuple[str, SequencePath]]:
    """Sequences with names relative to the only path, or beginning with the path they are at."""
    start = Path(path)
    for sequence in find_sequences_at(start, modalities):
        if not several:
            yield sequence.name, sequence
        elif sequence.path != start:
            yield f"{start.as_posix()}/{sequence.name}", sequence
        else:
            yield (start.with_suffix("") if start.is_file() else start).as_posix(), sequence
