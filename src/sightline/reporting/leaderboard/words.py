"""What the page and the Markdown tables say about a value, a rank and a test."""

import numpy as np

from sightline.evaluation.grid_folder import Evaluations, Value
from sightline.evaluation.ranking import CellMark, Ranking, is_chance
from sightline.reporting.formatting import number, title

CHANCE = {"level": "≈ chance", "below": "below chance"}
KEY = (
    "↑ higher is better, ↓ lower is better. Mean rank = mean of the ranks over the metrics, 1 is best. Bold is best, "
    "underlined is second best. † = no significant difference from the best (paired test at 5%, with Holm’s correction). "
    "Chance rows are maps that ignore the model; they are not ranked. “≈ chance” = not significantly better than one of the "
    "chance rows, “below chance” = significantly worse. n = number of images."
)
UNEQUAL = (
    "Rows differ in the number of images. Ranks compare two rows on the images that both have, so a row can have a better rank "
    "than another row with a better value."
)


def page_title(evaluations: Evaluations) -> str:
    """Return the title of the study, or else what is ranked."""
    if evaluations.title:
        return evaluations.title
    explainers = {cell.explainer for cell in evaluations.values if cell.explainer and not is_chance(cell.explainer)}
    metrics = len(evaluations.higher_is_better)
    by = f"by {metrics} metrics" if metrics > 1 else f"by {title(*evaluations.higher_is_better).lower()}"
    models = evaluations.models
    if not explainers:
        return f"Ranking of {len(models)} models {by}"
    ranked = f"{len(explainers)} explainers" if len(explainers) > 1 else "one explainer"
    return f"Ranking of {ranked} on {models[0] if len(models) == 1 else f'{len(models)} models'} {by}"


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
