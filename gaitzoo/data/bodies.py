"""Connected pieces of masks: the person, other people, limbs cut off, specks.

Rows of lit pixels (runs) are joined to pieces by numpy alone, all frames at once: scipy and OpenCV
are no dependencies, and Pillow fills one region at a time. A clip of 100 frames of 64 x 44 takes
a few milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["LIMB", "OTHER", "PERSON", "SPECK", "Pieces", "erase", "find_pieces", "judge"]

PERSON, LIMB, SPECK, OTHER = range(4)
"""Kinds of pieces: the largest of a frame, what belongs to it, small things, other bodies."""

_LARGEST_SPECK = 0.005  # of the person's pixels; a hand has more
_LARGEST_LIMB = 0.25
_LARGEST_THING = 0.05  # apart from the person
_NEAR = 0.1  # of the height
_MOST_OVERLAP = 0.2  # in rows, of parts that stand above each other
_NEAR_BELOW = 0.25  # a foot below a hidden shin


@dataclass(frozen=True, eq=False)
class Pieces:
    """Connected pieces of the frames of a clip, and the runs that they consist of.

    Attributes:
        frame: ``[P]``, number of the frame.
        area: ``[P]``, pixels.
        box: ``[P, 4]``, top, bottom, left and right; bottom and right are past the end.
        starts: ``[R]``, first pixel of each run in the flattened clip.
        stops: ``[R]``, the pixel after the last.
        piece: ``[R]``, the piece that a run belongs to.
    """

    frame: np.ndarray
    area: np.ndarray
    box: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    piece: np.ndarray


def find_pieces(lit: np.ndarray) -> Pieces:
    """Finds connected pieces; pixels that touch at a corner are connected.

    Args:
        lit: ``[T, H, W]`` bool.

    Example:
        >>> pieces = find_pieces(np.eye(3, dtype=bool)[None] | np.eye(3, dtype=bool)[None, ::-1])
        >>> pieces.area.tolist(), pieces.box.tolist()
        ([5], [[0, 3, 0, 3]])
    """
    count, height, width = lit.shape
    # A dark column before every row and a dark row after every frame keep runs apart.
    stride = width + 1
    canvas = np.zeros((count, height + 1, stride), bool)
    canvas[:, :height, 1:] = lit
    flat = canvas.reshape(-1)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts, stops = edges[::2], edges[1::2]
    # Runs of the next row that touch each run: one stretch of the sorted list.
    first = np.searchsorted(stops, starts + stride, "left")
    touching = np.maximum(np.searchsorted(starts, stops + stride, "right") - first, 0)
    upper = np.repeat(np.arange(len(starts)), touching)
    skipped = np.repeat(np.cumsum(touching) - touching - first, touching)
    lower = np.arange(len(upper)) - skipped
    _, piece = np.unique(_joined(len(starts), upper, lower), return_inverse=True)
    row = starts // stride
    frame, row_in_frame = np.divmod(row, height + 1)
    left, right = starts % stride - 1, stops - row * stride - 1
    number = int(piece.max()) + 1 if len(piece) else 0
    area = np.bincount(piece, stops - starts, number).astype(np.int64)
    box = np.zeros((number, 4), np.int64)
    box[:, [0, 2]] = height + width
    np.minimum.at(box[:, 0], piece, row_in_frame)
    np.maximum.at(box[:, 1], piece, row_in_frame + 1)
    np.minimum.at(box[:, 2], piece, left)
    np.maximum.at(box[:, 3], piece, right)
    frame_of_piece = np.zeros(number, np.int64)
    frame_of_piece[piece] = frame
    place = (frame * height + row_in_frame) * width
    return Pieces(frame_of_piece, area, box, place + left, place + right, piece)


def _joined(count: int, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Gives runs that touch each other, directly or not, one number."""
    label = np.arange(count)
    while True:
        a, b = label[upper], label[lower]
        if np.array_equal(a, b):
            return label
        smaller = np.minimum(a, b)
        np.minimum.at(label, a, smaller)
        np.minimum.at(label, b, smaller)
        while not np.array_equal(label, label[label]):
            label = label[label]


def judge(pieces: Pieces) -> np.ndarray:
    """Tells the person, and what belongs to it, from all else.

    The largest piece of a frame is the person. Limbs close to it, and the other half of a body
    that something hides in the middle, belong to it.

    Args:
        pieces: Pieces of a clip.

    Returns:
        ``[P]`` int, the kinds of the pieces.
    """
    order = np.lexsort((pieces.area, pieces.frame))
    frames_in_order = pieces.frame[order]
    is_last = np.append(frames_in_order[1:] != frames_in_order[:-1], True)[: len(order)]
    largest = np.zeros(int(pieces.frame.max()) + 1 if len(order) else 0, np.int64)
    largest[frames_in_order[is_last]] = order[is_last]
    main = largest[pieces.frame]
    share = pieces.area / np.maximum(pieces.area[main], 1)
    top, bottom, left, right = pieces.box.T
    main_top, main_bottom, main_left, main_right = pieces.box[main].T
    # Negative gaps are overlaps.
    gap_rows = np.maximum(top, main_top) - np.minimum(bottom, main_bottom)
    gap_columns = np.maximum(left, main_left) - np.minimum(right, main_right)
    reach = np.where(top >= main_bottom, _NEAR_BELOW, _NEAR)
    height = np.maximum(bottom, main_bottom) - np.minimum(top, main_top)  # of both together
    near = (gap_rows <= reach * height) & (gap_columns <= _NEAR * height)
    # Parts of a body stand above each other, other people beside it.
    shorter = np.minimum(bottom - top, main_bottom - main_top)
    stacked = -gap_rows <= _MOST_OVERLAP * shorter
    kinds = np.where(near & ((share < _LARGEST_LIMB) | stacked), LIMB, OTHER)
    kinds[(share < _LARGEST_SPECK) | (~near & (share < _LARGEST_THING))] = SPECK
    kinds[main] = PERSON
    return kinds


def erase(frames: np.ndarray, pieces: Pieces, unwanted: np.ndarray) -> None:
    """Blackens pieces.

    Args:
        frames: ``[T, H, W]``, contiguous, the clip in which the pieces were found.
        pieces: Its pieces.
        unwanted: ``[P]`` bool.
    """
    flat = frames.reshape(-1)
    chosen = unwanted[pieces.piece]
    for start, stop in zip(pieces.starts[chosen], pieces.stops[chosen], strict=True):
        flat[start:stop] = 0
