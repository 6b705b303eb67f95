"""Where the matches of each query stand: the part of ``metrics`` behind all scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from gaitzoo.layers.checks import shape_of

__all__ = [
    "NO_QUERY_LEFT",
    "Labels",
    "Matches",
    "as_list",
    "check_count",
    "check_distances",
    "check_exclude",
    "check_ranks",
    "check_sides",
    "checked_codes",
    "encode",
    "find_matches",
    "first_match_ranks",
    "group_views",
    "join_matches",
    "match_ranks",
]

Labels: TypeAlias = Tensor | np.ndarray | Sequence[str | int]

_ROWS_SORTED_AT_ONCE = 1024  # bounds the int64 permutation that a sort returns


@dataclass(frozen=True)
class Matches:
    """The matches of all queries that have any, by query and then by rank."""

    query: Tensor  # [M] int64, queries renumbered without gaps
    rank: Tensor  # [M] int64, from 1
    count: Tensor  # [queries] int64, matches of each query
    origin: Tensor  # [queries] int64, the number that each had before

    def hits_so_far(self) -> Tensor:
        """Matches of its query up to and with each match, ``[M]``."""
        first = self.count.cumsum(0) - self.count
        return torch.arange(1, len(self.query) + 1) - first[self.query]

    def first_rank(self) -> Tensor:
        """Rank of the first match of each query, ``[queries]``."""
        return self.rank[self.count.cumsum(0) - self.count]

    def average_precision(self) -> Tensor:
        """Average precision of each query, ``[queries]`` float64."""
        precision = self.hits_so_far().double() / self.rank
        return torch.bincount(self.query, weights=precision) / self.count

    def inp(self) -> Tensor:
        """Inverse negative penalty of each query, ``[queries]`` float64."""
        return self.count.double() / self.rank[self.count.cumsum(0) - 1]

    def cmc(self, max_rank: int) -> Tensor:
        """Share of queries with a match among the first 1 to ``max_rank``, ``[max_rank]``."""
        found = torch.bincount(self.first_rank().clamp(max=max_rank + 1), minlength=max_rank + 2)
        return found[1 : max_rank + 1].cumsum(0).double() / len(self.count)


NO_QUERY_LEFT = (
    "expected at least one query with a match in the gallery, got none; check that query and "
    "gallery labels name the same people in the same way, and that exclude leaves them some pairs"
)


def checked_codes(
    distances: Tensor, query_labels: Labels, gallery_labels: Labels, exclude: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Labels of both sides as numbers, when they and what is left out fit the distances."""
    check_distances(distances)
    query_codes, gallery_codes = encode(query_labels, gallery_labels, "labels")
    check_sides(distances, query_codes, gallery_codes, "labels")
    if exclude is not None:
        check_exclude(exclude, distances)
    return query_codes, gallery_codes


def find_matches(
    distances: Tensor, query_labels: Labels, gallery_labels: Labels, exclude: Tensor | None
) -> Matches:
    """Ranks of all matches, excluded pairs left out; queries without a match drop out."""
    query_codes, gallery_codes = checked_codes(distances, query_labels, gallery_labels, exclude)
    blocks = []
    for start in range(0, len(distances), _ROWS_SORTED_AT_ONCE):
        rows = slice(start, start + _ROWS_SORTED_AT_ONCE)
        block = distances[rows].detach()
        matches = (query_codes[rows, None] == gallery_codes).to(block.device)
        excluded = None if exclude is None else exclude[rows].to(block.device)
        row, rank = match_ranks(block, matches, excluded)
        blocks.append((row + start, rank))
    return join_matches(blocks)


