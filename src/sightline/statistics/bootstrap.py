"""Percentile bootstrap intervals over images."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from sightline._core.seeding import generator
from sightline.metrics import PerImageMetric
from sightline.statistics.intervals import CONFIDENCE, Interval

ROUNDS = 2000  # of statistics that are functions of how often each image is drawn
METRIC_ROUNDS = 1000  # of metrics, which average each draw by their own rule
DRAWS_AT_ONCE = 2**22  # indices in memory
TAILS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)

Array = NDArray[np.float64]


def metric_interval(metric: PerImageMetric, seed: int) -> Interval:
    """Return the interval of a metric that has been computed.

    Args:
        metric: A metric that can average other draws of its images (`PerImageMetric.resample`).
        seed: Seed of the draws. Metrics over the same number of images get the same draws.
    """
    random = generator(seed, metric.n, "bootstrap")
    part = max(1, DRAWS_AT_ONCE // metric.n)
    means = []
    for start in range(0, METRIC_ROUNDS, part):
        index = torch.randint(metric.n, (min(part, METRIC_ROUNDS - start), metric.n), generator=random)
        means.append(metric.resample(index).double().cpu())
    low, high = torch.cat(means).quantile(torch.tensor(TAILS, dtype=torch.float64)).tolist()
    return Interval(low, high)


def over_images(n: int, statistics: Callable[[Array], Array]) -> list[Interval]:
    """Return the intervals of M statistics of n images. All of them are computed on the same draws.

    Args:
        n: Number of images.
        statistics: Maps the counts (R, n) of each image in R rounds to values (R, M), NaN where a round leaves one undefined.
    """
    values = np.concatenate([statistics(counts) for counts in resamples(n)])
    low, high = np.nanquantile(values, TAILS, axis=0)
    return [Interval(float(a), float(b)) for a, b in zip(low, high)]


def resamples(n: int, rounds: int = ROUNDS) -> Iterator[Array]:
    """Yield how often each of n images is drawn in a bootstrap round, as chunks (rounds', n) of the rounds.

    Equal arguments give equal draws, so everything that is computed on them is paired by image.
    """
    random = np.random.default_rng(0)
    chunk = max(1, min(rounds, 2_000_000 // n))  # 16 MB at a time, however many images
    for start in range(0, rounds, chunk):
        size = min(chunk, rounds - start)
        draws = random.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        yield np.bincount(draws.ravel(), minlength=size * n).reshape(size, n).astype(float)


def weighted_mean(counts: Array, values: Array) -> Array:
    """Return the mean (R,) of values (n,) under the counts (R, n) of each round. Images whose value is NaN do not count."""
    known = ~np.isnan(values)
    return _share(counts @ np.where(known, values, 0), counts @ known)


def worst_group(counts: Array, correct: Array, groups: NDArray[np.int64]) -> Array:
    """Return the accuracy (R,) in the worst group under the counts of each round.

    Args:
        counts: (R, n), how often each image is drawn. A group that a round did not draw is left out of that round.
        correct: (n,), 0 or 1.
        groups: (n,), group index of each image.
    """
    members = groups[:, None] == np.unique(groups)  # (n, G)
    return np.nanmin(_share(counts @ (members * correct[:, None]), counts @ members), axis=1)


def _share(part: Array, drawn: Array) -> Array:
    """Return part / drawn, NaN where nothing was drawn."""
    return np.divide(part, drawn, out=np.full_like(part, np.nan), where=drawn > 0)
