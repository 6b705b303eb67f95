"""Any image network of timm as a gait encoder: every frame alone, then pooled as in GaitBase.

The scheme, frames through a network for images, maximum over time, horizontal bands, a matrix per
band and a batch-norm neck, is that of GaitBase (https://arxiv.org/abs/2211.06597); the networks
come from timm (https://github.com/huggingface/pytorch-image-models) and nothing of it is contained
here. Nobody has published gait weights for these; timm's weights for photographs can be the start.

timm is imported when the first such model is built.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gaitzoo.layers.checks import check_size
from gaitzoo.layers.conv import guard_convolutions
from gaitzoo.layers.heads import PartBNNeck, PartLinear
from gaitzoo.layers.pooling import HorizontalPyramidPooling, TemporalMax
from gaitzoo.layers.residual import FrameWise
from gaitzoo.models.base import init_weights, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.max_pooled import MaxPooled
from gaitzoo.models.registry import register_model

__all__ = ["TimmFrames"]

# Networks that cannot read frames of any size get a size that all their strides divide.
_GRID = 32
_MOST_PARTS = 16
_FEWEST_ROWS = 8
# What timm raises for a network without maps, or one that cannot read frames of this size.
_TIMM_ERRORS = (
    RuntimeError,
    AssertionError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)

# What timm.create_model takes, but backbone_args may not: it could run code or change the frames.
_OWN_ARGUMENTS = {
    "in_chans": "use in_channels",
    "img_size": "use input_size",
    "out_indices": "use out_index",
    "features_only": "it is always on",
    "checkpoint_path": "load your file into timm's network and copy the state dict",
    "cache_dir": "set HF_HOME",
    "device": "move the model with .to(...)",
    "dtype": "convert the model with .to(...)",
}


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
        _check_backbone_args(backbone_args)
        height, width = input_size
        super().__init__(embedding=self.side_of(embedding))
        self.in_channels = in_channels
        self.embedding = embedding
        builder = _Builder(backbone, in_channels, (height, width), dict(backbone_args or {}))
        network = builder.build(out_index, pretrained_backbone)
        self.grid_size = builder.grid_size
        map_channels, rows, _ = builder.map_shapes(network)[0]
        self.frames = FrameWise(_OneMap(network))
        self.temporal_pool = TemporalMax()
        self.part_pool = HorizontalPyramidPooling(
            (_default_bins(rows),) if part_bins is None else part_bins
        )
        wrong = [bins for bins in self.part_pool.part_bins if rows % bins]
        if wrong:
            raise ValueError(
                f"expected part_bins that divide the {rows} rows of the map of {backbone} for "
                f"frames of {height}x{width}, got {tuple(self.part_pool.part_bins)}"
                f"; leave part_bins out for {_default_bins(rows)}, or choose another out_index"
            )
        self.num_parts = self.part_pool.num_parts
        self.num_features = channels
        self.part_fc = PartLinear(self.num_parts, map_channels, channels)
        self.neck = PartBNNeck(self.num_parts, channels, num_classes, order="channel")
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
        return features.permute(0, 3, 1, 2) if _channels_stand_last(self.network) else features


class _Builder:
    """Builds timm's network for one map per frame.

    Args:
        name: timm's name.
        in_channels: Channels of a frame.
        input_size: Height and width of a frame, pixels.
        arguments: For ``timm.create_model``.

    Attributes:
        is_fixed: Whether timm builds the network for frames of one size.
        grid_size: Size that frames are brought to by empty margins; ``None`` = they stay.
    """

    def __init__(
        self, name: str, in_channels: int, input_size: tuple[int, int], arguments: dict[str, Any]
    ) -> None:
        self.name, self.in_channels, self.input_size = name, in_channels, input_size
        self.arguments = arguments
        self.is_fixed = _has_fixed_size(name)
        self.grid_size = _rounded_up(input_size, _GRID) if self.is_fixed else None

    def build(self, out_index: int | None, pretrained: bool) -> nn.Module:
        """The network, cut off after the map that is used."""
        levels = {} if out_index is None else {"out_indices": (out_index,)}
        network = self._create(pretrained=False, **levels)
        grid_size = _rounded_up(self.input_size, _grid_step(network))
        if self.is_fixed and grid_size != self.grid_size:
            self.grid_size = grid_size
            network = self._create(pretrained=False, **levels)
        try:
            shapes = self.map_shapes(network)
        except ValueError:
            if self.is_fixed or grid_size == self.input_size:
                raise
            # Some networks halve the map and join it again, which odd sizes do not allow.
            self.grid_size = grid_size
            shapes = self.map_shapes(network)
        if out_index is None:
            rows = [shape[1] for shape in shapes]
            wanted = min(_FEWEST_ROWS, max(rows))
            level = max(i for i, count in enumerate(rows) if count >= wanted)
            out_index = list(network.feature_info.out_indices)[level]
        if pretrained:
            _check_has_weights(self.name)
        return self._create(pretrained, out_indices=(out_index,))

    def _create(self, pretrained: bool, **arguments: Any) -> Any:
        import timm

        if self.is_fixed:
            arguments["img_size"] = self.grid_size
        try:
            network = timm.create_model(
                self.name,
                pretrained=pretrained,
                features_only=True,
                in_chans=self.in_channels,
                **{**arguments, **self.arguments},
            )
        except OSError as error:
            raise ConnectionError(
                f"cannot get timm's weights of {self.name!r}: {error}; is the network up, is "
                "HF_HUB_OFFLINE set? pretrained_backbone=False starts from random weights"
            ) from error
        except _TIMM_ERRORS as error:
            raise ValueError(
                f"expected a timm backbone that gives feature maps, got {self.name!r}, which timm "
                f"{timm.__version__} cannot build as one: {error}; choose another, for example "
                "'resnet18'"
            ) from error
        guard_convolutions(network)
        return network

    @torch.no_grad()
    def map_shapes(self, network: nn.Module) -> list[tuple[int, int, int]]:
        """Channels, rows and columns of every map, found with one empty frame."""
        height, width = self.grid_size or self.input_size
        weight = next(network.parameters())
        network.eval()
        try:
            maps = network(weight.new_zeros(1, self.in_channels, height, width))
        except _TIMM_ERRORS as error:
            raise ValueError(
                "expected a timm backbone that reads frames of "
                f"{self.input_size[0]}x{self.input_size[1]} pixels, got {self.name!r}, which does "
                f"not (tried with margins up to {height}x{width}): {error}; give a larger "
                "input_size or an early out_index, or choose another backbone"
            ) from error
        network.train()
        if any(not isinstance(one, Tensor) or one.ndim != 4 for one in maps):
            raise ValueError(
                f"expected a timm backbone that gives maps [B, C, H, W], got {self.name!r}, whose "
                "features have other shapes; choose another, for example 'resnet18'"
            )
        shapes = [tuple(one.shape[1:]) for one in maps]
        if _channels_stand_last(network):
            shapes = [(width, rows, columns) for rows, columns, width in shapes]
        return shapes


def _channels_stand_last(network: nn.Module) -> bool:
    return str(getattr(network, "output_fmt", None) or "NCHW").endswith("NHWC")


def _has_fixed_size(name: str) -> bool:
    """Whether timm builds this network for frames of one size."""
    import timm

    if not timm.is_model(name):
        closest = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.0)
        raise ValueError(
            f"unknown timm model {name!r}; closest names: {', '.join(closest)}. "
            "timm.list_models() gives all"
        )
    architecture, _, tag = name.partition(".")
    tags = timm.list_pretrained(f"{architecture}.*")
    if tag and name not in tags:
        raise ValueError(
            f"unknown tag {tag!r} of the timm model {architecture!r}; expected one of: "
            f"{', '.join(known.partition('.')[2] for known in tags) or 'none'}"
        )
    cfg = timm.get_pretrained_cfg(name)
    return cfg is not None and cfg.fixed_input_size


def _check_has_weights(name: str) -> None:
    import timm

    cfg = timm.get_pretrained_cfg(name)
    if cfg is None or not cfg.has_weights:
        raise ValueError(
            f"expected a timm backbone with weights for pretrained_backbone=True, got {name!r}, "
            "for which timm has none; timm.list_models(pretrained=True) gives all that have, "
            "pretrained_backbone=False starts from random weights"
        )


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


def _check_backbone_args(backbone_args: Mapping[str, Any] | None) -> None:
    if backbone_args is None:
        return
    if not isinstance(backbone_args, Mapping) or not all(isinstance(k, str) for k in backbone_args):
        raise ValueError(
            "expected backbone_args as a mapping of timm.create_model's arguments, got "
            f"{backbone_args!r}"
        )
    for key in backbone_args:
        advice = _OWN_ARGUMENTS.get(key)
        if key.startswith("pretrained"):
            advice = "use pretrained_backbone=True and a tag in backbone"
        if advice is not None:
            raise ValueError(f"expected backbone_args without {key!r}, got it; {advice}")


def _grid_step(network: nn.Module) -> int:
    """What sizes must be multiples of: patches leave out pixels that fill none."""
    model = getattr(network, "model", network)
    patches = getattr(model, "patch_embed", None)
    patches = patches or getattr(getattr(model, "encoder", None), "patch_embed", None)
    patch = getattr(patches, "patch_size", None) or _GRID
    patch = patch if isinstance(patch, int) else patch[0]
    return patch if _GRID % patch else _GRID


def _rounded_up(size: tuple[int, int], step: int) -> tuple[int, int]:
    height, width = (-(-pixels // step) * step for pixels in size)
    return height, width


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
