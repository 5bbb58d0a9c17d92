"""Differences between two columns of values of the same images, with what they could be by chance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

RESAMPLES = 10_000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Paired:
    """A paired difference.

    Attributes:
        difference: the mean over the images that have both values of the first less the second.
        low: lower end of its 95 % bootstrap interval over images.
        high: its upper end.
        p: of a two-sided sign-flip permutation test: how often a difference as large comes about where the two columns
            could be exchanged image by image. 1 where no image differs.
        n: images that have both values.
    """

    difference: float
    low: float
    high: float
    p: float
    n: int


def paired(first: NDArray[np.floating], second: NDArray[np.floating], seed: int = 0) -> Paired | None:
    """Compare two columns (N,), NaN where an image has no value; None where fewer than two images have both."""
    differences = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    differences = differences[~np.isnan(differences)]
    n = len(differences)
    if n < 2:
        return None
    mean = float(differences.mean())
    if not differences.any():
        return Paired(mean, mean, mean, 1.0, n)
    random = np.random.default_rng(seed)
    bootstrap = stats.bootstrap(
        (differences,), np.mean, n_resamples=RESAMPLES, confidence_level=CONFIDENCE, method="percentile",
        batch=_batch(n), rng=random,
    )  # fmt: skip
    test = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=RESAMPLES, vectorized=True, batch=_batch(n),
        rng=random,
    )  # fmt: skip
    low, high = bootstrap.confidence_interval
    return Paired(mean, float(low), float(high), float(test.pvalue), n)


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted for that many tests, after Holm (1979)."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(order))
    steps = np.asarray(p, np.float64)[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted.tolist()


def _batch(n: int) -> int:
    """How many draws of n images are in memory at a time."""
    return max(1, 2**21 // n)
