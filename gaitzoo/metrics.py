"""Distances between embeddings, and the scores computed from them.

Every score takes ``distances`` (smaller is closer), never similarities, and returns fractions in
[0, 1], never percent. Three rules hold everywhere:

- A query without a match in the gallery is skipped: neither hit nor miss (the rule of the Gait3D
  protocol). If no query is left, a ``ValueError`` says so.
- Equal distances keep the order of the gallery (a stable sort).
- Labels and views are sequences of strings or integers, or integer tensors or arrays.

Protocols of the field: CASIA-B and OU-MVLP are ``cross_view_rank1(...).mean()``, GREW is
``rank_k(..., k=(1, 5, 10, 20))``, Gait3D is ``retrieval_scores(...)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor

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
from gaitzoo.layers.checks import shape_of

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
]


def part_distances(
    query: Tensor,
    gallery: Tensor,
    *,
    metric: Literal["euclidean", "cosine"] = "euclidean",
    block_size: int = 2048,
) -> Tensor:
    """Distance of every query to every gallery sequence, averaged over the body parts.

    ``"euclidean"`` is the mean over parts of the Euclidean distance of each part, ``"cosine"`` is
    one minus the mean over parts of the cosine similarity (0 for a part of zeros).

    The arithmetic inside a block is float64: the expanded square ``|q|^2 + |g|^2 - 2 q.g`` is
    fast, but in float32 loses most digits of the distance between close vectors. Beside the
    result, only a few blocks are held in memory. Call under ``torch.no_grad()`` when the
    embeddings require gradients and none are wanted here.

    Args:
        query: ``[Q, P, C]`` embeddings, any floating dtype, finite.
        gallery: ``[G, P, C]`` embeddings on the same device.
        metric: ``"euclidean"`` (0 or more) or ``"cosine"`` (0 to 2).
        block_size: Rows of each side compared at a time; changes memory and speed only.

    Returns:
        ``[Q, G]`` distances, float64 if an input is, else float32.

    Raises:
        TypeError: If an input is not a floating-point tensor.
        ValueError: If shapes or devices disagree, a value is NaN or infinite, or an option is
            unknown.

    Example:
        >>> query, gallery = torch.zeros(1, 16, 4), torch.zeros(2, 16, 4)
        >>> gallery[1, :8] = 1.0  # half of the parts are at a distance of 2
        >>> part_distances(query, gallery)
        tensor([[0., 1.]])
    """
    _check_embeddings(query, gallery)
    if metric not in ("euclidean", "cosine"):
        raise ValueError(f'expected metric "euclidean" or "cosine", got {metric!r}')
    check_count(block_size, "block_size")
    dtype = torch.float64 if torch.float64 in (query.dtype, gallery.dtype) else torch.float32
    distances = query.new_empty(len(query), len(gallery), dtype=dtype)
    block_distances = _euclidean_block if metric == "euclidean" else _cosine_block
    with torch.autocast(query.device.type, enabled=False):
        for row in range(0, len(query), block_size):
            rows = slice(row, row + block_size)
            for column in range(0, len(gallery), block_size):
                columns = slice(column, column + block_size)
                distances[rows, columns] = block_distances(query[rows], gallery[columns])
    return distances


def _euclidean_block(query: Tensor, gallery: Tensor) -> Tensor:
    num_parts = query.shape[1]
    total = query.new_zeros(len(query), len(gallery), dtype=torch.float64)
    for part in range(num_parts):
        x, y = query[:, part].double(), gallery[:, part].double()
        total += torch.cdist(x, y, compute_mode="use_mm_for_euclid_dist")
    return total / num_parts


def _cosine_block(query: Tensor, gallery: Tensor) -> Tensor:
    x, y = (F.normalize(side.double(), dim=2).flatten(1) for side in (query, gallery))
    return (1 - x @ y.T / query.shape[1]).clamp(min=0)


def _check_embeddings(query: Tensor, gallery: Tensor) -> None:
    for name, side in (("query", query), ("gallery", gallery)):
        if not isinstance(side, Tensor) or not side.is_floating_point():
            got = side.dtype if isinstance(side, Tensor) else type(side).__name__
            raise TypeError(
                f"expected {name} embeddings as a floating-point tensor [sequences, P, C], "
                f"got {got}; pass .embeddings of the model's output"
            )
        if side.ndim != 3 or side.numel() == 0:
            raise ValueError(
                f"expected {name} embeddings [sequences, P, C], none of them 0, got "
                f"{shape_of(side)}; one vector per sequence needs a part axis: x[:, None]"
            )
    if query.shape[1:] != gallery.shape[1:]:
        raise ValueError(
            "expected query and gallery with the same parts and channels, got "
            f"{shape_of(query)} and {shape_of(gallery)}; embed both with one model"
        )
    if query.device != gallery.device:
        raise ValueError(
            f"expected query and gallery on one device, got {query.device} and "
            f"{gallery.device}; move one with .to(...)"
        )
    for name, side in (("query", query), ("gallery", gallery)):
        if not bool(side.isfinite().all()):
            raise ValueError(
                f"expected finite {name} embeddings, got NaN or infinite values; look for "
                "them in the model's input, or for overflow in half precision"
            )


def rerank(
    query_query: Tensor,
    query_gallery: Tensor,
    gallery_gallery: Tensor,
    *,
    k1: int = 20,
    k2: int = 6,
    original_weight: float = 0.3,
) -> Tensor:
    """Re-ranks with k-reciprocal neighbours: sequences are close if they share neighbours.

    Holds several dense ``[Q + G, Q + G]`` float32 matrices: meant for a few thousand sequences.

    Source: Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding"
    (https://arxiv.org/abs/1701.08398), Sec. 3. As in published gait code, distances enter as they
    are; the paper's own code squares them first (square them before the call for that). Published
    code holds neighbour vectors in float16, which changes results by up to 2e-3; here float32.

    Args:
        query_query: ``[Q, Q]`` distances among the queries.
        query_gallery: ``[Q, G]`` distances of the queries to the gallery.
        gallery_gallery: ``[G, G]`` distances among the gallery.
        k1: Size of the neighbourhoods that must be mutual.
        k2: Neighbours whose vectors are averaged (local query expansion); 1 turns that off.
        original_weight: Share of the given distances in the result, in [0, 1].

    Returns:
        ``[Q, G]`` distances in [0, 1], float32.

    Raises:
        TypeError: If an input is not a floating-point tensor.
        ValueError: If shapes disagree, an option is out of range or a distance is not finite.

    Example:
        >>> x = torch.rand(8, 16, 4)
        >>> distances = part_distances(x, x)
        >>> rerank(distances[:3, :3], distances[:3, 3:], distances[3:, 3:], k1=3, k2=2).shape
        torch.Size([3, 5])
    """
    check_distances(query_gallery, "query_gallery")
    num_query, num_gallery = query_gallery.shape
    check_distances(query_query, "query_query", (num_query, num_query))
    check_distances(gallery_gallery, "gallery_gallery", (num_gallery, num_gallery))
    highest = num_query + num_gallery - 1
    check_count(k1, "k1")
    check_count(k2, "k2")
    if not (1 <= k1 <= highest and 1 <= k2 <= highest and 0 <= original_weight <= 1):
        raise ValueError(
            f"expected k1 and k2 in 1..{highest} (sequences - 1) and original_weight in [0, 1], "
            f"got k1={k1}, k2={k2}, original_weight={original_weight}"
        )
    upper = torch.cat([query_query, query_gallery], 1)
    lower = torch.cat([query_gallery.T, gallery_gallery], 1)
    everything = torch.cat([upper, lower]).float()
    largest = everything.amax(1, keepdim=True)
    scaled = everything / largest.clamp(min=torch.finfo(torch.float32).tiny)
    # Below all others on the diagonal: each comes first in its own list, also among equals.
    order = scaled.clone().fill_diagonal_(-1).argsort(dim=1, stable=True)

    def mutual_neighbours(k: int) -> Tensor:
        near = torch.zeros_like(scaled).scatter_(1, order[:, : k + 1], 1.0)
        return near * near.T

    mutual, core = mutual_neighbours(k1), mutual_neighbours(round(k1 / 2))
    # A neighbour brings in its own core neighbours if more than two thirds of them are shared.
    brings = mutual * (mutual @ core.T > 2 / 3 * core.sum(1))
    members = mutual + brings @ core > 0
    weights = torch.where(members, torch.exp(-scaled), 0.0)
    weights = weights / weights.sum(1, keepdim=True)
    if k2 > 1:
        near = torch.zeros_like(scaled).scatter_(1, order[:, :k2], 1 / k2)
        weights = near @ weights
    # Rows sum to 1, so the sum of the minima of two rows is 1 - (city-block distance) / 2.
    shared = 1 - torch.cdist(weights[:num_query], weights[num_query:], p=1.0) / 2
    jaccard = 1 - shared / (2 - shared)
    original = scaled[:num_query, num_query:]
    return (1 - original_weight) * jaccard + original_weight * original


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
    return find_matches(distances, query_labels, gallery_labels, exclude).average_precision()


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
    return find_matches(distances, query_labels, gallery_labels, exclude).inp()


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
    return {**scores, "mAP": matches.average_precision(), "mINP": matches.inp()}


@dataclass(frozen=True, eq=False)
class CrossViewRank1:
    """Rank-1 for every pair of views, as fractions; made by ``cross_view_rank1``.

    Attributes:
        rank1: ``[query views, gallery views]`` float64; NaN where no query has a match.
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
) -> CrossViewRank1:
    """Rank-1 of the queries of each view in the gallery of each view (CASIA-B, OU-MVLP).

    Pass the queries of one walking condition (NM, BG or CL of CASIA-B) at a time. Shapes and
    errors are those of ``cmc``, with views ``[Q]`` and ``[G]`` beside the labels.

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
    query_codes, gallery_codes = encode(query_labels, gallery_labels, "labels")
    check_sides(distances, query_codes, gallery_codes, "labels")
    query_view_codes, gallery_view_codes = encode(query_views, gallery_views, "views")
    check_sides(distances, query_view_codes, gallery_view_codes, "views")
    query_names, query_rows = group_views(query_views)
    gallery_names, gallery_columns = group_views(gallery_views)
    rank1 = torch.full((len(query_names), len(gallery_names)), torch.nan, dtype=torch.float64)
    for i, rows in enumerate(query_rows):
        for j, columns in enumerate(gallery_columns):
            nearest = distances[rows][:, columns].argmin(1).cpu()  # the first of equals
            labels, candidates = query_codes[rows], gallery_codes[columns]
            has_match = torch.isin(labels, candidates)
            hits = labels == candidates[nearest]
            rank1[i, j] = hits[has_match].double().mean()
    if bool(rank1.isnan().all()):
        raise ValueError(NO_QUERY_LEFT)
    return CrossViewRank1(rank1, query_names, gallery_names)
