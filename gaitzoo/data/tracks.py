"""One person through some frames of a video, and where such walks are written."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

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
        return f"{self.video}-{self.number:03d}"

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
        if content == "silhouettes":
            frames = self.silhouettes
        elif content == "poses":
            frames = self.keypoints
        else:
            raise ValueError(f'expected content "silhouettes" or "poses", got {content!r}.')
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
        name = self.name if identity is None else identity
        if not name or name.startswith(".") or set(name) & set('/\\:*?"<>|\0'):
            raise ValueError(
                f"expected an identity that can name a folder, got {name!r}. Leave out slashes, "
                f"colons and a dot in front."
            )
        return f"{name}/{self.video}/{self.number:03d}"
