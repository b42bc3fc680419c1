"""Intervals, permutation tests and corrections, against values by hand and the textbook's."""

import numpy as np
import pytest
from scipy import stats

from mrl.stats.groups import group_difference, group_means, holm, largest_gap, permutation_test
from mrl.stats.intervals import band_statistics, bootstrap_interval, interval

# Two seeds whose statistics are 1 and 3: the deviation of a sample is sqrt(2), that of a population 1.
HALF = stats.t.ppf(0.975, 1)  # 12.706, times sqrt(2) / sqrt(2)


@pytest.mark.parametrize(
    "per_seed", [[1.0, 3.0], [0.0, 1.0, 5.0], [2.0, 2.5, 3.0, 7.0, 1.0]], ids=["2 seeds", "3 seeds", "5 seeds"]
)
def test_seeds_alone_give_the_textbook_t_interval(per_seed):
    mean = np.mean(per_seed)
    low, high = interval(mean, np.full(10, mean), np.array(per_seed))
    expected = stats.t.interval(0.95, len(per_seed) - 1, mean, stats.sem(per_seed))
    assert (low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    "found",
    [
        bootstrap_interval(np.array([[1.0, 1, 1], [3, 3, 3]])),
        group_difference(np.array([[1.0, 1, 0, 0], [3, 3, 0, 0]]), np.array([True, True, False, False])),
        band_statistics(np.broadcast_to([[[1.0]], [[3.0]]], (2, 1, 6)), draws=10)["median"][:, 0],
        group_means(np.array([[1.0] * 5, [3.0] * 5]), np.full(5, "a"), ["a"])[0]["a"],
    ],
    ids=["mean", "difference", "median", "group mean"],
)
def test_every_interval_has_the_deviation_of_a_sample(found):
    "People who are all alike leave the seeds alone, with n - 1 in the denominator."
    assert tuple(found) == pytest.approx((2, 2 - HALF, 2 + HALF))


def test_causes_add_in_quadrature():
    people = np.array([-1.0, 1.0]).repeat(500)
    low, high = interval(0.0, people, np.array([-1.0, 1.0]))
    assert (-low, high) == pytest.approx([np.hypot(1, HALF)] * 2)


def test_means_count_images():
    values, images = np.array([[1.0, 5.0]]), [3, 1]
    mean, low, high = bootstrap_interval(values, images)
    assert mean == 2 and (low, high) == pytest.approx((1, 5))  # draws of one of both people alone


def test_bands_of_one_seed_are_the_plain_bootstrap():
    errors = np.random.default_rng(0).exponential(size=(1, 3, 60))
    s = band_statistics(errors, draws=2000)
    assert np.allclose(s["median"][0], np.median(errors[0], 1))
    rng = np.random.default_rng(1)
    naive = np.stack([np.median(errors[0][:, rng.integers(60, size=60)], 1) for _ in range(2000)])
    assert np.allclose(s["median"][1:], np.quantile(naive, (0.025, 0.975), 0), atol=0.06)


def test_exchanges_within_strata_leave_the_strata_alone():
    "A gap between strata is none between groups that cut across them; one between the groups is found."
    rng = np.random.default_rng(0)
    strata, groups = np.repeat(["a", "b"], 40), np.tile(["x", "y"], 40)
    values = rng.normal(size=80) + 5 * (strata == "b")
    assert permutation_test(values, groups, strata, draws=500)[1] > 0.05
    assert permutation_test(values + (groups == "x"), groups, strata, draws=500)[1] < 0.01
    assert largest_gap(values, strata) > 4


def test_differences_where_a_draw_may_miss_the_group():
    "A group of two in twenty is in 88 of 100 draws; the others have no difference."
    values = np.random.default_rng(0).normal(size=(1, 20)) + 10 * (np.arange(20) < 2)
    found, low, high = group_difference(values, np.arange(20) < 2)
    assert 7 < low < found < high
    with pytest.raises(ValueError, match="group: expected some of 20 people, got 20"):
        group_difference(values, np.ones(20, bool))


def test_holm_keeps_the_order_and_never_exceeds_one():
    p = np.random.default_rng(0).random(30) ** 3
    adjusted = holm(p)
    assert (adjusted >= p).all() and adjusted.max() <= 1
    assert adjusted.min() == pytest.approx(30 * p.min()) and (np.diff(adjusted[np.argsort(p)]) >= 0).all()
