"""BigGait: learning gait representation you want by large vision models (CVPR 2024).

Paper: https://arxiv.org/abs/2402.19122. Authors' code: https://github.com/ShiqiYu/OpenGait
(academic use only; nothing of it is contained here).

Differences from upstream:

- DINOv2 is the one of transformers; the table of positions is resized as in its first publication.
- Where the person is, is decided frame by frame (inferred), by the rounded and widened mask alone:
  the soft values of its rim take part in the authors' losses only. Those of the mask are not
  contained here, and neither is the blacking out of one stream in training; those of the streams
  stand in :mod:`gaitzoo.layers.stream_losses`.
- Encoder and mask are frozen, as in the authors' later recipe; ``model.mask_branch`` has what
  training it needs.
- Padded frames are not computed, and take no part in batch statistics.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gaitzoo.data.colours import IMAGENET_MEAN, IMAGENET_STD
from gaitzoo.models.base import record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.colour_model import layer_norm_maps, resized
from gaitzoo.models.conversion import StateDict, pairs_apart, rename_by_table
from gaitzoo.models.dinov2 import convert_dinov2
from gaitzoo.models.opengait import opengait_cfg
from gaitzoo.models.person_streams import StreamModel
from gaitzoo.models.registry import register_model
from gaitzoo.models.residual_keys import HEAD_KEYS, backbone_keys

__all__ = ["BigGait", "convert_checkpoint"]

_PAPER = "https://arxiv.org/abs/2402.19122"


class BigGait(StreamModel):
    """BigGait: silhouette-like and appearance-like maps that DINOv2's features turn into.

    Source: https://arxiv.org/abs/2402.19122; what differs is listed at the top of this file. The
    order of frames never matters. DINOv2 is frozen; without a file of weights it is random, see
    ``encoder_pretrained``.

    Args:
        num_classes: Training identities; 0 = no classifier.
        encoder: DINOv2, ``"facebook/dinov2-small"`` or another name of
            ``gaitzoo.models.dinov2.KNOWN_ENCODERS``, or fields of transformers' ``Dinov2Config``;
            ``None`` = the model reads features as :meth:`encode` gives them.
        encoder_pretrained: Load DINOv2's weights by its name from the Hub (network, once): to train
            the rest. The authors' files hold them too.
        chunk_frames: Most frames that are computed at a time in eval mode.
        image_size: Height and width of the images that DINOv2 sees, pixels.
        encoder_layers: The four blocks of DINOv2 that are read, counted from 0.
        hidden: Channels between the matrices of the denoising branch; 0 = one matrix.
        stream_channels: Channels of the two maps.
        channels: Widths of the residual layers.
        part_channels: C of the embeddings.
        part_bins: Numbers of horizontal bands; each must divide the rows of the last map.

    Shapes:
        rgb: ``[N, 3, T, H, W]`` with H = 2 W, ImageNet-normalised floats, or uint8 0..255, which
            the model normalises. With ``encoder=None``: ``features`` ``[N, F, T, 32, 16]``.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: :class:`GaitOutput` with ``embeddings [N, P, part_channels]`` and ``logits``,
            cosines.

    Raises:
        ValueError: If an argument has none of the values named here.
        OSError: If DINOv2's weights are asked for and cannot be loaded.

    Example:
        >>> import gaitzoo
        >>> model = gaitzoo.create_model("biggait_tiny").eval()
        >>> model(torch.rand(2, 3, 5, 16, 8)).embeddings.shape
        torch.Size([2, 4, 4])
    """

    architecture = "biggait"
    modalities = ("rgb",)

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 100,
        encoder: str | Mapping[str, Any] | None = "facebook/dinov2-small",
        encoder_pretrained: bool = False,
        chunk_frames: int = 96,
        image_size: tuple[int, int] = (448, 224),
        encoder_layers: tuple[int, ...] = (2, 5, 8, 11),
        hidden: int = 768,
        stream_channels: int = 16,
        channels: tuple[int, int, int, int] = (64, 128, 256, 512),
        part_channels: int = 256,
        part_bins: tuple[int, ...] = (16,),
    ) -> None:
        super().__init__(embedding=self.side_of("fc"))
        self.embedding = "fc"
        joined = self.build_eyes(
            encoder, encoder_pretrained, chunk_frames, image_size, encoder_layers
        )
        self.build_streams(self.width, joined, stream_channels, hidden)
        self.build_gait_network(stream_channels, channels)
        self.build_head(channels[3], part_channels, part_bins, num_classes)
        self.freeze(until="denoising")

    def frame_maps(self, features: Tensor) -> Tensor:
        """See :meth:`ColourModel.frame_maps`: ``[B, channels[3], H / 4, W / 4]`` of the map."""
        blocks, normed = self.taken_apart(features)
        seen = self.foreground(resized(normed, self.map_size))
        maps = resized(layer_norm_maps(blocks), self.map_size)
        streams = self.streams(maps, seen)
        stems = (self.part_stem, self.appearance_stem)
        # As sequences of one frame.
        first, second = (
            stem(x.unsqueeze(2), None, self.run) for stem, x in zip(stems, streams, strict=True)
        )
        x = self.run(self.fusion, first, second).squeeze(2)
        for block in self.blocks:
            x = self.run(block, x)
        return x


_NORM = r"(running_mean|running_var|num_batches_tracked)"
_KEYS = {
    rf"Mask_Branch\.bn_s\.{_NORM}": r"mask_branch.branch.norm.\1",
    r"Mask_Branch\.down_sampling\.(\w+)": r"mask_branch.branch.linear.\1",
    r"Mask_Branch\.up_sampling\.(\w+)": r"mask_branch.back.\1",
    rf"Denoising_Branch\.bn_s\.{_NORM}": r"denoising.norm.\1",
    r"Denoising_Branch\.down_sampling\.0\.(\w+)": r"denoising.linear.\1",
    rf"Denoising_Branch\.down_sampling\.1\.{_NORM}": r"denoising.rest.0.\1",
    r"Denoising_Branch\.down_sampling\.3\.(\w+)": r"denoising.rest.2.\1",
    rf"Appearance_Branch\.bn_s\.{_NORM}": r"appearance.norm.\1",
    rf"Appearance_Branch\.bn_t\.{_NORM}": r"appearance_norm.\1",
    r"Appearance_Branch\.down_sampling\.(\w+)": r"appearance.linear.\1",
    **backbone_keys(r"gait_net\.pre_part", "part_stem"),
    **backbone_keys(r"gait_net\.pre_rgb", "appearance_stem"),
    r"gait_net\.fusion\.conv\.forward_block\.(\d)\.(\w+)": r"fusion.scores.\1.\2",
    **{
        rf"gait_net\.post_backbone\.forward_block\.layer{layer}\.0\.{piece}\.(\w+)": (
            rf"blocks.{layer - 2}.{place}.\1"
        )
        for layer in (2, 3, 4)
        for piece, place in (
            ("conv1", "conv1"),
            ("bn1", "bn1"),
            ("conv2", "conv2"),
            ("bn2", "bn2"),
            (r"downsample\.0", "shortcut.0"),
            (r"downsample\.1", "shortcut.1"),
        )
    },
    **{rf"gait_net\.{theirs}": ours for theirs, ours in HEAD_KEYS.items()},
}


def convert_checkpoint(state_dict: StateDict) -> StateDict:
    """Renames the authors' parameters to ours, DINOv2's too, under any of its names.

    Statistics of norms that nothing reads (``bn_t`` of branches that end in a softmax) are left
    out.

    Args:
        state_dict: Parameters under the authors' names, without a ``module.`` prefix.

    Raises:
        UnknownKeysError: If a name is not BigGait's.
    """
    prefix = "backbone."
    eyes = {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}
    rest = {
        key: value
        for key, value in state_dict.items()
        if not key.startswith((prefix, "Mask_Branch.bn_t.", "Denoising_Branch.bn_t."))
    }
    found = {f"encoder.vit.{key}": value for key, value in convert_dinov2(eyes).items()}
    last = "gait_net.fusion.conv.forward_block.6.weight"
    if last in rest:
        rest[last] = pairs_apart(rest[last])
    return {**rename_by_table(rest, _KEYS, "BigGait"), **found}


_CFGS = {
    "ccpg": opengait_cfg(
        "biggait.ccpg",
        _PAPER,
        num_classes=100,
        modalities=("rgb",),
        input_size=(256, 128),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        crop="resized to the height in true proportions, padded or cut to the width",
        training_data="CCPG, 100 subjects; DINOv2 on LVD-142M",
        metrics={
            "rank1_CL": 82.6,
            "rank1_UP": 85.9,
            "rank1_DN": 87.1,
            "rank1_BG": 93.1,
            "protocol": "CCPG, change of clothes (CL), ups, pants, bags; reported by others",
        },
        notes="The file holds DINOv2 (ViT-S/14) too.",
    ),
}
register_model(
    "biggait",
    BigGait,
    _CFGS,
    convert=convert_checkpoint,
    tiny=PretrainedCfg(
        num_classes=5,
        modalities=("rgb",),
        input_size=(16, 8),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        model_args={
            "encoder": {
                "hidden_size": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 16,
                "patch_size": 4,
            },
            "image_size": (32, 16),
            "encoder_layers": (0, 1),
            "hidden": 6,
            "stream_channels": 4,
            "channels": (2, 3, 4, 5),
            "part_channels": 4,
            "part_bins": (4,),
        },
    ),
)
