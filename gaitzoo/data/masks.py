"""Masks that the user has, as a segmenter: read from files instead of computed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gaitzoo.data.mask_images import (
    LABEL_SUFFIXES,
    LabelMaps,
    MaskReader,
    Person,
    PersonImages,
    join_masks,
    visible_files,
)
from gaitzoo.data.mask_texts import CocoFile, YoloFiles
from gaitzoo.data.segmentation import FrameMasks, check_rgb

__all__ = ["Masks"]


class Masks:
    """A segmenter that gives the masks of files, frame after frame.

    ====================================  ======================================================
    at ``path``                           read as
    ====================================  ======================================================
    folder of PNG or BMP                  a label map per frame, in natural order: pixels are
                                          numbers of people, 0 is nobody, 255 beside other
                                          numbers is void; 0 and 255 alone are one person
    the same, ``person=15``               a label map of classes; of 16 bits: class * 1000 +
                                          person, as in Cityscapes (24) and MOTS (2)
    folders of images, ``pattern=...``    one image per person and frame: masks, or cut-outs
    ``.json``                             COCO annotations or results: run lengths, polygons
    folder of ``.txt``                    YOLO polygons, one file per frame
    ====================================  ======================================================

    One ``Masks`` is for one video: calls go on where the last one ended; :meth:`restart` goes
    back to the first frame. Files are read when their frame comes. Frames without a file hold
    nobody, but for label maps and COCO's lists of images, where each frame has its entry.

    Args:
        path: File or folder.
        pattern: Of images per person: their paths below ``path`` with ``{frame}`` and
            ``{person}`` in place of the numbers and ``*`` for other text, for example
            ``"{frame}/{person}.png"`` or ``"{person}/*_{frame}.png"``.
        person: Number of the class of people; ``None`` = COCO's category person, YOLO's class 0,
            and every number of label maps.
        identities: Whether numbers (``track_id`` in COCO, ``id`` in YOLO) are people, the same in
            all frames; if not, they tell people of one frame apart, and people are to be tracked.
        first_frame: Number by which the files call the first frame of the video; ``None`` = 0 or
            1, whichever is there. Files in natural order need none.
        yolo_after: What stands behind the corners in YOLO's lines: ``("score", "id")``, or one of
            them; ``None`` = nothing, and lines that may have something are refused.

    Raises:
        FileNotFoundError: If there is nothing at ``path``.
        ValueError: If the files are of no such layout.
        ImportError: When polygons are read without pycocotools.

    Example:
        >>> from PIL import Image
        >>> Path("labels").mkdir()
        >>> Image.fromarray(np.array([[0, 1], [2, 2]], np.uint8)).save("labels/0001.png")
        >>> frames = np.zeros((1, 2, 2, 3), np.uint8)
        >>> Masks("labels", identities=True)(frames)[0].ids
        array([1, 2])
    """

    def __init__(
        self,
        path: str | Path,
        *,
        pattern: str | None = None,
        person: int | None = None,
        identities: bool = False,
        first_frame: int | None = None,
        yolo_after: Sequence[str] | None = None,
    ) -> None:
        self.path = Path(path)
        for name, number in (("person", person), ("first_frame", first_frame)):
            if number is not None and (type(number) is not int or number < 0):
                raise ValueError(f"expected {name} as a whole number or None, got {number!r}")
        if not self.path.exists():
            raise FileNotFoundError(f"expected a file or folder of masks, got {str(path)!r}")
        self._identities = identities
        self._reader = self._find_reader(pattern, person, first_frame, yolo_after)
        self._next = 0

    def __call__(self, frames: np.ndarray) -> list[FrameMasks]:
        """The masks of the next frames.

        Args:
            frames: ``[T, H, W, 3]`` uint8; their number and size count.

        Returns:
            T entries, with ``ids`` if numbers are identities.

        Raises:
            ValueError: If there are no more masks, masks have another size than the frames, a
                file is damaged, or a person has no number where numbers are identities.
        """
        check_rgb(frames)
        count, size = self._reader.count, (frames.shape[1], frames.shape[2])
        numbers = range(self._next, self._next + len(frames))
        if count is not None and numbers.stop > count:
            raise ValueError(
                f"expected a video of at most {count} frames, for which there are masks in "
                f"{self.path}, got more. One Masks is for one video; restart() goes back to its "
                f"first frame."
            )
        found = [self._frame(self._reader.people(number, size), size) for number in numbers]
        self._next = numbers.stop
        return found

    @property
    def num_frames(self) -> int | None:
        """Frames that the files are for; ``None`` = those without people may have none."""
        return self._reader.count

    def restart(self) -> None:
        """Goes back to the first frame."""
        self._next = 0

    def _frame(self, people: list[Person], size: tuple[int, int]) -> FrameMasks:
        numbers = [person.number for person in people]
        wrong = [number for number in numbers if type(number) is not int]
        if self._identities and wrong:
            raise ValueError(
                f"expected a whole number of every person in {self.path}, because numbers are "
                f"identities, got {wrong[0]!r}. Leave out identities=True to have people tracked."
            )
        if self._identities:
            people = join_masks(people)
        masks = np.array([person.mask for person in people], bool).reshape(-1, *size)
        scores = np.array([person.score for person in people], np.float64)
        if not self._identities:
            return FrameMasks(masks, scores)
        return FrameMasks(masks, scores, np.array([p.number for p in people], np.int64))

    def _find_reader(
        self,
        pattern: str | None,
        person: int | None,
        first_frame: int | None,
        yolo_after: Sequence[str] | None,
    ) -> MaskReader:
        if self.path.is_file():
            if self.path.suffix.lower() != ".json":
                raise ValueError(f"expected a .json file or a folder of masks, got {self.path}")
            return CocoFile(self.path, person, first_frame)
        if pattern is not None:
            return PersonImages(self.path, pattern, first_frame)
        if visible_files(self.path, LABEL_SUFFIXES):
            return LabelMaps(self.path, person)
        if visible_files(self.path, (".txt",)):
            return YoloFiles(self.path, person, yolo_after, first_frame)
        raise ValueError(
            f"expected PNG or BMP label maps or YOLO's .txt files in {self.path}, got neither. "
            'Images per person in folders need their pattern: pattern="{frame}/{person}.png"; '
            "JPEG keeps no numbers."
        )
