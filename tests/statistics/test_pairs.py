"""Paired tests and Holm's correction, against enumeration, scipy's sign test and the definition."""

from itertools import product

import numpy as np
import pytest

from sightline.statistics.pairs import holm, paired


def test_paired_of_three_images_enumerates_the_sign_patterns():
    # Of the eight sign patterns of (1, 2, 3), two have a mean as far from zero as 2.
    found = paired(np.array([1.0, 2, 3, np.nan]), np.array([0.0, 0, 0, 5]))
    assert found is not None
    assert (found.difference, found.p, found.n) == (2, 0.25, 3)


def test_paired_p_value_is_that_of_all_sign_patterns():
    differences = np.random.default_rng(4).normal(0.3, 1, 10)
    means = np.array([np.mean(differences * signs) for signs in product((1, -1), repeat=10)])
    found = paired(differences, np.zeros(10))
    assert found is not None
    assert found.p == pytest.approx(np.mean(np.abs(means) >= abs(differences.mean()) - 1e-12), abs=1e-9)


def test_paired_of_equal_columns_is_not_significant():
    same = paired(np.ones(4), np.ones(4))
    assert same is not None
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_paired_of_one_common_image_is_none():
    assert paired(np.array([1.0, np.nan]), np.array([2.0, 3.0])) is None


def test_paired_interval_nears_the_normal_interval():
    differences = np.random.default_rng(5).normal(0.2, 1, 400)
    found = paired(differences, np.zeros(400))
    assert found is not None
    half = 1.96 * differences.std() / 20
    assert (found.low, found.high) == pytest.approx((differences.mean() - half, differences.mean() + half), abs=0.02)


def test_paired_p_values_are_uniform_where_nothing_differs():
    random = np.random.default_rng(0)
    found = [paired(random.normal(size=12), random.normal(size=12)) for _ in range(200)]
    below = np.mean([test.p <= 0.1 for test in found if test is not None])
    assert 0.04 < below < 0.17


def test_holm_corrects_by_rank():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_holm_rejects_what_the_step_down_procedure_rejects():
    """Holm (1979): reject in the order of the p-values as long as p(i) is at most level / (m - i), i from 0."""
    p = np.random.default_rng(6).random(20) ** 3
    for level in (0.01, 0.05, 0.2):
        rejected = set()
        for i, place in enumerate(np.argsort(p)):
            if p[place] > level / (len(p) - i):
                break
            rejected.add(int(place))
        assert {i for i, adjusted in enumerate(holm(p)) if adjusted <= level} == rejected
