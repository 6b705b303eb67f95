"""RRS-Gait: a residual network with reflected, rotated and scaled kernels behind it.

Paper: https://arxiv.org/abs/2601.05604. A reconstruction from the abstract: no code was found,
nothing of it is contained here, and no number of the authors' is to be expected. From the abstract:
kernels are changed by reflection, rotation and scale, and each of the three features goes through a
global pooling of its own. [inferred], and arguments: the trunk, where the branches stand and what
they are made of, angles and scales, bands beside the global parts, the losses (those of the
OpenGait family).
"""

from __future__ import annotations

from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from gaitzoo.layers.checks import check_size
from gaitzoo.layers.heads import PartBNNeck, PartLinear
from gaitzoo.layers.residual import ResidualBackbone
from gaitzoo.layers.rrs import RRSHead
from gaitzoo.models.base import init_weights, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.max_pooled import MaxPooled
from gaitzoo.models.outputs import GaitOutput
from gaitzoo.models.registry import register_model

__all__ = ["RRSGait"]

_PAPER = "https://arxiv.org/abs/2601.05604"


class RRSGait(MaxPooled):
    """RRS-Gait, a reconstruction: a trunk, branches of transformed kernels, a BN neck.

    Source: https://arxiv.org/abs/2601.05604, abstract; what is inferred is said at the top of this
    file. The invariance is the branches' own: how a trunk with plain kernels changes with its input
    is not controlled. ``replace_convs(model, "reflect")`` and ``downsample="avg"`` make the whole
    network invariant. Train on clips of equal length, as :class:`DeepGaitV2`, without
    random mirroring where the invariance is to be measured.

    Args:
        num_classes: Training identities, 0 = no classifier.
        in_channels: Channels of the input.
        mode: Blocks of the trunk, ``"2d"``, ``"3d"`` or ``"p3d"`` (:class:`ResidualBackbone`); the
            branches are ``"2d"`` behind ``"2d"`` and ``"p3d"`` otherwise.
        layers: Blocks of each of the trunk's four layers.
        channels: Widths of the four layers; embeddings have ``channels[2]`` channels.
        branches: Kinds of branches; see :class:`RRSHead`, and so for the next seven.
        depth: Blocks of each branch.
        pool: ``"global"``, ``"hpp"`` or ``"both"``.
        num_bands: Bands of rows.
        angles: Of the rotation, degrees.
        scales: Of the scale.
        scale_mode: ``"dilate"`` or ``"resize"``.
        reduce: ``"max"`` or ``"mean"``.
        placement: ``"head"`` (branches behind the trunk) or ``"stage4"`` (instead of its last
            layer).
        downsample: ``"stride"`` (as trunks usually do) or ``"avg"``: means of two rows and columns
            (of three around every second one where their number is odd), then a step of 1, which
            mirrors of any width survive.
        trunk: A network to use instead, called with ``[N, C, T, H, W]`` and ``lengths``, that gives
            ``[N, C', T, H', W']``; zeros stand past the end of a sequence. ``layers``,
            ``placement`` and ``downsample`` then say nothing.
        trunk_channels: C' of a ready trunk.
        head: A ready head to use instead; the arguments of :class:`RRSHead` then say nothing.
        embedding: What is compared: ``"fc"`` or ``"bnneck"``, as for :class:`DeepGaitV2`.

    Shapes:
        silhouettes: ``[N, T, H, W]`` in [0, 1] or uint8 0..255; ``[N, C, T, H, W]`` for any number
            of channels.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: :class:`GaitOutput` with ``embeddings [N, P, channels[2]]``, P = 3 * 17 parts by
            default: the bands and the global part of each branch.

    Raises:
        TypeError: If trunk or head are of another type.
        ValueError: If an argument has none of the values named here.

    Example:
        >>> model = RRSGait(num_classes=7, layers=(1, 1, 1, 1), channels=(4, 4, 8, 8)).eval()
        >>> output = model(torch.rand(2, 4, 64, 44), lengths=torch.tensor([4, 1]))
        >>> output.embeddings.shape, output.logits.shape
        (torch.Size([2, 51, 8]), torch.Size([2, 51, 7]))
    """

    architecture = "rrs_gait"

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 3000,
        in_channels: int = 1,
        mode: str = "p3d",
        layers: tuple[int, ...] = (1, 4, 4, 1),
        channels: tuple[int, ...] = (64, 128, 256, 512),
        branches: tuple[str, ...] = ("reflect", "rotate", "scale"),
        depth: int = 1,
        pool: Literal["global", "hpp", "both"] = "both",
        num_bands: int = 16,
        angles: tuple[float, ...] = (-15.0, 0.0, 15.0),
        scales: tuple[int, ...] = (1, 2),
        scale_mode: Literal["dilate", "resize"] = "dilate",
        reduce: Literal["max", "mean"] = "max",
        placement: Literal["head", "stage4"] = "head",
        downsample: Literal["stride", "avg"] = "stride",
        trunk: nn.Module | None = None,
        trunk_channels: int | None = None,
        head: RRSHead | None = None,
        embedding: str = "fc",
    ) -> None:
        super().__init__(embedding=self.side_of(embedding))
        if placement not in ("head", "stage4"):
            raise ValueError(f'expected placement "head" or "stage4", got {placement!r}')
        if downsample not in ("stride", "avg"):
            raise ValueError(f'expected downsample "stride" or "avg", got {downsample!r}')
        self.in_channels, self.embedding = in_channels, embedding
        if trunk is None:
            count = 4 if placement == "head" else 3
            built = _trunk(mode, layers[:count], channels[:count], in_channels, downsample)
            width = channels[count - 1]
            init_weights(built)
        else:
            built, width = _ready(trunk, trunk_channels)
        self.backbone = built
        if head is None:
            head = RRSHead(
                width,
                channels[2],
                branches,
                depth=depth,
                mode="2d" if mode == "2d" else "p3d",
                pool=pool,
                num_bands=num_bands,
                angles=angles,
                scales=scales,
                scale_mode=scale_mode,
                reduce=reduce,
            )
            init_weights(head)
        elif not isinstance(head, RRSHead):
            raise TypeError(f"expected head as an RRSHead or None, got {type(head).__name__}")
        self.head = head
        self.num_parts, self.num_features = head.num_parts, head.out_channels
        self.part_fc = PartLinear(self.num_parts, self.num_features, self.num_features)
        self.neck = PartBNNeck(self.num_parts, self.num_features, num_classes)
        init_weights(self.neck)

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """See :attr:`GaitModel.feature_modules`: the stem and the trunk's layers, if it is ours."""
        if not isinstance(self.backbone, ResidualBackbone):
            return ()
        return self.backbone.stage_names("backbone.")

    def temporal_reach(self) -> tuple[int, int] | None:
        """See :meth:`GaitModel.temporal_reach`; ``None`` with a ready trunk of another kind."""
        if not isinstance(self.backbone, ResidualBackbone):
            return None
        return self.backbone.reach() + self.head.reach(), 1

    def forward_features(
        self, silhouettes: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Computes the maps of all branches before temporal pooling; time keeps its length.

        Args:
            silhouettes: As for the model's call.
            lengths: As for the model's call.

        Returns:
            ``features`` ``[N, B * C, T, H / 4, W / 4]`` (both rounded up), the maps of B branches
            one behind the other along the channels, and ``lengths``. What stands past the end of a
            sequence holds no meaning.
        """
        x, lengths = self.prepare(silhouettes, lengths)
        if isinstance(self.backbone, ResidualBackbone):
            x = self.backbone(x, lengths, self.run)
        else:
            x = self.run(self.backbone, x, lengths)
        return self.head.maps(x, lengths, self.run), lengths

    def forward_head(self, features: Tensor, lengths: Tensor | None = None) -> GaitOutput:
        """Pools the maps of every branch by themselves and embeds every part."""
        return self.embed_parts(self.head.pool(features, lengths))


class _Halved(nn.Module):
    """Maps of half the height and width, as a mirror leaves them, before a block with a step of 1.

    Even sizes are halved by means of two, odd ones by means of the three around every second one
    (two at the borders).

    Args:
        block: Takes ``[B, C, H, W]``, or ``[N, C, T, H, W]`` and ``lengths``.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, *lengths: Tensor | None) -> Tensor:
        """Returns what the block makes of the smaller map."""
        odd = [size % 2 for size in x.shape[-2:]]
        images = x.flatten(0, 1) if x.ndim == 5 else x
        halved = F.avg_pool2d(
            images,
            [2 + one for one in odd],
            stride=2,
            padding=odd,
            count_include_pad=False,
        )
        return self.block(halved.unflatten(0, x.shape[:2]) if x.ndim == 5 else halved, *lengths)


