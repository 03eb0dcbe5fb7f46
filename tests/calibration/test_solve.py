"""Least squares: the same from few rows as from many, whatever the columns are measured in."""

from __future__ import annotations

import numpy as np
import pytest

from simroute.calibration.solve import compressed, nonnegative


@pytest.mark.parametrize("largest", [1.0, 1e6, 1e12], ids=str)
def test_compressed_rows_have_the_same_residuals(largest):
    """Of any x, also where one column counts requests and another pairs of tokens."""
    rng = np.random.default_rng(0)
    size = np.geomspace(1.0, largest, 5)
    matrix = rng.uniform(0, 1, (2000, 5)) * size
    target = matrix @ (1 / size) + rng.normal(0, 0.01, 2000)
    rows, right = compressed(matrix, target)
    assert len(rows) == 6
    for x in (1 / size, np.zeros(5), nonnegative(matrix, target), rng.uniform(0.5, 1.5, 5) / size):
        whole = float(np.sum((matrix @ x - target) ** 2))
        assert float(np.sum((rows @ x - right) ** 2)) == pytest.approx(whole, rel=1e-6)


def test_solutions_do_not_depend_on_units():
    rng = np.random.default_rng(1)
    matrix = rng.uniform(0, 1, (3000, 4))
    target = matrix @ [1.0, 0.0, 2.0, 0.5] + rng.normal(0, 0.1, 3000)
    size = np.array([1.0, 1e-9, 1e9, 1e3])
    assert nonnegative(matrix * size, target) * size == pytest.approx(nonnegative(matrix, target), rel=1e-6, abs=1e-9)


def test_a_column_of_zeros_gets_nothing():
    assert nonnegative(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([2.0, 4.0])).tolist() == [3.0, 0.0]
