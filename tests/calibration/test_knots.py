"""The GEMM curve: monotone, with as few bends as the data show."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simroute.calibration.knots import candidate_knots, fit_gemm_knots, merged, ramps

TOKENS = np.unique(np.geomspace(1, 8192, 60).astype(int))
MEMORY_BOUND_THEN_COMPUTE_BOUND = np.maximum(4e-3, TOKENS * 2e-5)


def read(knots, tokens):
    """The curve in seconds, between its ends."""
    return np.interp(tokens, list(knots), list(knots.values())) * 1e-3


def test_a_roofline_needs_three_knots():
    knots = fit_gemm_knots(TOKENS, MEMORY_BOUND_THEN_COMPUTE_BOUND, tolerance=0.02)
    assert len(knots) <= 4
    assert read(knots, TOKENS) == pytest.approx(MEMORY_BOUND_THEN_COMPUTE_BOUND, rel=0.08)


def test_a_tighter_tolerance_gives_a_nearer_curve():
    def error(tolerance):
        found = read(fit_gemm_knots(TOKENS, MEMORY_BOUND_THEN_COMPUTE_BOUND, tolerance=tolerance), TOKENS)
        return np.sqrt(np.mean((found / MEMORY_BOUND_THEN_COMPUTE_BOUND - 1) ** 2))

    assert error(0.002) < error(0.03) < 0.035


def test_falling_times_give_a_flat_curve():
    knots = fit_gemm_knots([8, 64], [2e-3, 1e-3])
    assert knots[8] == pytest.approx(knots[64])


@given(st.lists(st.tuples(st.integers(1, 10_000), st.floats(1e-5, 1.0)), min_size=1, max_size=30))
def test_the_curve_never_falls(points):
    tokens, seconds = zip(*points, strict=True)
    values = list(fit_gemm_knots(tokens, seconds, most=6).values())
    assert all(right >= left * (1 - 1e-9) for left, right in pairwise(values))


def test_nothing_and_negative_times_are_refused():
    for tokens, seconds in (([], []), ([4, 8], [1e-3, 0.0])):
        with pytest.raises(ValueError, match="at least one point"):
            fit_gemm_knots(tokens, seconds)


def test_candidates_are_spread_over_the_octaves():
    assert candidate_knots([4, 4, 2, 0]) == (2, 4)
    found = candidate_knots(range(1, 5000), most=10)
    assert (found[0], found[-1]) == (1, 4999)
    assert len(found) == 10
    assert max(right / left for left, right in pairwise(found[2:])) < 3


def test_fewer_knots_are_a_part_of_the_finer_model():
    fine, kept = (1, 4, 16, 64, 200), (1, 16, 200)
    at = np.array([1, 3, 10, 50, 150, 300])
    np.testing.assert_allclose(ramps(at, kept), ramps(at, fine) @ merged(fine, kept))
