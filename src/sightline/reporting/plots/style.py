"""The style of all plots: white figures, small labels, no frame at the top and the right, one list of colors."""

import base64
import io
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter, ScalarFormatter
from numpy.typing import NDArray

COLORS = ("#64748b", "#0369a1", "#15803d", "#a16207", "#c2410c", "#7e22ce", "#be185d", "#0f172a")
ACCENT, MUTED, INK = "#c2410c", "#94a3b8", "#334155"
GRID = "#e2e8f0"


def blank_figure(width: float, height: float) -> Figure:
    """Return an empty white figure, in inches."""
    return Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")


def new_axes(
    width: float, height: float, *, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, NDArray[np.object_]]:
    """Return a white figure and its grid of axes (rows, columns).

    Args:
        width: Width of the figure in inches.
        height: Height of the figure in inches.
        rows: Number of rows of axes.
        columns: Number of columns of axes.
        options: Options of `Figure.subplots`, such as `sharey`.
    """
    figure = blank_figure(width, height)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def tidy(
    axes: Axes, *, title: str | None = None, x_label: str = "", y_label: str = "", title_size: int = 9, ticks: int = 7
) -> None:
    """Give axes the style of all plots."""
    if title is not None:
        axes.set_title(title, fontsize=title_size)
    if x_label:
        axes.set_xlabel(x_label, fontsize=8)
    if y_label:
        axes.set_ylabel(y_label, fontsize=8)
    axes.tick_params(labelsize=ticks)
    axes.spines[["top", "right"]].set_visible(False)


def legend_below(figure: Figure, axes: Axes) -> None:
    """Add one legend for all panels under them, in at most four columns, as many as fit the figure's width."""
    handles, labels = axes.get_legend_handles_labels()
    for columns in (4, 3, 2, 1):
        made = figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=7, frameon=False)
        if made.get_window_extent().width <= figure.bbox.width:
            break
        made.remove()


def legend_above(figure: Figure, axes: Axes) -> None:
    """Add one legend for all panels at the top right."""
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=3, fontsize=7, frameon=False)


def draw_texts_as_written(figure: Figure) -> None:
    """Draw every text of a figure literally, since a `$` in a name begins no formula. Numbers at the ticks do not change."""
    numbers: set[int] = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            labels = axis.get_ticklabels(which="both")  # makes them where they are not made yet
            if isinstance(axis.get_major_formatter(), LogFormatter | ScalarFormatter):
                numbers |= {id(text) for text in (*labels, axis.get_offset_text())}
    for text in figure.findobj(Text):
        if id(text) not in numbers:
            text.set_parse_math(False)


def svg_uri(figure: Figure) -> str:
    """Return the figure as an SVG image without a background, in a data URI; equal figures give equal bytes."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sightline", "font.family": "sans-serif"}):
        draw_texts_as_written(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
