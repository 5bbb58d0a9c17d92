import numpy as np
import pytest
from scipy import stats

from sightline.evaluation.statistics import Interval, over_images, over_seeds, resamples, weighted_mean, worst_group


def test_paired_interval_by_hand():
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
def test_equal_differences_leave_no_width(paired):
    assert over_seeds([2.0, 2.0], [1.0, 1.0], paired) == Interval(1.0, 1.0)


def test_one_run_a_group_has_no_interval_over_seeds():
    assert over_seeds([0.9], [0.5], paired=True) is None


@pytest.mark.parametrize(("low", "high", "settled"), [(-1, 1, False), (0, 1, False), (0.1, 1, True), (-2, -1, True)])
def test_excludes_zero(low, high, settled):
    assert Interval(low, high).excludes_zero is settled


def test_resamples_draw_n_images_with_equal_chances():
    counts = np.concatenate(list(resamples(50, rounds=4000)))
    assert counts.shape == (4000, 50)
    assert (counts.sum(1) == 50).all()
    assert counts.mean(0) == pytest.approx(np.ones(50), abs=0.1)
    assert counts.var() == pytest.approx(1 - 1 / 50, abs=0.05)  # binomial(50, 1/50)


def test_bootstrap_of_a_mean_nears_the_normal_interval():
    values = np.random.default_rng(1).normal(0.3, 1.0, 400)
    (interval,) = over_images(400, lambda counts: weighted_mean(counts, values)[:, None])
    half = 1.96 * values.std() / 20
    assert interval.low == pytest.approx(values.mean() - half, abs=0.02)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.02)


def test_weighted_mean_leaves_unknown_images_out():
    counts = np.array([[1.0, 2.0, 5.0], [0.0, 0.0, 3.0]])
    means = weighted_mean(counts, np.array([1.0, 4.0, np.nan]))
    assert means[0] == 3.0
    assert np.isnan(means[1])  # only the unknown image was drawn


def test_worst_group_by_hand():
    correct, groups = np.array([1.0, 0.0, 1.0, 1.0]), np.array([0, 0, 7, 7])
    counts = np.array([[1, 1, 1, 1], [3, 1, 0, 1], [0, 0, 2, 2]], dtype=float)
    assert worst_group(counts, correct, groups).tolist() == [0.5, 0.75, 1.0]
