"""TrackletGait: a robust framework for gait recognition in the wild (IEEE TMM 2025).

Paper: https://arxiv.org/abs/2508.02143. Authors' code: https://github.com/zhangsx26/TrackletGait
(no licence file; nothing of it is contained here).

Differences from upstream:

- Padded frames are zeroed before every convolution over time and left out of the maximum, so
  padded batches give the numbers of single sequences.
- The two published networks are one class; which blocks halve the map or see time are arguments.
- The sampler of tracklets and the loss are :class:`gaitzoo.RandomTrackletSampler` and
  :class:`gaitzoo.losses.HardnessExclusionTripletLoss`.
"""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_features
from gaitzoo.layers.conv import Conv3d
from gaitzoo.layers.fold import fold_sequential
from gaitzoo.layers.fused import fold_inside
from gaitzoo.layers.haar import HaarDownsample2d
from gaitzoo.layers.residual import FrameWise
from gaitzoo.layers.sequence import mask_fill
from gaitzoo.models.base import init_weights, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.conversion import StateDict, rename_keys
from gaitzoo.models.max_pooled import MaxPooled
from gaitzoo.models.registry import register_model

__all__ = ["P3DHWDBlock", "TrackletGait", "convert_checkpoint"]

_PAPER = "https://arxiv.org/abs/2508.02143"


