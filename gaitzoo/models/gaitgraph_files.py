"""The authors' files of GaitGraph and GaitGraph2: their keys, and what is known of them.

Papers: https://arxiv.org/abs/2101.11228 and https://arxiv.org/abs/2204.07855. Key lists and numbers
(rank-1 rates in percent): https://github.com/ShiqiYu/OpenGait.
"""

from __future__ import annotations

import re
import warnings

import torch
from torch import Tensor

from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.conversion import StateDict, rename_by_table
from gaitzoo.models.opengait import opengait_cfg

__all__ = ["GAITGRAPH1_CFGS", "GAITGRAPH2_CFGS", "convert_checkpoint"]

_PAPER_1 = "https://arxiv.org/abs/2101.11228"
_PAPER_2 = "https://arxiv.org/abs/2204.07855"

_PIECES = {
    "scn.conv.gcn": "graph.conv.conv",
    "scn.bn": "graph.norm",
    "tcn.conv": "temporal.layers.0",
    "tcn.bn": "temporal.layers.1",
    **{
        f"{theirs}.{piece}": f"{ours}_{name}"
        for theirs, ours in (("scn", "spatial"), ("tcn", "temporal"))
        for piece, name in {
            "conv_down": "down.0",
            "bn_down": "down.1",
            "conv_up": "up.0",
            "bn_up": "up.1",
            "residual.0": "shortcut.0",
            "residual.1": "shortcut.1",
        }.items()
    },
}
_GRAPH = re.compile(r"ResGCN\.head\.(\d)\.A")
_KEYS = {
    r"ResGCN\.head\.(\d)\.bn\.(\w+)": r"branches.\1.0.graph.input_norm.\2",
    r"ResGCN\.head\.(\d)\.layers\.(\d+)\.edge": r"branches.\1.\2.graph.edge",
    r"ResGCN\.backbone\.(\d+)\.edge": r"main.\1.graph.edge",
    r"ResGCN\.fcn\.(\w+)": r"head.\1",
    "adjacency": "adjacency",
    **{
        rf"ResGCN\.head\.(\d)\.layers\.(\d+)\.{theirs}\.(\w+)": rf"branches.\1.\2.{ours}.\3"
        for theirs, ours in _PIECES.items()
    },
    **{
        rf"ResGCN\.backbone\.(\d+)\.{theirs}\.(\w+)": rf"main.\1.{ours}.\2"
        for theirs, ours in _PIECES.items()
    },
}


def convert_checkpoint(state_dict: StateDict) -> StateDict:
    """Renames the authors' parameters to ours; of several graphs the last one is kept.

    Args:
        state_dict: Parameters under the authors' names, without a ``module.`` prefix.

    Returns:
        The same tensors under the names of these models.

    Raises:
        UnknownKeysError: If a name is not GaitGraph's.

    Warns:
        UserWarning: If the graphs of the branches differ.
    """
    graphs = {key: tensor for key, tensor in state_dict.items() if _GRAPH.fullmatch(key)}
    kept = {key: tensor for key, tensor in state_dict.items() if key not in graphs}
    if graphs:
        last = kept["adjacency"] = graphs[max(graphs)]
        if any(graph.shape != last.shape or not _equal(graph, last) for graph in graphs.values()):
            warnings.warn(
                f"the branches' graphs differ; that of {max(graphs)} is taken for all, as it comes "
                "into force where the authors load the file",
                stacklevel=2,
            )
    return rename_by_table(kept, _KEYS, "GaitGraph")


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.is_meta or other.is_meta or torch.equal(one, other)


_GRAPH1_LARGE_SETS = {"embedding_dim": 256, "fill_empty": True}
_GRAPH2_LARGE_SETS = {
    "branch_widths": (5, 64, 64, 32),
    "main_widths": (32, 128, 128, 128, 256, 256, 256),
    "reduction": 4,
    "fill_empty": True,
}
_SETS = {
    "gait3d": ("Gait3D, 3000 subjects", "Gait3D probe list against the rest"),
    "grew": ("GREW, 20000 subjects", "GREW test set, scored by its server"),
    "oumvlp": ("OU-MVLP, 5153 subjects", "OU-MVLP, identical views excluded"),
    "ccpg": ("CCPG, 100 subjects", ""),
    "sustech1k": ("SUSTech1K, 250 subjects", ""),
    "casiab": ("CASIA-B, 74 subjects", ""),
}
_SIZE_SAYS = (
    "The structure of this file is derived from its size: with six numbers per weight, where the "
    "others have three (Adam), it fits as closely as theirs do. Any other structure is refused."
)


def _cfg(
    model: str,
    tag: str,
    rank1: float | None = None,
    joint_format: str = "coco17",
    notes: str = "",
    **model_args: object,
) -> PretrainedCfg:
    training_data, protocol = _SETS[tag.partition("_")[0]]
    return opengait_cfg(
        f"{model}.{tag}",
        _PAPER_1 if model == "gaitgraph1" else _PAPER_2,
        distance="euclidean" if model == "gaitgraph1" else "cosine",
        model_args={"joint_format": joint_format, **model_args},
        training_data=training_data,
        metrics={} if rank1 is None else {"rank1": rank1, "protocol": protocol},
        notes=notes,
    )


GAITGRAPH1_CFGS = {
    "gait3d": _cfg("gaitgraph1", "gait3d", 8.6),
    "grew": _cfg("gaitgraph1", "grew", notes=_SIZE_SAYS, **_GRAPH1_LARGE_SETS),
    "oumvlp": _cfg("gaitgraph1", "oumvlp", joint_format="openpose18", **_GRAPH1_LARGE_SETS),
    "oumvlp_17": _cfg("gaitgraph1", "oumvlp_17", **_GRAPH1_LARGE_SETS),
}
GAITGRAPH2_CFGS = {
    "gait3d": _cfg("gaitgraph2", "gait3d", 11.0),
    "grew": _cfg("gaitgraph2", "grew", 34.61, notes=_SIZE_SAYS, **_GRAPH2_LARGE_SETS),
    "oumvlp": _cfg("gaitgraph2", "oumvlp", 62.1, "openpose18", **_GRAPH2_LARGE_SETS),
    "oumvlp_17": _cfg("gaitgraph2", "oumvlp_17", 70.75, **_GRAPH2_LARGE_SETS),
    "ccpg": _cfg("gaitgraph2", "ccpg", joint_format="openpose18", reduction=4, fill_empty=True),
    "sustech1k": _cfg("gaitgraph2", "sustech1k"),
    "casiab": _cfg("gaitgraph2", "casiab", fill_empty=True),
}
