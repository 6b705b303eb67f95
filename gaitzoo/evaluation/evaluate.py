"""Embeddings of a data set scored by its protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gaitzoo.data.distances import (
    check_embeddings,
    check_metric,
    distance_block,
    part_distances,
    rerank,
)
from gaitzoo.data.ranking import (
    Labels,
    as_list,
    encode,
    first_match_ranks,
    group_views,
    join_matches,
    match_ranks,
)
from gaitzoo.evaluation.bootstrap import check_resamples, resample_weights
from gaitzoo.evaluation.protocols import Condition, GaitProtocol, find_protocol
from gaitzoo.evaluation.results import ProtocolResult, ScoreRow
from gaitzoo.metrics import CrossViewRank1

__all__ = ["evaluate"]

# Pairs whose distances are held at once, 4 bytes each. Every block of probes goes through the whole
# gallery anew.
_PAIRS_AT_ONCE = {"cpu": 2**26, "accelerator": 2**27}
# Pairs that are ranked at once, with temporary results of some 30 bytes each.
_PAIRS_RANKED_AT_ONCE = 2**24
_COLUMNS_AT_ONCE = 4096
_CURVE = 20  # ranks of a CMC
_LEVEL = 0.95
_BY_VIEWS = ("cross_view", "all_views")


def evaluate(
    embeddings: Tensor,
    labels: Labels,
    *,
    protocol: str | GaitProtocol,
    views: Labels | None = None,
    types: Sequence[str] | None = None,
    probes: Sequence[bool] | Sequence[str] | np.ndarray | Tensor | None = None,
    metric: str = "euclidean",
    rerank: bool = False,
    bootstrap: int = 0,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> ProtocolResult:
    """Scores embeddings by the protocol of their data set.

    Pass all sequences of the test set; the protocol says which are probes and which the gallery.
    Distances are computed block by block and never held together: memory beside the embeddings
    stays below about 1 GB on a processor. No sequence is compared with itself.

    Args:
        embeddings: ``[N, P, C]``, as :func:`gaitzoo.embed` returns them.
        labels: ``[N]`` identities.
        protocol: ``"casiab"``, ``"oumvlp"``, ``"grew"``, ``"gait3d"``, ``"ccpg"``,
            ``"sustech1k"``, ``"ccgr"`` or a :class:`GaitProtocol`.
        views: ``[N]`` views; needed by protocols that compare them.
        types: ``[N]`` types of walk, such as ``"nm-01"``; needed by protocols with conditions.
        probes: For protocols with a list of probes (Gait3D): ``[N]`` bool, or names
            ``"identity-type-view"`` as ``PROBE_SET`` of OpenGait's ``Gait3D.json``.
        metric: ``"euclidean"`` or ``"cosine"``, as in :func:`gaitzoo.metrics.part_distances`.
        rerank: Re-rank with k-reciprocal neighbours (:func:`gaitzoo.metrics.rerank`, its
            defaults): a few thousand sequences at most, and not for settings by views.
        bootstrap: How often identities of the probes are drawn again for 95 % intervals (the
            gallery stays); 0 = no intervals, 1000 is usual.
        seed: Of those draws.
        device: Where to compute; ``None`` = on the first CUDA device where there is one, else
            where the embeddings are.

    Returns:
        Scores as fractions, printed as the tables of papers.

    Raises:
        TypeError: If an input has the wrong type.
        ValueError: If counts disagree, an embedding is not finite, the protocol needs what is not
            given, or no sequence is of its types.

    Example:
        >>> import gaitzoo
        >>> types = ["nm-01", "nm-05", "nm-01", "nm-05"] * 2
        >>> views = ["000", "000", "090", "090"] * 2
        >>> result = gaitzoo.evaluate(
        ...     torch.arange(2.0).repeat_interleave(4)[:, None, None],
        ...     ["ann"] * 4 + ["bob"] * 4,
        ...     types=types, views=views, protocol="casiab", device="cpu",
        ... )
        >>> result["NM"].scores
        {'rank1': 1.0}
        >>> result.missing
        ('BG', 'CL')
    """
    protocol = find_protocol(protocol)
    check_embeddings(embeddings, embeddings)
    check_metric(metric)
    check_resamples(bootstrap, least=0)
    if rerank and set(protocol.pairs) & set(_BY_VIEWS):
        raise ValueError(
            f"expected a protocol that compares whole galleries for re-ranking, got "
            f"{protocol.name}; leave rerank out"
        )
    data = _Sequences.checked(embeddings, labels, views, types, protocol)
    listed = _listed(data, probes, protocol)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else embeddings.device
    comparison = _Comparison(data, metric, rerank, torch.device(device))
    rows, missing = [], []
    used = torch.zeros(len(embeddings), dtype=torch.bool)
    for condition in protocol.conditions:
        query, gallery = _choose(data, condition, protocol, listed)
        if not len(query) or not len(gallery):
            missing.append(condition.name)
            continue
        used[query] = used[gallery] = True
        for pairs in protocol.pairs:
            ranked = comparison.rank(query, gallery, pairs, protocol.retrieval)
            both = protocol.unmatched if not pairs.startswith("re_id") else ("skip",)
            for unmatched in both:
                row = _score(ranked, condition.name, pairs, unmatched, protocol.ranks)
                if bootstrap:
                    intervals = _intervals(ranked, row, protocol.ranks, bootstrap, seed)
                    row.intervals.update(intervals)
                rows.append(row)
    if not rows:
        wanted = {t for c in protocol.conditions for t in (*c.query, *c.gallery)}
        raise ValueError(
            f"expected probes and gallery of {protocol.name} (types {', '.join(sorted(wanted))}), "
            f"got types {', '.join(sorted(map(str, set(data.types)))[:8]) or 'none'}; check types="
        )
    unused = int((~used).sum())
    return ProtocolResult(protocol, metric, rerank, tuple(rows), tuple(missing), unused)


@dataclass(frozen=True, eq=False)
class _Sequences:
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
    ) -> _Sequences:
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


def _listed(
    data: _Sequences,
    probes: Sequence[bool] | Sequence[str] | np.ndarray | Tensor | None,
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


def _choose(
    data: _Sequences, condition: Condition, protocol: GaitProtocol, listed: np.ndarray | None
) -> tuple[Tensor, Tensor]:
    """Numbers of the probes and of the gallery."""
    types = data.types or [""] * len(data.labels)
    query = protocol.choose(types, condition.query)
    gallery = protocol.choose(types, condition.gallery)
    if listed is not None:
        query, gallery = query & listed, gallery & ~listed
    return torch.from_numpy(query.nonzero()[0]), torch.from_numpy(gallery.nonzero()[0])


@dataclass(frozen=True, eq=False)
class _Ranked:
    """Where matches of the probes of a condition stand, by view of the gallery or in all of it."""

    identity: Tensor  # [Q], codes without gaps
    row: Tensor  # [Q], view of each probe
    first: Tensor  # [Q, V], rank of the first match, 0 = none
    row_names: tuple[str | int, ...]
    column_names: tuple[str | int, ...]
    gallery_size: int
    values: dict[str, Tensor]  # [Q] per score of retrieval, NaN without a match


class _Comparison:
    """Probes compared with a gallery, some rows at a time."""

    def __init__(self, data: _Sequences, metric: str, reranked: bool, device: torch.device) -> None:
        self.data = data
        self.metric = metric
        self.reranked = reranked
        self.device = device

    def rank(self, query: Tensor, gallery: Tensor, pairs: str, retrieval: bool) -> _Ranked:
        data = self.data
        by_views = pairs in _BY_VIEWS
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
        for rows, distances in self._slices(query, gallery):
            matches, excluded = self._pairs(query[rows], gallery, pairs)
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
        return _Ranked(identity, row, first, row_names, column_names, len(gallery), values)

    def _pairs(self, query: Tensor, gallery: Tensor, pairs: str) -> tuple[Tensor, Tensor]:
        """Which pairs are of one person, and which take no part."""

        def equal(codes: Tensor) -> Tensor:
            return codes[query].to(self.device)[:, None] == codes[gallery].to(self.device)

        matches = equal(self.data.codes)
        excluded = equal(torch.arange(len(self.data.labels)))
        if pairs.startswith("re_id"):
            alike = equal(self.data.view_codes)
            if pairs == "re_id_types":
                alike |= equal(self.data.type_codes)
            excluded |= matches & alike
        return matches, excluded

    def _slices(self, query: Tensor, gallery: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """The blocks in slices small enough to be ranked at once."""
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


def _cells(ranked: _Ranked, hits: Tensor, counted: Tensor, weights: Tensor | None = None) -> Tensor:
    """Share of hits among what counts in every cell, ``[draws, rows, columns]``.

    Args:
        ranked: The probes.
        hits: ``[Q, V]`` of each probe, 0 where it does not count.
        counted: ``[Q, V]`` bool.
        weights: ``[draws, identities]``, how often each identity was drawn; ``None`` = once.
    """
    num_rows, num_columns = len(ranked.row_names), len(ranked.column_names)
    num_identities = int(ranked.identity.max()) + 1
    if weights is None:
        place, count = ranked.row, num_rows
    else:
        place, count = ranked.identity * num_rows + ranked.row, num_identities * num_rows
    totals = []
    for values in (hits, counted):
        total = torch.zeros(count, num_columns, dtype=torch.float64)
        total.index_add_(0, place, values.double())
        if weights is not None:
            total = weights @ total.reshape(num_identities, -1)
        totals.append(total.reshape(-1, num_rows, num_columns))
    return totals[0] / totals[1]


def _mean_of_cells(cells: Tensor, ranked: _Ranked, pairs: str) -> Tensor:
    """Mean over columns, then over rows, ``[draws]``; equal views left out where that is asked."""
    if pairs == "cross_view":
        same = [[row == column for column in ranked.column_names] for row in ranked.row_names]
        cells = cells.masked_fill(torch.tensor(same), torch.nan)
    return cells.nanmean(2).nanmean(1)


def _rank_cells(ranked: _Ranked, k: int, unmatched: str, weights: Tensor | None = None) -> Tensor:
    has_match = ranked.first > 0
    counted = has_match if unmatched == "skip" else torch.ones_like(has_match)
    return _cells(ranked, has_match & (ranked.first <= k), counted, weights)


def _all_scores(
    ranked: _Ranked,
    pairs: str,
    unmatched: str,
    ranks: Sequence[int],
    weights: Tensor | None = None,
) -> dict[str, Tensor]:
    """Every score, ``[draws]``."""
    scores = {
        f"rank{k}": _mean_of_cells(_rank_cells(ranked, k, unmatched, weights), ranked, pairs)
        for k in ranks
    }
    for name, values in ranked.values.items():
        known = ~values.isnan()[:, None]
        cells = _cells(ranked, values.nan_to_num()[:, None], known, weights)
        scores[name] = _mean_of_cells(cells, ranked, pairs)
    return scores


def _score(
    ranked: _Ranked, condition: str, pairs: str, unmatched: str, ranks: Sequence[int]
) -> ScoreRow:
    if not bool((ranked.first > 0).any()):
        raise ValueError(
            f"{condition}: expected at least one probe with its person in the gallery, got none; "
            "check labels, and views that leave pairs out"
        )
    scores = {
        name: float(value) for name, value in _all_scores(ranked, pairs, unmatched, ranks).items()
    }
    if scores[f"rank{ranks[0]}"] != scores[f"rank{ranks[0]}"]:
        raise ValueError(
            f"{condition}: expected at least two different views, got {ranked.row_names} and "
            f"{ranked.column_names}; for one view take a protocol with pairs=('all',)"
        )
    curve = torch.stack(
        [
            _mean_of_cells(_rank_cells(ranked, k, unmatched), ranked, pairs)[0]
            for k in range(1, _CURVE + 1)
        ]
    )
    table = None
    if pairs in _BY_VIEWS:
        cells = _rank_cells(ranked, 1, unmatched)[0]
        table = CrossViewRank1(cells, ranked.row_names, ranked.column_names)
    sizes = len(ranked.first), ranked.gallery_size
    without = int((ranked.first == 0).all(1).sum())
    return ScoreRow(condition, pairs, unmatched, scores, {}, curve, table, *sizes, without)


def _intervals(
    ranked: _Ranked, row: ScoreRow, ranks: Sequence[int], resamples: int, seed: int
) -> dict[str, tuple[float, float]]:
    weights = resample_weights(int(ranked.identity.max()) + 1, resamples, seed)
    drawn = _all_scores(ranked, row.pairs, row.unmatched, ranks, weights)
    bounds = torch.tensor([(1 - _LEVEL) / 2, (1 + _LEVEL) / 2], dtype=torch.float64)
    found = {name: values.nanquantile(bounds).tolist() for name, values in drawn.items()}
    return {name: (low, high) for name, (low, high) in found.items()}
