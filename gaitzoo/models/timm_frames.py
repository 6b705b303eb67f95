"""Any image network of timm as a gait encoder: every frame alone, then pooled as in GaitBase.

The scheme, frames through a network for images, maximum over time, horizontal bands, a matrix per
band and a batch-norm neck, is that of GaitBase (https://arxiv.org/abs/2211.06597); the networks
come from timm (https://github.com/huggingface/pytorch-image-models) and nothing of it is contained
here. Nobody has published gait weights for these; timm's weights for photographs can be the start.

timm is imported when the first such model is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from gaitzoo.layers.checks import check_size
from gaitzoo.layers.residual import FrameWise
from gaitzoo.models.base import init_weights, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.max_pooled import MaxPooled
from gaitzoo.models.registry import register_model
from gaitzoo.models.timm_builder import (
    TimmBuilder,
    channels_stand_last,
    check_backbone_args,
)

__all__ = ["TimmFrames"]

_MOST_PARTS = 16


class TimmFrames(MaxPooled):
    """A timm network on every frame, the maximum over time, horizontal bands, a BN neck.

    The network must give maps ``[N, C, H, W]``: convolutional ones do, and those transformers
    whose tokens stand on a grid. Those that cannot be used raise ``ValueError`` with the reason;
    the documentation lists them.

    The order of frames never matters. Batch-norm statistics see what is in the batch: train on
    clips of equal length, or freeze. Silhouettes go in as they are, in [0, 1]: timm's mean and
    standard deviation of photographs are not applied.

    Args:
        backbone: Name of a timm model, also with its tag (``"resnet18.a1_in1k"``).
        num_classes: Training identities, 0 = no classifier.
        in_channels: Channels of the input, given to timm as ``in_chans``; pretrained first layers
            are converted by timm.
        input_size: Height and width of the frames, pixels. Sizes the bands. Networks that cannot
            read any size are built for it rounded up to whole patches (mostly to multiples of 32),
            and frames get empty margins.
        out_index: Which of timm's feature levels to use, as in ``out_indices``; negative counts
            from the last. ``None`` = the deepest map with 8 rows or more, else the deepest of
            those with the most rows. What comes after it is left out.
        part_bins: Numbers of horizontal bands; each must divide the rows of the map. ``None`` =
            one band per row, or the largest divisor of the rows up to 16.
        channels: Channels of the embeddings.
        embedding: What is compared: ``"fc"``, the part vectors before batch norm, or
            ``"bnneck"``, after it, each of length one.
        pretrained_backbone: Start from timm's weights, which timm downloads. A model saved
            afterwards carries its own weights and never downloads them again.
        backbone_args: More arguments for ``timm.create_model``, for example
            ``{"output_stride": 8}``. Those that have another name here, files of weights and
            places are refused.

    Shapes:
        silhouettes: ``[N, T, H, W]`` in [0, 1] or uint8 0..255; ``[N, C, T, H, W]`` for any
            number of channels.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: :class:`GaitOutput` with ``embeddings [N, P, channels]``.

    Raises:
        ValueError: If an argument has none of the values named here, timm has no such model or no
            weights for it, it gives no maps, cannot read frames of ``input_size``, or the bands
            do not divide the map's rows.
        TypeError: If ``pretrained_backbone`` is not ``True`` or ``False``.
        ConnectionError: If timm cannot get the weights.

    Example:
        >>> model = TimmFrames(backbone="test_resnet", num_classes=0, channels=8).eval()
        >>> model(torch.rand(2, 3, 64, 44), lengths=torch.tensor([3, 1])).embeddings.shape
        torch.Size([2, 8, 8])
    """

    architecture = "timm_frames"

    @record_args
    def __init__(
        self,
        *,
        backbone: str = "resnet18",
        num_classes: int = 74,
        in_channels: int = 1,
        input_size: tuple[int, int] = (64, 44),
        out_index: int | None = None,
        part_bins: tuple[int, ...] | None = None,
        channels: int = 256,
        embedding: str = "fc",
        pretrained_backbone: bool = False,
        backbone_args: Mapping[str, Any] | None = None,
    ) -> None:
        _check_arguments(backbone, in_channels, input_size, out_index, channels)
        if not isinstance(pretrained_backbone, bool):
            raise TypeError(
                f"expected pretrained_backbone=True or False, got {pretrained_backbone!r}; a tag "
                "of timm's is part of the name, as in backbone='resnet18.a1_in1k'"
            )
        check_backbone_args(backbone_args)
        height, width = input_size
        super().__init__(embedding=self.side_of(embedding))
        self.in_channels = in_channels
        self.embedding = embedding
        builder = TimmBuilder(backbone, in_channels, (height, width), dict(backbone_args or {}))
        network = builder.build(out_index, pretrained_backbone)
        self.grid_size = builder.grid_size
        map_channels, rows, _ = builder.map_shapes(network)[0]
        self.frames = FrameWise(_OneMap(network))
        bins = (_default_bins(rows),) if part_bins is None else part_bins
        self.build_head(map_channels, channels, bins, num_classes)
        wrong = [bins for bins in self.part_pool.part_bins if rows % bins]
        if wrong:
            raise ValueError(
                f"expected part_bins that divide the {rows} rows of the map of {backbone} for "
                f"frames of {height}x{width}, got {tuple(self.part_pool.part_bins)}"
                f"; leave part_bins out for {_default_bins(rows)}, or choose another out_index"
            )
        init_weights(self.neck)
        # Saved weights replace timm's: building the model again must not download them.
        self.model_args["pretrained_backbone"] = False

    def forward_features(
        self, silhouettes: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Computes the map before temporal pooling; time keeps its length.

        Args:
            silhouettes: As for the model's call.
            lengths: As for the model's call.

        Returns:
            ``features`` ``[N, C, T, H', W']`` of the chosen level, and ``lengths``. What stands
            past the end of a sequence holds no meaning.

        Raises:
            ValueError: If the network is made for smaller frames.
        """
        x, lengths = self.prepare(silhouettes, lengths)
        if self.grid_size is not None:
            x = _with_margins(x, self.grid_size)
        return self.run(self.frames, x), lengths

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """See :attr:`GaitModel.feature_modules`: timm's network gives one map."""
        return ("frames",)

    def temporal_reach(self) -> tuple[int, int]:
        """See :meth:`GaitModel.temporal_reach`: frames never see each other."""
        return 0, 1

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trades time for memory in training, by timm's own means where the network has them.

        timm computes each stage or block again. Networks without such means are computed again
        as a whole. timm's way counts the statistics of batch norms twice per step.

        Args:
            enable: Whether to compute again.
        """
        network = self.frames.block.network
        for owner in (network, getattr(network, "model", None)):
            if hasattr(owner, "set_grad_checkpointing"):
                owner.set_grad_checkpointing(enable)  # pyright: ignore
                return
        super().set_grad_checkpointing(enable)


class _OneMap(nn.Module):
    """A timm network that gives a list with one map, as one that gives a map ``[B, C, H, W]``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor) -> Tensor:
        features = self.network(frames)[0]
        return features.permute(0, 3, 1, 2) if channels_stand_last(self.network) else features