def match_ranks(
    block: Tensor, matches: Tensor, excluded: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The row and the rank, from 1, of every match in some rows of finite distances, on the CPU."""
    if excluded is not None:
        # Distances are finite, so excluded pairs stand behind all others.
        block, matches = block.masked_fill(excluded, torch.inf), matches & ~excluded
    order = block.argsort(dim=1, stable=True)
    row, column = matches.gather(1, order).nonzero(as_tuple=True)
    return row.cpu(), column.cpu() + 1


def join_matches(blocks: Sequence[tuple[Tensor, Tensor]]) -> Matches:
    """The matches of all queries from rows, numbered over all blocks, and ranks."""
    rows = torch.cat([row for row, _ in blocks])
    origin, query, count = rows.unique_consecutive(return_inverse=True, return_counts=True)
    if len(count) == 0:
        raise ValueError(NO_QUERY_LEFT)
    return Matches(query, torch.cat([rank for _, rank in blocks]), count, origin)


def first_match_ranks(block: Tensor, matches: Tensor, excluded: Tensor | None = None) -> Tensor:
    """Rank of the nearest match in each row of finite distances, ``[rows]`` int64, 0 = no match.

    Equal distances keep the order of the columns. Nothing is sorted.
    """
    if excluded is not None:
        block, matches = block.masked_fill(excluded, torch.inf), matches & ~excluded
    # The first of equals: argmin gives the lowest column.
    nearest, column = block.masked_fill(~matches, torch.inf).min(1, keepdim=True)
    before = torch.arange(block.shape[1], device=block.device) < column
    rank = 1 + ((block < nearest) | ((block == nearest) & before)).sum(1)
    return rank.masked_fill(~matches.any(1), 0).cpu()


def as_list(values: Labels, name: str) -> list[str] | list[int]:
    """Labels or views as a list of one kind."""
    if isinstance(values, Tensor | np.ndarray):
        if values.ndim != 1:
            raise ValueError(f"expected {name} with one axis, got {list(values.shape)}; flatten it")
        values = values.tolist()
    items = [] if isinstance(values, str) else list(values)
    if items and all(isinstance(item, str) for item in items):
        return [str(item) for item in items]
    if items and all(isinstance(item, Integral) and not isinstance(item, bool) for item in items):
        return [int(item) for item in items]
    kinds = sorted({type(item).__name__ for item in items}) or [f"{type(values).__name__} (empty)"]
    raise TypeError(
        f"expected {name} as integers or as strings, one per sequence, got {', '.join(kinds)}"
    )


def encode(query: Labels, gallery: Labels, name: str) -> tuple[Tensor, Tensor]:
    """Labels or views of both sides as int64 codes on the CPU, equal where the values are."""
    sides = as_list(query, f"query {name}"), as_list(gallery, f"gallery {name}")
    kinds = [type(side[0]).__name__ for side in sides]
    if kinds[0] != kinds[1]:
        raise TypeError(
            f"expected query and gallery {name} of one kind, got {kinds[0]} and {kinds[1]}; "
            "convert one side, or nothing will match"
        )
    codes: dict[str | int, int] = {}
    query_codes, gallery_codes = (
        torch.tensor([codes.setdefault(value, len(codes)) for value in side]) for side in sides
    )
    return query_codes, gallery_codes


def group_views(views: Labels) -> tuple[tuple[str | int, ...], list[list[int]]]:
    """The sorted names of the views, and for each the positions that have it."""
    positions: dict[str | int, list[int]] = {}
    for position, view in enumerate(as_list(views, "views")):
        positions.setdefault(view, []).append(position)
    ordered: list[Any] = list(positions)  # of one kind, so they can be ordered
    names = tuple(sorted(ordered))
    return names, [positions[name] for name in names]


def check_distances(
    distances: Tensor, name: str = "distances", shape: tuple[int, int] | None = None
) -> None:
    """Raises unless distances are a finite matrix ``[Q, G]`` of floats."""
    if not isinstance(distances, Tensor) or not distances.is_floating_point():
        got = distances.dtype if isinstance(distances, Tensor) else type(distances).__name__
        raise TypeError(f"expected {name} as a floating-point tensor, got {got}")
    if distances.ndim != 2 or distances.numel() == 0:
        raise ValueError(
            f"expected {name} as a matrix with at least one row and column, got "
            f"{shape_of(distances)}; part_distances(query, gallery) makes it"
        )
    if shape is not None and distances.shape != shape:
        raise ValueError(
            f"expected {name} {list(shape)} to fit query_gallery, got {shape_of(distances)}"
        )
    if not bool(distances.isfinite().all()):
        raise ValueError(
            f"expected finite {name}, got NaN or infinite values; leave pairs out with exclude=, "
            "not with infinite distances"
        )


def check_sides(distances: Tensor, query: Tensor, gallery: Tensor, name: str) -> None:
    """Raises unless there is one label per row and per column."""
    if distances.shape != (len(query), len(gallery)):
        raise ValueError(
            f"expected {distances.shape[0]} query and {distances.shape[1]} gallery {name} for "
            f"distances {shape_of(distances)}, got {len(query)} and {len(gallery)}"
        )


def check_exclude(exclude: Tensor, distances: Tensor) -> None:
    """Raises unless there is a bool for every pair."""
    if not isinstance(exclude, Tensor) or exclude.dtype != torch.bool:
        got = exclude.dtype if isinstance(exclude, Tensor) else type(exclude).__name__
        raise TypeError(f"expected exclude as a bool tensor, got {got}; see same_view_mask")
    if exclude.shape != distances.shape:
        raise ValueError(
            f"expected exclude of the shape of distances {shape_of(distances)}, got "
            f"{shape_of(exclude)}"
        )


def check_count(value: object, name: str) -> None:
    """Raises unless a value is a whole number of 1 or more."""
    if type(value) is not int or value < 1:
        raise ValueError(f"expected {name} as a whole number of 1 or more, got {value!r}")


def check_ranks(ranks: int | Sequence[int], name: str) -> tuple[int, ...]:
    """One or several ranks as a tuple; raises unless they are whole numbers of 1 or more."""
    listed = tuple(ranks) if isinstance(ranks, Sequence) else (ranks,)
    if not listed or any(type(rank) is not int or rank < 1 for rank in listed):
        raise ValueError(
            f"expected {name} as a whole number of 1 or more, or several of them, got {ranks!r}"
        )
    return listed
