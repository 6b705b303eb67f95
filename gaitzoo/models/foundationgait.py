"""FoundationGait: one silhouette network, trained without labels, for many tasks.

Paper: https://arxiv.org/abs/2512.00691 (ECCV 2026 by the authors' news). Authors' code:
https://github.com/ShiqiYu/OpenGait (academic use only; nothing of it is contained here).
Pretraining stands in ``pretraining.py``, tasks other than identity in ``task_head.py``.

Differences from upstream:

- Padded frames are zeroed before every convolution over time and left out of the maximum, so
  padded batches give the numbers of single sequences.
- What an embedding does not come through (the predictor of a fine-tuned model) is kept, because
  files hold it, but is not trained.
- Gradient checkpointing is an option, and batch norms then count a batch once; upstream always
  checkpoints crops and counts them twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from gaitzoo.layers.heads import PartBNNeck, PartLinear
from gaitzoo.layers.part_crops import encode_crops
from gaitzoo.layers.part_mlp import PartMLP
from gaitzoo.layers.pooling import HorizontalPyramidPooling, TemporalMax
from gaitzoo.layers.residual import ResidualBackbone
from gaitzoo.models.base import GaitModel, init_weights, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.conversion import StateDict, rename_by_table
from gaitzoo.models.opengait import opengait_cfg
from gaitzoo.models.outputs import GaitOutput
from gaitzoo.models.part_head import PartClasses
from gaitzoo.models.registry import register_model
from gaitzoo.models.residual_keys import HEAD_KEYS, backbone_keys

__all__ = ["FoundationGait", "FoundationVectors", "convert_checkpoint", "network_keys"]

_PAPER = "https://arxiv.org/abs/2512.00691"
_EMBEDDINGS = ("predictor", "projector", "pooled", "fc")


@dataclass(frozen=True)
class FoundationVectors:
    """The part vectors of FoundationGait, none of them normalised.

    Attributes:
        pooled: Of the network alone, ``h``, ``[N, P, channels[3]]``.
        projected: ``h`` after the projector, ``z``, of the same shape.
        predicted: ``z`` after the predictor, ``p``, of the same shape.
    """

    pooled: Tensor
    projected: Tensor
    predicted: Tensor


class FoundationGait(GaitModel):
    """FoundationGait: DeepGaitV2's network, deep, with a projector and a predictor for every band.

    Source: https://arxiv.org/abs/2512.00691 and the authors' configurations; what differs is
    listed at the top of this file. Trained without labels by :class:`FoundationGaitPretrainer`, it
    embeds people whom it never saw (zero-shot); with ``embedding="fc"`` it has the head that the
    authors fine-tune on labelled people.

    Batch-norm statistics see what is in the batch: train on clips of equal length. In eval mode
    padding never matters.

    Args:
        num_classes: Training identities, 0 = no classifier. With ``embedding="fc"`` cosines behind
            a BN neck, else of the embeddings themselves.
        in_channels: Channels of the input.
        layers: Blocks of each of the four layers; ``(1, 4, 8, 4)`` is the paper's 0.03 B,
            ``(1, 4, 32, 16)`` its 0.13 B.
        channels: Widths of the four layers.
        part_bins: Numbers of horizontal bands; each must divide a quarter of the frame's height.
        embedding: What is compared: ``"predictor"``, as published for zero-shot, ``"projector"``
            or ``"pooled"``, each part of length one; or ``"fc"``, a matrix per part behind the
            projector.
        part_channels: C of the embeddings with ``"fc"``; else they have ``channels[3]``.

    Shapes:
        silhouettes: ``[N, T, H, W]`` in [0, 1] or uint8 0..255, 64x44 as published.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: :class:`GaitOutput` with ``embeddings [N, P, C]``.

    Raises:
        ValueError: If an argument has none of the values named here.

    Example:
        >>> model = FoundationGait(layers=(1, 1, 1, 1), channels=(4, 4, 8, 8)).eval()
        >>> embeddings = model(torch.rand(2, 5, 64, 44)).embeddings
        >>> embeddings.shape, round(embeddings[0, 0].norm().item(), 4)
        (torch.Size([2, 31, 8]), 1.0)
    """

    architecture = "foundationgait"
    finetune_rates: ClassVar[MappingProxyType[str, float]] = MappingProxyType(
        {
            "backbone.stem": 0.0,
            "backbone.layers.0": 0.0,
            "backbone.layers.1": 0.0,
            "backbone.layers.2": 1e-3,
            "backbone.layers.3": 5e-3,
            "projector": 1e-2,
            "": 1e-1,
        }
    )

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 0,
        in_channels: int = 1,
        layers: tuple[int, ...] = (1, 4, 8, 4),
        channels: tuple[int, ...] = (64, 128, 256, 512),
        part_bins: tuple[int, ...] = (16, 8, 4, 2, 1),
        embedding: str = "predictor",
        part_channels: int = 256,
    ) -> None:
        if embedding not in _EMBEDDINGS:
            raise ValueError(
                f"expected embedding among {', '.join(_EMBEDDINGS)}, got {embedding!r}"
            )
        super().__init__(embedding="before_bn" if embedding == "fc" else "output")
        self.in_channels, self.embedding = in_channels, embedding
        self.backbone = ResidualBackbone("p3d", layers, channels, in_channels)
        self.temporal_pool = TemporalMax()
        self.part_pool = HorizontalPyramidPooling(part_bins)
        self.num_parts, width = self.part_pool.num_parts, channels[-1]
        self.projector = PartMLP(self.num_parts, width)
        self.predictor = PartMLP(self.num_parts, width, last_norm=False)
        self.num_features = part_channels if embedding == "fc" else width
        self.part_fc: PartLinear | None = None
        self.neck: PartBNNeck | PartClasses
        if embedding == "fc":
            self.part_fc = PartLinear(self.num_parts, width, part_channels)
            self.neck = PartBNNeck(self.num_parts, part_channels, num_classes, order="channel")
        else:
            self.neck = PartClasses(self.num_parts, width, num_classes, normalized=True)
        init_weights(self)
        self.predictor.requires_grad_(embedding == "predictor")
        self.projector.requires_grad_(embedding != "pooled")

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """See :attr:`GaitModel.feature_modules`: the stem and the last block of every layer."""
        return self.backbone.stage_names("backbone.")

    def temporal_reach(self) -> tuple[int, int]:
        """See :meth:`GaitModel.temporal_reach`."""
        return self.backbone.reach(), 1

    def forward_features(
        self,
        silhouettes: Tensor,
        lengths: Tensor | None = None,
        crops: tuple[int, ...] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Computes the map before temporal pooling; time keeps its length.

        Args:
            silhouettes: As for the model's call.
            lengths: As for the model's call.
            crops: Bands that the network sees alone, for training; see :class:`PartCropEncoder`.

        Returns:
            ``features`` ``[N, channels[3], T, H / 4, W / 4]`` and ``lengths``. What stands past
            the end of a sequence holds no meaning.

        Raises:
            ValueError: If batch or height do not fit the crops.
        """
        x, lengths = self.prepare(silhouettes, lengths)
        if crops is None:
            return self.backbone(x, lengths, self.run), lengths
        return encode_crops(partial(self.backbone, run=self.run), x, crops, lengths), lengths

    def part_vectors(self, features: Tensor, lengths: Tensor | None = None) -> FoundationVectors:
        """Pools a map over time and bands, projects and predicts.

        Args:
            features: As from :meth:`forward_features`.
            lengths: ``[N]``, valid frames.
        """
        pooled = self.part_pool(self.temporal_pool(features, lengths))
        projected = self.projector(pooled)
        return FoundationVectors(pooled, projected, self.predictor(projected))

    def forward_head(self, features: Tensor, lengths: Tensor | None = None) -> GaitOutput:
        """Pools over time and bands and embeds every part."""
        parts = self.part_pool(self.temporal_pool(features, lengths))
        if self.embedding != "pooled":
            parts = self.projector(parts)
        if self.embedding == "predictor":
            parts = self.predictor(parts)
        parts = F.normalize(parts, dim=2)
        if self.part_fc is None:
            assert isinstance(self.neck, PartClasses)
            return GaitOutput(embeddings=parts, logits=self.neck(parts))
        parts = self.part_fc(parts)
        _, logits = self.neck(parts)
        return GaitOutput(embeddings=parts, logits=logits)

    @torch.no_grad()
    def start_from(self, pretrained: FoundationGait) -> FoundationGait:
        """Takes over network, projector and predictor, for fine-tuning with a head of its own.

        Args:
            pretrained: Of the same sizes; left as it is.

        Returns:
            The model itself.

        Raises:
            TypeError: If ``pretrained`` is no FoundationGait.
            ValueError: If it has other sizes; then nothing is taken over.

        Example:
            >>> import gaitzoo
            >>> pretrained = gaitzoo.create_model("foundationgait_tiny", embedding="predictor")
            >>> model = gaitzoo.create_model("foundationgait_tiny", num_classes=7)
            >>> model.start_from(pretrained).num_classes
            7
        """
        if not isinstance(pretrained, FoundationGait):
            raise TypeError(
                f"expected a FoundationGait to start from, got {type(pretrained).__name__}"
            )
        shared = ("backbone.", "projector.", "predictor.")
        own = {k: v for k, v in self.state_dict().items() if k.startswith(shared)}
        found = {k: v for k, v in pretrained.state_dict().items() if k.startswith(shared)}
        if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in found.items()}:
            raise ValueError(
                "expected a model of the same sizes to start from, got "
                f"{pretrained.model_args} for {self.model_args}; build this one with its layers, "
                "channels, part_bins and in_channels"
            )
        for key, value in own.items():
            value.copy_(found[key])
        return self


