"""XGait: silhouettes and label maps of body parts, aligned at two granularities (ACM MM 2024).

Paper: https://arxiv.org/abs/2411.10742. Authors' code:
https://github.com/Gait3D/Gait3D-Benchmark (academic use only; nothing of it is contained here).

Differences from upstream:

- Padded frames are left out of the maximum, so padded batches give the numbers of single
  sequences. In training their batch norms would still count them: train on clips of equal length.
- The four heads of 16 parts are one head of 64: the same numbers, in the order of the published
  embedding.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gaitzoo.layers.body_parts import BodyPartPool
from gaitzoo.layers.checks import check_size
from gaitzoo.layers.residual import ResidualBackbone
from gaitzoo.layers.sequence import to_frames, to_sequences
from gaitzoo.models.base import init_weights, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.conversion import StateDict, rename_by_table
from gaitzoo.models.max_pooled import MaxPooled
from gaitzoo.models.opengait import opengait_cfg
from gaitzoo.models.registry import register_model
from gaitzoo.models.residual_keys import backbone_keys

__all__ = ["CrossGate", "PartCrossGate", "XGait", "convert_checkpoint"]

_PAPER = "https://arxiv.org/abs/2411.10742"
# Labels of the upper, the middle and the lower part of the body; some belong to two.
_UPPER, _MIDDLE, _LOWER = (1,), (2, 3, 4, 5, 6, 11), (7, 8, 9, 10, 11)


class CrossGate(nn.Module):
    """Two maps added channel by channel, with gates that see a mean of both.

    Source: XGait (https://arxiv.org/abs/2411.10742), Sec. 3.2, global cross-granularity module.

    Args:
        channels: Channels of each map.
        reduction: How many times fewer channels the hidden layer has.

    Shapes:
        silhouettes: ``[B, C, H, W]``, any values.
        parsing: ``[B, C, H, W]``, any values.
        returns: ``[B, C, H, W]``.

    Raises:
        ValueError: If an argument is no positive whole number, or nothing remains of the channels.

    Example:
        >>> CrossGate(8, reduction=4)(torch.rand(2, 8, 16, 11), torch.rand(2, 8, 16, 11)).shape
        torch.Size([2, 8, 16, 11])
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        check_size(channels=channels, reduction=reduction)
        if channels < reduction:
            raise ValueError(
                f"expected a reduction of at most {channels} channels, got {reduction}"
            )
        self.gate = nn.Sequential(
            nn.Linear(2 * channels, channels // reduction, bias=False),
            nn.ReLU(),
            nn.Linear(channels // reduction, 2 * channels, bias=False),
            nn.Sigmoid(),
        )

    def mix(self, maps: tuple[Tensor, Tensor], pooled: tuple[Tensor, Tensor]) -> Tensor:
        """Both maps, times the gates, added.

        Args:
            maps: ``[B, C, H, W]`` each.
            pooled: What the gates see of them, ``[B, C]`` each.
        """
        one, other = self.gate(torch.cat(pooled, dim=1))[..., None, None].chunk(2, dim=1)
        return maps[0] * one + maps[1] * other

    def forward(self, silhouettes: Tensor, parsing: Tensor) -> Tensor:
        """Returns the sum."""
        means = silhouettes.mean(dim=(2, 3)), parsing.mean(dim=(2, 3))
        return self.mix((silhouettes, parsing), means)


class PartCrossGate(nn.Module):
    """The same with gates of their own for the upper, middle and lower rows of the body.

    Rows are cut at a quarter and at three quarters of the height. The gates see the top quarter of
    the silhouettes' map, in all three as published, and the map of the labels weighed by the
    labels of their part.

    Source: XGait (https://arxiv.org/abs/2411.10742), Sec. 3.3, part cross-granularity module.

    Args:
        channels: Channels of each map.
        reduction: As for :class:`CrossGate`.
        gamma: As for :class:`BodyPartPool`.

    Shapes:
        silhouettes: ``[B, C, H, W]``, any values, H of 4 or more.
        parsing: ``[B, C, H, W]``, any values.
        labels: ``[B, 1, H0, W0]`` floats, whole numbers 0 to 11.
        returns: ``[B, C, H, W]``.

    Raises:
        ValueError: If the maps have fewer than four rows.

    Example:
        >>> block = PartCrossGate(8, reduction=4)
        >>> labels = torch.ones(2, 1, 64, 44)
        >>> block(torch.rand(2, 8, 16, 11), torch.rand(2, 8, 16, 11), labels).shape
        torch.Size([2, 8, 16, 11])
    """

    def __init__(self, channels: int, reduction: int = 16, gamma: float = 0.75) -> None:
        super().__init__()
        self.gates = nn.ModuleList(CrossGate(channels, reduction) for _ in range(3))
        self.pools = nn.ModuleList(
            BodyPartPool((part,), gamma) for part in (_UPPER, _MIDDLE, _LOWER)
        )

    def forward(self, silhouettes: Tensor, parsing: Tensor, labels: Tensor) -> Tensor:
        """Returns the sum."""
        height = silhouettes.shape[2]
        if height < 4:
            raise ValueError(
                f"expected maps of four rows or more to cut into parts, got {height}; frames have "
                "four times as many"
            )
        quarter = height // 4
        top = silhouettes[:, :, :quarter]
        seen = top.mean(dim=(2, 3)) + top.amax(dim=(2, 3))
        bounds = (0, quarter, height - quarter, height)
        bands = []
        for i, (gate, pool) in enumerate(zip(self.gates, self.pools, strict=True)):
            rows = slice(bounds[i], bounds[i + 1])
            maps = silhouettes[:, :, rows], parsing[:, :, rows]
            assert isinstance(gate, CrossGate)
            bands.append(gate.mix(maps, (seen, pool(parsing, labels).squeeze(1))))
        return torch.cat(bands, dim=2)


class XGait(MaxPooled):
    """XGait: GaitBase on silhouettes, GaitBase on label maps, and two ways of joining them.

    Source: https://arxiv.org/abs/2411.10742; what differs is listed at the top of this file. The
    order of frames never matters.

    Args:
        num_classes: Training identities, 0 = no classifier.
        layers: Residual blocks of each of the four layers, of both networks.
        channels: Widths of the four layers; embeddings have ``channels[2]`` channels.
        bands: Horizontal bands of each of the four maps; they must divide a quarter of the frame's
            height, which must be 16 or more.
        reduction: How many times fewer channels the hidden layer of the gates has.

    Shapes:
        inputs: ``{"parsing": [N, T, H, W], "silhouettes": [N, T, H, W]}``: whole numbers 0..11,
            floats in [0, 1]; or uint8 0..11 and 0..255.
        lengths: ``[N]`` int64, valid frames of both; ``None`` = all T.
        returns: :class:`GaitOutput` with ``embeddings [N, 4 * bands, channels[2]]``: bands of the
            silhouettes' map, of the labels' map, of both joined as a whole, and joined in parts.

    Raises:
        ValueError: If an argument has none of the values named here.

    Example:
        >>> model = XGait(num_classes=3, channels=(4, 4, 8, 16)).eval()
        >>> inputs = {name: torch.ones(2, 5, 64, 44) for name in model.modalities}
        >>> model(inputs, lengths=torch.tensor([5, 1])).logits.shape
        torch.Size([2, 64, 3])
    """

    architecture = "xgait"
    modalities = ("parsing", "silhouettes")

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 3000,
        layers: tuple[int, ...] = (1, 1, 1, 1),
        channels: tuple[int, ...] = (64, 128, 256, 512),
        bands: int = 16,
        reduction: int = 16,
    ) -> None:
        super().__init__(embedding=self.side_of("fc"))
        check_size(bands=bands)
        self.embedding = "fc"
        self.silhouette_backbone = ResidualBackbone("2d", layers, channels)
        self.parsing_backbone = ResidualBackbone("2d", layers, channels)
        self.whole = CrossGate(channels[3], reduction)
        self.parts = PartCrossGate(channels[3], reduction)
        # The four maps stand below each other.
        self.build_head(channels[3], channels[2], (4 * bands,), num_classes)
        init_weights(self)

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """See :attr:`GaitModel.feature_modules`: of silhouettes first, then of labels."""
        networks = ("silhouette_backbone", "parsing_backbone")
        return tuple(
            name
            for network in networks
            for name in getattr(self, network).stage_names(f"{network}.")
        )

    def forward_features(
        self, silhouettes: Mapping[str, Tensor], lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Computes the four maps of all frames.

        Args:
            silhouettes: Both inputs, as for the model's call.
            lengths: As for the model's call.

        Returns:
            ``features`` ``[N, channels[3], T, 4 * H / 4, W / 4]``, the maps below each other, and
            ``lengths``. What stands past the end of a sequence holds no meaning.
        """
        inputs, lengths = self.prepare(silhouettes, lengths)
        x = inputs["silhouettes"]
        of_silhouettes = to_frames(self.silhouette_backbone(x, lengths, self.run))
        of_labels = to_frames(self.parsing_backbone(inputs["parsing"], lengths, self.run))
        whole = self.run(self.whole, of_silhouettes, of_labels)
        parts = self.run(self.parts, of_silhouettes, of_labels, to_frames(inputs["parsing"]))
        maps = torch.cat([of_silhouettes, of_labels, whole, parts], dim=2)
        return to_sequences(maps, x.shape[0]), lengths

    def temporal_reach(self) -> tuple[int, int]:
        """See :meth:`GaitModel.temporal_reach`: frames never see each other."""
        return 0, 1


_HEADS = ("sil", "par", "gcm", "pcm")
_PLACES = {"up": 0, "middle": 1, "down": 2}
_KEYS = {
    **backbone_keys("Backbone_sil", "silhouette_backbone"),
    **backbone_keys("Backbone_par", "parsing_backbone"),
    r"gcm\.fc\.(.+)": r"whole.gate.\1",
    **{rf"pcm_{theirs}\.fc\.(.+)": rf"parts.gates.{i}.gate.\1" for theirs, i in _PLACES.items()},
    **{rf"pcm_{theirs}\.gammas": rf"parts.pools.{i}.gammas" for theirs, i in _PLACES.items()},
    **{
        rf"{head}_{short}\.{key}": rf"{short}/{ours}"
        for short in _HEADS
        for head, key, ours in (
            ("FCs", "fc_bin", "part_fc.weight"),
            ("BNNecks", "fc_bin", "neck.classifier.weight"),
            ("BNNecks", r"bn1d\.(\w+)", r"neck.bn.\1"),
        )
    },
}


def convert_checkpoint(state_dict: StateDict) -> StateDict:
    """Renames the authors' parameters to ours and joins their four heads.

    Args:
        state_dict: Parameters under the authors' names, without a ``module.`` prefix.

    Returns:
        The same numbers under this model's names.

    Raises:
        UnknownKeysError: If a name is not XGait's.
        ValueError: If a head is missing.
    """
    renamed = rename_by_table(state_dict, _KEYS, "XGait")
    ours = {key: tensor for key, tensor in renamed.items() if "/" not in key}
    heads = [
        {k.partition("/")[2]: v for k, v in renamed.items() if k.startswith(f"{short}/")}
        for short in _HEADS
    ]
    if any(head.keys() != heads[0].keys() for head in heads):
        raise ValueError(
            f"expected the same parameters of the heads {', '.join(_HEADS)} of XGait, got "
            f"{', '.join(str(len(head)) for head in heads)} of them; is the file whole?"
        )
    for key in heads[0]:
        tensors = [head[key] for head in heads]
        if tensors[0].ndim == 3:
            ours[key] = torch.cat(tensors)
        elif tensors[0].ndim == 1:
            # Statistics lie channel by channel, the parts of a channel side by side.
            num_parts = len(heads[0]["part_fc.weight"])
            ours[key] = torch.cat([x.unflatten(0, (-1, num_parts)) for x in tensors], 1).flatten()
        else:
            ours[key] = tensors[0]
    return ours


_CFGS = {
    "gait3d": opengait_cfg(
        "xgait.gait3d",
        _PAPER,
        num_classes=3000,
        training_data="Gait3D and Gait3D-Parsing, 3000 subjects",
        metrics={
            "rank1": 80.5,
            "rank5": 91.9,
            "mAP": 73.3,
            "mINP": 55.4,
            "protocol": "Gait3D probe list against the rest, silhouettes and parsing maps",
        },
    ),
}
register_model(
    "xgait",
    XGait,
    _CFGS,
    convert=convert_checkpoint,
    tiny=PretrainedCfg(
        num_classes=5,
        model_args={"channels": (2, 3, 4, 8), "bands": 4, "reduction": 4},
        input_size=(16, 12),
    ),
)
