"""How data sets are evaluated: which sequences are compared with which, and what is counted.

Sources: for CASIA-B, OU-MVLP, GREW, Gait3D, CCPG and SUSTech1K the rules of OpenGait's evaluators
(https://github.com/ShiqiYu/OpenGait), which published numbers of the last years were measured
with. Differences: no cell is rounded to two decimals before means are taken, and mINP is that of
its paper (see :func:`gaitzoo.metrics.mean_inp`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gaitzoo.data.ranking import check_ranks

__all__ = ["PROTOCOLS", "Condition", "GaitProtocol", "find_protocol"]

_PAIRS = ("cross_view", "all_views", "re_id", "re_id_types", "all")
_UNMATCHED = ("skip", "miss")


@dataclass(frozen=True)
class Condition:
    """The sequences of one row of a table, by their types.

    Args:
        name: What the row is called, such as ``"NM"``.
        query: Types of the probes; empty = any type.
        gallery: Types of the gallery; empty = any type.
    """

    name: str
    query: tuple[str, ...] = ()
    gallery: tuple[str, ...] = ()


@dataclass(frozen=True)
class GaitProtocol:
    """How embeddings of a data set are scored.

    Args:
        name: Title of its tables.
        conditions: Rows of the table.
        pairs: Settings in which each condition is scored:
            ``"cross_view"``, every view of the probes against every view of the gallery apart,
            then the mean over pairs of different views; ``"all_views"``, the same with pairs of
            equal views in the mean; ``"re_id"``, the whole gallery at once without sequences of
            the probe's person from the probe's view; ``"re_id_types"``, the whole gallery without
            sequences of the probe's person that share its view or its type; ``"all"``, the whole
            gallery at once.
        unmatched: What becomes of a probe whose person is not in the gallery (in
            ``"cross_view"``: not in that view of it): left out (``"skip"``) or counted as not
            found (``"miss"``). Several give several tables. Settings of re-identification, mAP
            and mINP always leave it out.
        ranks: The k of Rank-k.
        retrieval: Whether mAP and mINP are computed (not for settings by views).
        match: Types of conditions are names (``"exact"``) or parts of names (``"contains"``).
        view_separator: Views are told apart by the text before this only; ``None`` = by all.
        listed: Probes are those of a list, and the gallery is the rest.
        mean: Whether a row with the mean over conditions belongs to the table.
        notes: What a reader of the table should know.

    Raises:
        ValueError: If an option is unknown, or there is no condition, setting or rank.

    Example:
        >>> walk = Condition("bag", query=("bg",), gallery=("nm",))
        >>> GaitProtocol("mine", (walk,), pairs=("all",), ranks=(1, 5)).needs_views
        False
    """

    name: str
    conditions: tuple[Condition, ...] = (Condition("test"),)
    pairs: tuple[str, ...] = ("cross_view",)
    unmatched: tuple[str, ...] = ("miss",)
    ranks: tuple[int, ...] = (1,)
    retrieval: bool = False
    match: str = "exact"
    view_separator: str | None = None
    listed: bool = False
    mean: bool = False
    notes: str = ""

    def __post_init__(self) -> None:
        check_ranks(self.ranks, "ranks")
        for name, known in (("pairs", _PAIRS), ("unmatched", _UNMATCHED)):
            given = getattr(self, name)
            if not isinstance(given, tuple) or not given or set(given) - set(known):
                raise ValueError(f"expected {name} as a tuple of {', '.join(known)}, got {given!r}")
        if self.match not in ("exact", "contains"):
            raise ValueError(f'expected match "exact" or "contains", got {self.match!r}')
        names = [condition.name for condition in self.conditions]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"expected conditions of different names, got {names}")
        if self.listed and len(names) > 1:
            raise ValueError(f"expected one condition where probes are listed, got {names}")

    @property
    def needs_views(self) -> bool:
        """Whether sequences must have views."""
        return self.pairs != ("all",)

    @property
    def needs_types(self) -> bool:
        """Whether sequences must have types."""
        by_type = any(condition.query or condition.gallery for condition in self.conditions)
        return by_type or "re_id_types" in self.pairs

    def choose(self, types: Sequence[Any], wanted: tuple[str, ...]) -> np.ndarray:
        """Which sequences have one of the types, ``[N]`` bool; all of them for no types."""
        if not wanted:
            return np.ones(len(types), dtype=bool)
        if self.match == "exact":
            return np.isin(np.array([str(each) for each in types]), wanted)
        return np.array([any(part in str(each) for part in wanted) for each in types], dtype=bool)


_CASIA_B_GALLERY = ("nm-01", "nm-02", "nm-03", "nm-04")
_SUSTECH1K = {
    "Normal": ("01-nm",),
    "Bag": ("bg",),
    "Clothing": ("cl",),
    "Carrying": ("cr",),
    "Umbrella": ("ub",),
    "Uniform": ("uf",),
    "Occlusion": ("oc",),
    "Night": ("nt",),
    "Overall": ("01", "02", "03", "04"),
}
PROTOCOLS = {
    "casiab": GaitProtocol(
        "CASIA-B",
        (
            Condition("NM", ("nm-05", "nm-06"), _CASIA_B_GALLERY),
            Condition("BG", ("bg-01", "bg-02"), _CASIA_B_GALLERY),
            Condition("CL", ("cl-01", "cl-02"), _CASIA_B_GALLERY),
        ),
        mean=True,
    ),
    "oumvlp": GaitProtocol(
        "OU-MVLP",
        (Condition("00", ("00",), ("01",)),),
        unmatched=("miss", "skip"),
        notes="papers report either; OpenGait counts probes without gallery as misses",
    ),
    "grew": GaitProtocol(
        "GREW",
        (Condition("test", ("02",), ("01",)),),
        pairs=("all",),
        ranks=(1, 5, 10, 20),
        notes="the labelled part; identities of the official probes are known to the data set's "
        "server alone: write_grew_submission",
    ),
    "gait3d": GaitProtocol(
        "Gait3D",
        pairs=("all",),
        unmatched=("skip",),
        ranks=(1, 5, 10),
        retrieval=True,
        listed=True,
    ),
    "ccpg": GaitProtocol(
        "CCPG",
        (
            Condition("CL", ("U0_D0_BG", "U0_D0"), ("U1_D1", "U2_D2", "U3_D3")),
            Condition("UP", ("U3_D3",), ("U0_D3",)),
            Condition("DN", ("U1_D0",), ("U1_D1",)),
            Condition("BG", ("U0_D0_BG",), ("U0_D0",)),
        ),
        pairs=("cross_view", "all_views", "re_id"),
        retrieval=True,
        view_separator="_",
        mean=True,
        notes="gait papers report cross_view, re-identification papers re_id",
    ),
    "sustech1k": GaitProtocol(
        "SUSTech1K",
        tuple(Condition(name, parts, ("00-nm",)) for name, parts in _SUSTECH1K.items()),
        ranks=(1, 5),
        match="contains",
    ),
    "ccgr": GaitProtocol(
        "CCGR",
        pairs=("re_id", "re_id_types"),
        unmatched=("skip",),
        ranks=(1, 5),
        retrieval=True,
        notes="every sequence against all others; which pairs the paper's R1-easy and R1-hard "
        "leave out is [inferred], so these numbers stand beside published ones with care",
    ),
}


def find_protocol(protocol: str | GaitProtocol) -> GaitProtocol:
    """A protocol by its name, or the protocol itself.

    Raises:
        TypeError: If it is neither.
        ValueError: If there is none of that name.

    Example:
        >>> find_protocol("gait3d").ranks
        (1, 5, 10)
    """
    if isinstance(protocol, GaitProtocol):
        return protocol
    if not isinstance(protocol, str):
        raise TypeError(
            f"expected protocol as a name or a GaitProtocol, got {type(protocol).__name__}"
        )
    if protocol not in PROTOCOLS:
        raise ValueError(
            f"expected a protocol among {', '.join(PROTOCOLS)}, got {protocol!r}; describe another "
            "with GaitProtocol(...)"
        )
    return PROTOCOLS[protocol]
