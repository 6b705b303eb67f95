"""Curves and matrices drawn with matplotlib, which is loaded when something is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_curves", "draw_matrix", "save"]

_STYLES = ("-", "--", "-.", ":")


def draw_curves(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str,
    x_label: str,
    y_label: str,
    **axes: Any,
) -> Figure:
    """Draws curves into one pair of axes.

    Args:
        curves: Name to x and y.
        title: Above the axes.
        x_label: Below them.
        y_label: Beside them.
        axes: Further properties, such as ``xscale="log"``.

    Raises:
        ImportError: If matplotlib is missing.
    """
    figure = _figure()
    plot = figure.add_subplot()
    for number, (name, (x, y)) in enumerate(curves.items()):
        marker = "o" if len(x) <= 30 else None
        style = _STYLES[number // 10 % len(_STYLES)]
        plot.plot(x, y, style, marker=marker, markersize=3, label=name)
    plot.set(title=title, xlabel=x_label, ylabel=y_label, **axes)
    plot.grid(alpha=0.3)
    if len(curves) > 1:
        plot.legend()
    return figure


def draw_matrix(
    values: Tensor,
    names: tuple[Sequence[Any], Sequence[Any]],
    title: str,
    axes: tuple[str, str] = ("view of the gallery", "view of the probe"),
) -> Figure:
    """Draws scores in percent, by default by view of the probe (rows) and of the gallery (columns).

    Args:
        values: ``[rows, columns]``; NaN cells stay empty.
        names: Of the rows and of the columns.
        title: Above the matrix.
        axes: What columns and rows are.

    Raises:
        ImportError: If matplotlib is missing.
    """
    figure = _figure(width=2 + 0.5 * len(names[1]), height=1.6 + 0.4 * len(names[0]))
    plot = figure.add_subplot()
    # Cells of low recall are dark, and the scale is one for all pictures.
    image = plot.imshow(values.numpy(), vmin=0, vmax=100, cmap="viridis", aspect="auto")
    plot.set(title=title, xlabel=axes[0], ylabel=axes[1])
    plot.set_xticks(range(len(names[1])), [str(name) for name in names[1]], rotation=60)
    plot.set_yticks(range(len(names[0])), [str(name) for name in names[0]])
    for row, cells in enumerate(values.tolist()):
        for column, cell in enumerate(cells):
            if cell == cell:
                ink = "black" if cell > 60 else "white"
                place = {"ha": "center", "va": "center", "fontsize": 7, "color": ink}
                plot.text(column, row, f"{cell:.0f}", **place)
    figure.colorbar(image)
    return figure


def save(figure: Figure, path: str | Path | None) -> Figure:
    """Writes the picture if there is a path; the format is that of the file's ending."""
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _figure(width: float = 6.4, height: float = 4.8) -> Figure:
    try:
        # Not pyplot: figures of a library belong to whoever holds them, and need no screen.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "pictures of curves need matplotlib: pip install 'gaitzoo[viz]'"
        ) from error
    return Figure(figsize=(max(4.5, width), max(3.5, height)), layout="constrained")
