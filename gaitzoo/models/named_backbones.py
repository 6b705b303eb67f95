"""Residual networks of the field by name, for models that are built around one."""

from __future__ import annotations

from gaitzoo.layers.residual import ResidualBackbone

__all__ = ["NAMED_BACKBONES", "named_backbone"]

# Kind of blocks and blocks of each layer.
NAMED_BACKBONES = {
    "gaitbase": ("2d", (1, 1, 1, 1)),
    "deepgaitv2_2d": ("2d", (1, 4, 4, 1)),
    "deepgaitv2_p3d": ("p3d", (1, 4, 4, 1)),
    "deepgaitv2_3d": ("3d", (1, 4, 4, 1)),
}


def named_backbone(
    name: str,
    channels: tuple[int, ...],
    layers: tuple[int, ...] | None = None,
    in_channels: int = 1,
) -> ResidualBackbone:
    """The network of silhouettes in front of pooling, with the layers of its family.

    Args:
        name: One of ``NAMED_BACKBONES``.
        channels: Widths of the four layers.
        layers: Blocks of each of the four layers; ``None`` = as the family has.
        in_channels: Channels of the input.

    Raises:
        ValueError: If the name is unknown.

    Example:
        >>> named_backbone("gaitbase", (4, 4, 8, 8)).mode
        '2d'
    """
    if name not in NAMED_BACKBONES:
        raise ValueError(f"expected a backbone among {', '.join(NAMED_BACKBONES)}, got {name!r}")
    mode, usual = NAMED_BACKBONES[name]
    return ResidualBackbone(mode, usual if layers is None else layers, channels, in_channels)
