"""HSTL: hierarchical spatio-temporal representation learning for gait recognition (ICCV 2023).

Paper: https://arxiv.org/abs/2307.09856. Authors' code: https://github.com/gudaochangsheng/HSTL
(no licence file and no statement of use; nothing of it is contained here).

Differences from upstream:

- No released model runs with the layers released beside it; the defects (arguments of the temporal
  pooling, order of axes at the part-wise layers and in the logits) are repaired.
- The hierarchy is an argument, ``levels`` and ``last``; upstream has one copy of the model per data
  set. The first release for CASIA-B, 17 parts as in the paper's drawing, is there too. The one
  for GREW is our reading: there is neither code nor configuration.
- Maxima over time see the valid frames of each sequence only, and padded frames are zeroed before
  every convolution over time, so padded batches give the numbers of single sequences.
- The generalised mean is computed in float32 and stably, see :class:`gaitzoo.GeMHPP`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gaitzoo.layers.checks import check_sizes, shape_of
from gaitzoo.layers.heads import PartLinear, SharedBNNeck
from gaitzoo.layers.hierarchy import (
    CASIAB,
    CASIAB_17,
    GAIT3D,
    OUMVLP,
    WALKERS,
    HSTLLevel,
    check_levels,
)
from gaitzoo.layers.pooling import GeMHPP, TemporalMax
from gaitzoo.layers.regions import ASTP, ARMERow, FTABlock
from gaitzoo.layers.sequence import repeat_short
from gaitzoo.models.base import GaitModel, init_weights, record_args
from gaitzoo.models.cfg import PretrainedCfg
from gaitzoo.models.conversion import StateDict, rename_by_table
from gaitzoo.models.outputs import GaitOutput
from gaitzoo.models.registry import register_model
from gaitzoo.models.walkers import WALKERS_PROTOCOL, walkers_cfg

__all__ = ["HSTL", "HSTLFeatures", "HSTLLevel", "convert_checkpoint"]


class HSTLFeatures(NamedTuple):
    """What HSTL sees at one place of its hierarchy.

    Args:
        features: ``[N, C_level, T', H', W']``, the map; zeros past its ``lengths``.
        lengths: ``[N]`` int64, valid frames of the map; ``None`` = all T'.
        parts: ``[N, P_level, C]``, what is pooled from it.
    """

    features: Tensor
    lengths: Tensor | None
    parts: Tensor


class _Level(nn.Module):
    """The layers of one level."""

    def __init__(self, in_channels: int, part_channels: int, level: HSTLLevel) -> None:
        super().__init__()
        widths = (in_channels, *level.channels)
        self.arme = ARMERow(widths, level.heights)
        self.astp = ASTP(widths[-1], part_channels, level.heights, level.project)
        self.fta = FTABlock(widths[-1], level.heights) if level.shorten else None
        self.fta_astp = (
            ASTP(widths[-1], part_channels, level.heights, level.project) if level.shorten else None
        )
        self.halve = nn.MaxPool3d(kernel_size=(1, 2, 2)) if level.halve else None

    def pools(self) -> list[ASTP]:
        """What pools the maps of this level, before and after it shortens the sequence."""
        return [self.astp] if self.fta_astp is None else [self.astp, self.fta_astp]


class _Place(NamedTuple):
    """A map that is pooled to parts.

    Args:
        pool: What pools it.
        features: ``[N, C_level, T', H', W']``; zeros past its ``lengths``.
        lengths: ``[N]`` int64, valid frames of the map; ``None`` = all T'.
        step: Input frames that became one.
    """

    pool: ASTP | GeMHPP
    features: Tensor
    lengths: Tensor | None
    step: int


class HSTL(GaitModel):
    """HSTL: convolutions of their own for every body region, cut finer from level to level.

    Every level is pooled to parts of its own; the deepest map is pooled once more, finely. All
    parts of all levels are compared.

    Source: https://arxiv.org/abs/2307.09856; what differs is listed at the top of this file.
    Embeddings are the part vectors after the batch norm, whose statistics are shared by all parts.
    Batch norm sits in the head only. Batches of different lengths may be padded in training too:
    no statistic ever sees the padding.

    A hierarchy fits one height of frames, the sum of the first level's ``heights``; the width is
    free. For other heights pass ``levels`` (and ``last``) of your own.

    Args:
        num_classes: Training identities, 0 = no classifier.
        in_channels: Channels of the input; other than one for other modalities.
        levels: The hierarchy from coarse to fine, see :class:`HSTLLevel`; default CASIA-B's.
        last: How the deepest map is pooled at the end: a number of equal bands with one exponent
            for all, or the heights of regions that get a projection and an exponent each.
        part_channels: C, width of the parts.

    Shapes:
        silhouettes: ``[N, T, H, W]`` in [0, 1] or uint8 0..255, ``H`` as ``levels`` say;
            ``[N, C, T, H, W]`` for other ``in_channels``.
        lengths: ``[N]`` int64, valid frames; ``None`` = all T.
        returns: :class:`GaitOutput` with ``embeddings [N, P, part_channels]``; parts are in the
            order of the levels, from top to bottom in each.

    Raises:
        ValueError: If heights do not fit each other or the input, or a width needs a projection.

    Example:
        >>> levels = (HSTLLevel((32,), (2,)), HSTLLevel((20, 12), (4, 8), shorten=True))
        >>> model = HSTL(num_classes=0, levels=levels, last=16, part_channels=8).eval()
        >>> model(torch.rand(2, 9, 32, 22), lengths=torch.tensor([9, 5])).embeddings.shape
        torch.Size([2, 21, 8])
    """

    architecture = "hstl"
    neck_folds_into = "part_fc"

    @record_args
    def __init__(
        self,
        *,
        num_classes: int = 74,
        in_channels: int = 1,
        levels: Sequence[HSTLLevel | Sequence[Any]] = CASIAB,
        last: int | Sequence[int] = 64,
        part_channels: int = 128,
    ) -> None:
        self.hierarchy = check_levels(levels)
        super().__init__(embedding="after_bn")
        if not isinstance(last, int):
            last = check_sizes("last", last)
        # Every shortening leaves a third of the frames; short sequences are repeated in any case.
        self.min_frames = 3 ** max(1, sum(level.shorten for level in self.hierarchy))
        self.in_channels = in_channels
        self.num_features = part_channels
        widths = (in_channels, *(level.channels[-1] for level in self.hierarchy))
        self.levels = nn.ModuleList(
            _Level(before, part_channels, level)
            for before, level in zip(widths, self.hierarchy, strict=False)
        )
        self.temporal_pool = TemporalMax()
        self.last_pool, last_parts = _last_pool(last, self.hierarchy[-1], part_channels)
        self.num_parts = last_parts + sum(
            len(level.heights) * (1 + level.shorten) for level in self.hierarchy
        )
        self.part_fc = PartLinear(self.num_parts, part_channels, part_channels)
        self.neck = SharedBNNeck(self.num_parts, part_channels, num_classes)
        init_weights(self)

    @property
    def input_size(self) -> tuple[int, int]:
        """Rows of the hierarchy, and columns in the proportion of 64 x 44; others fit as well."""
        rows = sum(self.hierarchy[0].heights)
        return rows, max(2, 2 * round(rows * 22 / 64))

    def forward_levels(
        self, silhouettes: Tensor, lengths: Tensor | None = None
    ) -> list[HSTLFeatures]:
        """Computes maps and parts of every level, coarse to fine.

        A level that shortens the sequence gives two entries, before and after. The last entry is
        the deepest map once more, with its final parts. Keeps all maps in memory.

        Args:
            silhouettes: As for the model's call.
            lengths: As for the model's call.
        """
        return [
            HSTLFeatures(place.features, place.lengths, self._pooled(place))
            for place in self._walk(silhouettes, lengths)
        ]

    def forward_features(
        self, silhouettes: Tensor, lengths: Tensor | None = None
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...] | None]:
        """Computes the maps that HSTL pools: all of them, since no single one holds what it needs.

        Sequences of one or two frames are repeated until they have three or four. Keeps all maps
        in memory, which calling the model does not.

        Args:
            silhouettes: As for the model's call.
            lengths: As for the model's call.

        Returns:
            The maps, coarse to fine, ``[N, C_level, T', H', W']`` each, zeros past the end: one per
            level, one more after a level that shortens the sequence, and the deepest once more for
            the last pooling. Valid frames ``[N]`` of each (``None`` if ``lengths`` is).
        """
        places = list(self._walk(silhouettes, lengths))
        features = tuple(place.features for place in places)
        counts = tuple(place.lengths for place in places if place.lengths is not None)
        return features, counts or None

    def forward_head(
        self, features: Sequence[Tensor], lengths: Sequence[Tensor] | None = None
    ) -> GaitOutput:
        """Pools every map over time and its regions and embeds every part.

        Args:
            features: The maps of :meth:`forward_features`.
            lengths: Valid frames of each, ``[N]``; ``None`` = all.
        """
        pools = [*(p for level in self._levels() for p in level.pools()), self.last_pool]
        if isinstance(features, Tensor) or len(features) != len(pools):
            got = shape_of(features) if isinstance(features, Tensor) else f"{len(features)} maps"
            raise ValueError(
                f"expected the {len(pools)} maps of all levels, got {got}; forward_features gives "
                "them"
            )
        counts = [None] * len(pools) if lengths is None else lengths
        places = (_Place(*place, 1) for place in zip(pools, features, counts, strict=True))
        return self._embed([self._pooled(place) for place in places])

    def forward(self, silhouettes: Tensor, lengths: Tensor | None = None) -> GaitOutput:
        """Embeds a batch of sequences; every map is pooled and forgotten before the next."""
        return self._embed([self._pooled(place) for place in self._walk(silhouettes, lengths)])

    @property
    def feature_modules(self) -> tuple[str, ...]:
        """See :attr:`GaitModel.feature_modules`: all maps that are pooled to parts."""
        names = []
        for i, level in enumerate(self.hierarchy):
            names.append(f"levels.{i}.arme.{len(level.channels) - 1}")
            names += [f"levels.{i}.fta"] * level.shorten
        return tuple(names)

    def temporal_reach(self) -> tuple[int, int]:
        """See :meth:`GaitModel.temporal_reach`."""
        reach, step = 0, 1
        for level in self.hierarchy:
            reach += step * len(level.channels)
            if level.shorten:
                # The long window sees one frame more on each side than what becomes one.
                reach += step
                step *= 3
        return -(-reach // step) * step, step

    def temporal_maps(self, inputs: Tensor) -> Iterator[tuple[Tensor, int]]:
        """See :meth:`GaitModel.temporal_maps`."""
        for place in self._walk(inputs, None):
            yield place.features, place.step

    def _walk(self, silhouettes: Tensor, lengths: Tensor | None) -> Iterator[_Place]:
        """Goes through the levels and stops at every map that is pooled."""
        x, lengths = self.prepare(silhouettes, lengths)
        self._check_size(x)
        x, lengths = repeat_short(x, lengths, self.min_frames)
        step = 1
        for level in self._levels():
            for arme in level.arme:
                x = self.run(arme, x, lengths)
            yield _Place(level.astp, x, lengths, step)
            if level.fta is not None:
                assert level.fta_astp is not None
                x = self.run(level.fta, x, lengths)
                lengths = None if lengths is None else level.fta.out_lengths(lengths)
                step *= 3
                yield _Place(level.fta_astp, x, lengths, step)
            if level.halve is not None:
                x = level.halve(x)
        yield _Place(self.last_pool, x, lengths, step)

    def _levels(self) -> list[_Level]:
        return list(self.levels.children())  # pyright: ignore[reportReturnType]

    def _pooled(self, place: _Place) -> Tensor:
        """The parts of a map, ``[N, P_level, C]``."""
        x, lengths = place.features, place.lengths
        if not isinstance(place.pool, GeMHPP):
            return self.run(place.pool, x, lengths)
        return place.pool(self.temporal_pool(x, lengths))

    def _embed(self, parts: list[Tensor]) -> GaitOutput:
        embeddings, logits = self.neck(self.part_fc(torch.cat(parts, dim=1)))
        return GaitOutput(embeddings=embeddings, logits=logits)

    def _check_size(self, x: Tensor) -> None:
        rows, columns = x.shape[3:]
        wanted = sum(self.hierarchy[0].heights)
        if rows != wanted:
            raise ValueError(
                f"expected frames of {wanted} rows, the only height that this hierarchy fits, got "
                f"{rows} rows in {shape_of(x)}; resize the frames (gaitzoo.create_transform), or "
                "build the model with levels=... (gaitzoo.HSTLLevel) whose heights add up to "
                f"{rows}"
            )
        narrowest = 2 ** sum(level.halve for level in self.hierarchy)
        if columns < narrowest:
            raise ValueError(
                f"expected frames of at least {narrowest} columns, got {columns} in {shape_of(x)}"
            )


def _last_pool(
    last: int | Sequence[int], deepest: HSTLLevel, part_channels: int
) -> tuple[GeMHPP | ASTP, int]:
    """The pooling of the deepest map, and how many parts it gives."""
    rows = sum(deepest.heights) // (2 if deepest.halve else 1)
    width = deepest.channels[-1]
    if not isinstance(last, int):
        if sum(last) != rows:
            raise ValueError(
                f"expected heights in last that add up to the {rows} rows of the deepest map, got "
                f"{last}"
            )
        return ASTP(width, part_channels, last), len(last)
    if type(last) is not int or last < 1 or rows % last:
        raise ValueError(
            f"expected last as a number of bands that divides the {rows} rows of the deepest map, "
            f"or as heights that add up to it, got {last}"
        )
    if width != part_channels:
        raise ValueError(
            f"expected a deepest map of part_channels={part_channels} channels, got {width}; only "
            "heights in last, e.g. last=(8,) * 8, pool with a projection"
        )
    return GeMHPP((last,)), last


# The authors count levels and their convolutions from one, and our levels from zero.
_LEVELS = range(1, 10)
_POOLS = {r"hpp\.(\d+)\.p": r"pools.\1.p", r"proj\.conv\.weight": "project.weight"}
_KEYS = {
    "arme1.0.conv3d.weight": "levels.0.arme.0.convs.0.weight",
    "arme1.2.conv3d.weight": "levels.0.arme.1.convs.0.weight",
    **{
        rf"arme{i}\.([01])\.conv3d\.(\d+)\.conv3d\.weight": (
            rf"levels.{i - 1}.arme.\1.convs.\2.weight"
        )
        for i in _LEVELS
    },
    **{
        rf"astp{i}{theirs}\.{inner}": rf"levels.{i - 1}.{ours}.{piece}"
        for i in _LEVELS
        for theirs, ours in (("", "astp"), ("_fta", "fta_astp"))
        for inner, piece in _POOLS.items()
    },
    **{
        rf"fta\.mma\.(\d+)\.fcs\.{i}\.(weight|bias)": (
            rf"levels.1.fta.regions.\1.{window}_score.\2"
        )
        for i, window in enumerate(("short", "long"))
    },
    "HPP.p": "last_pool.p",
    "Head0.fc_bin": "part_fc.weight",
    "Head1.fc_bin": "neck.classifier.weight",
    r"Bn\.(\w+)": r"neck.bn.\1",
}


def convert_checkpoint(state_dict: StateDict) -> StateDict:
    """Renames the authors' parameters to ours, those of all their hierarchies.

    Args:
        state_dict: Parameters under the authors' names, without a ``module.`` prefix.

    Returns:
        The same tensors under this model's names.

    Raises:
        UnknownKeysError: If a name is not HSTL's.
    """
    # A pooling without convolutions of its level is the last one, of the deepest map.
    levels = {key[4:5] for key in state_dict if key.startswith("arme")}
    last = {
        rf"astp{i}\.{inner}": f"last_pool.{piece}"
        for i in _LEVELS
        if str(i) not in levels
        for inner, piece in _POOLS.items()
    }
    return rename_by_table(state_dict, _KEYS | last, "HSTL")


def _cfg(**fields: object) -> PretrainedCfg:
    return PretrainedCfg(
        fidelity="parity",
        embedding="after_bn",
        license="none stated; the authors' repository has no licence file and no statement of use",
        paper="https://arxiv.org/abs/2307.09856",
        origin="https://github.com/gudaochangsheng/HSTL",
        **fields,  # pyright: ignore[reportArgumentType]
    )


_BY_HAND = (
    "the authors' file lies on a drive that programs cannot reach. Download it by hand, by the "
    "link in the README of https://github.com/gudaochangsheng/HSTL, and pass checkpoint_path=..."
)
_NO_FILE = (
    "the authors of HSTL have published no weights for this data set. Train the model yourself, "
    "or load a file that you have with checkpoint_path=..."
)
_CASIAB_METRICS = {
    "rank1": 98.1,
    "rank1_BG": 95.9,
    "rank1_CL": 88.9,
    "rank1_mean": 94.3,
    "protocol": "CASIA-B, identical views excluded; rank1 is normal walking (NM)",
}
_CASIAB_NOTES = (
    "The paper draws 17 parts, the authors' present code has 73; which of the two the published "
    "numbers belong to is not said."
)
_GREW_NOTES = (
    "Our reading: there is neither code nor configuration for GREW; this is the hierarchy of "
    "Gait3D."
)
_GAIT3D_ARGS = {"levels": GAIT3D, "last": 32, "part_channels": 256}

_CFGS = {
    "casiab": _cfg(
        num_classes=74, metrics=_CASIAB_METRICS, unavailable=_BY_HAND, notes=_CASIAB_NOTES
    ),
    "casiab_17": _cfg(
        num_classes=74,
        model_args={"levels": CASIAB_17, "last": (8,) * 8},
        metrics=_CASIAB_METRICS,
        unavailable=(
            "the authors' link of the time of this hierarchy has been replaced. Train the model "
            "yourself, or load a file that you have with checkpoint_path=..."
        ),
        notes=_CASIAB_NOTES,
    ),
    "oumvlp": _cfg(
        num_classes=5153,
        model_args={"levels": OUMVLP, "last": 32, "part_channels": 256},
        metrics={"rank1": 92.4, "protocol": "OU-MVLP, mean over views, identical views excluded"},
        unavailable=_BY_HAND,
    ),
    "gait3d": _cfg(
        num_classes=3000,
        model_args=_GAIT3D_ARGS,
        metrics={
            "rank1": 61.3,
            "rank5": 76.3,
            "mAP": 55.48,
            "mINP": 34.77,
            "protocol": "Gait3D probe list against the rest",
        },
        unavailable=_NO_FILE,
    ),
    "grew": _cfg(
        num_classes=20000,
        model_args=_GAIT3D_ARGS,
        metrics={"rank1": 62.72, "rank5": 76.6, "protocol": "GREW test set, scored by its server"},
        unavailable=_NO_FILE,
        notes=_GREW_NOTES,
    ),
    "walkers": walkers_cfg(
        embedding="after_bn",
        paper="https://arxiv.org/abs/2307.09856",
        model_args={"levels": WALKERS, "last": 8, "part_channels": 96},
        filename="hstl_walkers.safetensors",
        size=3_063_956,
        sha256="72adc5fdb0eea6c0b01bf54181d53af3fa4b36670ad5604024b25c84e9d7b7b3",
        metrics={
            "rank1_walkers": 95.2,
            "rank1_walkers_bag": 89.3,
            "rank1_walkers_coat": 86.5,
            "protocol": WALKERS_PROTOCOL,
        },
    ),
}


_TINY_ARGS = {
    "levels": (
        HSTLLevel((16,), (2, 2), halve=True),
        HSTLLevel((5, 3), (3, 3), shorten=True),
        HSTLLevel((2, 4, 2), (4, 4), project=False),
    ),
    "last": 4,
    "part_channels": 4,
}


register_model(
    "hstl",
    HSTL,
    _CFGS,
    convert=convert_checkpoint,
    tiny=_cfg(num_classes=5, model_args=_TINY_ARGS, input_size=(16, 12)),
)
