"""Ranks given image by image: Friedman's test and Nemenyi's critical difference."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sightline.statistics.pairs import LEVEL


@dataclass(frozen=True)
class ImageRanks:
    """Ranks given image by image, with Friedman's test of whether the rows differ.

    Attributes:
        mean: Row -> mean rank over the images.
        n: Number of images for which all of these rows have a value.
        statistic: Friedman's chi-squared; NaN if every image is a tie of all rows.
        p: Its p-value.
        critical: Nemenyi's critical difference: mean ranks that are closer do not differ significantly at 5 %.
    """

    mean: dict[str, float]
    n: int
    statistic: float
    p: float
    critical: float


def friedman(rows: Sequence[str], values: NDArray[np.float64]) -> ImageRanks | None:
    """Return the ranks of rows and the critical difference after Demsar (2006).

    Args:
        rows: k names.
        values: (n, k), a value per image and row; higher is better.

    Returns:
        None for fewer than three rows or two images.
    """
    n, k = values.shape
    if n < 2 or k < 3:
        return None
    ranks = stats.rankdata(-values, axis=1)
    tied = bool((ranks == ranks[:, :1]).all())
    statistic, p = (np.nan, 1.0) if tied else stats.friedmanchisquare(*values.T)
    critical = _nemenyi_quantile(k) * np.sqrt(k * (k + 1) / (6 * n))
    return ImageRanks(dict(zip(rows, ranks.mean(axis=0).tolist())), n, float(statistic), float(p), float(critical))


@cache  # scipy needs a second for it
def _nemenyi_quantile(k: int) -> float:
    """Return the quantile of Nemenyi's test among k rows, from the studentized range of normal values of known spread."""
    return float(stats.studentized_range.ppf(1 - LEVEL, k, np.inf) / np.sqrt(2))
