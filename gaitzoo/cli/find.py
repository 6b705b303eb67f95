"""Sequences that the command line reads, found by what a model needs."""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from gaitzoo.cli.options import positive
from gaitzoo.data.arrays import ARRAY_SUFFIXES
from gaitzoo.data.files import SequencePath
from gaitzoo.data.layouts import (
    LAYOUTS,
    Layout,
    LayoutError,
    detect_layout,
    find_layout,
    level_layout,
    names_people,
    refuse_tree,
)
from gaitzoo.data.natural import natural_order
from gaitzoo.data.sequences import entry_of
from gaitzoo.data.walks import NothingFoundError, choose_source, scan

__all__ = [
    "add_layout_option",
    "add_layout_options",
    "check_paths",
    "find_sequences_at",
    "layout_of",
    "name_sequences",
]

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


def add_layout_option(command: argparse.ArgumentParser) -> None:
    """Adds the name of a layout of folders."""
    command.add_argument(
        "--layout",
        metavar="NAME",
        help=f"how folders stand: {', '.join(LAYOUTS)}, or a path such as "
        "'cam_{view}/{identity}/{type}' (default: by their names)",
    )


def add_layout_options(command: argparse.ArgumentParser) -> None:
    """Adds the choice of what the levels of folders are."""
    add_layout_option(command)
    command.add_argument(
        "--identity-level",
        type=positive,
        metavar="N",
        help="level of folders that are people, 1 = the topmost",
    )


def layout_of(options: argparse.Namespace) -> Layout | None:
    """The layout that was said; ``None`` = by the names of the folders.

    Raises:
        ValueError: If it is unknown, or said twice.
    """
    if options.layout is not None and options.identity_level is not None:
        raise ValueError("expected --layout or --identity-level, got both; leave one out")
    if options.identity_level is not None:
        return level_layout(options.identity_level)
    return None if options.layout is None else find_layout(options.layout)


def find_sequences_at(
    path: str | Path,
    modalities: Sequence[str],
    layout: Layout | None = None,
    *,
    scored: bool = False,
) -> list[SequencePath]:
    """The sequences below a folder, or the one that ``path`` is.

    Several modalities stand together in a folder per sequence. Of one modality, a file of an array
    or of poses is a sequence, and so is a folder of images or of one JSON file per frame.

    Args:
        path: A file or folder.
        modalities: What the model reads.
        layout: How the folders stand; ``None`` = by their names.
        scored: Whether identities are compared: views and splits are then refused as people, and
            are a warning otherwise.

    Raises:
        ValueError: If there is none, or folders stand otherwise.
    """
    path = Path(path)
    if path.is_file():
        return [SequencePath(path.stem, path.stem, path)]
    if tuple(modalities) == ("silhouettes",):
        return _silhouettes_at(path, layout, scored)
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
    found = [
        SequencePath(name.parts[0], name.as_posix(), found)
        for name, found in zip(names, paths, strict=True)
    ]
    return _with_identities(found, path, layout, scored)


def _with_identities(
    found: list[SequencePath], root: Path, layout: Layout | None, scored: bool
) -> list[SequencePath]:
    """Sequences with the identities of a layout instead of the first level."""
    folders = [
        (entry.path if entry.path.is_dir() else entry.path.parent).relative_to(root).as_posix()
        for entry in found
    ]
    said = layout
    if layout is None:
        layout = detect_layout(folders)
        if layout is None or not layout.is_official:
            _check_people([entry.name for entry in found], root, scored)
            return found
    places = [
        layout.read(folder) or layout.read(e.name) for folder, e in zip(folders, found, strict=True)
    ]
    if any(place is None for place in places):
        raise refuse_tree(folders, root, said)
    return [
        replace(entry, identity=_identity(place.identity, entry.name))
        for entry, place in zip(found, places, strict=True)
        if place is not None
    ]


def _identity(identity: str | None, name: str) -> str:
    """Nobody in a gallery has the name of somebody unknown."""
    return f"unknown ({name})" if identity is None else identity


def _check_people(names: list[str], root: Path, scored: bool) -> None:
    if names_people(names):
        return
    if scored:
        raise refuse_tree(names, root, None)
    warnings.warn(
        f"expected people as the first level of {root}, got views or splits, as in {names[0]}; "
        "say what each level is with --layout or --identity-level, or identities are wrong",
        UserWarning,
        stacklevel=3,
    )


def _silhouettes_at(folder: Path, layout: Layout | None, scored: bool) -> list[SequencePath]:
    try:
        walks, _, strange = scan(folder, layout)
    except NothingFoundError:
        # The folder itself may hold the frames of one sequence; its reader says if not.
        if not any(entry.is_file() for entry in folder.iterdir()):
            raise
        return [_alone(folder)]
    except LayoutError as error:
        if scored or layout is not None:
            raise
        warnings.warn(f"{error}; until then, identities are the first level", stacklevel=2)
        walks, _, strange = scan(folder, level_layout(1))
    found = []
    for walk in walks:
        source = choose_source(walk, "silhouettes")
        if source is None:
            strange.append(walk.name)
        else:
            identity = _identity(walk.identity, walk.name)
            found.append(SequencePath(identity, walk.name, folder / source.path))
    if not found:
        raise ValueError(f"expected silhouettes below {folder}, got none in {strange[0]}")
    if strange:
        warnings.warn(
            f"expected silhouettes in every folder of {folder}, got {len(strange)} without, which "
            f"were left out ({', '.join(strange[:3])})",
            stacklevel=2,
        )
    return found


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
    path: str, modalities: Sequence[str], several: bool, layout: Layout | None = None
) -> Iterator[tuple[str, SequencePath]]:
    """Sequences with names relative to the only path, or beginning with the path they are at."""
    start = Path(path)
    for sequence in find_sequences_at(start, modalities, layout):
        if not several:
            yield sequence.name, sequence
        elif sequence.path != start:
            yield f"{start.as_posix()}/{sequence.name}", sequence
        else:
            yield (start.with_suffix("") if start.is_file() else start).as_posix(), sequence
