"""Mesh-Gait: volumes of 3-D points from silhouettes, beside plain features (a reconstruction).

Paper: https://arxiv.org/abs/2510.10406. The authors promise code; none was found, and
nothing of it is contained here. This is a reconstruction from the abstract and from notes by
others: silhouettes are turned into 3-D heat maps, joints, virtual markers and a mesh are read from
them in training alone, and features of both kinds are joined. Sizes, the place where the branches
part, the fusion and the losses' weights are inferred; markers and their mesh are those of Virtual
Marker (https://arxiv.org/abs/2303.11726).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_size, shape_of
from gaitzoo.layers.conv import Conv2d
from gaitzoo.layers.heads import PartBNNeck, PartLinear
from gaitzoo.layers.residual import ResidualBlock2d
from gaitzoo.layers.sequence import to_frames, to_sequences
from gaitzoo.layers.volumes import (
    HeatmapEncoder,
    MarkerToMesh,
    VolumetricHeatmapHead,
    soft_argmax_3d,
)
from gaitzoo.models.aux_output import AuxOutput
from gaitzoo.models.base import init_weights, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.max_pooled import MaxPooled
from gaitzoo.models.named_backbones import named_backbone
from gaitzoo.models.outputs import GaitOutput
from gaitzoo.models.registry import register_model

__all__ = ["MeshGait", "VolumeStage"]

_PAPER = "https://arxiv.org/abs/2510.10406"
_FUSIONS = ("concat", "sum", "separate")
_BRANCH_AT = 2  # layers of the backbone that both branches share


class VolumeStage(nn.Module):
    """Volumes of points from a map of frames, and features of these volumes.

    Two residual blocks, :class:`VolumetricHeatmapHead`, :class:`HeatmapEncoder`.

    Source: Mesh-Gait (https://arxiv.org/abs/2510.10406), 3-D branch; inferred.

    Args:
        in_channels: Channels of the map.
        channels: Channels of the blocks and of the features.
        num_points: K.
        depth: D.
        stride: Step of the first block, pixels.
        detach: Keep gradients of the features from reaching the volumes.

    Shapes:
        x: ``[B, C, H, W]``.
        returns: features ``[B, channels, H / stride, W / stride]`` and volumes
            ``[B, K, D, H / stride, W / stride]``.

    Raises:
        ValueError: If a size is no positive whole number, or axes do not fit.

    Example:
        >>> features, volumes = VolumeStage(3, 8, 17, 4)(torch.rand(2, 3, 16, 12))
        >>> features.shape, volumes.shape
        (torch.Size([2, 8, 8, 6]), torch.Size([2, 17, 4, 8, 6]))
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        num_points: int,
        depth: int,
        stride: int = 2,
        detach: bool = False,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            [ResidualBlock2d(in_channels, channels, stride), ResidualBlock2d(channels, channels)]
        )
        self.heatmaps = VolumetricHeatmapHead(channels, num_points, depth)
        self.encoder = HeatmapEncoder(num_points, depth, channels)
        self.detach = detach

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns features and volumes."""
        for block in self.blocks:
            x = block(x)
        _, volumes = self.heatmaps(x)
        return self.encoder(volumes.detach() if self.detach else volumes), volumes


class MeshGait(MaxPooled):
    """Mesh-Gait: silhouettes through a plain network, and through volumes of 3-D points.

    Behind the second layer of the backbone, a branch turns the map into a volume of probability
    for every joint and marker, and these into features that join those of the backbone. In
    training the places of the points come back beside the embeddings, to be held against known
    ones by :class:`MeshGaitLoss`; at test they are not computed.

    A reconstruction from abstract and notes, https://arxiv.org/abs/2510.10406; what is inferred is
    listed at the top of this file. For training holds what :class:`DeepGaitV2` says of padding.

    Places are in the box of the frame: x from left to right and y downwards over the frame's width
    and height, z away from the camera in the scale of y around the root, each in [-0.5, 0.5].

    Args:
        num_classes: Training identities, 0 = no classifier.
        in_channels: Channels of the input.
        backbone: ``"gaitbase"``, ``"deepgaitv2_2d"``, ``"deepgaitv2_p3d"`` or ``"deepgaitv2_3d"``.
        layers: Blocks of the backbone's four layers; ``None`` = those of its family.
        channels: Widths of the four layers; embeddings have ``channels[2]`` channels.
        part_bins: Numbers of horizontal bands; each must divide a quarter of the frame's height.
        num_joints: J, joints of the body.
        num_markers: K, virtual markers on its surface.
        depth: D, voxels away from the camera.
        stages: Volumes behind one another, each read from the features of the one before and each
            supervised ("gradually reconstructed"; 1 is inferred).
        fusion: ``"concat"`` (a 1x1 convolution of both), ``"sum"``, or ``"separate"`` (parts of
            their own; twice as many).
        detach_heatmap: Keep gradients of recognition from reaching the volumes.
        centred: Count places from the middles of voxels, see :func:`soft_argmax_3d`; ours, because
            feet stand at the lower edge of an aligned frame, out of reach of Virtual Marker's
            convention.
        adaptive_vertices: V of a mesh with trained weights, see :class:`MarkerToMesh`; 0 = no mesh
            until :meth:`set_marker_basis`.

    Shapes:
        silhouettes: ``[N, T, H, W]`` in [0, 1] or uint8 0..255; ``[N, C, T, H, W]`` for any
            number of channels. H and W multiples of 4.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        return_geometry: Whether to give the places; ``None`` = in training.
        returns: :class:`AuxOutput` with ``embeddings [N, P, channels[2]]``; ``aux`` is empty, or
            has ``joints [N, T, J, 3]``, ``markers [N, T, K, 3]``, ``confidence [N, T, J + K]``, and
            ``vertices [N, T, V, 3]`` if there is a mesh; of earlier stages under ``joints.0`` and
            so on. Past the end of a sequence they hold no meaning.

    Raises:
        ValueError: If an argument has none of the values named here.

    Example:
        >>> import gaitzoo
        >>> model = gaitzoo.create_model("mesh_gait_tiny")
        >>> output = model(torch.rand(2, 5, 16, 12))
        >>> output.embeddings.shape, output.aux["joints"].shape
        (torch.Size([2, 4, 4]), torch.Size([2, 5, 3, 3]))
        >>> model.eval()(torch.rand(2, 5, 16, 12)).aux
        {}
    """

    architecture = "mesh_gait"

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 3000,
        in_channels: int = 1,
        backbone: str = "deepgaitv2_2d",
        layers: tuple[int, ...] | None = None,
        channels: tuple[int, int, int, int] = (64, 128, 256, 512),
        part_bins: tuple[int, ...] = (16,),
        num_joints: int = 17,
        num_markers: int = 64,
        depth: int = 16,
        stages: int = 1,
        fusion: str = "concat",
        detach_heatmap: bool = False,
        centred: bool = True,
        adaptive_vertices: int = 0,
    ) -> None:
        super().__init__(embedding=self.side_of("fc"))
        if fusion not in _FUSIONS:
            raise ValueError(f"expected fusion among {', '.join(_FUSIONS)}, got {fusion!r}")
        check_size(num_joints=num_joints, num_markers=num_markers, depth=depth, stages=stages)
        self.embedding, self.in_channels, self.fusion = "fc", in_channels, fusion
        self.num_joints, self.num_markers, self.centred = num_joints, num_markers, centred
        self.backbone = named_backbone(backbone, channels, layers, in_channels)
        points, width = num_joints + num_markers, channels[2]
        self.volumes = nn.ModuleList(
            VolumeStage(
                channels[_BRANCH_AT - 1] if i == 0 else width,
                width,
                points,
                depth,
                2 if i == 0 else 1,
                detach_heatmap,
            )
            for i in range(stages)
        )
        self.fuse_maps = None
        if fusion != "separate":
            before = width if fusion == "sum" else channels[3] + width
            self.fuse_maps = nn.Sequential(
                Conv2d(before, channels[3], 1, bias=False), nn.BatchNorm2d(channels[3])
            )
        self.build_head(channels[3], width, part_bins, num_classes)
        self.volume_fc = None
        if fusion == "separate":
            self.volume_fc = PartLinear(self.num_parts, width, width)
            self.num_parts *= 2
            self.neck = PartBNNeck(self.num_parts, width, num_classes)
        init_weights(self)
        self.mesh: MarkerToMesh | None = None
        if adaptive_vertices:
            self.mesh = MarkerToMesh(None, points, adaptive_vertices, adaptive=True)

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """See :attr:`GaitModel.feature_modules`: stages of both branches, then what joins them."""
        names = self.backbone.stage_names("backbone.")
        volumes = tuple(f"volumes.{i}.encoder.blocks.1" for i in range(len(self.volumes)))
        joined = () if self.fuse_maps is None else ("fuse_maps",)
        return (*names[: _BRANCH_AT + 1], *volumes, *names[_BRANCH_AT + 1 :], *joined)

    def set_marker_basis(self, basis: Tensor | None) -> None:
        """Gives the model a mesh: vertices are fixed sums of its markers.

        The table is not saved with the model; it is needed in training alone.

        Args:
            basis: ``[K, V]``, as from :func:`gaitzoo.load_marker_basis`; ``None`` = no mesh.

        Raises:
            ValueError: If it has another number of markers.
        """
        if basis is not None and (basis.ndim != 2 or len(basis) != self.num_markers):
            raise ValueError(f"expected a basis [{self.num_markers}, V], got {shape_of(basis)}")
        like = next(self.parameters())
        self.mesh = None if basis is None else MarkerToMesh(basis.to(like))

    def forward_features(
        self, silhouettes: Tensor, lengths: Tensor | None = None
    ) -> tuple[Any, Any]:
        """Computes the joined map before temporal pooling; time keeps its length.

        Args:
            silhouettes: As for the model's call.
            lengths: As for the model's call.

        Returns:
            ``features`` ``[N, channels[3], T, H / 4, W / 4]`` and ``lengths``; with ``fusion
            "separate"`` tuples of both, of the network and of the volumes
            (``channels[2]`` channels). What stands past the end of a sequence holds no meaning.
        """
        return self._features(silhouettes, lengths)[:2]

    def forward_head(self, features: Any, lengths: Any = None) -> GaitOutput:
        """Pools over time and bands and embeds every part."""
        if self.volume_fc is None:
            return super().forward_head(features, lengths)
        counts = lengths if isinstance(lengths, tuple) else (lengths, lengths)
        flat, volumes = (
            self.part_pool(self.temporal_pool(x, count))
            for x, count in zip(features, counts, strict=True)
        )
        parts = torch.cat([self.part_fc(flat), self.volume_fc(volumes)], dim=1)
        return GaitOutput(parts, logits=self.neck(parts)[1])

    def forward(
        self,
        silhouettes: Tensor,
        lengths: Tensor | None = None,
        return_geometry: bool | None = None,
    ) -> AuxOutput:
        """Embeds a batch of sequences; see the class."""
        features, counts, volumes = self._features(silhouettes, lengths)
        output = self.forward_head(features, counts)
        wanted = self.training if return_geometry is None else return_geometry
        aux = self._geometry(volumes, len(output.embeddings)) if wanted else {}
        return AuxOutput(output.embeddings, logits=output.logits, aux=aux)

    def temporal_reach(self) -> tuple[int, int]:
        """See :meth:`GaitModel.temporal_reach`."""
        return self.backbone.reach(), 1

    def temporal_maps(self, inputs: Any) -> Iterator[tuple[Tensor, int]]:
        """See :meth:`GaitModel.temporal_maps`."""
        features, _ = self.forward_features(inputs)
        for one in features if isinstance(features, tuple) else (features,):
            yield one, 1

    def _features(
        self, silhouettes: Tensor, lengths: Tensor | None
    ) -> tuple[Any, Any, list[Tensor]]:
        """What :meth:`forward_features` gives, and the volumes of all frames of every stage."""
        x, lengths = self.prepare(silhouettes, lengths)
        x = self.backbone.run_stem(x, self.run)
        for index in range(_BRANCH_AT):
            x = self.backbone.run_layer(index, x, lengths, self.run)
        y, found = to_frames(x), []
        for stage in self.volumes:
            y, volumes = self.run(stage, y)
            found.append(volumes)
        for index in range(_BRANCH_AT, len(self.backbone.layers)):
            x = self.backbone.run_layer(index, x, lengths, self.run)
        if self.fuse_maps is None:
            return (x, to_sequences(y, x.shape[0])), (lengths, lengths), found
        frames = to_frames(x)
        if self.fusion == "sum":
            frames = F.relu(frames + self.fuse_maps(y))
        else:
            frames = F.relu(self.fuse_maps(torch.cat([frames, y.to(frames.dtype)], dim=1)))
        return to_sequences(frames, x.shape[0]), lengths, found

    def _geometry(self, volumes: list[Tensor], num_sequences: int) -> dict[str, Tensor]:
        """Places of all points, of the last stage and of earlier ones."""
        found: dict[str, Tensor] = {}
        for i, volume in enumerate(volumes):
            points, confidence = (
                x.unflatten(0, (num_sequences, -1)) for x in soft_argmax_3d(volume, self.centred)
            )
            joints, markers = points.split([self.num_joints, self.num_markers], dim=2)
            one = {"joints": joints, "markers": markers, "confidence": confidence}
            if self.mesh is not None:
                table_of = points if self.mesh.weights is not None else markers
                one["vertices"] = self.mesh(table_of, confidence)
            suffix = "" if i + 1 == len(volumes) else f".{i}"
            found |= {f"{name}{suffix}": x for name, x in one.items()}
        return found


_CFGS = {
    "gait3d": PretrainedCfg(
        fidelity="reconstruction",
        num_classes=3000,
        paper=_PAPER,
        license="no weights",
        training_data="none; the paper's are Gait3D and OUMVLP-Mesh by one account",
        unavailable=(
            "the authors of Mesh-Gait have published neither code nor weights; train the model on "
            "silhouettes with 3-D joints, such as Gait3D's"
        ),
        notes="A reconstruction from the abstract and notes; sizes are inferred.",
    ),
}
register_model(
    "mesh_gait",
    MeshGait,
    _CFGS,
    tiny=PretrainedCfg(
        num_classes=5,
        model_args={
            "backbone": "gaitbase",
            "channels": (2, 3, 4, 5),
            "part_bins": (4,),
            "num_joints": 3,
            "num_markers": 2,
            "depth": 3,
        },
        input_size=(16, 12),
    ),
)
