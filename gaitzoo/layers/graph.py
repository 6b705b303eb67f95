"""Blocks over graphs of joints: convolutions along edges and over time.

Maps are ``[N, C, T, V]``: channels, frames, joints (V of the papers). Source: ResGCN,
https://arxiv.org/abs/2010.09978. Written from the paper and measured shapes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_lengths, check_size, shape_of
from gaitzoo.layers.conv import Conv2d
from gaitzoo.layers.sequence import mask_fill

__all__ = [
    "Affine",
    "GraphConv",
    "GraphUnit",
    "ResGCNBlock",
    "ResGCNInput",
    "TemporalUnit",
    "affine_of",
    "check_joints",
    "hop_adjacency",
]

_FRAMES = 9  # of a convolution over time
_MATRICES = 4  # of a graph, distances 0 to 3


def hop_adjacency(num_nodes: int, edges: Sequence[tuple[int, int]], max_hops: int = 3) -> Tensor:
    """Adjacency of a graph, partitioned by distance.

    Everything within ``max_hops`` counts equally: a column holds one over the number of nodes
    that its node reaches. Matrix h keeps the pairs whose distance is h, so that every column adds
    up to one over all of them. Source: ResGCN, https://arxiv.org/abs/2010.09978, Sec. 3 (the
    partition by distance of https://arxiv.org/abs/1801.07455).

    Args:
        num_nodes: V.
        edges: Pairs of neighbours, numbers below V.
        max_hops: Longest distance that counts.

    Returns:
        ``[max_hops + 1, V, V]`` float32; matrix 0 is diagonal.

    Raises:
        ValueError: If a number is no positive whole number, or an edge leads outside.

    Example:
        >>> hop_adjacency(3, [(0, 1), (1, 2)], max_hops=1)[1]
        tensor([[0.0000, 0.3333, 0.0000],
                [0.5000, 0.0000, 0.5000],
                [0.0000, 0.3333, 0.0000]])
    """
    check_size(num_nodes=num_nodes, max_hops=max_hops)
    if any(not 0 <= node < num_nodes for edge in edges for node in edge):
        raise ValueError(f"expected edges between nodes 0 to {num_nodes - 1}, got {edges!r}")
    step = torch.eye(num_nodes, dtype=torch.float64)
    for one, other in edges:
        step[one, other] = step[other, one] = 1
    reached = torch.eye(num_nodes, dtype=torch.bool)
    rings = [reached]
    for _ in range(max_hops):
        further = (reached.double() @ step) > 0
        rings.append(further & ~reached)
        reached = further
    shares = reached.double() / reached.double().sum(0)
    return torch.stack([torch.where(ring, shares, 0.0) for ring in rings]).float()


class GraphConv(nn.Module):
    """Spatial graph convolution: a matrix per distance, joints mixed along the graph.

    ``y[:, c, t, w]`` is the sum over distances k and joints v of ``(W_k x)[c, t, v] A_k[v, w]``.
    Source: ResGCN, https://arxiv.org/abs/2010.09978, Sec. 3, equation 1.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        num_hops: K, matrices of the graph that are used.

    Shapes:
        x: ``[N, C_in, T, V]``.
        adjacency: ``[K or more, V, V]``; of more matrices the first K count.
        returns: ``[N, C_out, T, V]``.

    Raises:
        ValueError: If a size is no positive whole number, or shapes do not fit.

    Example:
        >>> graph = hop_adjacency(3, [(0, 1), (1, 2)])
        >>> GraphConv(2, 4)(torch.rand(1, 2, 5, 3), graph).shape
        torch.Size([1, 4, 5, 3])
    """

    def __init__(self, in_channels: int, out_channels: int, num_hops: int = 3) -> None:
        super().__init__()
        check_size(in_channels=in_channels, out_channels=out_channels, num_hops=num_hops)
        self.num_hops = num_hops
        self.conv = Conv2d(in_channels, num_hops * out_channels, 1)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        """Returns the mixed joints."""
        check_joints(x, self.conv.in_channels)
        joints = x.shape[3]
        if adjacency.ndim != 3 or adjacency.shape[1:] != (joints, joints):
            raise ValueError(
                f"expected adjacency [{self.num_hops}, {joints}, {joints}] for {joints} joints, "
                f"got {shape_of(adjacency)}"
            )
        y = self.conv(x).unflatten(1, (self.num_hops, -1))
        return torch.einsum("nkctv,kvw->nctw", y, adjacency[: self.num_hops].to(y.dtype))


class GraphUnit(nn.Module):
    """Graph convolution with weights of its edges, batch norm, ReLU.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        num_joints: V.
        norm_first: A batch norm of the input, as raw coordinates need; fused, such a unit stays
            in float32.

    Shapes:
        x: ``[N, C_in, T, V]``.
        adjacency: ``[4, V, V]``, see :func:`hop_adjacency`; it is multiplied by weights of its
            edges, which are learned, and its first three matrices are read, as published.
        returns: ``[N, C_out, T, V]``.

    Raises:
        ValueError: If a size is no positive whole number, or shapes do not fit.

    Example:
        >>> graph = hop_adjacency(3, [(0, 1), (1, 2)])
        >>> GraphUnit(2, 4, num_joints=3)(torch.rand(1, 2, 5, 3), graph).shape
        torch.Size([1, 4, 5, 3])
    """

    def __init__(
        self, in_channels: int, out_channels: int, num_joints: int, norm_first: bool = False
    ) -> None:
        super().__init__()
        check_size(num_joints=num_joints)
        self.edge = nn.Parameter(torch.ones(_MATRICES, num_joints, num_joints))
        self.keeps_float32 = norm_first
        self.input_norm = nn.BatchNorm2d(in_channels) if norm_first else nn.Identity()
        self.conv = GraphConv(in_channels, out_channels)
        self.norm: nn.Module = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        """Returns the mixed joints."""
        if adjacency.shape != self.edge.shape:
            raise ValueError(f"expected adjacency {shape_of(self.edge)}, got {shape_of(adjacency)}")
        return F.relu(self.norm(self.conv(self.input_norm(x), adjacency * self.edge)))

    def fused(self, dtype: torch.dtype) -> nn.Module:
        """The batch norms' scales inside the convolution, one addition left of them."""
        made = copy.deepcopy(self)
        conv = made.conv.conv
        if isinstance(made.input_norm, nn.BatchNorm2d):
            scale, shift = affine_of(made.input_norm)
            assert conv.bias is not None
            conv.bias = nn.Parameter(conv.bias + conv.weight[:, :, 0, 0] @ shift)
            conv.weight = nn.Parameter(conv.weight * scale[:, None, None])
            made.input_norm = nn.Identity()
        if isinstance(made.norm, nn.BatchNorm2d):
            scale, shift = affine_of(made.norm)
            scales = scale.repeat(made.conv.num_hops)
            assert conv.bias is not None
            conv.weight = nn.Parameter(conv.weight * scales[:, None, None, None])
            conv.bias = nn.Parameter(conv.bias * scales)
            made.norm = Affine(None, shift)
        return made


