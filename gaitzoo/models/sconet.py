"""ScoNet: gait patterns as biomarkers of scoliosis (MICCAI 2024).

Paper: https://arxiv.org/abs/2407.05726. Authors' code: https://github.com/ShiqiYu/OpenGait
(academic use only; nothing of it is contained here).

Differences from upstream:

- Embeddings are the part vectors, logits the class scores; upstream returns the class scores as its
  embeddings.
- Padded frames are left out of the maximum, so padded batches give the numbers of single
  sequences.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gaitzoo.layers.residual import ResidualBackbone
from gaitzoo.models.base import init_weights, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.max_pooled import MaxPooled
from gaitzoo.models.opengait import opengait_cfg
from gaitzoo.models.registry import register_model
from gaitzoo.models.residual_keys import convert_residual

__all__ = ["CLASS_NAMES", "ScoNet"]

_PAPER = "https://arxiv.org/abs/2407.05726"
CLASS_NAMES = ("negative", "neutral", "positive")


class ScoNet(MaxPooled):
    """ScoNet: the small residual network of GaitBase with three classes of posture.

    Source: https://arxiv.org/abs/2407.05726, the multi-task form (ScoNet-MT): trained on who walks
    (embeddings) and on the class (logits). The order of frames never matters. Batch-norm statistics
    see what is in the batch: train on clips of equal length.

    Args:
        num_classes: Classes; 0 = no classifier.
        in_channels: Channels of the input.
        layers: Residual blocks of each of the four layers.
        channels: Widths of the four layers; embeddings have ``channels[2]`` channels.
        part_bins: Numbers of horizontal bands; each must divide a quarter of the frame's height.

    Shapes:
        silhouettes: ``[N, T, H, W]`` in [0, 1] or uint8 0..255.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: :class:`GaitOutput` with ``embeddings [N, P, channels[2]]`` and ``logits``
            ``[N, P, 3]``, cosines.

    Raises:
        ValueError: If an argument has none of the values named here.

    Example:
        >>> model = ScoNet(channels=(4, 4, 8, 8)).eval()
        >>> model.predict(torch.rand(2, 5, 64, 44)).shape
        torch.Size([2])
    """

    architecture = "sconet"

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 3,
        in_channels: int = 1,
        layers: tuple[int, ...] = (1, 1, 1, 1),
        channels: tuple[int, ...] = (64, 128, 256, 512),
        part_bins: tuple[int, ...] = (16,),
    ) -> None:
        super().__init__(embedding=self.side_of("fc"))
        self.in_channels, self.embedding = in_channels, "fc"
        self.backbone = ResidualBackbone("2d", layers, channels, in_channels)
        self.build_head(channels[3], channels[2], part_bins, num_classes)
        init_weights(self)

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """See :attr:`GaitModel.feature_modules`: the stem and the last block of every layer."""
        return self.backbone.stage_names("backbone.")

    def forward_features(
        self, silhouettes: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Computes the maps of all frames.

        Args:
            silhouettes: As for the model's call.
            lengths: As for the model's call.

        Returns:
            ``features`` ``[N, channels[3], T, H / 4, W / 4]`` and ``lengths``. What stands past
            the end of a sequence holds no meaning.
        """
        x, lengths = self.prepare(silhouettes, lengths)
        return self.backbone(x, lengths, self.run), lengths

    def temporal_reach(self) -> tuple[int, int]:
        """See :meth:`GaitModel.temporal_reach`: frames never see each other."""
        return self.backbone.reach(), 1

    @torch.no_grad()
    def predict(self, silhouettes: Any, lengths: Tensor | None = None) -> Tensor:
        """The class of every sequence: the largest mean score over parts.

        Args:
            silhouettes: As for the model's call.
            lengths: As for the model's call.

        Returns:
            ``[N]`` int64, numbers of ``CLASS_NAMES``.

        Raises:
            ValueError: If the model has no classifier.
        """
        logits = self(silhouettes, lengths).logits
        if logits is None:
            raise ValueError("expected a model with classes to predict, got num_classes=0")
        return logits.mean(dim=1).argmax(dim=1)


_CFGS = {
    "scoliosis1k": opengait_cfg(
        "sconet.scoliosis1k",
        _PAPER,
        num_classes=3,
        training_data="Scoliosis1K",
        metrics={
            "accuracy": 82.0,
            "specificity": 76.5,
            "protocol": "Scoliosis1K, three classes; reported by others",
        },
        notes="Classes: negative, neutral, positive. Research only: no medical device.",
    ),
}
register_model(
    "sconet",
    ScoNet,
    _CFGS,
    convert=convert_residual,
    tiny=PretrainedCfg(
        num_classes=3,
        model_args={"channels": (2, 3, 4, 5), "part_bins": (4,), "layers": (1, 1, 1, 1)},
        input_size=(16, 12),
    ),
)
