"""The stability label on queues whose load is known: one server, first come, first served."""

import math

import numpy as np
import pytest
from results.runs import fifo_run, make_replica, make_run, make_trace

from simroute import rng
from simroute.results.metrics import summarise
from simroute.results.stability import Stability, pool_stability, queue_at_arrivals, stability


def poisson(rate, n, seed):
    return np.cumsum(rng.stream(seed, "arrivals").exponential(1 / rate, n))


def queue(load, n, seed):
    """M/M/1 with a mean service time of 1 s."""
    return fifo_run(poisson(load, n, seed), rng.stream(seed, "services").exponential(1.0, n))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [100, 1_000, 20_000])
@pytest.mark.parametrize("load", [0.3, 0.8])
def test_a_queue_below_capacity_is_stable(load, n, seed):
    assert stability(queue(load, n, seed)) is Stability.STABLE


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("load", "n"), [(2.0, 200), (1.5, 1_000), (1.1, 20_000)])
def test_a_queue_above_capacity_is_overloaded(load, n, seed):
    assert stability(queue(load, n, seed)) is Stability.OVERLOADED


@pytest.mark.parametrize("seed", range(5))
def test_a_horizon_does_not_hide_an_overload(seed):
    run = queue(1.5, 2_000, seed)
    run.end_s = float(run.trace.arrival_s[-1])
    late = run.finish_s > run.end_s
    run.status[late] = 0
    run.finish_s[late] = run.first_token_s[late] = math.nan
    assert stability(run) is Stability.OVERLOADED


def test_a_peak_that_drains_is_backlogged():
    rates = np.repeat([0.5, 3.0, 0.5], 500)
    arrival_s = np.cumsum(rng.stream(1, "arrivals").exponential(1.0, 1_500) / rates)
    assert stability(fifo_run(arrival_s, np.ones(1_500))) is Stability.BACKLOGGED


def test_everything_at_once_is_backlogged():
    assert stability(fifo_run(np.zeros(200), np.ones(200))) is Stability.BACKLOGGED


def test_a_fleet_that_answers_nobody_is_overloaded():
    never = np.full(200, math.nan)
    assert stability(make_run(make_trace(np.arange(200.0)), never, never, end_s=500.0)) is Stability.OVERLOADED


def test_slow_answers_without_a_queue_are_stable():
    run = make_run(make_trace(np.arange(200.0)), np.full(200, 0.1), np.full(200, 300.0))
    assert stability(run) is Stability.STABLE


def test_the_queue_is_counted_as_a_loop_would():
    run = queue(0.9, 60, 3)
    run.first_token_s[10] = math.nan
    expected = []
    for i, now_s in enumerate(run.trace.arrival_s):
        waiting = [j for j in range(i + 1) if not run.first_token_s[j] <= now_s]
        expected.append(len(waiting))
    assert queue_at_arrivals(run.trace.arrival_s, run.first_token_s).tolist() == expected


def test_rejected_requests_wait_for_nothing():
    run = queue(2.0, 1_000, 0)
    run.status[:] = 2
    assert stability(run) is Stability.STABLE


def test_one_drowning_pool_of_many_is_seen():
    # 1% of the requests go to a pool that answers none of them: too few to show in the queue of the whole fleet.
    n = 20_000
    lost = np.arange(n) % 100 == 0
    first_s = np.where(lost, math.nan, 0.1)
    replicas = [make_replica(0, "good"), make_replica(1, "dead")]
    run = make_run(make_trace(np.arange(n) / 10), first_s, first_s, replicas=replicas, replica=lost, end_s=3_000.0)
    assert pool_stability(run) == {"good": Stability.STABLE, "dead": Stability.OVERLOADED}
    assert stability(run) is Stability.OVERLOADED
    summary = summarise(run, {}, lambda _pool, _class: None)
    assert "more arrives than pool dead can serve" in summary["notes"][0]
    assert summary["by_pool"]["good"]["stability"] == "STABLE"


def test_an_overloaded_run_has_no_tail():
    summary = summarise(queue(2.0, 1_000, 0), {}, lambda _pool, _class: None)
    assert summary["stability"] == "OVERLOADED"
    for name in ("ttft_s", "itl_s", "e2e_s"):
        assert summary[name]["p50"] is not None
        assert [summary[name][p] for p in ("p90", "p95", "p99")] == [None] * 3
    assert any("more arrives than pool h100 can serve" in note for note in summary["notes"])
