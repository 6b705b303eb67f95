"""Tables that turn markers into meshes, from files that the user has.

Nothing is downloaded and nothing comes with the library: the body models behind such tables have
licences of their own.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

__all__ = ["load_marker_basis"]

_SPARSE = {"format", "shape", "data"}


def load_marker_basis(
    path: str | PathLike[str], selector_path: str | PathLike[str] | None = None
) -> tuple[Tensor, Tensor]:
    """Reads the weights of markers in vertices, and which vertex each marker is.

    Virtual Marker (https://github.com/ShirleyMaxx/VirtualMarker, Apache-2.0) publishes such tables
    for 16, 32, 64 and 96 markers and 5664 vertices of SMPL. How its files name them was not seen;
    what is understood here: one ``.npz`` with arrays ``A`` and ``B``, or two files with one table
    each, plain arrays or sparse ones as ``scipy.sparse.save_npz`` writes them (scipy is not
    needed). Pickles are never run.

    Args:
        path: File with both, or with A alone.
        selector_path: File with B; ``None`` = it is in the first one.

    Returns:
        A ``[K, V]``, float32, not negative, every column of sum one, for
        :class:`gaitzoo.MarkerToMesh`; B ``[V, K]``, float32, for
        :func:`gaitzoo.markers_from_vertices`, one vertex per marker.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file is no such table, or the tables do not fit each other.

    Example:
        >>> import numpy
        >>> numpy.savez("basis.npz", A=[[1.0, 0.5, 0.0], [0.0, 0.5, 1.0]], B=numpy.eye(3)[:, ::2])
        >>> basis, selector = load_marker_basis("basis.npz")
        >>> basis.shape, selector.shape
        (torch.Size([2, 3]), torch.Size([3, 2]))
    """
    if selector_path is None:
        tables = _read(Path(path))
        if not {"A", "B"} <= set(tables):
            raise ValueError(
                f"expected arrays A and B in {path}, got {', '.join(sorted(tables)) or 'none'}; "
                "give the file of B as selector_path if there are two"
            )
        basis, selector = tables["A"], tables["B"]
    else:
        basis, selector = _table(Path(path)), _table(Path(selector_path))
    for name, table in (("A", basis), ("B", selector)):
        if table.ndim != 2 or table.dtype.kind not in "fiub" or not np.isfinite(table).all():
            raise ValueError(
                f"expected {name} as a table of finite numbers, got {list(table.shape)} of "
                f"{table.dtype}"
            )
    if basis.shape != selector.shape[::-1]:
        raise ValueError(
            f"expected A [K, V] and B [V, K], got {list(basis.shape)} and {list(selector.shape)}"
        )
    if (basis < 0).any() or abs(basis.sum(0) - 1).max() > 1e-3:
        raise ValueError("expected columns of A that are not negative and sum to one, got others")
    if not ((selector == 0) | (selector == 1)).all() or (selector.sum(0) != 1).any():
        raise ValueError("expected one vertex per marker in the columns of B, got others")
    as_float = (torch.from_numpy(table.astype(np.float32)) for table in (basis, selector))
    first, second = as_float
    return first, second


def _read(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a ``.npz`` file by their names."""
    if not path.is_file():
        raise FileNotFoundError(f"expected a file of markers' weights, got {path}, which is none")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("another kind of file")
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"expected {path} as an .npz file of plain arrays, got {error}") from error


def _table(path: Path) -> np.ndarray:
    """The only table of a file."""
    arrays = _read(path)
    if set(arrays) >= _SPARSE:
        try:
            return _dense(arrays)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(f"expected a sparse table in {path}, got {error!r}") from error
    if len(arrays) != 1:
        raise ValueError(f"expected one table in {path}, got {', '.join(sorted(arrays)) or 'none'}")
    return next(iter(arrays.values()))


def _dense(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """A sparse table with all its zeros: formats csr, csc and coo."""
    kind = arrays["format"].item()
    kind = kind.decode() if isinstance(kind, bytes) else kind
    rows, columns = (int(size) for size in arrays["shape"])
    if kind == "coo":
        row, column = arrays["row"], arrays["col"]
    elif kind in ("csr", "csc"):
        pointers = arrays["indptr"]
        own = np.repeat(np.arange(len(pointers) - 1), np.diff(pointers))
        row, column = (own, arrays["indices"]) if kind == "csr" else (arrays["indices"], own)
    else:
        raise ValueError(f"expected csr, csc or coo, got {kind}")
    if not 0 < rows * columns <= 1 << 26:
        raise ValueError(f"expected a table of at most 67 million numbers, got {rows} x {columns}")
    if len(row) and (min(row.min(), column.min()) < 0):
        raise ValueError("expected places of 0 or more, got negative ones")
    table = np.zeros((rows, columns), arrays["data"].dtype)
    np.add.at(table, (row, column), arrays["data"])
    return table
