"""Means, spreads and paired ratios against hand calculations and scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from s3gan.metrics.paired import Better, Ratio, mean_and_sd, paired_ratio


def test_a_ratio_of_three_pairs_is_what_a_table_of_t_gives() -> None:
    """ln of 2, 4 and 8: mean 2 ln 2, standard deviation ln 2; t with 2 degrees of freedom is 4.3027 (a table)."""
    ratio = paired_ratio({0: 2.0, 1: 4.0, 2: 8.0}, {0: 1.0, 1: 1.0, 2: 1.0})
    half = 4.3027 * math.log(2) / math.sqrt(3)
    assert ratio is not None and ratio.pairs == 3
    assert ratio.value == pytest.approx(4.0)
    assert ratio.low == pytest.approx(4.0 * math.exp(-half), rel=1e-4)
    assert ratio.high == pytest.approx(4.0 * math.exp(half), rel=1e-4)
    assert ratio.verdict(Better.lower) == "not resolved", "0.71 to 22.4"


def test_the_interval_excludes_1_exactly_where_scipys_paired_t_test_rejects() -> None:
    random = np.random.default_rng(0)
    rejected = 0
    for count in (2, 3, 5, 9):
        for shift in (0.0, 0.2, 1.0):
            base, value = np.exp(random.normal(size=(2, count)) * 0.3)
            value = base * value * np.exp(shift)
            ratio = paired_ratio(dict(enumerate(value.tolist())), dict(enumerate(base.tolist())))
            test = stats.ttest_rel(np.log(value), np.log(base))
            assert ratio is not None and ratio.low is not None and ratio.high is not None
            interval = test.confidence_interval(0.95)
            assert np.log([ratio.low, ratio.high]) == pytest.approx([interval.low, interval.high])
            assert ratio.value == pytest.approx(stats.gmean(value / base))
            assert (ratio.verdict(Better.lower) != "not resolved") == (test.pvalue < 0.05)
            rejected += test.pvalue < 0.05
    assert 0 < rejected < 12


def test_a_verdict_reads_the_interval_in_the_direction_of_the_measure() -> None:
    below, above, around = Ratio(0.8, 0.7, 0.9, 3), Ratio(1.2, 1.1, 1.3, 3), Ratio(1.0, 0.9, 1.1, 3)
    assert [r.verdict(Better.lower) for r in (below, above, around)] == ["better", "worse", "not resolved"]
    assert [r.verdict(Better.higher) for r in (below, above, around)] == ["worse", "better", "not resolved"]
    assert Ratio(1.0, 1.0, 1.0, 3).verdict(Better.lower) == "not resolved"


def test_only_seeds_that_both_have_make_pairs() -> None:
    ratio = paired_ratio({0: 2.0, 1: 6.0, 7: 100.0}, {0: 1.0, 1: 3.0, 2: 50.0})
    assert ratio is not None and ratio.pairs == 2
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((2.0, 2.0, 2.0))
    assert paired_ratio({0: 1.0}, {1: 1.0}) is None


def test_one_pair_has_a_ratio_and_no_interval() -> None:
    ratio = paired_ratio({4: 3.0}, {4: 2.0})
    assert ratio == Ratio(1.5, None, None, 1) and ratio.verdict(Better.lower) == "one pair"


def test_a_value_without_a_logarithm_makes_no_ratio() -> None:
    assert paired_ratio({0: -0.01, 1: 1.0}, {0: 1.0, 1: 1.0}) is None
    assert paired_ratio({0: 1.0}, {0: 0.0}) is None
    assert paired_ratio({0: math.nan, 1: 1.0}, {0: 1.0, 1: 1.0}) is None
    assert paired_ratio({0: math.inf, 1: 1.0}, {0: 1.0, 1: 1.0}) is None


def test_the_spread_is_that_of_a_sample() -> None:
    assert mean_and_sd([1.0, 2.0, 4.5]) == pytest.approx((2.5, math.sqrt((2.25 + 0.25 + 4.0) / 2)))
    assert mean_and_sd([3.0]) == (3.0, None)
