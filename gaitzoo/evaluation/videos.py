"""Tracks drawn over the video that they were found in."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gaitzoo.data.atomic import whole_files
from gaitzoo.data.files import load_silhouettes
from gaitzoo.data.video import Video

__all__ = ["draw_tracks", "is_overlay", "write_overlay"]

_LARGEST = 720  # pixels of the longer side
_TEXT_SIZE = 14
_OPACITY = 0.55
_MARK = "tracks of gaitzoo"  # the comment in a file that write_overlay made
# Told apart by eyes that see no red or green as well (Okabe and Ito's palette without black).
_COLOURS = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178)),
    *((213, 94, 0), (204, 121, 167)),
)


def draw_tracks(
    pixels: np.ndarray, people: Sequence[tuple[int, str, Sequence[int], np.ndarray]]
) -> Image.Image:
    """Draws the tracks of one frame: silhouette, box and name in a colour for each track.

    Args:
        pixels: ``[H, W, 3]`` uint8, the frame.
        people: For each track its number, what to write above it, its box (left, top, right,
            bottom in pixels of the frame) and its silhouette ``[S, S]`` uint8.

    Returns:
        An RGB picture of at most 720 pixels to a side.
    """
    picture = Image.fromarray(pixels)
    scale = min(1.0, _LARGEST / max(picture.size))
    width, height = (max(2, round(side * scale)) for side in picture.size)
    picture = picture.resize((width, height))
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(_TEXT_SIZE)
    for number, text, box, silhouette in people:
        colour = _COLOURS[number % len(_COLOURS)]
        left, top, right, bottom = (round(side * scale) for side in box)
        lit = np.flatnonzero(silhouette.any(0))
        if len(lit):
            shape = Image.fromarray(silhouette[:, lit[0] : lit[-1] + 1])
            shape = shape.resize((max(1, right - left), max(1, bottom - top)))
            opacity = Image.fromarray((np.asarray(shape) * _OPACITY).astype(np.uint8))
            picture.paste(colour, (left, top), opacity)
        draw.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=2)
        line, length = _TEXT_SIZE + 4, round(font.getlength(text)) + 6
        place = (left, top - line) if top >= line else (left, top)
        draw.rectangle((*place, place[0] + length, place[1] + line), fill=colour)
        draw.text((place[0] + 3, place[1] + 1), text, fill=(0, 0, 0), font=font)
    return picture


def _load_av() -> Any:
    try:
        import av
    except ImportError as error:
        raise ImportError('expected PyAV to write videos; pip install "gaitzoo[video]"') from error
    return av


def is_overlay(path: Path) -> bool:
    """Whether :func:`write_overlay` made a file.

    Args:
        path: The file.

    Raises:
        ImportError: If PyAV is missing.
    """
    av = _load_av()
    try:
        with av.open(str(path)) as file:
            return file.metadata.get("comment") == _MARK
    except av.FFmpegError:
        return False


def write_overlay(video: Video, tracks: Sequence[dict[str, Any]], root: Path, path: Path) -> None:
    """Writes the video with its tracks drawn over it.

    Silhouettes are read while their track lasts, so that memory does not grow with the video.

    Args:
        video: The video.
        tracks: Of :class:`gaitzoo.data.track_files.SavedTracks`, silhouettes.
        root: Top of their tree.
        path: MP4 to write, replaced if there.

    Raises:
        ImportError: If PyAV is missing.
    """
    av = _load_av()
    waiting = sorted(enumerate(tracks), key=lambda pair: pair[1]["frames"][0], reverse=True)
    shown: list[tuple[int, dict[str, Any], dict[int, int], np.ndarray]] = []
    rate = Fraction(video.frame_rate).limit_denominator(1001)
    with whole_files(path) as unfinished, av.open(str(unfinished), "w") as file:
        file.metadata["comment"] = _MARK
        # Browsers play H.264, but not every build of FFmpeg writes it.
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        stream = file.add_stream(codec, rate=rate)
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 2_000_000
        width = height = 0
        for frame in video:
            while waiting and waiting[-1][1]["frames"][0] <= frame.number:
                number, track = waiting.pop()
                places = {at: index for index, at in enumerate(track["frames"])}
                silhouettes = load_silhouettes(root / track["path"]).numpy()
                shown.append((number, track, places, silhouettes))
            shown = [entry for entry in shown if entry[1]["frames"][-1] >= frame.number]
            people = [
                (
                    number,
                    track["name"],
                    track["boxes"][index],
                    clip[index],
                )
                for number, track, places, clip in shown
                if (index := places.get(frame.number)) is not None
            ]
            picture = draw_tracks(frame.pixels, people)
            if not width:
                width, height = (side - side % 2 for side in picture.size)
                stream.width, stream.height = width, height
            picture = picture.crop((0, 0, width, height))
            file.mux(stream.encode(av.VideoFrame.from_image(picture)))
        file.mux(stream.encode())