class TemporalUnit(nn.Module):
    """Convolution over 9 frames, batch norm, ReLU, each joint by itself.

    Frames past the end are zeros to the convolution, so that padded batches give the numbers of
    single sequences.

    Args:
        channels: C.
        stride: Frames from one output to the next.

    Shapes:
        x: ``[N, C, T, V]``.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: ``[N, C, ceil(T / stride), V]``.

    Raises:
        ValueError: If a size is no positive whole number, or shapes do not fit.

    Example:
        >>> TemporalUnit(4, stride=2)(torch.rand(1, 4, 5, 17)).shape
        torch.Size([1, 4, 3, 17])
    """

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        check_size(channels=channels, stride=stride)
        conv = Conv2d(
            channels, channels, (_FRAMES, 1), stride=(stride, 1), padding=(_FRAMES // 2, 0)
        )
        self.layers = nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU())

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the mixed frames."""
        return self.layers(mask_fill(x, lengths))


class ResGCNInput(nn.Module):
    """First block of a branch: batch norm, graph convolution, convolution over 9 frames.

    Source: ResGCN, https://arxiv.org/abs/2010.09978, Sec. 3 (its initial block).

    Args:
        in_channels: C_in, numbers of a joint.
        out_channels: C_out.
        num_joints: V.

    Shapes:
        x: ``[N, C_in, T, V]``.
        adjacency: ``[4, V, V]``, see :class:`GraphUnit`.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: ``[N, C_out, T, V]``; past the end it holds no meaning.

    Raises:
        ValueError: If a size is no positive whole number, or shapes do not fit.

    Example:
        >>> graph = hop_adjacency(3, [(0, 1), (1, 2)])
        >>> ResGCNInput(5, 8, num_joints=3)(torch.rand(1, 5, 7, 3), graph).shape
        torch.Size([1, 8, 7, 3])
    """

    def __init__(self, in_channels: int, out_channels: int, num_joints: int) -> None:
        super().__init__()
        self.graph = GraphUnit(in_channels, out_channels, num_joints, norm_first=True)
        self.temporal = TemporalUnit(out_channels)

    def out_lengths(self, lengths: Tensor) -> Tensor:
        """Valid frames after the block, ``[N]``: as many."""
        return lengths

    def forward(self, x: Tensor, adjacency: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the map of a branch."""
        return self.temporal(self.graph(x, adjacency), lengths)


