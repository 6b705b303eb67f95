"""Parkinsonian gait from colour and depth video (December 2025; a reconstruction).

Paper: https://arxiv.org/abs/2512.04425 ("Explainable Parkinson's Disease Gait Recognition Using
Multimodal RGB-D Fusion and Large Language Models"). A reconstruction from the abstract: the
authors' repository holds a licence and no code, nothing of it is contained here, there are no
weights, and none of their numbers is to be expected. From the abstract: two encoders of the
YOLOv11 kind, one per modality; multi-scale local-global extraction; cross-spatial neck fusion;
a frozen language model that explains (:class:`gaitzoo.GaitReporter`). [inferred]: every equation,
all sizes, the scale of the depth, the neck, everything over time, the head and the losses. A
research aid, no diagnostic device.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gaitzoo.data.modalities import check_same_frames, check_same_sizes, find_modality
from gaitzoo.layers.checks import check_num_classes, check_size, check_sizes, check_values, shape_of
from gaitzoo.layers.cross_spatial import MLGE, CrossSpatialFusion, PyramidNeck
from gaitzoo.layers.frame_evidence import FrameEvidence
from gaitzoo.layers.sequence import masked_mean, to_frames, to_sequences
from gaitzoo.models.aux_output import AuxOutput
from gaitzoo.models.base import GaitModel, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.registry import register_model
from gaitzoo.models.timm_pyramid import CSP_SIZES, pyramid_channels, pyramid_encoder

__all__ = ["RGBDGaitNet", "parkinson_rgbd"]

_PAPER = "https://arxiv.org/abs/2512.04425"
_LEVELS = (3, 4, 5)


class RGBDGaitNet(GaitModel):
    """Classes of gait from colour and depth frames, with the places and frames that spoke for them.

    A research aid, no diagnostic device: a class of this network is no finding, and no weights come
    with it. Source: https://arxiv.org/abs/2512.04425, abstract; a reconstruction, what is inferred
    is said at the top of this file.

    Batch-norm statistics see what is in the batch: train on clips of equal length (padding would
    be counted as frames). In eval mode padding never matters.

    Args:
        num_classes: Diagnoses or degrees of severity, 0 = no classifier.
        rgb_encoder: ``"csp_n"``, ``"csp_s"`` or ``"csp_l"`` (:class:`CSPPyramid` of the width 0.25,
            0.5 or 1), a name of timm (:class:`TimmPyramid`), or a module that gives three maps, at
            1/8, 1/16 and 1/32.
        depth_encoder: The same for depth; ``None`` = as for colours, which a module cannot be. The
            two share no weights.
        encoder_args: Other arguments of the encoders that are built by name.
        depth_channels: 1, or 3 = depth is repeated for an encoder of colours.
        neck_channels: Of the three maps behind the fusion.
        dim: C of the embeddings.
        kernels: See :class:`MLGE`, and so for the next two.
        grid: Rows and columns of its tokens.
        num_heads: Heads of its attention, which divide the channels of every map.
        dilations: See :class:`FrameEvidence`.
        zero_init: Whether :class:`MLGE` changes nothing before training.
        aux_heads: A classifier on each modality alone, so that each stays useful by itself.

    Shapes:
        inputs: ``{"rgb": [N, 3, T, H, W], "depth": [N, 1, T, H, W]}``, aligned, or one of them
            alone: floats, normalised as the encoder wants them; floats in [0, 1], metres over the
            largest distance, 0 = not measured.
        lengths: ``[N]`` int64, valid frames of both; ``None`` = all T.
        mask: ``[N, 2]`` bool, colours and depth that a sequence has: what stands in the others,
            even NaN, never matters. ``None`` = all that is given.
        returns: :class:`AuxOutput` with ``embeddings [N, 1, dim]``; ``aux`` has
            ``"frame_attention" [N, T]`` (adds up to one), ``"places_3"``, ``"places_4"`` and
            ``"places_5" [N, 2, T, H / 8, W / 8]`` and so on (see :class:`CrossSpatialFusion`), and
            with ``aux_heads`` ``"logits_rgb"`` and ``"logits_depth" [N, K]``, zeros of a modality
            that is missing.

    Raises:
        TypeError: If inputs are no mapping of tensors, or ``mask`` holds no booleans.
        ValueError: If an argument has none of the values named here, or nothing is given.

    Example:
        >>> model = RGBDGaitNet(num_classes=3, encoder_args={"width": 0.0625}).eval()
        >>> clips = {"rgb": torch.rand(2, 3, 4, 64, 32), "depth": torch.rand(2, 1, 4, 64, 32)}
        >>> output = model(clips, lengths=torch.tensor([4, 2]))
        >>> output.logits.shape, output.aux["places_3"].shape
        (torch.Size([2, 1, 3]), torch.Size([2, 2, 4, 8, 4]))
        >>> model({"depth": clips["depth"]}).embeddings.shape
        torch.Size([2, 1, 256])
    """

    architecture = "parkinson_rgbd"
    modalities = ("rgb", "depth")
    classifier_key = "head.classifier"

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 2,
        rgb_encoder: str | nn.Module = "csp_n",
        depth_encoder: str | nn.Module | None = None,
        encoder_args: Mapping[str, Any] | None = None,
        depth_channels: int = 1,
        neck_channels: tuple[int, int, int] = (128, 256, 256),
        dim: int = 256,
        kernels: tuple[int, ...] = (3, 5, 7),
        grid: int = 4,
        num_heads: int = 4,
        dilations: tuple[int, ...] = (1, 2),
        zero_init: bool = True,
        aux_heads: bool = False,
    ) -> None:
        super().__init__()
        check_size(dim=dim)
        if depth_channels not in (1, 3):
            raise ValueError(f"expected depth_channels 1 or 3, got {depth_channels!r}")
        if depth_encoder is None:
            if isinstance(rgb_encoder, nn.Module):
                raise ValueError(
                    "expected a depth_encoder beside a ready rgb_encoder, got None; pass another "
                    "module, or use gaitzoo.parkinson_rgbd, which copies"
                )
            depth_encoder = rgb_encoder
        if depth_encoder is rgb_encoder and isinstance(rgb_encoder, nn.Module):
            raise ValueError("expected two encoders, got one module twice; pass a copy")
        self.depth_channels = depth_channels
        self.encoders = nn.ModuleDict(
            {
                "rgb": pyramid_encoder(rgb_encoder, 3, encoder_args),
                "depth": pyramid_encoder(depth_encoder, depth_channels, encoder_args),
            }
        )
        channels = pyramid_channels(self.encoders["rgb"], 3)
        of_depth = pyramid_channels(self.encoders["depth"], depth_channels)
        if channels != of_depth:
            raise ValueError(
                f"expected encoders with maps of the same channels, got {channels} and {of_depth}"
            )
        self.extract = nn.ModuleDict(
            {
                f"{name}_{level}": MLGE(n, kernels, grid, num_heads, zero_init)
                for name in self.modalities
                for level, n in zip(_LEVELS, channels, strict=True)
            }
        )
        self.fusion = nn.ModuleList(CrossSpatialFusion(n) for n in channels)
        self.neck = PyramidNeck(channels, check_sizes("neck_channels", neck_channels))
        self.evidence = _Evidence(sum(self.neck.channels), dim, dilations)
        self.head = _Head(dim, sum(channels) if aux_heads else 0, num_classes)
        self.num_parts, self.num_features = 1, dim

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """See :attr:`GaitModel.feature_modules`: what the blocks of the neck give."""
        return ("neck.down_middle", "neck.down_fine", "neck.up_middle", "neck.up_coarse")

    def forward_features(
        self,
        silhouettes: Mapping[str, Tensor],
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Any, Any]:
        """Computes the maps behind the neck, the places, and vectors of each modality alone.

        Args:
            silhouettes: The inputs, as for the model's call.
            lengths: As for the model's call.
            mask: As for the model's call.

        Returns:
            Three maps ``[N, C, T, H', W']``, the places of the three levels ``[N, 2, T, H', W']``,
            and with ``aux_heads`` a vector per frame of colours and of depth,
            ``[N, C, T, 1, 1]``; and the lengths of each.
        """
        inputs, lengths, seen = self._read(silhouettes, lengths, mask)
        first = next(iter(inputs.values()))
        count, frames = first.shape[0], first.shape[2]
        per_frame = None if seen is None else seen.repeat_interleave(frames, dim=0)
        levels: dict[str, list[Tensor]] = {}
        for name, x in inputs.items():
            if name == "depth":
                x = x.expand(-1, self.depth_channels, -1, -1, -1)
            maps = self.run(self.encoders[name], to_frames(x))
            levels[name] = [
                self.run(self.extract[f"{name}_{n}"], y) for n, y in zip(_LEVELS, maps, strict=True)
            ]
        fused, places = [], []
        for level, fusion in enumerate(self.fusion):
            both = [levels[name][level] if name in levels else None for name in self.modalities]
            joined, where = self.run(fusion, both, per_frame)
            fused.append(joined)
            places.append(to_sequences(where, count))
        maps = tuple(to_sequences(x, count) for x in self.run(self.neck, fused))
        features = [to_sequences(x, count) for x in self.run(self.neck, fused)] + places
        if self.head.alone is not None:
            for index, name in enumerate(self.modalities):
                features.append(self._alone(levels.get(name), first, seen, index))
        return tuple(features), (lengths,) * len(features)

    def _alone(
        self, maps: list[Tensor] | None, like: Tensor, seen: Tensor | None, index: int
    ) -> Tensor:
        """Means of a modality's maps, ``[N, C, T, 1, 1]``; zeros where it is missing."""
        if maps is None:
            return like.new_zeros(like.shape[0], self.head.aux_dim, like.shape[2], 1, 1)
        means = torch.cat([x.mean((2, 3), keepdim=True) for x in maps], dim=1)
        vectors = to_sequences(means, like.shape[0])
        return vectors if seen is None else vectors * seen[:, index, None, None, None, None]

    def forward_head(self, features: tuple[Tensor, ...], lengths: Any = None) -> AuxOutput:
        """Weighs the frames, embeds the clip and reads the classes.

        Args:
            features: As from :meth:`forward_features`.
            lengths: The second of what it gives, or ``[N]``; ``None`` = all T.
        """
        lengths = lengths[0] if isinstance(lengths, tuple) else lengths
        count = len(_LEVELS)
        maps, places, alone = features[:count], features[count : 2 * count], features[2 * count :]
        embedding, attention = self.evidence(maps, lengths)
        logits, of_each = self.head(embedding[:, None], alone, lengths)
        aux = {"frame_attention": attention}
        aux.update({f"places_{n}": x for n, x in zip(_LEVELS, places, strict=True)})
        aux.update({f"logits_{n}": x for n, x in zip(self.modalities, of_each, strict=False)})
        return AuxOutput(embedding[:, None], logits=logits, aux=aux)

    def forward(
        self,
        silhouettes: Mapping[str, Tensor],
        lengths: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> AuxOutput:
        """Embeds a batch of sequences and reads their classes; see the class."""
        features, lengths = self.forward_features(silhouettes, lengths, mask)
        return self.forward_head(features, lengths)

    def _read(
        self, inputs: Mapping[str, Tensor], lengths: Tensor | None, mask: Tensor | None
    ) -> tuple[dict[str, Tensor], Tensor | None, Tensor | None]:
        """Checked inputs, lengths and mask; zeros where a sequence lacks a modality."""
        if not isinstance(inputs, Mapping):
            raise TypeError(
                "expected a mapping with rgb, depth or both for RGBDGaitNet, got "
                f"{type(inputs).__name__}"
            )
        if not inputs or set(inputs) - set(self.modalities):
            raise ValueError(
                "expected rgb, depth or both for RGBDGaitNet, got "
                f"{', '.join(map(str, inputs)) or 'nothing'}"
            )
        dtype = next(p.dtype for p in self.parameters() if p.is_floating_point())
        read, checked = {}, lengths
        for index, name in enumerate(self.modalities):
            if name not in inputs:
                continue
            x = inputs[name]
            if mask is not None and isinstance(x, Tensor) and x.ndim == 5:
                _check_mask(mask, x.shape[0])
                x = x.masked_fill(~mask.to(x.device)[:, index, None, None, None, None], 0)
            read[name], checked = find_modality(name).prepare(x, lengths, dtype=dtype)
        if "depth" in read:
            check_values(read["depth"], 0, 1, "depth")
        check_same_sizes(read)
        (sequences, _, frames), *others = [x.shape[:3] for x in read.values()]
        # Compared one by one, as in GaitModel.prepare.
        if any(shape[0] != sequences or shape[2] != frames for shape in others):
            for axis in (0, 2):
                check_same_frames({name: x.shape[axis] for name, x in read.items()})
        seen = None if mask is None else mask.to(next(iter(read.values())).device)
        return read, checked, seen


class _Evidence(nn.Module):
    """Means of three maps per frame, a matrix, and :class:`FrameEvidence`."""

    keeps_float32 = True

    def __init__(self, in_channels: int, dim: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, dim)
        self.pool = FrameEvidence(dim, dilations)

    def forward(self, maps: Sequence[Tensor], lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        x = torch.cat([y.to(self.linear.weight.dtype).mean((3, 4)) for y in maps], dim=1)
        return self.pool(self.linear(x.transpose(1, 2)).transpose(1, 2), lengths)


class _Head(nn.Module):
    """Classes of the embedding, and if asked for of each modality alone."""

    keeps_float32 = True
    classifier: nn.Linear | None
    alone: nn.ModuleList | None

    def __init__(self, dim: int, aux_dim: int, num_classes: int) -> None:
        super().__init__()
        self.dim, self.aux_dim = dim, aux_dim
        self.reset_classifier(num_classes, None)

    def reset_classifier(self, num_classes: int, like: Tensor | None = None) -> None:
        check_num_classes(num_classes)
        like = next(self.parameters(), like)
        self.classifier = self.alone = None
        if num_classes:
            self.classifier = nn.Linear(self.dim, num_classes)
            if self.aux_dim:
                self.alone = nn.ModuleList(nn.Linear(self.aux_dim, num_classes) for _ in range(2))
        if like is not None:
            self.to(like)

    def forward(
        self, embedding: Tensor, alone: Sequence[Tensor], lengths: Tensor | None
    ) -> tuple[Tensor | None, list[Tensor]]:
        if self.classifier is None:
            return None, []
        logits = self.classifier(embedding)
        if self.alone is None:
            return logits, []
        found = []
        for linear, x in zip(self.alone, alone, strict=True):
            x = masked_mean(x.to(logits.dtype), lengths).flatten(1)
            # Nothing was seen: not even the bias is to speak.
            found.append(linear(x).masked_fill(~x.any(1, keepdim=True), 0))
        return logits, found


def parkinson_rgbd(
    num_classes: int = 2, encoder: str | nn.Module = "csp_n", **arguments: Any
) -> RGBDGaitNet:
    """A :class:`RGBDGaitNet` with two encoders of one kind; a reconstruction, no diagnostic device.

    Args:
        num_classes: As there.
        encoder: As its ``rgb_encoder``. A module becomes the encoder of colours, and a copy that
            of depth, with the same weights to start from; depth is repeated to three channels.
        **arguments: Others of :class:`RGBDGaitNet`.

    Example:
        >>> from gaitzoo import CSPPyramid
        >>> parkinson_rgbd(3, CSPPyramid(width=0.0625)).depth_channels
        3
    """
    if isinstance(encoder, nn.Module):
        arguments = {"depth_encoder": copy.deepcopy(encoder), "depth_channels": 3, **arguments}
    return RGBDGaitNet(num_classes=num_classes, rgb_encoder=encoder, **arguments)


def _check_mask(mask: Tensor, count: int) -> None:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"expected mask as a bool tensor [N, 2], rgb and depth, got {got}")
    if mask.shape != (count, 2):
        raise ValueError(f"expected mask [{count}, 2], rgb and depth, got {shape_of(mask)}")


def _cfg(encoder: str) -> PretrainedCfg:
    return PretrainedCfg(
        num_classes=2,
        modalities=RGBDGaitNet.modalities,
        model_args={"rgb_encoder": encoder},
        input_size=(224, 224),
        paper=_PAPER,
        fidelity="reconstruction",
        license="no weights",
        training_data="none; the paper's clinical recordings are not public",
        unavailable=(
            "neither code nor weights have been published, and clinical recordings are not public; "
            "train the model yourself, with no person on both sides of a split"
        ),
        notes="A research aid, no diagnostic device.",
    )


register_model(
    "parkinson_rgbd",
    RGBDGaitNet,
    {size.removeprefix("csp_"): _cfg(size) for size in CSP_SIZES},
    tiny=PretrainedCfg(
        num_classes=5,
        modalities=RGBDGaitNet.modalities,
        model_args={
            "encoder_args": {"width": 1 / 128, "depth": 0.5},
            "neck_channels": (4, 4, 4),
            "dim": 6,
            "grid": 2,
            "num_heads": 1,
            # All parameters then get gradients from the first step.
            "zero_init": False,
        },
        # The last map then has two rows, between which attention can tell.
        input_size=(64, 32),
    ),
)
