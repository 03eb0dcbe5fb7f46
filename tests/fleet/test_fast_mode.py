"""Fast mode jumps over steps that only decode; exact mode takes each of them. Their times are the same, to 1e-9.

Exact mode counts blocks with ids, fast mode counts runs: this also carries the engine's proofs over to the fleet.
"""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from fleet.drawn import drawn_fleet, drawn_trace
from fleet.fleets import GPU_LIKE, make_pool, replay, synthetic
from fleet.invariants import check
from hypothesis import event, given, settings
from hypothesis import strategies as st

from simroute.fleet.pool import Pool
from simroute.results.run import FleetRun, ReplicaTotals
from simroute.workload.trace import Trace

SAME = 1e-9
COUNTERS = ("steps", "prefill_tokens", "output_tokens", "preemptions", "prefix_queried_tokens", "prefix_hit_tokens")


def counters(totals: ReplicaTotals) -> dict[str, int]:
    return {name: getattr(totals, name) for name in COUNTERS}


def check_both_modes(trace: Trace, pools: list[Pool], policy: str = "round_robin") -> FleetRun:
    """Run in both modes, compare whatever is recorded; returns the fast run."""
    exact = check(replay(trace, pools, policy, exact=True), pools)
    fast = check(replay(trace, pools, policy), pools)
    np.testing.assert_allclose(fast.first_token_s, exact.first_token_s, rtol=SAME, atol=0)
    np.testing.assert_allclose(fast.finish_s, exact.finish_s, rtol=SAME, atol=0)
    for column in ("status", "replica", "preemptions", "cached_tokens", "reason_code"):
        np.testing.assert_array_equal(getattr(fast, column), getattr(exact, column), err_msg=column)
    assert [counters(totals) for totals in fast.replicas] == [counters(totals) for totals in exact.replicas]
    busy = [[totals.busy_s for totals in run.replicas] for run in (fast, exact)]
    assert busy[0] == pytest.approx(busy[1], rel=SAME)
    assert fast.itl.count == exact.itl.count
    assert fast.itl.mean == pytest.approx(exact.itl.mean, rel=SAME, nan_ok=True)
    check_same_timeline(fast, exact)
    return fast


def check_same_timeline(fast: FleetRun, exact: FleetRun) -> None:
    """What scrapes see in between is the same too: jumping ahead must not show."""
    np.testing.assert_allclose(fast.timeline.t_s, exact.timeline.t_s, rtol=SAME)
    np.testing.assert_array_equal(fast.timeline.running, exact.timeline.running)
    np.testing.assert_array_equal(fast.timeline.waiting, exact.timeline.waiting)
    np.testing.assert_allclose(fast.timeline.kv_usage, exact.timeline.kv_usage, atol=1e-6)
    np.testing.assert_allclose(fast.timeline.busy_s, exact.timeline.busy_s, rtol=SAME, atol=1e-9)
    assert (np.diff(fast.timeline.busy_s, axis=0) <= np.diff(fast.timeline.t_s)[:, None] * (1 + SAME) + 1e-9).all()


def drawn_case(seed: int) -> tuple[Trace, list[Pool]]:
    rng = random.Random(seed)
    pools = drawn_fleet(rng)
    return drawn_trace(rng, pools), pools


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_both_modes_give_the_same_times(seed):
    trace, pools = drawn_case(seed)
    run = check_both_modes(trace, pools)
    event(f"preempted: {run.preemptions.sum() > 0}, hit: {run.cached_tokens.sum() > 0}")


def test_what_was_drawn_is_worth_drawing():
    """The same generator over plain seeds: every feature, alone and with preemption and prefix hits at once."""
    met: Counter[str] = Counter()
    for seed in range(60):
        trace, pools = drawn_case(seed)
        run = check(replay(trace, pools), pools)
        both = bool(run.preemptions.sum()) and bool(run.cached_tokens.sum())
        met["preempted, nothing shared"] += int(run.preemptions.sum()) if not trace.has_prefixes else 0
        met["preemptions"] += int(run.preemptions.sum())
        met["hit tokens"] += int(run.cached_tokens.sum())
        met["rejected"] += int((run.reason_code >= 0).sum())
        met["clipped"] += sum(totals.output_tokens for totals in run.replicas) < trace.output_tokens.sum()
        met["two pools"] += len(pools) == 2
        for pool in pools if both else ():
            met["both"] += 1
            met["both, priority"] += pool.engine.policy == "priority"
            met["both, async"] += pool.engine.async_scheduling
            met["both, threshold"] += pool.engine.long_prefill_token_threshold > 0
            met["both, watermark"] += pool.engine.watermark > 0
            met["both, not chunked"] += not pool.engine.enable_chunked_prefill
    assert met["preemptions"] > 200
    assert met["hit tokens"] > 5000
    assert min(met.values()) >= 1
    assert len(met) == 12


@pytest.mark.parametrize("policy", ["least_requests", "least_kv", "power_of_two", "quant_aware"])
def test_policies_that_look_at_the_engines_see_the_same(policy):
    """With live metrics, each decision depends on what the engines show at that instant."""
    pools = [make_pool(3, GPU_LIKE, num_gpu_blocks=101, max_num_seqs=16)]
    check_both_modes(synthetic(400, 40.0, 60, 40, seed=5), pools, policy)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_load_like_the_real_one(asynchronous):
    """Long stretches: 1,024 tokens in, 256 out, two engines at ten requests a second each."""
    pools = [
        make_pool(
            2,
            GPU_LIKE,
            block_size=16,
            num_gpu_blocks=6000,
            max_model_len=4096,
            max_num_batched_tokens=2048,
            async_scheduling=asynchronous,
        )
    ]
    run = check_both_modes(synthetic(300, 20.0, 1024, 256, seed=6), pools, "least_requests")
    assert run.timeline.running.max() > 20


def test_a_blocked_request_gets_in_when_what_it_can_hit_is_written():
    """Blocks of 4, 8 of them. b quotes a's prompt and the first 4 tokens of its answer.

    a and c start with 1 and 4 blocks; at s1 each takes one more, which leaves 1. b, arriving at 0.5 s, needs 3 less the
    1 it can hit: it waits. At s4 a's second block is full: b hits 2, needs 1, and gets its first token at 5 s.
    """
    trace = Trace.build(
        arrival_s=[0.0, 0.0, 0.5],
        input_tokens=[4, 16, 12],
        output_tokens=[16, 8, 2],
        prefixes=[[1, 2, 3, 4, 5], [], [1, 2, 3]],
        prefix_block_tokens=4,
    )
    pools = [make_pool(num_gpu_blocks=9, max_model_len=32, async_scheduling=False)]
    run = check_both_modes(trace, pools)
    assert run.first_token_s[2] == 5.0
    assert run.cached_tokens[2] == 8