class P3DHWDBlock(nn.Module):
    """A residual block of frames with a wide, grouped convolution over time in its middle.

    ``ReLU(BN(conv(ReLU(a + BN(over time(a))))) + shortcut)``, where ``a`` is the first convolution,
    made smaller by Haar wavelets if ``down``.

    Source: TrackletGait (https://arxiv.org/abs/2508.02143), P3D-HWD block.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        down: Half the height and width.
        temporal: The convolution over time is there.
        time_kernel: Frames that it sees, odd.
        time_groups: Groups of its channels.

    Shapes:
        x: ``[N, C_in, T, H, W]``, any values.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: ``[N, C_out, T, H', W']``; what stands past the end holds no meaning.

    Raises:
        ValueError: If axes, channels or lengths do not fit.

    Example:
        >>> P3DHWDBlock(4, 8, down=True)(torch.rand(2, 4, 5, 16, 12)).shape
        torch.Size([2, 8, 5, 8, 6])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        down: bool = False,
        temporal: bool = True,
        time_kernel: int = 7,
        time_groups: int = 4,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        width = in_channels if down else out_channels
        self.conv1 = FrameWise(nn.Conv2d(in_channels, width, 3, padding=1, bias=False))
        self.bn1 = nn.BatchNorm3d(width)
        self.down = FrameWise(HaarDownsample2d(width, out_channels)) if down else None
        self.reach = time_kernel // 2 if temporal else 0
        self.temporal_conv, self.temporal_bn = None, None
        if temporal:
            self.temporal_conv = Conv3d(
                out_channels,
                out_channels,
                (time_kernel, 1, 1),
                padding=(time_kernel // 2, 0, 0),
                groups=time_groups,
                bias=False,
            )
            self.temporal_bn = nn.BatchNorm3d(out_channels)
        self.conv2 = FrameWise(nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False))
        self.bn2 = nn.BatchNorm3d(out_channels)
        self.pool = nn.MaxPool3d((1, 2, 2)) if down else None
        self.shortcut = (
            None
            if in_channels == out_channels
            else nn.Sequential(
                nn.Conv3d(in_channels, out_channels, 1, bias=False), nn.BatchNorm3d(out_channels)
            )
        )

    def fused(self, dtype: torch.dtype) -> nn.Module:
        """Itself, with the batch norms folded: for inference alone."""
        fold_inside(self, ("conv1.block", "bn1"), ("conv2.block", "bn2"))
        fold_inside(self, ("temporal_conv", "temporal_bn"))
        if self.down is not None:
            fold_inside(self.down.block, ("conv", "bn"))
        if self.shortcut is not None:
            fold_sequential(self.shortcut)
        return self

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Returns the map."""
        check_features(x, self.in_channels, lengths)
        y = F.relu(self.bn1(self.conv1(x)))
        if self.down is not None:
            y = self.down(y)
        if self.temporal_conv is not None and self.temporal_bn is not None:
            y = mask_fill(y, lengths)
            y = F.relu(y + self.temporal_bn(self.temporal_conv(y)))
        y = self.bn2(self.conv2(y))
        if self.pool is not None:
            x = self.pool(x)
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class TrackletGait(MaxPooled):
    """TrackletGait: wavelets instead of strides, seven frames at a time, bands, BN neck.

    Source: https://arxiv.org/abs/2508.02143; what differs is listed at the top of this file.
    Batch-norm statistics see what is in the batch: train on clips of equal length.

    Args:
        num_classes: Training identities, 0 = no classifier.
        in_channels: Channels of the input.
        stem_channels: Width of the stem.
        channels: Width of every block.
        down: Numbers of the blocks that halve height and width, from 0.
        frame_blocks: How many of the first blocks see single frames.
        part_channels: C of the embeddings.
        part_bins: Numbers of horizontal bands; each must divide the rows of the last map.

    Shapes:
        silhouettes: ``[N, T, H, W]`` in [0, 1] or uint8 0..255.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: :class:`GaitOutput` with ``embeddings [N, P, part_channels]``.

    Raises:
        ValueError: If an argument has none of the values named here.

    Example:
        >>> model = TrackletGait(num_classes=3, channels=(8, 8), down=(0, 1), frame_blocks=0).eval()
        >>> model(torch.rand(2, 5, 64, 44), lengths=torch.tensor([5, 1])).logits.shape
        torch.Size([2, 16, 3])
    """

    architecture = "trackletgait"

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 3000,
        in_channels: int = 1,
        stem_channels: int = 16,
        channels: tuple[int, ...] = (64, *[128] * 4, *[256] * 4, 512),
        down: tuple[int, ...] = (1, 5),
        frame_blocks: int = 1,
        part_channels: int = 256,
        part_bins: tuple[int, ...] = (16,),
    ) -> None:
        if not channels or set(down) - set(range(len(channels))):
            raise ValueError(
                f"expected down as numbers of the {len(channels)} blocks, from 0, got {down!r}"
            )
        super().__init__(embedding=self.side_of("fc"))
        self.in_channels, self.embedding = in_channels, "fc"
        self.stem = nn.Sequential(
            nn.Conv3d(in_channels, stem_channels, 1), nn.BatchNorm3d(stem_channels), nn.ReLU()
        )
        widths = (stem_channels, *channels)
        self.blocks = nn.ModuleList(
            P3DHWDBlock(widths[i], width, i in down, temporal=i >= frame_blocks)
            for i, width in enumerate(channels)
        )
        self.build_head(channels[-1], part_channels, part_bins, num_classes)
        init_weights(self)

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """See :attr:`GaitModel.feature_modules`: the stem and all blocks."""
        return ("stem", *(f"blocks.{i}" for i in range(len(self.blocks))))

    def forward_features(
        self, silhouettes: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Computes the map before temporal pooling; time keeps its length.

        Args:
            silhouettes: As for the model's call.
            lengths: As for the model's call.

        Returns:
            ``features`` ``[N, channels[-1], T, H / 4, W / 4]`` and ``lengths``. What stands past
            the end of a sequence holds no meaning.
        """
        x, lengths = self.prepare(silhouettes, lengths)
        x = self.run(self.stem, x)
        for block in self.blocks:
            x = self.run(block, x, lengths)
        return x, lengths

    def temporal_reach(self) -> tuple[int, int]:
        """See :meth:`GaitModel.temporal_reach`."""
        return sum(block.reach for block in self.blocks), 1  # pyright: ignore[reportCallIssue, reportArgumentType]


_PIECES = {
    "conv1": "conv1.block",
    "bn1": "bn1",
    "pooling.conv_bn_relu.0": "down.block.conv",
    "pooling.conv_bn_relu.1": "down.block.bn",
    "th": "temporal_conv",
    "thbn": "temporal_bn",
    "conv2": "conv2.block",
    "bn2": "bn2",
    # Behind a smaller map the shortcut's list begins with its pool.
    "downsample.0": "shortcut.0",
    "downsample.1": "shortcut.1",
    "downsample.2": "shortcut.1",
}
_OTHERS = {
    "pooling1.conv_bn_relu.0": "stem.0",
    "pooling1.conv_bn_relu.1": "stem.1",
    "FCs": "part_fc",
    "BNNecks": "neck.classifier",
    "BNNecks.bn1d": "neck.bn",
}
_BLOCK = re.compile(r"layer(\d+)\.0\.(.+)\.(\w+)")


def convert_checkpoint(state_dict: StateDict) -> StateDict:
    """Renames the authors' parameters to ours, of either network.

    Args:
        state_dict: Parameters under the authors' names, without a ``module.`` prefix.

    Returns:
        The same tensors under this model's names; the authors' blocks in their order, whatever
        their numbers (the small network has a layer2 and a layer6 only).

    Raises:
        UnknownKeysError: If a name is not TrackletGait's.
    """
    matches = [_BLOCK.fullmatch(key) for key in state_dict]
    numbers = sorted({int(match[1]) for match in matches if match})
    with_pool = {match[1] for match in matches if match and match[2] == "downsample.2"}

    def new_key(key: str) -> str | None:
        match = _BLOCK.fullmatch(key)
        if match and match[2] in _PIECES:
            piece = _PIECES[match[2]]
            if match[2] == "downsample.1" and match[1] in with_pool:
                piece = "shortcut.0"
            return f"blocks.{numbers.index(int(match[1]))}.{piece}.{match[3]}"
        piece, _, last = key.rpartition(".")
        last = "weight" if last == "fc_bin" else last
        return f"{_OTHERS[piece]}.{last}" if piece in _OTHERS else None

    return rename_keys(state_dict, new_key, "TrackletGait")


def _cfg(num_classes: int, **fields: object) -> PretrainedCfg:
    return PretrainedCfg(
        fidelity="parity",
        num_classes=num_classes,
        license="none stated",
        paper=_PAPER,
        origin="https://github.com/zhangsx26/TrackletGait",
        unavailable=(
            "the authors' files lie on a drive that programs cannot reach. Download one by hand, "
            "by the links in the README of https://github.com/zhangsx26/TrackletGait, and pass "
            "checkpoint_path=..."
        ),
        **fields,  # pyright: ignore[reportArgumentType]
    )


_SMALL = {"channels": (256, 512), "down": (0, 1), "frame_blocks": 0}
_CASIAB = {
    "rank1": 98.87,
    "rank1_BG": 96.05,
    "rank1_CL": 87.36,
    "protocol": "CASIA-B, identical views excluded; rank1 is normal walking (NM)",
}
_CCPG = {
    "rank1_CL": 83.2,
    "rank1_UP": 88.7,
    "rank1_DN": 87.4,
    "rank1_BG": 92.9,
    "protocol": "CCPG, gait protocol",
}
_CFGS = {
    "gait3d": _cfg(
        3000,
        training_data="Gait3D, 3000 subjects",
        metrics={
            "rank1": 77.8,
            "rank5": 89.0,
            "mAP": 70.2,
            "mINP": 51.6,
            "protocol": "Gait3D probe list against the rest",
        },
    ),
    "grew": _cfg(
        20000,
        training_data="GREW, 20000 subjects",
        metrics={"rank1": 80.4, "rank5": 89.8, "protocol": "GREW test set, scored by its server"},
    ),
    "oumvlp": _cfg(
        5153,
        training_data="OU-MVLP, 5153 subjects",
        metrics={"rank1": 91.92, "protocol": "OU-MVLP, identical views excluded"},
    ),
}
_SMALL_CFGS = {
    "casiab": _cfg(74, model_args=_SMALL, training_data="CASIA-B, 74 subjects", metrics=_CASIAB),
    "ccpg": _cfg(100, model_args=_SMALL, training_data="CCPG, 100 subjects", metrics=_CCPG),
    "sustech1k": _cfg(
        250,
        model_args=_SMALL,
        training_data="SUSTech1K, 250 subjects",
        metrics={"rank1": 86.22, "rank1_NT": 28.6, "protocol": "SUSTech1K, all probes, and night"},
    ),
}
_TINY = PretrainedCfg(
    num_classes=5,
    model_args={
        "stem_channels": 3,
        "channels": (4, 8, 8),
        "down": (1,),
        "part_channels": 4,
        "part_bins": (4,),
    },
    input_size=(16, 12),
)
register_model("trackletgait", TrackletGait, _CFGS, convert=convert_checkpoint, tiny=_TINY)


def _small(**model_args: object) -> TrackletGait:
    model = TrackletGait(**{**_SMALL, **model_args})  # pyright: ignore[reportArgumentType]
    model.architecture = "trackletgait_small"
    return model


_SMALL_TINY = PretrainedCfg(
    num_classes=5,
    model_args={
        "stem_channels": 3,
        "channels": (4, 8),
        "down": (0, 1),
        "part_channels": 4,
        "part_bins": (4,),
    },
    input_size=(16, 12),
)
register_model(
    "trackletgait_small", _small, _SMALL_CFGS, convert=convert_checkpoint, tiny=_SMALL_TINY
)
