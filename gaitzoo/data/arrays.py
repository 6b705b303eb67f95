"""Files of one array of numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gaitzoo.data.pickles import load_array_pickle

__all__ = ["ARRAY_SUFFIXES", "load_array"]

ARRAY_SUFFIXES = (".npy", ".npz", ".pkl")


def load_array(path: Path) -> np.ndarray:
    """Reads an array, running no code of the file.

    Args:
        path: ``.npy``, ``.npz`` (its first array) or ``.pkl`` (OpenGait's pickled array).

    Returns:
        The array, writable.

    Raises:
        ValueError: If the file is damaged, of another kind, or holds no array of numbers.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "numbers.npy")
        ...     np.save(path, np.arange(3))
        ...     load_array(path)
        array([0, 1, 2])
    """
    if path.suffix == ".pkl":
        return load_array_pickle(path).copy()
    if path.suffix not in ARRAY_SUFFIXES:
        raise ValueError(f"expected an array ({', '.join(ARRAY_SUFFIXES)}), got {path}")
    try:
        loaded = np.load(path, allow_pickle=False)
        return loaded[loaded.files[0]] if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
    except (ValueError, OSError, EOFError, KeyError, IndexError) as error:
        raise ValueError(f"{path} is damaged or no array: {error}") from error
