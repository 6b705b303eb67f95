"""Scores of a protocol as tables, files and pictures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate
from torch import Tensor

from gaitzoo.evaluation.protocols import GaitProtocol
from gaitzoo.metrics import CrossViewRank1

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["SETTINGS", "ProtocolResult", "ScoreRow", "Tables", "tabulated"]

SETTINGS = {
    "cross_view": "identical views excluded",
    "all_views": "identical views included",
    "re_id": "re-identification, same person in the same view excluded",
    "re_id_types": "re-identification, same person in the same view or type excluded",
    "all": "whole gallery",
}
_UNMATCHED = {
    "miss": "probes without gallery are misses",
    "skip": "probes without gallery left out",
}


@dataclass(frozen=True, eq=False)
class ScoreRow:
    """Scores of one condition in one setting.

    Attributes:
        condition: Its name, such as ``"NM"``.
        pairs: The setting, see :class:`GaitProtocol`.
        unmatched: What became of probes without gallery, likewise.
        scores: ``rank1``, ..., ``mAP``, ``mINP``, fractions.
        intervals: For each score its 95 % interval, if ``bootstrap`` was asked for.
        cmc: ``[20]`` float64, Rank-1 to Rank-20.
        table: Rank-1 by views; ``None`` for settings that compare whole galleries.
        num_query: Probes.
        num_gallery: Gallery sequences.
        num_unmatched: Probes without a match in the gallery.
    """

    condition: str
    pairs: str
    unmatched: str
    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    cmc: Tensor
    table: CrossViewRank1 | None
    num_query: int
    num_gallery: int
    num_unmatched: int


class Tables:
    """Results that print as tables: a subclass makes them in a form of tabulate's."""

    def _tables(self, form: str) -> list[str]:
        raise NotImplementedError(f"{type(self).__name__} defines no _tables")

    def __str__(self) -> str:
        return "\n\n".join(self._tables("simple"))

    def to_latex(self) -> str:
        """The tables as LaTeX (package booktabs), in percent."""
        return "\n\n".join(self._tables("latex_booktabs"))


