"""Walks in a tree of files: one per leaf folder, however many copies of it lie there."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from gaitzoo.data.arrays import ARRAY_SUFFIXES
from gaitzoo.data.images import ANIMATED_SUFFIXES, FRAME_SUFFIXES, is_animated
from gaitzoo.data.layouts import LAYOUTS, Layout, detect_layout, names_people, refuse_tree
from gaitzoo.data.modalities import MODALITIES
from gaitzoo.data.natural import natural_order

__all__ = ["NothingFoundError", "Source", "Walk", "choose_source", "kind_of", "scan"]

_FILES = (*ARRAY_SUFFIXES, ".gif", ".apng", ".json")
_ONE_FRAME = re.compile(r".*(\d|_keypoints)")
# Words of file names, the most telling first: "LiDAR-PCDs_depths" are depths.
_WORDS: dict[str, frozenset[str]] = {
    "silhouettes": frozenset(("sil", "sils", "silhouette", "silhouettes")),
    "parsing": frozenset(("par", "pars", "parsing", "parsings")),
    "skeleton_maps": frozenset(("heatmap", "heatmaps", "skeleton")),
    "poses": frozenset(("pose", "poses", "keypoint", "keypoints", "alphapose", "openpose")),
    "depth": frozenset(("depth", "depths")),
    "smpl": frozenset(("smpl", "smpls")),
    "joints3d": frozenset(("joints3d", "joints")),
    "flow": frozenset(("flow", "flows")),
    "ratios": frozenset(("ratio", "ratios")),  # widths over heights, no modality
    "rgb": frozenset(("rgb", "rgbs")),
    "points": frozenset(("points", "pointclouds", "pcd", "pcds")),
}
# Of copies in one modality: aligned before any, any before raw ones and those of another sensor.
_BETTER, _WORSE = frozenset(("aligned", "norm", "normalized")), frozenset(("raw", "lidar", "pcds"))


class NothingFoundError(ValueError):
    """A folder below which there is no sequence."""


class Source(NamedTuple):
    """A file, or a folder of one file per frame.

    Args:
        path: From the root, forward slashes.
        words: What its name, and a folder that names its modality, says.
        kind: The modality that they name; ``""`` = none.
        is_array: Whether it is a file of an array.
    """

    path: str
    words: frozenset[str]
    kind: str
    is_array: bool


@dataclass(frozen=True)
class Walk:
    """One walk of one person before one camera.

    Args:
        identity: Who walks; ``None`` = unknown.
        type: Clothing, bag, session.
        view: Camera or angle.
        split: Part of the data set, if folders name it.
        name: Path of its folder or file, from the root and without suffix.
        sources: Its files, of any modality.
    """

    identity: str | None
    type: str
    view: str
    split: str
    name: str
    sources: list[Source] = field(default_factory=list, compare=False)


def kind_of(name: str) -> tuple[frozenset[str], str]:
    """The words of a name, and the modality that they name.

    Args:
        name: Of a file without suffix, or of a folder.

    Example:
        >>> [kind_of(name)[1] for name in ("02-000-LiDAR-PCDs_depths", "090-aligned-sils", "090")]
        ['depth', 'silhouettes', '']
    """
    words = frozenset(re.findall(r"[a-z]+(?:3d)?", name.lower()))
    return words, next((kind for kind, known in _WORDS.items() if words & known), "")


def scan(root: Path, layout: Layout | None = None) -> tuple[list[Walk], Layout, list[str]]:
    """Lists the walks of a tree in natural order.

    Hidden files and ``gei.png`` are left out. Links to folders are followed.

    Args:
        root: The tree.
        layout: How its folders stand; ``None`` = by their names.

    Returns:
        The walks, the layout, and the paths of folders that do not fit it (few of many).

    Raises:
        FileNotFoundError: If ``root`` does not exist.
        ValueError: If it is no folder.
        NothingFoundError: If there is nothing to read below it.
        LayoutError: If it stands otherwise than was said.
    """
    if not root.exists():
        raise FileNotFoundError(f"expected a folder of sequences, got {root}, which does not exist")
    if not root.is_dir():
        raise ValueError(f"expected a folder of sequences, got the file {root}; give a folder")
    found: dict[str, list[Source]] = {}
    for path, source in _leaves(root):
        found.setdefault(path, []).append(source)
    found.pop("", None)  # loose files beside the folders of people
    if not found:
        raise NothingFoundError(
            f"expected sequences below {root}, found none; known layouts: "
            f"{', '.join(f'{known.name} ({known.example})' for known in LAYOUTS.values())}"
        )
    said = layout
    layout = layout or detect_layout(found)
    if layout is None:
        raise refuse_tree(found, root, None)
    guessed = layout.name in LAYOUTS and not layout.is_official
    strange = [path for path in found if layout.read(path) is None]
    if 2 * len(strange) > len(found) or (guessed and not names_people(found)):
        raise refuse_tree(found, root, said)
    walks: dict[tuple[object, ...], Walk] = {}
    for path, sources in found.items():
        place = layout.read(path)
        if place is None:
            continue
        # Folders of several modalities, as 2D_Silhouettes beside 3D_SMPLs, hold the same walks.
        key = (place.identity, place.type, place.view, place.split)
        if place.modality:
            words, kind = kind_of(place.modality)
            sources = [
                source._replace(words=source.words | words, kind=source.kind or kind)
                for source in sources
            ]
        elif key in walks:
            key = (*key, path)  # a pattern that says less than the path
        walk = walks.setdefault(
            key, Walk(place.identity, place.type, place.view, place.split, path)
        )
        walk.sources.extend(sources)
    ordered = sorted(walks.values(), key=lambda walk: natural_order(walk.name))
    return _numbered(ordered), layout, strange


def _numbered(walks: list[Walk]) -> list[Walk]:
    """Types ``#`` become the number of the walk among those of its person."""
    counts: Counter[str | None] = Counter()
    numbered = []
    for walk in walks:
        if walk.type == "#":
            counts[walk.identity] += 1
            walk = replace(walk, type=f"{counts[walk.identity]:02d}")
        numbered.append(walk)
    return numbered


