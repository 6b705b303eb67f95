"""Image files as grey silhouettes: palettes, transparency, colours, orientation tags.

Annotation tools write masks in colours (labelme, VOC and DAVIS: a palette image with black as the
ground), cut-out tools write the mask as opacity, and phones write pictures on their side with a
tag. Each of these becomes white on black here, or is refused by its kind.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from gaitzoo.data.content import FAINT, WHITE

__all__ = [
    "ANIMATED_SUFFIXES",
    "FRAME_SUFFIXES",
    "Picture",
    "decode_image",
    "is_animated",
    "read_image",
]

FRAME_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
ANIMATED_SUFFIXES = (".png", ".webp")

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF")
_ERRORS = (
    OSError,
    SyntaxError,  # Pillow's word for a broken PNG
    EOFError,
    ValueError,
    LookupError,  # Pillow leaves these uncaught in damaged GIF and APNG files
    struct.error,
    Image.DecompressionBombError,
)
_GREY_MODES = ("1", "L")
_COLOUR_MODES = ("P", "PA", "LA", "La", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr")
_COLOUR_SHARE = 0.04
_LEAST_LIGHT = 10_000  # grey levels of an image that is not as good as black
_FLAT_COLOURS = 40  # a picture has more
_VOID = (224, 224, 192)  # colour of the border around things in VOC's palette, index 255
_ORIENTATION = 0x0112
_PICTURE_SHARE = 0.5  # of the pixels of an image in a colour mode that are grey


@dataclass(frozen=True, eq=False)
class Picture:
    """One frame.

    Args:
        levels: ``[H, W]`` uint8, bright on black.
        label: The class that is white, where the image is a label map; ``""`` = it is none.
    """

    levels: np.ndarray
    label: str = ""


def read_image(path: Path) -> list[Picture]:
    """Reads a still or animated image.

    Args:
        path: PNG, JPEG, BMP, WebP or GIF.

    Returns:
        Its frames, upright.

    Raises:
        ValueError: If the file is damaged, or its content is a picture or a label map of several
            classes.
    """
    return [_to_grey(image, path) for image in decode_image(path)]


def is_animated(path: Path) -> bool:
    """Whether an image has several frames; a broken one is left for the reader to refuse.

    Args:
        path: An image.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            return getattr(image, "n_frames", 1) > 1
    except _ERRORS:
        return False


