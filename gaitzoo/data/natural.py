"""Names in the order in which people count: 2 before 10."""

from __future__ import annotations

import re

__all__ = ["natural_order"]


def natural_order(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Key that sorts numbers inside names by value.

    Args:
        name: Name of a file or frame; the name itself settles ``1`` against ``01``.

    Example:
        >>> sorted(["10.png", "2.png", "walk.png"], key=natural_order)
        ['2.png', '10.png', 'walk.png']
    """
    pieces = re.findall(r"\d+|\D+", name)
    ranks = [(0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in pieces]
    return ranks, name