def network_keys(theirs: str, ours: str) -> dict[str, str]:
    """Network, projector and predictor, as a table for :func:`rename_by_table`.

    Args:
        theirs: What the authors call the whole.
        ours: Put before our names.
    """
    table = {pattern: ours + name for pattern, name in backbone_keys(theirs, "backbone").items()}
    for head in ("projector", "predictor"):
        for number, name in (("0", "fc1"), ("3", "fc2")):
            table[rf"{theirs}\.{head}\.{number}\.fc_bin"] = f"{ours}{head}.{name}.weight"
        for number, name in (("1", "bn1"), ("4", "bn2")):
            table[rf"{theirs}\.{head}\.{number}\.bn1d\.(\w+)"] = rf"{ours}{head}.{name}.\1"
    return table


def convert_checkpoint(state_dict: StateDict) -> StateDict:
    """Renames the authors' parameters to ours: of the teacher, and of a fine-tuned head.

    Args:
        state_dict: Parameters under the authors' names, without a ``module.`` prefix. A file of
            the pretraining holds a student beside the teacher, who is left out here.

    Returns:
        The same tensors under this model's names.

    Raises:
        UnknownKeysError: If a name is not FoundationGait's.
    """
    kept = {k: v for k, v in state_dict.items() if not k.startswith("student_backbone.")}
    table = network_keys("teacher_backbone", "") | HEAD_KEYS
    return rename_by_table(kept, table, "FoundationGait")


