"""The metrics, by name."""

from collections.abc import Callable
from typing import TypeVar

from sightline._core.registry import Registry
from sightline.metrics.base import PerImageMetric

M = TypeVar("M", bound=type[PerImageMetric])

METRICS: Registry[PerImageMetric] = Registry(
    "metric",
    modules=(
        "sightline.metrics.accuracy",
        "sightline.metrics.localization",
        "sightline.metrics.perturbation",
        "sightline.metrics.squares",
        "sightline.metrics.road",
        "sightline.metrics.explanation_image",
        "sightline.metrics.boxes",
        "sightline.metrics.corloc",
        "sightline.metrics.noise",
        "sightline.metrics.backgrounds",
        "sightline.metrics.avoided",
        "sightline.metrics.calibration",
        "sightline.metrics.robustness",
        "sightline.metrics.consistency",
        "sightline.metrics.parts",
        "sightline.metrics.stability",
    ),
)


def register(name: str) -> Callable[[M], M]:
    """Return a decorator that registers a metric class under a name; its capabilities are attributes of the class."""

    def decorate(metric: M) -> M:
        return METRICS.register(name, **metric.capabilities())(metric)

    return decorate