def decode_image(path: Path) -> Iterator[Image.Image]:
    """The frames of an image as they are, upright.

    Args:
        path: PNG, JPEG, BMP, WebP or GIF.

    Yields:
        Each frame, valid until the next is asked for.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            for index in range(getattr(image, "n_frames", 1)):
                image.seek(index)
                image.load()
                tagged = image.getexif().get(_ORIENTATION, 1) != 1
                yield ImageOps.exif_transpose(image) if tagged else image
            if image.format == "GIF" and not _ends_with(path, b";"):
                raise EOFError("a GIF that is cut off")  # Pillow leaves the missing frames out
    except _ERRORS as error:
        raise ValueError(
            f"expected a readable image (PNG, JPEG, BMP, WebP, GIF) in {path}, got: {error}. "
            f"Write the file again; it may be cut off, or of another type than its name says."
        ) from error


def _ends_with(path: Path, mark: bytes) -> bool:
    """Compares the last bytes of a file that is not empty."""
    with path.open("rb") as file:
        file.seek(-len(mark), os.SEEK_END)
        return file.read() == mark


def _to_grey(image: Image.Image, path: Path) -> Picture:
    """Converts one frame; refuses photographs and label maps of several classes."""
    if image.mode not in _GREY_MODES + _COLOUR_MODES:
        raise ValueError(
            f"expected an image of 8 bits per channel in {path}, got pixel mode {image.mode}. "
            f"Save the mask with 8 bits, white on black."
        )
    if image.mode in _GREY_MODES:
        return Picture(np.array(image.convert("L")))
    palette = image if image.mode == "P" else None
    if image.has_transparency_data:
        image = _over_black(image)
    if image.mode == "L":
        return Picture(np.array(image))
    image = image.convert("RGB")
    grey = np.array(image.convert("L"))
    if _is_colour(image) or (palette is not None and _is_dim_mask(grey)):
        return _class_of(image, palette, path)
    if (share := ((grey >= FAINT) & (grey < WHITE)).mean()) > _PICTURE_SHARE:
        raise ValueError(
            f"expected a silhouette, white on black, in {path}, got a picture: {share:.0%} of its "
            f"pixels are grey. Segment the person first and save the mask."
        )
    return Picture(grey)


def _over_black(image: Image.Image) -> Image.Image:
    """Lays an image over black, or gives its opacity where that is the mask.

    The opacity is none where it is the same all over, or where the opaque pixels show a mask
    themselves: white on black inside a transparent margin.
    """
    layer = image.convert("RGBA")
    opacity = layer.getchannel("A")
    black = Image.new("RGBA", layer.size, (0, 0, 0, 255))
    flat = Image.alpha_composite(black, layer).convert("RGB")
    levels = np.asarray(opacity)
    opaque = levels >= WHITE
    lit = np.count_nonzero(levels >= FAINT)
    if opaque.all() or 2 * np.count_nonzero(opaque) < lit:
        is_mask = not opaque.all() and (_is_colour(flat) or not flat.getbbox())
        return opacity if is_mask else flat
    shown = np.asarray(flat.convert("L"))[opaque]
    white = (shown >= WHITE).mean()
    grey = ((shown >= FAINT) & (shown < WHITE)).mean()
    shows_a_mask = white > 0.01 and grey < 0.3 and not _is_colour(flat)
    return flat if shows_a_mask else opacity


def _is_colour(image: Image.Image) -> bool:
    """Tells a colour photograph or label map from a grey image with a colour palette.

    Palettes that dither grey tint single pixels, but not their neighbourhood: means over 8 x 8
    pixels of such animations differ by 1 % between channels, photographs by 10 % and more.
    """
    channels = np.asarray(image.reduce(8), dtype=np.int64)
    brightest = channels.max(axis=2)
    difference = brightest - channels.min(axis=2)
    bright_enough = np.asarray(image.convert("L")).sum(dtype=np.int64) > _LEAST_LIGHT
    return bool(bright_enough and difference.sum() > _COLOUR_SHARE * brightest.sum())


def _is_dim_mask(grey: np.ndarray) -> bool:
    """Whether an image is black and one dim grey, as a palette may give a class."""
    highest = int(grey.max())
    return 0 < highest < WHITE and bool(((grey == 0) | (grey == highest)).all())


def _class_of(image: Image.Image, palette: Image.Image | None, path: Path) -> Picture:
    """The mask of the one class of an RGB image of flat colours; ``palette`` has its indices."""
    found = image.getcolors(_FLAT_COLOURS) or []
    colours = [colour for _, colour in found if isinstance(colour, tuple)]
    classes = [colour for colour in colours if colour not in ((0, 0, 0), _VOID)]
    if (0, 0, 0) not in colours or not classes:
        raise ValueError(
            f"expected a grey silhouette in {path}, got a colour image. Segment the person first "
            f"and save the mask, white on black."
        )
    names = sorted(_name(colour, palette) for colour in classes)
    if len(classes) > 1:
        kind = "palette image" if palette is not None else "colour image"
        value = "index" if palette is not None else "color"
        raise ValueError(
            f"expected one person in {path}, got a label map ({kind}) of {len(classes)} classes: "
            f"{', '.join(names[:6])}{', ...' if len(names) > 6 else ''}. Choose one and save its "
            f"mask: np.array(PIL.Image.open(path)) == {value}."
        )
    mask = (np.asarray(image) == np.array(classes[0], np.uint8)).all(axis=2)
    return Picture(mask.astype(np.uint8) * 255, names[0])


def _name(colour: tuple[int, ...], palette: Image.Image | None) -> str:
    """Words a class by its index, if it has one, and its colour."""
    if palette is None:
        return f"color {colour}"
    entries = np.reshape(palette.getpalette("RGB") or [], (-1, 3))
    used = [index for index, count in enumerate(palette.histogram()) if count]
    index = next((i for i in used if tuple(entries[i].tolist()) == colour), None)
    return f"color {colour}" if index is None else f"index {index} {colour}"
