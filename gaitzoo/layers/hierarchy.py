"""Hierarchies of body regions for HSTL: what one is, the published ones, and whether one fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from gaitzoo.layers.checks import check_sizes

__all__ = ["CASIAB", "CASIAB_17", "GAIT3D", "OUMVLP", "WALKERS", "HSTLLevel", "check_levels"]


class HSTLLevel(NamedTuple):
    """One level of the hierarchy: how the body is cut, and what happens to its regions.

    A tuple, so that JSON can hold it: a plain tuple of the same values is as good.

    Args:
        heights: Rows of each region, from the top; they add up to the rows of the level's map.
        channels: Widths of the region-wise convolutions, one after the other.
        project: Whether a 1x1 convolution comes before the regions are pooled to parts; needed
            where the last width is not that of the parts.
        halve: Whether a 2x2 maximum halves the map behind the level.
        shorten: Whether three frames become one behind the level, region by region
            (:class:`gaitzoo.FTABlock`); the regions are then pooled once more.

    Example:
        >>> HSTLLevel((40, 24), channels=(32, 64), shorten=True).heights
        (40, 24)
    """

    heights: tuple[int, ...]
    channels: tuple[int, ...]
    project: bool = True
    halve: bool = False
    shorten: bool = False


CASIAB = (
    HSTLLevel((64,), (32,)),
    HSTLLevel((40, 24), (32, 64), shorten=True),
    HSTLLevel((8, 32, 16, 8), (128, 128), project=False),
)
CASIAB_17 = (*CASIAB[:2], CASIAB[2]._replace(project=True))
OUMVLP = (
    HSTLLevel((64,), (32, 32), halve=True),
    HSTLLevel((4, 24, 4), (64, 64), shorten=True),
    HSTLLevel((4, 4, 12, 8, 4), (128, 128)),
    HSTLLevel((4, 4, 12, 4, 4, 4), (256, 256), project=False),
)
GAIT3D = (
    HSTLLevel((64,), (32, 32), halve=True),
    HSTLLevel((20, 12), (64, 64), shorten=True),
    HSTLLevel((4, 16, 8, 4), (128, 128)),
    HSTLLevel((4, 4, 12, 8, 4), (256, 256), project=False),
)
# Half the height of CASIA-B's and narrower, for the weights that come with the library.
WALKERS = (
    HSTLLevel((32,), (8,), halve=True),
    HSTLLevel((10, 6), (16, 32), halve=True, shorten=True),
    HSTLLevel((1, 4, 2, 1), (96, 96), project=False),
)


def check_levels(levels: Sequence[HSTLLevel | Sequence[Any]]) -> tuple[HSTLLevel, ...]:
    """Raises unless every level is one and their heights fit each other; returns the levels.

    Args:
        levels: From coarse to fine.

    Raises:
        ValueError: If a level is no such tuple, or its heights do not fit the level before.
    """
    if not isinstance(levels, Sequence) or isinstance(levels, str) or not levels:
        raise ValueError(f"expected levels as a tuple of HSTLLevel, got {levels!r}")
    checked = [_check_level(level) for level in levels]
    rows = sum(checked[0].heights)
    for number, level in enumerate(checked, start=1):
        if sum(level.heights) != rows:
            raise ValueError(
                f"expected heights of level {number} that add up to its {rows} rows, got "
                f"{level.heights}, which add up to {sum(level.heights)}"
            )
        if level.halve and rows % 2:
            raise ValueError(
                f"expected an even number of rows in level {number}, which is halved, got {rows}"
            )
        rows = rows // 2 if level.halve else rows
    return tuple(checked)


def _check_level(level: object) -> HSTLLevel:
    fields = len(HSTLLevel._fields)
    if not isinstance(level, Sequence) or isinstance(level, str) or not 2 <= len(level) <= fields:
        raise ValueError(
            f"expected levels as HSTLLevel(heights, channels, ...), got {level!r}; one level "
            "alone needs a comma behind it: (HSTLLevel(...),)"
        )
    heights, channels, *choices = level
    if not all(isinstance(choice, bool) for choice in choices):
        raise ValueError(f"expected project, halve and shorten as True or False, got {choices}")
    widths = check_sizes("channels of a level", channels)
    return HSTLLevel(check_sizes("heights of a level", heights), widths, *choices)