_BASE = {"layers": (1, 4, 8, 4)}
_TRAINING_DATA = (
    "12 public sets without labels: Gait3D, CCPG, CASIA-B, CASIA-E, CCGR, D-Gait, GREW, OU-MVLP, "
    "RAGAR, Scoliosis1K, SUSTech1K, GaitLU-1M"
)
_CFGS = {
    "base": opengait_cfg(
        "foundationgait.base",
        _PAPER,
        embedding="output",
        model_args=_BASE,
        training_data=_TRAINING_DATA,
        notes="Zero-shot, 0.03 B parameters in the network. The authors announced weights.",
    ),
    "large": opengait_cfg(
        "foundationgait.large",
        _PAPER,
        embedding="output",
        model_args={"layers": (1, 4, 32, 16)},
        training_data=_TRAINING_DATA,
        metrics={
            "rank1": 48.0,
            "rank1_OUMVLP": 64.5,
            "protocol": (
                "zero-shot; Gait3D probe list against the rest, and OU-MVLP with identical views "
                "excluded; that the numbers are of this size is inferred"
            ),
        },
        notes="Zero-shot, 0.13 B parameters in the network. The authors announced weights.",
    ),
    "gait3d": opengait_cfg(
        "foundationgait.gait3d",
        _PAPER,
        num_classes=3000,
        model_args={**_BASE, "embedding": "fc"},
        training_data=f"{_TRAINING_DATA}; then Gait3D, 3000 subjects",
        notes="Fine-tuned, 0.03 B parameters in the network.",
    ),
}
register_model(
    "foundationgait",
    FoundationGait,
    _CFGS,
    convert=convert_checkpoint,
    tiny=PretrainedCfg(
        num_classes=5,
        model_args={
            "channels": (3, 4, 5, 6),
            "part_bins": (4, 2),
            "layers": (1, 1, 2, 1),
            "embedding": "fc",
            "part_channels": 4,
        },
        input_size=(16, 12),
    ),
)
