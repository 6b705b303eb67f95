"""From a video and who is where in its frames to tracks of one person each."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from gaitzoo.data.follow import Follower
from gaitzoo.data.normalize import normalize_frames
from gaitzoo.data.quality import (
    Person,
    area_outliers,
    boxes_of,
    find_duplicates,
    find_occluded,
    judge_person,
)
from gaitzoo.data.segmentation import FrameMasks, Segmenter
from gaitzoo.data.tracks import Track
from gaitzoo.data.video import Video, VideoFrame, VideoWarning, read_video

__all__ = ["TrackOptions", "TrackStream", "extract_tracks"]

_CUTS = ("border", "occluded")  # what ends a track; other faults cost a frame
_LAST_BITS = 1e-6  # seconds; they do not decide
_LEAST_SHARPNESS = 0.3  # of the track's median


def extract_tracks(
    video: str | Path | Video,
    segmenter: Segmenter,
    *,
    min_frames: int = 15,
    max_gap: float = 0.4,
    min_height: int = 40,
    min_score: float = 0.5,
    batch_frames: int = 8,
    size: int = 64,
    progress: bool = True,
) -> list[Track]:
    """Finds the people of a video: one track for each unbroken view of one person.

    Masks are followed from frame to frame by their boxes, unless the segmenter knows who is who.
    A track is cut where a person is no whole person: the box touches the border of the frame, or
    the mask touches that of somebody else. Behind a cut a new track begins, and nothing says
    that it is the same person. Frames in which the person is not found, too small, blurred, of a
    sudden other area, or has another body in the mask are left out; a gap of up to ``max_gap``
    seconds is bridged, without frames made up for it. Of the first frame in which the tracker
    sees a person it gives no identity: that frame is missing.

    The video is read once, a few frames at a time; silhouettes take 4 KB per frame and person.
    :class:`TrackStream` gives each track when it is complete, for videos of hours.

    Args:
        video: A video file, a folder of frames, or an opened video.
        segmenter: Gives the masks of people in frames.
        min_frames: Frames of the shortest track; a step takes about 13 at 25 per second.
        max_gap: Seconds without a usable frame that a track survives.
        min_height: Of a body, in pixels.
        min_score: Masks that the segmenter is less sure of are left out; in [0, 1].
        batch_frames: Frames that the segmenter gets at once.
        size: Height and width of the silhouettes in pixels, even.
        progress: Show a progress bar.

    Returns:
        Tracks in the order in which they end.

    Raises:
        ValueError: If the video cannot be read, an argument is out of range, or the segmenter
            gives masks of another size or for another number of frames.
        TypeError: If the segmenter gives anything but a list of ``FrameMasks``.
        ImportError: If PyAV or ``trackers`` is missing.

    Warns:
        VideoWarning: If a part of the video cannot be read, or masks from files are of
            another number of frames than were read.

    Example:
        >>> from PIL import Image
        >>> from tempfile import TemporaryDirectory
        >>> def segment(frames):  # the bright thing is a person who is known by number 7
        ...     masks = (frames[..., :1] > 0).transpose(0, 3, 1, 2)
        ...     return [FrameMasks(mask, np.ones(1), np.array([7])) for mask in masks]
        >>> with TemporaryDirectory() as folder:
        ...     for number in range(20):
        ...         frame = Image.new("RGB", (160, 120))
        ...         frame.paste((255, 255, 255), (10 + 5 * number, 20, 40 + 5 * number, 100))
        ...         frame.save(f"{folder}/{number}.png")
        ...     tracks = extract_tracks(folder, segment, progress=False)
        >>> [(track.person, track.silhouettes.shape) for track in tracks]
        [(7, torch.Size([20, 64, 64]))]
    """
    options = TrackOptions(min_frames, max_gap, min_height, min_score, size)
    return list(
        TrackStream(video, segmenter, options, batch_frames=batch_frames, progress=progress)
    )


@dataclass(frozen=True)
class TrackOptions:
    """What a track is, for :class:`TrackStream` and :func:`gaitzoo.save_tracks`.

    Args:
        min_frames: Frames of the shortest track.
        max_gap: Seconds without a usable frame that a track survives.
        min_height: Of a body, in pixels.
        min_score: Masks that the segmenter is less sure of are left out; in [0, 1].
        size: Height and width of the silhouettes in pixels, even.

    Raises:
        ValueError: If a value is out of range.
    """

    min_frames: int = 15
    max_gap: float = 0.4
    min_height: int = 40
    min_score: float = 0.5
    size: int = 64

    def __post_init__(self) -> None:
        _check_count(self.min_frames, "min_frames", 1)
        _check_count(self.min_height, "min_height", 1)
        _check_count(self.size, "size", 2)
        if self.size % 2:
            raise ValueError(f"expected an even size, got {self.size}. Use 64 or 128.")
        if not 0 <= self.max_gap < float("inf"):
            raise ValueError(f"expected max_gap of 0 seconds or more, got {self.max_gap}.")
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"expected min_score in [0, 1], got {self.min_score}.")


def _check_count(value: int, name: str, least: int) -> None:
    if type(value) is not int or value < least:
        raise ValueError(f"expected {name} as a whole number of {least} or more, got {value!r}.")


class TrackStream:
    """The tracks of a video, each when it is complete; see :func:`extract_tracks`.

    Memory holds the tracks that are not complete and a few frames, however long the video is.

    Args:
        video: A video file, a folder of frames, or an opened video.
        segmenter: Gives the masks of people in frames.
        options: What a track is.
        batch_frames: Frames that the segmenter gets at once.
        progress: Show a progress bar.

    Attributes:
        video: The opened video.
        num_frames: Frames read so far.
        left_out: Views of people in frames that are in no track, counted by the reason:
            ``border``, ``occluded``, ``small``, ``several bodies``, ``blurred``, ``area``,
            ``new`` where the tracker saw somebody for the first time, and ``too short`` for good
            ones of which too few came in a row.

    Raises:
        ValueError: See :func:`extract_tracks`.
    """

    def __init__(
        self,
        video: str | Path | Video,
        segmenter: Segmenter,
        options: TrackOptions | None = None,
        *,
        batch_frames: int = 8,
        progress: bool = True,
    ) -> None:
        _check_count(batch_frames, "batch_frames", 1)
        self.video = video if isinstance(video, Video) else read_video(video)
        self.num_frames = 0
        self.left_out: Counter[str] = Counter()
        self._segmenter = segmenter
        self._options = options or TrackOptions()
        self._batch_frames = batch_frames
        self._progress = progress
        self._open: dict[int, _View] = {}
        self._number = 0

    def __iter__(self) -> Iterator[Track]:
        self.num_frames, self._number, self._open = 0, 0, {}
        self.left_out.clear()
        # Segmenters that go on where they ended begin anew with a video.
        getattr(self._segmenter, "restart", lambda: None)()
        follow = None
        bar = tqdm(
            self.video,
            total=self.video.num_frames,
            desc=self.video.name,
            unit="frame",
            disable=not self._progress,
        )
        for frame, people in self._segmented(bar):
            people = self._clean(people)
            ids = people.ids
            if ids is None:
                follow = follow or Follower(self._options.max_gap, self.video.frame_rate)
                ids = follow(boxes_of(people.masks), people.scores, frame.time)
            yield from self._look(frame, people, ids)
        masked = getattr(self._segmenter, "num_frames", None)
        if masked not in (None, self.num_frames):
            warnings.warn(
                f"expected masks of the {self.num_frames} frames read of {self.video.path}, got "
                f"masks of {masked}; where frames were left out, all masks behind them belong to "
                f"others",
                VideoWarning,
                stacklevel=2,
            )
        yield from self._close(list(self._open))

    def _segmented(self, frames: Iterable[VideoFrame]) -> Iterator[tuple[VideoFrame, FrameMasks]]:
        """Frames with their people; segments a few at once."""
        left = iter(frames)
        while batch := list(islice(left, self._batch_frames)):
            found = self._segmenter(np.stack([frame.pixels for frame in batch]))
            if not isinstance(found, Sequence) or not all(
                isinstance(people, FrameMasks) for people in found
            ):
                raise TypeError(
                    f"expected a list of FrameMasks from the segmenter, got "
                    f"{type(found).__name__}{_kinds(found)}. Give one per frame, an empty one "
                    f"where nobody is."
                )
            if len(found) != len(batch):
                raise ValueError(
                    f"expected the masks of {len(batch)} frames from the segmenter, got "
                    f"{len(found)} entries. Give one per frame, an empty one where nobody is."
                )
            for frame, people in zip(batch, found, strict=True):
                if people.masks.shape[1:] != self.video.size:
                    raise ValueError(
                        f"expected masks of the frame's size {list(self.video.size)} from the "
                        f"segmenter, got {list(people.masks.shape[1:])}. Scale them up to it."
                    )
                self.num_frames += 1
                yield frame, people

    def _clean(self, people: FrameMasks) -> FrameMasks:
        """Leaves out doubtful and empty masks, and the second ones of a person."""
        kept = (people.scores >= self._options.min_score) & people.masks.any((1, 2))
        people = _chosen(people, kept)
        if people.ids is not None:
            return people
        return _chosen(
            people, ~find_duplicates(people.masks, boxes_of(people.masks), people.scores)
        )

    def _look(self, frame: VideoFrame, people: FrameMasks, ids: np.ndarray) -> Iterator[Track]:
        """Adds the people of one frame to their tracks; yields tracks that this ends."""
        boxes = boxes_of(people.masks)
        occluded = find_occluded(people.masks, boxes)
        for index, person in enumerate(ids.tolist()):
            if person < 0:  # the tracker's word for somebody new
                self.left_out["new"] += 1
                continue
            mask, box = people.masks[index], boxes[index]
            looked = judge_person(
                mask, box, frame.pixels, bool(occluded[index]), self._options.min_height
            )
            if looked.fault:
                self.left_out[looked.fault] += 1
                if looked.fault in _CUTS:
                    yield from self._close([person])
                elif person in self._open:
                    self._open[person].faults.append((frame.number, looked.fault))
                continue
            view = self._open.get(person)
            if view is not None and self._is_too_late(frame, view):
                yield from self._close([person])
            view = self._open.setdefault(person, _View())
            points = None if people.keypoints is None else people.keypoints[index]
            silhouette = _normalized(mask, box, self._options.size)
            view.add(frame, silhouette, box, looked, float(people.scores[index]), points)
        yield from self._close(
            [person for person, view in self._open.items() if self._is_too_late(frame, view)]
        )

    def _is_too_late(self, frame: VideoFrame, view: _View) -> bool:
        return frame.time - view.times[-1] > self._options.max_gap + _LAST_BITS

    def _close(self, people: Iterable[int]) -> Iterator[Track]:
        """The tracks of views that end."""
        for person in people:
            view = self._open.pop(person, None)
            if view is not None:
                yield from self._tracks_of(view, person)

    def _tracks_of(self, view: _View, person: int) -> Iterator[Track]:
        """Leaves bad frames of a view out and cuts it where that makes the gap too long."""
        sharp = np.array(view.sharpness)
        blurred = sharp < _LEAST_SHARPNESS * np.median(sharp)
        odd = area_outliers(np.array(view.areas)) & ~blurred
        for name, mask in (("blurred", blurred), ("area", odd)):
            numbers = np.array(view.frames)[mask].tolist()
            self.left_out += Counter({name: len(numbers)})
            view.faults += [(number, name) for number in numbers]
        kept = np.flatnonzero(~blurred & ~odd)
        times = np.array(view.times)
        gaps = np.diff(times[kept]) > self._options.max_gap + _LAST_BITS
        for part in np.split(kept, np.flatnonzero(gaps) + 1):
            if len(part) < self._options.min_frames:
                self.left_out["too short"] += len(part)
                continue
            first, last = view.frames[part[0]], view.frames[part[-1]]
            dropped = Counter(fault for number, fault in view.faults if first < number < last)
            points = [view.keypoints[index] for index in part]
            found = [point for point in points if point is not None]
            yield Track(
                self.video.name,
                self._number,
                person,
                torch.stack([view.silhouettes[index] for index in part]),
                np.array(view.frames)[part],
                times[part],
                np.stack(view.boxes)[part],
                np.array(view.areas)[part],
                sharp[part],
                np.array(view.scores)[part],
                torch.from_numpy(np.stack(found)) if len(found) == len(part) else None,
                dict(dropped),
            )
            self._number += 1


@dataclass(eq=False)
class _View:
    """What is known so far of a track that has not ended; one entry per frame."""

    frames: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    silhouettes: list[Tensor] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)
    areas: list[int] = field(default_factory=list)
    sharpness: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    keypoints: list[np.ndarray | None] = field(default_factory=list)
    faults: list[tuple[int, str]] = field(default_factory=list)  # of frames left out

    def add(
        self,
        frame: VideoFrame,
        silhouette: Tensor,
        box: np.ndarray,
        person: Person,
        score: float,
        keypoints: np.ndarray | None,
    ) -> None:
        self.frames.append(frame.number)
        self.times.append(frame.time)
        self.silhouettes.append(silhouette)
        self.boxes.append(box)
        self.areas.append(person.area)
        self.sharpness.append(person.sharpness)
        self.scores.append(score)
        self.keypoints.append(None if keypoints is None else keypoints.astype(np.float32))


def _kinds(found: object) -> str:
    """What stands in a list that should hold FrameMasks."""
    if not isinstance(found, Sequence):
        return ""
    return f" of {', '.join(sorted({type(entry).__name__ for entry in found}))}"


def _chosen(people: FrameMasks, kept: np.ndarray) -> FrameMasks:
    if kept.all():
        return people
    return FrameMasks(
        people.masks[kept],
        people.scores[kept],
        None if people.ids is None else people.ids[kept],
        None if people.keypoints is None else people.keypoints[kept],
    )


def _normalized(mask: np.ndarray, box: np.ndarray, size: int) -> Tensor:
    """``[size, size]`` uint8 of a mask ``[H, W]``, as of the whole frame."""
    _, top, _, bottom = box.tolist()
    # All columns: the width is rounded when it is resized, and a narrow body would be distorted.
    rows = torch.from_numpy(mask[top:bottom].astype(np.uint8) * 255)
    return normalize_frames(rows[None], size, None, [])[0]