class ResGCNBlock(nn.Module):
    """Bottleneck block of ResGCN: joints mixed along the graph, then frames, each with a shortcut.

    Source: ResGCN, https://arxiv.org/abs/2010.09978, Sec. 3, figure 3 (bottleneck).

    Args:
        in_channels: C_in.
        out_channels: C_out.
        num_joints: V.
        reduction: Narrowing inside; ``C_out // reduction`` channels.
        stride: Frames from one output to the next.

    Shapes:
        x: ``[N, C_in, T, V]``.
        adjacency: ``[4, V, V]``, see :class:`GraphUnit`.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: ``[N, C_out, ceil(T / stride), V]``; past the end it holds no meaning.

    Raises:
        ValueError: If a size is no positive whole number, ``reduction`` larger than ``C_out``, or
            shapes do not fit.

    Example:
        >>> graph = hop_adjacency(3, [(0, 1), (1, 2)])
        >>> block = ResGCNBlock(8, 16, num_joints=3, stride=2)
        >>> block(torch.rand(2, 8, 7, 3), graph, torch.tensor([7, 2])).shape
        torch.Size([2, 16, 4, 3])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_joints: int,
        reduction: int = 8,
        stride: int = 1,
    ) -> None:
        super().__init__()
        check_size(reduction=reduction, stride=stride, num_joints=num_joints)
        inner = out_channels // reduction
        if inner < 1:
            raise ValueError(
                f"expected reduction of at most {out_channels}, the channels, got {reduction}"
            )
        self.stride = stride
        self.spatial_down = _pointwise(in_channels, inner, nn.ReLU())
        self.graph = GraphUnit(inner, inner, num_joints)
        self.spatial_up = _pointwise(inner, out_channels)
        self.spatial_shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.spatial_shortcut = _pointwise(in_channels, out_channels)
        self.temporal_down = _pointwise(out_channels, inner, nn.ReLU())
        self.temporal = TemporalUnit(inner, stride)
        self.temporal_up = _pointwise(inner, out_channels)
        self.temporal_shortcut: nn.Module = nn.Identity()
        if stride > 1:
            self.temporal_shortcut = _pointwise(out_channels, out_channels, stride=stride)

    def out_lengths(self, lengths: Tensor) -> Tensor:
        """Valid frames after the block, ``[N]``: ``ceil(lengths / stride)``."""
        return (lengths + self.stride - 1) // self.stride

    def forward(self, x: Tensor, adjacency: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the map, shortened by the stride."""
        check_joints(x, None)
        if lengths is not None:
            check_lengths(lengths, x.shape[0], x.shape[2])
        y = self.spatial_up(self.graph(self.spatial_down(x), adjacency))
        x = F.relu(y + self.spatial_shortcut(x))
        y = self.temporal_up(self.temporal(self.temporal_down(x), lengths))
        return F.relu(y + self.temporal_shortcut(x))


class Affine(nn.Module):
    """What is left of a batch norm at inference: a scale, perhaps, and a shift per channel.

    Args:
        scale: ``[C]``, or ``None`` where a convolution has it already.
        shift: ``[C]``.
    """

    def __init__(self, scale: Tensor | None, shift: Tensor) -> None:
        super().__init__()
        self.scale = None if scale is None else nn.Parameter(scale[:, None, None])
        self.shift = nn.Parameter(shift[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Scales and shifts ``[N, C, T, V]``."""
        return x + self.shift if self.scale is None else torch.addcmul(self.shift, x, self.scale)


def affine_of(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift of a batch norm at inference, ``[C]`` each.

    Args:
        norm: With statistics.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
    return scale, norm.bias.detach() - norm.running_mean * scale


def _pointwise(
    in_channels: int, out_channels: int, *after: nn.Module, stride: int = 1
) -> nn.Sequential:
    conv = Conv2d(in_channels, out_channels, 1, stride=(stride, 1))
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), *after)


def check_joints(x: Tensor, channels: int | None) -> None:
    """Raises unless ``x`` is a map of joints.

    Args:
        x: ``[N, C, T, V]``.
        channels: C; ``None`` = any.

    Raises:
        ValueError: If axes or channels are others.
    """
    if x.ndim != 4 or (channels is not None and x.shape[1] != channels):
        wanted = "C" if channels is None else channels
        raise ValueError(f"expected a map [N, {wanted}, T, V] of joints, got {shape_of(x)}")
