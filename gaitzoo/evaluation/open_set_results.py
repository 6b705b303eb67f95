"""Open-set figures of a data set as tables, files and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gaitzoo.evaluation.open_set import ErrorCurve, draw_det, draw_roc
from gaitzoo.evaluation.protocols import GaitProtocol
from gaitzoo.evaluation.results import SETTINGS, Tables, tabulated

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["OpenSetResult", "OpenSetRow"]

_PAIR_RATES, _SEARCH_RATES = (0.01, 0.001), (0.1, 0.01)


@dataclass(frozen=True, eq=False)
class OpenSetRow:
    """Errors of one condition on the people of the test.

    Attributes:
        condition: Its name, such as ``"NM"``.
        pairs: FMR and FNMR at every threshold, of probes compared with the gallery pair by pair.
        searches: FPIR and FNIR at every threshold, rank 1.
        rates: ``FMR``, ``FNMR``, ``FPIR`` and ``FNIR``, fractions, at the thresholds that were
            chosen on other people.
        intervals: For each of these rates its 95 % interval, if ``bootstrap`` was asked for.
        num_left_out: Probes that are compared with nobody, or with all but their own person.
    """

    condition: str
    pairs: ErrorCurve
    searches: ErrorCurve
    rates: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    num_left_out: int

    def tar_at_far(self) -> dict[float, float | None]:
        """1 - FNMR where FMR is at most 1 % and 0.1 %; ``None`` with too few pairs to tell."""
        return _at_rates(self.pairs, _PAIR_RATES)

    def fnir_at_fpir(self) -> dict[float, float | None]:
        """FNIR where FPIR is at most 10 % and 1 %; ``None`` with too few searches to tell."""
        found = _at_rates(self.searches, _SEARCH_RATES)
        return {rate: None if value is None else 1 - value for rate, value in found.items()}


@dataclass(frozen=True, eq=False)
class OpenSetResult(Tables):
    """What :func:`gaitzoo.evaluate_open_set` found; ``print`` shows tables, in percent.

    Attributes:
        protocol: Whose conditions and pairs these are.
        metric: How embeddings were compared.
        rate: The false-positive rate, a fraction, that thresholds were chosen for.
        seed: Of the choice of people.
        people: Names by part: ``"validation known"``, ``"validation strangers"``,
            ``"test known"``, ``"test strangers"``.
        pair_threshold: Largest distance of a pair that is accepted (verification).
        search_threshold: Largest distance of a match (identification), for
            ``gaitzoo.identify(..., threshold=)``.
        rows: The conditions.
        num_chosen_on: Pairs of different people, and searches of strangers, that the thresholds
            were chosen on.
        missing: Conditions without probes of known people and of strangers.
        num_left_out: People without probes or without gallery.
    """

    protocol: GaitProtocol
    metric: str
    rate: float
    seed: int
    people: dict[str, tuple[str, ...]]
    pair_threshold: float
    search_threshold: float
    num_chosen_on: tuple[int, int]
    rows: tuple[OpenSetRow, ...]
    missing: tuple[str, ...]
    num_left_out: int

    def __getitem__(self, condition: str) -> OpenSetRow:
        for row in self.rows:
            if row.condition == condition:
                return row
        raise KeyError(
            f"expected a condition among {', '.join(r.condition for r in self.rows)}, got "
            f"{condition!r}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything but the curves as plain types, rates as fractions."""
        return {
            "protocol": self.protocol.name,
            "metric": self.metric,
            "rate": self.rate,
            "seed": self.seed,
            "people": {part: list(names) for part, names in self.people.items()},
            "pair_threshold": self.pair_threshold,
            "search_threshold": self.search_threshold,
            "num_chosen_on": list(self.num_chosen_on),
            "missing": list(self.missing),
            "num_left_out": self.num_left_out,
            "rows": [_plain(row) for row in self.rows],
        }

    def plot_roc(self, path: str | Path | None = None) -> Figure:
        """Draws 1 - FNMR over FMR of every condition (needs matplotlib).

        Args:
            path: Picture to write, if wanted.
        """
        curves = {row.condition: row.pairs for row in self.rows}
        return draw_roc(curves, f"{self.protocol.name}: receiver operating characteristic", path)

    def plot_det(self, path: str | Path | None = None) -> Figure:
        """Draws FNIR over FPIR of every condition on logarithmic axes (needs matplotlib).

        No error at all is drawn as half an error.

        Args:
            path: Picture to write, if wanted.
        """
        curves = {row.condition: row.searches for row in self.rows}
        return draw_det(curves, f"{self.protocol.name}: detection error trade-off", path)

    def _tables(self, form: str) -> list[str]:
        comment = "% " if form.startswith("latex") else ""
        sizes = {part: len(names) for part, names in self.people.items()}
        setting = SETTINGS[self.protocol.pairs[0]]
        text = (
            f"{self.protocol.name}, open set, {self.metric} distance: {setting} (%)",
            f"gallery of {sizes['test known']} people, {sizes['test strangers']} others are "
            f"strangers (seed {self.seed})",
            f"thresholds for FMR and FPIR of {_rate(self.rate)} %, chosen on other people: "
            f"{sizes['validation known']} known, {sizes['validation strangers']} strangers",
        )
        tables = ["\n".join(comment + line for line in text)]
        headers = [f"TAR@FAR {_rate(rate)} %" for rate in _PAIR_RATES]
        body = [
            [
                row.condition,
                f"{100 * row.pairs.eer():.2f}",
                *map(_cell, row.tar_at_far().values()),
                *(_with_interval(row, name) for name in ("FMR", "FNMR")),
                str(len(row.pairs.mated)),
                str(len(row.pairs.non_mated)),
            ]
            for row in self.rows
        ]
        headers = ["", "EER", *headers, "FMR", "FNMR", "same person", "others"]
        title = f"{comment}verification; FMR and FNMR at distance {self.pair_threshold:.6g}"
        tables.append(f"{title}\n{tabulated(body, headers, form)}")
        headers = [f"FNIR@FPIR {_rate(rate)} %" for rate in _SEARCH_RATES]
        body = [
            [
                row.condition,
                *map(_cell, row.fnir_at_fpir().values()),
                *(_with_interval(row, name) for name in ("FPIR", "FNIR")),
                str(len(row.searches.mated)),
                str(len(row.searches.non_mated)),
            ]
            for row in self.rows
        ]
        headers = ["", *headers, "FPIR", "FNIR", "known", "strangers"]
        title = f"identification, rank 1; FPIR and FNIR at distance {self.search_threshold:.6g}"
        tables.append(f"{comment}{title}\n{tabulated(body, headers, form)}")
        notes = []
        if any(None in (*r.tar_at_far().values(), *r.fnir_at_fpir().values()) for r in self.rows):
            notes.append("-: too few pairs or searches of different people for so small a rate")
        for count, what in zip(self.num_chosen_on, ("pairs", "searches"), strict=True):
            if self.rate * count < 1:
                notes.append(
                    f"the threshold of {what} was chosen on {count} {what} of different people, "
                    f"too few to show a rate of {_rate(self.rate)} %: it is the largest without "
                    "any error there"
                )
        if self.missing:
            absent = ", ".join(self.missing)
            notes.append(f"no searches of known people and of strangers for {absent}")
        lost = {row.condition: row.num_left_out for row in self.rows if row.num_left_out}
        if lost:
            counts = ", ".join(f"{name} {count}" for name, count in lost.items())
            notes.append(f"probes left out, without a pair of their own person or any: {counts}")
        if self.num_left_out:
            notes.append(f"{self.num_left_out} people without probes or gallery were left out")
        return tables + [comment + note for note in notes]


