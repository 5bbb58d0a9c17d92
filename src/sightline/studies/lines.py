"""Lines over trained runs with one panel per combination."""

from collections.abc import Mapping, Sequence
from statistics import mean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sightline.reporting.plots.style import COLORS, GRID, new_axes, tidy

Lines = Mapping[str, Mapping[float, Sequence[float]]]
"""Label of a line -> place -> the value of each seed."""


def line_panels(panels: Mapping[str, Lines], *, x_label: str, y_label: str) -> tuple[Figure, list[Axes]]:
    """Draw a panel per combination: the mean line over seeds of each variant, and the span of its seeds.

    Args:
        panels: their lines, by title; the same labels in all of them, so a color means the same. A line may be empty.
        x_label: what the horizontal axis is.
        y_label: what the vertical axis is.

    Returns:
        The figure and its axes; `legend_below` adds the legend.
    """
    figure, grid = new_axes(1.2 + 3.4 * len(panels), 3.6, columns=len(panels), sharey=True)
    for axes, (title, lines) in zip(grid[0], panels.items()):
        for number, (label, line) in enumerate(lines.items()):
            color, places = COLORS[number % len(COLORS)], sorted(line)
            if not places:
                continue
            axes.plot(places, [mean(line[x]) for x in places], "o-", color=color, lw=1.3, ms=3, label=label)
            low, high = ([pick(line[x]) for x in places] for pick in (min, max))
            axes.fill_between(places, low, high, color=color, alpha=0.12, lw=0)
        tidy(axes, title=title, x_label=x_label)
        axes.grid(axis="y", color=GRID, lw=0.6)
    grid[0, 0].set_ylabel(y_label, fontsize=8)
    return figure, list(grid[0])
