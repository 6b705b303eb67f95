"""Maps weighed by the body parts of a label map, and a graph of those parts.

Source: ParsingGait (https://arxiv.org/abs/2308.16739, ACM MM 2023), Sec. 4; the weighing also in
XGait (https://arxiv.org/abs/2411.10742), Sec. 3.3. Labels: 0 background, 1 head, 2 torso, 3 and 4
left and right arm, 5 and 6 hands, 7 and 8 legs, 9 and 10 feet, 11 dress.
"""

from __future__ import annotations

from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_size, shape_of

__all__ = [
    "COARSE_LINKS",
    "COARSE_PARTS",
    "FINE_LINKS",
    "FINE_PARTS",
    "BodyPartPool",
    "PartGraph",
]

FINE_PARTS = tuple((label,) for label in range(1, 12))
"""Every label a part of its own."""

COARSE_PARTS = ((1, 2, 11), (3, 5), (4, 6), (7, 9), (8, 10))
"""Labels of trunk, left arm, right arm, left leg, right leg."""

# Places of the linked parts; a part is linked to itself. Torso and dress are not, as published.
FINE_LINKS = (
    (0, 1, 10),
    (0, 1, 2, 3, 6, 7),
    (1, 2, 4, 10),
    (1, 3, 5, 10),
    (2, 4),
    (3, 5),
    (1, 6, 8, 10),
    (1, 7, 9, 10),
    (6, 8),
    (7, 9),
    (0, 2, 3, 6, 7, 10),
)
"""Parts that each of ``FINE_PARTS`` is linked to."""

COARSE_LINKS = ((0, 1, 2, 3, 4), (0, 1), (0, 2), (0, 3), (0, 4))
"""Parts that each of ``COARSE_PARTS`` is linked to."""


class BodyPartPool(nn.Module):
    """Mean plus maximum of a map in which one body part counts more than the rest, per part.

    Pixels inside of part k are multiplied by ``gammas[k]``, those outside by ``1 - gammas[k]``;
    labels are brought to the size of the map by nearest neighbours.

    Source: ParsingGait (https://arxiv.org/abs/2308.16739), Sec. 4.2.

    Args:
        parts: Labels of every part.
        gamma: First value of all ``gammas``, which are trained.

    Shapes:
        x: ``[B, C, H, W]``, any values.
        labels: ``[B, 1, H0, W0]`` floats, whole numbers 0 to 11.
        returns: ``[B, P, C]``.

    Raises:
        ValueError: If there is no part, one has no label, or axes do not fit.

    Example:
        >>> BodyPartPool(COARSE_PARTS)(torch.rand(2, 8, 16, 11), torch.zeros(2, 1, 64, 44)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(self, parts: tuple[tuple[int, ...], ...], gamma: float = 0.75) -> None:
        super().__init__()
        self.parts = tuple(tuple(part) for part in parts)
        if not self.parts or not all(self.parts):
            raise ValueError(f"expected parts of one label or more each, got {parts!r}")
        self.gammas = nn.Parameter(torch.full((len(self.parts),), float(gamma)))

    def extra_repr(self) -> str:
        """Text inside the printed module."""
        return f"parts={self.parts}"

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Returns the pooled parts."""
        if x.ndim != 4 or labels.ndim != 4 or labels.shape[:2] != (x.shape[0], 1):
            raise ValueError(
                "expected a map [B, C, H, W] and labels [B, 1, H0, W0], got "
                f"{shape_of(x)} and {shape_of(labels)}"
            )
        labels = F.interpolate(labels, x.shape[-2:], mode="nearest")
        pooled = []
        for gamma, part in zip(self.gammas.unbind(), self.parts, strict=True):
            inside = reduce(torch.logical_or, [labels == label for label in part])
            weighted = x * torch.where(inside, gamma, 1 - gamma).to(x.dtype)
            pooled.append(weighted.mean(dim=(2, 3)) + weighted.amax(dim=(2, 3)))
        return torch.stack(pooled, dim=1)


class PartGraph(nn.Module):
    """Body parts of single frames, pooled from a map and joined along a graph in two layers.

    A layer is ``ReLU(BN(A (x W) + b))`` with dropout in front; ``A`` holds the links, divided by
    the roots of how many its row and its column have.

    Source: ParsingGait (https://arxiv.org/abs/2308.16739), Sec. 4.2. Differs from upstream: the
    first weights are Xavier-uniform, the first biases zero. Batch-norm statistics see every frame
    of a batch, padding included: train on clips of equal length.

    Args:
        parts: Labels of every part.
        links: Places of the parts that every part is linked to.
        channels: Channels of the map and of the parts.
        drop_rate: Dropout in front of each layer, in training.
        gamma: As for :class:`BodyPartPool`.

    Shapes:
        x: ``[B, C, H, W]``, any values.
        labels: ``[B, 1, H0, W0]`` floats, whole numbers 0 to 11.
        returns: ``[B, P, C]``, zero or more.

    Raises:
        ValueError: If there are not as many rows of links as parts, or axes do not fit.

    Example:
        >>> graph = PartGraph(COARSE_PARTS, COARSE_LINKS, channels=8).eval()
        >>> graph(torch.rand(2, 8, 16, 11), torch.zeros(2, 1, 64, 44)).shape
        torch.Size([2, 5, 8])
    """

    keeps_float32 = True

    def __init__(
        self,
        parts: tuple[tuple[int, ...], ...],
        links: tuple[tuple[int, ...], ...],
        channels: int,
        drop_rate: float = 0.5,
        gamma: float = 0.75,
    ) -> None:
        super().__init__()
        check_size(channels=channels)
        if len(links) != len(parts):
            raise ValueError(
                f"expected a row of links for each of {len(parts)} parts, got {len(links)}"
            )
        self.num_parts = len(parts)
        self.pool = BodyPartPool(parts, gamma)
        self.layers = nn.ModuleList(_GraphLayer(links, channels) for _ in range(2))
        self.dropout = nn.Dropout(drop_rate)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Returns the joined parts."""
        parts = self.pool(x, labels)
        for layer in self.layers:
            parts = layer(self.dropout(parts))
        return parts


class _GraphLayer(nn.Module):
    """One layer of a graph; parts ``[B, P, C]`` in and out."""

    adjacency: Tensor

    def __init__(self, links: tuple[tuple[int, ...], ...], channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.bn = nn.BatchNorm1d(len(links) * channels)
        nn.init.xavier_uniform_(self.weight)
        roots = [len(row) ** -0.5 for row in links]
        rows = [
            [roots[i] * roots[j] * (j in row) for j in range(len(links))]
            for i, row in enumerate(links)
        ]
        self.register_buffer("adjacency", torch.tensor(rows), persistent=False)

    def forward(self, parts: Tensor) -> Tensor:
        joined = torch.matmul(self.adjacency, parts @ self.weight) + self.bias
        return F.relu(self.bn(joined.flatten(1))).unflatten(1, (len(self.adjacency), -1))
