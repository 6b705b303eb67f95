"""Probes compared with a gallery, block by block: where the matches of each probe stand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from gaitzoo.data.distances import distance_block, part_distances, rerank
from gaitzoo.data.ranking import (
    Labels,
    as_list,
    encode,
    first_match_ranks,
    group_views,
    join_matches,
    match_ranks,
)
from gaitzoo.evaluation.protocols import Condition, GaitProtocol

__all__ = [
    "BY_VIEWS",
    "Comparison",
    "Probes",
    "Ranked",
    "Sequences",
    "choose_sides",
    "listed_sequences",
]

# Probes of protocols that list them: a bool for every sequence, or names.
Probes: TypeAlias = Sequence[bool] | Sequence[str] | np.ndarray | Tensor | None

# Pairs whose distances are held at once, 4 bytes each. Every block of probes goes through the whole
# gallery anew.
_PAIRS_AT_ONCE = {"cpu": 2**26, "accelerator": 2**27}
# Pairs that are ranked at once, with temporary results of some 30 bytes each.
_PAIRS_RANKED_AT_ONCE = 2**24
_COLUMNS_AT_ONCE = 4096
BY_VIEWS = ("cross_view", "all_views")  # settings that compare view by view


@dataclass(frozen=True, eq=False)
class Sequences:
    """Checked inputs; empty lists for what the protocol does not ask for and nobody gave."""

    embeddings: Tensor
    labels: list[str]
    codes: Tensor  # identities
    views: list[str | int]
    view_codes: Tensor
    types: list[str]
    type_codes: Tensor

    @classmethod
    def checked(
        cls,
        embeddings: Tensor,
        labels: Labels,
        views: Labels | None,
        types: Sequence[str] | None,
        protocol: GaitProtocol,
    ) -> Sequences:
        """The inputs of a protocol; raises if one is missing or counts disagree."""
        if views is None and protocol.needs_views:
            raise ValueError(f"expected views for {protocol.name}, got none; pass views=")
        if types is None and protocol.needs_types:
            raise ValueError(f"expected types for {protocol.name}, got none; pass types=")
        columns = {"labels": labels, "views": views, "types": types}
        lists: dict[str, list] = {}
        codes: dict[str, Tensor] = {}
        for name, values in columns.items():
            lists[name] = []
            codes[name] = torch.zeros(len(embeddings), dtype=torch.int64)
            if values is None:
                continue
            lists[name] = as_list(values, name)
            if name == "views" and protocol.view_separator is not None:
                separator = protocol.view_separator
                lists[name] = [str(view).split(separator)[0] for view in lists[name]]
            if len(lists[name]) != len(embeddings):
                raise ValueError(
                    f"expected {len(embeddings)} {name}, one per row of embeddings, got "
                    f"{len(lists[name])}"
                )
            codes[name] = encode(lists[name], lists[name], name)[0]
        return cls(
            embeddings.detach(),
            [str(label) for label in lists["labels"]],
            codes["labels"],
            lists["views"],
            codes["views"],
            lists["types"],
            codes["types"],
        )


@dataclass(frozen=True, eq=False)
class Ranked:
    """Where matches of the probes of a condition stand, by view of the gallery or in all of it."""

    identity: Tensor  # [Q], codes without gaps
    row: Tensor  # [Q], view of each probe
    first: Tensor  # [Q, V], rank of the first match, 0 = none
    row_names: tuple[str | int, ...]
    column_names: tuple[str | int, ...]
    gallery_size: int
    values: dict[str, Tensor]  # [Q] per score of retrieval, NaN without a match


class Comparison:
    """Probes compared with a gallery, some rows at a time.

    Args:
        data: All sequences.
        metric: ``"euclidean"`` or ``"cosine"``.
        reranked: Whether distances are re-ranked, all at once.
        device: Where to compute; ``None`` = on the first CUDA device where there is one, else where
            the embeddings are.
    """

    def __init__(
        self, data: Sequences, metric: str, reranked: bool, device: str | torch.device | None
    ) -> None:
        if device is None:
            device = "cuda" if torch.cuda.is_available() else data.embeddings.device
        self.data = data
        self.metric = metric
        self.reranked = reranked
        self.device = torch.device(device)

    def rank(self, query: Tensor, gallery: Tensor, pairs: str, retrieval: bool) -> Ranked:
        """Compares probes with a gallery.

        Args:
            query: Numbers of the probes.
            gallery: Numbers of the gallery.
            pairs: The setting, as of :class:`gaitzoo.GaitProtocol`.
            retrieval: Whether mAP and mINP are wanted, of settings that are not by views.
        """
        data = self.data
        by_views = pairs in BY_VIEWS
        row, row_names = torch.zeros(len(query), dtype=torch.int64), ("",)
        groups, column_names = [slice(None)], ("",)
        if by_views:
            row_names, places = group_views([data.views[i] for i in query.tolist()])
            for number, place in enumerate(places):
                row[place] = number
            column_names, places = group_views([data.views[i] for i in gallery.tolist()])
            # Views side by side, so that each is a slice; inside a view the order stays.
            gallery = gallery[torch.tensor([index for place in places for index in place])]
            ends = np.cumsum([len(place) for place in places]).tolist()
            groups = [slice(end - len(p), end) for end, p in zip(ends, places, strict=True)]
        first = torch.zeros(len(query), len(groups), dtype=torch.int64)
        blocks = []
        for rows, distances in self.slices(query, gallery):
            matches, excluded = self.pairs(query[rows], gallery, pairs)
            for number, columns in enumerate(groups):
                first[rows, number] = first_match_ranks(
                    distances[:, columns], matches[:, columns], excluded[:, columns]
                )
            if retrieval and not by_views and bool((first[rows] > 0).any()):
                found, rank = match_ranks(distances, matches, excluded)
                blocks.append((found + rows.start, rank))
        values = {}
        if blocks:
            joined = join_matches(blocks)
            for name, value in (("mAP", joined.average_precision()), ("mINP", joined.inp())):
                values[name] = torch.full((len(query),), torch.nan, dtype=torch.float64)
                values[name][joined.origin] = value
        identity = data.codes[query].unique(return_inverse=True)[1]
        return Ranked(identity, row, first, row_names, column_names, len(gallery), values)

    def pairs(self, query: Tensor, gallery: Tensor, setting: str) -> tuple[Tensor, Tensor]:
        """Which pairs are of one person, and which take no part, ``[Q, G]`` bool each."""

        def equal(codes: Tensor) -> Tensor:
            return codes[query].to(self.device)[:, None] == codes[gallery].to(self.device)

        matches = equal(self.data.codes)
        excluded = equal(torch.arange(len(self.data.labels)))
        if setting.startswith("re_id"):
            alike = equal(self.data.view_codes)
            if setting == "re_id_types":
                alike |= equal(self.data.type_codes)
            excluded |= matches & alike
        return matches, excluded

    def slices(self, query: Tensor, gallery: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Distances ``[rows, G]``, of as many probes as can be ranked at once."""
        step = max(1, _PAIRS_RANKED_AT_ONCE // len(gallery))
        for rows, block in self._blocks(query, gallery):
            for start in range(0, len(block), step):
                some = block[start : start + step]
                first = rows.start + start
                yield slice(first, first + len(some)), some

    def _blocks(self, query: Tensor, gallery: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Distances ``[rows, G]`` on the device, for one slice of the probes after the other."""
        dense = self._rerank(query, gallery) if self.reranked else None
        source = self.data.embeddings
        dtype = torch.float64 if source.dtype == torch.float64 else torch.float32
        kind = "cpu" if self.device.type == "cpu" else "accelerator"
        step = max(1, _PAIRS_AT_ONCE[kind] // len(gallery))
        for start in range(0, len(query), step):
            rows = slice(start, min(start + step, len(query)))
            if dense is not None:
                yield rows, dense[rows]
                continue
            block = torch.empty(
                rows.stop - rows.start, len(gallery), dtype=dtype, device=self.device
            )
            some = source[query[rows]].to(self.device)
            for column in range(0, len(gallery), _COLUMNS_AT_ONCE):
                columns = slice(column, column + _COLUMNS_AT_ONCE)
                others = source[gallery[columns]].to(self.device)
                block[:, columns] = distance_block(some, others, self.metric)
            yield rows, block

    def _rerank(self, query: Tensor, gallery: Tensor) -> Tensor:
        sides = [self.data.embeddings[side].to(self.device) for side in (query, gallery)]
        metric = "cosine" if self.metric == "cosine" else "euclidean"

        def between(one: Tensor, other: Tensor) -> Tensor:
            return part_distances(one, other, metric=metric)

        return rerank(between(sides[0], sides[0]), between(*sides), between(sides[1], sides[1]))


def listed_sequences(
    data: Sequences,
    probes: Probes,
    protocol: GaitProtocol,
) -> np.ndarray | None:
    """Which sequences are probes of the list, ``[N]`` bool; ``None`` without a list."""
    if (probes is not None) != protocol.listed:
        problem = "a list of probes, got none; pass" if protocol.listed else "no list, leave out"
        raise ValueError(f"{protocol.name}: expected {problem} probes=")
    if probes is None:
        return None
    listed = probes.tolist() if isinstance(probes, Tensor | np.ndarray) else list(probes)
    if listed and all(type(each) is bool for each in listed):
        if len(listed) != len(data.labels):
            raise ValueError(f"expected {len(data.labels)} probes as bool, got {len(listed)}")
        mask = np.array(listed, dtype=bool)
    elif listed and all(isinstance(each, str) for each in listed):
        if not data.types or not data.views:
            raise ValueError("expected types= and views= to find probes by name; pass both")
        names = zip(data.labels, data.types, data.views, strict=True)
        found = [f"{a}-{b}-{c}" for a, b, c in names]
        absent = {str(each) for each in listed} - set(found)
        if absent:
            raise ValueError(
                f"expected every probe among the sequences, got {len(absent)} of {len(listed)} "
                f"that are not, such as {min(absent)!r}; names are identity-type-view"
            )
        mask = np.isin(found, listed)
    else:
        raise TypeError("expected probes as bool per sequence or as names, got another type")
    if mask.all() or not mask.any():
        raise ValueError("expected probes and a gallery beside them, got one of both alone")
    return mask


def choose_sides(
    data: Sequences, condition: Condition, protocol: GaitProtocol, listed: np.ndarray | None
) -> tuple[Tensor, Tensor]:
    """Numbers of the probes and of the gallery."""
    types = data.types or [""] * len(data.labels)
    query = protocol.choose(types, condition.query)
    gallery = protocol.choose(types, condition.gallery)
    if listed is not None:
        query, gallery = query & listed, gallery & ~listed
    return torch.from_numpy(query.nonzero()[0]), torch.from_numpy(gallery.nonzero()[0])
