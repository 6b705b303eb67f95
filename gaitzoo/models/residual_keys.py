"""Names of the residual networks in the authors' files, and ours.

Source: key lists of https://github.com/ShiqiYu/OpenGait; the networks are those of DeepGaitV2
(https://arxiv.org/abs/2303.03301) and GaitBase (https://arxiv.org/abs/2211.06597).

Tables are for :func:`gaitzoo.models.conversion.rename_by_table`: pattern to name.
"""

from __future__ import annotations

from gaitzoo.models.conversion import StateDict, rename_by_table

__all__ = [
    "BLOCK_KEYS",
    "HEAD_KEYS",
    "RESIDUAL_KEYS",
    "backbone_keys",
    "convert_residual",
    "layer_keys",
    "stem_keys",
]

# The wrapper that runs a block on every frame, wherever it stands.
_WRAPPER = r"(?:forward_block\.)?"
_BACKBONE = rf"(?:Backbone\.)?{_WRAPPER}"
# The pieces of a residual block: of 2d and 3d, then of p3d, then of all.
_PIECES = {
    "conv1": "conv1",
    "bn1": "bn1",
    "conv2": "conv2",
    "bn2": "bn2",
    "conv1.0": "conv1",
    "conv1.1": "bn1",
    "conv2.0": "conv2",
    "conv2.1": "bn2",
    "shortcut3d": "temporal_conv",
    "sbn": "temporal_bn",
    "downsample.0": "shortcut.0",
    "downsample.1": "shortcut.1",
}


def layer_keys(theirs: str, ours: str) -> dict[str, str]:
    """One layer of blocks, as a table.

    Args:
        theirs: Pattern of what the authors call it.
        ours: What we call it.

    Example:
        >>> table = layer_keys("sil_layer1", "branch.layers.0")
        >>> key = "sil_layer1.forward_block.0.bn1.bias"
        >>> list(rename_by_table({key: torch.ones(1)}, table, "Net"))
        ['branch.layers.0.0.bn1.bias']
    """
    pieces = {piece.replace(".", rf"\.{_WRAPPER}"): name for piece, name in _PIECES.items()}
    return {
        rf"{theirs}\.{_WRAPPER}(\d+)\.{_WRAPPER}{piece}\.(\w+)": rf"{ours}.\1.{name}.\2"
        for piece, name in pieces.items()
    }


def stem_keys(theirs: str, ours: str) -> dict[str, str]:
    """The convolution in front of the layers and its batch norm, as a table.

    Args:
        theirs: Pattern of what the authors call them.
        ours: What we call them.
    """
    return {rf"{theirs}\.{_WRAPPER}([01])\.(\w+)": rf"{ours}.\1.\2"}


BLOCK_KEYS = {
    **stem_keys(rf"{_BACKBONE}layer0", "backbone.stem"),
    **layer_keys(rf"{_BACKBONE}layer1", "backbone.layers.0"),
    **layer_keys(rf"{_BACKBONE}layer2", "backbone.layers.1"),
    **layer_keys(rf"{_BACKBONE}layer3", "backbone.layers.2"),
    **layer_keys(rf"{_BACKBONE}layer4", "backbone.layers.3"),
}
"""Stem and blocks of DeepGaitV2, whose other parts differ from network to network."""

HEAD_KEYS = {
    "FCs.fc_bin": "part_fc.weight",
    "BNNecks.fc_bin": "neck.classifier.weight",
    r"BNNecks\.bn1d\.(\w+)": r"neck.bn.\1",
}
"""Matrices of the parts and neck."""

RESIDUAL_KEYS = {
    **BLOCK_KEYS,
    # GaitBase's stem.
    rf"{_BACKBONE}conv1\.conv\.(\w+)": r"backbone.stem.0.\1",
    rf"{_BACKBONE}bn1\.(\w+)": r"backbone.stem.1.\1",
    **HEAD_KEYS,
}
"""All of DeepGaitV2, GaitBase and models that hold one of them."""


def backbone_keys(theirs: str, ours: str) -> dict[str, str]:
    """Stem and blocks where they stand under names of their own, as a table.

    Args:
        theirs: What the authors call the network instead of ``Backbone``.
        ours: What we call it instead of ``backbone``.

    Example:
        >>> table = backbone_keys("Backbone_sil", "silhouettes")
        >>> list(rename_by_table({"Backbone_sil.layer1.0.bn1.bias": torch.ones(1)}, table, "Net"))
        ['silhouettes.layers.0.0.bn1.bias']
    """
    return {
        pattern.replace(r"(?:Backbone\.)?", rf"{theirs}\."): name.replace("backbone", ours)
        for pattern, name in RESIDUAL_KEYS.items()
        if name.startswith("backbone.")
    }


def convert_residual(state_dict: StateDict) -> StateDict:
    """Renames the authors' parameters to ours, for DeepGaitV2 in any mode, GaitBase and ScoNet.

    Args:
        state_dict: Parameters under the authors' names, without a ``module.`` prefix.

    Returns:
        The same tensors under our names.

    Raises:
        UnknownKeysError: If a name belongs to none of them.

    Example:
        >>> list(convert_residual({"Backbone.forward_block.layer2.0.conv1.weight": torch.ones(1)}))
        ['backbone.layers.1.0.conv1.weight']
    """
    return rename_by_table(state_dict, RESIDUAL_KEYS, "DeepGaitV2, GaitBase or ScoNet")
