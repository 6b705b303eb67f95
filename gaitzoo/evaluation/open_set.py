"""Probes that may be nobody: error rates, thresholds, and scores made comparable.

Words are those of ISO/IEC 19795-1. *Verification* compares one sequence with one claim: the false
match rate (FMR) is the share of pairs of different people within the threshold, the false
non-match rate (FNMR) the share of pairs of one person beyond it. Where every attempt is one
comparison and no acquisition fails, they are FAR and FRR, and TAR is 1 - FNMR.
*Identification* searches a gallery: the false-positive identification rate (FPIR) is the share of
searches of people who are not in it that return anybody, the false-negative identification rate
(FNIR) the share of searches of people who are in it that do not return them among the first
``rank``. A pair is accepted if its distance is at most the threshold.

Choose a threshold on people who are neither in training nor in the test, then count errors on the
test with ``rates_at``: a threshold chosen on the test itself promises too much.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gaitzoo.data.ranking import (
    Labels,
    check_count,
    check_distances,
    checked_codes,
    first_match_ranks,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ErrorCurve", "as_norm", "identification_errors", "verification_errors", "z_norm"]

_ROWS_AT_ONCE = 1024
_POINTS = 5000  # of a curve that is drawn with all of them


@dataclass(frozen=True, eq=False)
class ErrorCurve:
    """Both kinds of errors at every threshold.

    Made by :func:`verification_errors` and :func:`identification_errors`.

    Attributes:
        mated: Sorted distances that should be accepted, ``[M]`` float64; infinite for a search
            that does not return its person among the first.
        non_mated: Sorted distances that should be refused, ``[K]`` float64.
        names: What the false-positive and the false-negative rate are called.
    """

    mated: np.ndarray
    non_mated: np.ndarray
    names: tuple[str, str]

    def rates_at(self, threshold: float) -> tuple[float, float]:
        """The false-positive and the false-negative rate at a threshold, fractions."""
        false_positive = np.searchsorted(self.non_mated, threshold, side="right")
        accepted = np.searchsorted(self.mated, threshold, side="right")
        return float(false_positive / len(self.non_mated)), float(1 - accepted / len(self.mated))

    def points(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Thresholds, rising, and both rates at each: one for every distance that occurs."""
        thresholds = np.unique(np.concatenate([self.mated, self.non_mated]))
        thresholds = thresholds[np.isfinite(thresholds)]
        false_positive = np.searchsorted(self.non_mated, thresholds, side="right")
        accepted = np.searchsorted(self.mated, thresholds, side="right")
        rates = false_positive / len(self.non_mated), 1 - accepted / len(self.mated)
        return thresholds, *rates

    def threshold_at(self, rate: float) -> float:
        """The largest distance that occurs with a false-positive rate of at most ``rate``.

        Args:
            rate: FMR (FAR) or FPIR, a fraction. Below 1 / K no error is allowed, and the number
                says little: K pairs or searches cannot show rates much below 1 / K.

        Raises:
            ValueError: If ``rate`` is not in [0, 1].
        """
        if not 0 <= rate <= 1:
            raise ValueError(f"expected a rate in [0, 1], got {rate!r}")
        thresholds, false_positive, _ = self.points()
        fitting = thresholds[false_positive <= rate]
        if len(fitting):
            return float(fitting[-1])
        # The nearest pair of all is a wrong one; float32, as distances are, lest it be rounded up.
        return float(np.nextafter(np.float32(thresholds[0]), np.float32(-np.inf)))

    def true_positive_at(self, rate: float) -> float:
        """TAR@FAR: 1 - the false-negative rate at :meth:`threshold_at`.

        Args:
            rate: FMR (FAR) or FPIR, a fraction.
        """
        return 1 - self.rates_at(self.threshold_at(rate))[1]

    def eer(self) -> float:
        """Equal error rate: the mean of both rates at the threshold where they differ least."""
        return float(np.mean(self.rates_at(self.eer_threshold())))

    def eer_threshold(self) -> float:
        """The threshold where both rates differ least."""
        thresholds, false_positive, false_negative = self.points()
        return float(thresholds[np.abs(false_positive - false_negative).argmin()])

    def plot_roc(self, path: str | Path | None = None) -> Figure:
        """Draws the share of accepted true claims over the false-positive rate (matplotlib).

        Args:
            path: Picture to write, if wanted.
        """
        return draw_roc({"ROC": self}, path=path)

    def plot_det(self, path: str | Path | None = None) -> Figure:
        """Draws both error rates against each other on logarithmic axes (matplotlib).

        No error at all is drawn as half an error: 0 has no place on such axes.

        Args:
            path: Picture to write, if wanted.
        """
        return draw_det({"DET": self}, path=path)


