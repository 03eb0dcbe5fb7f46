"""What is kept of a window: small, and the same when it comes back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simroute.planner.execution.cache import Cache
from simroute.planner.windows.piece import ROWS, Piece, compact, expanded
from simroute.results.itl import ItlHistogram
from simroute.results.run import ReplicaTotals, Timeline

WHOLE = st.one_of(st.integers(-3, 3), st.integers(-(2**62), 2**62))
SUMS: dict[str, Any] = {"busy_s": 0.1 + 0.2, "steps": 7, "prefill_tokens": 5, "output_tokens": 4, "preemptions": 0}
BILL: dict[str, Any] = {"prefix_queried_tokens": 0, "prefix_hit_tokens": 0, "billed_s": 1.5, "ready_s": 1.5}


@given(st.lists(WHOLE, min_size=1, max_size=20))
def test_whole_numbers_lose_nothing_but_width(values):
    column = np.array(values, dtype=np.int64)
    small = compact(column)
    np.testing.assert_array_equal(np.broadcast_to(small, column.shape), column)
    assert small.nbytes <= column.nbytes


@given(st.lists(st.floats(), min_size=1, max_size=20))
def test_seconds_lose_nothing(values):
    column = np.array(values)
    np.testing.assert_array_equal(np.broadcast_to(compact(column), column.shape), column)


def test_one_value_is_kept_once():
    assert compact(np.full(1000, np.nan)).shape == compact(np.zeros(1000, dtype=np.int8)).shape == (1,)
    assert compact(np.array([0, 255])).dtype == np.uint8
    assert compact(np.array([-1, 200])).dtype == np.int16
    assert compact(np.array([], dtype=np.int64)).shape == (0,)


def test_small_columns_come_back_as_wide_as_they_were():
    rows = {"status": np.ones(1, dtype=np.int8), "replica": np.array([0, 1, 2], dtype=np.uint8)}
    wide = expanded(rows, 3)
    assert {name: (column.tolist(), column.dtype) for name, column in wide.items()} == {
        "status": ([1, 1, 1], ROWS["status"][0]),
        "replica": ([0, 1, 2], ROWS["replica"][0]),
    }


@pytest.mark.parametrize("lives", [False, True])
def test_a_piece_comes_back_from_the_disk(tmp_path, lives):
    itl = ItlHistogram()
    itl.add(np.array([0.1]), np.array([0.3]), np.array([5]), np.array([2]))
    more = {"ready": np.ones((2, 1), dtype=np.bool_), "held": np.arange(2, dtype=np.int32)} if lives else {}
    flat = np.ones((2, 1), dtype=np.int32)
    piece = Piece(
        rows={"finish_s": np.array([1.0, 0.1 + 0.2]), "status": np.ones(1, dtype=np.int8)},
        reasons=("no room ≈",),
        itl=itl,
        timeline=Timeline(np.arange(2.0), flat, 2 * flat, flat.astype(np.float32), **more),
        replicas=[ReplicaTotals(0, "only", "L4", 1, 0.7, True, 99, **SUMS, **BILL)],
        end_s=12.25,
        begins=np.zeros((2, 3)),
        ends=np.arange(6.0).reshape(2, 3),
        company=np.array([3, -1]),
    )
    cache = Cache(tmp_path)
    assert cache.put_arrays("ab" * 32, piece.arrays())
    arrays = cache.get_arrays("ab" * 32)
    assert arrays is not None
    again = Piece.of_arrays(arrays)
    assert (again.reasons, again.replicas, again.end_s) == (piece.reasons, piece.replicas, piece.end_s)
    np.testing.assert_equal(again.arrays(), piece.arrays())
    assert (again.timeline.ready is None, again.timeline.attempts) == (not lives, None)


def test_parts_that_are_missing_are_no_piece():
    with pytest.raises(KeyError):
        Piece.of_arrays({"rows.status": np.ones(1)})
