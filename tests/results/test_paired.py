"""Paired differences: by hand, against scipy, and what numbers that could not be stated do to a verdict."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from simroute.results.paired import HEADLINES, paired, sign_test, student

LEVEL = 0.95


def against(ours, theirs, less_is_better=True, level=LEVEL):
    return paired(ours, theirs, less_is_better=less_is_better, level=level)


def test_three_differences_by_hand():
    # d = -0.5, -0.4, -0.3: mean -0.4, sd 0.1; t(0.975, 2) = 4.30265, so the half width is 0.1 * 4.30265 / sqrt(3).
    found = against([0.9, 1.1, 1.0], [1.4, 1.5, 1.3])
    half = 0.1 * 4.302653 / math.sqrt(3)
    assert [found[key] for key in ("mean", "low", "high")] == pytest.approx([-0.4, -0.4 - half, -0.4 + half], rel=1e-6)
    assert (found["policy_mean"], found["baseline_mean"]) == pytest.approx((1.0, 1.4))
    assert (found["verdict"], found["better_in"], found["worse_in"], found["worlds"]) == ("better", 3, 0, 3)


@given(
    st.lists(st.tuples(*[st.floats(-1e3, 1e3, allow_subnormal=False)] * 2), min_size=3, max_size=40),
    st.sampled_from([0.8, 0.95, 0.99]),
)
def test_intervals_and_verdicts_are_those_of_the_paired_t_test(pairs, level):
    ours, theirs = (np.round([pair[side] for pair in pairs], 3) for side in (0, 1))
    if np.std(ours - theirs) < 1e-6:
        return
    found = against(list(ours), list(theirs), level=level)
    expected = stats.ttest_rel(ours, theirs)
    low, high = expected.confidence_interval(level)
    assert (found["low"], found["high"]) == pytest.approx((low, high), rel=1e-9, abs=1e-9)
    if abs(expected.pvalue - (1 - level)) > 1e-9:
        assert (found["verdict"] == "noise") == (expected.pvalue > 1 - level)


def test_equal_columns_differ_by_exactly_zero_and_that_is_noise():
    column = [0.1 + 0.7 * k for k in range(10)]
    found = against(column, column)
    assert (found["mean"], found["low"], found["high"], found["verdict"]) == (0.0, 0.0, 0.0, "noise")
    assert (found["better_in"], found["worse_in"]) == (0, 0)


def test_what_is_always_less_is_better_or_worse_by_the_number():
    ours, theirs = [1.0, 2.0, 3.0, 4.0], [2.0, 3.0, 4.5, 5.0]
    assert against(ours, theirs)["verdict"] == "better"
    assert against(theirs, ours)["verdict"] == "worse"
    assert against(ours, theirs, less_is_better=False)["verdict"] == "worse"
    assert against(theirs, ours, less_is_better=False)["verdict"] == "better"


def test_a_difference_that_never_varies_is_no_noise():
    found = against([90.0] * 5, [100.0] * 5)
    assert (found["mean"], found["low"], found["high"], found["verdict"]) == (-10.0, -10.0, -10.0, "better")


def test_one_world_has_no_interval_and_none_no_mean():
    assert student(np.array([0.5]), LEVEL) == (0.5, None, None)
    assert student(np.array([]), LEVEL) == (None, None, None)
    assert against([1.0], [2.0])["verdict"] == "noise"
    assert against([], [])["verdict"] == "noise"


def test_a_number_that_neither_side_has_says_nothing():
    found = against([None] * 4, [None] * 4)
    assert (found["mean"], found["worlds"], found["verdict"]) == (None, 0, "noise")
    assert found["without_value"] == {"policy": 4, "baseline": 4}


def test_worlds_that_one_side_collapsed_in_are_not_averaged_away():
    # Where it can be stated the policy is far better; in most worlds it cannot.
    found = against([0.1, 0.11, *[None] * 10], [1.0] * 12)
    assert found["mean"] == pytest.approx(-0.895)
    assert (found["worlds"], found["better_in"], found["worse_in"]) == (2, 2, 10)
    assert found["without_value"] == {"policy": 10, "baseline": 0}
    assert found["verdict"] == "worse"
    assert stats.binomtest(2, 12).pvalue < 0.05


def test_a_baseline_that_collapses_loses_to_one_that_does_not():
    found = against([1.0] * 6, [None] * 6)
    assert (found["verdict"], found["mean"], found["better_in"]) == ("better", None, 6)
    assert against([1.0] * 5, [None] * 5)["verdict"] == "noise"  # 2 of 32 falls of five coins: 6%


@pytest.mark.parametrize(("gains", "losses"), [(0, 0), (5, 0), (9, 1), (3, 7), (50, 50)])
def test_the_sign_test_counts_falls_of_a_coin(gains, losses):
    n, most = gains + losses, max(gains, losses)
    tail = sum(math.comb(n, k) for k in range(most, n + 1)) / 2**n
    assert sign_test(gains, losses) == pytest.approx(min(1.0, 2 * tail) if n else 1.0)


def test_every_headline_has_a_name_of_its_own():
    assert len({headline.name for headline in HEADLINES}) == len(HEADLINES) == 9
