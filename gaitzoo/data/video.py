"""Frames of video files and of folders of images, one after the other, with their times.

Videos are read by PyAV (https://github.com/PyAV-Org/PyAV, FFmpeg's libraries in a wheel):
``pip install "gaitzoo[video]"``. Of a file, only what is inside of it is opened: formats that are
lists of other files and addresses are refused.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gaitzoo.data.images import FRAME_SUFFIXES, decode_image
from gaitzoo.data.natural import natural_order

if TYPE_CHECKING:
    import av
    import av.container

__all__ = ["VIDEO_SUFFIXES", "Video", "VideoFrame", "VideoWarning", "read_video"]

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts"),
    *(".m2ts", ".wmv", ".flv", ".ogv"),
)
"""Suffixes by which the command line tells a video from silhouettes."""

_FORMATS = "mov,matroska,avi,mpeg,mpegts,mpegvideo,asf,flv,ogg,gif,h264,hevc,mxf,ivf"
_USUAL_RATE = 25.0  # frames per second of images in a folder
_MISSING_SHARE = 0.02  # of what a container promises; edit lists and longer sound hide a little
_NEARLY_NONE = 0.01


class VideoWarning(UserWarning):
    """A video of which a part cannot be read."""


class VideoFrame(NamedTuple):
    """One frame of a video.

    Attributes:
        number: Its place, from 0; damaged frames that were left out are not counted.
        time: Seconds since the first frame.
        pixels: ``[H, W, 3]`` uint8, RGB, upright.
    """

    number: int
    time: float
    pixels: np.ndarray


@dataclass(frozen=True)
class Video:
    """A video, not read yet: iterating it gives its frames, one in memory at a time.

    Attributes:
        path: File or folder.
        size: Height and width of the frames in pixels, upright and with square pixels.
        frame_rate: Frames per second; of a variable rate the mean.
        num_frames: Frames that the file promises; ``None`` = it does not say.
        images: Files of a folder, in order; empty for a video file.
    """

    path: Path
    size: tuple[int, int]
    frame_rate: float
    num_frames: int | None
    images: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """The file's name without suffix, or the folder's."""
        return self.path.resolve().name if self.images else self.path.stem

    def __iter__(self) -> Iterator[VideoFrame]:
        frames = self._of_images() if self.images else _decode(self.path, self.frame_rate)
        for frame in frames:
            if frame.pixels.shape[:2] != self.size:
                raise ValueError(
                    f"expected frames of one size in {self.path}, got {list(self.size)} and, in "
                    f"frame {frame.number}, {list(frame.pixels.shape[:2])} pixels. Split the "
                    f"video there, or write it again with one size."
                )
            yield frame

    def _of_images(self) -> Iterator[VideoFrame]:
        for number, image in enumerate(self.images):
            yield VideoFrame(number, number / self.frame_rate, _read_image(image))


def read_video(path: str | os.PathLike[str], *, frame_rate: float | None = None) -> Video:
    """Opens a video file or a folder of frames.

    Frames come upright (rotated and mirrored as the file's display matrix, or the orientation tag
    of an image, says) and with square pixels. Times are those of the file, also where the frame
    rate varies. Frames that are damaged are left out, and a file that ends early gives what it
    has; both are said in one warning when the last frame has been read.

    Args:
        path: A video that FFmpeg reads, or a folder of images (PNG, JPEG, BMP, WebP) in natural
            order.
        frame_rate: Of a folder, frames per second; ``None`` = 25. Video files have their own.

    Returns:
        The video. Its first frame has been decoded, so that a broken file is found here.

    Raises:
        FileNotFoundError: If nothing is at ``path``.
        ImportError: If PyAV is missing.
        ValueError: If the file is no video, is cut off before its first frame, or lacks its
            index; if a folder holds no images; for a frame rate beside a file or not above 0.
            While iterating: if the size of the frames changes.

    Warns:
        VideoWarning: While iterating, if frames are damaged or missing.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> with TemporaryDirectory() as folder:
        ...     for number in range(3):
        ...         Image.new("RGB", (64, 48)).save(f"{folder}/{number}.png")
        ...     video = read_video(folder, frame_rate=10)
        ...     video.size, [frame.time for frame in video]
        ((48, 64), [0.0, 0.1, 0.2])
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"expected a video or a folder of frames, got {path}, which does not exist. Check the "
            f"path (relative paths start at {Path.cwd()})."
        )
    if not path.is_dir():
        if frame_rate is not None:
            raise ValueError(
                f"expected frame_rate for a folder of images alone, got {frame_rate} for the file "
                f"{path}, which says its own. Leave it out."
            )
        return _open_file(path)
    rate = _USUAL_RATE if frame_rate is None else frame_rate
    if not 0 < rate < float("inf"):
        raise ValueError(f"expected a frame_rate above 0 frames per second, got {frame_rate}.")
    images = [
        entry
        for entry in sorted(path.iterdir(), key=lambda entry: natural_order(entry.name))
        if entry.suffix.lower() in FRAME_SUFFIXES and not entry.name.startswith(".")
    ]
    if not images:
        raise ValueError(
            f"expected frames ({', '.join(FRAME_SUFFIXES)}) in {path}, found none. Check the path."
        )
    height, width = _read_image(images[0]).shape[:2]
    return Video(path, (height, width), rate, len(images), tuple(images))


