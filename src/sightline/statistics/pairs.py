"""Paired differences between two columns of values of the same images, and Holm's correction for many tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sightline.statistics.intervals import CONFIDENCE

ROUNDS = 10_000
LEVEL = 0.05  # a p-value below it is significant

Name = TypeVar("Name")


@dataclass(frozen=True)
class Paired:
    """A paired difference.

    Attributes:
        difference: Mean of first - second over the images that have both values.
        low: Lower end of its 95 % bootstrap interval over images.
        high: Upper end of this interval.
        p: p-value of a two-sided sign-flip permutation test: the probability of a difference at least as large if the two
            columns could be exchanged image by image. 1 if no image differs.
        n: Number of images that have both values.
    """

    difference: float
    low: float
    high: float
    p: float
    n: int


@dataclass(frozen=True)
class PairedTest(Paired):
    """A paired difference that is one of several.

    Attributes:
        p_holm: The p-value after Holm's correction for all tests of the family.
    """

    p_holm: float


def paired(first: NDArray[np.floating], second: NDArray[np.floating], seed: int = 0) -> Paired | None:
    """Compare two columns (N,), NaN where an image has no value. Return None if fewer than two images have both."""
    differences = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    differences = differences[~np.isnan(differences)]
    n = len(differences)
    if n < 2:
        return None
    mean = float(differences.mean())
    if not differences.any():
        return Paired(mean, mean, mean, 1.0, n)
    random = np.random.default_rng(seed)
    at_once = max(1, 2**21 // n)  # draws in memory
    bootstrap = stats.bootstrap(
        (differences,), np.mean, n_resamples=ROUNDS, confidence_level=CONFIDENCE, method="percentile", batch=at_once,
        rng=random,
    )  # fmt: skip
    test = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        n_resamples=ROUNDS,
        vectorized=True,
        batch=at_once,
        rng=random,
    )
    low, high = bootstrap.confidence_interval
    return Paired(mean, float(low), float(high), float(test.pvalue), n)


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values adjusted for that many tests, after Holm (1979)."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(order))
    steps = np.asarray(p, np.float64)[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted.tolist()


def adjust_tests(tests: Mapping[Name, Paired]) -> dict[Name, PairedTest]:
    """Return the tests of one family with their p-values after Holm's correction."""
    adjusted = holm([test.p for test in tests.values()])
    return {
        name: PairedTest(test.difference, test.low, test.high, test.p, test.n, p_holm)
        for (name, test), p_holm in zip(tests.items(), adjusted)
    }
