"""DyGait: exploiting dynamic representations for high-performance gait recognition (ICCV 2023).

Paper: https://arxiv.org/abs/2303.14953. Authors' code: https://github.com/M-Candy77/DyGait
(no licence file, academic use only; nothing of it is contained here).

Differences from upstream:

- The authors' block adds its input to its output even where the width changes, which cannot run.
  ``shortcut="projection"`` puts a 1x1x1 convolution there (an inference from unused parts of
  their model file), ``shortcut="authors"`` leaves the addition out and has exactly their keys.
- Both of their networks can be built: the deep one (GREW, OU-MVLP, Gait3D) and the shallow one
  (CASIA-B), whose order of layers follows the paper's figure (inferred).
- The heads of CASIA-B and OU-MVLP are not in the released configuration; ``"gaitgl"`` is inferred
  from a deleted one. The order of batch-norm statistics, ``bn_order="part"``, is inferred too.
- Means and maxima over time see the valid frames of each sequence only, so padded batches give
  the numbers of single sequences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from gaitzoo.layers.checks import check_size, check_sizes
from gaitzoo.layers.dynamic import DyGaitBlock, DyGaitStem
from gaitzoo.layers.heads import PartBNNeck, PartLinear, SharedBNNeck
from gaitzoo.layers.pooling import GeMHPP, LocalTemporalAggregation, TemporalMax
from gaitzoo.layers.sequence import repeat_short
from gaitzoo.models.base import GaitModel, init_weights, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.conversion import StateDict, rename_by_table
from gaitzoo.models.outputs import GaitOutput
from gaitzoo.models.registry import register_model
from gaitzoo.models.walkers import WALKERS_PROTOCOL, walkers_cfg

__all__ = ["DyGait", "convert_checkpoint"]

# What stands where in the two networks; widths come from `channels`.
_NETWORKS = {
    "deep": ("block", "pool", "block", "aggregate", "block", "pool", "block", "block"),
    "shallow": ("stem", "aggregate", "block", "pool", "block", "block"),
}


class DyGait(GaitModel):
    """DyGait: 3-D convolutions that see what moves, pooled over time and body parts.

    Source: https://arxiv.org/abs/2303.14953; what differs is listed at the top of this file.
    Embeddings are the part vectors before the batch-norm neck, except with ``head="gaitgl"``,
    where they come after it. Batch norm sits in the head only. Batches of different lengths may
    be padded in training too: no statistic ever sees the padding.

    Args:
        num_classes: Training identities, 0 = no classifier.
        in_channels: Channels of the input; other than one for other modalities.
        network: ``"shallow"`` (stem and three blocks, for CASIA-B) or ``"deep"`` (five blocks).
        channels: Widths: three for the shallow network, four for the deep one.
        part_bins: Numbers of horizontal bands; each must divide the last map's height (half of
            the input's for the shallow network, a quarter for the deep one).
        shortcut: ``"projection"`` or ``"authors"``, see :class:`DyGaitBlock`.
        single_stage: One stage per block, as the paper's figure, instead of two.
        head: ``"bnneck"`` (:class:`PartBNNeck`) or ``"gaitgl"`` (:class:`SharedBNNeck`).
        bn_order: Order of the statistics of ``head="bnneck"``; ``"part"`` in the authors' files
            (inferred), ``"channel"`` in those of later frameworks.

    Shapes:
        silhouettes: ``[N, T, H, W]`` in [0, 1] or uint8; H is 64 (128 for Gait3D), W even.
        lengths: ``[N]`` int64, valid frames per sequence; ``None`` means all ``T``.
        returns: :class:`GaitOutput` with ``[N, P, C]`` embeddings and ``[N, P, K]`` logits.

    Raises:
        ValueError: If an argument has none of the values named here.

    Example:
        >>> model = DyGait(num_classes=0, channels=(4, 8, 8)).eval()
        >>> model(torch.rand(2, 9, 64, 44), lengths=torch.tensor([9, 5])).embeddings.shape
        torch.Size([2, 32, 8])
    """

    architecture = "dygait"
    neck_folds_into = "part_fc"
    min_frames = 3

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 74,
        in_channels: int = 1,
        network: str = "shallow",
        channels: tuple[int, ...] = (32, 64, 128),
        part_bins: tuple[int, ...] = (32,),
        shortcut: str = "projection",
        single_stage: bool = False,
        head: str = "gaitgl",
        bn_order: str = "part",
    ) -> None:
        super().__init__(embedding="after_bn" if head == "gaitgl" else "before_bn")
        if network not in _NETWORKS:
            raise ValueError(f'expected network "deep" or "shallow", got {network!r}')
        widths = channels if isinstance(channels, Sequence) else ()
        if len(widths) != (4 if network == "deep" else 3):
            raise ValueError(
                "expected 4 channels for the deep network and 3 for the shallow one, got "
                f"{channels!r} for network={network!r}"
            )
        check_size(in_channels=in_channels)
        check_sizes("channels", widths)
        if not isinstance(single_stage, bool):
            raise ValueError(f"expected single_stage as True or False, got {single_stage!r}")
        if head not in ("bnneck", "gaitgl"):
            raise ValueError(f'expected head "bnneck" or "gaitgl", got {head!r}')
        if network == "deep":
            block_widths = (in_channels, *channels, channels[-1])
            aggregated = channels[1]
        else:
            block_widths = (*channels, channels[-1])
            aggregated = channels[0]
        self.in_channels = in_channels
        self.order = _NETWORKS[network]
        self.head = head
        self.stem = DyGaitStem(in_channels, channels[0]) if network == "shallow" else None
        self.aggregation = LocalTemporalAggregation(aggregated, aggregated)
        self.blocks = nn.ModuleList(
            DyGaitBlock(before, after, shortcut, single_stage)
            for before, after in pairwise(block_widths)
        )
        self.spatial_pool = nn.MaxPool3d(kernel_size=(1, 2, 2))
        self.temporal_pool = TemporalMax()
        self.part_pool = GeMHPP(tuple(part_bins))
        self.num_parts = self.part_pool.num_parts
        self.num_features = channels[-1]
        self.part_fc = PartLinear(self.num_parts, self.num_features, self.num_features)
        self.neck: PartBNNeck | SharedBNNeck = (
            PartBNNeck(self.num_parts, self.num_features, num_classes, bn_order)
            if head == "bnneck"
            else SharedBNNeck(self.num_parts, self.num_features, num_classes)
        )
        init_weights(self)

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """See :attr:`GaitModel.feature_modules`: all blocks, and what makes three frames one."""
        blocks = (f"blocks.{i}" for i in range(len(self.blocks)))
        names = {"stem": "stem", "aggregate": "aggregation"}
        return tuple(names.get(step) or next(blocks) for step in self.order if step != "pool")

    def adapt_input_channels(
        self, state_dict: Mapping[str, Tensor], before: int
    ) -> dict[str, Tensor]:
        """See :meth:`GaitModel.adapt_input_channels`."""
        first: Any = self.blocks[0]
        added = {}
        if before == 1 and self.stem is None and first.shortcut is not None:
            # One channel is added to the map as it is: a convolution of ones.
            width = len(first.shortcut.weight)
            added["blocks.0.shortcut.weight"] = torch.ones(width, 1, 1, 1, 1)
        return super().adapt_input_channels({**added, **state_dict}, before)

    def forward_features(
        self, silhouettes: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Returns the map before temporal pooling and its valid frames (a third of the input's).

        Sequences of one or two frames are repeated to three or four.
        """
        x, lengths = self.prepare(silhouettes, lengths)
        x, lengths = repeat_short(x, lengths, self.min_frames)
        blocks = iter(self.blocks)
        for step in self.order:
            if step == "pool":
                x = self.spatial_pool(x)
            elif step == "aggregate":
                x = self.run(self.aggregation, x, lengths)
                lengths = None if lengths is None else self.aggregation.out_lengths(lengths)
            else:
                block = self.stem if step == "stem" else next(blocks)
                assert block is not None
                x = self.run(block, x, lengths)
        return x, lengths

    def forward_head(self, features: Tensor, lengths: Tensor | None = None) -> GaitOutput:
        """Pools over time and bands and embeds every part."""
        parts = self.part_fc(self.part_pool(self.temporal_pool(features, lengths)))
        after_bn, logits = self.neck(parts)
        embeddings = after_bn if self.head == "gaitgl" else parts
        return GaitOutput(embeddings=embeddings, logits=logits)


