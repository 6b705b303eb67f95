"""SkeletonGait++: skeleton maps and silhouettes, joined by attention (AAAI 2024).

Paper: https://arxiv.org/abs/2311.13444. Authors' code: https://github.com/ShiqiYu/OpenGait
(academic use only; nothing of it is contained here).

Differences from upstream:

- Padded frames are zeroed before every convolution over time and left out of the maximum, so
  padded batches give the numbers of single sequences. Upstream joins the sequences of a batch
  into one and convolves across the joins.
- Maps and silhouettes come apart, by name; upstream stacks them as three channels.
- Any widths, and any size of frames that the part bins divide.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from gaitzoo.data.modalities import check_same_sizes
from gaitzoo.layers.branches import AttentionFusion, P3dLayers
from gaitzoo.layers.residual import ResidualBackbone
from gaitzoo.models.base import init_weights, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.conversion import StateDict, rename_by_table
from gaitzoo.models.max_pooled import MaxPooled
from gaitzoo.models.opengait import opengait_cfg
from gaitzoo.models.registry import register_model
from gaitzoo.models.residual_keys import HEAD_KEYS, layer_keys, stem_keys

__all__ = ["SkeletonGaitPP"]


class SkeletonGaitPP(MaxPooled):
    """SkeletonGait++: a branch per input, mixed pixel by pixel, then the layers of DeepGaitV2.

    Source: https://arxiv.org/abs/2311.13444, Sec. 3.3; what differs is listed at the top of this
    file.

    Batch-norm statistics see what is in the batch: train on clips of equal length (padding would
    be counted as frames). In eval mode padding never matters.

    Args:
        num_classes: Training identities, 0 = no classifier.
        layers: Blocks of each of the four layers; the first layer stands in both branches.
        channels: Widths of the four layers; embeddings have ``channels[2]`` channels.
        hidden_channels: As for :class:`AttentionFusion`.
        part_bins: Numbers of horizontal bands; each must divide a quarter of the frame's height.
        embedding: What is compared: ``"fc"``, the part vectors before batch norm, or
            ``"bnneck"``, after it, each of length one.

    Shapes:
        inputs: ``{"skeleton_maps": [N, 2, T, H, W], "silhouettes": [N, T, H, W]}`` in [0, 1] or
            uint8 0..255.
        lengths: ``[N]`` int64, valid frames of both; ``None`` = all T.
        returns: :class:`GaitOutput` with ``embeddings [N, P, channels[2]]``.

    Raises:
        ValueError: If an argument has none of the values named here.

    Example:
        >>> model = SkeletonGaitPP(num_classes=3, layers=(1, 1, 1, 1), channels=(4, 4, 8, 8)).eval()
        >>> inputs = {"skeleton_maps": torch.rand(2, 2, 5, 64, 44)}
        >>> inputs["silhouettes"] = torch.rand(2, 5, 64, 44)
        >>> model(inputs, lengths=torch.tensor([5, 1])).logits.shape
        torch.Size([2, 16, 3])
    """

    architecture = "skeletongaitpp"
    modalities = ("skeleton_maps", "silhouettes")

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 3000,
        layers: tuple[int, ...] = (1, 4, 4, 1),
        channels: tuple[int, ...] = (64, 128, 256, 512),
        hidden_channels: int = 4,
        part_bins: tuple[int, ...] = (16,),
        embedding: str = "fc",
    ) -> None:
        super().__init__(embedding=self.side_of(embedding))
        self.embedding = embedding
        self.silhouette_branch = ResidualBackbone("2d", layers[:1], channels[:1], 1)
        self.map_branch = ResidualBackbone("2d", layers[:1], channels[:1], 2)
        self.fusion = AttentionFusion(channels[0], hidden_channels)
        self.trunk = P3dLayers(channels[0], layers[1:], channels[1:], (2, 2, 1))
        self.build_head(channels[3], channels[2], part_bins, num_classes)
        init_weights(self)

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """See :attr:`GaitModel.feature_modules`: both branches, their mixture, every layer."""
        return (
            *self.silhouette_branch.stage_names("silhouette_branch."),
            *self.map_branch.stage_names("map_branch."),
            "fusion",
            *self.trunk.stage_names("trunk."),
        )

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
        check_same_sizes(inputs)
        of_silhouettes = self.silhouette_branch(inputs["silhouettes"], lengths, self.run)
        of_maps = self.map_branch(inputs["skeleton_maps"], lengths, self.run)
        x = self.run(self.fusion, of_silhouettes, of_maps)
        return self.trunk(x, lengths, self.run), lengths

    def temporal_reach(self) -> tuple[int, int]:
        """See :meth:`GaitModel.temporal_reach`."""
        return self.trunk.reach(), 1


_KEYS = {
    **stem_keys("sil_layer0", "silhouette_branch.stem"),
    **layer_keys("sil_layer1", "silhouette_branch.layers.0"),
    **stem_keys("map_layer0", "map_branch.stem"),
    **layer_keys("map_layer1", "map_branch.layers.0"),
    r"fusion\.conv\.forward_block\.(.+)": r"fusion.scores.\1",
    **layer_keys("layer2", "trunk.layers.0"),
    **layer_keys("layer3", "trunk.layers.1"),
    **layer_keys("layer4", "trunk.layers.2"),
    **HEAD_KEYS,
}


def convert_checkpoint(state_dict: StateDict) -> StateDict:
    """Renames the authors' parameters to ours.

    Args:
        state_dict: Parameters under the authors' names, without a ``module.`` prefix.

    Returns:
        The same tensors under this model's names.

    Raises:
        UnknownKeysError: If a name is not SkeletonGait++'s.
    """
    return rename_by_table(state_dict, _KEYS, "SkeletonGait++")


def _cfg(tag: str, **fields: object) -> PretrainedCfg:
    fields = {"modalities": SkeletonGaitPP.modalities, **fields}
    return opengait_cfg(f"skeletongaitpp.{tag}", "https://arxiv.org/abs/2311.13444", **fields)


_10_LAYERS = {"layers": (1, 1, 1, 1)}
_22_LAYERS = {"layers": (1, 4, 4, 1)}
_CFGS = {
    "gait3d": _cfg(
        "gait3d",
        num_classes=3000,
        model_args=_22_LAYERS,
        training_data="Gait3D, 3000 subjects",
        metrics={"rank1": 77.6, "protocol": "Gait3D probe list against the rest"},
    ),
    "grew": _cfg(
        "grew",
        num_classes=20000,
        model_args=_22_LAYERS,
        training_data="GREW, 20000 subjects",
        metrics={"rank1": 85.8, "protocol": "GREW test set, scored by its server"},
    ),
    "ccpg": _cfg(
        "ccpg",
        num_classes=100,
        model_args=_10_LAYERS,
        training_data="CCPG, 100 subjects",
        metrics={
            "rank1_CL": 90.1,
            "rank1_UP": 95.0,
            "rank1_DN": 92.9,
            "rank1_BG": 97.0,
            "protocol": "CCPG, per change of clothes (CL full, UP, DN) and bags (BG); whether by "
            "the gait or the re-identification protocol is not stated",
        },
    ),
    "sustech1k": _cfg(
        "sustech1k",
        num_classes=250,
        model_args=_10_LAYERS,
        training_data="SUSTech1K, 250 subjects",
        metrics={
            "rank1": 85.6,
            "rank5": 95.0,
            "rank1_NM": 89.1,
            "rank1_BG": 87.2,
            "rank1_CL": 55.3,
            "rank1_CR": 85.3,
            "rank1_UB": 87.3,
            "rank1_UF": 87.6,
            "rank1_OC": 91.3,
            "rank1_NT": 47.9,
            "protocol": "SUSTech1K, normal gallery, all probes and per condition",
        },
    ),
}
register_model(
    "skeletongaitpp",
    SkeletonGaitPP,
    _CFGS,
    convert=convert_checkpoint,
    tiny=PretrainedCfg(
        num_classes=5,
        model_args={"channels": (2, 3, 4, 5), "part_bins": (4,), "layers": (1, 2, 1, 1)},
        input_size=(16, 12),
    ),
)
