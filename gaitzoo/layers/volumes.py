"""Points in space from maps: volumes of probability, their expected places, and features of them.

Source: Mesh-Gait (https://arxiv.org/abs/2510.10406), with the representation of Virtual Marker
(https://arxiv.org/abs/2303.11726). A reconstruction: of Mesh-Gait the abstract and notes were
read, so sizes and the layers around the volumes are inferred.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from gaitzoo.layers.checks import check_size, shape_of
from gaitzoo.layers.conv import Conv2d
from gaitzoo.layers.fused import channels_last
from gaitzoo.layers.graph import affine_of
from gaitzoo.layers.modes import channels_stand_last
from gaitzoo.layers.residual import ResidualBlock2d

__all__ = [
    "HeatmapEncoder",
    "MarkerToMesh",
    "VolumetricHeatmapHead",
    "markers_from_vertices",
    "soft_argmax_3d",
]


class VolumetricHeatmapHead(nn.Module):
    """A volume of probability for each of some points, from a map of single frames.

    A 1x1 convolution gives every point as many maps as the volume is deep; the softmax is over all
    voxels of a point, of scores times a learned factor that begins at 1.

    Source: Mesh-Gait (https://arxiv.org/abs/2510.10406); head and learned factor are inferred
    (Virtual Marker has a fixed factor of 15).

    Args:
        in_channels: C of the map.
        num_points: K.
        depth: D, voxels away from the camera.

    Shapes:
        x: ``[B, C, H, W]``.
        returns: scores and probabilities, both ``[B, K, D, H, W]``; probabilities are in float32 at
            least and sum to one per point.

    Raises:
        ValueError: If a size is no positive whole number, or axes do not fit.

    Example:
        Points on a foreign network:

        >>> trunk = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU())
        >>> scores, volumes = VolumetricHeatmapHead(8, 17, 4)(trunk(torch.rand(2, 3, 8, 6)))
        >>> points, confidence = soft_argmax_3d(volumes)
        >>> volumes.shape, points.shape
        (torch.Size([2, 17, 4, 8, 6]), torch.Size([2, 17, 3]))
    """

    def __init__(self, in_channels: int, num_points: int, depth: int = 16) -> None:
        super().__init__()
        check_size(in_channels=in_channels, num_points=num_points, depth=depth)
        self.num_points, self.depth = num_points, depth
        self.conv = Conv2d(in_channels, num_points * depth, 1)
        self.sharpness = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns scores and probabilities."""
        if x.ndim != 4 or x.shape[1] != self.conv.in_channels:
            raise ValueError(
                f"expected a map [B, {self.conv.in_channels}, H, W], got {shape_of(x)}"
            )
        scores = self.conv(x).unflatten(1, (self.num_points, self.depth))
        wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
        volumes = (self.sharpness.to(wide.dtype) * wide).flatten(2).softmax(dim=2)
        return scores, volumes.unflatten(2, scores.shape[2:])


def soft_argmax_3d(volumes: Tensor, centred: bool = False) -> tuple[Tensor, Tensor]:
    """Expected place of each point in its volume, and the probability found there.

    A coordinate is the expected index over the size, less a half: the first voxel of an axis of
    size S is at -0.5, the last at 0.5 - 1 / S, and a volume turned round gives ``-x - 1 / S``. This
    is Virtual Marker's convention, of a box with room around the body. With ``centred`` voxels are
    where their middles are, half a voxel further, and a volume turned round gives ``-x``.

    Source: Virtual Marker (https://arxiv.org/abs/2303.11726), integral of volumes; the expectation
    over each axis is that of Integral Human Pose (https://arxiv.org/abs/1711.08229).

    Args:
        volumes: Probabilities ``[..., D, H, W]`` that sum to one over the last three axes.
        centred: Count from the middles of voxels.

    Returns:
        ``[..., 3]``, x (of W), y (of H) and z (of D) in [-0.5, 0.5); and the probability of the
        voxel nearest to it, ``[...]`` in [0, 1].

    Raises:
        ValueError: If there are fewer than three axes, or numbers do not sum to one, as scores do
            not (tensors on accelerators are not read).

    Example:
        >>> volume = torch.zeros(1, 4, 8, 10)
        >>> volume[0, 1, 4, 5] = 1  # z, y, x
        >>> soft_argmax_3d(volume)
        (tensor([[ 0.0000,  0.0000, -0.2500]]), tensor([1.]))
    """
    if volumes.ndim < 3 or not volumes.is_floating_point():
        raise ValueError(f"expected volumes [..., D, H, W] of floats, got {shape_of(volumes)}")
    _check_sums(volumes)
    places, nearest = [], []
    for axis in (-1, -2, -3):
        others = tuple(other for other in (-1, -2, -3) if other != axis)
        size = volumes.shape[axis]
        index = torch.arange(size, device=volumes.device, dtype=volumes.dtype)
        place = (volumes.sum(others) * index).sum(-1)
        nearest.append(place.detach().round().long().clamp(0, size - 1))
        places.append((place + 0.5 * centred) / size - 0.5)
    x, y, z = nearest
    height, width = volumes.shape[-2:]
    voxel = ((z * height + y) * width + x)[..., None]
    confidence = volumes.flatten(-3).gather(-1, voxel)[..., 0]
    return torch.stack(places, dim=-1), confidence


