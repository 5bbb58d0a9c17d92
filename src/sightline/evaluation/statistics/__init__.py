"""How sure a value is: intervals over seeds and images, paired tests, and tests of ranks."""

from sightline.evaluation.statistics.bootstrap import (
    Array,
    metric_interval,
    over_images,
    resamples,
    weighted_mean,
    worst_group,
)
from sightline.evaluation.statistics.intervals import CONFIDENCE, Interval, over_seeds
from sightline.evaluation.statistics.pairs import LEVEL, Paired, PairedTest, adjust_tests, holm, paired
from sightline.evaluation.statistics.ranks import ImageRanks, friedman

__all__ = [
    "CONFIDENCE",
    "LEVEL",
    "Array",
    "ImageRanks",
    "Interval",
    "Paired",
    "PairedTest",
    "adjust_tests",
    "friedman",
    "holm",
    "metric_interval",
    "over_images",
    "over_seeds",
    "paired",
    "resamples",
    "weighted_mean",
    "worst_group",
]
