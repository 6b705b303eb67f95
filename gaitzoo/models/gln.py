"""GLN: gait lateral network (ECCV 2020).

Paper: https://home.ustc.edu.cn/~saihui/papers/eccv2020_gln.pdf. Authors' code:
https://github.com/ShiqiYu/OpenGait (academic use only; nothing of it is contained here).

Differences from upstream:

- Padded frames are left out of every maximum over frames, so padded batches give the numbers of
  single sequences; upstream leaves black frames in.
- The set's map is made smaller behind the maximum over frames instead of before it, which is the
  same and cheaper.
- ``embedding="compact"`` gives the one vector of the compact block; upstream returns the parts in
  both of its phases, and so do the published numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_num_classes
from gaitzoo.layers.heads import PartLinear
from gaitzoo.layers.plain import PlainBlock, SetPool
from gaitzoo.layers.pooling import HorizontalPyramidPooling
from gaitzoo.layers.residual import FrameWise
from gaitzoo.models.base import GaitModel, init_weights, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.conversion import StateDict, rename_keys
from gaitzoo.models.opengait import opengait_cfg
from gaitzoo.models.outputs import GaitOutput
from gaitzoo.models.registry import register_model

__all__ = ["GLN", "CompactBlock", "convert_checkpoint"]

_PAPER = "https://home.ustc.edu.cn/~saihui/papers/eccv2020_gln.pdf"


class CompactBlock(nn.Module):
    """All parts of a walk in one short vector, and its class scores.

    Source: GLN (ECCV 2020), Sec. 3.4: batch norm, dropout, ReLU, a matrix, batch norm, classes.

    Args:
        num_parts: P.
        channels: C of the parts, and of the short vector.
        num_classes: K, 0 = no classes.
        drop_rate: Share of the numbers left out in training.

    Shapes:
        parts: ``[N, P, C]``.
        returns: the vector ``[N, 1, C]``, and class scores ``[N, 1, K]`` or ``None``.

    Example:
        >>> vector, scores = CompactBlock(4, 8, num_classes=3).eval()(torch.rand(2, 4, 8))
        >>> vector.shape, scores.shape
        (torch.Size([2, 1, 8]), torch.Size([2, 1, 3]))
    """

    keeps_float32 = True

    def __init__(
        self, num_parts: int, channels: int, num_classes: int, drop_rate: float = 0.9
    ) -> None:
        super().__init__()
        self.encoder_bn = nn.BatchNorm1d(num_parts * channels)
        self.dropout = nn.Dropout(drop_rate)
        self.reduce = nn.Linear(num_parts * channels, channels, bias=False)
        self.bn = nn.BatchNorm1d(channels)
        for norm in (self.encoder_bn, self.bn):
            norm.bias.requires_grad_(False)
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        """Fresh class weights for ``num_classes`` classes (0 = none).

        Raises:
            ValueError: If ``num_classes`` is no whole number of 0 or more.
        """
        check_num_classes(num_classes)
        weight = self.reduce.weight
        self.classifier = (
            nn.Linear(weight.shape[0], num_classes, bias=False).to(weight) if num_classes else None
        )

    def forward(self, parts: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the vector and the class scores."""
        x = self.encoder_bn(parts.transpose(1, 2).flatten(1))  # channels first, as in the files
        vector = self.reduce(F.relu(self.dropout(x)))
        scores = None if self.classifier is None else self.classifier(self.bn(vector))
        return vector[:, None], None if scores is None else scores[:, None]


