"""Friedman's test and Nemenyi's critical difference, against scipy and a published table."""

import numpy as np
import pytest
from scipy import stats

from sightline.statistics.ranks import friedman


@pytest.mark.parametrize(("k", "q"), [(3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_friedman_critical_difference_is_that_of_demsars_table(k, q):
    """Table 5 (a) of Demsar (2006), critical values for the Nemenyi test at 5 %."""
    found = friedman([str(i) for i in range(k)], np.random.default_rng(k).random((14, k)))
    assert found is not None
    assert found.critical == pytest.approx(q * np.sqrt(k * (k + 1) / (6 * 14)), abs=1e-3)


def test_friedman_statistic_and_mean_ranks_are_scipys():
    values = np.random.default_rng(5).random((30, 4)).round(1)  # with ties
    found = friedman(list("ABCD"), values)
    assert found is not None
    assert (found.statistic, found.p) == pytest.approx(stats.friedmanchisquare(*values.T))
    assert list(found.mean.values()) == pytest.approx(stats.rankdata(-values, axis=1).mean(axis=0))
    assert found.n == 30


def test_friedman_of_ties_only_has_no_statistic():
    found = friedman(list("ABC"), np.full((8, 3), 0.5))
    assert found is not None
    assert found.p == 1
    assert np.isnan(found.statistic)


@pytest.mark.parametrize("shape", [(10, 2), (1, 3)])
def test_friedman_of_too_little_is_none(shape):
    assert friedman([str(i) for i in range(shape[1])], np.random.default_rng(0).random(shape)) is None
