"""Silhouette files: frame folders, animations, numpy arrays and OpenGait pickles.

Everything comes back as one uint8 tensor per sequence. Nothing in a file is ever run: arrays of
objects are refused, and pickles are read by :mod:`gaitzoo.data.pickles`.
"""

from __future__ import annotations

import os
import re
import struct
import tokenize
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gaitzoo.data.frames import as_frames
from gaitzoo.data.pickles import load_array_pickle
from gaitzoo.data.silhouettes import EMPTY_GREY_SUM

__all__ = ["SequencePath", "find_sequences", "load_silhouettes"]

_FRAME_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_SEQUENCE_SUFFIXES = (".gif", ".apng", ".npy", ".npz", ".pkl")
_ANIMATED_SUFFIXES = (".png", ".webp")
_IMAGE_SUFFIXES = (*_FRAME_SUFFIXES, ".gif", ".apng")
_IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF")
_IMAGE_ERRORS = (
    OSError,
    SyntaxError,  # Pillow's word for a broken PNG
    EOFError,
    ValueError,
    LookupError,  # Pillow leaves these uncaught in damaged GIF and APNG files
    struct.error,
    Image.DecompressionBombError,
)
_NUMPY_ERRORS = (
    OSError,
    ValueError,
    EOFError,
    MemoryError,
    RuntimeError,  # encrypted archives
    SyntaxError,  # this and the next: damaged headers
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
_GREY_MODES = ("1", "L")
_COLOUR_MODES = ("P", "PA", "LA", "La", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr")
_COLOUR_SHARE = 0.04
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

    Images in colour modes are read where their content is grey. Transparent images are laid over
    black; where that leaves colour or nothing, as in a cut-out person, the opacity is the
    silhouette. Arrays hold booleans, integers in 0..255 (only 0 and 1: taken as a mask), or
    floats in [0, 1].

    Args:
        path: File or folder.

    Returns:
        ``[T, H, W]`` uint8, 0..255, person bright on black.

    Raises:
        FileNotFoundError: If nothing is at ``path``.
        ValueError: If the content is broken, not a silhouette sequence, of an unknown type, or a
            pickle that holds more than a numpy array.

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
            f"Expected a silhouette file or a folder of frames, got {path}, which does not exist. "
            f"Check the path (relative paths start at {Path.cwd()})."
        )
    suffix = path.suffix.lower()
    if path.is_dir():
        return as_frames(_load_folder(path))
    if suffix in _IMAGE_SUFFIXES:
        return as_frames(_load_image(path))
    if suffix in (".npy", ".npz"):
        return _array_to_frames(_load_numpy(path), path)
    if suffix == ".pkl":
        return _array_to_frames(load_array_pickle(path), path)
    raise ValueError(
        f"Expected one of {', '.join((*_IMAGE_SUFFIXES, '.npy', '.npz', '.pkl'))} or a folder of "
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
            f"Expected a folder of sequences, got {root}, which does not exist. "
            f"Check the path (relative paths start at {Path.cwd()})."
        )
    if not root.is_dir():
        raise ValueError(
            f"Expected a folder of sequences, got the file {root}. "
            f"Read a single sequence with load_silhouettes."
        )
    paths = list(_walk(root, frozenset()))
    if paths == [root]:
        raise ValueError(
            f"Expected a folder of sequences, got {root}, which holds the frames of one. "
            f"Read it with load_silhouettes, or give the folder above it."
        )
    found = []
    for path in paths:
        relative = path.relative_to(root)
        name = relative if path.is_dir() else relative.with_suffix("")
        if name.parts:  # loose images beside the identities' folders are no sequence
            found.append(SequencePath(name.parts[0], name.as_posix(), path))
    if not found:
        raise ValueError(f"Expected sequences below {root}, found none. Known layouts: {_LAYOUTS}.")
    times = Counter(sequence.name for sequence in found)
    found = [
        # walk.gif beside walk.npy: the suffix tells them apart.
        replace(sequence, name=sequence.path.relative_to(root).as_posix())
        if times[sequence.name] > 1
        else sequence
        for sequence in found
    ]
    return sorted(found, key=lambda sequence: _natural_order(sequence.name))


def _natural_order(text: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sorts numbers inside names by value; the text itself settles ``1`` against ``01``."""
    pieces = re.findall(r"\d+|\D+", text)
    ranks = [(0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in pieces]
    return ranks, text


def _visible(folder: Path) -> list[Path]:
    """Lists a folder without hidden entries, in natural order."""
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    return sorted(entries, key=lambda entry: _natural_order(entry.name))


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
        elif suffix in _FRAME_SUFFIXES:
            frames.append(entry)
    if frames and frames[0].suffix.lower() in _ANIMATED_SUFFIXES and _is_animated(frames[0]):
        yield from frames
    elif frames:
        yield folder


def _is_animated(path: Path) -> bool:
    """Tells whether an image has several frames; a broken one is left for the reader to refuse."""
    try:
        with Image.open(path, formats=_IMAGE_FORMATS) as image:
            return getattr(image, "n_frames", 1) > 1
    except _IMAGE_ERRORS:
        return False


def _load_folder(folder: Path) -> Tensor:
    """Reads a folder of still images ``[T, H, W]``."""
    entries = _visible(folder)
    files = [entry for entry in entries if entry.suffix.lower() in _FRAME_SUFFIXES]
    if not files:
        sequences = [
            entry.name
            for entry in entries
            if entry.is_dir() or entry.suffix.lower() in _SEQUENCE_SUFFIXES
        ]
        if sequences:
            raise ValueError(
                f"Expected frames in {folder}, got a folder of sequences "
                f"({', '.join(sequences[:3])}{', ...' if len(sequences) > 3 else ''}). "
                f"Load each one; find_sequences lists them."
            )
        raise ValueError(
            f"Expected frames ({', '.join(_FRAME_SUFFIXES)}) in {folder}, found none. "
            f"Check the path."
        )
    frames = []
    for file in files:
        frame = _load_image(file)
        if len(frame) > 1:
            raise ValueError(
                f"Expected one frame per image in {folder}, got {len(frame)} in {file.name}. "
                f"Load the animation by its own path."
            )
        if frames and frame.shape != frames[0].shape:
            raise ValueError(
                f"Expected frames of one size, got {_size(frames[0])} in {files[0]} and "
                f"{_size(frame)} in {file}. Put sequences into separate folders, or pad the "
                f"frames to one size."
            )
        frames.append(frame)
    return torch.cat(frames)


def _size(frames: Tensor) -> str:
    """Words the size of ``[T, H, W]`` for a message."""
    return f"{frames.shape[1]} x {frames.shape[2]} (height x width)"


def _load_image(path: Path) -> Tensor:
    """Reads a still or animated image ``[T, H, W]``."""
    return torch.from_numpy(np.stack([_to_grey(image, path) for image in _decode(path)]))


def _decode(path: Path) -> Iterator[Image.Image]:
    """Yields the frames of an image, each valid until the next is asked for."""
    try:
        with Image.open(path, formats=_IMAGE_FORMATS) as image:
            for index in range(getattr(image, "n_frames", 1)):
                image.seek(index)
                image.load()
                yield image
            if image.format == "GIF" and not _ends_with(path, b";"):
                raise EOFError("a GIF that is cut off")  # Pillow leaves the missing frames out
    except _IMAGE_ERRORS as error:
        raise ValueError(
            f"Expected a readable image (PNG, JPEG, BMP, WebP, GIF) in {path}, got: {error}. "
            f"Write the file again; it may be cut off, or of another type than its name says."
        ) from error


def _ends_with(path: Path, mark: bytes) -> bool:
    """Compares the last bytes of a file that is not empty."""
    with path.open("rb") as file:
        file.seek(-len(mark), os.SEEK_END)
        return file.read() == mark


def _to_grey(image: Image.Image, path: Path) -> np.ndarray:
    """Converts one frame to grey levels ``[H, W]``; refuses colour photographs."""
    if image.mode not in _GREY_MODES + _COLOUR_MODES:
        raise ValueError(
            f"Expected an image of 8 bits per channel in {path}, got pixel mode {image.mode}. "
            f"Save the mask with 8 bits, white on black."
        )
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        opacity = layer.getchannel("A")
        black = Image.new("RGBA", layer.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, layer).convert("RGB")
        if opacity.getextrema() != (255, 255) and (_is_colour(image) or not image.getbbox()):
            image = opacity
    if image.mode not in _GREY_MODES and _is_colour(image.convert("RGB")):
        raise ValueError(
            f"Expected a grey silhouette in {path}, got a colour image. Segment the person first "
            f"and save the mask, white on black."
        )
    return np.array(image.convert("L"))


def _is_colour(image: Image.Image) -> bool:
    """Tells a colour photograph or label map from a grey image with a colour palette.

    Palettes that dither grey tint single pixels, but not their neighbourhood: means over 8 x 8
    pixels of such animations differ by 1 % between channels, photographs by 10 % and more.
    """
    channels = np.asarray(image.reduce(8), dtype=np.int64)
    brightest = channels.max(axis=2)
    difference = brightest - channels.min(axis=2)
    bright_enough = np.asarray(image.convert("L")).sum(dtype=np.int64) > EMPTY_GREY_SUM
    return bool(bright_enough and difference.sum() > _COLOUR_SHARE * brightest.sum())


def _array_to_frames(array: np.ndarray, path: Path) -> Tensor:
    """Brings an array of any usual layout to ``[T, H, W]`` uint8."""
    if array.ndim >= 3 and array.shape[-1] == 3 and array.size:
        first = array[..., :1]
        if not np.array_equal(array, np.broadcast_to(first, array.shape)):
            raise ValueError(
                f"Expected silhouettes in {path}, got colour frames {array.shape}. Segment the "
                f"person first; a grey image has three equal channels."
            )
        array = array[..., 0]
    elif array.ndim == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim == 2:
        array = array[None]
    try:
        return as_frames(array)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _load_numpy(path: Path) -> np.ndarray:
    """Reads the one array of a ``.npy`` or ``.npz`` file; objects are refused."""
    try:
        if path.suffix.lower() == ".npy":
            # Mapping compares the size that the header promises with the file's own.
            return np.array(np.lib.format.open_memmap(path, mode="r"))
        with path.open("rb") as file, np.lib.npyio.NpzFile(file) as archive:
            names = archive.files
            if len(names) == 1:
                return np.asarray(archive[names[0]])
    except _NUMPY_ERRORS as error:
        raise ValueError(
            f"Expected a numeric numpy array in {path}, got a file that cannot be read: {error}. "
            f"Write it again with numpy.save; arrays of objects are refused."
        ) from error
    raise ValueError(
        f"Expected one array in {path}, got {len(names)}: {', '.join(names) or 'none'}. "
        f"Save the silhouettes alone, or give numpy.load(path)[name] to the transform."
    )