def draw_roc(
    curves: Mapping[str, ErrorCurve],
    title: str = "receiver operating characteristic",
    path: str | Path | None = None,
) -> Figure:
    """Draws curves of one kind as :meth:`ErrorCurve.plot_roc` does."""
    from gaitzoo.evaluation.plots import draw_curves, save

    drawn, names = {}, ("", "")
    for name, curve in curves.items():
        _, false_positive, false_negative = curve.points()
        drawn[name] = _visible(100 * false_positive, 100 * (1 - false_negative))
        names = curve.names
    labels = f"{names[0]}, %", f"1 - {names[1]}, %"
    return save(draw_curves(drawn, title, *labels), path)


def draw_det(
    curves: Mapping[str, ErrorCurve],
    title: str = "detection error trade-off",
    path: str | Path | None = None,
) -> Figure:
    """Draws curves of one kind as :meth:`ErrorCurve.plot_det` does."""
    from gaitzoo.evaluation.plots import draw_curves, save

    drawn, names = {}, ("", "")
    for name, curve in curves.items():
        _, false_positive, false_negative = curve.points()
        false_positive = np.maximum(false_positive, 0.5 / len(curve.non_mated))
        false_negative = np.maximum(false_negative, 0.5 / len(curve.mated))
        drawn[name] = _visible(100 * false_positive, 100 * false_negative, np.log10)
        names = curve.names
    labels = f"{names[0]}, %", f"{names[1]}, %"
    return save(draw_curves(drawn, title, *labels, xscale="log", yscale="log"), path)


