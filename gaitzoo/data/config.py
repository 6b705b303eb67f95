"""What a model wants to be fed, in timm's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["resolve_data_config", "resolve_model_data_config"]

_FROM_CFG = ("input_size", "value_range", "crop", "mean", "std")


def resolve_data_config(
    args: Any = None, pretrained_cfg: Any = None, model: Any = None
) -> dict[str, Any]:
    """What a model wants to be fed: :func:`gaitzoo.create_transform` takes the result.

    Args:
        args: Values that replace those of the model, for example of a command line; ``None``
            and names that mean nothing here are left out. Or the model itself.
        pretrained_cfg: Cfg or mapping instead of the model's cfg.
        model: A model.

    Returns:
        ``"modalities"``, ``"in_channels"`` (both if there is a model that says them),
        ``"input_size"`` (height and width, pixels), ``"value_range"``, ``"crop"``, and for colours
        ``"mean"`` and ``"std"``.

    Raises:
        TypeError: If there is neither a model nor a cfg to read from.

    Example:
        >>> import gaitzoo
        >>> config = resolve_data_config(gaitzoo.create_model("dygait_tiny"))
        >>> config["input_size"], config["modalities"], config["value_range"]
        ((16, 12), ('silhouettes',), (0.0, 1.0))
    """
    if args is not None and hasattr(args, "pretrained_cfg"):
        args, model = None, args
    cfg = pretrained_cfg if pretrained_cfg is not None else getattr(model, "pretrained_cfg", None)
    if cfg is None:
        raise TypeError(
            "expected a model or a pretrained_cfg to read from, got neither; "
            "resolve_data_config(model)"
        )
    found = {"modalities": getattr(model, "modalities", None) or tuple(cfg.get("modalities") or ())}
    found["in_channels"] = getattr(model, "in_channels", None)
    found |= {name: cfg.get(name) for name in _FROM_CFG}
    given = args if isinstance(args, Mapping) else vars(args) if args is not None else {}
    named = {"in_channels": given.get("in_chans"), **given}
    found |= {name: named[name] for name in found if named.get(name) is not None}
    return {name: value for name, value in found.items() if value not in (None, ())}


def resolve_model_data_config(
    model: Any, args: Any = None, pretrained_cfg: Any = None
) -> dict[str, Any]:
    """As :func:`resolve_data_config`, the model first.

    Args:
        model: A model.
        args: Values that replace those of the model.
        pretrained_cfg: Cfg or mapping instead of the model's cfg.
    """
    return resolve_data_config(args, pretrained_cfg, model)
