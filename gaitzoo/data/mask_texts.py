"""Text files of masks that people have: COCO's JSON and YOLO's polygons.

Readers as in :mod:`gaitzoo.data.mask_images`. The layouts are those of COCO
(https://cocodataset.org/#format-results) and of the segmentation labels and results of the YOLO
family (https://docs.ultralytics.com/datasets/segment/).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gaitzoo.data.coco_masks import decode_coco, fill_polygons
from gaitzoo.data.mask_images import Person, number_from_first, visible_files
from gaitzoo.data.natural import natural_order

__all__ = ["CocoFile", "YoloFiles"]

_COCO_PERSON = 1
_YOLO_PERSON = 0


class CocoFile:
    """A JSON file of COCO annotations or results, run lengths or polygons.

    Args:
        path: The file.
        person: Category of people; ``None`` = the one named person, or COCO's 1.
        first_frame: Of results, which have no list of images: number of the video's first frame;
            ``None`` = 0 or 1, whichever is there.
    """

    def __init__(self, path: Path, person: int | None, first_frame: int | None) -> None:
        content = _read_json(path)
        self._path = path
        if isinstance(content, list):
            entries, images, categories = content, None, []
        else:
            entries, images = content.get("annotations"), content.get("images")
            categories = content.get("categories") or []
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise ValueError(
                f'expected a COCO file in {path}: a list of results, or "images" and "annotations"'
            )
        wanted = _COCO_PERSON if person is None else person
        if person is None and categories:
            wanted = _category_of_people(categories, path)
        by_image: dict[Any, list[dict[str, Any]]] = {}
        for entry in entries:
            if "segmentation" not in entry or "image_id" not in entry:
                raise ValueError(
                    f'expected "segmentation" and "image_id" in every entry of {path}, got '
                    f"{', '.join(map(str, list(entry)[:5])) or 'nothing'}"
                )
            if entry.get("category_id", wanted) == wanted:
                by_image.setdefault(entry["image_id"], []).append(entry)
        if images is not None:
            order = _in_order(images, path)
            self.count: int | None = len(order)
            self._entries = {i: by_image.pop(image, []) for i, image in enumerate(order)}
            if by_image:
                raise ValueError(
                    f"expected every image_id of {path} in its list of images, got "
                    f"{next(iter(by_image))!r}, which is not"
                )
        else:
            self.count = None
            numbered = {_number_of(image, path): found for image, found in by_image.items()}
            self._entries = number_from_first(numbered, first_frame, path)

    def people(self, number: int, size: tuple[int, int]) -> list[Person]:
        """See :class:`MaskReader`."""
        found = []
        for entry in self._entries.get(number, []):
            try:
                mask = decode_coco(entry["segmentation"], size)
            except ValueError as error:
                raise ValueError(f"{error} (in {self._path})") from error
            track = entry.get("track_id", entry.get("instance_id"))
            if mask.any():
                found.append(Person(mask, _score(entry.get("score", 1.0), self._path), track))
        return found


class YoloFiles:
    """One text file per frame, a line per person: class and the corners of polygons.

    Args:
        folder: Folder of ``.txt`` files with the number of the frame last in their names.
        person: Class of people; ``None`` = 0.
        after: What stands behind the corners, ``"score"`` and ``"id"`` in their order; ``None`` =
            nothing, and lines that may have something are refused.
        first_frame: Number of the video's first frame; ``None`` = 0 or 1, whichever is there.
    """

    count: int | None = None

    def __init__(
        self,
        folder: Path,
        person: int | None,
        after: Sequence[str] | None,
        first_frame: int | None,
    ) -> None:
        if after is not None and (isinstance(after, str) or not set(after) <= {"score", "id"}):
            raise ValueError(f'expected yolo_after with "score" and "id" or less, got {after!r}')
        numbered = {_number_of(f.stem, folder): f for f in visible_files(folder, (".txt",))}
        self._files = number_from_first(numbered, first_frame, folder)
        self._person = _YOLO_PERSON if person is None else person
        self._after = after

    def people(self, number: int, size: tuple[int, int]) -> list[Person]:
        """See :class:`MaskReader`."""
        if number not in self._files:
            return []
        file = self._files[number]
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"expected text in {file}, got other bytes; write it again") from error
        found = []
        for i, line in enumerate(lines, 1):
            words = line.split()
            if words and words[0] == str(self._person):
                person = self._person_of(words[1:], size, f"line {i} of {file}")
                found += [person] * bool(person.mask.any())
        return found

    def _person_of(self, words: list[str], size: tuple[int, int], place: str) -> Person:
        after = self._after or ()
        try:
            numbers = [float(word) for word in words]
        except ValueError as error:
            raise ValueError(f"expected numbers in {place}, got {error}") from error
        corners = numbers[: len(numbers) - len(after)]
        named = dict(zip(after, numbers[len(corners) :], strict=False))
        inside = all(0 <= number <= 1 for number in corners)  # false for NaN too
        doubtful = self._after is None and words[-1:] == ["1"]
        if len(corners) < 6 or len(corners) % 2 or not inside or doubtful:
            raise ValueError(
                f"expected class, then x and y of three corners or more as shares of width and "
                f"height in {place}, got {len(words)} numbers after the class, the last "
                f"{words[-1] if words else 'missing'}. If a score or the id of a track stands at "
                f'the end, say so: Masks(path, yolo_after=("score", "id")); if not, yolo_after=().'
            )
        height, width = size
        scaled = [number * (height if i % 2 else width) for i, number in enumerate(corners)]
        track = named.get("id")
        if track is not None and not track.is_integer():
            raise ValueError(f"expected a whole number as id in {place}, got {track:g}")
        score = _score(named.get("score", 1.0), place)
        return Person(fill_polygons([scaled], size), score, None if track is None else int(track))


def _number_of(name: Any, path: Path) -> int:
    """The number of a frame: an integer, or the last one in a name."""
    found = re.findall(r"\d+", Path(name).stem if isinstance(name, str) else "")
    if type(name) is int and name >= 0:
        return name
    if not found:
        raise ValueError(f"expected the number of a frame in every name of {path}, got {name!r}")
    return int(found[-1])


def _read_json(path: Path) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or no JSON file: {error}") from error
    if not isinstance(content, (list, dict)):
        raise ValueError(f"expected a COCO file in {path}, got {type(content).__name__}")
    return content


def _category_of_people(categories: Any, path: Path) -> int:
    named = {}
    for category in categories:
        if isinstance(category, dict):
            named[str(category.get("name", "")).lower()] = category.get("id")
    if "person" not in named:
        raise ValueError(
            f"expected a category person in {path}, got {', '.join(list(named)[:6])}; give its "
            "number: Masks(path, person=...)"
        )
    return named["person"]


def _in_order(images: Any, path: Path) -> list[Any]:
    """Ids of images in the order of time: by number of frame, else by name, else by id."""
    if not isinstance(images, list) or not all(isinstance(i, dict) and "id" in i for i in images):
        raise ValueError(f'expected "images" of {path} as a list of entries with "id"')
    if len({image.get("video_id") for image in images}) > 1:
        raise ValueError(f"expected one video in {path}, got several video_id; split the file")
    keys: tuple[tuple[str, Callable[[Any], Any]], ...] = (
        ("frame_id", lambda number: _number_of(number, path)),
        ("file_name", lambda name: natural_order(str(name))),
        ("id", lambda name: natural_order(str(name))),
    )
    field, key = next(k for k in keys if all(k[0] in image for image in images))
    return [image["id"] for image in sorted(images, key=lambda image: key(image[field]))]


def _score(value: Any, place: object) -> float:
    if not isinstance(value, (int, float)) or not math.isfinite(value) or not 0 <= value <= 1:
        raise ValueError(f"expected scores from 0 to 1 in {place}, got {value!r}")
    return float(value)