def _check_sums(volumes: Tensor) -> None:
    if torch.compiler.is_compiling() or volumes.device.type != "cpu" or volumes.numel() == 0:
        return
    off = float((volumes.detach().sum((-1, -2, -3)) - 1).abs().max())
    # NaN is not below it either.
    if not off < 0.01:
        raise ValueError(
            f"expected probabilities that sum to one, got volumes off by up to {off:.3g}; of what "
            "VolumetricHeatmapHead gives, take the second"
        )


class HeatmapEncoder(nn.Module):
    """Features of volumes: every slice of every point is a channel.

    Batch norm, a 1x1 convolution and two residual blocks; probabilities are multiplied by the
    number of voxels first, so that an even volume is one everywhere.

    Source: Mesh-Gait (https://arxiv.org/abs/2510.10406); inferred.

    Args:
        num_points: K.
        depth: D.
        out_channels: C.

    Shapes:
        volumes: ``[B, K, D, H, W]`` as from :class:`VolumetricHeatmapHead`.
        returns: ``[B, C, H, W]``.

    Raises:
        ValueError: If a size is no positive whole number, or axes do not fit.

    Example:
        >>> encode = torch.nn.Sequential(HeatmapEncoder(17, 4, 8), torch.nn.Conv2d(8, 2, 1))
        >>> encode(torch.rand(2, 17, 4, 8, 6)).shape
        torch.Size([2, 2, 8, 6])
    """

    def __init__(self, num_points: int, depth: int, out_channels: int = 256) -> None:
        super().__init__()
        check_size(num_points=num_points, depth=depth, out_channels=out_channels)
        self.num_points, self.depth = num_points, depth
        self.squeeze = _NormConv(num_points * depth, out_channels)
        self.blocks = nn.ModuleList(ResidualBlock2d(out_channels, out_channels) for _ in range(2))

    def forward(self, volumes: Tensor) -> Tensor:
        """Returns the features."""
        if volumes.ndim != 5 or volumes.shape[1:3] != (self.num_points, self.depth):
            raise ValueError(
                f"expected volumes [B, {self.num_points}, {self.depth}, H, W], got "
                f"{shape_of(volumes)}"
            )
        voxels = volumes.shape[2] * volumes.shape[3] * volumes.shape[4]
        x = self.squeeze((volumes * voxels).flatten(1, 2))
        for block in self.blocks:
            x = block(x)
        return x


