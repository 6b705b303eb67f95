"""Images of masks that people have: label maps, or one image per person.

Each reader knows one layout of files and gives the people of one frame at a time, by its number
from 0: their masks, scores and numbers. :class:`gaitzoo.Masks` chooses the reader.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from gaitzoo.data.images import decode_image, read_image
from gaitzoo.data.natural import natural_order

__all__ = [
    "LABEL_SUFFIXES",
    "LabelMaps",
    "MaskReader",
    "Person",
    "PersonImages",
    "join_masks",
    "number_from_first",
    "visible_files",
]

LABEL_SUFFIXES = (".png", ".bmp")
"""Images that keep numbers as they are."""

_VOID = 255
_INSTANCES_FROM = 1000  # class * 1000 + instance


class Person(NamedTuple):
    """Somebody in a frame.

    Attributes:
        mask: ``[H, W]`` bool.
        score: In [0, 1].
        number: Of the person, as the file has it; ``None`` = it has none.
    """

    mask: np.ndarray
    score: float
    number: int | None


class MaskReader(Protocol):
    """The people of frames by the frames' numbers.

    Attributes:
        count: Frames that there are; ``None`` = files of frames without people may be missing.
    """

    count: int | None

    def people(self, number: int, size: tuple[int, int]) -> list[Person]:
        """The people of frame ``number``, counted from 0, of ``size`` = (H, W)."""
        ...


class LabelMaps:
    """One image per frame, pixels holding the number of a class or of a person.

    Args:
        folder: Folder of PNG or BMP, in natural order.
        person: Class of people; ``None`` = each number but 0 is a person.
    """

    def __init__(self, folder: Path, person: int | None) -> None:
        self._files = visible_files(folder, LABEL_SUFFIXES)
        self._person = person
        self._kind: str | None = None  # known once a frame tells
        self.count: int | None = len(self._files)

    def people(self, number: int, size: tuple[int, int]) -> list[Person]:
        """See :class:`MaskReader`."""
        file = self._files[number]
        values, is_palette = _read_labels(file)
        _check_size(values, size, file)
        found = [int(value) for value in np.unique(values)]
        if self._person is None:
            return [
                Person(values == value, 1.0, value if value != _VOID else 1)
                for value in self._numbers(found, is_palette, file)
            ]
        if values.dtype == np.uint8:
            return [Person(values == v, 1.0, None) for v in found if v == self._person]
        people = [v for v in found if v // _INSTANCES_FROM == self._person]
        return [Person(values == v, 1.0, v % _INSTANCES_FROM) for v in people]

    def _numbers(self, found: Sequence[int], is_palette: bool, file: Path) -> list[int]:
        """Values that are people: white is one, unless it is the void of label maps."""
        if found[0] < 0 or found[-1] >= _INSTANCES_FROM:
            raise ValueError(
                f"expected numbers of people from 1 to {_INSTANCES_FROM - 1} in {file}, got "
                f"{found[-1]}. If these are class * 1000 + instance (Cityscapes, MOTS), give the "
                f"class of people: Masks(path, person=24), or person=2 for MOTS."
            )
        labels = [value for value in found if value not in (0, _VOID)]
        is_white = _VOID in found and not labels and not is_palette
        kind = "masks" if is_white else "labels" if labels and labels != [1] else None
        if kind and self._kind not in (None, kind):
            raise ValueError(
                f"expected either masks (0 and 255) or label maps (1, 2, ...; 255 is void) in all "
                f"frames, got both up to {file}. Write people as 1, 2, ... in every frame."
            )
        self._kind = self._kind or kind
        return labels or [_VOID] * is_white


class PersonImages:
    """One image per person and frame.

    Args:
        folder: Where the pattern begins.
        pattern: Paths below ``folder`` with ``{frame}`` and ``{person}`` in place of the numbers
            and ``*`` for other text, for example ``"{frame}/{person}.png"``.
        first_frame: Number of the video's first frame; ``None`` = 0 or 1, whichever is there.
    """

    count: int | None = None

    def __init__(self, folder: Path, pattern: str, first_frame: int | None) -> None:
        expression = _expression_of(pattern)
        numbered: dict[int, list[tuple[int, Path]]] = {}
        for file in sorted(folder.rglob("*")):
            found = expression.fullmatch(file.relative_to(folder).as_posix())
            if found and file.is_file():
                entry = (int(found["person"]), file)
                numbered.setdefault(int(found["frame"]), []).append(entry)
        if not numbered:
            raise ValueError(f"expected files {pattern} in {folder}, got none of this form")
        self._files = number_from_first(numbered, first_frame, folder)

    def people(self, number: int, size: tuple[int, int]) -> list[Person]:
        """See :class:`MaskReader`."""
        found = []
        for person, file in sorted(self._files.get(number, [])):
            levels = read_image(file)[0].levels
            _check_size(levels, size, file)
            if levels.any():
                found.append(Person(levels >= max(1, int(levels.max()) / 2), 1.0, person))
        return found


def visible_files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Files of a folder with one of some suffixes, in natural order, hidden ones left out.

    Args:
        folder: Where to look, not in folders below.
        suffixes: Lower case, with their dots.
    """
    files = [
        file
        for file in folder.iterdir()
        if file.suffix.lower() in suffixes and not file.name.startswith(".") and file.is_file()
    ]
    return sorted(files, key=lambda file: natural_order(file.name))


