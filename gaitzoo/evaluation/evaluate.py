"""Embeddings of a data set scored by its protocol."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gaitzoo.data.distances import check_embeddings, check_metric
from gaitzoo.data.ranking import Labels
from gaitzoo.evaluation.bootstrap import check_resamples, resample_weights
from gaitzoo.evaluation.comparison import (
    BY_VIEWS,
    Comparison,
    Probes,
    Ranked,
    Sequences,
    choose_sides,
    listed_sequences,
)
from gaitzoo.evaluation.protocols import GaitProtocol, find_protocol
from gaitzoo.evaluation.results import ProtocolResult, ScoreRow
from gaitzoo.metrics import CrossViewRank1

__all__ = ["evaluate"]

_CURVE = 20  # ranks of a CMC
_LEVEL = 0.95


def evaluate(
    embeddings: Tensor,
    labels: Labels,
    *,
    protocol: str | GaitProtocol,
    views: Labels | None = None,
    types: Sequence[str] | None = None,
    probes: Probes = None,
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
    if rerank and set(protocol.pairs) & set(BY_VIEWS):
        raise ValueError(
            f"expected a protocol that compares whole galleries for re-ranking, got "
            f"{protocol.name}; leave rerank out"
        )
    data = Sequences.checked(embeddings, labels, views, types, protocol)
    listed = listed_sequences(data, probes, protocol)
    comparison = Comparison(data, metric, rerank, device)
    rows, missing = [], []
    used = torch.zeros(len(embeddings), dtype=torch.bool)
    for condition in protocol.conditions:
        query, gallery = choose_sides(data, condition, protocol, listed)
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


def _cells(ranked: Ranked, hits: Tensor, counted: Tensor, weights: Tensor | None = None) -> Tensor:
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


def _mean_of_cells(cells: Tensor, ranked: Ranked, pairs: str) -> Tensor:
    """Mean over columns, then over rows, ``[draws]``; equal views left out where that is asked."""
    if pairs == "cross_view":
        same = [[row == column for column in ranked.column_names] for row in ranked.row_names]
        cells = cells.masked_fill(torch.tensor(same), torch.nan)
    return cells.nanmean(2).nanmean(1)


def _rank_cells(ranked: Ranked, k: int, unmatched: str, weights: Tensor | None = None) -> Tensor:
    has_match = ranked.first > 0
    counted = has_match if unmatched == "skip" else torch.ones_like(has_match)
    return _cells(ranked, has_match & (ranked.first <= k), counted, weights)


def _all_scores(
    ranked: Ranked,
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
    ranked: Ranked, condition: str, pairs: str, unmatched: str, ranks: Sequence[int]
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
    if pairs in BY_VIEWS:
        cells = _rank_cells(ranked, 1, unmatched)[0]
        table = CrossViewRank1(cells, ranked.row_names, ranked.column_names)
    sizes = len(ranked.first), ranked.gallery_size
    without = int((ranked.first == 0).all(1).sum())
    return ScoreRow(condition, pairs, unmatched, scores, {}, curve, table, *sizes, without)


def _intervals(
    ranked: Ranked, row: ScoreRow, ranks: Sequence[int], resamples: int, seed: int
) -> dict[str, tuple[float, float]]:
    weights = resample_weights(int(ranked.identity.max()) + 1, resamples, seed)
    drawn = _all_scores(ranked, row.pairs, row.unmatched, ranks, weights)
    bounds = torch.tensor([(1 - _LEVEL) / 2, (1 + _LEVEL) / 2], dtype=torch.float64)
    found = {name: values.nanquantile(bounds).tolist() for name, values in drawn.items()}
    return {name: (low, high) for name, (low, high) in found.items()}
