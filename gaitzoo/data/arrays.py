"""Files of one array of numbers."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from gaitzoo.data.pickles import load_array_pickle

__all__ = ["ARRAY_SUFFIXES", "READ_ERRORS", "load_array"]

ARRAY_SUFFIXES = (".npy", ".npz", ".pkl")

READ_ERRORS = (
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
"""What numpy raises for damaged files and those of another kind."""


def load_array(path: Path) -> np.ndarray:
    """Reads an array, running no code of the file.

    Args:
        path: ``.npy``, ``.npz`` with one array, or ``.pkl`` (OpenGait's pickled array).

    Returns:
        The array.

    Raises:
        ValueError: If the file is damaged, of another kind, or holds anything but one array of
            numbers.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "numbers.npy")
        ...     np.save(path, np.arange(3))
        ...     load_array(path)
        array([0, 1, 2])
    """
    suffix = path.suffix.lower()
    if suffix not in ARRAY_SUFFIXES:
        raise ValueError(f"expected an array ({', '.join(ARRAY_SUFFIXES)}), got {path}; convert it")
    if suffix == ".pkl":
        return load_array_pickle(path)
    try:
        if suffix == ".npy":
            # Mapping compares the size that the header promises with the file's own.
            return np.array(np.lib.format.open_memmap(path, mode="r"))
        with path.open("rb") as file, np.lib.npyio.NpzFile(file) as archive:
            names = archive.files
            if len(names) == 1:
                return np.asarray(archive[names[0]])
    except READ_ERRORS as error:
        raise ValueError(
            f"expected a numeric numpy array in {path}, got a file that cannot be read: {error}. "
            f"Write it again with numpy.save; arrays of objects are refused."
        ) from error
    raise ValueError(
        f"expected one array in {path}, got {len(names)}: {', '.join(names) or 'none'}. "
        f"Save each array to a file of its own."
    )
