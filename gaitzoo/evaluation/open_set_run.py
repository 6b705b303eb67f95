"""Open-set figures of a data set: who is in the gallery, thresholds, and errors on other people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gaitzoo.data.distances import check_embeddings, check_metric
from gaitzoo.data.ranking import Labels
from gaitzoo.evaluation.bootstrap import check_resamples, resample_weights
from gaitzoo.evaluation.comparison import (
    Comparison,
    Probes,
    Sequences,
    choose_sides,
    listed_sequences,
)
from gaitzoo.evaluation.open_set import own_distances, pair_curve, search_curve
from gaitzoo.evaluation.open_set_results import OpenSetResult, OpenSetRow
from gaitzoo.evaluation.protocols import GaitProtocol, find_protocol

__all__ = ["evaluate_open_set"]

_GROUPS = ("validation known", "validation strangers", "test known", "test strangers")
_RATES: tuple[str, ...] = ("FMR", "FNMR", "FPIR", "FNIR")
_PAIRS_KEPT = 2**24  # distances of pairs of different people, of more some are drawn
_LEVEL = 0.95


def evaluate_open_set(
    embeddings: Tensor,
    labels: Labels,
    *,
    protocol: str | GaitProtocol,
    views: Labels | None = None,
    types: Sequence[str] | None = None,
    probes: Probes = None,
    metric: str = "euclidean",
    rate: float = 0.01,
    seed: int = 0,
    bootstrap: int = 0,
    device: str | torch.device | None = None,
) -> OpenSetResult:
    """Verification, and searches for people who may not be in the gallery, on a data set.

    Words are those of :mod:`gaitzoo.open_set`. Probes and gallery are those of the protocol's
    conditions, and a pair takes part as in its first setting; with ``"cross_view"``, pairs of
    one view take no part, be they of one person or not.

    *Who is known*: people with probes and gallery are sorted by name, shuffled by
    ``numpy.random.default_rng(seed).permutation``, and split into four groups of equal size
    (``numpy.array_split``): validation known, validation strangers, test known, test strangers.
    Sequences of strangers are taken out of the gallery. Validation chooses one threshold for
    pairs and one for searches, over all conditions together: the largest distances where FMR and
    FPIR are at most ``rate``. The test then counts errors at them; known and strangers of the
    test take part in no choice.

    Distances are computed block by block. Of more than 2^24 pairs of different people, a random
    part of that size makes the curves of verification; rates at the thresholds count all pairs.

    Args:
        embeddings: ``[N, P, C]``, as :func:`gaitzoo.embed` returns them.
        labels: ``[N]`` identities.
        protocol: As for :func:`gaitzoo.evaluate`.
        views: ``[N]`` views, likewise.
        types: ``[N]`` types of walk, likewise.
        probes: For protocols with a list of probes, likewise.
        metric: ``"euclidean"`` or ``"cosine"``.
        rate: FMR and FPIR, a fraction, that thresholds are chosen for.
        seed: Of the choice of people, and of all draws.
        bootstrap: How often people of the test, known ones and strangers apart, are drawn again
            for 95 % intervals of the rates at the thresholds; 0 = no intervals, 1000 is usual.
        device: Where to compute; ``None`` = as :func:`gaitzoo.evaluate` does.

    Raises:
        TypeError: If an input has the wrong type.
        ValueError: If counts disagree, the protocol needs what is not given, there are fewer than
            four people with probes and gallery, or validation or test has no searches of known
            people or of strangers.

    Example:
        >>> import gaitzoo
        >>> people = torch.arange(8).repeat_interleave(2)
        >>> embeddings = (people + torch.tensor([0.0, 0.125] * 8))[:, None, None]
        >>> found = evaluate_open_set(
        ...     embeddings, people, types=["01", "02"] * 8, protocol="grew", device="cpu"
        ... )
        >>> found["test"].rates
        {'FMR': 0.0, 'FNMR': 0.0, 'FPIR': 0.0, 'FNIR': 0.0}
        >>> {part: len(names) for part, names in found.people.items()}["test strangers"]
        2
    """
    protocol = find_protocol(protocol)
    check_embeddings(embeddings, embeddings)
    check_metric(metric)
    check_resamples(bootstrap, least=0)
    if not 0 < rate < 1:
        raise ValueError(f"expected a rate between 0 and 1, got {rate!r}")
    data = Sequences.checked(embeddings, labels, views, types, protocol)
    listed = listed_sequences(data, probes, protocol)
    comparison = Comparison(data, metric, False, device)
    sides = {
        condition.name: choose_sides(data, condition, protocol, listed)
        for condition in protocol.conditions
    }
    group, people, left_out = _choose_people(data, sides, seed)

    def compare(half: int, name: str, thresholds: tuple[float, float]) -> _Errors:
        query, gallery = sides[name]
        known = group[query] == half
        query = query[known | (group[query] == half + 1)]
        gallery = gallery[group[gallery] == half]
        return _compare(
            comparison, query, gallery, group[query] == half, protocol, thresholds, seed
        )

    chosen_on = [compare(0, name, (0.0, 0.0)) for name in sides]
    pairs = pair_curve(
        torch.cat([errors.same for errors in chosen_on]),
        torch.cat([errors.different for errors in chosen_on]),
    )
    searches = search_curve(
        torch.cat([errors.own for errors in chosen_on]),
        torch.cat([errors.nearest for errors in chosen_on]),
    )
    thresholds = pairs.threshold_at(rate), searches.threshold_at(rate)
    rows, missing = [], []
    for name in sides:
        errors = compare(2, name, thresholds)
        if not len(errors.own) or not len(errors.nearest):
            missing.append(name)
            continue
        rates, intervals = _rates(errors, bootstrap, seed)
        curves = (
            pair_curve(errors.same, errors.different),
            search_curve(errors.own, errors.nearest),
        )
        rows.append(OpenSetRow(name, *curves, rates, intervals, errors.num_left_out))
    if not rows:
        raise ValueError(
            "expected probes of known people and of strangers in a condition of the test, got "
            "none; more people, or another seed, are needed"
        )
    return OpenSetResult(
        protocol, metric, rate, seed, people, *thresholds,
        (len(pairs.non_mated), len(searches.non_mated)), tuple(rows), tuple(missing), left_out,
    )  # fmt: skip


def _choose_people(
    data: Sequences, sides: dict[str, tuple[Tensor, Tensor]], seed: int
) -> tuple[Tensor, dict[str, tuple[str, ...]], int]:
    """The group of every sequence (-1 = none), names by group, and how many people have none."""
    chosen: set[str] = set()
    for query, gallery in sides.values():
        names = ({data.labels[number] for number in side.tolist()} for side in (query, gallery))
        chosen |= set.intersection(*names)
    ordered = sorted(chosen)
    if len(ordered) < len(_GROUPS):
        raise ValueError(
            f"expected four people or more with probes and gallery, got {len(ordered)}; two "
            "groups of known people and two of strangers are made of them"
        )
    order = np.random.default_rng(seed).permutation(len(ordered))
    parts = [part.tolist() for part in np.array_split(order, len(_GROUPS))]
    number_of = {ordered[i]: number for number, part in enumerate(parts) for i in part}
    group = torch.tensor([number_of.get(label, -1) for label in data.labels])
    people = {
        name: tuple(sorted(ordered[i] for i in part))
        for name, part in zip(_GROUPS, parts, strict=True)
    }
    return group, people, len(set(data.labels)) - len(ordered)


@dataclass(frozen=True, eq=False)
class _Errors:
    """Distances of probes to a gallery."""

    same: Tensor  # of pairs of one person
    different: Tensor  # of pairs of different people, or of a random part of them
    own: Tensor  # of searches of known people: where they are returned, infinite = nowhere
    nearest: Tensor  # of searches of strangers: where anybody is returned
    identity: Tensor  # [Q], codes without gaps
    known: Tensor  # [Q] bool
    wrong: Tensor  # [Q, 4], errors of each kind at the thresholds
    counted: Tensor  # [Q, 4], chances of each
    num_left_out: int


def _compare(
    comparison: Comparison,
    query: Tensor,
    gallery: Tensor,
    known: Tensor,
    protocol: GaitProtocol,
    thresholds: tuple[float, float],
    seed: int,
) -> _Errors:
    setting = protocol.pairs[0]
    views = comparison.data.view_codes
    share = _PAIRS_KEPT / max(1, len(query) * len(gallery))
    generator = torch.Generator().manual_seed(seed)
    same, different = [torch.empty(0)], [torch.empty(0)]
    own, nearest = torch.full((2, len(query)), torch.nan, dtype=torch.float64)
    wrong, counted = torch.zeros(2, len(query), 4, dtype=torch.float64)
    blocks = comparison.slices(query, gallery) if len(query) and len(gallery) else ()
    for rows, distances in blocks:
        matches, excluded = comparison.pairs(query[rows], gallery, setting)
        if setting == "cross_view":
            here, there = (views[side].to(distances.device) for side in (query[rows], gallery))
            excluded |= here[:, None] == there
        matches, others = matches & ~excluded, ~matches & ~excluded
        same.append(distances[matches].cpu())
        values = distances[others].cpu()
        if share < 1:
            values = values[torch.rand(len(values), generator=generator) < share]
        different.append(values)
        accepted = distances <= thresholds[0]
        wrong[rows, 0] = (others & accepted).sum(1).double().cpu()
        wrong[rows, 1] = (matches & ~accepted).sum(1).double().cpu()
        counted[rows, 0], counted[rows, 1] = (p.sum(1).double().cpu() for p in (others, matches))
        allowed = distances.masked_fill(excluded, torch.inf)
        own[rows] = own_distances(allowed, matches, 1).double().cpu()
        nearest[rows] = allowed.amin(1).double().cpu()
    # A probe whose own person is left out altogether is no stranger: it takes no part.
    mated, non_mated = known & (counted[:, 1] > 0), ~known & (counted[:, 0] > 0)
    wrong[:, 2], counted[:, 2] = (non_mated & (nearest <= thresholds[1])), non_mated
    wrong[:, 3], counted[:, 3] = (mated & ~(own <= thresholds[1])), mated
    identity = comparison.data.codes[query].unique(return_inverse=True)[1]
    return _Errors(
        torch.cat(same), torch.cat(different), own[mated], nearest[non_mated], identity, known,
        wrong, counted, len(query) - int((mated | non_mated).sum()),
    )  # fmt: skip


def _rates(
    errors: _Errors, resamples: int, seed: int
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Rates at the thresholds, and their intervals."""
    num_people = int(errors.identity.max()) + 1
    wrong, counted = torch.zeros(2, num_people, len(_RATES), dtype=torch.float64)
    wrong.index_add_(0, errors.identity, errors.wrong)
    counted.index_add_(0, errors.identity, errors.counted)
    rates = dict(zip(_RATES, (wrong.sum(0) / counted.sum(0)).tolist(), strict=True))
    if not resamples:
        return rates, {}
    known = torch.zeros(num_people, dtype=torch.bool)
    known[errors.identity] = errors.known
    weights = torch.zeros(resamples, num_people, dtype=torch.float64)
    for part, its_seed in ((known, seed), (~known, seed + 1)):
        weights[:, part] = resample_weights(int(part.sum()), resamples, its_seed)
    bounds = torch.tensor([(1 - _LEVEL) / 2, (1 + _LEVEL) / 2], dtype=torch.float64)
    drawn = (weights @ wrong) / (weights @ counted)
    low, high = drawn.nanquantile(bounds, dim=0).tolist()
    return rates, dict(zip(_RATES, zip(low, high, strict=True), strict=True))
