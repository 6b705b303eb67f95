"""DepthGait: depth beside silhouettes, fused across levels (ACM MM 2025; a reconstruction).

Paper: https://arxiv.org/abs/2508.03397. A reconstruction from the abstract: no code was found,
nothing of it is contained here, and no number of the authors' is to be expected. From the abstract:
depth of single pictures is a second modality beside silhouettes, and both are fused at several
scales and across levels. [inferred]: that the encoders are those of DeepGaitV2, where they meet,
every equation of the fusion, the preparation of the depth (:func:`gaitzoo.normalize_depth`), and
all sizes. Not contained: losses of the branches by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gaitzoo.data.modalities import check_same_sizes
from gaitzoo.layers.branches import P3dLayers
from gaitzoo.layers.checks import check_values
from gaitzoo.layers.conv import Conv2d
from gaitzoo.layers.cross_level import CrossLevelFusion
from gaitzoo.layers.residual import FrameWise, ResidualBackbone
from gaitzoo.models.base import init_weights, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.max_pooled import MaxPooled
from gaitzoo.models.registry import register_model

__all__ = ["DepthGait"]

_PAPER = "https://arxiv.org/abs/2508.03397"


class DepthGait(MaxPooled):
    """DepthGait, a reconstruction: a network on silhouettes and one on depth, fused at all levels.

    Source: https://arxiv.org/abs/2508.03397, abstract; what is inferred is said at the top of this
    file. Each network has three layers of DeepGaitV2; :class:`CrossLevelFusion` joins them, and the
    fourth layer reads its deepest map.

    Batch-norm statistics see what is in the batch: train on clips of equal length (padding would
    be counted as frames). In eval mode padding never matters.

    Args:
        num_classes: Training identities, 0 = no classifier.
        layers: Blocks of each of the four layers; the first three stand in both networks.
        channels: Widths of the four layers; embeddings have ``channels[2]`` channels.
        fusion: ``"mcf"``, across levels; ``"add"``, the sum of the third maps, or ``"cat"``, a
            matrix on both.
        direction: See :class:`CrossLevelFusion`, and so for the next three.
        squeeze: Of the gates.
        dilations: Of the contexts, pixels.
        feedback_gain: What the networks see of the fused maps at first.
        part_bins: Numbers of horizontal bands; each must divide a quarter of the frame's height.
        embedding: What is compared: ``"fc"``, the part vectors before batch norm, or
            ``"bnneck"``, after it, each of length one.

    Shapes:
        inputs: ``{"silhouettes": [N, T, H, W], "depth": [N, 1, T, H, W]}``: floats in [0, 1] or
            uint8 0..255; floats in [0, 1] as :func:`gaitzoo.normalize_depth` gives them. Without
            depth, ``{"silhouettes": ...}``, it counts as 0 everywhere.
        lengths: ``[N]`` int64, valid frames of both; ``None`` = all T.
        returns: :class:`GaitOutput` with ``embeddings [N, P, channels[2]]``.

    Raises:
        ValueError: If an argument has none of the values named here.

    Example:
        >>> model = DepthGait(num_classes=3, layers=(1, 1, 1, 1), channels=(4, 4, 8, 8)).eval()
        >>> inputs = {"silhouettes": torch.rand(2, 5, 64, 44)}
        >>> inputs["depth"] = torch.rand(2, 1, 5, 64, 44)
        >>> model(inputs, lengths=torch.tensor([5, 1])).logits.shape
        torch.Size([2, 16, 3])
    """

    architecture = "depthgait"
    modalities = ("silhouettes", "depth")

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 250,
        layers: tuple[int, ...] = (1, 1, 1, 1),
        channels: tuple[int, ...] = (64, 128, 256, 512),
        fusion: str = "mcf",
        direction: str = "bottom_up",
        squeeze: int = 16,
        dilations: tuple[int, ...] = (1, 2, 3),
        feedback_gain: float = 0.0,
        part_bins: tuple[int, ...] = (16,),
        embedding: str = "fc",
    ) -> None:
        super().__init__(embedding=self.side_of(embedding))
        self.embedding = embedding
        if fusion not in ("mcf", "add", "cat"):
            raise ValueError(f'expected fusion "mcf", "add" or "cat", got {fusion!r}')
        self.silhouette_branch, self.depth_branch = (
            ResidualBackbone("p3d", layers[:3], channels[:3]) for _ in range(2)
        )
        self.fusion = fusion
        self.levels = self.joined = None
        if fusion == "mcf":
            self.levels = CrossLevelFusion(
                tuple(channels[:3]), direction, squeeze, dilations, gain=feedback_gain
            )
        elif fusion == "cat":
            self.joined = FrameWise(Conv2d(2 * channels[2], channels[2], 1, bias=False))
        self.trunk = P3dLayers(channels[2], layers[3:], channels[3:], (1,))
        self.build_head(channels[3], channels[2], part_bins, num_classes)
        init_weights(self)

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """See :attr:`GaitModel.feature_modules`: of both networks, and after them."""
        return (
            *self.silhouette_branch.stage_names("silhouette_branch."),
            *self.depth_branch.stage_names("depth_branch."),
            *self.trunk.stage_names("trunk."),
        )

    def prepare(self, inputs: Any, lengths: Tensor | None = None) -> tuple[Any, Tensor | None]:
        """As for every model; depth may be left out, and is checked to be within [0, 1]."""
        alone = isinstance(inputs, Mapping) and set(inputs) == {"silhouettes"}
        if alone and isinstance(inputs["silhouettes"], Tensor):
            x = inputs["silhouettes"]
            depth = torch.zeros(
                x[:, None].shape, dtype=next(self.parameters()).dtype, device=x.device
            )
            inputs = {**inputs, "depth": depth}
        prepared, lengths = super().prepare(inputs, lengths)
        check_values(prepared["depth"], 0, 1, "depth")
        check_same_sizes(prepared)
        return prepared, lengths

    def forward_features(
        self, silhouettes: Mapping[str, Tensor], lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Computes the map before temporal pooling; time keeps its length.

        Args:
            silhouettes: Both inputs, as for the model's call.
            lengths: As for the model's call.

        Returns:
            ``features`` ``[N, channels[3], T, H / 4, W / 4]`` (both rounded up) and ``lengths``.
            What stands past the end of a sequence holds no meaning.
        """
        inputs, lengths = self.prepare(silhouettes, lengths)
        branches = self.silhouette_branch, self.depth_branch
        one, other = (
            branch.run_stem(inputs[name], self.run)
            for branch, name in zip(branches, self.modalities, strict=True)
        )
        fused: list[Tensor] = []
        count = len(branches[0].layers)
        for index in range(count):
            one, other = (
                branch.run_layer(index, x, lengths, self.run)
                for branch, x in zip(branches, (one, other), strict=True)
            )
            if self.levels is None:
                continue
            before = fused[-1] if fused else None
            fused.append(self.levels.level(index, one, other, before, self.run))
            if index < count - 1:
                to_one, to_other = self.levels.feedback(index, fused[-1])
                one, other = one + to_one, other + to_other
        if self.levels is not None:
            x = self.levels.join(fused, self.run)[-1]
        elif self.joined is not None:
            x = self.run(self.joined, torch.cat([one, other], dim=1))
        else:
            x = one + other
        return self.trunk(x, lengths, self.run), lengths

    def temporal_reach(self) -> tuple[int, int]:
        """See :meth:`GaitModel.temporal_reach`."""
        return self.silhouette_branch.reach() + self.trunk.reach(), 1


