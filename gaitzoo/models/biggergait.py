"""BiggerGait: unlocking gait recognition with layer-wise representations (NeurIPS 2025).

Paper: https://arxiv.org/abs/2505.18132. Authors' code: https://github.com/ShiqiYu/OpenGait
(academic use only; nothing of it is contained here).

Differences from upstream:

- The networks of all groups share one head with a part for every network and band; in training the
  batch norms of a network see all of its groups at once, upstream one after the other.
- Encoder and mask are frozen.
- Padded frames are not computed, and take no part in batch statistics.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from gaitzoo.data.colours import IMAGENET_MEAN, IMAGENET_STD
from gaitzoo.layers.checks import check_size
from gaitzoo.layers.heads import PartBNNeck, PartLinear
from gaitzoo.layers.pooling import HorizontalPyramidPooling, TemporalMax
from gaitzoo.layers.residual import ResidualBackbone
from gaitzoo.models.base import init_weights, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.colour_model import (
    ColourModel,
    MaskBranch,
    TokenBranch,
    layer_norm_maps,
    resized,
)
from gaitzoo.models.conversion import StateDict, rename_by_table
from gaitzoo.models.dinov2 import convert_dinov2
from gaitzoo.models.opengait import opengait_cfg
from gaitzoo.models.outputs import GaitOutput
from gaitzoo.models.registry import register_model
from gaitzoo.models.residual_keys import HEAD_KEYS

__all__ = ["BiggerGait", "convert_checkpoint"]

_PAPER = "https://arxiv.org/abs/2505.18132"
_STRIDES = (1, 2, 1, 1)


class BiggerGait(ColourModel):
    """BiggerGait: every layer of DINOv2 has something to say, to a gait network of its own.

    Source: https://arxiv.org/abs/2505.18132; what differs is listed at the top of this file. The
    order of frames never matters. DINOv2 is frozen; without a file of weights it is random, see
    ``encoder_pretrained``.

    Args:
        num_classes: Training identities; 0 = no classifier.
        encoder: As for :class:`BigGait`.
        encoder_pretrained: As for :class:`BigGait`.
        chunk_frames: Most frames that are computed at a time in eval mode.
        image_size: Height and width of the images that DINOv2 sees, pixels.
        group_layers: Blocks of DINOv2 that make a group; must divide their number.
        num_heads: Gait networks; groups are dealt to them in order, as many to each.
        hidden: Channels between the matrices of a group.
        stream_channels: Channels of a group's map.
        channels: Widths of the residual layers.
        part_channels: C of the embeddings.
        part_bins: Numbers of horizontal bands; each must divide the rows of the last map.

    Shapes:
        rgb: ``[N, 3, T, H, W]`` with H = 2 W, ImageNet-normalised floats, or uint8 0..255, which
            the model normalises. With ``encoder=None``: ``features`` ``[N, F, T, 32, 16]``.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: :class:`GaitOutput` with ``embeddings [N, P, part_channels]``, all bands of the
            first group, then of the next, and ``logits``, cosines.

    Raises:
        ValueError: If an argument has none of the values named here.
        OSError: If DINOv2's weights are asked for and cannot be loaded.

    Example:
        >>> import gaitzoo
        >>> model = gaitzoo.create_model("biggergait_tiny").eval()
        >>> model(torch.rand(2, 3, 5, 16, 8)).embeddings.shape
        torch.Size([2, 16, 4])
    """

    architecture = "biggergait"
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
        group_layers: int = 1,
        num_heads: int = 12,
        hidden: int = 192,
        stream_channels: int = 16,
        channels: tuple[int, ...] = (64, 128, 256, 512),
        part_channels: int = 256,
        part_bins: tuple[int, ...] = (32,),
    ) -> None:
        super().__init__(embedding=self.side_of("fc"))
        self.embedding = "fc"
        width, depth = self.build_encoder(encoder, encoder_pretrained, chunk_frames, image_size)
        check_size(group_layers=group_layers, num_heads=num_heads)
        if depth % group_layers or (depth // group_layers) % num_heads:
            raise ValueError(
                f"expected group_layers that divides {depth} blocks and num_heads that divides the "
                f"number of groups, got {group_layers} and {num_heads}"
            )
        self.width, self.num_groups, self.num_heads = width, depth // group_layers, num_heads
        self.depth = depth
        if self.encoder is None:
            self.in_channels = self.num_joined
        self.mask_branch = MaskBranch(width)
        self.branches = nn.ModuleList(
            TokenBranch(group_layers * width, stream_channels, hidden)
            for _ in range(self.num_groups)
        )
        self.branch_norms = nn.ModuleList(
            nn.BatchNorm1d(stream_channels, affine=False) for _ in range(self.num_groups)
        )
        self.networks = nn.ModuleList(
            ResidualBackbone("2d", (1, 1, 1, 1), channels, stream_channels, _STRIDES)
            for _ in range(num_heads)
        )
        self.temporal_pool = TemporalMax()
        self.part_pool = HorizontalPyramidPooling(part_bins)
        own_parts = num_heads * self.part_pool.num_parts
        self.part_fc = PartLinear(own_parts, channels[3], part_channels)
        self.neck = PartBNNeck(own_parts, part_channels, num_classes, order="channel")
        self.num_parts = self.num_groups * self.part_pool.num_parts
        self.num_features = part_channels
        init_weights(self.networks)
        self.freeze(until="branches")

    @property
    def num_joined(self) -> int:
        """See :attr:`ColourModel.num_joined`."""
        return self.depth * self.width

    def join_maps(self, maps: list[Tensor], normed: Tensor) -> Tensor:
        """See :meth:`ColourModel.join_maps`: all blocks, none after a norm."""
        return torch.cat(maps, dim=1)

    def foreground(self, last: Tensor) -> Tensor:
        """Where the person is.

        Args:
            last: Last block of DINOv2, ``[B, C, h, w]``.

        Returns:
            ``[B, 1, 2 h, 2 w]`` bool.
        """
        person = self.mask_branch(layer_norm_maps(last))[:, 1:] > 0.5
        return resized(person.float(), self.map_size) > 0.5

    def frame_maps(self, features: Tensor) -> Tensor:
        """See :meth:`ColourModel.frame_maps`: the maps of all groups, on the channel axis."""
        seen = self.foreground(features[:, -self.width :])
        groups = layer_norm_maps(features).chunk(self.num_groups, dim=1)
        found = []
        for i, group in enumerate(groups):
            network = self.networks[i * self.num_heads // self.num_groups]
            x = torch.where(seen, self._stream(i, group), 0)
            found.append(network(x.unsqueeze(2), None, self.run).squeeze(2))
        return torch.cat(found, dim=1)

    def _stream(self, i: int, group: Tensor) -> Tensor:
        """A group's map, values in [0, 1]."""
        rows = group.permute(0, 2, 3, 1)
        x = self.branches[i](rows.flatten(0, 2)).unflatten(0, rows.shape[:3]).permute(0, 3, 1, 2)
        x = resized(x, self.map_size)
        # Batch norm over all pixels of all frames, as of an image network.
        return self.branch_norms[i](x.flatten(2)).unflatten(2, x.shape[2:]).sigmoid()

    def forward_head(self, features: Tensor, lengths: Tensor | None = None) -> GaitOutput:
        """Pools over time and bands and embeds every part."""
        pooled = self.temporal_pool(features, lengths)
        pooled = rearrange(pooled, "n (g c) h w -> (n g) c h w", g=self.num_groups)
        # The groups of a network are to its matrices what sequences are to others.
        folded = {"m": self.num_heads, "k": self.num_groups // self.num_heads}
        parts = self.part_pool(pooled)
        parts = rearrange(parts, "(n m k) p c -> (n k) (m p) c", **folded)
        parts = self.part_fc(parts)
        after_bn, logits = self.neck(parts)
        vectors = parts if self.embedding == "fc" else after_bn

        def unfolded(x: Tensor) -> Tensor:
            return rearrange(x, "(n k) (m p) c -> n (m k p) c", **folded)

        return GaitOutput(
            embeddings=unfolded(vectors), logits=None if logits is None else unfolded(logits)
        )


_NORM = r"(running_mean|running_var|num_batches_tracked)"
_KEYS = {
    **HEAD_KEYS,
    rf"Mask_Branch\.bn_s\.{_NORM}": r"mask_branch.branch.norm.\1",
    r"Mask_Branch\.down_sampling\.(\w+)": r"mask_branch.branch.linear.\1",
    r"Mask_Branch\.up_sampling\.(\w+)": r"mask_branch.back.\1",
    rf"HumanSpace_Conv\.(\d+)\.0\.{_NORM}": r"branches.\1.norm.\2",
    r"HumanSpace_Conv\.(\d+)\.1\.(\w+)": r"branches.\1.linear.\2",
    rf"HumanSpace_Conv\.(\d+)\.2\.{_NORM}": r"branches.\1.rest.0.\2",
    r"HumanSpace_Conv\.(\d+)\.4\.(\w+)": r"branches.\1.rest.2.\2",
    rf"HumanSpace_Conv\.(\d+)\.6\.{_NORM}": r"branch_norms.\1.\2",
    r"networks\.(\d+)\.pre_rgb\.forward_block\.conv1\.conv\.(\w+)": r"networks.\1.stem.0.\2",
    r"networks\.(\d+)\.pre_rgb\.forward_block\.bn1\.(\w+)": r"networks.\1.stem.1.\2",
    **{
        rf"networks\.(\d+)\.{place}\.forward_block\.layer{layer}\.0\.{piece}\.(\w+)": (
            rf"networks.\1.layers.{layer - 1}.0.{ours}.\2"
        )
        for layer, place in ((1, "pre_rgb"), *((n, "post_backbone") for n in (2, 3, 4)))
        for piece, ours in (
            ("conv1", "conv1"),
            ("bn1", "bn1"),
            ("conv2", "conv2"),
            ("bn2", "bn2"),
            (r"downsample\.0", "shortcut.0"),
            (r"downsample\.1", "shortcut.1"),
        )
    },
}
_NETWORK = re.compile(r"Gait_Net\.(real_gait|Gait_List)\.(\d+)\.(.+)")
_HEAD = re.compile(r"networks\.(\d+)\.(FCs|BNNecks)\.(.+)")


def convert_checkpoint(state_dict: StateDict) -> StateDict:
    """Renames the authors' parameters to ours, DINOv2's too, under any of its names.

    Networks stand twice in their files, as they are and once for every group; where these differ,
    the last group of a network counts, as when torch loads such a file. Statistics of a norm that
    nothing reads (``Mask_Branch.bn_t``) are left out.

    Args:
        state_dict: Parameters under the authors' names, without a ``module.`` prefix.

    Raises:
        UnknownKeysError: If a name is not BiggerGait's.
        ValueError: If the groups cannot be dealt to the networks.
    """
    prefix = "Backbone."
    eyes = {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}
    encoder = {f"encoder.vit.{key}": value for key, value in convert_dinov2(eyes).items()}
    found: StateDict = {}
    networks: dict[str, dict[int, StateDict]] = {"real_gait": {}, "Gait_List": {}}
    for key, value in state_dict.items():
        if match := _NETWORK.fullmatch(key):
            kind, number, name = match.groups()
            networks[kind].setdefault(int(number), {})[name] = value
        elif not key.startswith((prefix, "Mask_Branch.bn_t.")):
            # Convolutions of one pixel are matrices.
            found[key] = value[:, :, 0, 0] if value.ndim == 4 else value
    heads, groups = len(networks["real_gait"]), len(networks["Gait_List"])
    if heads and groups % heads:
        raise ValueError(
            f"expected groups that can be dealt to {heads} networks, got {groups}; is this a whole "
            "file?"
        )
    for head, network in networks["real_gait"].items():
        own = networks["Gait_List"].get((head + 1) * groups // heads - 1, network)
        found |= {f"networks.{head}.{name}": value for name, value in own.items()}
    return {**rename_by_table(_heads_joined(found), _KEYS, "BiggerGait"), **encoder}


def _heads_joined(state_dict: StateDict) -> StateDict:
    """Matrices and necks of all networks as those of one head."""
    joined: StateDict = {}
    pieces: dict[str, dict[int, Tensor]] = {}
    for key, value in state_dict.items():
        if match := _HEAD.fullmatch(key):
            number, kind, name = match.groups()
            pieces.setdefault(f"{kind}.{name}", {})[int(number)] = value
        else:
            joined[key] = value
    num_parts = len(next(iter(pieces["FCs.fc_bin"].values()))) if "FCs.fc_bin" in pieces else 1
    for key, by_number in pieces.items():
        values = [by_number[number] for number in sorted(by_number)]
        if key.endswith("fc_bin"):
            joined[key] = torch.cat(values)
        elif values[0].ndim == 0:
            joined[key] = values[0]
        else:
            # Channels outside, then parts: those of all networks stand side by side.
            split = [value.view(-1, num_parts) for value in values]
            joined[key] = torch.cat(split, dim=1).flatten()
    return joined


def _cfg(tag: str, **fields: Any) -> PretrainedCfg:
    return opengait_cfg(
        f"biggergait.{tag}",
        _PAPER,
        modalities=("rgb",),
        input_size=(256, 128),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        crop="resized to the height in true proportions, padded or cut to the width",
        notes="The file holds DINOv2 (ViT-S/14) too.",
        **fields,
    )


_GROUPED = {"group_layers": 2, "num_heads": 2}
_CFGS = {
    "ccpg": _cfg("ccpg", num_classes=100, training_data="CCPG, 100 subjects; DINOv2 on LVD-142M"),
    "ccpg_grouped": _cfg(
        "ccpg_grouped",
        num_classes=100,
        model_args=_GROUPED,
        training_data="CCPG, 100 subjects; DINOv2 on LVD-142M",
    ),
    "ccgr_grouped": _cfg(
        "ccgr_grouped",
        num_classes=571,
        model_args=_GROUPED,
        training_data="CCGR, 571 subjects; DINOv2 on LVD-142M",
    ),
}
register_model(
    "biggergait",
    BiggerGait,
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
                "num_hidden_layers": 4,
                "num_attention_heads": 2,
                "image_size": 16,
                "patch_size": 4,
            },
            "image_size": (32, 16),
            "num_heads": 2,
            "hidden": 6,
            "stream_channels": 4,
            "channels": (2, 3, 4, 5),
            "part_channels": 4,
            "part_bins": (4,),
        },
    ),
)