def _check_arguments(
    backbone: str,
    in_channels: int,
    input_size: tuple[int, int],
    out_index: int | None,
    channels: int,
) -> None:
    if not isinstance(backbone, str):
        raise ValueError(f"expected backbone as the name of a timm model, got {backbone!r}")
    check_size(in_channels=in_channels, channels=channels)
    pair = isinstance(input_size, tuple | list) and len(input_size) == 2
    if not pair or any(type(n) is not int or n < 1 for n in input_size):
        raise ValueError(f"expected input_size as (height, width) in pixels, got {input_size!r}")
    if out_index is not None and type(out_index) is not int:
        raise ValueError(f"expected out_index as a whole number or None, got {out_index!r}")


def _default_bins(rows: int) -> int:
    """One band per row; of more than 16 rows, their largest divisor up to 16."""
    return max(bins for bins in range(1, _MOST_PARTS + 1) if rows % bins == 0)


def _with_margins(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Puts frames into the middle of larger empty ones."""
    missing = [wanted - found for wanted, found in zip(size, x.shape[3:], strict=True)]
    if min(missing) < 0:
        raise ValueError(
            f"expected frames of at most {size[0]}x{size[1]} pixels, which this backbone was built "
            f"for, got {x.shape[3]}x{x.shape[4]}; build the model with "
            f"input_size=({x.shape[3]}, {x.shape[4]})"
        )
    top, left = missing[0] // 2, missing[1] // 2
    return nn.functional.pad(x, (left, missing[1] - left, top, missing[0] - top))


def _cfg(**fields: object) -> PretrainedCfg:
    return PretrainedCfg(
        paper="https://arxiv.org/abs/2211.06597",
        origin="https://github.com/huggingface/pytorch-image-models",
        unavailable=(
            "nobody has published gait weights for timm backbones. Train the model yourself; "
            "pretrained_backbone=True starts from timm's weights for photographs"
        ),
        **fields,  # pyright: ignore[reportArgumentType]
    )


_TINY_ARGS = {
    "backbone": "test_resnet",
    "input_size": (16, 12),
    "out_index": 1,
    "channels": 4,
    # timm starts residual branches at zero, which leaves their weights without gradient at first.
    "backbone_args": {"zero_init_last": False},
}


register_model(
    "timm_frames",
    TimmFrames,
    {"casiab": _cfg(num_classes=74)},
    tiny=_cfg(num_classes=5, model_args=_TINY_ARGS, input_size=(16, 12)),
)
