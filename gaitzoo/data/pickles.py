"""Reads pickled numpy arrays, as OpenGait stores silhouettes, without running what a pickle asks.

A pickle is a small program that may call anything it can name. Here it can name only what a plain
array of numbers is made of, and each name leads to a stand-in made anew, not to numpy itself: the
pieces are checked and the array is built from them by this module. Arrays written by numpy 1 and
2 under pickle protocols 2 to 5 are understood.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

__all__ = ["load_array_pickle"]

_MEMO_LIMIT = 1000
"""An array's pickle remembers about twenty objects; the unpickler allocates up to the index."""
_PROGRAM_LIMIT = 1000
"""Operations of a pickle; an array needs about forty."""
_NEEDLESS = ("DICT", "EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_SET", "ADDITEMS", "FROZENSET")
_ERRORS = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ImportError,
    OverflowError,
    MemoryError,
)


def load_array_pickle(path: Path) -> np.ndarray:
    """Reads a pickle that holds one numpy array of numbers and nothing else.

    Args:
        path: The pickle.

    Returns:
        The array, of any shape and of a boolean, integer or float type; may be read-only.

    Raises:
        ValueError: If the file is damaged or holds anything but such an array.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "000.pkl")
        ...     _ = path.write_bytes(pickle.dumps(np.arange(3, dtype=np.uint8)))
        ...     load_array_pickle(path)
        array([0, 1, 2], dtype=uint8)
    """
    try:
        data = path.read_bytes()
        _check_sizes(data)
        loaded = _ArrayUnpickler(io.BytesIO(data)).load()
        if not isinstance(loaded, _Array) or loaded.value is None:
            raise pickle.UnpicklingError(f"an object of type {type(loaded).__name__}")
    except _ERRORS as error:
        raise ValueError(
            f"expected a pickled numpy array of numbers in {path}, got: "
            f"{str(error) or type(error).__name__}. Nothing else is unpickled; write the array "
            f"again, best with numpy.save."
        ) from error
    return loaded.value


def _check_sizes(data: bytes) -> None:
    """Refuses what no array's pickle needs: long programs, dictionaries, a large memo."""
    for count, (operation, argument, _) in enumerate(pickletools.genops(data)):
        # Deeply nested values can overflow the interpreter's stack when they are looked at.
        if count >= _PROGRAM_LIMIT:
            raise pickle.UnpicklingError(f"a program of more than {_PROGRAM_LIMIT} operations")
        if operation.name in _NEEDLESS:
            raise pickle.UnpicklingError(f"a pickle that builds other objects ({operation.name})")
        if operation.name.endswith("PUT") and isinstance(argument, int) and argument > _MEMO_LIMIT:
            raise pickle.UnpicklingError(f"a memo of {argument} entries")


class _ArrayUnpickler(pickle.Unpickler):
    """Gives stand-ins for the names in a pickled array and refuses all others."""

    def find_class(self, module: str, name: str) -> Callable[..., object]:
        """Looks up what a pickle names."""
        # New functions on each call: a pickle can set attributes of whatever it is given.
        stand_ins: dict[tuple[str, str], Callable[..., object]] = {
            ("numpy", "ndarray"): lambda: None,
            ("numpy", "dtype"): lambda code, align, copy: _Dtype(code),
            ("numpy.core.multiarray", "_reconstruct"): lambda kind, shape, code: _Array(),
            ("numpy.core.numeric", "_frombuffer"): lambda *parts: _Array(_build_array(*parts)),
            ("_codecs", "encode"): lambda text, encoding: text.encode("latin1"),
        }
        stand_in = stand_ins.get((module.replace("numpy._core.", "numpy.core."), name))
        if stand_in is None:
            raise pickle.UnpicklingError(f"a reference to {module}.{name}, refused without a run")
        return stand_in


class _Dtype:
    """What a pickle says of a data type."""

    __slots__ = ("value",)

    def __init__(self, code: object) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"b1|[iu][1248]|f[248]", code):
            got = code if isinstance(code, str) else type(code).__name__
            raise pickle.UnpicklingError(f"an array of dtype {got[:20]!r}")
        self.value = np.dtype(code)

    def __setstate__(self, state: tuple[object, ...]) -> None:
        byte_order = state[1]
        if byte_order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("an array of unknown byte order")
        self.value = self.value.newbyteorder(byte_order)


class _Array:
    """An array that a pickle first declares, then fills."""

    __slots__ = ("value",)

    def __init__(self, value: np.ndarray | None = None) -> None:
        self.value = value

    def __setstate__(self, state: tuple[object, ...]) -> None:
        _, shape, dtype, is_fortran, data = state
        self.value = _build_array(data, dtype, shape, "F" if is_fortran else "C")


def _build_array(
    data: object, dtype: object, shape: object, order: object, axis_order: object = None
) -> np.ndarray:
    """Builds an array of the parts in a pickle; ``"K"`` order means C order with axes moved."""
    if (
        not isinstance(data, (bytes, bytearray))
        or not isinstance(dtype, _Dtype)
        or not isinstance(shape, tuple)
        or not all(type(length) is int and length >= 0 for length in shape)
        or math.prod(shape) * dtype.value.itemsize != len(data)
    ):
        raise pickle.UnpicklingError("an array whose shape, type and data do not fit together")
    array = np.ndarray(shape, dtype.value, data, order="F" if order == "F" else "C")
    return array.transpose(axis_order) if isinstance(axis_order, tuple) else array
