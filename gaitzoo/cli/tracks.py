"""``gaitzoo tracks``: the people of videos as silhouettes."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tabulate import tabulate

from gaitzoo.cli.find import check_paths
from gaitzoo.cli.options import add_command
from gaitzoo.cli.segment import add_segmenter_options, find_tracks, say_left_out
from gaitzoo.data.atomic import whole_files
from gaitzoo.data.files import load_silhouettes
from gaitzoo.data.track_files import SavedTracks
from gaitzoo.data.video import Video, read_video
from gaitzoo.evaluation.pictures import Panel, contact_sheet, evenly_spaced
from gaitzoo.evaluation.videos import is_overlay, write_overlay

__all__ = ["add_tracks"]

_FRAMES_SHOWN = 12
_SOFTWARE = "gaitzoo tracks"  # in the text of each contact sheet
_EXAMPLES = """\
  gaitzoo tracks street.mp4 -o tracks/
  gaitzoo tracks ann-monday.mp4 ann-tuesday.mp4 -o known/ --identity ann
  gaitzoo tracks street.mp4 -o tracks/ --masks street-masks/

Each unbroken view of a person is a track: tracks/street-000/street/000/000.pkl, with a picture
tracks/street-000.png. tracks/street.mp4 shows all of them; tracks/street.jsonl has their boxes,
times and quality. A video that is there already is not read again."""


def add_tracks(commands: Any) -> None:
    """Adds the command."""
    command = add_command(
        commands, "tracks", _run, "find the people of videos, as silhouettes", _EXAMPLES
    )
    command.add_argument(
        "videos", nargs="+", metavar="VIDEO", help="video files, or folders of frames"
    )
    command.add_argument("-o", "--out", required=True, metavar="DIR", help="folder to write")
    command.add_argument(
        "--identity", metavar="NAME", help="who walks, if it is one known person alone"
    )
    command.add_argument(
        "--frame-rate", type=float, metavar="N", help="of folders of frames (default: 25)"
    )
    command.add_argument(
        "--no-pictures", action="store_true", help="neither PNG nor MP4 to look at"
    )
    command.add_argument(
        "--force", action="store_true", help="replace tracks that other settings gave"
    )
    command.add_argument(
        "--device", metavar="NAME", help="of the segmenter (default: a GPU if there is one)"
    )
    command.add_argument("-q", "--quiet", action="store_true", help="no progress bars")
    add_segmenter_options(command)


def _run(options: argparse.Namespace) -> None:
    check_paths(*options.videos, *([options.masks] if options.masks else []))
    if options.masks and len(options.videos) > 1:
        raise ValueError("expected one video with --masks, got several; run the command for each")
    root = Path(options.out)
    failed = []
    for path in options.videos:
        try:
            rate = options.frame_rate if Path(path).is_dir() else None
            video = read_video(path, frame_rate=rate)
            _check_place(video, root)
            found = find_tracks(
                options, video, root, identity=options.identity, force=options.force
            )
        except (ValueError, FileExistsError) as error:
            if len(options.videos) == 1:
                raise
            failed.append(str(error))
            continue
        if not options.no_pictures:
            _draw_all(found, video)
        elif not found.resumed:
            _overlay(root, video).unlink(missing_ok=True)  # of earlier tracks
        _say(found)
    if failed:
        raise ValueError(f"{len(failed)} of {len(options.videos)} videos: {'; '.join(failed)}")


def _check_place(video: Video, root: Path) -> None:
    """Refuses folders in which a picture would replace or join what the user has."""
    itself = video.path.resolve()
    if root.resolve() == (itself if video.images else itself.parent):
        raise ValueError(
            f"expected another folder than that of the video, got {root}: pictures to look at "
            f"would replace {video.path}, or be frames of it"
        )
    overlay = _overlay(root, video)
    foreign = [(overlay, "the MP4")] if overlay.exists() and not is_overlay(overlay) else []
    sheet = re.compile(rf"{re.escape(video.name)}-\d{{3,}}\.png")
    pictures = sorted(root.iterdir()) if root.is_dir() else []
    foreign += [(p, "a picture") for p in pictures if sheet.fullmatch(p.name) and not _is_sheet(p)]
    if foreign:
        path, kind = foreign[0]
        raise ValueError(
            f"expected no file {path}, where {kind} to look at is written, got one that is "
            f"not of this command; choose another folder, or move it away"
        )


def _is_sheet(path: Path) -> bool:
    """Whether a file is a contact sheet of this command."""
    try:
        with Image.open(path) as picture:
            return picture.info.get("Software") == _SOFTWARE
    except OSError:
        return False


def _overlay(root: Path, video: Video) -> Path:
    return root / f"{video.name}.mp4"


def _say(found: SavedTracks) -> None:
    known = ", there already" if found.resumed else ""
    print(f"{found.video}: {len(found.tracks)} track(s) in {found.num_frames} frames{known}")
    headers = ("track", "identity", "frames", "dropped", "from", "to", "height", "path")
    rows = [
        (
            track["name"],
            track["identity"],
            len(track["frames"]),
            sum(track["dropped"].values()),
            f"{track['times'][0]:.2f} s",
            f"{track['times'][-1]:.2f} s",
            f"{_height(track)} px",
            track["path"],
        )
        for track in found.tracks
    ]
    if rows:
        align = ("left", "left", *["right"] * 5, "left")
        print(tabulate(rows, headers, colalign=align, disable_numparse=True))
    print(say_left_out(found), end="\n\n")


def _height(track: dict[str, Any]) -> int:
    """Mean height of the body in pixels."""
    return round(sum(box[3] - box[1] for box in track["boxes"]) / len(track["boxes"]))


def _draw_all(found: SavedTracks, video: Video) -> None:
    """Writes the pictures, those that a run that was killed left out too."""
    for track in found.tracks:
        path = found.root / f"{track['name']}.png"
        if not (found.resumed and path.exists()):
            _draw(track, found.root, path)
    path = _overlay(found.root, video)
    if not (found.resumed and path.exists()):
        write_overlay(video, found.tracks, found.root, path)


def _draw(track: dict[str, Any], root: Path, path: Path) -> None:
    """Writes the contact sheet of a track."""
    frames = evenly_spaced(load_silhouettes(root / track["path"]), _FRAMES_SHOWN)
    dropped = ", ".join(f"{count} {reason}" for reason, count in track["dropped"].items())
    caption = [
        f"{track['name']}, {track['identity']}",
        f"{len(track['frames'])} frames from {track['times'][0]:.2f} to "
        f"{track['times'][-1]:.2f} s, body {_height(track)} pixels high; "
        f"dropped: {dropped or 'none'}",
    ]
    with whole_files(path) as unfinished:
        mark = PngInfo()
        mark.add_text("Software", _SOFTWARE)
        contact_sheet([[Panel(frames, caption)]]).save(unfinished, "PNG", pnginfo=mark)