class _NormConv(nn.Module):
    """Batch norm, then a 1x1 convolution, in the type of its weights."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm: nn.Module = nn.BatchNorm2d(in_channels)
        self.conv = Conv2d(in_channels, out_channels, 1)

    def fused(self, dtype: torch.dtype) -> nn.Module:
        """The same with the norm's scale and shift in the convolution, channels last."""
        made, norm = copy.deepcopy(self), self.norm
        if not isinstance(norm, nn.BatchNorm2d):
            return made
        assert made.conv.bias is not None
        scale, shift = affine_of(norm)
        with torch.no_grad():
            made.conv.bias += (made.conv.weight[..., 0, 0] * shift).sum(1)
            made.conv.weight *= scale[:, None, None]
        made.norm = nn.Identity()
        return made

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C_in, H, W]`` to ``[B, C_out, H, W]``."""
        x = x.to(self.conv.weight.dtype)
        # Volumes come with points outermost, whatever the layout of the map before.
        if isinstance(self.norm, nn.Identity) or channels_stand_last():
            x = channels_last(x)
        return self.conv(self.norm(x))


class MarkerToMesh(nn.Module):
    """Vertices of a mesh as weighted sums of a few markers.

    The weights are a fixed table, as from :func:`gaitzoo.load_marker_basis`, or with ``adaptive``
    a linear function of the markers' confidence, which is trained (and large: 45.8 million numbers
    for 81 markers and 6890 vertices). Markers and confidence take no gradient from adaptive
    weights' meshes.

    Source: Virtual Marker (https://arxiv.org/abs/2303.11726), mesh from markers.

    Args:
        basis: ``[K, V]``, weights of the K markers in every vertex; each column sums to one.
            ``None`` with ``adaptive``.
        num_points: K of adaptive weights.
        num_vertices: V of adaptive weights.
        adaptive: Compute the weights.

    Shapes:
        markers: ``[..., K, 3]``.
        confidence: ``[..., K]``; only adaptive weights need it.
        returns: ``[..., V, 3]``.

    Raises:
        ValueError: If arguments or shapes do not fit.

    Example:
        >>> basis = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.5, 1.0]])
        >>> MarkerToMesh(basis)(torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, 4.0]]))
        tensor([[0., 0., 0.],
                [1., 0., 2.],
                [2., 0., 4.]])
    """

    basis: Tensor | None

    def __init__(
        self,
        basis: Tensor | None = None,
        num_points: int = 81,
        num_vertices: int = 6890,
        *,
        adaptive: bool = False,
    ) -> None:
        super().__init__()
        if (basis is None) != adaptive:
            raise ValueError("expected a basis [K, V], or adaptive=True and none, got both or none")
        self.weights = None
        if basis is None:
            check_size(num_points=num_points, num_vertices=num_vertices)
            self.weights = nn.Linear(num_points, num_vertices * num_points)
        elif basis.ndim != 2 or not basis.is_floating_point():
            raise ValueError(f"expected a basis [K, V] of floats, got {shape_of(basis)}")
        else:
            num_points, num_vertices = basis.shape
        # The table is the user's: it is given again, never saved.
        self.register_buffer("basis", basis, persistent=False)
        self.num_points, self.num_vertices = num_points, num_vertices

    def forward(self, markers: Tensor, confidence: Tensor | None = None) -> Tensor:
        """Returns the vertices."""
        if markers.ndim < 2 or markers.shape[-2:] != (self.num_points, 3):
            raise ValueError(
                f"expected markers [..., {self.num_points}, 3], got {shape_of(markers)}"
            )
        if self.weights is None:
            assert self.basis is not None
            return self.basis.T.to(markers.dtype) @ markers
        if confidence is None or confidence.shape != markers.shape[:-1]:
            got = "none" if confidence is None else shape_of(confidence)
            raise ValueError(f"expected confidence {shape_of(markers[..., 0])}, got {got}")
        table = self.weights(confidence.detach())
        return table.unflatten(-1, (self.num_vertices, self.num_points)) @ markers.detach()


def markers_from_vertices(vertices: Tensor, selector: Tensor) -> Tensor:
    """Markers of a mesh.

    Args:
        vertices: ``[..., V, 3]``.
        selector: ``[V, K]``, weights of the vertices in every marker.

    Returns:
        ``[..., K, 3]``.

    Raises:
        ValueError: If the numbers of vertices differ.

    Example:
        >>> markers_from_vertices(torch.rand(5, 4, 3), torch.eye(4)[:, :2]).shape
        torch.Size([5, 2, 3])
    """
    if selector.ndim != 2 or vertices.ndim < 2 or vertices.shape[-2:] != (len(selector), 3):
        raise ValueError(
            f"expected vertices [..., V, 3] and a selector [V, K], got {shape_of(vertices)} and "
            f"{shape_of(selector)}"
        )
    return selector.T.to(vertices.dtype) @ vertices
