"""Intervals of a difference over the seeds of training."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether zero is outside the interval, so the sign of a difference is significant."""
        return self.low > 0 or self.high < 0


def over_seeds(values: Sequence[float], against: Sequence[float], paired: bool) -> Interval | None:
    """Return Student's t interval of mean(values) - mean(against), or None if a group has fewer than two runs.

    Args:
        values: One value per run.
        against: One value per run of the other group.
        paired: Whether both are in the same order of seeds. If so, the interval is that of the mean difference with n - 1
            degrees of freedom. Otherwise it is Welch's interval, which does not assume equal variances.
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