# The authors' names and ours; "g", "d" and "s" are the three convolutions of a stage.
_BLOCKS = {f"conv3d{i}": i for i in range(5)} | {"GLConvA0": 0, "GLConvA1": 1, "GLConvB2": 2}
_CONVS = {"g": "parallel", "d": "dam.dynamic", "s": "dam.static"}
_KEYS = {
    "conv3d.0.conv3d.weight": "stem.conv.weight",
    "LTA.0.conv3d.weight": "aggregation.conv.weight",
    **{f"{theirs}.shortcut.weight": f"blocks.{i}.shortcut.weight" for theirs, i in _BLOCKS.items()},
    **{
        rf"{theirs}\.conv([12]){letter}\.weight": rf"blocks.{i}.stage\1.{conv}.weight"
        for theirs, i in _BLOCKS.items()
        for letter, conv in _CONVS.items()
    },
    "HPP.p": "part_pool.p",
    "Head0.fc_bin": "part_fc.weight",
    "(BNNecks|Head1).fc_bin": "neck.classifier.weight",
    r"(?:BNNecks\.bn1d|Bn)\.(\w+)": r"neck.bn.\1",
}


def convert_checkpoint(state_dict: StateDict) -> StateDict:
    """Renames the authors' parameters to ours.

    The order of batch-norm statistics is left as it is: build the model with the ``bn_order`` of
    the file.

    Args:
        state_dict: Parameters under the authors' names, without a ``module.`` prefix.

    Returns:
        The same tensors under this model's names.

    Raises:
        UnknownKeysError: If a name is not DyGait's.
    """
    return rename_by_table(state_dict, _KEYS, "DyGait")


