"""What a model takes over from the encoder of its first stage: the network, its map, its head."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from gaitzoo.layers.checks import plain_values
from gaitzoo.layers.heads import PartBNNeck, PartLinear
from gaitzoo.layers.pooling import HorizontalPyramidPooling

__all__ = ["copy_head", "make_encoder", "map_shape"]


def make_encoder(
    encoder: str | nn.Module, arguments: Mapping[str, Any] | None, pretrained: bool, channels: int
) -> nn.Module:
    """Stage 1 by name, or a copy of a module; see :class:`GaitLLM`.

    Args:
        encoder: Name or module.
        arguments: Its structure.
        pretrained: Load published weights.
        channels: Channels of the input.

    Raises:
        TypeError: If there is no ``forward_features``.
        ValueError: If the structure is another one.
    """
    arguments = dict(arguments or {})
    if isinstance(encoder, str) and ":" not in encoder:
        # Here, because the factory stands above the models: this one contains another.
        from gaitzoo.hub.factory import create_model

        if channels != 1:
            arguments.setdefault("in_channels", channels)
        return create_model(encoder, pretrained, **arguments)
    if pretrained:
        raise ValueError(
            "expected encoder_pretrained=True with the name of a model only; saved models and "
            "modules have their weights"
        )
    if isinstance(encoder, str):
        from gaitzoo.hub.factory import create_model

        built: nn.Module = create_model(encoder)
    else:
        if not hasattr(encoder, "forward_features"):
            raise TypeError(
                "expected the encoder as a name or a module with forward_features, got "
                f"{type(encoder).__name__}"
            )
        built = copy.deepcopy(encoder)
    found, asked = plain_values(getattr(built, "model_args", {})), plain_values(arguments)
    other = {key: found.get(key) for key in asked if found.get(key) != asked[key]}
    if other:
        wanted = {key: asked[key] for key in other}
        raise ValueError(
            f"expected an encoder built with {wanted}, got {other}; pass encoder_args=None to take "
            "it as it is"
        )
    return built


@torch.no_grad()
def map_shape(
    encoder: nn.Module, in_channels: int, input_size: tuple[int, int]
) -> tuple[int, int, int]:
    """Channels, rows and columns of an encoder's map, found with one empty clip.

    Args:
        encoder: Has ``forward_features``.
        in_channels: Channels of the input.
        input_size: Height and width of a frame.

    Raises:
        ValueError: If it gives no map ``[N, C, T', H', W']`` with lengths.
    """
    weight = next(encoder.parameters(), torch.zeros(()))
    clip = weight.new_zeros(1, in_channels, 1, *input_size)
    result = encoder.eval().forward_features(clip, None)  # pyright: ignore[reportCallIssue]
    if not isinstance(result, tuple) or len(result) != 2 or result[0].ndim != 5:
        raise ValueError(
            "expected an encoder whose forward_features gives (features [N, C, T, H, W], lengths), "
            f"got {type(result).__name__} from {type(encoder).__name__}"
        )
    return result[0].shape[1], result[0].shape[3], result[0].shape[4]


@torch.no_grad()
def copy_head(
    encoder: nn.Module,
    part_bins: tuple[int, ...],
    part_fc: PartLinear,
    neck: PartBNNeck,
    *,
    warm: bool | None,
) -> None:
    """Copies the encoder's own matrices, statistics and classes to all parts but the last.

    Args:
        encoder: Stage 1.
        part_bins: Horizontal bands of the new head.
        part_fc: The new head's matrices, changed in place.
        neck: The new head's batch norm and classifier, changed in place.
        warm: ``None`` = copy what fits; ``True`` = it must fit; ``False`` = copy nothing.

    Raises:
        ValueError: If it must fit and does not.
    """
    own_fc, own_neck = getattr(encoder, "part_fc", None), getattr(encoder, "neck", None)
    own_pool = getattr(encoder, "part_pool", None)
    num_parts, num_features = part_fc.weight.shape[0], part_fc.weight.shape[2]
    wanted = (num_parts - 1, *part_fc.weight.shape[1:])
    fits = (
        isinstance(own_fc, PartLinear)
        and isinstance(own_neck, PartBNNeck)
        and own_fc.weight.shape == wanted
        and isinstance(own_pool, HorizontalPyramidPooling)
        and own_pool.part_bins == part_bins
    )
    if warm and not fits:
        raise ValueError(
            f"expected an encoder with a head of {wanted[0]} parts of {wanted[1]} and "
            f"{wanted[2]} channels for warm_start_head=True, got none; leave it out"
        )
    if warm is False or not fits:
        return
    assert isinstance(own_fc, PartLinear)
    assert isinstance(own_neck, PartBNNeck)
    part_fc.weight[:-1] = own_fc.weight
    for key in ("weight", "bias", "running_mean", "running_var"):
        new, own = getattr(neck.bn, key), getattr(own_neck.bn, key)
        if own_neck.order == "part":
            new.view(num_parts, num_features)[:-1] = own.view(-1, num_features)
        else:
            new.view(num_features, num_parts)[:, :-1] = own.view(num_features, -1)
    new, own = neck.classifier, own_neck.classifier
    if new and own and new.weight.shape[2] == own.weight.shape[2]:
        new.weight[:-1] = own.weight
