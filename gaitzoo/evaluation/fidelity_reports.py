"""What :class:`gaitzoo.GaitFidelity` finds, as tables, numbers and pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gaitzoo.evaluation.plots import draw_curves, save
from gaitzoo.evaluation.results import Tables, tabulated

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["RestorationReport", "RestorationRow", "TransferReport", "TransferRow"]

SETTINGS = ("real2real", "gen2real", "gen2gen")


@dataclass(frozen=True, kw_only=True)
class RestorationRow:
    """Scores of one condition; fractions unless it is said otherwise.

    Attributes:
        condition: Its name; ``"all"`` = every clip.
        num_clips: Generated clips.
        rank1: By setting: ``"real2real"`` (what the model reaches on real clips), ``"gen2real"``
            (generated probes, real gallery) and ``"gen2gen"``. NaN where no probe has a match.
        rank5: Likewise.
        mean_ap: Likewise, mean average precision.
        eer: Equal error rate over pairs of generated and real clips; NaN where all are of one kind.
        own_distance: Mean distance of a generated clip to its source.
        genuine_percentile: Share of the distances between real clips of one person that are below
            it, in percent: 50 = like another walk of the person, 0 = nearer than any.
        impostor_percentile: Likewise, among distances of different people.
        dprime: How far distances to the source lie below those of different people, in standard
            deviations; NaN of one clip.
        quality: Means of what was given as ``quality``.
        interval: 95 % interval of ``rank1["gen2real"]``, if asked for.
    """

    condition: str
    num_clips: int
    rank1: dict[str, float]
    rank5: dict[str, float]
    mean_ap: dict[str, float]
    eer: float
    own_distance: float
    genuine_percentile: float
    impostor_percentile: float
    dprime: float
    quality: dict[str, float]
    interval: tuple[float, float] | None

    @property
    def ratio(self) -> float:
        """Rank-1 of generated probes over that of real ones; NaN where nobody is found in those."""
        ceiling = self.rank1["real2real"]
        return self.rank1["gen2real"] / ceiling if ceiling else math.nan


@dataclass(frozen=True, eq=False)
class RestorationReport(Tables):
    """Scores by condition; ``print`` shows them as tables, rates in percent.

    Attributes:
        rows: First that of all clips, then one per condition.
        metric: Name of the distance.
    """

    rows: tuple[RestorationRow, ...]
    metric: str

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON; ``None`` where there is no number (or no error: PSNR)."""
        return {
            "metric": self.metric,
            "rows": [_plain(row) | {"ratio": _finite(row.ratio)} for row in self.rows],
        }

    def _tables(self, form: str) -> list[str]:
        found = []
        for row in self.rows:
            for setting in SETTINGS:
                line = [row.condition if setting == SETTINGS[0] else "", setting]
                rates = (row.rank1[setting], row.rank5[setting], row.mean_ap[setting])
                line += [str(row.num_clips), *map(_percent, rates)]
                told = setting == "gen2real"
                more = [_bounds(row.interval), f"{row.ratio:.3f}", _percent(row.eer)]
                found.append(line + (more if told else ["", "", ""]))
        headers = ["", "probes, gallery", "clips", "Rank-1", "Rank-5", "mAP"]
        headers += ["95 % of Rank-1", "ratio", "EER"]
        near = [
            [
                row.condition,
                f"{row.own_distance:.4f}",
                f"{row.genuine_percentile:.1f}",
                f"{row.impostor_percentile:.1f}",
                f"{row.dprime:.2f}",
                *(f"{value:.3f}" for value in row.quality.values()),
            ]
            for row in self.rows
        ]
        named = ["", "to source", "% of genuine", "% of impostors", "d'", *self.rows[0].quality]
        return [tabulated(found, headers, form), tabulated(near, named, form)]


@dataclass(frozen=True, kw_only=True)
class TransferRow:
    """Scores of one condition, fractions.

    Attributes:
        condition: Its name; ``"all"`` = every clip.
        num_clips: Generated clips that count.
        num_skipped: Those without gallery clips of both people.
        motion_curve: Rank-1 to Rank-20 of finding who moves.
        appearance_curve: Likewise, of finding who is seen.
        motion_nearer: How often the mover's nearest clip is nearer than that of the other, equal
            distances half.
        motion_interval: 95 % interval of the first of ``motion_curve``, if asked for.
        appearance_interval: Likewise.
    """

    condition: str
    num_clips: int
    num_skipped: int
    motion_curve: tuple[float, ...]
    appearance_curve: tuple[float, ...]
    motion_nearer: float
    motion_interval: tuple[float, float] | None
    appearance_interval: tuple[float, float] | None

    @property
    def motion_rank1(self) -> float:
        """Rank-1 of who moves."""
        return self.motion_curve[0]

    @property
    def appearance_rank1(self) -> float:
        """Rank-1 of who is seen."""
        return self.appearance_curve[0]

    @property
    def leakage(self) -> float:
        """Share of appearance among what is found at rank 1.

        0 = recognition follows the motion, 1 = the picture, NaN = it finds neither.
        """
        total = self.motion_rank1 + self.appearance_rank1
        return self.appearance_rank1 / total if total else math.nan


@dataclass(frozen=True, eq=False)
class TransferReport(Tables):
    """Scores by condition; ``print`` shows them as a table, rates in percent.

    Attributes:
        rows: First that of all clips, then one per condition.
        metric: Name of the distance.
    """

    rows: tuple[TransferRow, ...]
    metric: str

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON; ``None`` where there is no number."""
        own = [
            {name: _finite(getattr(row, name)) for name in ("motion_rank1", "appearance_rank1")}
            | {"leakage": _finite(row.leakage)}
            for row in self.rows
        ]
        return {
            "metric": self.metric,
            "rows": [_plain(row) | more for row, more in zip(self.rows, own, strict=True)],
        }

    def plot(self, path: str | Path | None = None) -> Figure:
        """Draws how often mover and picture are among the first of all clips (matplotlib).

        Args:
            path: Picture to write, if wanted.
        """
        row = self.rows[0]
        ranks = list(range(1, len(row.motion_curve) + 1))
        curves = {
            "who moves": (ranks, list(row.motion_curve)),
            "who is seen": (ranks, list(row.appearance_curve)),
        }
        title = "Whom recognition finds in generated walks"
        figure = draw_curves(curves, title, "rank", "share of clips", ylim=(0, 1.02))
        return save(figure, path)

    def _tables(self, form: str) -> list[str]:
        body = [
            [
                row.condition,
                str(row.num_clips),
                _percent(row.motion_rank1),
                _bounds(row.motion_interval),
                _percent(row.appearance_rank1),
                _bounds(row.appearance_interval),
                _percent(row.motion_nearer),
                f"{row.leakage:.3f}",
            ]
            for row in self.rows
        ]
        headers = ["", "clips", "motion Rank-1", "95 %", "appearance Rank-1", "95 %"]
        headers.append("motion nearer")
        return [tabulated(body, [*headers, "leakage"], form)]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _bounds(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _plain(row: RestorationRow | TransferRow) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(inner) for name, inner in value.items()}
        if isinstance(value, tuple):
            return [plain(inner) for inner in value]
        return _finite(value) if isinstance(value, float) else value

    return {name: plain(getattr(row, name)) for name in row.__dataclass_fields__}
