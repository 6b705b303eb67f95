"""What is wrong with the mask of a person: cut by the border, hidden by others, small, blurred."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from gaitzoo.data.bodies import OTHER, find_pieces, judge
from gaitzoo.data.normalize import EMPTY_GREY_SUM

__all__ = [
    "Person",
    "area_outliers",
    "boxes_of",
    "find_duplicates",
    "find_occluded",
    "judge_person",
    "sharpness",
]

_BORDER = 1  # pixels; masks that were scaled up may end one before the border
_REACH = 0.02  # of a body's height: masks closer than this touch
_LEAST_REACH = 2  # pixels
_SAME_PERSON = 0.7  # of the smaller mask, inside of the other
_SHARPNESS_HEIGHT = 128  # pixels; noise of larger pictures is no sharpness
_NEIGHBOURS = 12  # frames to either side
_AREA_RATIO = 1.6  # to the median of the neighbours; strides change it by a quarter


class Person(NamedTuple):
    """Numbers of one mask.

    Attributes:
        fault: ``"border"``, ``"occluded"``, ``"small"``, ``"several bodies"``, or ``""`` = fine.
        area: Pixels.
        sharpness: See :func:`sharpness`.
    """

    fault: str
    area: int
    sharpness: float


def boxes_of(masks: np.ndarray) -> np.ndarray:
    """Boxes around masks.

    Args:
        masks: ``[M, H, W]`` bool.

    Returns:
        ``[M, 4]`` int64: left, top, right and bottom, the last two past the end; zeros for an
        empty mask.

    Example:
        >>> boxes_of(np.eye(4, dtype=bool)[None, 1:])
        array([[1, 0, 4, 3]])
    """
    boxes = np.zeros((len(masks), 4), np.int64)
    for start, axis in ((0, 1), (1, 2)):  # columns: any row; rows: any column
        lit = np.any(masks, axis=axis)
        boxes[:, start] = lit.argmax(1)
        boxes[:, start + 2] = lit.shape[1] - lit[:, ::-1].argmax(1)
        boxes[~np.any(lit, axis=1)] = 0
    return boxes


def find_duplicates(masks: np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Masks of a person who has a better one: they share more than 0.7 of the smaller one.

    Args:
        masks: ``[M, H, W]`` bool.
        boxes: ``[M, 4]``, see :func:`boxes_of`.
        scores: ``[M]``.

    Returns:
        ``[M]`` bool.
    """
    found = np.zeros(len(masks), bool)
    for one, other in _close_pairs(boxes, 0):
        first, second = _cut_out(masks, boxes, one, other, 0)
        smaller = min(np.count_nonzero(first), np.count_nonzero(second))
        if np.count_nonzero(first & second) > _SAME_PERSON * smaller:
            found[other if scores[one] >= scores[other] else one] = True
    return found


