"""Distances between embeddings, and the scores computed from them.

Every score takes ``distances`` (smaller is closer), never similarities, and returns fractions in
[0, 1], never percent. Three rules hold everywhere:

- A query without a match in the gallery is skipped: neither hit nor miss (the rule of the Gait3D
  protocol). If no query is left, a ``ValueError`` says so. ``cross_view_rank1`` counts such
  queries as misses on demand.
- Equal distances keep the order of the gallery (a stable sort).
- Labels and views are sequences of strings or integers, or integer tensors or arrays.

Protocols of the field from embeddings, labels, types and views: :func:`gaitzoo.evaluate`. By hand,
CASIA-B is ``cross_view_rank1(...).mean()``; OU-MVLP the same with ``unmatched="miss"`` (OpenGait's
code: 0.5 where two of four probes have no gallery and the others are hits) or ``"skip"`` (papers
that leave such probes out: 1.0 there); GREW with labels is ``rank_k(..., k=(1, 5, 10, 20))``,
Gait3D is ``retrieval_scores(...)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, overload

import torch
from torch import Tensor

from gaitzoo.data.distances import check_embeddings, part_distances, rerank
from gaitzoo.data.ranking import (
    NO_QUERY_LEFT,
    Labels,
    check_count,
    check_distances,
    check_ranks,
    check_sides,
    encode,
    find_matches,
    group_views,
)

__all__ = [
    "CrossViewRank1",
    "cmc",
    "cross_view_rank1",
    "mean_average_precision",
    "mean_inp",
    "part_distances",
    "rank_k",
    "rerank",
    "retrieval_scores",
    "same_view_mask",
    "screening_scores",
]


def same_view_mask(query_views: Labels, gallery_views: Labels) -> Tensor:
    """Marks the pairs seen from the same view; pass it as ``exclude`` to leave them out.

    Args:
        query_views: ``[Q]`` views (angles, cameras).
        gallery_views: ``[G]`` views of the same kind.

    Returns:
        ``[Q, G]`` bool, True where the views are equal, on the CPU.

    Raises:
        TypeError: If views are neither all strings nor all integers.
        ValueError: If a tensor or array of views has more than one axis.

    Example:
        >>> same_view_mask(["000", "090"], ["000", "018"])
        tensor([[ True, False],
                [False, False]])
    """
    query_codes, gallery_codes = encode(query_views, gallery_views, "views")
    return query_codes[:, None] == gallery_codes


def cmc(
    distances: Tensor,
    query_labels: Labels,
    gallery_labels: Labels,
    *,
    max_rank: int,
    exclude: Tensor | None = None,
) -> Tensor:
    """Cumulative match characteristic: Rank-1, Rank-2, ... as one curve.

    Args:
        distances: ``[Q, G]`` finite distances, smaller is closer.
        query_labels: ``[Q]`` identities.
        gallery_labels: ``[G]`` identities of the same kind.
        max_rank: Length of the curve. From the size of the gallery on it is 1.
        exclude: ``[Q, G]`` bool, True for pairs that take no part; ``None`` = all take part.

    Returns:
        ``[max_rank]`` float64 on the CPU, fractions: element ``k - 1`` is the share of queries
        with a match among the ``k`` nearest.

    Raises:
        TypeError: If distances, labels or mask have the wrong type.
        ValueError: If shapes disagree, a distance is not finite, an option is out of range, or no
            query has a match.

    Example:
        >>> distances = torch.tensor([[0.1, 0.9, 0.5], [0.2, 0.3, 0.4]])
        >>> cmc(distances, ["a", "c"], ["a", "b", "c"], max_rank=3)
        tensor([0.5000, 0.5000, 1.0000], dtype=torch.float64)
    """
    check_count(max_rank, "max_rank")
    return find_matches(distances, query_labels, gallery_labels, exclude).cmc(max_rank)


@overload
def rank_k(
    distances: Tensor, query_labels: Labels, gallery_labels: Labels,
    k: int = 1, exclude: Tensor | None = None,
) -> float: ...  # fmt: skip
@overload
def rank_k(
    distances: Tensor, query_labels: Labels, gallery_labels: Labels,
    k: Sequence[int], exclude: Tensor | None = None,
) -> tuple[float, ...]: ...  # fmt: skip
def rank_k(
    distances: Tensor,
    query_labels: Labels,
    gallery_labels: Labels,
    k: int | Sequence[int] = 1,
    exclude: Tensor | None = None,
) -> float | tuple[float, ...]:
    """Rank-k: the share of queries with a match among the ``k`` nearest.

    Shapes and errors are those of ``cmc``. Several ranks give a tuple of fractions.

    Example:
        >>> distances = torch.tensor([[0.1, 0.9, 0.5], [0.2, 0.3, 0.4]])
        >>> rank_k(distances, [0, 2], [0, 1, 2], k=(1, 3))
        (0.5, 1.0)
    """
    ranks = check_ranks(k, "k")
    matches = find_matches(distances, query_labels, gallery_labels, exclude)
    curve = matches.cmc(max(ranks)).tolist()
    fractions = tuple(curve[rank - 1] for rank in ranks)
    return fractions[0] if isinstance(k, int) else fractions


def mean_average_precision(
    distances: Tensor,
    query_labels: Labels,
    gallery_labels: Labels,
    exclude: Tensor | None = None,
) -> float:
    """Mean average precision (mAP), a fraction.

    The average precision of a query is the mean, over its matches, of the share of matches in the
    list cut off there. Shapes and errors are those of ``cmc``.

    Example:
        >>> mean_average_precision(torch.tensor([[0.1, 0.2, 0.3, 0.4]]), [7], [7, 1, 2, 7])
        0.75
    """
    return _mean(find_matches(distances, query_labels, gallery_labels, exclude).average_precision())


def mean_inp(
    distances: Tensor,
    query_labels: Labels,
    gallery_labels: Labels,
    exclude: Tensor | None = None,
) -> float:
    """Mean inverse negative penalty (mINP), a fraction: how early the last match is found.

    The value of a query is its number of matches over the rank of the last one. Shapes and errors
    are those of ``cmc``.

    Source: Ye et al., "Deep Learning for Person Re-identification: A Survey and Outlook"
    (https://arxiv.org/abs/2001.04193), Sec. 4.2. Some published gait code counts every query a
    second time with 1 / (rank of its last match), and so reports less than this.

    Example:
        >>> mean_inp(torch.tensor([[0.1, 0.2, 0.3, 0.4]]), [7], [7, 1, 2, 7])
        0.5
    """
    return _mean(find_matches(distances, query_labels, gallery_labels, exclude).inp())


def retrieval_scores(
    distances: Tensor,
    query_labels: Labels,
    gallery_labels: Labels,
    *,
    ranks: Sequence[int] = (1, 5, 10),
    exclude: Tensor | None = None,
) -> dict[str, float]:
    """The scores of the Gait3D protocol from one sort: Rank-k, mAP and mINP, as fractions.

    Shapes and errors are those of ``cmc``; ``ranks`` are the k of ``rank<k>`` in the result.

    Example:
        >>> distances = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
        >>> retrieval_scores(distances, [7], [7, 1, 2, 7], ranks=(1, 5))
        {'rank1': 1.0, 'rank5': 1.0, 'mAP': 0.75, 'mINP': 0.5}
    """
    ranks = check_ranks(ranks, "ranks")
    matches = find_matches(distances, query_labels, gallery_labels, exclude)
    curve = matches.cmc(max(ranks)).tolist()
    scores = {f"rank{k}": curve[k - 1] for k in ranks}
    return {**scores, "mAP": _mean(matches.average_precision()), "mINP": _mean(matches.inp())}


def _mean(values: Tensor) -> float:
    return float(values.mean())


@dataclass(frozen=True, eq=False)
class CrossViewRank1:
    """Rank-1 for every pair of views, as fractions; made by ``cross_view_rank1``.

    Attributes:
        rank1: ``[query views, gallery views]`` float64; NaN where no query has a match
            or, with misses counted, where there is no query or no gallery.
        query_views: Names of the rows, sorted.
        gallery_views: Names of the columns, sorted.
    """

    rank1: Tensor
    query_views: tuple[str | int, ...]
    gallery_views: tuple[str | int, ...]

    def per_query_view(self) -> Tensor:
        """``[query views]``: mean of each row without the identical view and without NaN."""
        return self.rank1.masked_fill(
            same_view_mask(self.query_views, self.gallery_views), torch.nan
        ).nanmean(1)

    def mean(self) -> float:
        """Mean over the query views of ``per_query_view``: the number that papers print.

        Raises:
            ValueError: If no two views differ.
        """
        mean = float(self.per_query_view().nanmean())
        if mean != mean:
            raise ValueError(
                f"expected at least two different views, got {self.query_views} and "
                f"{self.gallery_views}; for one view take rank_k"
            )
        return mean


def cross_view_rank1(
    distances: Tensor,
    query_labels: Labels,
    gallery_labels: Labels,
    query_views: Labels,
    gallery_views: Labels,
    *,
    unmatched: Literal["skip", "miss"] = "skip",
) -> CrossViewRank1:
    """Rank-1 of the queries of each view in the gallery of each view (CASIA-B, OU-MVLP).

    Pass the queries of one walking condition (NM, BG or CL of CASIA-B) at a time. Shapes and
    errors are those of ``cmc``, with views ``[Q]`` and ``[G]`` beside the labels. Queries without
    a match in a view of the gallery are left out there, or misses with ``unmatched="miss"``.

    Example:
        >>> distances = torch.tensor([[0.1, 0.9, 0.6, 0.5], [0.3, 0.2, 0.1, 0.4]])
        >>> views = ["000", "000", "090", "090"]
        >>> table = cross_view_rank1(distances, ["a", "b"], [*"abab"], ["000", "090"], views)
        >>> table.rank1
        tensor([[1., 0.],
                [1., 0.]], dtype=torch.float64)
        >>> table.mean()
        0.5
    """
    check_distances(distances)
    if unmatched not in ("skip", "miss"):
        raise ValueError(f'expected unmatched "skip" or "miss", got {unmatched!r}')
    query_codes, gallery_codes = encode(query_labels, gallery_labels, "labels")
    check_sides(distances, query_codes, gallery_codes, "labels")
    query_view_codes, gallery_view_codes = encode(query_views, gallery_views, "views")
    check_sides(distances, query_view_codes, gallery_view_codes, "views")
    query_names, query_rows = group_views(query_views)
    gallery_names, gallery_columns = group_views(gallery_views)
    rank1 = torch.full((len(query_names), len(gallery_names)), torch.nan, dtype=torch.float64)
    found_any = False
    for i, rows in enumerate(query_rows):
        for j, columns in enumerate(gallery_columns):
            nearest = distances[rows][:, columns].argmin(1).cpu()  # the first of equals
            labels, candidates = query_codes[rows], gallery_codes[columns]
            has_match = torch.isin(labels, candidates)
            hits = labels == candidates[nearest]
            counted = has_match if unmatched == "skip" else torch.ones_like(has_match)
            rank1[i, j] = hits[counted].double().mean()
            found_any = found_any or bool(has_match.any())
    if not found_any:
        raise ValueError(NO_QUERY_LEFT)
    return CrossViewRank1(rank1, query_names, gallery_names)


def screening_scores(logits: Tensor, labels: Sequence[int] | Tensor) -> dict[str, float]:
    """Scores of a screening model (ScoNet): accuracy, and macro precision, recall and F1.

    The class of a sequence is the largest of its logits, averaged over parts. Precision, recall
    and F1 are means over the classes that occur among labels or predictions; a class that was
    never predicted has precision 0, one that nobody has recall 0 (scikit-learn's
    ``average="macro"``).

    Args:
        logits: ``[N, P, K]``, finite.
        labels: ``[N]`` classes, 0 to K - 1.

    Returns:
        ``accuracy``, ``precision``, ``recall`` and ``f1``, fractions.

    Raises:
        TypeError: If logits are no floating-point tensor, or labels no whole numbers.
        ValueError: If a shape is wrong, a logit is not finite, or there is no such class.

    Example:
        >>> logits = torch.tensor([[[2.0, 1.0]], [[0.0, 1.0]], [[0.0, 1.0]], [[3.0, 1.0]]])
        >>> screening_scores(logits, [0, 1, 0, 0])["accuracy"]
        0.75
    """
    check_embeddings(logits, logits)
    classes = _classes(labels, len(logits), logits.shape[2])
    found = logits.double().mean(1).argmax(1).cpu()
    table = torch.bincount(classes * logits.shape[2] + found, minlength=logits.shape[2] ** 2)
    table = table.reshape(logits.shape[2], -1).double()  # [true, found]
    right, true, guessed = table.diagonal(), table.sum(1), table.sum(0)
    occurs = (true + guessed) > 0
    precision, recall = right / guessed.clamp(min=1), right / true.clamp(min=1)
    f1 = 2 * right / (true + guessed).clamp(min=1)
    return {
        "accuracy": float(right.sum() / len(found)),
        "precision": _mean(precision[occurs]),
        "recall": _mean(recall[occurs]),
        "f1": _mean(f1[occurs]),
    }


def _classes(labels: Sequence[int] | Tensor, count: int, num_classes: int) -> Tensor:
    if not isinstance(labels, Tensor):
        labels = torch.as_tensor(list(labels))
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(f"expected labels as whole numbers of classes, got {labels.dtype}")
    if labels.shape != (count,):
        raise ValueError(f"expected labels [{count}], one per row of logits, got {labels.shape}")
    if not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise ValueError(
            f"expected labels in 0..{num_classes - 1}, got {int(labels.min())} to "
            f"{int(labels.max())}; logits have {num_classes} classes"
        )
    return labels.cpu().long()
