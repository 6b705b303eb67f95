"""Local contrast: histograms equalised in tiles, with a limit on how steep they may get.

Source: contrast-limited adaptive histogram equalisation (Zuiderveld, Graphics Gems IV, 1994).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gaitzoo.data.feature_linking import mirrored

__all__ = ["equalize_tiles"]

_TILES = 8  # rows and columns of tiles
_BINS = 256
_CLIP_LIMIT = 0.01


def equalize_tiles(images: Tensor) -> Tensor:
    """Equalises the histograms of 8 x 8 tiles, smoothly from tile to tile.

    With the sizes that MATLAB's ``adapthisteq`` has by itself: 256 levels and a clip limit of
    0.01, as far up from the flattest possible histogram to the steepest. What is clipped is shared
    out over all levels once, and pixels stand between the centres of tiles, as in OpenCV;
    MATLAB's own treatment of both differs a little [inferred].

    Args:
        images: ``[N, 1, H, W]`` floats in [0, 1].

    Returns:
        The same shape and type, in [0, 1].

    Example:
        >>> dark = torch.linspace(0, 0.2, 64).repeat(64, 1)[None, None]
        >>> bool(equalize_tiles(dark).max() > 0.2)
        True
    """
    count, _, height, width = images.shape
    margins = [(-size) % _TILES for size in (height, width)]
    (top, bottom), (left, right) = ((m // 2, m - m // 2) for m in margins)
    levels = mirrored((images[:, 0] * (_BINS - 1)).round().long(), (top, bottom), (left, right))
    rows, columns = (size // _TILES for size in levels.shape[1:])
    tiles = levels.unflatten(1, (_TILES, rows)).unflatten(3, (_TILES, columns))
    tiles = tiles.transpose(2, 3).flatten(3).flatten(1, 2)
    pixels = rows * columns
    counts = images.new_zeros(count, _TILES**2, _BINS)
    counts.scatter_add_(2, tiles, torch.ones_like(tiles, dtype=images.dtype))
    flattest = math.ceil(pixels / _BINS)
    limit = flattest + math.floor(_CLIP_LIMIT * (pixels - flattest) + 0.5)
    clipped = counts.clamp(max=limit)
    shared = (counts - clipped).sum(2, keepdim=True) / _BINS
    maps = ((clipped + shared).cumsum(2) / pixels).clamp(max=1)
    equalized = _between_tiles(maps, levels, rows, columns)
    return equalized[:, None, top : top + height, left : left + width]


def _between_tiles(maps: Tensor, levels: Tensor, rows: int, columns: int) -> Tensor:
    """Every pixel's level under the maps of the four tiles around it, bilinearly."""
    near = [
        _neighbours(size, step, maps)
        for size, step in zip(levels.shape[1:], (rows, columns), strict=True)
    ]
    flat = maps.flatten(1)
    mixed = torch.zeros_like(levels, dtype=maps.dtype)
    for row, row_share in near[0]:
        for column, column_share in near[1]:
            place = (row[:, None] * _TILES + column) * _BINS + levels
            found = flat.gather(1, place.flatten(1)).view_as(mixed)
            mixed += row_share[:, None] * column_share * found
    return mixed


def _neighbours(size: int, step: int, like: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The tile before and the tile behind every pixel of an axis, and the share of each."""
    places = torch.arange(size, device=like.device, dtype=like.dtype)
    places = ((places + 0.5) / step - 0.5).clamp(0, _TILES - 1)
    before = places.floor()
    share = places - before
    behind = (before + 1).clamp(max=_TILES - 1)
    return [(before.long(), 1 - share), (behind.long(), share)]
