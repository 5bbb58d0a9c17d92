"""What the page and the Markdown tables say about a value, a rank and a test."""

import numpy as np

from sightline.evaluation.grid_folder import Value
from sightline.evaluation.ranking import CellMark, Ranking
from sightline.reporting.formatting import number

CHANCE = {"level": "≈ chance", "below": "below chance"}
KEY = (
    "↑ higher is better, ↓ lower is better. Bold is best, underlined is second best. † = no significant difference from the "
    "best (paired test at 5%, with Holm’s correction). Chance rows are maps that ignore the model; they are not ranked. “≈ "
    "chance” = not significantly better than one of the chance rows, “below chance” = significantly worse. n = number of "
    "images."
)
UNEQUAL = (
    "Rows differ in the number of images. Ranks compare two rows on the images that both have, so a row can have a better rank "
    "than another row with a better value."
)


def rank_words(ranking: Ranking) -> str:
    """Format a mean rank, in brackets if a metric is missing from it."""
    if np.isnan(ranking.mean):
        return "–"
    return f"{ranking.mean:.2f}" if ranking.complete else f"({ranking.mean:.2f})"


def span(value: Value, metric: str) -> str:
    """Format the interval of a value."""
    if np.isnan(value.low):
        return "no interval"
    return f"{number(value.low, metric)} to {number(value.high, metric)}"


def about(value: Value, metric: str, mark: CellMark) -> str:
    """Return the tooltip of a cell."""
    parts = [f"95% interval {span(value, metric)}", f"n = {value.n}"]
    parts += ["no significant difference from the best"] if mark.level else []
    parts += {None: [], "level": ["not significantly better than chance"], "below": ["worse than chance"]}[mark.chance]
    return "; ".join(parts)


def p_value(p: float) -> str:
    """Format a p-value with its meaningful digits."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
