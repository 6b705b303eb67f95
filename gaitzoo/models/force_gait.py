"""Gait networks with joint forces beside what they read: a reconstruction.

Idea: https://arxiv.org/abs/2512.20451 ("Beyond Motion Pattern"), known by its abstract and notes;
no code was found, nothing of it is contained here, and no number of the authors' is to be expected.
From the abstract: physically inferred joint forces are added to existing gait networks, on CASIA-B
and Gait3D. [inferred]: the hosts (the authors' baselines are close to GaitBase's and SMPLGait's
published results), the encoder of the forces, the ways of fusion, the losses (those of the host).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gaitzoo.data.modalities import check_same_frames, find_modality, time_axis
from gaitzoo.layers.body_segments import find_body_segments
from gaitzoo.layers.force_encoder import ForceEncoder, check_force_mask, pool_forces
from gaitzoo.layers.force_fusion import ForceCrossAttention, ForceFiLM, ForceGate, ForceParts
from gaitzoo.layers.heads import PartBNNeck, SharedBNNeck
from gaitzoo.models.base import GaitModel, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.outputs import GaitOutput
from gaitzoo.models.registry import find_architecture, model_info, register_model

__all__ = ["ForceGait", "with_forces"]

_PAPER = "https://arxiv.org/abs/2512.20451"
_PLACES = {
    "film": ("features", "embeddings"),
    "gated": ("embeddings",),
    "extra_part": ("embeddings",),
    "cross_attention": ("embeddings",),
}


class ForceGait(GaitModel):
    """A gait network whose maps or part vectors are changed by joint forces; a reconstruction.

    The host keeps its weights and its losses. Before training it gives what it gave alone (with
    ``"extra_part"``: and one part of zeros). Forces come from :class:`InverseDynamics` or another
    program, as torques in body weights times body heights.

    Source: https://arxiv.org/abs/2512.20451, abstract; what is inferred is said at the top of this
    file.

    Args:
        num_classes: Training identities, 0 = no classifier.
        host: Name of a model of this library, or a model with a batch-norm neck
            (:class:`PartBNNeck` or :class:`SharedBNNeck` as ``neck``), which is left as it is;
            weights are shared with it. What it returns besides embeddings and logits is lost.
        host_args: Arguments of the model that is built by name.
        fusion: ``"film"`` (:class:`ForceFiLM`), ``"gated"`` (:class:`ForceGate`), ``"extra_part"``
            (:class:`ForceParts`) or ``"cross_attention"`` (:class:`ForceCrossAttention`).
        at: ``"features"``, the host's maps frame by frame (``"film"`` alone, and a host that keeps
            the number of frames), or ``"embeddings"``, its part vectors before the neck. ``None`` =
            the first of the two that the fusion knows.
        skeleton: Joints of the forces, ``"smpl24"`` or ``"coco17"``.
        force_dim: Channels of the forces inside.
        force_hidden: Channels of a joint inside; see :class:`ForceEncoder`.
        force_unit: What torques are divided by.
        num_heads: Of ``"cross_attention"``.
        zero_init: Whether the fusion changes nothing before training.

    Shapes:
        inputs: What the host reads and ``"forces"`` ``[N, T, J, 3]``, as a mapping. Without
            ``"forces"`` nothing is added.
        lengths: ``[N]`` int64, valid frames of all; ``None`` = all T.
        forces_valid: ``[N, T]`` bool, frames whose forces are known (the others may hold
            anything); ``None`` = all.
        returns: :class:`GaitOutput` with the parts of the host, and one more of ``"extra_part"``.

    Raises:
        ValueError: If an argument has none of the values named here, or the host has no neck or no
            map that fits.

    Example:
        >>> model = ForceGait(num_classes=3, host="gaitbase_tiny", fusion="gated").eval()
        >>> inputs = {"silhouettes": torch.rand(2, 9, 16, 12), "forces": torch.rand(2, 9, 24, 3)}
        >>> model(inputs, torch.tensor([9, 4])).embeddings.shape
        torch.Size([2, 4, 4])
    """

    architecture = "force_gait"
    modalities = ("silhouettes", "forces")

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 74,
        host: str | GaitModel = "gaitbase.casiab",
        host_args: Mapping[str, Any] | None = None,
        fusion: Literal["film", "gated", "extra_part", "cross_attention"] = "gated",
        at: Literal["features", "embeddings"] | None = None,
        skeleton: str = "smpl24",
        force_dim: int = 128,
        force_hidden: int = 64,
        force_unit: float = 0.05,
        num_heads: int = 4,
        zero_init: bool = True,
    ) -> None:
        if fusion not in _PLACES:
            raise ValueError(f"expected fusion among {', '.join(_PLACES)}, got {fusion!r}")
        at = _PLACES[fusion][0] if at is None else at  # pyright: ignore[reportAssignmentType]
        if at not in _PLACES[fusion]:
            raise ValueError(f"expected {fusion} at {' or '.join(_PLACES[fusion])}, got {at!r}")
        host = _built(host, host_args, num_classes)
        super().__init__(embedding=host.pretrained_cfg.embedding)
        _check_host(host, at)
        neck = _shallow(host.neck)
        self.fusion, self.at = fusion, at
        self.num_joints = find_body_segments(skeleton).num_joints
        self.modalities = (*host.modalities, "forces")
        self.num_parts, self.num_features = host.num_parts, host.num_features
        # In front: inputs are read in the type of the first layer, which stays float32 when the
        # maps get a narrower one.
        self.encoder = ForceEncoder(skeleton, force_dim, force_hidden, force_unit)
        channels = _map_channels(host) if at == "features" else neck.channels
        self.fuse: nn.Module
        if fusion == "film":
            self.fuse = ForceFiLM(channels, force_dim, zero_init)
        elif fusion == "gated":
            self.fuse = ForceGate(channels, force_dim, zero_init)
        elif fusion == "extra_part":
            self.fuse = ForceParts(channels, force_dim, zero_init)
            self.num_parts += 1
            neck = _longer(neck)
        else:
            self.fuse = ForceCrossAttention(channels, force_dim, num_heads, zero_init)
        self.host, self.neck = _beheaded(host), neck
        if neck.classifier is None or self.num_classes != num_classes:
            self.reset_classifier(num_classes)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """See :meth:`GaitModel.set_grad_checkpointing`: of the host."""
        super().set_grad_checkpointing(enable)
        self.host.set_grad_checkpointing(enable)

    def forward_features(
        self,
        silhouettes: Mapping[str, Tensor],
        lengths: Tensor | None = None,
        forces_valid: Tensor | None = None,
    ) -> tuple[Any, Any]:
        """Computes the host's maps, changed by the forces if the fusion is there, and the forces.

        Args:
            silhouettes: The inputs, as for the model's call.
            lengths: As for the model's call.
            forces_valid: As for the model's call.

        Returns:
            ``(maps, tokens [N, F, T], seen [N, T])`` and ``(lengths of the maps, lengths,
            lengths)``; ``None`` in place of tokens and seen without forces.
        """
        given, forces, checked = self._read(silhouettes, lengths, forces_valid)
        tokens = seen = None
        if forces is not None:
            tokens, seen = self.run(self.encoder, forces, checked, forces_valid)
        maps, counts = self.host.forward_features(given, lengths)
        if self.at == "features":
            if not isinstance(maps, Tensor) or (tokens is not None and _other(maps, tokens)):
                raise ValueError(
                    f"expected a host with one map and a frame of it per input frame for film at "
                    f"its features, got {type(self.host).__name__}; use "
                    'at="embeddings"'
                )
            maps = self.fuse(maps, tokens, seen)
        return (maps, tokens, seen), (counts, checked, checked)

    def forward_head(self, features: tuple[Any, Any, Any], lengths: Any = None) -> GaitOutput:
        """Pools and embeds as the host does, with the forces added if the fusion is there.

        Args:
            features: As from :meth:`forward_features`.
            lengths: The second of what it gives; ``None`` = all T.
        """
        maps, tokens, seen = features
        counts = lengths[0] if isinstance(lengths, tuple) else lengths
        parts = self.host.forward_head(maps, counts).embeddings
        if self.at == "embeddings":
            parts = self._fused(parts, tokens, seen)
        after_bn, logits = self.neck(parts)
        before = self.host.pretrained_cfg.embedding == "before_bn"
        return GaitOutput(embeddings=parts if before else after_bn, logits=logits)

    def forward(
        self,
        silhouettes: Mapping[str, Tensor],
        lengths: Tensor | None = None,
        forces_valid: Tensor | None = None,
    ) -> GaitOutput:
        """Embeds a batch of sequences; see the class for shapes and ranges."""
        features, counts = self.forward_features(silhouettes, lengths, forces_valid)
        return self.forward_head(features, counts)

    def _fused(self, parts: Tensor, tokens: Tensor | None, seen: Tensor | None) -> Tensor:
        if tokens is None or seen is None:
            return parts if self.fusion == "film" else self.fuse(parts, None)
        if self.fusion == "cross_attention":
            return self.fuse(parts, tokens, seen)
        vector, known = pool_forces(tokens, seen), seen.any(1)
        if self.fusion == "film":
            maps = parts.transpose(1, 2).unsqueeze(2)  # one frame, a pixel per part
            return self.fuse(maps, vector[..., None], known[:, None]).squeeze(2).transpose(1, 2)
        return self.fuse(parts, vector, known)

    def _read(
        self, inputs: Mapping[str, Tensor], lengths: Tensor | None, valid: Tensor | None
    ) -> tuple[Any, Tensor | None, Tensor | None]:
        """What the host reads, the forces ``[N, T, J, 3]`` or ``None``, checked lengths."""
        if not isinstance(inputs, Mapping):
            raise TypeError(
                f"expected a mapping with {', '.join(self.modalities)} for ForceGait, got "
                f"{type(inputs).__name__}"
            )
        given = {name: tensor for name, tensor in inputs.items() if name != "forces"}
        if set(given) != set(self.host.modalities):
            self._check_names(inputs)
        of_host = given if len(given) > 1 else next(iter(given.values()))
        if "forces" not in inputs:
            if valid is not None:
                raise ValueError("expected forces beside forces_valid, got none")
            return of_host, None, lengths
        forces = inputs["forces"]
        if valid is not None and isinstance(forces, Tensor) and forces.ndim == 4:
            seen = check_force_mask(valid, forces.shape[:2], forces.device)
            forces = forces.masked_fill(~seen[..., None, None], 0)
        dtype = self.encoder.weight.dtype
        read, checked = find_modality("forces").prepare(forces, lengths, dtype=dtype)
        if read.shape[3] != self.num_joints:
            raise ValueError(
                f"expected forces of {self.num_joints} joints, got {read.shape[3]}; build the "
                "model with another skeleton"
            )
        for name, tensor in given.items():
            axis = time_axis(find_modality(name), tensor.ndim - 1) if tensor.ndim > 2 else None
            if axis is not None and tensor.shape[axis + 1] != read.shape[2]:
                check_same_frames({name: tensor.shape[axis + 1], "forces": read.shape[2]})
        return of_host, read.permute(0, 2, 3, 1), checked


def with_forces(
    model: GaitModel,
    fusion: Literal["film", "gated", "extra_part", "cross_attention"] = "gated",
    at: Literal["features", "embeddings"] | None = None,
    **arguments: Any,
) -> ForceGait:
    """Gives a model a second input, joint forces; a reconstruction, see :class:`ForceGait`.

    Args:
        model: With a batch-norm neck. It is left as it is, but its weights are shared.
        fusion: As for :class:`ForceGait`.
        at: As for :class:`ForceGait`.
        **arguments: Others of :class:`ForceGait`.

    Raises:
        TypeError: If it is no model of this library.
        ValueError: As for :class:`ForceGait`.

    Example:
        >>> import gaitzoo
        >>> host = gaitzoo.create_model("gaitbase_tiny").eval()
        >>> model = with_forces(host, fusion="film").eval()
        >>> clips, forces = torch.rand(2, 9, 16, 12), torch.rand(2, 9, 24, 3)
        >>> found = model({"silhouettes": clips, "forces": forces})
        >>> torch.equal(found.embeddings, host(clips).embeddings)  # before training
        True
    """
    if not isinstance(model, GaitModel):
        raise TypeError(
            f"expected a gaitzoo model, got {type(model).__name__}; its layers work alone, "
            "gaitzoo.ForceGate"
        )
    built = ForceGait(host=model, fusion=fusion, at=at, num_classes=model.num_classes, **arguments)
    first = next(model.parameters())
    return built.to(first.device, first.dtype).train(model.training)


class _NoNeck(nn.Module):
    """Stands where a host's neck was: parts go through."""

    def forward(self, parts: Tensor) -> tuple[Tensor, None]:
        return parts, None


