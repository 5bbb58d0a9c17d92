"""The mean curves of a model's explainers, a panel per metric."""

from dataclasses import dataclass

import numpy as np

from sightline.evaluation.grid_folder import Evaluations
from sightline.evaluation.ranking import RankingTable, is_chance
from sightline.reporting.formatting import title
from sightline.reporting.plots.style import GRID, new_axes, svg_uri, tidy

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#6f4e9c", "#7a5c3d")  # after Okabe and Ito
GREY = "#8a8a85"


@dataclass(frozen=True)
class Panel:
    """One drawing of mean curves, as a data URI.

    Attributes:
        title: what is drawn.
        picture: the drawing.
        summary: the same in words.
    """

    title: str
    picture: str
    summary: str


def line_styles(evaluations: Evaluations) -> dict[str, tuple[str, str]]:
    """Explainer -> colour and kind of line, the same in every panel."""
    explainers = dict.fromkeys(cell.explainer for cell in evaluations.curves)
    competing = [name for name in explainers if not is_chance(name)]
    styles = {
        name: (COLORS[i % len(COLORS)], ("solid", "dotted", "dashdot")[i // len(COLORS) % 3])
        for i, name in enumerate(competing)
    }
    return styles | {name: (GREY, "dashed") for name in explainers if is_chance(name)}


def curve_panels(table: RankingTable, evaluations: Evaluations, styles: dict[str, tuple[str, str]]) -> list[Panel]:
    """Draw one panel per metric that has curves, with the chance rows at the back."""
    panels = []
    for metric in table.metrics:
        found = {
            c.explainer: curve for c, curve in evaluations.curves.items() if (c.model, c.metric) == (table.name, metric)
        }
        curves = {row: found[row] for row in (*table.chance, *table.rows) if row in found}
        if curves:
            ends = ", ".join(f"{row} {np.trapezoid(y, x):.3f}" for row, (x, y) in curves.items())
            panels.append(Panel(title(metric), _draw(curves, styles), f"Area under each curve: {ends}"))
    return panels


def _draw(curves: dict[str, np.ndarray], styles: dict[str, tuple[str, str]]) -> str:
    """Curves as an SVG drawing in a data URI; equal curves give equal bytes."""
    figure, ((axes,),) = new_axes(3.6, 2.5)
    for row, (share, value) in curves.items():
        color, style = styles[row]
        axes.plot(100 * share, value, color=color, linestyle=style, linewidth=1.4, label=row)
    axes.grid(color=GRID, linewidth=0.6)
    tidy(axes, x_label="% of the pixels changed", ticks=8)
    return svg_uri(figure)
