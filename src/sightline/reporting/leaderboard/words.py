"""What the page and the Markdown tables say of a value, a rank and a test."""

import numpy as np

from sightline.evaluation.grid_folder import Value
from sightline.evaluation.ranking import CellMark, Ranking
from sightline.reporting.formatting import number

CHANCE = {"level": "≈ chance", "below": "below chance"}
KEY = (
    "Arrows say which way is better. Bold is best, underlined second best; † cannot be told from the best (paired test at "
    "5 % after Holm’s correction). Random maps are the chance rows: they take no place, and a cell that is not "
    "shown to be better says so."
)
UNEQUAL = (
    "Rows differ in the number of images. Places and ranks compare two rows on the images that both have, so that "
    "one can be ahead of another whose value looks better."
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
    parts = [f"95 % interval {span(value, metric)}", f"n = {value.n}"]
    parts += ["cannot be told from the best"] if mark.level else []
    parts += {None: [], "level": ["not shown to be better than chance"], "below": ["worse than chance"]}[mark.chance]
    return "; ".join(parts)


def p_value(p: float) -> str:
    """Format a p-value with its meaningful digits."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