def _beheaded(host: GaitModel) -> GaitModel:
    """The host without its neck; the one that was given keeps it, and both share their weights."""
    other = _shallow(host)
    other.neck = _NoNeck()
    return other


def _shallow(module: Any) -> Any:
    """A module with the same modules inside, which may be exchanged without changing the other."""
    other = copy.copy(module)
    object.__setattr__(other, "_modules", dict(module._modules))
    return other


def _built(
    host: str | GaitModel, arguments: Mapping[str, Any] | None, num_classes: int
) -> GaitModel:
    """The host, built if it is a name."""
    if isinstance(host, str):
        cfg = model_info(host)
        given = {**cfg.model_args, **(arguments or {}), "num_classes": num_classes}
        built = find_architecture(cfg.architecture).build(**given)
        if cfg.modalities:
            built.modalities = cfg.modalities
        return built
    if not isinstance(host, GaitModel):
        raise TypeError(f"expected host as a name or a gaitzoo model, got {type(host).__name__}")
    if arguments is not None:
        raise ValueError("expected host_args for a host that is built by name, got a model")
    return host


def _check_host(host: GaitModel, at: str) -> None:
    neck = getattr(host, "neck", None)
    side = host.pretrained_cfg.embedding
    if not isinstance(neck, (PartBNNeck, SharedBNNeck)) or side not in ("before_bn", "after_bn"):
        raise ValueError(
            "expected a host with a PartBNNeck or SharedBNNeck as neck, got "
            f"{type(host).__name__}; use the fusion layers inside of it, gaitzoo.ForceGate"
        )
    if host.fused:
        raise ValueError("expected a plain model as host, got one from fuse_for_inference")
    if at == "features" and host.min_frames > 1:
        raise ValueError(
            f"expected a host that keeps the number of frames for film at its features, got "
            f'{type(host).__name__}, which repeats short clips; use at="embeddings"'
        )


