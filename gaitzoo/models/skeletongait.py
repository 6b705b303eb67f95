"""SkeletonGait: gait recognition from skeleton maps alone (AAAI 2024).

Paper: https://arxiv.org/abs/2311.13444. Authors' code: https://github.com/ShiqiYu/OpenGait
(academic use only; nothing of it is contained here).

The network is that of DeepGaitV2 (https://arxiv.org/abs/2303.03301) with pseudo-3-D blocks on two
channels: limbs and joints, drawn from poses by :class:`gaitzoo.PosesToMaps`.

Differences from upstream:

- Padded frames are zeroed before every convolution over time and left out of the maximum, so
  padded batches give the numbers of single sequences. Upstream joins the sequences of a batch
  into one and convolves across the joins.
- Any size of frames that the part bins divide.
"""

from __future__ import annotations

from torch import Tensor

from gaitzoo.layers.residual import ResidualBackbone
from gaitzoo.models.base import init_weights, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.max_pooled import MaxPooled
from gaitzoo.models.opengait import opengait_cfg
from gaitzoo.models.registry import register_model
from gaitzoo.models.residual_keys import convert_residual

__all__ = ["SkeletonGait"]


class SkeletonGait(MaxPooled):
    """SkeletonGait: a residual network on skeleton maps, maximum over time, bands, a BN neck.

    Source: https://arxiv.org/abs/2311.13444, Sec. 3.2; what differs is listed at the top of this
    file. Depth by the authors' count is ``2 + 2 * sum(layers)``.

    Batch-norm statistics see what is in the batch: train on clips of equal length (padding would
    be counted as frames). In eval mode padding never matters.

    Args:
        num_classes: Training identities, 0 = no classifier.
        layers: Blocks of each of the four layers.
        channels: Widths of the four layers; embeddings have ``channels[2]`` channels.
        part_bins: Numbers of horizontal bands; each must divide a quarter of the maps' height.
        embedding: What is compared: ``"fc"``, the part vectors before batch norm, or
            ``"bnneck"``, after it, each of length one.

    Shapes:
        skeleton_maps: ``[N, 2, T, H, W]`` (limbs, joints) in [0, 1] or uint8 0..255.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: :class:`GaitOutput` with ``embeddings [N, P, channels[2]]``.

    Raises:
        ValueError: If an argument has none of the values named here.

    Example:
        >>> model = SkeletonGait(num_classes=0, layers=(1, 1, 1, 1), channels=(4, 4, 8, 8)).eval()
        >>> model(torch.rand(2, 2, 5, 64, 44), lengths=torch.tensor([5, 1])).embeddings.shape
        torch.Size([2, 16, 8])
    """

    architecture = "skeletongait"
    modalities = ("skeleton_maps",)
    in_channels = 2

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 3000,
        layers: tuple[int, ...] = (1, 4, 4, 1),
        channels: tuple[int, ...] = (64, 128, 256, 512),
        part_bins: tuple[int, ...] = (16,),
        embedding: str = "fc",
    ) -> None:
        super().__init__(embedding=self.side_of(embedding))
        self.embedding = embedding
        self.backbone = ResidualBackbone("p3d", layers, channels, self.in_channels)
        self.build_head(channels[3], channels[2], part_bins, num_classes)
        init_weights(self)

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """See :attr:`GaitModel.feature_modules`: the stem and the last block of every layer."""
        return self.backbone.stage_names("backbone.")

    def forward_features(
        self, silhouettes: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Computes the map before temporal pooling; time keeps its length.

        Args:
            silhouettes: Skeleton maps, as for the model's call.
            lengths: As for the model's call.

        Returns:
            ``features`` ``[N, channels[3], T, H / 4, W / 4]`` (both rounded up) and ``lengths``.
            What stands past the end of a sequence holds no meaning.
        """
        x, lengths = self.prepare(silhouettes, lengths)
        return self.backbone(x, lengths, self.run), lengths

    def temporal_reach(self) -> tuple[int, int]:
        """See :meth:`GaitModel.temporal_reach`."""
        return self.backbone.reach(), 1


def _cfg(tag: str, **fields: object) -> PretrainedCfg:
    fields = {"modalities": SkeletonGait.modalities, **fields}
    return opengait_cfg(f"skeletongait.{tag}", "https://arxiv.org/abs/2311.13444", **fields)


_10_LAYERS = {"layers": (1, 1, 1, 1)}
_22_LAYERS = {"layers": (1, 4, 4, 1)}
_CFGS = {
    "gait3d": _cfg(
        "gait3d",
        num_classes=3000,
        model_args=_22_LAYERS,
        training_data="Gait3D, 3000 subjects",
        metrics={"rank1": 38.1, "protocol": "Gait3D probe list against the rest"},
    ),
    "grew": _cfg(
        "grew",
        num_classes=20000,
        model_args=_22_LAYERS,
        training_data="GREW, 20000 subjects",
        metrics={"rank1": 77.4, "protocol": "GREW test set, scored by its server"},
    ),
    "oumvlp": _cfg(
        "oumvlp",
        num_classes=5153,
        model_args=_10_LAYERS,
        training_data="OU-MVLP, 5153 subjects",
        metrics={"rank1": 67.4, "protocol": "OU-MVLP, identical views excluded"},
    ),
    "ccpg": _cfg(
        "ccpg",
        num_classes=100,
        model_args={**_10_LAYERS, "embedding": "bnneck"},
        embedding="after_bn",
        training_data="CCPG, 100 subjects",
        metrics={
            "rank1_CL": 52.4,
            "rank1_UP": 65.4,
            "rank1_DN": 72.8,
            "rank1_BG": 80.9,
            "protocol": "CCPG, per change of clothes (CL full, UP, DN) and bags (BG)",
        },
        notes=(
            "Compared after the BN neck, as the authors test this file: before it, its rates are "
            "reported to be about 10 %."
        ),
    ),
    "sustech1k": _cfg(
        "sustech1k",
        num_classes=250,
        model_args=_10_LAYERS,
        training_data="SUSTech1K, 250 subjects",
        metrics={
            "rank1": 51.5,
            "rank1_NM": 54.2,
            "rank1_BG": 51.7,
            "rank1_CL": 21.3,
            "rank1_CR": 51.6,
            "rank1_UB": 44.5,
            "rank1_UF": 53.4,
            "rank1_OC": 67.1,
            "rank1_NT": 44.2,
            "protocol": "SUSTech1K, normal gallery, all probes and per condition",
        },
        notes="Trained on 10 frames in random order, though its convolutions see their order.",
    ),
}
register_model(
    "skeletongait",
    SkeletonGait,
    _CFGS,
    convert=convert_residual,
    tiny=PretrainedCfg(
        num_classes=5,
        model_args={"channels": (2, 3, 4, 5), "part_bins": (4,), "layers": (1, 2, 1, 1)},
        input_size=(16, 12),
    ),
)