def _at_rates(curve: ErrorCurve, rates: tuple[float, ...]) -> dict[float, float | None]:
    enough = {rate: rate * len(curve.non_mated) >= 1 for rate in rates}
    return {rate: curve.true_positive_at(rate) if enough[rate] else None for rate in rates}


def _rate(rate: float) -> str:
    return f"{100 * rate:g}"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _with_interval(row: OpenSetRow, name: str) -> str:
    text = _cell(row.rates[name])
    if name in row.intervals:
        low, high = row.intervals[name]
        text += f" [{100 * low:.1f}, {100 * high:.1f}]"
    return text


def _plain(row: OpenSetRow) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "condition": row.condition,
        "eer": row.pairs.eer(),
        "eer_threshold": row.pairs.eer_threshold(),
        "tar_at_far": {str(rate): value for rate, value in row.tar_at_far().items()},
        "fnir_at_fpir": {str(rate): value for rate, value in row.fnir_at_fpir().items()},
        "rates": row.rates,
        "num_pairs": [len(row.pairs.mated), len(row.pairs.non_mated)],
        "num_searches": [len(row.searches.mated), len(row.searches.non_mated)],
        "num_left_out": row.num_left_out,
    }
    if row.intervals:
        plain["intervals"] = {name: list(bounds) for name, bounds in row.intervals.items()}
    return plain