def _map_channels(host: GaitModel) -> int:
    """Channels of the host's map: those that its part matrices read."""
    weight = getattr(getattr(host, "part_fc", None), "weight", None)
    if weight is None:
        raise ValueError(
            f"expected a host with part_fc for film at its features, got {type(host).__name__}; "
            'use at="embeddings"'
        )
    return weight.shape[1]


def _other(maps: Tensor, tokens: Tensor) -> bool:
    return maps.ndim < 3 or maps.shape[2] != tokens.shape[2]


def _longer(neck: PartBNNeck | SharedBNNeck) -> PartBNNeck:
    """A neck for one more part, behind those of the host, with the host's weights."""
    if not isinstance(neck, PartBNNeck):
        raise ValueError(
            "expected a host whose neck has statistics of its own for every part (PartBNNeck) for "
            f"extra_part, got {type(neck).__name__}; use another fusion"
        )
    parts, channels = neck.num_parts, neck.channels
    classes = 0 if neck.classifier is None else neck.classifier.weight.shape[2]
    longer = PartBNNeck(parts + 1, channels, classes, neck.order)
    with torch.no_grad():
        for name, tensor in longer.bn.state_dict().items():
            if tensor.ndim:
                table = tensor.view(parts + 1, channels)
                source = neck.bn.state_dict()[name]
                if neck.order == "channel":
                    table = tensor.view(channels, parts + 1).T
                    table[:parts] = source.view(channels, parts).T
                else:
                    table[:parts] = source.view(parts, channels)
        if longer.classifier is not None and neck.classifier is not None:
            longer.classifier.weight[:parts] = neck.classifier.weight
    return longer


