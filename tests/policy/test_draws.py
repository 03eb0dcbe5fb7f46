"""Numbers that belong to requests: uniform, independent of order and purpose, common to all who share a seed."""

from __future__ import annotations

import numpy as np
from scipy import stats

from simroute.policy.routing.draws import RequestDraws


def draws(seed=0, purpose="score"):
    return RequestDraws(np.random.default_rng(seed), purpose)


def test_a_request_has_one_number_in_any_order_and_for_everyone_of_the_seed():
    one, other = draws(), draws()
    assert [one(i) for i in range(50)] == [other(i) for i in reversed(range(50))][::-1]
    assert one(7) == one(7)
    assert one(7) != draws(seed=1)(7)


def test_numbers_are_uniform_and_those_of_two_purposes_or_steps_unrelated():
    score, luck = draws(), draws(purpose="luck")
    rows = np.array([[score(i), score(i, 1), luck(i), score(i + 1)] for i in range(4000)])
    assert all(0.0 <= value < 1.0 for value in rows.ravel())
    for column in rows.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    correlations = np.corrcoef(rows.T)[np.triu_indices(4, 1)]
    assert np.abs(correlations).max() < 0.06  # 4 standard deviations of 1/sqrt(4000)
