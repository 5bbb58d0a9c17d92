"""The query strategies, by name."""

from sightline._core.registry import Registry
from sightline.acquisition.base import QueryStrategy

QUERY_STRATEGIES: Registry[QueryStrategy] = Registry(
    "query strategy",
    modules=("sightline.acquisition",),
)
