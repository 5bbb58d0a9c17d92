"""Lines over trained runs: a panel beside a panel, a line a variant."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLORS = ("#64748b", "#0369a1", "#15803d", "#a16207", "#c2410c", "#7e22ce", "#be185d", "#0f172a")

Lines = Mapping[str, Mapping[float, Sequence[float]]]
"""Of every line by its label: place -> the value of each seed."""


def line_panels(panels: Mapping[str, Lines], *, x_label: str, y_label: str) -> tuple[Figure, list[Axes]]:
    """A panel beside a panel: the mean line over seeds of each variant, and the span of its seeds.

    Args:
        panels: their lines, by title; the same labels in all of them, so that a color means the same. A line may be empty.
        x_label: what the horizontal axis is.
        y_label: what the vertical axis is.

    Returns:
        The figure and its axes; the legend stands under them.
    """
    count = len(panels)
    figure = Figure(figsize=(1.2 + 3.4 * count, 3.6), dpi=150, layout="constrained", facecolor="white")
    grid = list(figure.subplots(1, count, squeeze=False, sharey=True)[0])
    for axes, (title, lines) in zip(grid, panels.items()):
        for number, (label, line) in enumerate(lines.items()):
            color, places = COLORS[number % len(COLORS)], sorted(line)
            if not places:
                continue
            axes.plot(places, [mean(line[x]) for x in places], "o-", color=color, lw=1.3, ms=3, label=label)
            low, high = ([pick(line[x]) for x in places] for pick in (min, max))
            axes.fill_between(places, low, high, color=color, alpha=0.12, lw=0)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel(x_label, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(axis="y", color="#e2e8f0", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    grid[0].set_ylabel(y_label, fontsize=8)
    return figure, grid


def legend(figure: Figure, axes: Axes) -> None:
    """One legend for all panels, under them, in as many columns as the figure is wide enough for, at most four."""
    handles, labels = axes.get_legend_handles_labels()
    for columns in (4, 3, 2, 1):
        made = figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=7, frameon=False)
        if made.get_window_extent().width <= figure.bbox.width:
            break
        made.remove()


def seeds_of(parts: Mapping[str, Any], row: str) -> dict[str, Any]:
    """What is there of a row, by seed."""
    return {seed: part for name, part in parts.items() for label, _, seed in [name.rpartition("/")] if label == row}
