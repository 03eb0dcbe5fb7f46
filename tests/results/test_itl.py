"""The ITL histogram against explicit expansion of every gap and np.percentile."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simroute.results.itl import LOWEST_S, RELATIVE_WIDTH, ItlHistogram

ROW = st.tuples(
    st.one_of(st.just(0.0), st.floats(1e-7, 10.0)),
    st.sampled_from([1.0, 1.00001, 1.01, 0.9, 3.0, 1000.0]),
    st.integers(0, 400),
    st.integers(0, 9),
)


def columns(rows):
    first_s = np.array([r[0] for r in rows])
    last_s = first_s * np.array([r[1] for r in rows])
    return first_s, last_s, np.array([r[2] for r in rows], dtype=np.int64), np.array([r[3] for r in rows])


def expanded(rows):
    gaps = [
        np.repeat(np.linspace(first, last, steps), seqs)
        for first, last, steps, seqs in zip(*columns(rows), strict=True)
    ]
    return np.concatenate(gaps)


def filled(rows):
    histogram = ItlHistogram()
    histogram.add(*columns(rows))
    return histogram


@settings(deadline=None)
@given(st.lists(ROW, min_size=1, max_size=12), st.floats(0.0, 1.0))
def test_quantiles_lie_within_the_bin_width_of_the_pooled_gaps(rows, q):
    gaps, histogram = expanded(rows), filled(rows)
    assert histogram.count == len(gaps)
    if len(gaps):
        assert histogram.mean == pytest.approx(gaps.mean(), rel=1e-9, abs=1e-15)
        expected = float(np.percentile(gaps, 100 * q))
        assert histogram.quantile(q) == pytest.approx(expected, rel=1.01 * RELATIVE_WIDTH, abs=LOWEST_S)


@settings(deadline=None, max_examples=30)
@given(st.lists(ROW, max_size=8), st.lists(ROW, max_size=8))
def test_merging_equals_counting_everything_in_one(left, right):
    merged, whole = filled(left), filled(left + right)
    merged.merge(filled(right))
    assert merged.count == whole.count
    if merged.count:
        assert merged.mean == pytest.approx(whole.mean, rel=1e-12)
        assert [merged.quantile(q) for q in (0.1, 0.5, 0.99)] == [whole.quantile(q) for q in (0.1, 0.5, 0.99)]


@given(st.lists(ROW, max_size=8))
def test_a_histogram_comes_back_from_its_arrays(rows):
    counted = filled(rows)
    arrays = counted.arrays()
    again = ItlHistogram.of_arrays(arrays)
    np.testing.assert_equal(again.arrays(), arrays)
    assert (again.count, again.quantile(0.7)) == (counted.count, pytest.approx(counted.quantile(0.7), nan_ok=True))
    assert len(arrays["bins"]) <= max(counted.count, 1)


def test_an_empty_histogram_has_no_quantile_and_no_mean():
    histogram = ItlHistogram()
    assert histogram.count == 0
    assert math.isnan(histogram.mean)
    assert math.isnan(histogram.quantile(0.5))


def test_equal_gaps_are_reported_exactly():
    histogram = filled([(0.0125, 1.0, 1000, 7)])
    assert [histogram.quantile(q) for q in (0.0, 0.5, 0.99, 1.0)] == [0.0125] * 4


def test_gaps_beyond_the_last_bin_are_reported_as_the_largest():
    assert filled([(1e6, 1.0, 3, 1)]).quantile(0.5) == 1e6


def test_a_long_run_is_spread_exactly():
    histogram = filled([(0.010, 2.0, 100_001, 1)])
    assert histogram.quantile(0.25) == pytest.approx(0.0125, rel=RELATIVE_WIDTH)
    assert histogram.quantile(0.75) == pytest.approx(0.0175, rel=RELATIVE_WIDTH)
