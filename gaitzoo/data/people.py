"""Several people in one clip of masks, told apart by their ids: each one's silhouettes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gaitzoo.data.coco_masks import decode_coco
from gaitzoo.data.content import SilhouetteWarning
from gaitzoo.data.normalize import EMPTY_GREY_SUM
from gaitzoo.data.segmentation import FrameMasks
from gaitzoo.data.silhouettes import normalize_silhouettes

__all__ = ["split_people"]

_VOID = 255
_FEWEST_PIXELS = EMPTY_GREY_SUM // 255 + 1  # of a mask that the pre-treatment keeps


def split_people(
    masks: Tensor | np.ndarray | Sequence[Any],
    ids: Sequence[int] | Tensor | np.ndarray | None = None,
    *,
    size: int = 64,
) -> dict[int, Tensor]:
    """Silhouettes of each person of a clip, normalised as by :func:`normalize_silhouettes`.

    Args:
        masks: One of

            * a label map ``[T, H, W]`` of whole numbers: 0 is nobody, every other value a person;
              255 beside other values is void; 0 and 255 alone are one person, 1;
            * masks ``[T, N, H, W]`` of N people: booleans, 0 and 1, or 0 and 255; ``ids`` names
              them, else they are 0 to N - 1;
            * a list of frames, each a mapping from ids to masks ``[h, w]`` or to run lengths
              (``{"size": [h, w], "counts": ...}``, as COCO has them);
            * a list of :class:`~gaitzoo.data.segmentation.FrameMasks` with ``ids``;
            * a list of masks or run lengths of any sizes, crops for example, in the order of
              time, with the id of each in ``ids``.
        ids: See above.
        size: Height and width of the result in pixels, even.

    Returns:
        Id to ``[T', size, size]`` uint8 in 0..255, sorted by id. T' counts the frames in which
        the person is: others, and masks of a few pixels, are left out.

    Raises:
        TypeError: If ``masks`` is nothing of the above.
        ValueError: If shapes, values or ``ids`` do not fit, or nobody is in any frame.

    Warns:
        SilhouetteWarning: If somebody is too small in every frame (and left out), or silhouettes
            are doubtful.

    Example:
        >>> labels = np.zeros((5, 120, 160), np.uint8)
        >>> labels[:, 20:100, 30:60] = 1
        >>> labels[2:, 30:110, 90:120] = 7
        >>> {person: tuple(frames.shape) for person, frames in split_people(labels).items()}
        {1: (5, 64, 64), 7: (3, 64, 64)}
    """
    clips: dict[int, list[np.ndarray]] = {}
    for person, mask in _pieces(masks, ids):
        frames = clips.setdefault(person, [])
        if np.count_nonzero(mask) >= _FEWEST_PIXELS:
            frames.append(mask)
    small = sorted(person for person, frames in clips.items() if not frames)
    if len(small) == len(clips):
        raise ValueError(
            f"expected people of {_FEWEST_PIXELS} pixels or more in some frame, got "
            f"{len(small) or 'none'} at all; check the masks, or their scale"
        )
    if small:
        warnings.warn(
            f"expected people of {_FEWEST_PIXELS} pixels or more, got smaller ones in every frame "
            f"of {', '.join(map(str, small[:6]))}; they were left out",
            SilhouetteWarning,
            stacklevel=2,
        )
    return {
        person: normalize_silhouettes(_stacked(clips[person]), size)
        for person in sorted(set(clips).difference(small))
    }


def _pieces(masks: Any, ids: Any) -> Iterator[tuple[int, np.ndarray]]:
    """Ids and masks in the order of time."""
    if isinstance(masks, (Tensor, np.ndarray)):
        array = masks.detach().cpu().numpy() if isinstance(masks, Tensor) else masks
        if array.ndim == 3:
            _refuse_ids(ids, "a label map, which holds its ids")
            return _of_label_map(array)
        if array.ndim == 4:
            return _of_stack(array, ids)
        raise ValueError(
            f"expected a label map [T, H, W] or masks [T, N, H, W], got {list(array.shape)}; one "
            "frame alone becomes masks[None]"
        )
    if not isinstance(masks, Sequence) or isinstance(masks, (str, bytes)):
        raise TypeError(f"expected arrays, or a list by frames, got {type(masks).__name__}")
    if all(isinstance(frame, FrameMasks) for frame in masks):
        _refuse_ids(ids, "FrameMasks, which hold their ids")
        return _of_frame_masks(masks)
    if all(isinstance(frame, Mapping) and "counts" not in frame for frame in masks):
        _refuse_ids(ids, "mappings from ids to masks")
        return ((_id(person), _mask(mask)) for frame in masks for person, mask in frame.items())
    names = _checked_ids(ids, len(masks), "mask of the list")
    return ((name, _mask(mask)) for name, mask in zip(names, masks, strict=True))


def _of_label_map(labels: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    if labels.dtype.kind not in "biu":
        raise TypeError(
            f"expected a label map of whole numbers, got {labels.dtype}; convert it with "
            "labels.astype('int64')"
        )
    found = [int(value) for value in np.unique(labels) if value != 0]
    if found and found[0] < 0:
        raise ValueError(f"expected ids of 1 and more in a label map, got {found[0]}")
    if found == [_VOID]:
        labels, found = labels == _VOID, [1]
    people = [value for value in found if value != _VOID]
    for frame in labels:
        present = set(np.unique(frame).tolist())
        yield from ((person, frame == person) for person in people if person in present)


def _of_stack(masks: np.ndarray, ids: Any) -> Iterator[tuple[int, np.ndarray]]:
    names = range(masks.shape[1])
    if ids is not None:
        names = _checked_ids(ids, masks.shape[1], "mask of a frame")
        if len(set(names)) < len(names):
            raise ValueError(f"expected every id once, got {names}; join masks of one person first")
    lit = _lit(masks)
    return ((name, mask) for frame in lit for name, mask in zip(names, frame, strict=True))


def _of_frame_masks(frames: Sequence[FrameMasks]) -> Iterator[tuple[int, np.ndarray]]:
    for i, frame in enumerate(frames):
        if frame.ids is None and len(frame.masks):
            raise ValueError(
                f"expected FrameMasks with ids, got none in frame {i}; people are to be tracked "
                "first"
            )
        names = [] if frame.ids is None else frame.ids.tolist()
        yield from zip(names, frame.masks, strict=True)


def _mask(mask: Any) -> np.ndarray:
    """``[h, w]`` bool of a mask or of run lengths."""
    if isinstance(mask, Mapping):
        return decode_coco(mask)
    array = mask.detach().cpu().numpy() if isinstance(mask, Tensor) else mask
    if not isinstance(array, np.ndarray):
        raise TypeError(f"expected masks as arrays or run lengths, got {type(mask).__name__}")
    if array.ndim != 2:
        raise ValueError(f"expected masks [h, w], got {list(array.shape)}")
    return _lit(array)


def _lit(masks: np.ndarray) -> np.ndarray:
    """Masks as booleans; anything else than two values is refused."""
    if masks.dtype.kind == "b":
        return masks
    if masks.dtype.kind not in "iuf":
        raise TypeError(f"expected masks of booleans or numbers, got {masks.dtype}")
    highest = masks.max(initial=0)
    white = 255 if highest > 1 else 1
    if not ((masks == 0) | (masks == white)).all():
        raise ValueError(
            f"expected masks of 0 and 1 or of 0 and 255, got other values up to {highest:g}; "
            "compare them first: masks > 0.5, or masks == id"
        )
    return masks == white


def _checked_ids(ids: Any, count: int, what: str) -> list[int]:
    given = ids.tolist() if isinstance(ids, (Tensor, np.ndarray)) else ids
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != count:
        got = "none" if given is None else repr(given)
        raise ValueError(f"expected ids, a whole number for each {what} ({count}), got {got}")
    return [_id(name) for name in given]


def _id(name: Any) -> int:
    if isinstance(name, (bool, np.bool_)) or not isinstance(name, (int, np.integer)):
        raise ValueError(f"expected ids as whole numbers, got {name!r}")
    return int(name)


def _refuse_ids(ids: Any, what: str) -> None:
    if ids is not None:
        raise ValueError(f"expected no ids with {what}; leave them out")


def _stacked(masks: Sequence[np.ndarray]) -> Tensor:
    """Masks of any sizes as ``[T, H, W]``, black to the right and below."""
    height = max(mask.shape[0] for mask in masks)
    width = max(mask.shape[1] for mask in masks)
    canvas = np.zeros((len(masks), height, width), bool)
    for frame, mask in zip(canvas, masks, strict=True):
        frame[: mask.shape[0], : mask.shape[1]] = mask
    return torch.from_numpy(canvas)