class GLN(GaitModel):
    """GLN: frames and their set side by side, joined from the deepest map upwards.

    Source: https://home.ustc.edu.cn/~saihui/papers/eccv2020_gln.pdf; what differs is listed at the
    top of this file. The order of frames never matters.

    Args:
        num_classes: Training identities of the compact block, 0 = no classifier; without
            ``compact`` there is none.
        in_channels: Channels of the input.
        channels: Widths of the three depths.
        lateral_channels: C of the joined maps and of the embeddings.
        part_bins: Numbers of horizontal bands; each must divide a quarter of the frame's height.
        compact: Build the compact block of the second phase of training.
        embedding: ``"parts"``, as published, or ``"compact"``, one vector per walk.
        drop_rate: Dropout of the compact block.

    Shapes:
        silhouettes: ``[N, T, H, W]`` in [0, 1] or uint8 0..255, H and W multiples of 4.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: :class:`GaitOutput` with ``embeddings [N, P, lateral_channels]``: bands of the
            finest map, then the middle one, then the coarsest; P is one with ``"compact"``.
            ``logits [N, 1, K]`` of the compact block, or ``None``.

    Raises:
        ValueError: If an argument has none of the values named here, or frames do not fit.

    Example:
        >>> model = GLN(channels=(2, 4, 4), lateral_channels=8).eval()
        >>> model(torch.rand(2, 3, 64, 44), lengths=torch.tensor([3, 1])).embeddings.shape
        torch.Size([2, 93, 8])
    """

    architecture = "gln"
    classifier_key = "compact.classifier"

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 0,
        in_channels: int = 1,
        channels: tuple[int, int, int] = (32, 64, 128),
        lateral_channels: int = 256,
        part_bins: tuple[int, ...] = (16, 8, 4, 2, 1),
        compact: bool = False,
        embedding: str = "parts",
        drop_rate: float = 0.9,
    ) -> None:
        if embedding not in ("parts", "compact") or (embedding == "compact" and not compact):
            raise ValueError(
                'expected embedding "parts", or "compact" with compact=True, got '
                f"{embedding!r} with compact={compact!r}"
            )
        super().__init__(embedding="output")
        self.in_channels, self.embedding = in_channels, embedding
        first, second, third = channels
        self.frames0 = FrameWise(PlainBlock(in_channels, first, 5, pool=False))
        self.frames1 = FrameWise(PlainBlock(first, second, pool=False))
        self.frames2 = FrameWise(PlainBlock(second, third, pool=False))
        self.set1 = PlainBlock(first, second, pool=False)
        self.set2 = PlainBlock(second, third, pool=False)
        self.set_pool = SetPool()
        width = lateral_channels
        self.lateral = nn.ModuleList(
            nn.Conv2d(2 * depth, width, 1, bias=False) for depth in channels
        )
        self.smooth = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in channels
        )
        self.part_pool = HorizontalPyramidPooling(part_bins)
        all_parts = 3 * self.part_pool.num_parts
        self.part_fc = PartLinear(all_parts, width, width)
        self.compact = CompactBlock(all_parts, width, num_classes, drop_rate) if compact else None
        self.num_parts = 1 if embedding == "compact" else all_parts
        self.num_features = width
        init_weights(self)

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """See :attr:`GaitModel.feature_modules`: those of single frames."""
        return ("frames0", "frames1", "frames2")

    def forward_features(
        self, silhouettes: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Computes the three joined maps of a set.

        Args:
            silhouettes: As for the model's call.
            lengths: As for the model's call.

        Returns:
            ``features`` ``[N, 3 * lateral_channels, 1, H, W]``, fine to coarse on the channel axis,
            coarser ones repeated to the size of the finest, and ``[N]`` ones (``None`` if
            ``lengths`` is).
        """
        maps = self._maps(silhouettes, lengths)
        size = maps[0].shape[-2:]
        together = torch.cat([F.interpolate(one, size=size) for one in maps], dim=1)
        return together.unsqueeze(2), None if lengths is None else torch.ones_like(lengths)

    def temporal_reach(self) -> tuple[int, int]:
        """See :meth:`GaitModel.temporal_reach`: frames never see each other."""
        return 0, 1

    def temporal_maps(self, inputs: Tensor) -> Iterator[tuple[Tensor, int]]:
        """See :meth:`GaitModel.temporal_maps`: those of single frames at three depths."""
        x, _ = self.prepare(inputs, None)
        for features in self._frame_maps(x):
            yield features, 1

    def forward_head(
        self,
        features: Tensor | tuple[Tensor, Tensor, Tensor],
        lengths: Tensor | None = None,
    ) -> GaitOutput:
        """Pools bands of the three maps and embeds every part.

        Args:
            features: As from :meth:`forward_features`; or the three maps of frames, as from
                :meth:`temporal_maps`.
            lengths: Valid frames of the three maps of frames; the set's maps have no time.
        """
        if isinstance(features, tuple):
            return self._embed(self._joined([self.set_pool(one, lengths) for one in features]))
        maps = features.squeeze(2).chunk(3, dim=1)
        return self._embed([one[..., :: 2**i, :: 2**i] for i, one in enumerate(maps)])

    def forward(self, silhouettes: Tensor, lengths: Tensor | None = None) -> GaitOutput:
        """Embeds a batch of sequences; see the class for shapes and ranges."""
        return self._embed(self._maps(silhouettes, lengths))

    def _maps(self, silhouettes: Tensor, lengths: Tensor | None) -> list[Tensor]:
        x, lengths = self.prepare(silhouettes, lengths)
        return self._joined([self.set_pool(one, lengths) for one in self._frame_maps(x)])

    def _frame_maps(self, x: Tensor) -> Iterator[Tensor]:
        if x.shape[3] % 4 or x.shape[4] % 4:
            raise ValueError(
                "expected frames with a height and a width that are multiples of 4, got "
                f"{x.shape[3]} x {x.shape[4]}; for example 128 x 88 or 64 x 44"
            )
        x = self.run(self.frames0, x)
        yield x
        for frames in (self.frames1, self.frames2):
            x = self.run(frames, F.max_pool3d(x, (1, 2, 2)))
            yield x

    def _joined(self, of_set: Sequence[Tensor]) -> list[Tensor]:
        """Maps of a set, fine to coarse, from the maxima at three depths."""
        pooled = of_set[0]
        pairs = [torch.cat([pooled, pooled], dim=1)]
        for whole, of_frames in zip((self.set1, self.set2), of_set[1:], strict=True):
            pooled = self.run(whole, F.max_pool2d(pooled, 2)) + of_frames
            pairs.append(torch.cat([of_frames, pooled], dim=1))
        joined = self.lateral[2](pairs[2])
        found = [self.smooth[2](joined)]
        for i in (1, 0):
            joined = self.lateral[i](pairs[i]) + F.interpolate(joined, scale_factor=2)
            found.insert(0, self.smooth[i](joined))
        return found

    def _embed(self, maps: list[Tensor]) -> GaitOutput:
        parts = self.part_fc(torch.cat([self.part_pool(one) for one in maps], dim=1))
        if self.compact is None:
            return GaitOutput(embeddings=parts, logits=None)
        vector, logits = self.compact(parts)
        embeddings = vector if self.embedding == "compact" else parts
        return GaitOutput(embeddings=embeddings, logits=logits)


_KEYS = {
    f"{theirs}.{number}.conv.weight": f"{ours}.conv{1 + number // 2}.conv.weight"
    for theirs, ours in (
        *((f"sil_stage_{i}.forward_block", f"frames{i}.block") for i in (0, 1, 2)),
        *((f"set_stage_{i}", f"set{i}") for i in (1, 2)),
    )
    for number in (0, 2)
} | {
    f"{theirs}{i + 1}.weight": f"{ours}.{i}.weight"
    for theirs, ours in (("lateral_layer", "lateral"), ("smooth_layer", "smooth"))
    for i in range(3)
}
_KEYS |= {
    "Head.fc_bin": "part_fc.weight",
    "reduce_fc.weight": "compact.reduce.weight",
    "reduce_cls.weight": "compact.classifier.weight",
}
_KEYS |= {
    f"{theirs}.{name}": f"compact.{ours}.{name}"
    for theirs, ours in (("encoder_bn", "encoder_bn"), ("reduce_bn", "bn"))
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
}


def convert_checkpoint(state_dict: StateDict) -> StateDict:
    """Renames the authors' parameters to ours, of either phase.

    Args:
        state_dict: Parameters under the authors' names, without a ``module.`` prefix.

    Returns:
        The same tensors under this model's names.

    Raises:
        UnknownKeysError: If a name is not GLN's.
    """
    return rename_keys(state_dict, _KEYS.get, "GLN")


_LAYOUT_NOTE = (
    "Files of this release come from a time of another layout: embeddings are not touched by it, "
    "logits and compact vectors may be (not checked)."
)


def _cfg(tag: str, **fields: object) -> PretrainedCfg:
    return opengait_cfg(f"gln.{tag}", _PAPER, **{"embedding": "output", **fields})


_PHASE2 = {"compact": True}
_CFGS = {
    "casiab": _cfg(
        "casiab",
        input_size=(128, 88),
        training_data="CASIA-B, 74 subjects",
        metrics={
            "rank1": 96.4,
            "rank1_BG": 93.1,
            "rank1_CL": 81.0,
            "protocol": "CASIA-B, identical views excluded, without the compact block; rank1 is "
            "normal walking (NM)",
        },
    ),
    "phase1": _cfg(
        "phase1",
        input_size=(128, 88),
        notes="The first phase of training: no compact block and no classes.",
    ),
    "phase2": _cfg(
        "phase2",
        num_classes=74,
        input_size=(128, 88),
        model_args=_PHASE2,
        notes="The second phase of training, with the compact block.",
    ),
    "gait3d": _cfg(
        "gait3d",
        num_classes=3000,
        distance="cosine",
        model_args=_PHASE2,
        training_data="Gait3D, 3000 subjects",
        metrics={"rank1": 31.4, "protocol": "Gait3D probe list against the rest, 64 pixels"},
        notes=_LAYOUT_NOTE,
    ),
    "gait3d_128": _cfg(
        "gait3d_128",
        num_classes=3000,
        distance="cosine",
        input_size=(128, 88),
        model_args=_PHASE2,
        training_data="Gait3D, 3000 subjects",
        metrics={"rank1": 42.2, "protocol": "Gait3D probe list against the rest, 128 pixels"},
        notes=_LAYOUT_NOTE,
    ),
    "gait3d_parsing": _cfg(
        "gait3d_parsing",
        num_classes=3000,
        distance="cosine",
        modalities=("parsing",),
        value_range=(0.0, 11.0),
        model_args=_PHASE2,
        training_data="Gait3D-Parsing, 3000 subjects",
        metrics={
            "rank1": 45.7,
            "mAP": 38.6,
            "protocol": "Gait3D probe list against the rest, parsing maps instead of silhouettes",
        },
    ),
}
register_model(
    "gln",
    GLN,
    _CFGS,
    convert=convert_checkpoint,
    tiny=PretrainedCfg(
        num_classes=5,
        embedding="output",
        model_args={
            "channels": (2, 3, 4),
            "lateral_channels": 4,
            "part_bins": (4, 2),
            "compact": True,
        },
        input_size=(16, 12),
    ),
)