def _leaves(root: Path) -> Iterator[tuple[str, Source]]:
    """Paths of walks from the root, each with a file or folder of it."""
    waiting: list[tuple[str, frozenset[str]]] = [("", frozenset())]
    while waiting:
        folder, above = waiting.pop()
        real = os.path.realpath(root / folder)
        if real in above:  # a link that leads back up
            continue
        inner, files, images = [], [], []
        with os.scandir(root / folder) as entries:
            for entry in entries:
                stem, suffix = os.path.splitext(entry.name)
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    inner.append(f"{folder}/{entry.name}" if folder else entry.name)
                elif suffix.lower() in FRAME_SUFFIXES:
                    if "gei" not in re.findall("[a-z]+", stem.lower()):
                        images.append(entry.name)
                elif suffix.lower() in _FILES:
                    files.append(entry.name)
        waiting += [(path, above | {real}) for path in inner]
        animated = images and images[0].lower().endswith(ANIMATED_SUFFIXES)
        if animated and is_animated(root / folder / images[0]):
            files, images = files + images, []
        yield from _sources(folder, sorted(files, key=natural_order), bool(images))


def _sources(folder: str, files: list[str], has_images: bool) -> Iterator[tuple[str, Source]]:
    """The walk, or the walks, whose files a folder holds."""
    walk, words, kind = folder, frozenset[str](), ""
    parent, _, last = folder.rpartition("/")
    if parent and _names_modality(last):
        walk = parent
        words, kind = kind_of(last)
    frames = [name for name in files if name.endswith(".json")]
    if len(frames) > 1 and all(_ONE_FRAME.fullmatch(name[:-5]) for name in frames):
        files = [name for name in files if name not in frames]
        yield walk, Source(folder, words, kind or "poses", False)
    if has_images:
        yield walk, Source(folder, words, kind, False)
    named = [(name, *kind_of(os.path.splitext(name)[0])) for name in files]
    # Files that name no modality are copies of the folder's walk, or walks of their own.
    together = has_images or any(own for _, _, own in named)
    for name, own_words, own in named:
        stem, suffix = os.path.splitext(name)
        path = f"{folder}/{name}" if folder else name
        own = own or kind or ("poses" if suffix == ".json" else "")
        is_array = suffix.lower() in ARRAY_SUFFIXES
        source = Source(path, words | own_words, own, is_array)
        alone = not (together or stem == last or (is_array and folder.count("/") >= 2))
        yield (f"{walk}/{stem}" if walk else stem) if alone else walk, source


def _names_modality(name: str) -> bool:
    plain = re.sub(r"^\d+[ _.-]+", "", name.lower())
    return any(plain in modality.file_names for modality in MODALITIES.values())


def choose_source(walk: Walk, modality: str, pattern: str | None = None) -> Source | None:
    """The file or folder of a walk that holds a modality; of copies, the aligned one.

    Args:
        walk: The walk.
        modality: What is wanted.
        pattern: Of the name of the file, as in a shell; ``None`` = by the words of its name.

    Returns:
        The source; ``None`` if there is none.

    Raises:
        ValueError: If several fit equally well.

    Example:
        >>> names = ("1-sils", "1-rgbs")
        >>> sources = [Source(f"a/{name}.pkl", *kind_of(name), True) for name in names]
        >>> choose_source(Walk("a", "", "", "", "a", sources), "silhouettes").path
        'a/1-sils.pkl'
    """
    fitting = [
        source
        for source in walk.sources
        if (pattern is None and source.kind == modality)
        or (pattern is not None and fnmatch(source.path.rpartition("/")[2], pattern))
    ]
    if not fitting and pattern is None:
        fitting = [source for source in walk.sources if not source.kind]
        if not fitting and modality == "skeleton_maps":  # drawn from poses
            fitting = [s for s in walk.sources if s.kind == "poses" and s.path.endswith(".json")]
    best = _best(fitting)
    if len(best) > 1:
        names = " and ".join(source.path.rpartition("/")[2] for source in best[:3])
        raise ValueError(
            f"expected one file of {modality} in {walk.name}, got {names}; say which, as "
            f'modalities={{"{modality}": "{best[0].path.rpartition("/")[2]}"}}'
        )
    return best[0] if best else None


def _best(sources: Iterable[Source]) -> list[Source]:
    """Those that nothing is better than."""

    def rank(source: Source) -> tuple[bool, int, bool]:
        worse = len(source.words & _WORSE)
        return not source.words & _BETTER, worse, not source.is_array

    ranked = sorted(sources, key=rank)
    return [source for source in ranked if rank(source) == rank(ranked[0])]
