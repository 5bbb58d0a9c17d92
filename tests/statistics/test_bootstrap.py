"""Bootstrap intervals over images, against scipy's bootstrap, the normal interval and values worked by hand."""

import numpy as np
import pytest
import torch
from scipy import stats

from sightline.metrics import Accuracy, WorstGroupAccuracy
from sightline.statistics.bootstrap import (
    metric_interval,
    over_images,
    resamples,
    weighted_mean,
    worst_group,
)
from sightline.statistics.intervals import Interval


def test_resamples_draw_n_images_with_equal_chances():
    counts = np.concatenate(list(resamples(50, rounds=4000)))
    assert counts.shape == (4000, 50)
    assert (counts.sum(1) == 50).all()
    assert counts.mean(0) == pytest.approx(np.ones(50), abs=0.1)
    assert counts.var() == pytest.approx(1 - 1 / 50, abs=0.05)  # binomial(50, 1/50)


def test_over_images_of_a_mean_nears_the_normal_interval():
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


def test_worst_group_of_each_resample_is_the_lowest_mean():
    correct, groups = np.array([1.0, 0.0, 1.0, 1.0]), np.array([0, 0, 7, 7])
    counts = np.array([[1, 1, 1, 1], [3, 1, 0, 1], [0, 0, 2, 2]], dtype=float)
    assert worst_group(counts, correct, groups).tolist() == [0.5, 0.75, 1.0]


def test_over_images_of_a_mean_is_scipys_percentile_bootstrap():
    values = np.random.default_rng(2).exponential(size=300)
    (interval,) = over_images(300, lambda counts: weighted_mean(counts, values)[:, None])
    peer = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=0).confidence_interval
    assert (interval.low, interval.high) == pytest.approx((peer.low, peer.high), abs=0.02)


def test_over_images_of_statistics_on_the_same_draws_is_paired():
    values = np.random.default_rng(3).normal(size=100)
    shifted, own = over_images(
        100, lambda counts: np.stack([weighted_mean(counts, values + 1), weighted_mean(counts, values)], 1)
    )
    assert (shifted.low - own.low, shifted.high - own.high) == pytest.approx((1, 1))


def test_metric_interval_has_the_width_of_the_standard_error() -> None:
    hits = torch.rand(400, generator=torch.Generator().manual_seed(0)) < 0.8
    metric = Accuracy()
    metric.update(torch.stack([hits.float(), 0.5 * torch.ones(400)], 1), torch.zeros(400, dtype=torch.int64))
    p = metric.compute().item()
    found = metric_interval(metric, seed=0)
    assert found.high - found.low == pytest.approx(2 * 1.96 * (p * (1 - p) / 400) ** 0.5, rel=0.1)
    assert found.low < p < found.high
    assert metric_interval(metric, seed=0) == found != metric_interval(metric, seed=1)


def test_metric_interval_of_the_worst_group_draws_groups_along() -> None:
    scores = torch.tensor([[1.0, 0.0]]).repeat(40, 1)
    metric = WorstGroupAccuracy()
    metric.update(scores, torch.tensor([0] * 30 + [1] * 10), torch.tensor([0] * 30 + [1] * 10))
    metric.compute()
    assert metric_interval(metric, seed=0) == Interval(0, 0)  # the second group is wrong throughout
    metric.reset()
    metric.update(scores, torch.tensor([0] * 35 + [1] * 5), torch.tensor([0] * 20 + [1] * 20))
    metric.compute()
    found = metric_interval(metric, seed=0)
    assert found.low < 0.75 < found.high < 1