def _visible(
    x: np.ndarray, y: np.ndarray, scale: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> tuple[list[float], list[float]]:
    """The points of a curve that eyes tell apart: of millions of distances, some thousands."""
    if len(x) > _POINTS:
        places = np.stack([scale(x), scale(y)]).round(2)
        keep = np.r_[True, (np.diff(places) != 0).any(0)]
        keep[-1] = True
        x, y = x[keep], y[keep]
    return x.tolist(), y.tolist()


def verification_errors(
    distances: Tensor,
    query_labels: Labels,
    gallery_labels: Labels,
    exclude: Tensor | None = None,
) -> ErrorCurve:
    """FMR and FNMR (FAR and FRR) over all pairs of queries and gallery.

    Holds some 16 bytes per pair.

    Args:
        distances: ``[Q, G]``, finite.
        query_labels: ``[Q]`` identities.
        gallery_labels: ``[G]`` identities of the same kind.
        exclude: ``[Q, G]`` bool, True for pairs that take no part, such as a sequence and itself.

    Raises:
        TypeError: If an input has the wrong type.
        ValueError: If shapes disagree, or there are no pairs of one or of different people.

    Example:
        >>> curve = verification_errors(torch.tensor([[0.125, 0.75], [0.5, 0.25]]), [0, 1], [0, 1])
        >>> curve.eer(), curve.true_positive_at(0.001), curve.rates_at(0.5)
        (0.0, 1.0, (0.5, 0.0))
    """
    matches = _matches(distances, query_labels, gallery_labels, exclude)
    part = torch.ones_like(matches) if exclude is None else ~exclude.cpu()
    values = distances.detach().double().cpu()
    return pair_curve(values[matches & part], values[~matches & part])


def identification_errors(
    distances: Tensor,
    query_labels: Labels,
    gallery_labels: Labels,
    *,
    rank: int = 1,
    exclude: Tensor | None = None,
) -> ErrorCurve:
    """FPIR and FNIR of searches in a gallery that does not hold everybody.

    Args:
        distances: ``[Q, G]``, finite.
        query_labels: ``[Q]`` identities, some of them not in the gallery.
        gallery_labels: ``[G]`` identities of the same kind.
        rank: Length of the list of candidates in which a person must stand.
        exclude: ``[Q, G]`` bool, True for pairs that take no part. A probe whose person is
            excluded altogether is a search of somebody unknown.

    Raises:
        TypeError: If an input has the wrong type.
        ValueError: If shapes disagree, a probe has nobody to be compared with, or there are no
            searches of known or of unknown people.

    Example:
        >>> distances = torch.tensor([[0.1, 0.7], [0.6, 0.2], [0.5, 0.4]])
        >>> curve = identification_errors(distances, ["ann", "bob", "eve"], ["ann", "bob"])
        >>> curve.rates_at(0.3), curve.rates_at(0.45)
        ((0.0, 0.0), (1.0, 0.0))
    """
    check_count(rank, "rank")
    matches = _matches(distances, query_labels, gallery_labels, exclude)
    mated, non_mated = [], []
    for start in range(0, len(distances), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        block, same = distances[rows].detach().double().cpu(), matches[rows]
        if exclude is not None:
            gone = exclude[rows].cpu()
            if bool(gone.all(1).any()):
                raise ValueError(
                    "expected somebody to compare every probe with, got a probe with all pairs "
                    "excluded; leave it out"
                )
            block, same = block.masked_fill(gone, torch.inf), same & ~gone
        known = same.any(1)
        mated.append(own_distances(block, same, rank)[known])
        non_mated.append(block.amin(1)[~known])
    return search_curve(torch.cat(mated), torch.cat(non_mated), rank)


def own_distances(block: Tensor, same: Tensor, rank: int) -> Tensor:
    """At which threshold each search returns its person, ``[rows]``, as far as it does at all.

    Args:
        block: ``[rows, G]`` distances, infinite for pairs that take no part.
        same: ``[rows, G]`` bool, the pairs of one person that take part.
        rank: Length of the list of candidates.

    Returns:
        The smallest distance to the person, infinite if that stands behind ``rank`` others.
    """
    own = block.masked_fill(~same, torch.inf).amin(1)
    late = (first_match_ranks(block, same) > rank).to(own.device)
    return own.masked_fill(late, torch.inf)


def z_norm(distances: Tensor, cohort: Tensor) -> Tensor:
    """Distances in standard deviations from those of strangers, per gallery sequence.

    A gallery sequence that is close to everybody gets distances like all others.
    Source: Auckenthaler et al., "Score Normalization for Text-Independent Speaker Verification
    Systems", Digital Signal Processing 10, 2000 (zero normalisation).

    Args:
        distances: ``[Q, G]``, finite.
        cohort: ``[K, G]``, distances of K sequences of other people to the same gallery, K > 1.

    Returns:
        ``[Q, G]`` of the type of ``distances``; smaller is closer, negative for nearer than
        strangers are.

    Raises:
        TypeError: If an input is no floating-point tensor.
        ValueError: If shapes disagree, or a gallery sequence is equally far from all strangers.

    Example:
        >>> z_norm(torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0, 4.0], [4.0, 8.0]]))
        tensor([[-2.0000, -2.5000]])
    """
    check_distances(distances)
    check_distances(cohort, "cohort")
    _check_width(cohort, distances.shape[1], "columns, those of distances", 1)
    mean, deviation = _moments(cohort.T, len(cohort), "gallery")
    return ((distances - mean) / deviation).to(distances.dtype)


def as_norm(
    distances: Tensor, query_cohort: Tensor, gallery_cohort: Tensor, *, top: int = 200
) -> Tensor:
    """Adaptive symmetric normalisation: by the nearest strangers of both sides.

    Source: Matějka et al., "Analysis of Score Normalization in Multilingual Speaker Recognition",
    Interspeech 2017, Sec. 2 (AS-norm1): the mean of the distances standardised by the ``top``
    nearest cohort sequences of the query and by those of the gallery sequence.

    Args:
        distances: ``[Q, G]``, finite.
        query_cohort: ``[Q, K]``, distances of the queries to a cohort of other people.
        gallery_cohort: ``[G, K]``, distances of the gallery to the same cohort.
        top: How many of the cohort count, 2 to K; fewer if K is smaller.

    Returns:
        ``[Q, G]`` of the type of ``distances``; smaller is closer.

    Raises:
        TypeError: If an input is no floating-point tensor.
        ValueError: If shapes disagree, or a sequence is equally far from all strangers.

    Example:
        >>> cohort = torch.tensor([[2.0, 4.0, 100.0]])
        >>> as_norm(torch.tensor([[1.0]]), cohort, cohort, top=2)
        tensor([[-2.]])
    """
    check_distances(distances)
    for name, side, rows in (
        ("query_cohort", query_cohort, distances.shape[0]),
        ("gallery_cohort", gallery_cohort, distances.shape[1]),
    ):
        check_distances(side, name)
        _check_width(side, rows, f"rows of {name}", 0)
    _check_width(gallery_cohort, query_cohort.shape[1], "columns, those of query_cohort", 1)
    check_count(top, "top")
    query_mean, query_deviation = _moments(query_cohort, top, "query")
    gallery_mean, gallery_deviation = _moments(gallery_cohort, top, "gallery")
    by_query = (distances - query_mean[:, None]) / query_deviation[:, None]
    by_gallery = (distances - gallery_mean) / gallery_deviation
    return ((by_query + by_gallery) / 2).to(distances.dtype)


def _moments(rows: Tensor, top: int, side: str) -> tuple[Tensor, Tensor]:
    """Mean and population deviation of the smallest values of each row, float64."""
    if min(top, rows.shape[1]) < 2:
        raise ValueError("expected at least 2 cohort sequences, got 1; a deviation needs several")
    nearest = rows.double().topk(min(top, rows.shape[1]), dim=1, largest=False).values
    deviation = nearest.std(1, correction=0)
    if bool((deviation == 0).any()):
        raise ValueError(
            f"expected cohorts at different distances, got a {side} sequence that is equally far "
            "from all of its cohort; take another cohort, or a larger top"
        )
    return nearest.mean(1), deviation


def _check_width(side: Tensor, wanted: int, what: str, axis: int) -> None:
    if side.shape[axis] != wanted:
        raise ValueError(f"expected {wanted} {what}, got {side.shape[axis]}")


def _matches(
    distances: Tensor, query_labels: Labels, gallery_labels: Labels, exclude: Tensor | None
) -> Tensor:
    query, gallery = checked_codes(distances, query_labels, gallery_labels, exclude)
    return query[:, None] == gallery


def pair_curve(mated: Tensor, non_mated: Tensor) -> ErrorCurve:
    """The errors of verification from distances of pairs of one and of different people."""
    return _curve(mated, non_mated, ("false match rate", "false non-match rate"), "pairs")


def search_curve(mated: Tensor, non_mated: Tensor, rank: int = 1) -> ErrorCurve:
    """The errors of identification from own distances of the known, and nearest of strangers."""
    names = (
        f"false-positive identification rate (rank {rank})",
        "false-negative identification rate",
    )
    return _curve(mated, non_mated, names, "searches")


def _curve(mated: Tensor, non_mated: Tensor, names: tuple[str, str], what: str) -> ErrorCurve:
    if not len(mated) or not len(non_mated):
        raise ValueError(
            f"expected {what} of known and of unknown people, got {len(mated)} and "
            f"{len(non_mated)}; a curve needs both"
        )
    right, wrong = (side.double().sort().values.numpy() for side in (mated, non_mated))
    return ErrorCurve(right, wrong, names)
