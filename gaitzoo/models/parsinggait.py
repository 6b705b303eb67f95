"""ParsingGait: gait recognition from label maps of body parts (ACM MM 2023).

Paper: https://arxiv.org/abs/2308.16739. Authors' code:
https://github.com/Gait3D/Gait3D-Benchmark (academic use only; nothing of it is contained here).

Differences from upstream:

- Padded frames are left out of the maximum, so padded batches give the numbers of single
  sequences. In training their batch norms would still count them: train on clips of equal length.
- Any size of frames that the part bins divide.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from gaitzoo.layers.body_parts import (
    COARSE_LINKS,
    COARSE_PARTS,
    FINE_LINKS,
    FINE_PARTS,
    PartGraph,
)
from gaitzoo.layers.residual import ResidualBackbone
from gaitzoo.layers.sequence import to_frames, to_sequences
from gaitzoo.models.base import init_weights, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.conversion import StateDict, rename_by_table
from gaitzoo.models.max_pooled import MaxPooled
from gaitzoo.models.opengait import opengait_cfg
from gaitzoo.models.outputs import GaitOutput
from gaitzoo.models.registry import register_model
from gaitzoo.models.residual_keys import RESIDUAL_KEYS

__all__ = ["ParsingGait", "convert_checkpoint"]

_PAPER = "https://arxiv.org/abs/2308.16739"
_GRAPHS = {"fine": (FINE_PARTS, FINE_LINKS), "coarse": (COARSE_PARTS, COARSE_LINKS)}


class ParsingGait(MaxPooled):
    """ParsingGait: GaitBase on label maps, and a graph of the body parts that they show.

    Source: https://arxiv.org/abs/2308.16739; what differs is listed at the top of this file. The
    order of frames never matters.

    Args:
        num_classes: Training identities, 0 = no classifier.
        graph: Parts of the graph: ``"coarse"`` (5, as published), ``"fine"`` (11) or ``"both"``.
        layers: Residual blocks of each of the four layers.
        channels: Widths of the four layers; embeddings have ``channels[2]`` channels.
        part_bins: Numbers of horizontal bands; each must divide a quarter of the frame's height.
        drop_rate: Dropout of the graph, in training.

    Shapes:
        parsing: ``[N, T, H, W]``, whole numbers 0..11 as floats or uint8, never divided by 255.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: :class:`GaitOutput` with ``embeddings [N, P, channels[2]]``: the bands from top to
            bottom, then the parts of the fine graph, then those of the coarse one.

    Raises:
        ValueError: If an argument has none of the values named here.

    Example:
        >>> model = ParsingGait(num_classes=3, channels=(4, 4, 8, 8)).eval()
        >>> labels = torch.randint(0, 12, (2, 5, 64, 44), dtype=torch.uint8)
        >>> model(labels, lengths=torch.tensor([5, 1])).logits.shape
        torch.Size([2, 21, 3])
    """

    architecture = "parsinggait"
    modalities = ("parsing",)

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 3000,
        graph: str = "coarse",
        layers: tuple[int, ...] = (1, 1, 1, 1),
        channels: tuple[int, ...] = (64, 128, 256, 512),
        part_bins: tuple[int, ...] = (16,),
        drop_rate: float = 0.5,
    ) -> None:
        if graph not in ("coarse", "fine", "both"):
            raise ValueError(f'expected graph "coarse", "fine" or "both", got {graph!r}')
        super().__init__(embedding=self.side_of("fc"))
        self.in_channels, self.embedding = 1, "fc"
        self.backbone = ResidualBackbone("2d", layers, channels)
        self.graphs = nn.ModuleDict(
            {
                name: PartGraph(parts, links, channels[3], drop_rate)
                for name, (parts, links) in _GRAPHS.items()
                if graph in (name, "both")
            }
        )
        num_nodes = sum(len(parts) for name, (parts, _) in _GRAPHS.items() if name in self.graphs)
        self.build_head(channels[3], channels[2], part_bins, num_classes, extra_parts=num_nodes)
        init_weights(self)

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """See :attr:`GaitModel.feature_modules`: the stem and the last block of every layer."""
        return self.backbone.stage_names("backbone.")

    def forward_features(
        self, silhouettes: Tensor, lengths: Tensor | None = None
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor] | None]:
        """Computes the maps of all frames and the parts of their graphs.

        Args:
            silhouettes: Label maps, as for the model's call.
            lengths: As for the model's call.

        Returns:
            The map ``[N, channels[3], T, H / 4, W / 4]`` and the parts of the graph on the axis of
            the rows, ``[N, channels[3], T, parts, 1]``; ``lengths`` of both (``None`` if
            ``lengths`` is). What stands past the end of a sequence holds no meaning.
        """
        x, lengths = self.prepare(silhouettes, lengths)
        features = self.backbone(x, lengths, self.run)
        frames, labels = to_frames(features), to_frames(x)
        parts = [self.run(graph, frames, labels) for graph in self.graphs.values()]
        nodes = torch.cat(parts, dim=1).transpose(1, 2).unsqueeze(3)
        both = features, to_sequences(nodes, x.shape[0])
        return both, None if lengths is None else (lengths, lengths)

    def temporal_reach(self) -> tuple[int, int]:
        """See :meth:`GaitModel.temporal_reach`: frames never see each other."""
        return 0, 1

    def temporal_maps(self, inputs: Tensor) -> Iterator[tuple[Tensor, int]]:
        """See :meth:`GaitModel.temporal_maps`: the map and the parts of the graph."""
        features, _ = self.forward_features(inputs)
        for one in features:
            yield one, 1

    def forward_head(self, features: Any, lengths: Any = None) -> GaitOutput:
        """Pools over time and bands and embeds every band and every part of the graph.

        Args:
            features: Both, as from :meth:`forward_features`.
            lengths: As from :meth:`forward_features`.
        """
        counts = (None, None) if lengths is None else lengths
        whole, nodes = (self.temporal_pool(x, n) for x, n in zip(features, counts, strict=True))
        bands, nodes = self.part_pool(whole), nodes.squeeze(3).transpose(1, 2)
        return self.embed_parts(torch.cat([bands, nodes.to(bands.dtype)], dim=1))


_KEYS = {
    r"gammas_(fine|coarse)": r"graphs.\1.pool.gammas",
    r"gcn_(fine|coarse)\.gc1\.(.+)": r"graphs.\1.layers.0.\2",
    r"gcn_(fine|coarse)\.gc2\.(.+)": r"graphs.\1.layers.1.\2",
    **RESIDUAL_KEYS,
}


def convert_checkpoint(state_dict: StateDict) -> StateDict:
    """Renames the authors' parameters to ours.

    Args:
        state_dict: Parameters under the authors' names, without a ``module.`` prefix.

    Returns:
        The same tensors under this model's names.

    Raises:
        UnknownKeysError: If a name is not ParsingGait's.
    """
    return rename_by_table(state_dict, _KEYS, "ParsingGait")


_CFGS = {
    "gait3d": opengait_cfg(
        "parsinggait.gait3d",
        _PAPER,
        num_classes=3000,
        model_args={"graph": "coarse"},
        value_range=(0.0, 11.0),
        training_data="Gait3D-Parsing, 3000 subjects",
        metrics={
            "rank1": 76.2,
            "rank5": 89.1,
            "mAP": 68.2,
            "mINP": 41.3,
            "protocol": "Gait3D probe list against the rest, parsing maps instead of silhouettes",
        },
    ),
}
register_model(
    "parsinggait",
    ParsingGait,
    _CFGS,
    convert=convert_checkpoint,
    tiny=PretrainedCfg(
        num_classes=5,
        value_range=(0.0, 11.0),
        model_args={"graph": "both", "channels": (2, 3, 4, 5), "part_bins": (4,)},
        input_size=(16, 12),
    ),
)