def _cfg(**fields: object) -> PretrainedCfg:
    return PretrainedCfg(
        fidelity="parity",
        license="none stated; the authors' repository allows academic use only",
        paper="https://arxiv.org/abs/2303.14953",
        origin="https://github.com/M-Candy77/DyGait",
        unavailable=(
            "the authors of DyGait have published no weights. Train the model yourself, or load "
            "a file that you have with checkpoint_path=..."
        ),
        **fields,  # pyright: ignore[reportArgumentType]
    )


_CFGS = {
    "casiab": _cfg(
        num_classes=74,
        embedding="after_bn",
        metrics={
            "rank1": 98.4,
            "protocol": "CASIA-B, normal walking, identical views excluded (presumably)",
        },
        notes="The order of layers and the head are inferred, see the top of dygait.py.",
    ),
    "oumvlp": _cfg(
        num_classes=5153,
        embedding="after_bn",
        model_args={
            "network": "deep",
            "channels": (32, 64, 128, 256),
            "part_bins": (16, 8, 4, 2, 1),
        },
        metrics={
            "rank1": 98.3,
            "protocol": "OU-MVLP, identical views excluded, probes without gallery excluded "
            "(inferred)",
        },
        notes="The head is inferred, see the top of dygait.py.",
    ),
    "grew": _cfg(
        num_classes=20000,
        model_args={
            "network": "deep",
            "channels": (64, 128, 256, 512),
            "part_bins": (16, 8, 4, 2, 1),
            "head": "bnneck",
        },
        metrics={"rank1": 71.4, "rank5": 83.2, "protocol": "GREW test set, scored by its server"},
    ),
    "gait3d": _cfg(
        num_classes=3000,
        input_size=(128, 88),
        model_args={
            "network": "deep",
            "channels": (64, 128, 256, 512),
            "part_bins": (32,),
            "head": "bnneck",
        },
        metrics={
            "rank1": 66.3,
            "rank5": 80.8,
            "mAP": 56.4,
            "mINP": 37.3,
            "protocol": "Gait3D probe list against the rest",
        },
    ),
    "walkers": walkers_cfg(
        paper="https://arxiv.org/abs/2303.14953",
        model_args={
            "network": "deep",
            "channels": (8, 16, 32, 64),
            "part_bins": (8,),
            "single_stage": True,
            "head": "bnneck",
        },
        filename="dygait_walkers.safetensors",
        size=934_842,
        sha256="a1d075a94762abe0045e238c2c96b3543478b3ab385c323732d1df589a2e7b3b",
        metrics={
            "rank1_walkers": 98.0,
            "rank1_walkers_bag": 94.8,
            "rank1_walkers_coat": 91.0,
            "protocol": WALKERS_PROTOCOL,
        },
    ),
}


register_model(
    "dygait",
    DyGait,
    _CFGS,
    convert=convert_checkpoint,
    tiny=_cfg(
        num_classes=5,
        model_args={"channels": (2, 4, 4), "part_bins": (4, 2)},
        embedding="after_bn",
        input_size=(16, 12),
    ),
)
