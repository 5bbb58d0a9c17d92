"""Plots of the studies: their style, and lines over trained runs with one panel per combination."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

COLORS = ("#64748b", "#0369a1", "#15803d", "#a16207", "#c2410c", "#7e22ce", "#be185d", "#0f172a")

Lines = Mapping[str, Mapping[float, Sequence[float]]]
"""Label of a line -> place -> the value of each seed."""


def new_figure(
    width: float, height: float, *, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, NDArray[np.object_]]:
    """Return a white figure, in inches, and its grid of axes (rows, columns).

    Args:
        width: of the figure.
        height: of the figure.
        rows: of axes.
        columns: of axes.
        options: of `Figure.subplots`, such as `sharey`.
    """
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def tidy(
    axes: Axes, *, title: str | None = None, x_label: str = "", y_label: str = "", title_size: int = 9, ticks: int = 7
) -> None:
    """Give axes the style of all studies: small labels, no frame at the top and the right."""
    if title is not None:
        axes.set_title(title, fontsize=title_size)
    if x_label:
        axes.set_xlabel(x_label, fontsize=8)
    if y_label:
        axes.set_ylabel(y_label, fontsize=8)
    axes.tick_params(labelsize=ticks)
    axes.spines[["top", "right"]].set_visible(False)


def line_panels(panels: Mapping[str, Lines], *, x_label: str, y_label: str) -> tuple[Figure, list[Axes]]:
    """Draw a panel per combination: the mean line over seeds of each variant, and the span of its seeds.

    Args:
        panels: their lines, by title; the same labels in all of them, so that a color means the same. A line may be empty.
        x_label: what the horizontal axis is.
        y_label: what the vertical axis is.

    Returns:
        The figure and its axes; `legend` adds the legend.
    """
    figure, grid = new_figure(1.2 + 3.4 * len(panels), 3.6, columns=len(panels), sharey=True)
    for axes, (title, lines) in zip(grid[0], panels.items()):
        for number, (label, line) in enumerate(lines.items()):
            color, places = COLORS[number % len(COLORS)], sorted(line)
            if not places:
                continue
            axes.plot(places, [mean(line[x]) for x in places], "o-", color=color, lw=1.3, ms=3, label=label)
            low, high = ([pick(line[x]) for x in places] for pick in (min, max))
            axes.fill_between(places, low, high, color=color, alpha=0.12, lw=0)
        tidy(axes, title=title, x_label=x_label)
        axes.grid(axis="y", color="#e2e8f0", lw=0.6)
    grid[0, 0].set_ylabel(y_label, fontsize=8)
    return figure, list(grid[0])


def legend(figure: Figure, axes: Axes) -> None:
    """Add one legend for all panels under them, in at most four columns, as many as fit the figure's width."""
    handles, labels = axes.get_legend_handles_labels()
    for columns in (4, 3, 2, 1):
        made = figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=7, frameon=False)
        if made.get_window_extent().width <= figure.bbox.width:
            break
        made.remove()
