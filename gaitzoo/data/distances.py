"""Distances between embeddings, as they are or re-ranked: the part of ``metrics`` before ranks."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gaitzoo.data.ranking import check_count, check_distances
from gaitzoo.layers.checks import shape_of
from gaitzoo.layers.modes import without_autocast

__all__ = ["check_embeddings", "check_metric", "distance_block", "part_distances", "rerank"]

# Of sums of products that cancel: what a matrix product leaves of equal vectors depends on where
# they stand in it, on some processors. Measured: up to 31 for squared distances, 70 for cosines of
# 16384 numbers.
_NOISE = 256 * torch.finfo(torch.float64).eps


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
    fast, but in float32 loses most digits of the distance between close vectors. What is left of
    equal vectors, less than 2.4e-7 of their lengths (6e-14 for ``"cosine"``), is given as 0; other
    distances keep the rounding of that product. Beside the result, only a few blocks are held in
    memory. Call under ``torch.no_grad()`` when the embeddings require gradients and none are wanted
    here.

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
    check_embeddings(query, gallery)
    check_metric(metric)
    check_count(block_size, "block_size")
    dtype = torch.float64 if torch.float64 in (query.dtype, gallery.dtype) else torch.float32
    distances = query.new_empty(len(query), len(gallery), dtype=dtype)
    for row in range(0, len(query), block_size):
        rows = slice(row, row + block_size)
        for column in range(0, len(gallery), block_size):
            columns = slice(column, column + block_size)
            distances[rows, columns] = distance_block(query[rows], gallery[columns], metric)
    return distances


def check_metric(metric: str) -> None:
    """Raises unless distances of that name are known."""
    if metric not in ("euclidean", "cosine"):
        raise ValueError(f'expected metric "euclidean" or "cosine", got {metric!r}')


def distance_block(query: Tensor, gallery: Tensor, metric: str) -> Tensor:
    """Distances of checked embeddings ``[Q, P, C]`` and ``[G, P, C]``, all at once, float64."""
    with without_autocast(query.device):
        block = _euclidean_block if metric == "euclidean" else _cosine_block
        return block(query, gallery)


def _euclidean_block(query: Tensor, gallery: Tensor) -> Tensor:
    num_parts = query.shape[1]
    total = query.new_zeros(len(query), len(gallery), dtype=torch.float64)
    # Sums over the parts, as the distances are.
    lengths = [query.new_zeros(len(side), dtype=torch.float64) for side in (query, gallery)]
    for part in range(num_parts):
        x, y = query[:, part].double(), gallery[:, part].double()
        total += torch.cdist(x, y, compute_mode="use_mm_for_euclid_dist")
        for length, side in zip(lengths, (x, y), strict=True):
            length += side.detach().norm(dim=1)
    noise = lengths[0][:, None] + lengths[1]
    noise *= _NOISE**0.5 / 2
    return total.masked_fill_(total < noise, 0).div_(num_parts)


def _cosine_block(query: Tensor, gallery: Tensor) -> Tensor:
    x, y = (F.normalize(side.double(), dim=2).flatten(1) for side in (query, gallery))
    distances = 1 - x @ y.T / query.shape[1]
    return distances.masked_fill(distances < _NOISE, 0)


def check_embeddings(query: Tensor, gallery: Tensor) -> None:
    """Raises unless both sides are finite embeddings of one shape on one device."""
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
