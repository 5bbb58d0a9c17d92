"""Columns of a table of trained runs: what a column is called, and how a run is evaluated for it."""

from collections.abc import Iterable
from typing import Annotated

import torch
from pydantic import Field

from sightline.evaluation import evaluate
from sightline.metrics import METRICS
from sightline.reporting.formatting import title
from sightline.runs import Run
from sightline.studies.recipes import Keys

Column = Annotated[str, Field(pattern=r"^\w+/[\w.+-]+(@[\w.+-]+)?$")]
"""`split/metric`, or `split/metric@explainer` for a metric of maps."""


def split_column(column: str) -> tuple[str, str, str]:
    """Split, metric and explainer ("" where none) of a column."""
    split, _, rest = column.partition("/")
    metric, _, explainer = rest.partition("@")
    return split, metric, explainer


def heading(column: str) -> str:
    """Return the heading of a column, with an arrow that says which direction is better."""
    split, metric, explainer = split_column(column)
    arrow = "↑" if METRICS[metric].capabilities["higher_is_better"] else "↓"
    return f"{title(metric)} {arrow} ({split}{f', {explainer}' if explainer else ''})"


def check_columns(columns: Iterable[str]) -> None:
    """Reject an unknown metric before any work is done."""
    for column in columns:
        METRICS[split_column(column)[1]]


def evaluation_keys(columns: Iterable[str]) -> Keys:
    """Return the recipe's key `evaluation` for columns; without columns the recipe's own stays."""
    asked = [split_column(column) for column in columns]
    if not asked:
        return {}
    splits, metrics, explainers = (list(dict.fromkeys(filter(None, parts))) for parts in zip(*asked))
    keys: Keys = {"evaluation.splits": splits, "evaluation.metrics": metrics}
    return keys | ({"evaluation.explainers": explainers} if explainers else {})


def evaluate_columns(run: Run, columns: Iterable[str], device: torch.device) -> dict[str, dict[str, float]]:
    """Evaluate a run for columns; each split is evaluated with its own metrics only.

    Returns:
        Column -> `value` and `n`, also of columns that come with those asked for.
    """
    asked = [split_column(column) for column in columns]
    values = {}
    for name in dict.fromkeys(split for split, _, _ in asked):
        metrics = list(dict.fromkeys(metric for split, metric, _ in asked if split == name))
        explainers = list(dict.fromkeys(explainer for split, _, explainer in asked if split == name and explainer))
        for result in evaluate(run, [name], explainers, metrics, device=device)[name].results:
            values[f"{name}/{result.column}"] = {"value": result.value, "n": result.n}
    return values
