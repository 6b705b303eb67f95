"""Encoders inside other models: built by name or handed over, cut off behind their part vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from gaitzoo.layers.heads import PartBNNeck, SharedBNNeck
from gaitzoo.models.base import GaitModel
from gaitzoo.models.recorded import ReadyModule
from gaitzoo.models.registry import find_architecture, is_model, model_info

__all__ = ["NoNeck", "build_encoder", "check_encoder", "encoder_description", "without_neck"]


class NoNeck(nn.Module):
    """Stands where a neck was taken off: part vectors stay as they are, without classes."""

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """Returns the part vectors and no class scores."""
        return x, None


def build_encoder(name: str, arguments: Mapping[str, Any]) -> GaitModel:
    """A fresh encoder without classes."""
    cfg, entry = model_info(name), find_architecture(name.partition(".")[0])
    classes = {} if entry.classifier_key is None else {"num_classes": 0}
    model = entry.build(**{**cfg.model_args, **arguments, **classes})
    if cfg.modalities:
        model.modalities = cfg.modalities
    return check_encoder(model)


def check_encoder(encoder: Any) -> GaitModel:
    """The encoder, or an error that says why it cannot be one."""
    if not isinstance(encoder, GaitModel):
        raise TypeError(
            "expected the encoder as a name or a gaitzoo model, got "
            f"{type(encoder).__name__}; derive its class from gaitzoo.GaitModel"
        )
    kind = type(encoder)
    if kind.forward_features is GaitModel.forward_features or encoder.fused:
        raise ValueError(
            "expected a plain encoder with forward_features and forward_head, got "
            f"{'a fused' if encoder.fused else 'a'} {kind.__name__}"
        )
    if encoder.modalities != ("silhouettes",):
        raise ValueError(
            f"expected an encoder of silhouettes, got one of {', '.join(encoder.modalities)}"
        )
    return encoder


def encoder_description(encoder: GaitModel) -> tuple[str, dict[str, Any]] | None:
    """Name and arguments that build an encoder again; ``None`` = nothing does."""
    arguments = encoder.config_args()
    arguments.pop("num_classes", None)
    kept = any(isinstance(value, ReadyModule) for value in arguments.values())
    if kept or not is_model(encoder.architecture):
        return None
    known = find_architecture(encoder.architecture).model_class
    return None if known not in (object, type(encoder)) else (encoder.architecture, arguments)


def without_neck(encoder: GaitModel) -> GaitModel:
    """The encoder, cut off in place behind its part vectors."""
    encoder.reset_classifier(0)
    if isinstance(getattr(encoder, "neck", None), (PartBNNeck, SharedBNNeck)):
        encoder.neck = NoNeck()
    encoder._frozen = frozenset()  # names of modules that may just have gone
    return encoder