def find_occluded(masks: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Masks that touch another: one of the two hides a part of the other.

    Who stands in front cannot be told from masks, so that both count.

    Args:
        masks: ``[M, H, W]`` bool.
        boxes: ``[M, 4]``, see :func:`boxes_of`.

    Returns:
        ``[M]`` bool.

    Example:
        >>> masks = np.zeros((3, 100, 90), bool)
        >>> masks[0, 10:90, 5:20] = masks[1, 10:90, 21:40] = masks[2, 10:90, 60:80] = True
        >>> find_occluded(masks, boxes_of(masks))
        array([ True,  True, False])
    """
    occluded = np.zeros(len(masks), bool)
    heights = boxes[:, 3] - boxes[:, 1]
    reach = max(_LEAST_REACH, round(_REACH * int(heights.max(initial=0))))
    for one, other in _close_pairs(boxes, reach):
        if occluded[one] and occluded[other]:
            continue
        near = max(_LEAST_REACH, round(_REACH * int(max(heights[one], heights[other]))))
        first, second = _cut_out(masks, boxes, one, other, near)
        grown = torch.from_numpy(first.astype(np.float32))[None, None]
        grown = F.max_pool2d(grown, 2 * near + 1, stride=1, padding=near)[0, 0] > 0
        if (grown.numpy() & second).any():
            occluded[[one, other]] = True
    return occluded


def _close_pairs(boxes: np.ndarray, reach: int) -> list[tuple[int, int]]:
    """Pairs of boxes that are at most ``reach`` pixels apart."""
    low, high = boxes[:, :2], boxes[:, 2:]
    near = np.all((low[:, None] <= high + reach) & (low <= high[:, None] + reach), axis=2)
    filled = np.all(high > low, axis=1)
    rows, columns = np.nonzero(np.triu(near & filled & filled[:, None], 1))
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def _cut_out(
    masks: np.ndarray, boxes: np.ndarray, one: int, other: int, margin: int
) -> tuple[np.ndarray, np.ndarray]:
    """Two masks inside the box around both."""
    left, top = np.maximum(np.minimum(boxes[one, :2], boxes[other, :2]) - margin, 0)
    right, bottom = np.maximum(boxes[one, 2:], boxes[other, 2:]) + margin
    window = (slice(top, bottom), slice(left, right))
    return masks[one][window], masks[other][window]


def judge_person(
    mask: np.ndarray, box: np.ndarray, pixels: np.ndarray, occluded: bool, min_height: int
) -> Person:
    """Looks for faults of one mask.

    Args:
        mask: ``[H, W]`` bool, not empty.
        box: ``[4]``, see :func:`boxes_of`.
        pixels: ``[H, W, 3]`` uint8, the frame.
        occluded: Whether another mask touches it.
        min_height: Pixels; a lower body is too small.
    """
    height, width = mask.shape
    left, top, right, bottom = box.tolist()
    crop = mask[top:bottom, left:right]
    area = int(np.count_nonzero(crop))
    at_border = min(left, top, width - right, height - bottom) <= _BORDER
    if at_border:
        fault = "border"
    elif occluded:
        fault = "occluded"
    elif bottom - top < min_height or 255 * area <= EMPTY_GREY_SUM:
        fault = "small"
    elif (judge(find_pieces(crop[None])) == OTHER).any():
        fault = "several bodies"
    else:
        return Person("", area, sharpness(pixels[top:bottom, left:right]))
    return Person(fault, area, 0.0)


def sharpness(pixels: np.ndarray) -> float:
    """Energy of the finest detail of a picture as a share of all its contrast.

    The variance of the Laplacian divided by the variance of the grey levels, after pictures
    higher than 128 pixels were reduced to that height: 0 = flat or blurred.

    Args:
        pixels: ``[h, w, 3]`` uint8.

    Example:
        >>> fine = np.indices((32, 32)).sum(0) % 2 * 255
        >>> coarse = np.indices((32, 32)).sum(0) // 8 % 2 * 255
        >>> to_rgb = lambda grey: np.repeat(grey[..., None].astype(np.uint8), 3, 2)
        >>> sharpness(to_rgb(fine)) > 4 * sharpness(to_rgb(coarse)) > 0
        True
    """
    picture = Image.fromarray(pixels).convert("L")
    if picture.height > _SHARPNESS_HEIGHT:
        width = max(1, round(picture.width * _SHARPNESS_HEIGHT / picture.height))
        picture = picture.resize((width, _SHARPNESS_HEIGHT), Image.Resampling.BOX)
    grey = np.asarray(picture, np.float64)
    if min(grey.shape) < 3:
        return 0.0
    middle = grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((around - 4 * middle).var() / max(grey.var(), 1.0))


def area_outliers(areas: np.ndarray) -> np.ndarray:
    """Masks much larger or smaller than those of the frames around them.

    Args:
        areas: ``[T]`` pixels.

    Returns:
        ``[T]`` bool: more than 1.6 times the median of 25 frames, or less than 1 / 1.6 of it.

    Example:
        >>> area_outliers(np.array([90, 100, 110, 40, 105, 100, 95])).nonzero()[0]
        array([3])
    """
    span = 2 * _NEIGHBOURS + 1
    padded = np.pad(areas.astype(np.float64), _NEIGHBOURS, constant_values=np.nan)
    usual = np.nanmedian(np.lib.stride_tricks.sliding_window_view(padded, span), 1)
    return (areas > _AREA_RATIO * usual) | (areas * _AREA_RATIO < usual)
