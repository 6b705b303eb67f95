"""GaitSet: regarding gait as a set for cross-view gait recognition (AAAI 2019).

Paper: https://arxiv.org/abs/1811.06186. Authors' code: https://github.com/AbnerHqC/GaitSet and
https://github.com/ShiqiYu/OpenGait (academic use only; nothing of it is contained here).

Differences from upstream:

- Padded frames are left out of every maximum over frames, so padded batches give the numbers of
  single sequences; upstream leaves black frames in, which move the maximum.
- ``num_classes`` adds a class matrix per part, for those who train with cross-entropy too; the
  authors train with the triplet loss alone, and their files hold no classes.
- Files of the first release (keys ``set_layer1 ...``) have their parts brought into the order of
  the later ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from gaitzoo.layers.heads import PartLinear
from gaitzoo.layers.plain import PlainBlock, SetPool
from gaitzoo.layers.pooling import HorizontalPyramidPooling
from gaitzoo.layers.residual import FrameWise
from gaitzoo.models.base import init_weights, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.conversion import StateDict, rename_keys
from gaitzoo.models.opengait import opengait_cfg
from gaitzoo.models.part_head import PartClasses, PartHead
from gaitzoo.models.registry import register_model

__all__ = ["GaitSet", "convert_checkpoint"]

_PAPER = "https://arxiv.org/abs/1811.06186"


class GaitSet(PartHead):
    """GaitSet: frames as a set, pooled at three depths, in horizontal bands of five sizes.

    Source: https://arxiv.org/abs/1811.06186; what differs is listed at the top of this file. The
    order of frames never matters, nor does a frame that comes twice.

    Args:
        num_classes: Training identities for a class matrix per part; 0 = none, as the authors.
        in_channels: Channels of the input.
        channels: Widths of the three depths.
        part_channels: C of the embeddings.
        part_bins: Numbers of horizontal bands; each must divide a quarter of the frame's height.

    Shapes:
        silhouettes: ``[N, T, H, W]`` in [0, 1] or uint8 0..255, H and W multiples of 4.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: :class:`GaitOutput` with ``embeddings [N, P, part_channels]``: all bands of the
            last set map, then all of the global one.

    Raises:
        ValueError: If an argument has none of the values named here, or the bands do not fit.

    Example:
        >>> model = GaitSet(channels=(4, 4, 8), part_channels=8).eval()
        >>> model(torch.rand(2, 5, 64, 44), lengths=torch.tensor([5, 1])).embeddings.shape
        torch.Size([2, 62, 8])
    """

    architecture = "gaitset"

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 0,
        in_channels: int = 1,
        channels: tuple[int, int, int] = (32, 64, 128),
        part_channels: int = 256,
        part_bins: tuple[int, ...] = (16, 8, 4, 2, 1),
    ) -> None:
        super().__init__(embedding="output")
        self.in_channels = in_channels
        first, second, third = channels
        self.set_block1 = FrameWise(PlainBlock(in_channels, first, 5))
        self.set_block2 = FrameWise(PlainBlock(first, second))
        self.set_block3 = FrameWise(PlainBlock(second, third, pool=False))
        self.global_block2 = PlainBlock(first, second)
        self.global_block3 = PlainBlock(second, third, pool=False)
        self.set_pool = SetPool()
        self.part_pool = HorizontalPyramidPooling(part_bins)
        self.num_parts = 2 * self.part_pool.num_parts
        self.num_features = part_channels
        self.part_fc = PartLinear(self.num_parts, third, part_channels)
        self.classes = PartClasses(self.num_parts, part_channels, num_classes)
        init_weights(self)

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """See :attr:`GaitModel.feature_modules`: those of single frames."""
        return ("set_block1", "set_block2", "set_block3")

    def forward_features(
        self, silhouettes: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Computes the two maps that remain of a set.

        Args:
            silhouettes: As for the model's call.
            lengths: As for the model's call.

        Returns:
            ``features`` ``[N, 2 * channels[2], 1, H / 4, W / 4]``, the set's map and the global
            one on the channel axis, and ``[N]`` ones (``None`` if ``lengths`` is).
        """
        x, lengths = self.prepare(silhouettes, lengths)
        pooled = [self.set_pool(x, lengths) for x in self._frame_maps(x)]
        maps = self._of_set(pooled).unsqueeze(2)
        return maps, None if lengths is None else torch.ones_like(lengths)

    def _frame_maps(self, x: Tensor) -> Iterator[Tensor]:
        for block in (self.set_block1, self.set_block2, self.set_block3):
            x = self.run(block, x)
            yield x

    def _of_set(self, pooled: Sequence[Tensor]) -> Tensor:
        """Both maps of a set from the maxima at three depths."""
        first, second, last = pooled
        whole = self.run(self.global_block2, first)
        whole = self.run(self.global_block3, whole + second)
        return torch.cat([last, whole + last], dim=1)

    def temporal_reach(self) -> tuple[int, int]:
        """See :meth:`GaitModel.temporal_reach`: frames never see each other."""
        return 0, 1

    def temporal_maps(self, inputs: Tensor) -> Iterator[tuple[Tensor, int]]:
        """See :meth:`GaitModel.temporal_maps`: those of single frames at three depths."""
        x, _ = self.prepare(inputs, None)
        for features in self._frame_maps(x):
            yield features, 1

    def pool_parts(
        self, features: Tensor | tuple[Tensor, Tensor, Tensor], lengths: Tensor | None
    ) -> Tensor:
        """Part vectors before the matrices, ``[N, P, channels[2]]``.

        Args:
            features: As from :meth:`forward_features`; or the three maps of frames, as from
                :meth:`temporal_maps`.
            lengths: Valid frames of the three maps; the set's maps have no time.
        """
        if isinstance(features, tuple):
            features = self._of_set([self.set_pool(one, lengths) for one in features])
        else:
            features = features.squeeze(2)
        last, whole = features.chunk(2, dim=1)
        return torch.cat([self.part_pool(last), self.part_pool(whole)], dim=1)


