"""DenoisingGait: gait feature fields of what a diffusion model sees (CVPR 2025).

Paper: https://arxiv.org/abs/2505.18582. Authors' code: https://github.com/ShiqiYu/OpenGait
(academic use only; nothing of it is contained here).

Differences from upstream:

- The last frame of every sequence is compared with itself; upstream packs a batch into one long
  sequence and compares it with the first frame of the next one.
- Padded frames are left out of the maximum, so padded batches give the numbers of single
  sequences.
- Texture is suppressed with one threshold for all radii (upstream's radius of 3 has a fixed 0.5,
  which is also the published threshold).
- Features of the diffusion model are an input; :class:`gaitzoo.DiffusionFeatureExtractor`
  computes them.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from gaitzoo.data.modalities import check_same_sizes
from gaitzoo.layers.branches import AttentionFusion
from gaitzoo.layers.feature_field import GaitFeatureField, TextureSuppression
from gaitzoo.layers.residual import ResidualBackbone, ResidualBlock2d, residual_layer
from gaitzoo.layers.sequence import to_frames, to_sequences
from gaitzoo.models.base import init_weights, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.conversion import StateDict, pairs_apart, rename_by_table
from gaitzoo.models.max_pooled import MaxPooled
from gaitzoo.models.opengait import opengait_cfg
from gaitzoo.models.registry import register_model
from gaitzoo.models.residual_keys import HEAD_KEYS, backbone_keys, layer_keys

__all__ = ["DenoisingGait", "convert_checkpoint"]


class DenoisingGait(MaxPooled):
    """DenoisingGait: a branch for each gait feature field, joined by attention.

    Source: https://arxiv.org/abs/2505.18582; what differs is listed at the top of this file.

    Batch-norm statistics see what is in the batch: train on clips of equal length (padding would
    be counted as frames). In eval mode padding never matters.

    Args:
        num_classes: Training identities, 0 = no classifier.
        static_radii: As for :class:`GaitFeatureField`.
        dynamic_radius: As for :class:`GaitFeatureField`.
        static_channels: As for :class:`GaitFeatureField`.
        dynamic_channels: As for :class:`GaitFeatureField`.
        channels: Widths of the four residual layers; the first three stand in both branches.
        hidden_channels: As for :class:`AttentionFusion`.
        part_channels: C of the embeddings.
        part_bins: Numbers of horizontal bands; each must divide a quarter of the frame's height.
        suppressed_share: ``share`` of :class:`TextureSuppression`, of static fields in training.
        suppression_threshold: ``threshold`` of :class:`TextureSuppression`, pixels.

    Shapes:
        inputs: ``{"diffusion_features": [N, 4, T, H, W], "silhouettes": [N, T, H, W]}`` of the
            same crops, published 96 x 48: any finite floats, see
            :class:`gaitzoo.DiffusionFeatureExtractor`; and masks in [0, 1] or uint8 0..255, of
            which all that is above 0 is the person.
        lengths: ``[N]`` int64, valid frames of both; ``None`` = all T.
        returns: :class:`GaitOutput` with ``embeddings [N, P, part_channels]``.

    Raises:
        ValueError: If an argument has none of the values named here.

    Example:
        >>> import gaitzoo
        >>> model = gaitzoo.create_model("denoisinggait_tiny").eval()
        >>> inputs = {"diffusion_features": torch.randn(2, 4, 5, 16, 8)}
        >>> inputs["silhouettes"] = torch.ones(2, 5, 16, 8)
        >>> model(inputs, lengths=torch.tensor([5, 1])).embeddings.shape
        torch.Size([2, 4, 4])
    """

    architecture = "denoisinggait"
    modalities = ("diffusion_features", "silhouettes")

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 100,
        static_radii: tuple[int, ...] = (1, 2, 3),
        dynamic_radius: int = 3,
        static_channels: tuple[int, int, int] = (64, 32, 16),
        dynamic_channels: tuple[int, int, int] = (16, 8, 4),
        channels: tuple[int, int, int, int] = (64, 128, 256, 512),
        hidden_channels: int = 16,
        part_channels: int = 256,
        part_bins: tuple[int, ...] = (24,),
        suppressed_share: float = 0.5,
        suppression_threshold: float = 0.5,
    ) -> None:
        super().__init__(embedding=self.side_of("fc"))
        self.embedding = "fc"
        self.field = GaitFeatureField(
            4, static_radii, dynamic_radius, static_channels, dynamic_channels
        )
        self.suppression = TextureSuppression(suppressed_share, suppression_threshold)
        widths, last = channels[:3], channels[3]
        self.static_branch, self.dynamic_branch = (
            ResidualBackbone("2d", (1, 1, 1), widths, in_channels)
            for in_channels in (self.field.static_channels, 2)
        )
        self.fusion = AttentionFusion(widths[-1], hidden_channels, kernel_size=1)
        self.layer4 = residual_layer(ResidualBlock2d, widths[-1], last, depth=1)
        self.build_head(last, part_channels, part_bins, num_classes)
        init_weights(self)

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """See :attr:`GaitModel.feature_modules`: both branches, their mixture, the last layer."""
        return (
            *self.static_branch.stage_names("static_branch."),
            *self.dynamic_branch.stage_names("dynamic_branch."),
            "fusion",
            "layer4.0",
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
        mask = inputs["silhouettes"][:, 0]
        static, dynamic = self.run(self.field, inputs["diffusion_features"], mask, lengths)
        of_static = self.static_branch(self.suppression(static, mask), lengths, self.run)
        of_dynamic = self.dynamic_branch(dynamic, lengths, self.run)
        frames = to_frames(self.run(self.fusion, of_static, of_dynamic))
        for block in self.layer4:
            frames = self.run(block, frames)
        return to_sequences(frames, static.shape[0]), lengths

    def temporal_reach(self) -> tuple[int, int]:
        """See :meth:`GaitModel.temporal_reach`: a frame sees the next one."""
        return 1, 1


_BLOCK = r"forward_block\.(.+)"
_LAST_SCORES = "Backbone.fusion.conv.forward_block.6.weight"
_KEYS = {
    rf"AppF\.q_encoder\.{_BLOCK}": r"field.dynamic_query.encoder.\1",
    rf"AppF\.k_encoder\.{_BLOCK}": r"field.dynamic_key.encoder.\1",
    **{
        rf"AF{number}\.{theirs}{i}\.{_BLOCK}": rf"field.{ours}.{radius}.{theirs}.\1"
        for radius, number in enumerate(("", "2", "3"))
        for i, ours in enumerate(("static_queries", "static_keys"))
        for theirs in ("encoder", "decoder")
    },
    **backbone_keys(r"Backbone\.pre_noise", "static_branch"),
    **backbone_keys(r"Backbone\.pre_attn", "dynamic_branch"),
    rf"Backbone\.fusion\.conv\.{_BLOCK}": r"fusion.scores.\1",
    **layer_keys(r"Backbone\.post_backbone\.forward_block\.layer4", "layer4"),
    **{rf"Backbone\.{theirs}": ours for theirs, ours in HEAD_KEYS.items()},
}


def convert_checkpoint(state_dict: StateDict) -> StateDict:
    """Renames the authors' parameters to ours.

    Args:
        state_dict: Parameters under the authors' names, without a ``module.`` prefix.

    Returns:
        The same tensors under this model's names, the scores of the two branches apart.

    Raises:
        UnknownKeysError: If a name is not DenoisingGait's.
    """
    given = dict(state_dict)
    if _LAST_SCORES in given:
        given[_LAST_SCORES] = pairs_apart(given[_LAST_SCORES])
    return rename_by_table(given, _KEYS, "DenoisingGait")


def _cfg(tag: str, **fields: object) -> PretrainedCfg:
    fields = {
        "modalities": DenoisingGait.modalities,
        "input_size": (96, 48),
        "crop": "crops of 768 x 384 colours; features and masks are an eighth of that",
        **fields,
    }
    return opengait_cfg(f"denoisinggait.{tag}", "https://arxiv.org/abs/2505.18582", **fields)


_CFGS = {
    "ccpg": _cfg(
        "ccpg",
        num_classes=100,
        training_data="CCPG, 100 subjects; features of Stable Diffusion v1.5",
        metrics={
            "rank1_CL": 84.0,
            "rank1_mean": 89.5,
            "protocol": "CCPG, gait protocol, full change of clothes (CL) and the mean; reported "
            "by others",
        },
        notes=(
            "Parity holds from the diffusion features on; how these are computed is inferred from "
            "notes on the paper."
        ),
    ),
    "sustech1k": _cfg("sustech1k", num_classes=250),
    "casiab": _cfg(
        "casiab",
        num_classes=250,
        model_args={"suppressed_share": 0.0},
        notes="The published recipe names 250 classes; CASIA-B has 74 training subjects.",
    ),
}
register_model(
    "denoisinggait",
    DenoisingGait,
    _CFGS,
    convert=convert_checkpoint,
    tiny=PretrainedCfg(
        num_classes=5,
        model_args={
            "static_radii": (1,),
            "dynamic_radius": 2,
            "static_channels": (4, 3, 4),
            "dynamic_channels": (4, 3, 4),
            "channels": (2, 3, 4, 5),
            "hidden_channels": 3,
            "part_channels": 4,
            "part_bins": (4,),
        },
        input_size=(16, 8),
    ),
)