def _cfg(**fields: Any) -> PretrainedCfg:
    return PretrainedCfg(
        paper=_PAPER,
        license="no weights",
        fidelity="reconstruction",
        unavailable=(
            "neither code nor weights of the forces' study have been published; train the model "
            "yourself, or give with_forces a host with weights"
        ),
        notes="The host is inferred from the authors' baseline.",
        **fields,
    )


register_model(
    "force_gait",
    ForceGait,
    {
        "casiab": _cfg(
            num_classes=74,
            model_args={"host": "gaitbase.casiab"},
            metrics={
                "rank1": 90.39,
                "protocol": "CASIA-B, the authors' abstract (89.52 without forces); this is a "
                "reconstruction",
            },
        ),
        "gait3d": _cfg(
            num_classes=3000,
            model_args={"host": "smplgait.gait3d"},
            modalities=("silhouettes", "smpl", "forces"),
            metrics={
                "rank1": 47.3,
                "protocol": "Gait3D, the authors' abstract (46.0 without forces); this is a "
                "reconstruction",
            },
        ),
    },
    tiny=PretrainedCfg(
        num_classes=5,
        model_args={
            "host": "gaitbase_tiny",
            "force_dim": 6,
            "force_hidden": 4,
            "zero_init": False,
        },
        input_size=(16, 12),
    ),
)
