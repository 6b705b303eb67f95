"""A graph between body parts and learned vertices that hold what earlier tasks taught.

Source: GaitAdapter, https://arxiv.org/abs/2508.03375, and the graph of AKA for lifelong person
re-identification, https://arxiv.org/abs/2103.12462, that it follows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gaitzoo.layers.checks import check_size, shape_of
from gaitzoo.layers.modes import without_autocast

__all__ = ["PartKnowledgeGraph"]

_SCOPES = (None, "batch", "sample")


class PartKnowledgeGraph(nn.Module):
    """Knowledge of earlier tasks about body parts: one graph convolution over parts and vertices.

    ``X``, the M part vectors, and ``V``, the learned vertices, are the nodes. Edges within both are
    ``sigmoid(w . (x - y) + c)``, 1 from a node to itself; an edge between ``x`` and ``v`` is the
    softmax over all ``x`` of ``-max(|x - v|^2, 1e-6) / (2 * sigma)``. With G of all edges and
    ``G' = D^-1 (G + I)``, whose rows add up to one, ``r = tanh(G' dropout([X; V]) W + b)`` of the
    parts. The parts take no gradient from here: the graph learns, what gave the parts does not.

    Two readings of "all parts": those of the whole batch, as published, so that what a sequence
    gets depends on its neighbours; or those of one sequence, so that it does not.

    Source: GaitAdapter (https://arxiv.org/abs/2508.03375) as its published code computes it,
    without a gate that the code makes and never uses. [inferred]: the exact spread of the first
    matrix, normal with a deviation of 0.83 and cut at twice that.

    Args:
        channels: C.
        num_vertices: K, vertices.
        sigma: Width of the softmax, above 0.
        dropout: Share of the nodes' channels dropped in training.
        scope: ``"batch"``, ``"sample"``, or ``None`` = batch in training and sample in eval mode.

    Shapes:
        parts: ``[N, P, C]``, any values.
        returns: ``[N, P, C]`` in (-1, 1).

    Raises:
        ValueError: If an argument has none of the values named here, or channels are others.

    Example:
        >>> graph = PartKnowledgeGraph(8, num_vertices=4).eval()
        >>> graph(torch.rand(2, 3, 8)).shape, graph.vertices.shape
        (torch.Size([2, 3, 8]), torch.Size([4, 8]))
    """

    keeps_float32 = True

    def __init__(
        self,
        channels: int = 256,
        num_vertices: int = 64,
        sigma: float = 2.0,
        dropout: float = 0.6,
        scope: str | None = None,
    ) -> None:
        super().__init__()
        check_size(channels=channels, num_vertices=num_vertices)
        if not 0 < sigma < float("inf"):
            raise ValueError(f"expected sigma above 0, got {sigma!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"expected dropout in [0, 1), got {dropout!r}")
        if scope not in _SCOPES:
            raise ValueError(f'expected scope "batch", "sample" or None, got {scope!r}')
        self.channels, self.sigma, self.scope = channels, sigma, scope
        self.vertices = nn.Parameter(torch.rand(num_vertices, channels))
        self.edge = nn.Linear(channels, 1)
        self.weight = nn.Parameter(torch.empty(channels, channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.edge.weight)
        nn.init.zeros_(self.edge.bias)
        nn.init.trunc_normal_(self.weight, std=0.83, a=-1.66, b=1.66)

    def extra_repr(self) -> str:
        """Text inside the printed module."""
        return f"{self.channels}, {len(self.vertices)}, sigma={self.sigma:g}, scope={self.scope!r}"

    def forward(self, parts: Tensor) -> Tensor:
        """Returns what the graph adds to every part."""
        if parts.ndim != 3 or parts.shape[2] != self.channels:
            raise ValueError(
                f"expected parts [N, P, {self.channels}], got {shape_of(parts)}; parts stand on "
                "the middle axis"
            )
        with without_autocast(parts.device):
            x = parts.detach().to(self.weight.dtype)
            scope = self.scope or ("batch" if self.training else "sample")
            if scope == "batch":
                return self._convolve(x.flatten(0, 1)[None])[0].unflatten(0, parts.shape[:2])
            return self._convolve(x)

    def graph(self, x: Tensor) -> Tensor:
        """The rows of G', which add up to one.

        Args:
            x: Part vectors of B graphs, ``[B, M, C]``.

        Returns:
            ``[B, M + K, M + K]``: parts, then vertices.
        """
        vertices = self.vertices
        cross = self._cross(x)
        within = self._edges(vertices).expand(x.shape[0], -1, -1)
        upper = torch.cat([self._edges(x), cross], dim=2)
        lower = torch.cat([cross.transpose(1, 2), within], dim=2)
        graph = torch.cat([upper, lower], dim=1)
        graph = graph + torch.eye(graph.shape[1], dtype=graph.dtype, device=graph.device)
        return graph / graph.sum(2, keepdim=True)

    def _convolve(self, x: Tensor) -> Tensor:
        nodes = torch.cat([x, self.vertices.expand(x.shape[0], -1, -1)], dim=1)
        rows = self.graph(x)[:, : x.shape[1]]
        return torch.tanh(rows @ (self.dropout(nodes) @ self.weight) + self.bias)

    def _edges(self, nodes: Tensor) -> Tensor:
        """``[..., M, C]`` -> ``[..., M, M]``."""
        # w . (x - y) is the difference of two numbers: no vector per pair is needed.
        scores = nodes @ self.edge.weight[0]
        edges = torch.sigmoid(scores[..., :, None] - scores[..., None, :] + self.edge.bias)
        itself = torch.eye(nodes.shape[-2], dtype=torch.bool, device=nodes.device)
        return edges.masked_fill(itself, 1)

    def _cross(self, x: Tensor) -> Tensor:
        """``[B, M, C]`` -> ``[B, M, K]``, columns of which add up to one."""
        # Around the middle of the vertices the expanded square keeps its digits.
        middle = self.vertices.detach().mean(0)
        x, vertices = x - middle, self.vertices - middle
        squares = x.square().sum(2)[..., None] + vertices.square().sum(1)
        squares = (squares - 2 * x @ vertices.T).clamp(min=1e-6)
        return (squares / (-2 * self.sigma)).softmax(1)
