"""Contact sheets: silhouette sequences side by side in one picture, drawn with Pillow alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from gaitzoo.data.frames import as_frames
from gaitzoo.data.modalities import find_modality

__all__ = ["Panel", "contact_sheet", "drawable_frames", "drawable_modality", "evenly_spaced"]

Verdict = Literal["right", "wrong"]

_MARGIN = 16  # pixels around the sheet and between panels
_BORDER = 4
_GAP = 1  # between the frames of a panel
_TEXT_SIZE = 14
_LINE = 19  # height of a line of text
_MAX_SIDE = 65_500  # of a picture that every viewer opens
_PAPER = (255, 255, 255)
_INK = (32, 33, 36)
_GREY_INK = (95, 99, 104)
_BETWEEN_FRAMES = (70, 70, 74)
# Told apart by eyes that see no red or green as well: one is blue-green and dark, one bright.
_BORDER_COLOURS = {"right": (0, 146, 88), "wrong": (222, 66, 44), None: (189, 193, 198)}


@dataclass(frozen=True, eq=False)
class Panel:
    """One sequence of a contact sheet.

    Args:
        frames: ``[T, H, W]``, the frames to draw, left to right; values as for
            :func:`gaitzoo.load_silhouettes`' result, masks or floats in [0, 1].
        caption: Lines below the frames, the first one darker; what does not fit is shortened.
        verdict: ``"right"`` draws a green border, ``"wrong"`` a red one, ``None`` a grey one.

    Raises:
        TypeError: If ``frames`` is no tensor or array of plain numbers.
        ValueError: If shape or values of ``frames`` are out of range, or for another verdict.
    """

    frames: Tensor | np.ndarray
    caption: Sequence[str] = ()
    verdict: Verdict | None = None
    pixels: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.verdict not in _BORDER_COLOURS:
            raise ValueError(f'expected verdict "right", "wrong" or None, got {self.verdict!r}')
        if isinstance(self.caption, str):
            raise TypeError(f"expected caption as a list of lines, got {self.caption!r} alone")
        object.__setattr__(self, "pixels", as_frames(self.frames).cpu().numpy())


def evenly_spaced(frames: Tensor, count: int) -> Tensor:
    """Picks frames at equal distances, the first and the last among them.

    Args:
        frames: ``[T, ...]``.
        count: How many to pick; all of them if there are no more.

    Returns:
        ``[min(T, count), ...]``.

    Raises:
        ValueError: If ``count`` is below 1.

    Example:
        >>> import torch
        >>> evenly_spaced(torch.arange(10), 4)
        tensor([0, 3, 6, 9])
    """
    if count < 1:
        raise ValueError(f"expected a count of 1 or more, got {count}")
    chosen = np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(np.int64)
    return frames[chosen.tolist()]


def drawable_frames(sequence: Tensor | Mapping[str, Tensor], modalities: Sequence[str]) -> Tensor:
    """Grey frames of one sequence, of its first modality that has any.

    Maps of several channels become their brightest channel, labels grey levels.

    Args:
        sequence: What a model reads, without the axis N: a tensor, or a mapping from names to
            tensors.
        modalities: Names, as in ``model.modalities``.

    Returns:
        ``[T, H, W]`` as it is (silhouettes), or floats in [0, 1].

    Raises:
        ValueError: If there are no frames to draw, as of poses.

    Example:
        >>> import torch
        >>> drawable_frames(torch.rand(2, 9, 64, 44), ("skeleton_maps",)).shape
        torch.Size([9, 64, 44])
    """
    modality = find_modality(drawable_modality(modalities))
    frames = sequence[modality.name] if isinstance(sequence, Mapping) else sequence
    if frames.ndim == 3 and modality.bytes_mean == "grey levels":
        return frames
    frames = frames.amax(0) if frames.ndim == 4 else frames
    low, high = (float(bound) for bound in frames.float().aminmax())
    low, high = modality.value_range or (low, max(high, low + 1e-6))
    if frames.dtype == torch.uint8 and modality.bytes_mean == "grey levels":
        low, high = 0, 255
    return ((frames.float() - low) / (high - low)).clamp(0, 1)


def drawable_modality(modalities: Sequence[str]) -> str:
    """The first modality that has frames to draw.

    Args:
        modalities: Names, as in ``model.modalities``.

    Raises:
        ValueError: If there is none.

    Example:
        >>> drawable_modality(("poses", "parsing"))
        'parsing'
    """
    for name in modalities:
        modality = find_modality(name)
        if modality.is_map and modality.time_axis is not None:
            return name
    raise ValueError(
        f"expected frames to draw (silhouettes, skeleton maps, parsing, ...), got "
        f"{', '.join(modalities)} alone; leave the picture out"
    )


def contact_sheet(
    rows: Sequence[Sequence[Panel]],
    *,
    title: str = "",
    headings: Sequence[str] = (),
    frame_height: int = 96,
) -> Image.Image:
    """Draws sequences in rows and columns, for example probes beside their best matches.

    Args:
        rows: Panels of each row, left to right; rows may differ in length.
        title: Line above everything.
        headings: Line above each column.
        frame_height: Height of a frame on the sheet in pixels; the width is in proportion.

    Returns:
        An RGB picture; ``.save("sheet.png")`` writes it.

    Raises:
        ValueError: If there is no panel, ``frame_height`` is below 8, or the sheet would have
            more pixels in one direction than viewers open.

    Example:
        >>> import torch
        >>> panel = Panel(torch.rand(4, 64, 44), ["ann", "distance 1.23"], "right")
        >>> contact_sheet([[panel, panel], [panel]]).mode
        'RGB'
    """
    if not rows or not all(rows):
        raise ValueError("expected at least one row, and a panel in every row, got none")
    if frame_height < 8:
        raise ValueError(f"expected frame_height of 8 pixels or more, got {frame_height}")
    font = ImageFont.load_default(_TEXT_SIZE)
    lines = max(len(panel.caption) for row in rows for panel in row)
    row_height = frame_height + 2 * _BORDER + lines * _LINE + _MARGIN
    widths = [
        max(_panel_width(row[column], frame_height) for row in rows if column < len(row))
        for column in range(max(map(len, rows)))
    ]
    top = _MARGIN + (_LINE + _MARGIN // 2 if title else 0) + (_LINE if headings else 0)
    width = _MARGIN + sum(w + _MARGIN for w in widths)
    if title:
        width = max(width, round(font.getlength(title)) + 2 * _MARGIN)
    height = top + len(rows) * row_height
    if max(width, height) > _MAX_SIDE:
        raise ValueError(
            f"expected a sheet of at most {_MAX_SIDE} pixels to a side, got {width} x {height}; "
            "draw fewer rows, or lower frame_height"
        )
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((_MARGIN, _MARGIN - 4), title, fill=_INK, font=font)
    x = _MARGIN
    for column, column_width in enumerate(widths):
        if column < len(headings):
            text = _shorten(headings[column], column_width, font)
            draw.text((x, top - _LINE), text, fill=_GREY_INK, font=font)
        for index, row in enumerate(rows):
            if column < len(row):
                place = (x, top + index * row_height)
                _draw_panel(sheet, row[column], place, column_width, frame_height, font)
        x += column_width + _MARGIN
    return sheet


def _frame_width(panel: Panel, frame_height: int) -> int:
    _, height, width = panel.pixels.shape
    return max(1, round(frame_height * width / height))


def _panel_width(panel: Panel, frame_height: int) -> int:
    count = len(panel.pixels)
    return count * _frame_width(panel, frame_height) + (count - 1) * _GAP + 2 * _BORDER


def _draw_panel(
    sheet: Image.Image,
    panel: Panel,
    place: tuple[int, int],
    column_width: int,
    frame_height: int,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
) -> None:
    """Draws frames, border and caption; ``place`` is the upper left corner."""
    draw = ImageDraw.Draw(sheet)
    x, y = place
    right = x + _panel_width(panel, frame_height)
    bottom = y + frame_height + 2 * _BORDER
    colour = _BORDER_COLOURS[panel.verdict]
    draw.rectangle((x, y, right - 1, bottom - 1), fill=_BETWEEN_FRAMES)
    draw.rectangle((x, y, right - 1, bottom - 1), outline=colour, width=_BORDER)
    width = _frame_width(panel, frame_height)
    for index, frame in enumerate(panel.pixels):
        tile = Image.fromarray(frame).resize((width, frame_height), Image.Resampling.BICUBIC)
        sheet.paste(tile, (x + _BORDER + index * (width + _GAP), y + _BORDER))
    for number, line in enumerate(panel.caption):
        text = _shorten(line, column_width, font)
        ink = _INK if number == 0 else _GREY_INK
        draw.text((x, bottom + 2 + number * _LINE), text, fill=ink, font=font)


def _shorten(text: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """Cuts the middle out of a line that is wider than ``width`` pixels."""
    shown = text
    for kept in range(len(text) - 1, 1, -1):
        if font.getlength(shown) <= width:
            break
        shown = f"{text[: kept - kept // 2]}...{text[len(text) - kept // 2 :]}"
    return shown
