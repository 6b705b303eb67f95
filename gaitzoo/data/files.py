"""Silhouette files: frame folders, animations, numpy arrays and OpenGait pickles.

Everything comes back as one uint8 tensor per sequence. Nothing in a file is ever run: arrays of
objects are refused, and pickles are read by :mod:`gaitzoo.data.pickles`.
"""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gaitzoo.data.arrays import ARRAY_SUFFIXES, load_array
from gaitzoo.data.content import SilhouetteWarning
from gaitzoo.data.frames import as_frames
from gaitzoo.data.images import (
    ANIMATED_SUFFIXES,
    FRAME_SUFFIXES,
    Picture,
    is_animated,
    read_image,
)
from gaitzoo.data.natural import natural_order

__all__ = ["SequencePath", "find_sequences", "load_silhouettes"]

_SEQUENCE_SUFFIXES = (".gif", ".apng", ".npy", ".npz", ".pkl")
_IMAGE_SUFFIXES = (*FRAME_SUFFIXES, ".gif", ".apng")
_LAYOUTS = (
    "id/type/view/view.pkl (OpenGait), id/sequence/000.png (frame folders), "
    "id/sequence.gif, or id.gif"
)


@dataclass(frozen=True, slots=True)
class SequencePath:
    """One sequence found on disk.

    Args:
        identity: Who walks: the first folder level, or the file's stem where there is none.
        name: The path relative to the root, with forward slashes and without suffix (with it
            where files differ in nothing else).
        path: What :func:`load_silhouettes` reads, a file or a folder of frames.
    """

    identity: str
    name: str
    path: Path