def _trunk(
    mode: str,
    layers: tuple[int, ...],
    channels: tuple[int, ...],
    in_channels: int,
    downsample: str,
) -> ResidualBackbone:
    if downsample == "stride":
        return ResidualBackbone(mode, layers, channels, in_channels)
    backbone = ResidualBackbone(mode, layers, channels, in_channels, strides=(1, 1, 1, 1))
    for layer in (backbone.layers[1], backbone.layers[2]):
        layer[0] = _Halved(layer[0])  # pyright: ignore[reportIndexIssue, reportArgumentType]
    return backbone


def _ready(trunk: object, channels: int | None) -> tuple[nn.Module, int]:
    """A trunk that was handed over, and its channels."""
    if not isinstance(trunk, nn.Module):
        raise TypeError(f"expected trunk as a module or None, got {type(trunk).__name__}")
    check_size(trunk_channels=channels)
    assert channels is not None
    return trunk, channels


_10_LAYERS = {"layers": (1, 1, 1, 1)}
_22_LAYERS = {"layers": (1, 4, 4, 1)}


def _cfg(num_classes: int, **fields: Any) -> PretrainedCfg:
    return PretrainedCfg(
        num_classes=num_classes,
        paper=_PAPER,
        fidelity="reconstruction",
        unavailable="neither code nor weights have been published; train the model yourself",
        **fields,
    )


register_model(
    "rrs_gait",
    RRSGait,
    {
        "gait3d": _cfg(3000, model_args=_22_LAYERS),
        "grew": _cfg(20000, model_args=_22_LAYERS),
        "ccpg": _cfg(100, model_args=_10_LAYERS),
        "sustech1k": _cfg(250, model_args=_10_LAYERS),
    },
    tiny=PretrainedCfg(
        num_classes=5,
        model_args={"channels": (2, 3, 4, 5), "layers": (1, 1, 1, 1), "num_bands": 4},
        input_size=(16, 12),
        fidelity="reconstruction",
    ),
)
