"""Tracks of a video on disk, with a record of where they came from, written all or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gaitzoo.data.atomic import whole_files
from gaitzoo.data.segmentation import Segmenter
from gaitzoo.data.tracking import TrackOptions, TrackStream
from gaitzoo.data.tracks import Content, Track, check_content, track_folder
from gaitzoo.data.video import Video, read_video

__all__ = ["SavedTracks", "save_tracks"]

_ENDS = 1 << 20  # bytes; the index of a video stands in one of them


@dataclass(frozen=True, eq=False)
class SavedTracks:
    """What :func:`save_tracks` wrote, or found written.

    Attributes:
        root: Top of the tree.
        video: Name of the video: the file's without suffix, or the folder's.
        num_frames: Frames of the video that were read.
        frame_rate: Frames per second.
        tracks: What is known of each track: ``name``, ``identity``, ``path`` below ``root``,
            ``person``, ``frames``, ``times``, ``boxes``, ``areas``, ``sharpness``, ``scores``
            and ``dropped``, as in :class:`gaitzoo.Track`.
        left_out: Views of people that are in no track, counted by the reason.
        resumed: Whether an earlier run had done the work.
    """

    root: Path
    video: str
    num_frames: int
    frame_rate: float
    tracks: list[dict[str, Any]]
    left_out: dict[str, int]
    resumed: bool

    @property
    def record(self) -> Path:
        """The file with all of this: a line of JSON for the video, then one for each track."""
        return self.root / f"{self.video}.jsonl"


def save_tracks(
    video: str | os.PathLike[str] | Video,
    root: str | os.PathLike[str],
    segmenter: Segmenter,
    *,
    segmenter_name: str,
    masks: str | os.PathLike[str] | None = None,
    identity: str | None = None,
    content: Content = "silhouettes",
    options: TrackOptions | None = None,
    batch_frames: int = 8,
    force: bool = False,
    progress: bool = True,
) -> SavedTracks:
    """Extracts the tracks of a video into a tree as OpenGait lays it out.

    ::

        root/walk-000/walk/000/000.pkl   silhouettes of the first track of walk.mp4
        root/walk.jsonl                  settings, boxes, times, quality; written last
        root/.walk.unfinished/           what a run that was killed leaves; the next one removes it

    A video that has its record is not read again.

    Args:
        video: A video file, a folder of frames, or an opened video.
        root: Top of the tree; made if missing.
        segmenter: Gives the masks of people in frames.
        segmenter_name: Which one, for the record.
        masks: File or folder that the segmenter reads, if it does: others are noticed by their
            content.
        identity: Who walks, if the video shows one person alone; ``None`` = unknown, each track
            is then a person of its own.
        content: What the tree holds, see :meth:`gaitzoo.Track.save`.
        options: What a track is.
        batch_frames: Frames that the segmenter gets at once.
        force: Replace tracks that another file or other settings gave under the same name.
        progress: Show a progress bar.

    Returns:
        What is in the tree of this video.

    Raises:
        FileExistsError: If there are tracks of a video of this name, but from another file or
            with other settings.
        ValueError: See :func:`gaitzoo.extract_tracks` and :meth:`gaitzoo.Track.save`; if
            ``identity`` is given and two people walk at the same time.
    """
    video = video if isinstance(video, Video) else read_video(video)
    options = options or TrackOptions()
    root = Path(root)
    check_content(content)
    track_folder(video.name, 0, identity)
    made_from = {
        "video": video.path.name,
        "content_of_video": _hash_of(video.images or (video.path,)),
        "frame_rate": video.frame_rate,
        "segmenter": segmenter_name,
        "content_of_masks": None if masks is None else _hash_of_masks(Path(masks)),
        "identity": identity,
        "content": content,
        **asdict(options),
    }
    record = root / f"{video.name}.jsonl"
    earlier = _read(record)
    if earlier is not None and not force:
        if earlier[0] != made_from:
            changed = [key for key in made_from if made_from[key] != earlier[0].get(key)]
            raise FileExistsError(
                f"expected tracks of {video.path.name} with these settings, or none, in {root}, "
                f"got some that were made with another {', '.join(changed)} ({record.name}). "
                f"Choose another folder, or replace them (force=True; --force)."
            )
        return SavedTracks(root, video.name, resumed=True, **earlier[1])
    root.mkdir(parents=True, exist_ok=True)
    unfinished = root / f".{video.name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
    unfinished.mkdir()
    try:
        stream = TrackStream(
            video, segmenter, options, batch_frames=batch_frames, progress=progress
        )
        tracks = []
        for track in stream:
            if identity is not None:
                _check_alone(track, tracks, identity)
            path = track.save(unfinished, identity, content=content)
            tracks.append(_described(track, identity, path.relative_to(unfinished).as_posix()))
        if earlier is not None:
            _remove(root, earlier[1]["tracks"])
        for folder in sorted({Path(track["path"]).parents[1] for track in tracks}):
            shutil.rmtree(root / folder, ignore_errors=True)  # moved before the run was killed
            (root / folder).parent.mkdir(exist_ok=True)
            os.replace(unfinished / folder, root / folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    found = {
        "num_frames": stream.num_frames,
        "frame_rate": video.frame_rate,
        "tracks": tracks,
        "left_out": dict(stream.left_out),
    }
    first = {"made_from": made_from, **{key: found[key] for key in found if key != "tracks"}}
    with whole_files(record) as file:
        lines = [json.dumps(line) for line in (first, *tracks)]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return SavedTracks(root, video.name, resumed=False, **found)


def _hash_of(files: Sequence[Path]) -> str:
    """SHA-256 of the sizes, beginnings and ends of files: little of a video of hours is read."""
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(_ENDS))
            file.seek(max(file.tell(), size - _ENDS))
            digest.update(file.read())
    return digest.hexdigest()


def _hash_of_masks(path: Path) -> str:
    """SHA-256 of names and contents of files, whole: a mask changes anywhere in a long JSON."""
    files = {"": path}
    if path.is_dir():
        below = {file.relative_to(path): file for file in path.rglob("*") if file.is_file()}
        files = {
            name.as_posix(): below[name]
            for name in sorted(below)
            if not any(part.startswith(".") for part in name.parts)
        }
    digest = hashlib.sha256()
    for name, file in files.items():
        digest.update(f"{name}\n{file.stat().st_size}\n".encode())
        with file.open("rb") as content:
            while block := content.read(_ENDS):
                digest.update(block)
    return digest.hexdigest()


def _read(record: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """What an earlier run worked with and found; ``None`` = there was none."""
    try:
        first, *tracks = map(json.loads, record.read_text(encoding="utf-8").splitlines())
        made_from = first.pop("made_from")
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(
            f"expected the record of a video's tracks in {record}, got another file. Choose "
            f"another folder, or move the file away."
        ) from error
    return made_from, {**first, "tracks": tracks}


def _check_alone(track: Track, others: list[dict[str, Any]], identity: str) -> None:
    """Refuses one name for people who walk at the same time."""
    for other in others:
        if track.frames[0] <= other["frames"][-1] and other["frames"][0] <= track.frames[-1]:
            raise ValueError(
                f"expected {identity} alone in {track.video}, got two people at "
                f"{track.times[0]:.1f} s ({other['name']} and {track.name}). Leave the identity "
                f"out, and name the tracks' folders yourself."
            )


def _described(track: Track, identity: str | None, path: str) -> dict[str, Any]:
    return {
        "name": track.name,
        "identity": track.name if identity is None else identity,
        "path": path,
        "person": track.person,
        "frames": track.frames.tolist(),
        "times": track.times.round(4).tolist(),
        "boxes": track.boxes.tolist(),
        "areas": track.areas.tolist(),
        "sharpness": track.sharpness.round(4).tolist(),
        "scores": track.scores.round(4).tolist(),
        "dropped": dict(track.dropped),
    }


def _remove(root: Path, tracks: list[dict[str, Any]]) -> None:
    """Removes the tracks of an earlier run, and folders of people that this leaves empty."""
    for track in tracks:
        (root / f"{track['name']}.png").unlink(missing_ok=True)  # drawn by the command line
    for folder in {root / Path(track["path"]).parents[1] for track in tracks}:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.parent.is_dir() and not any(folder.parent.iterdir()):
            folder.parent.rmdir()
