"""Intervals over seeds, against values worked by hand and scipy's Welch interval."""

import numpy as np
import pytest
from scipy import stats

from sightline.statistics.intervals import Interval, over_seeds


def test_paired_interval_follows_students_t():
    # differences 1, 2, 3: mean 2, standard error 1/sqrt(3), t(2, 97.5 %) = 4.302653
    interval = over_seeds([3, 5, 7], [2, 3, 4], paired=True)
    assert interval.low == pytest.approx(2 - 4.302653 / np.sqrt(3), abs=1e-6)
    assert interval.high == pytest.approx(2 + 4.302653 / np.sqrt(3), abs=1e-6)


def test_unpaired_interval_equals_scipys_welch():
    a, b = [0.71, 0.74, 0.78, 0.70], [0.60, 0.68, 0.61]
    peer = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    interval = over_seeds(a, b, paired=False)
    assert (interval.low, interval.high) == pytest.approx((peer.low, peer.high), abs=1e-12)


@pytest.mark.parametrize("paired", [True, False])
def test_interval_of_equal_differences_has_no_width(paired):
    assert over_seeds([2.0, 2.0], [1.0, 1.0], paired) == Interval(1.0, 1.0)


def test_one_run_a_group_has_no_interval_over_seeds():
    assert over_seeds([0.9], [0.5], paired=True) is None


@pytest.mark.parametrize(("low", "high", "settled"), [(-1, 1, False), (0, 1, False), (0.1, 1, True), (-2, -1, True)])
def test_interval_that_excludes_zero_is_conclusive(low, high, settled):
    assert Interval(low, high).excludes_zero is settled
