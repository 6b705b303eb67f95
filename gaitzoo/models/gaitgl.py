"""GaitGL: effective global-local feature representation and local temporal aggregation (ICCV 2021).

Paper: https://arxiv.org/abs/2011.01461. Authors' code: https://github.com/ShiqiYu/OpenGait
(academic use only; nothing of it is contained here).

Differences from upstream:

- Its two networks, chosen there by the name of the data set, are told apart by ``depth`` and
  ``halving``.
- Padded frames are zeroed before every convolution over time and left out of the maximum, so
  padded batches give the numbers of single sequences; upstream evaluates one sequence at a time.
- The generalised mean is computed in float32 and stably, see :class:`gaitzoo.GeMHPP`.
- Heights that the strips do not divide are refused; upstream makes a shorter strip of the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.conv import Conv3d
from gaitzoo.layers.global_local import GLConv
from gaitzoo.layers.heads import PartBNNeck, PartLinear, SharedBNNeck
from gaitzoo.layers.pooling import GeMHPP, LocalTemporalAggregation, TemporalMax
from gaitzoo.layers.sequence import mask_fill, repeat_short
from gaitzoo.models.base import GaitModel, init_weights, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.conversion import StateDict, rename_keys
from gaitzoo.models.opengait import opengait_cfg
from gaitzoo.models.outputs import GaitOutput
from gaitzoo.models.registry import register_model

__all__ = ["GaitGL", "convert_checkpoint"]

_PAPER = "https://arxiv.org/abs/2011.01461"


class GaitGL(GaitModel):
    """GaitGL: 3-D convolutions of the whole body and of its strips, pooled row by row.

    Source: https://arxiv.org/abs/2011.01461; what differs is listed at the top of this file.
    Embeddings are the part vectors after the batch norm, whose statistics are shared by all parts
    (``head="bn"``), or before a batch norm per part (``head="bnneck"``, published for GREW).
    Batches of different lengths may be padded in training too: no statistic sees the padding.

    Args:
        num_classes: Training identities, 0 = no classifier.
        in_channels: Channels of the input.
        channels: Widths: the stem's, then one per further stage; three with ``depth=1``, four
            with ``depth=2``, where the last two belong to the last stage.
        depth: Convolutions of the stem and of each stage, 1 (CASIA-B, Gait3D) or 2 (OU-MVLP, GREW).
        halving: The height is cut into ``2 ** halving`` strips.
        part_bins: Numbers of horizontal bands of the last map, which is as high as the frames.
        head: ``"bn"`` (:class:`SharedBNNeck`) or ``"bnneck"`` (:class:`PartBNNeck`).

    Shapes:
        silhouettes: ``[N, T, H, W]`` in [0, 1] or uint8 0..255; H a multiple of 64, W even.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: :class:`GaitOutput` with ``embeddings [N, P, channels[-1]]``: bands of the whole
            body, then of its strips.

    Raises:
        ValueError: If an argument has none of the values named here.

    Example:
        >>> model = GaitGL(num_classes=3, channels=(2, 4, 8)).eval()
        >>> model(torch.rand(2, 9, 64, 44), lengths=torch.tensor([9, 2])).logits.shape
        torch.Size([2, 64, 3])
    """

    architecture = "gaitgl"
    neck_folds_into = "part_fc"
    min_frames = 3

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 74,
        in_channels: int = 1,
        channels: tuple[int, ...] = (32, 64, 128),
        depth: int = 1,
        halving: int = 3,
        part_bins: tuple[int, ...] = (64,),
        head: str = "bn",
    ) -> None:
        if depth not in (1, 2):
            raise ValueError(f"expected depth 1 or 2, got {depth!r}")
        if len(channels) != depth + 2:
            raise ValueError(f"expected {depth + 2} channels for depth={depth}, got {channels!r}")
        if head not in ("bn", "bnneck"):
            raise ValueError(f'expected head "bn" or "bnneck", got {head!r}')
        super().__init__(embedding="after_bn" if head == "bn" else "before_bn")
        self.in_channels, self.head = in_channels, head
        first, second, third, last = (*channels, channels[-1])[:4]
        stem = (in_channels, *[first] * depth)
        self.stem = nn.ModuleList(
            Conv3d(before, after, 3, padding=1, bias=False) for before, after in pairwise(stem)
        )
        self.aggregation = LocalTemporalAggregation(first, first)
        self.stage1 = _stage((first, *[second] * depth), halving, "add")
        self.stage2 = _stage((second, *[third] * depth), halving, "add")
        self.stage3 = _stage((third, *[last] * depth), halving, "cat")
        self.spatial_pool = nn.MaxPool3d(kernel_size=(1, 2, 2))
        self.temporal_pool = TemporalMax()
        self.part_pool = GeMHPP(tuple(part_bins))
        self.num_parts, self.num_features = self.part_pool.num_parts, last
        self.part_fc = PartLinear(self.num_parts, last, last)
        self.neck: SharedBNNeck | PartBNNeck = (
            SharedBNNeck(self.num_parts, last, num_classes)
            if head == "bn"
            else PartBNNeck(self.num_parts, last, num_classes)
        )
        init_weights(self)

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """See :attr:`GaitModel.feature_modules`: the ends of the three stages."""
        stages = {"stage1": self.stage1, "stage2": self.stage2, "stage3": self.stage3}
        return tuple(f"{name}.{len(stage) - 1}" for name, stage in stages.items())

    def forward_features(
        self, silhouettes: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Computes the map before temporal pooling.

        Args:
            silhouettes: As for the model's call; sequences of one or two frames are repeated
                until they have three or four.
            lengths: As for the model's call.

        Returns:
            ``features`` ``[N, channels[-1], T', H, W / 2]``, the whole body above its strips, and
            its valid frames, a third of the input's.
        """
        x, lengths = self.prepare(silhouettes, lengths)
        x, lengths = repeat_short(x, lengths, self.min_frames)
        for conv in self.stem:
            x = F.leaky_relu(self.run(conv, mask_fill(x, lengths)), 0.01)
        x = self.run(self.aggregation, x, lengths)
        lengths = None if lengths is None else self.aggregation.out_lengths(lengths)
        for block in self.stage1:
            x = self.run(block, x, lengths)
        x = self.spatial_pool(x)
        for block in (*self.stage2, *self.stage3):
            x = self.run(block, x, lengths)
        return x, lengths

    def temporal_reach(self) -> tuple[int, int]:
        """See :meth:`GaitModel.temporal_reach`."""
        step = self.min_frames
        blocks = len(self.stage1) + len(self.stage2) + len(self.stage3)
        return step * (blocks + -(-len(self.stem) // step)), step

    def temporal_maps(self, inputs: Tensor) -> Iterator[tuple[Tensor, int]]:
        """See :meth:`GaitModel.temporal_maps`."""
        yield self.forward_features(inputs)[0], self.min_frames

    def forward_head(self, features: Tensor, lengths: Tensor | None = None) -> GaitOutput:
        """Pools over time and rows and embeds every part."""
        parts = self.part_fc(self.part_pool(self.temporal_pool(features, lengths)))
        after_bn, logits = self.neck(parts)
        return GaitOutput(embeddings=after_bn if self.head == "bn" else parts, logits=logits)


def _stage(widths: tuple[int, ...], halving: int, last_mode: str) -> nn.ModuleList:
    pairs = list(pairwise(widths))
    return nn.ModuleList(
        GLConv(before, after, halving, last_mode if i == len(pairs) - 1 else "add")
        for i, (before, after) in enumerate(pairs)
    )


_BRANCHES = {"global_conv3d": "whole", "local_conv3d": "strips"}
_KEYS = {
    f"{theirs}.{place}{branch}.conv3d.weight": f"{ours}.{number}.{_BRANCHES[branch]}.weight"
    for theirs, ours in (("GLConvA0", "stage1"), ("GLConvA1", "stage2"), ("GLConvB2", "stage3"))
    for place, number in (("", 0), ("0.", 0), ("1.", 1))
    for branch in _BRANCHES
} | {
    "conv3d.0.conv3d.weight": "stem.0.weight",
    "conv3d.2.conv3d.weight": "stem.1.weight",
    "LTA.0.conv3d.weight": "aggregation.conv.weight",
    "HPP.p": "part_pool.p",
    "Head0.fc_bin": "part_fc.weight",
    "Head1.fc_bin": "neck.classifier.weight",
    "BNNecks.fc_bin": "neck.classifier.weight",
}
_KEYS |= {
    f"{norm}.{name}": f"neck.bn.{name}"
    for norm in ("Bn", "BNNecks.bn1d")
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
}


def convert_checkpoint(state_dict: StateDict) -> StateDict:
    """Renames the authors' parameters to ours, of either depth and head.

    Args:
        state_dict: Parameters under the authors' names, without a ``module.`` prefix.

    Returns:
        The same tensors under this model's names.

    Raises:
        UnknownKeysError: If a name is not GaitGL's.
    """
    return rename_keys(state_dict, _KEYS.get, "GaitGL")


def _cfg(tag: str, num_classes: int, **fields: object) -> PretrainedCfg:
    return opengait_cfg(
        f"gaitgl.{tag}",
        _PAPER,
        **{"embedding": "after_bn", "num_classes": num_classes, **fields},
    )


_DEEP = {"channels": (32, 64, 128, 256), "depth": 2, "halving": 1}
_GREW = "GREW test set, scored by its server"
_GAIT3D = "Gait3D probe list against the rest"
_CFGS = {
    "casiab": _cfg(
        "casiab",
        74,
        training_data="CASIA-B, 74 subjects",
        metrics={
            "rank1": 97.4,
            "rank1_BG": 94.5,
            "rank1_CL": 83.8,
            "protocol": "CASIA-B, identical views excluded; rank1 is normal walking (NM)",
        },
    ),
    "oumvlp": _cfg(
        "oumvlp",
        5153,
        model_args=_DEEP,
        training_data="OU-MVLP, 5153 subjects",
        metrics={"rank1": 89.9, "protocol": "OU-MVLP, identical views excluded"},
    ),
    "grew": _cfg(
        "grew",
        20000,
        model_args=_DEEP,
        training_data="GREW, 20000 subjects",
        metrics={"rank1": 41.5, "protocol": _GREW},
    ),
    "grew_bnneck": _cfg(
        "grew_bnneck",
        20000,
        embedding="before_bn",
        model_args={**_DEEP, "head": "bnneck"},
        training_data="GREW, 20000 subjects",
        metrics={"rank1": 51.7, "protocol": _GREW},
    ),
    "gait3d": _cfg(
        "gait3d",
        3000,
        distance="cosine",
        training_data="Gait3D, 3000 subjects",
        metrics={"rank1": 29.7, "protocol": f"{_GAIT3D}, 64 pixels"},
    ),
    "gait3d_128": _cfg(
        "gait3d_128",
        3000,
        distance="cosine",
        input_size=(128, 88),
        training_data="Gait3D, 3000 subjects",
        metrics={"rank1": 23.5, "protocol": f"{_GAIT3D}, 128 pixels"},
    ),
    "gait3d_parsing": _cfg(
        "gait3d_parsing",
        3000,
        distance="cosine",
        modalities=("parsing",),
        value_range=(0.0, 11.0),
        training_data="Gait3D-Parsing, 3000 subjects",
        metrics={
            "rank1": 47.7,
            "mAP": 36.2,
            "protocol": f"{_GAIT3D}, parsing maps instead of silhouettes",
        },
    ),
}
register_model(
    "gaitgl",
    GaitGL,
    _CFGS,
    convert=convert_checkpoint,
    tiny=PretrainedCfg(
        num_classes=5,
        embedding="after_bn",
        model_args={"channels": (2, 3, 4), "halving": 1, "part_bins": (4,)},
        input_size=(16, 12),
    ),
)
