"""Learning from few labels: which images to label next."""

from typing import Any

from sightline.acquisition.base import Pool, QueryStrategy, Ranking, Selection
from sightline.acquisition.registry import QUERY_STRATEGIES
from sightline.acquisition.selecting import select_from_run, select_samples

__all__ = [
    "QUERY_STRATEGIES",
    "Pool",
    "QueryStrategy",
    "Ranking",
    "Selection",
    "create_query_strategy",
    "select_from_run",
    "select_samples",
]


def create_query_strategy(name: str, **options: Any) -> QueryStrategy:
    """Return the query strategy of a name with its options: `create_query_strategy("consistency", explainer="xgradcam")`."""
    return QUERY_STRATEGIES.create(name, **options)