def _read_image(path: Path) -> np.ndarray:
    return np.array(next(iter(decode_image(path))).convert("RGB"))


def _open_file(path: Path) -> Video:
    with _container(path) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate
        rate = float(rate) if rate else _USUAL_RATE
        promised = stream.frames or round(_duration(container) * rate) or None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VideoWarning)  # said when the frames are read
        first = next(_decode(path, rate), None)
    if first is None:
        raise ValueError(
            f"expected a video in {path}, got a file of which no frame can be decoded. It is "
            f"damaged, or cut off near its beginning; copy or record it again."
        )
    height, width = first.pixels.shape[:2]
    return Video(path, (height, width), rate, promised)


def _container(path: Path) -> av.container.InputContainer:
    """Opens a file that holds at least one stream of pictures."""
    av = _import_av()
    # Absolute, or "concat:a" would be an order; lists of other files are no formats here.
    options = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
    try:
        container = av.open(str(path.resolve()), options=options)
    except (av.error.FFmpegError, UnicodeDecodeError) as error:
        said = getattr(error, "log", None)
        reason = said[2].strip() if said else getattr(error, "strerror", None) or str(error)
        raise ValueError(
            f"expected a video in {path}, got a file that cannot be opened as one ({reason}). It "
            f"is of another type, or cut off (an MP4 whose recording was broken off lacks its "
            f"index, 'moov'); copy or record it again."
        ) from error
    if not container.streams.video:
        container.close()
        raise ValueError(f"expected a video in {path}, got a file without pictures.")
    return container


def _duration(container: av.container.InputContainer) -> float:
    """Seconds that a file says it lasts; 0 = it does not say."""
    return (container.duration or 0) / 1_000_000


def _import_av():
    try:
        import av
        import av.error
    except ImportError as error:
        raise ImportError(
            'expected PyAV to read videos, got none; pip install "gaitzoo[video]", or give a '
            "folder of images"
        ) from error
    return av


def _decode(path: Path, rate: float) -> Iterator[VideoFrame]:
    """Frames of a file; warns at the end of what could not be read."""
    av = _import_av()
    number, damaged, end = 0, 0, ""
    first_time, time = None, -1.0
    with _container(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        promised, duration = stream.frames, _duration(container)
        aspect = float(stream.sample_aspect_ratio or 1)
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError as error:
                end = str(getattr(error, "strerror", None) or error)
                break
            if packet is None:
                break
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                damaged += 1
                continue
            for frame in frames:
                if frame.is_corrupt:
                    damaged += 1
                    continue
                stamp = frame.time
                if first_time is None:
                    first_time = stamp or 0.0
                # Some files lack times or turn back; frames are at least in order.
                said = time if stamp is None else stamp - first_time
                time = said if said > time else (time + 1 / rate if number else 0.0)
                yield VideoFrame(number, time, _upright(frame, aspect, path))
                number += 1
    if promised:
        too_few = promised - number - damaged > max(3, _MISSING_SHARE * promised)
    else:
        too_few = duration - time - 1 / rate > max(1.0, _MISSING_SHARE * duration)
    if damaged or end or too_few:
        parts = [f"{number} of {promised or 'its'} frames"]
        parts += [f"{damaged} damaged ones left out"] * bool(damaged)
        parts += [f"it ends early{f' ({end})' if end else ''}"] * bool(end or too_few)
        warnings.warn(
            f"expected a whole video in {path}, got {', '.join(parts)}. Copy the file again if "
            f"the rest matters.",
            VideoWarning,
            stacklevel=3,
        )


def _upright(frame: av.VideoFrame, pixel_aspect: float, path: Path) -> np.ndarray:
    """Pixels ``[H, W, 3]`` as a player shows them; ``pixel_aspect`` is their width to height."""
    width = max(1, round(frame.width * pixel_aspect))
    pixels = frame.to_ndarray(format="rgb24", width=width, height=frame.height)
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return pixels
    # x' = a x + c y, y' = b x + d y, in 16.16 fixed point.
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5] / 65536
    if max(abs(b), abs(c)) < _NEARLY_NONE and min(abs(a), abs(d)) > _NEARLY_NONE:
        flip_rows, flip_columns = d < 0, a < 0
    elif max(abs(a), abs(d)) < _NEARLY_NONE and min(abs(b), abs(c)) > _NEARLY_NONE:
        pixels = pixels.swapaxes(0, 1)
        flip_rows, flip_columns = b < 0, c < 0
    else:
        raise ValueError(
            f"expected a video turned by 0, 90, 180 or 270 degrees in {path}, got the display "
            f"matrix {[[float(a), float(b)], [float(c), float(d)]]}. Write it again upright."
        )
    rows, columns = slice(None, None, -1 if flip_rows else 1), slice(None)
    if flip_columns:
        columns = slice(None, None, -1)
    return np.ascontiguousarray(pixels[rows, columns])
