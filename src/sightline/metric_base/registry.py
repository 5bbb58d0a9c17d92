"""The metrics, by name."""

from collections.abc import Callable
from typing import TypeVar

from sightline._core.registry import Registry
from sightline.metric_base.base import PerImageMetric

M = TypeVar("M", bound=type[PerImageMetric])

METRICS: Registry[PerImageMetric] = Registry(
    "metric",
    modules=("sightline.metrics",),
)


def register(name: str) -> Callable[[M], M]:
    """Return a decorator that registers a metric class under a name; its capabilities are attributes of the class."""

    def decorate(metric: M) -> M:
        return METRICS.register(name, **metric.capabilities())(metric)

    return decorate