def join_masks(people: Sequence[Person]) -> list[Person]:
    """Pieces of one number joined to one person each.

    Args:
        people: Of one frame, all with a number.

    Example:
        >>> left, right = np.eye(2, dtype=bool)
        >>> joined = join_masks([Person(left[None], 1.0, 3), Person(right[None], 0.5, 3)])
        >>> joined[0].mask.tolist(), joined[0].score, len(joined)
        ([[True, True]], 1.0, 1)
    """
    joined: dict[int | None, Person] = {}
    for person in people:
        if person.number in joined:
            other = joined[person.number]
            score = max(other.score, person.score)
            person = Person(other.mask | person.mask, score, person.number)
        joined[person.number] = person
    return list(joined.values())


def _read_labels(file: Path) -> tuple[np.ndarray, bool]:
    """The numbers of an image ``[H, W]``, uint8 or wider, and whether it has a palette."""
    images = [(image.mode, np.array(image)) for image in decode_image(file)]
    mode, values = images[0]
    if len(images) > 1 or mode not in ("1", "L", "P", "I", "I;16", "I;16B", "I;16L"):
        raise ValueError(
            f"expected a label map in {file}, one still image of one channel or with a palette, "
            f"got {len(images)} of mode {mode}. Save the numbers of classes or people, not colours."
        )
    return (values.astype(np.uint8 if mode in "1LP" else np.int64)), mode == "P"


def _check_size(mask: np.ndarray, size: tuple[int, int], file: Path) -> None:
    if mask.shape != tuple(size):
        raise ValueError(
            f"expected a mask of {size[0]} x {size[1]} pixels as the frames, got "
            f"{mask.shape[0]} x {mask.shape[1]} in {file}. Resize it to the nearest pixel."
        )


def _expression_of(pattern: str) -> re.Pattern[str]:
    places = re.findall(r"\{(\w*)\}", pattern)
    if sorted(places) != ["frame", "person"]:
        raise ValueError(
            'expected a pattern with {frame} and {person} once each, such as "{frame}/{person}.png"'
            f", got {pattern!r}"
        )
    translated: dict[str, str] = {
        "{frame}": r"(?P<frame>\d+)",
        "{person}": r"(?P<person>\d+)",
        "*": "[^/]*",
    }
    pieces = re.split(r"(\{\w+\}|\*)", pattern)
    return re.compile("".join(translated.get(piece, re.escape(piece)) for piece in pieces))


def number_from_first(numbered: Mapping[int, Any], first: int | None, path: Path) -> dict[int, Any]:
    """Entries by the place of their frame in the video, from 0.

    Args:
        numbered: Entries by the numbers that the files give.
        first: Number of the first frame; ``None`` = the lowest, if that is 0 or 1.
        path: For messages.

    Raises:
        ValueError: If the number of the first frame is not known or not the lowest.
    """
    lowest = min(numbered, default=0)
    if first is None and lowest > 1:
        raise ValueError(
            f"expected frames of {path} numbered from 0 or 1, got {lowest} as the lowest; say "
            f"which number the first frame of the video has: Masks(path, first_frame=...)"
        )
    first = lowest if first is None else first
    if lowest < first:
        raise ValueError(f"expected frames of {path} from first_frame={first} on, got {lowest}")
    return {number - first: entry for number, entry in numbered.items()}
