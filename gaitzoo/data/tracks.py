"""One person through some frames of a video, and where such walks are written."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from torch import Tensor

from gaitzoo.data.atomic import whole_files

__all__ = ["Content", "Track"]

Content = Literal["silhouettes", "poses"]


@dataclass(frozen=True, eq=False)
class Track:
    """One person through some frames of a video, as :func:`gaitzoo.extract_tracks` finds them.

    Args:
        video: Name of the video: the file's without suffix, or the folder's.
        number: Of this track in the video, from 0.
        person: The segmenter's own id of the person, or the tracker's. Tracks of one video with
            equal ids are of one person if the segmenter knew the ids; a tracker may have mixed
            people up where the track was cut.
        silhouettes: ``[T, S, S]`` uint8, 0..255, normalised as by
            :func:`gaitzoo.normalize_silhouettes`.
        frames: ``[T]`` int64, numbers of the frames in the video; dropped ones are missing.
        times: ``[T]`` float64, seconds since the first frame of the video.
        boxes: ``[T, 4]`` int64: left, top, right and bottom in pixels of the frame, the last two
            past the end.
        areas: ``[T]`` int64, pixels of the mask.
        sharpness: ``[T]`` float64, at least 0: how sharp the picture is inside the box
            (:func:`gaitzoo.data.quality.sharpness`); to be compared inside of one track.
        scores: ``[T]`` float64 in [0, 1], the segmenter's.
        keypoints: ``[T, 17, 3]`` float32, COCO's joints as x and y in pixels of the frame and
            confidence; ``None`` = the segmenter finds none.
        dropped: Frames of this person that were left out between the first and the last, by the
            reason.

    Raises:
        ValueError: If the lengths of the arrays differ.
    """

    video: str
    number: int
    person: int
    silhouettes: Tensor
    frames: np.ndarray
    times: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    sharpness: np.ndarray
    scores: np.ndarray
    keypoints: Tensor | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        per_frame = ("frames", "times", "boxes", "areas", "sharpness", "scores", "keypoints")
        for name in per_frame:
            values = getattr(self, name)
            if values is not None and len(values) != len(self.silhouettes):
                raise ValueError(
                    f"expected {name} of {len(self.silhouettes)} frames, as silhouettes has, got "
                    f"{len(values)}. Give one entry per frame."
                )

    def __len__(self) -> int:
        return len(self.silhouettes)

    @property
    def name(self) -> str:
        """Video and number, as ``walk-003``."""
        return _track_name(self.video, self.number)

    def save(
        self,
        root: str | os.PathLike[str],
        identity: str | None = None,
        *,
        content: Content = "silhouettes",
    ) -> Path:
        """Writes the track into a tree as OpenGait lays it out: ``id/type/view/view.pkl``.

        The type is the video, the view the track's number. :func:`gaitzoo.find_sequences` and
        OpenGait read the tree.

        Args:
            root: Top of the tree; made if missing. One tree holds one modality.
            identity: Who it is; ``None`` = unknown, each track is then a person of its own, named
                like the track.
            content: ``"silhouettes"`` writes ``[T, S, S]`` uint8, ``"poses"`` the keypoints
                ``[T, 17, 3]`` float32.

        Returns:
            The file, replaced if it was there.

        Raises:
            ValueError: If ``identity`` is no name of a folder, for other content, or for
                poses of a track without keypoints.

        Example:
            >>> from tempfile import TemporaryDirectory
            >>> import torch
            >>> values = np.zeros(5)
            >>> track = Track("walk", 3, 0, torch.ones(5, 64, 64, dtype=torch.uint8), values,
            ...               values, values, values, values, values)
            >>> with TemporaryDirectory() as root:
            ...     track.save(root, "ann").relative_to(root).as_posix()
            'ann/walk/003/003.pkl'
        """
        check_content(content)
        frames = self.silhouettes if content == "silhouettes" else self.keypoints
        if frames is None:
            raise ValueError(
                f"expected keypoints in track {self.name}, got none. Take a segmenter that finds "
                f"them, or save silhouettes."
            )
        path = Path(root, self.folder(identity), f"{self.number:03d}.pkl")
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_files(path) as unfinished:
            unfinished.write_bytes(pickle.dumps(frames.numpy(), protocol=4))
        return path

    def folder(self, identity: str | None = None) -> str:
        """The track's folder below the root of a tree.

        Args:
            identity: See :meth:`save`.

        Raises:
            ValueError: If ``identity`` is no name of a folder.
        """
        return track_folder(self.video, self.number, identity)


def check_content(content: str) -> None:
    """Raises unless ``content`` is something that tracks are written as.

    Args:
        content: See :meth:`Track.save`.

    Raises:
        ValueError: If it is neither.
    """
    if content not in get_args(Content):
        raise ValueError(f'expected content "silhouettes" or "poses", got {content!r}.')


def track_folder(video: str, number: int, identity: str | None) -> str:
    """The folder of a track below the root of a tree: ``id/type/view``.

    Args:
        video: Name of the video.
        number: Of the track in the video.
        identity: See :meth:`Track.save`.

    Raises:
        ValueError: If ``identity``, or ``video`` in its place, is no name of a folder.

    Example:
        >>> track_folder("walk", 3, "ann")
        'ann/walk/003'
    """
    name = _track_name(video, number) if identity is None else identity
    if not name or name.startswith(".") or set(name) & set('/\\:*?"<>|\0'):
        what = "a video (its tracks are named like it)" if identity is None else "an identity"
        raise ValueError(
            f"expected {what} that can name a folder, got {name!r}. Leave out slashes, "
            f"colons and a dot in front."
        )
    return f"{name}/{video}/{number:03d}"


def _track_name(video: str, number: int) -> str:
    return f"{video}-{number:03d}"
