"""Intervals by resampling the images."""

import torch

from sightline._core.seeding import generator
from sightline.metrics import PerImageMetric

DRAWS_AT_ONCE = 2**22  # indices in memory


def interval(metric: PerImageMetric, seed: int, resamples: int = 1000, level: float = 0.95) -> tuple[float, float]:
    """The percentile bootstrap interval of a metric that has been computed.

    Args:
        metric: knows how to average other draws of its images.
        seed: of the draws. Metrics over the same number of images get the same draws.
        resamples: number of draws, each of as many images as the metric counts.
        level: share of the draws that lie inside.

    Returns:
        The interval's ends.
    """
    random = generator(seed, metric.n, "bootstrap")
    part = max(1, DRAWS_AT_ONCE // metric.n)
    means = []
    for start in range(0, resamples, part):
        index = torch.randint(metric.n, (min(part, resamples - start), metric.n), generator=random)
        means.append(metric.resample(index).double().cpu())
    tail = (1 - level) / 2
    low, high = torch.cat(means).quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high
