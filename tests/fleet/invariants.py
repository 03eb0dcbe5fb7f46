"""What holds for every simulation, whatever the scenario: `check` is called on each run of these tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from simroute.fleet.pool import Pool
from simroute.results.run import FleetRun, Status

COLUMNS = ("first_token_s", "finish_s", "status", "replica", "preemptions", "cached_tokens", "reason_code")


def check(run: FleetRun, pools: Sequence[Pool]) -> FleetRun:
    """Assert the invariants of `run`; returns it."""
    check_requests(run)
    check_causes(run)
    check_timeline(run)
    check_replicas(run)
    if not run.interrupted and run.horizon_s is None:
        check_everything_ended(run, pools)
    return run


def check_requests(run: FleetRun) -> None:
    """Requests are conserved, and each ended in exactly one way."""
    n = len(run.trace)
    assert all(getattr(run, column).shape == (n,) for column in COLUMNS)
    counts = [int((run.status == status).sum()) for status in Status]
    assert sum(counts) == n
    assert ((run.status == Status.COMPLETED) == ~np.isnan(run.finish_s)).all()
    assert ((run.status == Status.REJECTED) == (run.reason_code >= 0)).all()
    assert run.reason_code.max(initial=-1) < len(run.reasons)
    assert np.isnan(run.first_token_s[run.status == Status.REJECTED]).all()


def check_causes(run: FleetRun) -> None:
    """No event before its cause, none after the end."""
    served = ~np.isnan(run.first_token_s)
    done = run.status == Status.COMPLETED
    assert (run.first_token_s[served] >= run.trace.arrival_s[served]).all()
    assert served[done].all()
    assert (run.finish_s[done] >= run.first_token_s[done]).all()
    assert (run.first_token_s[served] <= run.end_s).all()
    assert (run.finish_s[done] <= run.end_s).all()
    assert (run.cached_tokens < run.trace.input_tokens).all()
    assert (run.replica[served] >= 0).all()


def check_timeline(run: FleetRun) -> None:
    """Samples lie in the run, in order, and within what an engine can hold."""
    timeline = run.timeline
    assert timeline.running.shape == timeline.waiting.shape == timeline.kv_usage.shape
    assert timeline.running.shape == (len(timeline.t_s), len(run.replicas))
    assert (np.diff(timeline.t_s) > 0).all()
    assert (timeline.t_s <= run.end_s).all()
    assert ((timeline.kv_usage >= 0) & (timeline.kv_usage <= 1)).all()
    assert ((timeline.running >= 0) & (timeline.waiting >= 0)).all()
    assert (timeline.kv_usage[timeline.running == 0] == 0).all(), "an engine that runs nothing holds no blocks"


def check_replicas(run: FleetRun) -> None:
    """Engines are not busy longer than the run, and their counters belong together."""
    for totals in run.replicas:
        mine = run.replica == totals.replica
        assert totals.busy_s <= run.end_s * (1 + 1e-9)
        assert 0 <= totals.prefix_hit_tokens <= totals.prefix_queried_tokens
        assert run.preemptions[mine].sum() <= totals.preemptions
        assert run.cached_tokens[mine].sum() <= totals.prefix_hit_tokens


def check_everything_ended(run: FleetRun, pools: Sequence[Pool]) -> None:
    """Run to its end, a fleet has answered everything: every token once, no more and no fewer."""
    assert not (run.status == Status.UNFINISHED).any()
    config_of = [pool.engine for pool in pools for _ in range(pool.replicas)]
    for totals in run.replicas:
        mine = np.flatnonzero((run.replica == totals.replica) & (run.status == Status.COMPLETED))
        prompt, answer = run.trace.input_tokens[mine], run.trace.output_tokens[mine]
        generated = np.minimum(answer, config_of[totals.replica].max_model_len - prompt)
        assert run.generated_tokens is not None
        assert (run.generated_tokens[mine] == generated).all(), "answers are clipped by the context, and else complete"
        assert totals.output_tokens == generated.sum(), "a resumed request samples no token twice"
        assert totals.preemptions == run.preemptions[mine].sum()
        assert totals.prefix_hit_tokens == run.cached_tokens[mine].sum()
        assert totals.prefill_tokens >= (prompt - run.cached_tokens[mine]).sum()
        if not totals.preemptions:
            assert totals.prefill_tokens == (prompt - run.cached_tokens[mine]).sum()
    check_gaps(run)


def check_gaps(run: FleetRun) -> None:
    """n tokens have n - 1 gaps, and these fill the time from the first token to the last."""
    done = run.status == Status.COMPLETED
    gaps = sum(totals.output_tokens for totals in run.replicas) - int(done.sum())
    assert run.itl.count == gaps
    gaps_s = float((run.finish_s - run.first_token_s)[done].sum())
    assert (run.itl.mean * gaps if gaps else 0.0) == pytest.approx(gaps_s, rel=1e-9, abs=1e-9)


def identical(one: FleetRun, other: FleetRun) -> bool:
    """Whether two runs are the same, bit for bit."""
    same_columns = all(
        np.array_equal(getattr(one, column), getattr(other, column), equal_nan=column.endswith("_s"))
        for column in COLUMNS
    )
    timelines = [
        (getattr(one.timeline, name), getattr(other.timeline, name)) for name in ("t_s", "running", "kv_usage")
    ]
    return (
        same_columns
        and all(np.array_equal(a, b) for a, b in timelines)
        and one.replicas == other.replicas
        and (one.end_s, one.itl.count, one.itl.mean) == (other.end_s, other.itl.count, other.itl.mean)
    )
