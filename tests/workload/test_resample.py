"""Resampled traces: about as many requests, in their order inside blocks, from nearby, the same for the same seed."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simroute.errors import UsageError
from simroute.workload.resample import MOST_BLOCKS, WINDOW_BLOCKS, block_count, resampled
from simroute.workload.trace import Trace


def numbered(arrival_s, **columns):
    """A trace whose request i has an answer of i + 1 tokens, so that a world tells which requests it is made of."""
    n = len(arrival_s)
    return Trace.build(arrival_s=arrival_s, input_tokens=[100] * n, output_tokens=np.arange(1, n + 1), **columns)


def rows(world):
    return world.output_tokens - 1


def world(trace, block_s, seed=0):
    return resampled(trace, block_s, np.random.default_rng(seed))


def bursty(n=400, seed=5):
    return numbered(3.0 + np.cumsum(np.random.default_rng(seed).exponential(size=n) ** 2))


@given(st.integers(0, 50), st.sampled_from([0.5, 7.0, 60.0, 1e4]))
def test_a_world_stays_within_the_time_of_its_trace_in_order(seed, block_s):
    trace = bursty()
    drawn = world(trace, block_s, seed)
    assert np.all(np.diff(drawn.arrival_s) >= 0)
    assert drawn.arrival_s[0] >= trace.arrival_s[0]
    assert drawn.arrival_s[-1] <= trace.arrival_s[-1] + trace.duration_s / (len(trace) - 1)
    assert set(rows(drawn)) <= set(range(len(trace)))


def test_inside_a_block_requests_keep_their_order_and_gaps():
    trace = bursty()
    drawn = world(trace, 40.0)
    block = ((drawn.arrival_s - trace.arrival_s[0]) // 40.0).astype(int)
    inside = np.flatnonzero((np.diff(block) == 0) & (np.diff(rows(drawn)) > 0))  # (but where the circle closes)
    assert len(inside) > len(trace) / 2
    assert np.all(np.diff(rows(drawn))[inside] == 1)
    gaps_s, own_s = np.diff(drawn.arrival_s)[inside], np.diff(trace.arrival_s)[rows(drawn)[inside]]
    np.testing.assert_allclose(gaps_s, own_s, atol=1e-9)


def test_every_request_is_drawn_once_on_average_those_at_the_ends_too():
    trace, worlds = bursty(60), 4000
    counts = sum(np.bincount(rows(world(trace, 10.0, seed)), minlength=60) for seed in range(worlds)) / worlds
    # How often a request is drawn varies by about 1, so the mean of 4,000 by about 0.016.
    assert np.abs(counts - 1).max() < 0.08
    assert counts.mean() == pytest.approx(1, abs=0.01)


def test_counts_vary_with_the_traffic_and_not_with_the_blocks_of_a_steady_one():
    steady = numbered(np.arange(1000.0))
    lengths = [len(world(steady, 50.0, seed)) for seed in range(30)]
    assert all(abs(length - 1000) <= 20 for length in lengths)  # a request more or less a block
    uneven = numbered(np.concatenate([np.linspace(100 * k, 100 * k + 10, 50) for k in range(20)]))
    assert np.std([len(world(uneven, 60.0, seed)) for seed in range(30)]) > 20


def test_blocks_come_from_nearby_so_the_pattern_of_a_day_stays():
    day_s, block_s = 86_400.0, 60.0
    trace = numbered(np.arange(0.0, day_s, 10.0))
    drawn = world(trace, block_s)
    away_s = np.abs(drawn.arrival_s - trace.arrival_s[rows(drawn)])
    away_s = np.minimum(away_s, day_s - away_s)
    assert away_s.max() <= WINDOW_BLOCKS * block_s
    assert away_s.max() > 0.8 * WINDOW_BLOCKS * block_s


def test_the_same_stream_gives_the_same_world_and_another_another():
    trace = bursty()
    assert world(trace, 20.0, 1).fingerprint() == world(trace, 20.0, 1).fingerprint()
    assert world(trace, 20.0, 1).fingerprint() != world(trace, 20.0, 2).fingerprint()


def test_columns_travel_with_their_requests():
    n = 200
    tenants = [f"t{i % 7}" for i in range(n)]
    trace = numbered(np.arange(n), request_class=[f"c{i % 3}" for i in range(n)], tenant=tenants, session=np.arange(n))
    drawn = world(trace, 10.0)
    names = np.array(drawn.tenant_names)[drawn.tenant_code]
    assert names.tolist() == [tenants[i] for i in rows(drawn)]
    assert drawn.session.tolist() == rows(drawn).tolist()
    np.testing.assert_array_equal(drawn.class_code, trace.class_code[rows(drawn)])


def test_a_copy_finds_what_its_request_found_but_not_its_own_first_copy():
    # A system prompt (id 7) that all share, then two blocks of each request's own; request 0 brought the first.
    n = 100
    prefixes = [[7, 1000 + 2 * i, 1001 + 2 * i] for i in range(n)]
    trace = numbered(np.arange(n), prefixes=prefixes, prefix_block_tokens=32)
    drawn = world(trace, 10.0)
    ids = drawn.prefix_ids.reshape(-1, 3)
    first = [k for k, row in enumerate(rows(drawn)) if row not in rows(drawn)[:k]]
    assert len(first) < len(drawn), "this world repeats nothing: take another seed"
    for column in (1, 2):
        assert len(set(ids[:, column])) == len(drawn)
    system = ids[rows(drawn) != 0, 0]
    assert set(system) == {system[0]}
    assert drawn.prefix_offsets.tolist() == list(range(0, 3 * len(drawn) + 1, 3))


def test_turns_of_a_session_still_share_what_they_shared():
    prefixes = [[1], [1, 2], [1, 2, 3], [9], [9, 10]]
    trace = numbered(np.arange(5.0), prefixes=prefixes, prefix_block_tokens=32)
    for seed in range(50):
        drawn = world(trace, 2.0, seed)
        offsets, at = drawn.prefix_offsets, rows(drawn).tolist()
        chains = [drawn.prefix_ids[a:b].tolist() for a, b in pairwise(offsets)]
        firsts = {row: chains[at.index(row)] for row in set(at)}
        for low in (0, 1):
            if {low, low + 1} <= firsts.keys():
                assert firsts[low + 1][: low + 1] == firsts[low]


@pytest.mark.parametrize("arrival_s", [[4.0], [4.0, 4.0, 4.0]])
def test_what_comes_at_one_instant_is_left_as_it_is(arrival_s):
    trace = numbered(arrival_s)
    assert block_count(trace, 60.0) == 0
    assert world(trace, 60.0) is trace


def test_a_trace_shorter_than_a_block_is_turned_round():
    trace = numbered(np.arange(10.0))
    drawn = world(trace, 60.0)
    start = rows(drawn)[0]
    assert rows(drawn).tolist() == [(start + i) % 10 for i in range(10)]
    assert block_count(trace, 60.0) == 1


@pytest.mark.parametrize(
    ("block_s", "message"),
    [
        (0.0, "block: must be a number of seconds above 0, got 0"),
        (-1.0, "above 0, got -1"),
        (float("nan"), "above 0, got nan"),
        (float("inf"), "above 0, got inf"),
        (1e-9, f"at most {MOST_BLOCKS:,}; give a longer block"),
    ],
)
def test_blocks_of_no_sensible_length_are_refused(block_s, message):
    with pytest.raises(UsageError, match=message):
        resampled(bursty(), block_s, np.random.default_rng(0))
