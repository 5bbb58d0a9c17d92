"""Differences between two groups of runs, with what they could be by chance."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 2000

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A 95 % interval of a difference."""

    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the sign of the difference is settled."""
        return self.low > 0 or self.high < 0


def over_seeds(values: Sequence[float], against: Sequence[float], paired: bool) -> Interval | None:
    """Student's t interval of mean(values) - mean(against); None where one run a group leaves nothing to judge it by.

    Args:
        values: one a run.
        against: one a run.
        paired: the two are in the same order of seeds: the interval is that of the mean difference, n - 1 degrees of
            freedom. Otherwise Welch's, which assumes no equal spread.
    """
    a, b = np.asarray(values, float), np.asarray(against, float)
    if min(len(a), len(b)) < 2:
        return None
    difference = float(a.mean() - b.mean())
    if paired:
        error, freedom = stats.sem(a - b), float(len(a) - 1)
    else:
        parts = np.array([stats.sem(a) ** 2, stats.sem(b) ** 2])
        error = float(np.sqrt(parts.sum()))
        freedom = float(parts.sum() ** 2 / (parts**2 / [len(a) - 1, len(b) - 1]).sum()) if error else 1.0
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * error)
    return Interval(difference - half, difference + half)


def resamples(n: int, rounds: int = RESAMPLES, seed: int = 0) -> Iterator[Array]:
    """How often each of n images is drawn in a bootstrap round, as chunks (rounds', n) of the rounds.

    Equal arguments give equal draws: whatever is computed on them is paired by image.
    """
    generator = np.random.default_rng(seed)
    chunk = max(1, min(rounds, 2_000_000 // n))  # 16 MB at a time, however many images
    for start in range(0, rounds, chunk):
        size = min(chunk, rounds - start)
        draws = generator.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        yield np.bincount(draws.ravel(), minlength=size * n).reshape(size, n).astype(float)


def over_images(n: int, statistics: Callable[[Array], Array]) -> list[Interval]:
    """Percentile bootstrap intervals of statistics of n images.

    Args:
        n: number of images.
        statistics: counts (R, n) of each image in R rounds -> (R, M) values, NaN where a round leaves one undefined.

    Returns:
        M intervals.
    """
    values = np.concatenate([statistics(counts) for counts in resamples(n)])
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail], axis=0)
    return [Interval(float(a), float(b)) for a, b in zip(low, high)]


def weighted_mean(counts: Array, values: Array) -> Array:
    """Mean of the values under each round's counts: (R, n) and (n,) -> (R,). Images whose value is NaN have no say."""
    known = ~np.isnan(values)
    drawn = counts @ known
    return np.divide(counts @ np.where(known, values, 0), drawn, out=np.full_like(drawn, np.nan), where=drawn > 0)


def worst_group(counts: Array, correct: Array, groups: NDArray[np.int64]) -> Array:
    """Accuracy in the worst group under each round's counts.

    Args:
        counts: (R, n).
        correct: (n,) 0 or 1.
        groups: (n,) group of each image.

    Returns:
        (R,); a group that a round did not draw is left out of it.
    """
    members = groups[:, None] == np.unique(groups)  # (n, G)
    drawn = counts @ members
    hits = counts @ (members * correct[:, None])
    return np.nanmin(np.divide(hits, drawn, out=np.full_like(hits, np.nan), where=drawn > 0), axis=1)
