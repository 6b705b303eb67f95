"""Options of the commands that begin with a video: who finds the people, what a track is."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from gaitzoo.cli.files import note
from gaitzoo.cli.options import positive
from gaitzoo.data.segmentation import FrameMasks, Segmenter
from gaitzoo.data.track_files import SavedTracks, save_tracks
from gaitzoo.data.tracking import TrackOptions
from gaitzoo.data.tracks import Content
from gaitzoo.data.video import VIDEO_SUFFIXES, Video, read_video

__all__ = ["add_segmenter_options", "find_tracks", "is_video", "say_left_out", "tracks_as_probes"]

_DEFAULT = "facebook/mask2former-swin-tiny-coco-instance"
_MEDIAPIPE = "mediapipe"


def add_segmenter_options(command: argparse.ArgumentParser) -> None:
    """Adds the choice of a segmenter and of what a track is."""
    who = command.add_mutually_exclusive_group()
    who.add_argument(
        "--segmenter",
        default=_DEFAULT,
        metavar="NAME",
        help=f"of videos: instance segmentation model on the Hub (default: {_DEFAULT}), or "
        f"{_MEDIAPIPE} for one person without the Hub",
    )
    who.add_argument(
        "--masks",
        metavar="PATH",
        help="of videos: masks that you have (label maps, COCO JSON, YOLO) instead of a segmenter",
    )
    command.add_argument(
        "--min-frames",
        type=positive,
        default=TrackOptions.min_frames,
        metavar="N",
        help=f"frames of the shortest track (default: {TrackOptions.min_frames})",
    )
    command.add_argument(
        "--min-height",
        type=positive,
        default=TrackOptions.min_height,
        metavar="N",
        help=f"pixels of the lowest body (default: {TrackOptions.min_height})",
    )
    command.add_argument(
        "--max-gap",
        type=float,
        default=TrackOptions.max_gap,
        metavar="S",
        help=f"seconds that a track survives without a good frame "
        f"(default: {TrackOptions.max_gap})",
    )


def is_video(path: str) -> bool:
    """Whether a path is a video file by its suffix."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES and not Path(path).is_dir()


def find_tracks(
    options: argparse.Namespace,
    video: Video,
    root: Path,
    *,
    identity: str | None = None,
    content: Content = "silhouettes",
    force: bool = False,
) -> SavedTracks:
    """Writes the tracks of a video as the options say.

    Args:
        options: Those of :func:`add_segmenter_options`, and ``device`` and ``quiet``.
        video: The video.
        root: Top of the tree to write.
        identity: Who walks, if it is one known person.
        content: What the tree holds.
        force: Replace tracks of other settings.
    """
    name = options.segmenter if options.masks is None else f"masks in {options.masks}"
    late = _Late(options)
    found = save_tracks(
        video,
        root,
        late,
        segmenter_name=name,
        masks=options.masks,
        identity=identity,
        content=content,
        options=TrackOptions(
            min_frames=options.min_frames,
            max_gap=options.max_gap,
            min_height=options.min_height,
        ),
        force=force,
        progress=not options.quiet,
    )
    masked = getattr(late.segmenter, "num_frames", None)
    if masked not in (None, found.num_frames):
        note(
            f"{options.masks} has masks of {masked} frames, {video.path} {found.num_frames} "
            f"frames; check that they belong together"
        )
    return found


def say_left_out(found: SavedTracks) -> str:
    """A line on the views of people that are in no track."""
    counts = sorted(found.left_out.items(), key=lambda item: -item[1])
    listed = ", ".join(f"{reason} {count}" for reason, count in counts)
    return f"left out: {listed} (people times frames)" if listed else "left out: nothing"


@contextmanager
def tracks_as_probes(options: argparse.Namespace, modalities: Sequence[str]) -> Iterator[Path]:
    """The tracks of the video that is the probe, in a folder that goes away.

    Args:
        options: With ``probe``, and as for :func:`find_tracks`.
        modalities: What the model reads.

    Raises:
        ValueError: If there is no track in it, or the model reads something else than silhouettes
            alone or poses alone.
    """
    if tuple(modalities) == ("silhouettes",):
        content = "silhouettes"
    elif tuple(modalities) == ("poses",):
        content = "poses"
    else:
        raise ValueError(
            f"expected a model of silhouettes or of poses to read a video, got one of "
            f"{', '.join(modalities)}; take another --model, or make the files yourself"
        )
    with TemporaryDirectory(prefix="gaitzoo-") as folder:
        found = find_tracks(options, read_video(options.probe), Path(folder), content=content)
        if not found.tracks:
            raise ValueError(
                f"expected people in {options.probe}, found no track in {found.num_frames} frames; "
                f"{say_left_out(found)}. gaitzoo tracks shows more; lower --min-frames or "
                f"--min-height"
            )
        for track in found.tracks:
            note(
                f"{track['name']}: {len(track['frames'])} frames, {track['times'][0]:.1f} to "
                f"{track['times'][-1]:.1f} s"
            )
        yield Path(folder)


class _Late:
    """The segmenter of the options, made when the first frames come."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self.segmenter: Segmenter | None = None

    def __call__(self, frames: np.ndarray) -> list[FrameMasks]:
        if self.segmenter is None:
            self.segmenter = _make(self._options)
        return self.segmenter(frames)


def _make(options: argparse.Namespace) -> Segmenter:
    if options.masks is not None:
        from gaitzoo.data.masks import Masks

        return Masks(options.masks)
    if options.segmenter == _MEDIAPIPE:
        from gaitzoo.inference.mediapipe_pose import MediaPipePoseSegmenter

        return MediaPipePoseSegmenter()
    from gaitzoo.inference.segmenters import TransformersSegmenter

    return TransformersSegmenter(options.segmenter, device=options.device)
