"""Scores of RobustGait: what corruption leaves of a model's accuracy."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate
from torch import Tensor

from gaitzoo.data.corruptions import GROUPS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["RobustnessReport", "absolute_robustness", "relative_robustness"]


def absolute_robustness(clean: float, corrupted: float) -> float:
    """How little of the score is lost, in points: ``1 - (clean - corrupted)``.

    Args:
        clean: Score on clean videos, a fraction in [0, 1].
        corrupted: Score on corrupted ones.

    Raises:
        ValueError: If a score is not in [0, 1].

    Example:
        >>> absolute_robustness(0.75, 0.5)
        0.75
    """
    _check_score(clean, corrupted)
    return 1 - (clean - corrupted)


def relative_robustness(clean: float, corrupted: float) -> float:
    """How much of the score is left: ``1 - (clean - corrupted) / clean``.

    Args:
        clean: Score on clean videos, a fraction in [0, 1].
        corrupted: Score on corrupted ones.

    Returns:
        The fraction; NaN where nobody was found on clean videos either.

    Raises:
        ValueError: If a score is not in [0, 1].

    Example:
        >>> relative_robustness(0.75, 0.375)
        0.5
    """
    _check_score(clean, corrupted)
    return corrupted / clean if clean else float("nan")


def _check_score(*scores: float) -> None:
    for score in scores:
        if not 0 <= score <= 1:
            raise ValueError(f"expected a score as a fraction in [0, 1], got {score!r}")


@dataclass(frozen=True, eq=False)
class RobustnessReport:
    """Scores by type and severity; ``print`` shows them as a table, in percent.

    Attributes:
        scenario: Which sequences were corrupted.
        score: Name of the score.
        clean: The score with clean probes and a clean gallery, a fraction.
        corruptions: Types, rows of the matrix.
        severities: Columns of the matrix.
        matrix: ``[types, severities]`` float64, fractions.
        lost: ``[types, severities]`` float64, share of the probes in which nobody was seen any
            more; they count as not found.
    """

    scenario: str
    score: str
    clean: float
    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    matrix: Tensor
    lost: Tensor

    def per_type(self, kind: str = "relative") -> dict[str, float]:
        """Robustness of every type, the mean over severities.

        Args:
            kind: ``"relative"`` or ``"absolute"``.

        Raises:
            ValueError: If the kind is unknown.
        """
        measures = {"relative": relative_robustness, "absolute": absolute_robustness}
        if kind not in measures:
            raise ValueError(f'expected kind "relative" or "absolute", got {kind!r}')
        return {
            name: _mean(measures[kind](self.clean, value) for value in row)
            for name, row in zip(self.corruptions, self.matrix.tolist(), strict=True)
        }

    def per_group(self, kind: str = "relative") -> dict[str, float]:
        """Robustness of every group, the mean over its types; types of no group stand alone.

        Args:
            kind: ``"relative"`` or ``"absolute"``.

        Raises:
            ValueError: If the kind is unknown.
        """
        types = self.per_type(kind)
        grouped = {name: group for group, names in GROUPS.items() for name in names}
        values: dict[str, list[float]] = {}
        for name, value in types.items():
            values.setdefault(grouped.get(name, name), []).append(value)
        return {group: _mean(each) for group, each in values.items()}

    def mean(self, kind: str = "relative", over: str = "groups") -> float:
        """One number: the mean over groups or over types.

        Args:
            kind: ``"relative"`` or ``"absolute"``.
            over: ``"groups"`` or ``"types"``.

        Raises:
            ValueError: If an argument is unknown.
        """
        if over not in ("groups", "types"):
            raise ValueError(f'expected over "groups" or "types", got {over!r}')
        return _mean((self.per_group(kind) if over == "groups" else self.per_type(kind)).values())

    def __str__(self) -> str:
        relative, absolute = self.per_type("relative"), self.per_type("absolute")
        rows = [
            [name, *(f"{100 * value:.1f}" for value in row), f"{relative[name]:.3f}",
             f"{absolute[name]:.3f}"]
            for name, row in zip(self.corruptions, self.matrix.tolist(), strict=True)
        ]  # fmt: skip
        for name, value in self.per_group("relative").items():
            if name not in relative:
                share = f"{self.per_group('absolute')[name]:.3f}"
                rows.append([f"mean: {name}", *[""] * len(self.severities), f"{value:.3f}", share])
        means = [f"{self.mean(kind):.3f}" for kind in ("relative", "absolute")]
        rows.append(["mean over groups", *[""] * len(self.severities), *means])
        headers = [_heading(self), *map(str, self.severities), "relative", "absolute"]
        align = ["left", *["right"] * (len(headers) - 1)]
        table = tabulate(rows, headers, colalign=align, disable_numparse=True)
        return f"{self.scenario}, clean {100 * self.clean:.1f}\n{table}"

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain types, fractions; robustness that is not defined is ``None``."""
        measures = {
            f"{kind}_{name}": {key: _or_none(value) for key, value in values.items()}
            for kind in ("relative", "absolute")
            for name, values in (("types", self.per_type(kind)), ("groups", self.per_group(kind)))
        }
        return {
            "scenario": self.scenario,
            "score": self.score,
            "clean": self.clean,
            "severities": list(self.severities),
            "matrix": dict(zip(self.corruptions, self.matrix.tolist(), strict=True)),
            "lost": dict(zip(self.corruptions, self.lost.tolist(), strict=True)),
            **measures,
        }

    def to_json(self, path: str | Path | None = None) -> str:
        """``to_dict`` as JSON; also written to a file if a path is given."""
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False)
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text

    def plot(self, path: str | Path | None = None, title: str = "") -> Figure:
        """Draws the matrix as a heat map, in percent (needs matplotlib).

        Args:
            path: Picture to write, if wanted.
            title: Above it; the scenario and the clean score follow.
        """
        from gaitzoo.evaluation.plots import draw_matrix, save

        names = [name.replace("_", " ") for name in self.corruptions], self.severities
        title = f"{title}\n" if title else ""
        title += (
            f"{_heading(self)}, {self.scenario.replace('_', ' ')}, clean {100 * self.clean:.0f}"
        )
        return save(draw_matrix(100 * self.matrix, names, title, ("severity", "")), path)


def _heading(report: RobustnessReport) -> str:
    return "Rank-1, %" if report.score == "rank1" else "mAP, %"


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def _or_none(value: float) -> float | None:
    return None if value != value else value
