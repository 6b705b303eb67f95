"""Networks of timm (https://github.com/huggingface/pytorch-image-models) cut down to one map.

timm is imported when the first one is built.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gaitzoo.layers.conv import guard_convolutions

__all__ = ["TimmBuilder", "channels_stand_last", "check_backbone_args"]

# Networks that cannot read frames of any size get a size that all their strides divide.
_GRID = 32
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


class TimmBuilder:
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
        """The network, cut off after the map that is used.

        Args:
            out_index: Which of timm's feature levels; ``None`` = see :class:`TimmFrames`.
            pretrained: Load timm's weights.

        Raises:
            ValueError: If timm has no such model or weights, or it gives no maps of these frames.
            ConnectionError: If timm cannot get the weights.
        """
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
        """Channels, rows and columns of every map, found with one empty frame.

        Args:
            network: From :meth:`build`.

        Raises:
            ValueError: If it does not read frames of this size, or gives no maps.
        """
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
        if channels_stand_last(network):
            shapes = [(width, rows, columns) for rows, columns, width in shapes]
        return shapes


def channels_stand_last(network: nn.Module) -> bool:
    """Whether the maps of a timm network are ``[B, H, W, C]``.

    Args:
        network: Built with ``features_only``.
    """
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


def check_backbone_args(backbone_args: Mapping[str, Any] | None) -> None:
    """Raises unless these may be arguments of ``timm.create_model``.

    Args:
        backbone_args: As for :class:`TimmFrames`.

    Raises:
        ValueError: If they are no mapping, or one has another name there or could run code.
    """
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