def load_silhouettes(path: str | os.PathLike[str]) -> Tensor:
    """Reads one silhouette sequence from a file or a folder of frames.

    * A folder of PNG, JPEG, BMP or WebP frames, in natural order (``2.png`` before ``10.png``);
      other and hidden files are left out.
    * An animated GIF, WebP or PNG; a still image is one frame.
    * ``.npy`` or ``.npz`` with one array ``[T, H, W]``, ``[H, W]``, or grey ``[T, H, W, 3]``.
    * OpenGait's ``.pkl``, a pickled numpy array. Nothing but the array is unpickled.

    Images are turned upright by their orientation tag. Those in colour modes are read where their
    content is grey. Palette images, and others of flat colours, are label maps: black is the
    ground, and the one other colour the person. Where the opacity is a mask, it is the
    silhouette; other transparent images are laid over black. Frames of varying size, as tight
    crops are, get black margins up to the largest. Arrays hold booleans, integers in 0..255 (only
    0 and 1: taken as a mask), or floats in [0, 1].

    Args:
        path: File or folder.

    Returns:
        ``[T, H, W]`` uint8, 0..255, person bright on black.

    Raises:
        FileNotFoundError: If nothing is at ``path``.
        ValueError: If the content is broken, not a silhouette sequence (a picture, class ids), of
            an unknown type, or a pickle that holds more than a numpy array.

    Warns:
        SilhouetteWarning: If a folder holds frames of several sequences by their names, or a gait
            energy image (``gei.png``), which is left out.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/walk.npy", np.eye(8, dtype=np.uint8))
        ...     load_silhouettes(f"{folder}/walk.npy").shape
        torch.Size([1, 8, 8])
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"expected a silhouette file or a folder of frames, got {path}, which does not exist. "
            f"Check the path (relative paths start at {Path.cwd()})."
        )
    suffix = path.suffix.lower()
    if path.is_dir():
        return _checked(_load_folder(path), path)
    if suffix in _IMAGE_SUFFIXES:
        pictures = read_image(path)
        return _checked(_stack(pictures, [path] * len(pictures)), path)
    if suffix in ARRAY_SUFFIXES:
        return _array_to_frames(load_array(path), path)
    raise ValueError(
        f"expected one of {', '.join((*_IMAGE_SUFFIXES, '.npy', '.npz', '.pkl'))} or a folder of "
        f"frames, got {path}. Convert it, or give the frames as a numpy array to the transform."
    )


def find_sequences(root: str | os.PathLike[str]) -> list[SequencePath]:
    """Lists the sequences below a folder, in natural order.

    A folder that holds frames (PNG, JPEG, BMP, WebP) is one sequence; so is every ``.gif``,
    ``.apng``, ``.npy``, ``.npz`` and ``.pkl`` file, and every file of a folder of animated PNG or
    WebP. Hidden files and folders are left out. Links to folders are followed.

    Args:
        root: A folder such as ``id/type/view/view.pkl`` (OpenGait), ``id/sequence/000.png``,
            ``id/sequence.gif`` or ``id.gif``.

    Returns:
        The sequences; ``identity`` is the first folder level below ``root``.

    Raises:
        FileNotFoundError: If ``root`` does not exist.
        ValueError: If ``root`` is a file or is itself one sequence, or if nothing is found.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     Path(folder, "ann").mkdir()
        ...     np.save(f"{folder}/ann/walk.npy", np.eye(8, dtype=np.uint8))
        ...     [(found.identity, found.name) for found in find_sequences(folder)]
        [('ann', 'ann/walk')]
    """
    root = Path(root)
    if not root.exists():
        raise FileNotFoundError(
            f"expected a folder of sequences, got {root}, which does not exist. "
            f"Check the path (relative paths start at {Path.cwd()})."
        )
    if not root.is_dir():
        raise ValueError(
            f"expected a folder of sequences, got the file {root}. "
            f"Read a single sequence with load_silhouettes."
        )
    paths = list(_walk(root, frozenset()))
    if paths == [root]:
        raise ValueError(
            f"expected a folder of sequences, got {root}, which holds the frames of one. "
            f"Read it with load_silhouettes, or give the folder above it."
        )
    found = []
    for path in paths:
        relative = path.relative_to(root)
        name = relative if path.is_dir() else relative.with_suffix("")
        if name.parts:  # loose images beside the identities' folders are no sequence
            found.append(SequencePath(name.parts[0], name.as_posix(), path))
    if not found:
        raise ValueError(f"expected sequences below {root}, found none. Known layouts: {_LAYOUTS}.")
    times = Counter(sequence.name for sequence in found)
    found = [
        # walk.gif beside walk.npy: the suffix tells them apart.
        replace(sequence, name=sequence.path.relative_to(root).as_posix())
        if times[sequence.name] > 1
        else sequence
        for sequence in found
    ]
    return sorted(found, key=lambda sequence: natural_order(sequence.name))


def _visible(folder: Path) -> list[Path]:
    """Lists a folder without hidden entries, in natural order."""
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    return sorted(entries, key=lambda entry: natural_order(entry.name))


def _walk(folder: Path, ancestors: frozenset[Path]) -> Iterator[Path]:
    """Yields every sequence in ``folder``; ``ancestors`` stop links that lead back up."""
    resolved = folder.resolve()
    if resolved in ancestors:
        return
    frames = []
    for entry in _visible(folder):
        suffix = entry.suffix.lower()
        if entry.is_dir():
            yield from _walk(entry, ancestors | {resolved})
        elif suffix in _SEQUENCE_SUFFIXES:
            yield entry
        elif suffix in FRAME_SUFFIXES:
            frames.append(entry)
    if frames and frames[0].suffix.lower() in ANIMATED_SUFFIXES and is_animated(frames[0]):
        yield from frames
    elif frames:
        yield folder


def _load_folder(folder: Path) -> Tensor:
    """Reads a folder of still images ``[T, H, W]``."""
    entries = _visible(folder)
    files = [entry for entry in entries if entry.suffix.lower() in FRAME_SUFFIXES]
    if not files:
        sequences = [
            entry.name
            for entry in entries
            if entry.is_dir() or entry.suffix.lower() in _SEQUENCE_SUFFIXES
        ]
        if sequences:
            raise ValueError(
                f"expected frames in {folder}, got a folder of sequences "
                f"({', '.join(sequences[:3])}{', ...' if len(sequences) > 3 else ''}). "
                f"Load each one; find_sequences lists them."
            )
        raise ValueError(
            f"expected frames ({', '.join(FRAME_SUFFIXES)}) in {folder}, found none. "
            f"Check the path."
        )
    files = _without_energy_images(files, folder)
    pictures = []
    for file in files:
        inside = read_image(file)
        if len(inside) > 1:
            raise ValueError(
                f"expected one frame per image in {folder}, got {len(inside)} in {file.name}. "
                f"Load the animation by its own path."
            )
        pictures += inside
    return _stack(pictures, files)


def _without_energy_images(files: list[Path], folder: Path) -> list[Path]:
    """Leaves ``gei.png`` out, a mean of the frames beside them; warns of several sequences."""
    frames = [file for file in files if "gei" not in re.findall("[a-z]+", file.stem.lower())]
    if 0 < len(frames) < len(files):
        left_out = ", ".join(file.name for file in files if file not in frames)
        text = f"expected frames alone in {folder}, got {left_out}, which was left out."
        warnings.warn(text, SilhouetteWarning, stacklevel=5)
    else:
        frames = files
    # The last number of a name counts the frames; what is before it names the sequence.
    stems = Counter(re.sub(r"\d+(?=\D*$)", "", file.stem) for file in frames)
    if len(stems) > 1 and len(frames) > len(stems):
        some = ", ".join(repr(stem) for stem in list(stems)[:3])
        text = (
            f"expected the frames of one sequence in {folder}, got names that begin in "
            f"{len(stems)} ways ({some}{', ...' if len(stems) > 3 else ''}); they were read as one "
            f"sequence, in natural order. Put sequences into separate folders."
        )
        warnings.warn(text, SilhouetteWarning, stacklevel=5)
    return frames


def _stack(pictures: list[Picture], files: list[Path]) -> Tensor:
    """Joins frames to ``[T, H, W]``; empties the list, so that frames are not held twice.

    Smaller frames, as tight crops are, get margins: pre-treatment crops each frame to the person
    anyway. Margins have the ground's colour, bright where a mask is inverted.
    """
    labels = {picture.label: file for picture, file in zip(pictures, files, strict=True)}
    labels.pop("", None)
    if len(labels) > 1:
        first, second = list(labels)[:2]
        raise ValueError(
            f"expected one person, got label maps of several classes: {first} in {labels[first]}, "
            f"{second} in {labels[second]}. Save the masks of one class."
        )
    height, width = (max(picture.levels.shape[axis] for picture in pictures) for axis in (0, 1))
    frames = np.empty((len(pictures), height, width), np.uint8)
    for index in reversed(range(len(pictures))):
        levels = pictures.pop().levels
        if levels.shape != (height, width):
            edges = np.concatenate([levels[0], levels[-1], levels[:, 0], levels[:, -1]])
            frames[index] = 255 if (edges > 127).mean() > 0.75 else 0
        top, left = (height - levels.shape[0]) // 2, (width - levels.shape[1]) // 2
        frames[index, top : top + levels.shape[0], left : left + levels.shape[1]] = levels
    return torch.from_numpy(frames)


def _array_to_frames(array: np.ndarray, path: Path) -> Tensor:
    """Brings an array of any usual layout to ``[T, H, W]`` uint8."""
    if array.ndim >= 3 and array.shape[-1] == 3 and array.size:
        first = array[..., :1]
        if not np.array_equal(array, np.broadcast_to(first, array.shape)):
            raise ValueError(
                f"expected silhouettes in {path}, got colour frames {array.shape}. Segment the "
                f"person first; a grey image has three equal channels."
            )
        array = array[..., 0]
    elif array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim == 2:
        array = array[None]
    return _checked(array, path)


def _checked(frames: Tensor | np.ndarray, path: Path) -> Tensor:
    """Brings frames to grey levels; errors name the file."""
    try:
        return as_frames(frames)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
