"""Names of the residual networks in the authors' files, and ours.

Source: key lists of https://github.com/ShiqiYu/OpenGait; the networks are those of DeepGaitV2
(https://arxiv.org/abs/2303.03301) and GaitBase (https://arxiv.org/abs/2211.06597).
"""

from __future__ import annotations

import re

from gaitzoo.models.conversion import StateDict, rename_keys

__all__ = ["block_key", "convert_residual", "residual_key"]

# The pieces of a residual block (2d and 3d; p3d).
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
# Outside of the blocks: DeepGaitV2's stem, GaitBase's stem, the head of both.
_OTHERS = {
    "layer0.0": "backbone.stem.0",
    "layer0.1": "backbone.stem.1",
    "conv1.conv": "backbone.stem.0",
    "bn1": "backbone.stem.1",
    "FCs": "part_fc",
    "BNNecks": "neck.classifier",
    "BNNecks.bn1d": "neck.bn",
}
_BLOCK = re.compile(r"layer([1-4])\.(\d+)\.(.+)\.(\w+)")


def residual_key(key: str) -> str | None:
    """Our name for a parameter of DeepGaitV2, GaitBase or ScoNet; ``None`` = none of theirs.

    Args:
        key: The authors' name, without a ``module.`` prefix.

    Example:
        >>> residual_key("Backbone.forward_block.layer2.0.conv1.weight")
        'backbone.layers.1.0.conv1.weight'
    """
    # "forward_block" is only the wrapper that runs a block on every frame.
    name = key.removeprefix("Backbone.").replace("forward_block.", "")
    piece, _, last = name.rpartition(".")
    last = "weight" if last == "fc_bin" else last
    return block_key(name) or (f"{_OTHERS[piece]}.{last}" if piece in _OTHERS else None)


def block_key(name: str) -> str | None:
    """Our name for a parameter of a residual block.

    Args:
        name: ``layerK.I.PIECE.NAME``, without wrappers.
    """
    match = _BLOCK.fullmatch(name)
    if not match or match[3] not in _PIECES:
        return None
    return f"backbone.layers.{int(match[1]) - 1}.{match[2]}.{_PIECES[match[3]]}.{match[4]}"


def convert_residual(state_dict: StateDict) -> StateDict:
    """Renames the authors' parameters to ours, for DeepGaitV2 in any mode, GaitBase and ScoNet.

    Args:
        state_dict: Parameters under the authors' names, without a ``module.`` prefix.

    Returns:
        The same tensors under our names.

    Raises:
        UnknownKeysError: If a name belongs to none of them.
    """
    return rename_keys(state_dict, residual_key, "DeepGaitV2, GaitBase or ScoNet")