def _cfg(layers: tuple[int, ...], **fields: Any) -> PretrainedCfg:
    return PretrainedCfg(
        num_classes=250,
        modalities=DepthGait.modalities,
        model_args={"layers": layers},
        paper=_PAPER,
        fidelity="reconstruction",
        license="no weights",
        unavailable=(
            "neither code nor weights have been published; train the model yourself, on depth that "
            "gaitzoo.MonocularDepth guesses"
        ),
        **fields,
    )


_CFGS = {
    "sustech1k": _cfg(
        (1, 1, 1, 1),
        metrics={
            "rank1": 87.6,
            "rank1_NM": 93.5,
            "rank1_BG": 88.0,
            "rank1_CL": 56.8,
            "rank1_CR": 87.4,
            "rank1_UB": 90.0,
            "rank1_UF": 88.5,
            "rank1_OC": 95.2,
            "rank1_NT": 38.4,
            "protocol": "SUSTech1K, of the authors' network, not of this reconstruction; quoted by "
            "EventGait (CVPR 2026), Table 1",
        },
    ),
    "sustech1k_22": _cfg((1, 4, 4, 1), notes="Deeper, as networks for data in the wild are."),
}
register_model(
    "depthgait",
    DepthGait,
    _CFGS,
    tiny=PretrainedCfg(
        num_classes=5,
        modalities=DepthGait.modalities,
        model_args={
            "channels": (2, 3, 4, 5),
            "part_bins": (4,),
            "direction": "bidirectional",
            # All parameters then get gradients from the first step.
            "feedback_gain": 0.5,
            "squeeze": 1,
        },
        input_size=(16, 12),
    ),
)