@dataclass(frozen=True, eq=False)
class ProtocolResult(Tables):
    """What :func:`gaitzoo.evaluate` found; ``print`` shows the tables of papers, in percent.

    Attributes:
        protocol: The protocol.
        metric: How embeddings were compared.
        reranked: Whether distances were re-ranked.
        rows: All settings of all conditions. ``result["NM"]`` is the first of a condition.
        missing: Conditions without probes or gallery.
        num_unused: Sequences that no condition names.
    """

    protocol: GaitProtocol
    metric: str
    reranked: bool
    rows: tuple[ScoreRow, ...]
    missing: tuple[str, ...]
    num_unused: int

    def __getitem__(self, condition: str) -> ScoreRow:
        for row in self.rows:
            if row.condition == condition:
                return row
        raise KeyError(
            f"expected a condition among {', '.join(r.condition for r in self.rows)}, got "
            f"{condition!r}"
        )

    def settings(self) -> dict[tuple[str, str], tuple[ScoreRow, ...]]:
        """Rows by setting and way of counting: one entry is one table."""
        tables: dict[tuple[str, str], tuple[ScoreRow, ...]] = {}
        for row in self.rows:
            key = (row.pairs, row.unmatched)
            tables[key] = (*tables.get(key, ()), row)
        return tables

    def mean(self, pairs: str | None = None, unmatched: str | None = None) -> dict[str, float]:
        """Mean of each score over the conditions of a setting; of the first one by default.

        Raises:
            ValueError: If there is no such setting, or a condition is missing.
        """
        if self.missing:
            raise ValueError(
                f"expected all conditions for their mean, got none of {', '.join(self.missing)}"
            )
        for (its_pairs, its_unmatched), rows in self.settings().items():
            if pairs in (None, its_pairs) and unmatched in (None, its_unmatched):
                return {
                    name: sum(row.scores[name] for row in rows) / len(rows)
                    for name in rows[0].scores
                }
        raise ValueError(f"expected a setting of {self.protocol.name}, got {pairs}, {unmatched}")

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain types, scores as fractions; NaN cells are ``None``."""
        return {
            "protocol": self.protocol.name,
            "metric": self.metric,
            "reranked": self.reranked,
            "missing": list(self.missing),
            "num_unused": self.num_unused,
            "rows": [_plain(row) for row in self.rows],
        }

    def to_json(self, path: str | Path | None = None) -> str:
        """``to_dict`` as JSON; also written to a file if a path is given."""
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False)
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    def plot_cmc(self, path: str | Path | None = None) -> Figure:
        """Draws Rank-1 to Rank-20 of every condition (needs matplotlib).

        Args:
            path: Picture to write, if wanted.
        """
        from gaitzoo.evaluation.plots import draw_curves, save

        curves = {}
        several = len(self.settings()) > 1
        for row in self.rows:
            ways = f" ({row.pairs}, {row.unmatched})" if several else ""
            curves[row.condition + ways] = (range(1, len(row.cmc) + 1), (100 * row.cmc).tolist())
        title = f"{self.protocol.name}: cumulative match characteristic"
        ticks = (1, *range(5, len(self.rows[0].cmc) + 1, 5))
        figure = draw_curves(curves, title, "rank", "probes found, %", xticks=ticks)
        return save(figure, path)

    def plot_views(self, condition: str, path: str | Path | None = None) -> Figure:
        """Draws Rank-1 of every view of the probes in every view of the gallery.

        Needs matplotlib.

        Args:
            condition: Its name.
            path: Picture to write, if wanted.

        Raises:
            KeyError: If there is no such condition.
            ValueError: If the protocol does not compare view by view.
        """
        from gaitzoo.evaluation.plots import draw_matrix, save

        row = self[condition]
        if row.table is None:
            raise ValueError(
                f"expected a protocol by views, got {self.protocol.name}; see plot_cmc"
            )
        title = f"{self.protocol.name} {condition}: Rank-1, %"
        table = row.table
        names = table.query_views, table.gallery_views
        return save(draw_matrix(100 * table.rank1, names, title), path)

    def _tables(self, form: str) -> list[str]:
        tables = []
        comment = "% " if form.startswith("latex") else ""
        compared = f"{self.metric} distance{', re-ranked' if self.reranked else ''}"
        for (pairs, unmatched), rows in self.settings().items():
            rule = f"{SETTINGS[pairs]}; {_UNMATCHED[unmatched]}"
            title = f"{comment}{self.protocol.name}, {compared}: {rule} (%)"
            names = list(rows[0].scores)
            body = [_cells(row) for row in rows]
            if self.protocol.mean and not self.missing and len(rows) > 1:
                means = self.mean(pairs, unmatched)
                body.append(["mean", *(f"{100 * value:.2f}" for value in means.values()), "", ""])
            headers = ["", *map(_heading, names), "probes", "gallery"]
            tables.append(f"{title}\n{tabulated(body, headers, form)}")
            by_view = [row for row in rows if row.table is not None]
            if by_view and pairs == "cross_view":
                tables.append(f"{comment}Rank-1 by view of the probe\n{_view_table(by_view, form)}")
        notes = [self.protocol.notes] if self.protocol.notes else []
        if self.missing:
            notes.append(f"no sequences for {', '.join(self.missing)}")
        if self.num_unused:
            notes.append(f"{self.num_unused} sequence(s) are of no condition and were left out")
        return tables + [f"{comment}{note}" for note in notes]


def _heading(score: str) -> str:
    return score.replace("rank", "Rank-") if score.startswith("rank") else score


def _cells(row: ScoreRow) -> list[str]:
    shown = []
    for name, value in row.scores.items():
        text = f"{100 * value:.2f}"
        if name in row.intervals:
            low, high = row.intervals[name]
            text += f" [{100 * low:.1f}, {100 * high:.1f}]"
        shown.append(text)
    return [row.condition, *shown, str(row.num_query), str(row.num_gallery)]


def _view_table(rows: list[ScoreRow], form: str) -> str:
    tables = [row.table for row in rows if row.table is not None]
    views = sorted({str(view) for table in tables for view in table.query_views})
    body = []
    for row, table in zip(rows, tables, strict=True):
        means = dict(zip(map(str, table.query_views), table.per_query_view().tolist(), strict=True))
        shown = [f"{100 * means[view]:.1f}" if view in means else "" for view in views]
        body.append([row.condition, *shown, f"{100 * table.mean():.1f}"])
    return tabulated(body, ["", *views, "mean"], form)


def tabulated(body: list[list[str]], headers: list[str], form: str) -> str:
    """A table of texts, the first column to the left and all others to the right."""
    align = ["left"] + ["right"] * (len(headers) - 1)
    return tabulate(body, headers, tablefmt=form, colalign=align, disable_numparse=True)


def _plain(row: ScoreRow) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "condition": row.condition,
        "pairs": row.pairs,
        "unmatched": row.unmatched,
        "scores": row.scores,
        "num_query": row.num_query,
        "num_gallery": row.num_gallery,
        "num_unmatched": row.num_unmatched,
        "cmc": row.cmc.tolist(),
    }
    if row.intervals:
        plain["intervals"] = {name: list(bounds) for name, bounds in row.intervals.items()}
    if row.table is not None:
        cells = [[None if cell != cell else cell for cell in r] for r in row.table.rank1.tolist()]
        plain["views"] = {
            "query": list(row.table.query_views),
            "gallery": list(row.table.gallery_views),
            "rank1": cells,
        }
    return plain
