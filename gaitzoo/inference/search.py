"""The nearest sequences of a large gallery, without a matrix of all distances."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gaitzoo.data.distances import check_embeddings, check_metric, distance_block
from gaitzoo.data.ranking import check_count

__all__ = ["nearest"]

_ROWS_AT_ONCE, _COLUMNS_AT_ONCE = 1024, 4096


def nearest(
    query: Tensor,
    gallery: Tensor,
    top: int,
    *,
    metric: str = "euclidean",
    engine: str = "torch",
) -> tuple[Tensor, Tensor]:
    """Finds the nearest gallery sequences of every query.

    Args:
        query: ``[Q, P, C]`` embeddings.
        gallery: ``[G, P, C]`` embeddings on the same device.
        top: How many, at most G.
        metric: ``"euclidean"`` or ``"cosine"``, as in :func:`gaitzoo.metrics.part_distances`.
        engine: ``"torch"`` compares in blocks, on the device of the embeddings, with the numbers
            of ``part_distances``; ``"faiss"`` (needs the package, cosine only) searches faiss'
            exact index in float32 on the CPU: equal distances may stand in another order.

    Returns:
        Distances ``[Q, top]``, the nearest first, float32 (float64 for float64 embeddings), and
        the places in the gallery ``[Q, top]`` int64.

    Raises:
        TypeError: If an input is no floating-point tensor.
        ValueError: If shapes or devices disagree, a value is not finite, or an option is wrong.
        ImportError: If faiss is asked for and missing.

    Example:
        >>> gallery = torch.tensor([0.0, 5.0, 2.0])[:, None, None]
        >>> nearest(torch.tensor([[[3.0]]]), gallery, 2)[1]
        tensor([[2, 1]])
    """
    check_embeddings(query, gallery)
    check_metric(metric)
    check_count(top, "top")
    if top > len(gallery):
        raise ValueError(f"expected top of at most {len(gallery)}, the gallery's size, got {top}")
    if engine not in ("torch", "faiss"):
        raise ValueError(f'expected engine "torch" or "faiss", got {engine!r}')
    query, gallery = query.detach(), gallery.detach()
    if engine == "faiss":
        if metric != "cosine":
            raise ValueError(
                'expected metric "cosine" for faiss, got "euclidean": a mean of distances of '
                'parts is no distance of one vector; leave engine out, or take "cosine"'
            )
        return _faiss_search(query, gallery, top)
    double = torch.float64 in (query.dtype, gallery.dtype)
    dtype = torch.float64 if double else torch.float32
    distances = query.new_empty(len(query), top, dtype=dtype)
    places = torch.empty(len(query), top, dtype=torch.int64, device=query.device)
    for start in range(0, len(query), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        best, at = distances[rows, :0], places[rows, :0]
        for column in range(0, len(gallery), _COLUMNS_AT_ONCE):
            some = gallery[column : column + _COLUMNS_AT_ONCE]
            block = distance_block(query[rows], some, metric).to(dtype)
            numbers = torch.arange(column, column + len(some), device=query.device)
            # What was found before stands before equals of this block.
            best = torch.cat([best, block], 1)
            at = torch.cat([at, numbers.expand(len(block), -1)], 1)
            order = best.argsort(dim=1, stable=True)[:, :top]
            best, at = best.gather(1, order), at.gather(1, order)
        distances[rows], places[rows] = best, at
    return distances, places


def _faiss_search(query: Tensor, gallery: Tensor, top: int) -> tuple[Tensor, Tensor]:
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "engine 'faiss' needs the package: pip install 'gaitzoo[faiss]'"
        ) from error
    # The mean of cosines of parts is the inner product of their unit vectors, one after the other.
    sides = [
        F.normalize(side.double(), dim=2).flatten(1).float().cpu().contiguous().numpy()
        for side in (query, gallery)
    ]
    index = faiss.IndexFlatIP(sides[1].shape[1])
    index.add(sides[1])  # pyright: ignore[reportCallIssue]
    products, places = index.search(sides[0], top)  # pyright: ignore[reportCallIssue]
    distances = (1 - torch.from_numpy(products) / query.shape[1]).clamp(min=0)
    return distances.to(query.device), torch.from_numpy(places).to(query.device)