_BLOCKS = {f"set_block{i}.forward_block": f"set_block{i}.block" for i in (1, 2, 3)}
_BLOCKS |= {f"gl_block{i}": f"global_block{i}" for i in (2, 3)}
_KEYS = {
    f"{theirs}.{number}.conv.weight": f"{ours}.conv{1 + number // 2}.conv.weight"
    for theirs, ours in _BLOCKS.items()
    for number in (0, 2)
} | {"Head.fc_bin": "part_fc.weight"}
# The first release: six layers of the set, four of the whole.
_FIRST_RELEASE = {
    f"set_layer{i + 1}.forward_block.conv.weight": f"set_block{1 + i // 2}.block.conv{1 + i % 2}"
    for i in range(6)
} | {f"gl_layer{i + 1}.conv.weight": f"global_block{2 + i // 2}.conv{1 + i % 2}" for i in range(4)}
_FIRST_RELEASE = {key: f"{ours}.conv.weight" for key, ours in _FIRST_RELEASE.items()}
_FIRST_RELEASE |= {"fc_bin.0": "part_fc.weight", "fc_bin": "part_fc.weight"}


def convert_checkpoint(state_dict: StateDict) -> StateDict:
    """Renames the authors' parameters to ours, of either release.

    Args:
        state_dict: Parameters under the authors' names, without a ``module.`` prefix.

    Returns:
        The same tensors under this model's names; parts of the first release in our order.

    Raises:
        UnknownKeysError: If a name is not GaitSet's.
    """
    if not any(re.match(r"set_layer\d", key) for key in state_dict):
        return rename_keys(state_dict, _KEYS.get, "GaitSet")
    renamed = rename_keys(state_dict, _FIRST_RELEASE.get, "GaitSet (first release)")
    if "part_fc.weight" in renamed:
        renamed["part_fc.weight"] = renamed["part_fc.weight"][_parts_of_first_release()]
    return renamed


def _parts_of_first_release() -> list[int]:
    """Where each of our parts stands there: bins 1 to 16, of each first the set, then the whole."""
    bins = (16, 8, 4, 2, 1)
    start = {b: 2 * (b - 1) for b in bins}
    of_set = [start[b] + i for b in bins for i in range(b)]
    return of_set + [start[b] + b + i for b in bins for i in range(b)]


_NARROW = {"channels": (32, 64, 128)}
_WIDE = {"channels": (64, 128, 256)}
_CFGS = {
    "casiab": opengait_cfg(
        "gaitset.casiab",
        _PAPER,
        embedding="output",
        model_args=_NARROW,
        training_data="CASIA-B, 74 subjects",
        metrics={
            "rank1": 95.8,
            "rank1_BG": 90.0,
            "rank1_CL": 75.4,
            "protocol": "CASIA-B, identical views excluded; rank1 is normal walking (NM)",
        },
    ),
    "oumvlp": opengait_cfg(
        "gaitset.oumvlp",
        _PAPER,
        embedding="output",
        model_args=_WIDE,
        training_data="OU-MVLP, 5153 subjects",
        metrics={"rank1": 87.2, "protocol": "OU-MVLP, identical views excluded"},
    ),
    "grew": opengait_cfg(
        "gaitset.grew",
        _PAPER,
        embedding="output",
        model_args=_WIDE,
        training_data="GREW, 20000 subjects",
        metrics={"rank1": 48.4, "protocol": "GREW test set, scored by its server"},
    ),
    "casiae": opengait_cfg(
        "gaitset.casiae",
        _PAPER,
        embedding="output",
        model_args=_WIDE,
        training_data="CASIA-E",
        metrics={
            "rank1": 82.5,
            "rank1_BG": 75.3,
            "rank1_CL": 62.5,
            "protocol": "CASIA-E; rank1 is normal walking (NM)",
        },
    ),
    "gait3d": opengait_cfg(
        "gaitset.gait3d",
        _PAPER,
        embedding="output",
        distance="cosine",
        model_args=_NARROW,
        training_data="Gait3D, 3000 subjects",
        metrics={"rank1": 36.7, "protocol": "Gait3D probe list against the rest, 64 pixels"},
    ),
    "gait3d_128": opengait_cfg(
        "gaitset.gait3d_128",
        _PAPER,
        embedding="output",
        distance="cosine",
        input_size=(128, 88),
        model_args=_NARROW,
        training_data="Gait3D, 3000 subjects",
        metrics={"rank1": 42.6, "protocol": "Gait3D probe list against the rest, 128 pixels"},
    ),
    "gait3d_parsing": opengait_cfg(
        "gaitset.gait3d_parsing",
        _PAPER,
        embedding="output",
        distance="cosine",
        modalities=("parsing",),
        value_range=(0.0, 11.0),
        model_args=_NARROW,
        training_data="Gait3D-Parsing, 3000 subjects",
        metrics={
            "rank1": 55.9,
            "mAP": 46.7,
            "protocol": "Gait3D probe list against the rest, parsing maps instead of silhouettes",
        },
    ),
}
register_model(
    "gaitset",
    GaitSet,
    _CFGS,
    convert=convert_checkpoint,
    tiny=PretrainedCfg(
        num_classes=5,
        embedding="output",
        model_args={"channels": (2, 3, 4), "part_channels": 4, "part_bins": (4, 2)},
        input_size=(16, 12),
    ),
)
