"""Masks as COCO writes them: run lengths, compressed or not, and polygons.

Polygons are filled by pycocotools (https://github.com/ppwwyyxx/cocoapi, BSD licence), COCO's own
code: ``pip install "gaitzoo[segmentation]"``. Run lengths are read here, because those of a file
that is cut off have to be found before they are decoded.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["decode_coco", "fill_polygons"]

_FEWEST_NUMBERS = 6  # of a polygon; pycocotools takes four as a box


def decode_coco(segmentation: Any, size: tuple[int, int] | None = None) -> np.ndarray:
    """One mask from its entry ``"segmentation"`` in a COCO file.

    Args:
        segmentation: ``{"size": [H, W], "counts": ...}`` with compressed counts (text) or
            uncompressed ones (a list), or a list of polygons ``[x, y, x, y, ...]`` in pixels.
        size: Height and width wanted; ``None`` = those of the run lengths.

    Returns:
        ``[H, W]`` bool.

    Raises:
        ValueError: If the entry is damaged, of another form or of another size.
        ImportError: If it is polygons, without pycocotools.

    Example:
        >>> decode_coco({"size": [2, 3], "counts": [1, 2, 3]}).astype(int)
        array([[0, 1, 0],
               [1, 0, 0]])
    """
    if isinstance(segmentation, Mapping):
        return _decode_runs(segmentation, size)
    if size is None or not isinstance(segmentation, Sequence) or isinstance(segmentation, str):
        raise ValueError(
            'expected run lengths {"size": [H, W], "counts": ...}, or polygons with the size of '
            f"their frame, got {_shown(segmentation)}"
        )
    return fill_polygons(segmentation, size)


def fill_polygons(polygons: Sequence[Any], size: tuple[int, int]) -> np.ndarray:
    """The pixels inside any of several polygons.

    Args:
        polygons: Each ``[x, y, x, y, ...]`` in pixels, three corners or more.
        size: Height and width of the frame.

    Returns:
        ``[H, W]`` bool.

    Raises:
        ValueError: If a polygon is none.
        ImportError: Without pycocotools.

    Example:
        >>> fill_polygons([[1, 0, 3, 0, 3, 2, 1, 2]], (3, 4)).astype(int)
        array([[0, 1, 1, 0],
               [0, 1, 1, 0],
               [0, 0, 0, 0]])
    """
    corners = [_corners(polygon) for polygon in polygons]
    if not corners:
        return np.zeros(size, bool)
    mask = _pycocotools()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of numpy 2
        return mask.decode(mask.merge(mask.frPyObjects(corners, *size))).astype(bool)


def _decode_runs(runs: Mapping[str, Any], size: tuple[int, int] | None) -> np.ndarray:
    found: Any = runs.get("size")
    counts: Any = runs.get("counts")
    if not _whole(found) or len(found) != 2 or min(found) < 1:
        raise ValueError(f'expected "size": [H, W] in run lengths, got {_shown(found)}')
    height, width = found
    if size is not None and (height, width) != tuple(size):
        raise ValueError(
            f"expected run lengths of a mask of {size[0]} x {size[1]} pixels, got {height} x "
            f"{width}; masks have the size of the frames"
        )
    if isinstance(counts, (str, bytes)):
        text = counts.encode("ascii", "replace") if isinstance(counts, str) else counts
        runs_found = _uncompressed(text)
    else:
        runs_found = list(counts) if _whole(counts) else []
    if min(runs_found, default=-1) < 0 or sum(runs_found) != height * width:
        raise ValueError(
            f"expected run lengths that add up to {height * width} pixels, as text or a list of "
            f"whole numbers, got others, damaged ones or a part: {_shown(counts)}"
        )
    lit = np.arange(len(runs_found)) % 2 == 1
    return np.repeat(lit, runs_found).reshape(width, height).T


def _uncompressed(text: bytes) -> list[int]:
    """The run lengths of a text, none where it is damaged.

    Source: the format of pycocotools' ``rleToString``. Six bits per character from "0" on, the
    sixth says that more follow; from the fourth run on, a number is the difference to the run
    before the last.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = character - 48
        if not 0 <= bits < 64:
            return []
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return [] if shift else runs


def _corners(polygon: Any) -> list[float]:
    try:
        numbers = [float(number) for number in polygon]
    except (TypeError, ValueError):
        numbers = []
    enough = len(numbers) >= _FEWEST_NUMBERS and len(numbers) % 2 == 0
    if not enough or not all(map(math.isfinite, numbers)):
        raise ValueError(
            f"expected a polygon [x, y, x, y, ...] of three corners or more, got {_shown(polygon)}"
        )
    return numbers


def _whole(values: Any) -> bool:
    return isinstance(values, (list, tuple)) and all(type(number) is int for number in values)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _pycocotools() -> Any:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise ImportError(
            f"polygons need the package pycocotools ({error}); pip install 'gaitzoo[segmentation]'"
        ) from error
    return mask
