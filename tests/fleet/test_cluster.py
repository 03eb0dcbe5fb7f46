"""The fleet's own rules: what ends a run, what is rejected, ties, and that a run can be repeated bit for bit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from fleet.fleets import GPU_LIKE, make_policy_for, make_pool, replay, synthetic
from fleet.invariants import check, identical

from simroute.errors import UsageError
from simroute.fleet.gateway import TOO_LONG
from simroute.policy.snapshot import Decision, Snapshot
from simroute.results.run import Status
from simroute.workload.trace import Trace


class Choose:
    """A policy made of a function of (request, snapshots)."""

    def __init__(self, choose):
        self.choose = choose


def busy_fleet():
    """Three engines under pressure, with preemption."""
    return [make_pool(3, GPU_LIKE, num_gpu_blocks=101, max_num_seqs=16)], synthetic(500, 60.0, 60, 50, seed=1)


@pytest.fixture(params=[True, False], ids=["exact", "fast"])
def exact(request):
    return request.param


@pytest.mark.parametrize(
    "policy", ["round_robin", "random", "least_requests", "power_of_two", "least_kv", "quant_aware"]
)
@pytest.mark.parametrize("scrape_interval_s", [0.0, 0.5])
def test_the_same_seed_gives_the_same_bits(policy, scrape_interval_s):
    pools, trace = busy_fleet()
    runs = [check(replay(trace, pools, policy, scrape_interval_s=scrape_interval_s), pools) for _ in range(2)]
    assert identical(*runs)
    assert runs[0].preemptions.sum() > 0


def test_another_seed_of_a_random_policy_gives_another_run():
    pools, trace = busy_fleet()
    one, other = (replay(trace, pools, make_policy_for(pools, "random", seed)) for seed in (1, 2))
    assert not identical(check(one, pools), check(other, pools))


def test_requests_of_one_instant_keep_the_order_of_the_trace(exact):
    """30 requests at 2 s, eight at a time: the first eight get their tokens first, and so on."""
    trace = Trace.build(arrival_s=[2.0] * 30, input_tokens=8, output_tokens=2)
    pools = [make_pool(max_num_seqs=8, async_scheduling=False)]
    run = check(replay(trace, pools, exact=exact), pools)
    assert run.first_token_s.tolist() == [3.0] * 8 + [5.0] * 8 + [7.0] * 8 + [9.0] * 6


def test_an_arrival_sees_the_one_before_it_at_the_same_instant(exact):
    """least_requests sends simultaneous arrivals round the fleet, for the router counts what it has just sent."""
    trace = Trace.build(arrival_s=[1.0] * 7, input_tokens=8, output_tokens=2)
    pools = [make_pool(3)]
    run = check(replay(trace, pools, "least_requests", exact=exact), pools)
    assert run.replica.tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_a_finish_frees_the_router_s_count(exact):
    """Both engines have had one request; the first ends at 2 s and takes the arrival of 2.5 s, the second is busy."""
    trace = Trace.build(arrival_s=[0.0, 0.0, 2.5], input_tokens=8, output_tokens=[2, 9, 1])
    pools = [make_pool(2)]
    run = check(replay(trace, pools, "least_requests", exact=exact), pools)
    assert run.replica.tolist() == [0, 1, 0]


def test_prompts_that_fill_the_context_are_rejected(exact):
    """As vLLM's HTTP 400: 64 tokens leave no room for an answer in a context of 64; 63 leave room for one token."""
    trace = Trace.build(arrival_s=[0.0, 1.0, 2.0, 3.0], input_tokens=[63, 64, 65, 10], output_tokens=9)
    pools = [make_pool(max_model_len=64)]
    run = check(replay(trace, pools, exact=exact), pools)
    assert run.status.tolist() == [Status.COMPLETED, Status.REJECTED, Status.REJECTED, Status.COMPLETED]
    assert [run.reasons[code] for code in run.reason_code[1:3]] == [TOO_LONG] * 2
    assert run.replicas[0].output_tokens == 1 + 9


def test_a_policy_may_reject_with_its_reasons(exact):
    """Odd requests are turned away, by two reasons; they reach no replica and cost nothing."""

    def even_only(request, snapshots):
        return Decision(0) if request.index % 2 == 0 else Decision(-1, f"odd {request.index % 4}")

    trace = Trace.build(arrival_s=np.arange(8.0), input_tokens=8, output_tokens=2)
    pools = [make_pool()]
    run = check(replay(trace, pools, Choose(even_only), exact=exact), pools)
    assert run.reasons == ("odd 1", "odd 3")
    assert run.reason_code.tolist() == [-1, 0, -1, 1] * 2
    assert run.replica.tolist() == [0, -1] * 4
    assert run.replicas[0].output_tokens == 8


def test_all_rejected_ends_with_the_last_arrival():
    trace = Trace.build(arrival_s=[1.0, 4.0], input_tokens=8, output_tokens=2)
    pools = [make_pool()]
    run = check(replay(trace, pools, Choose(lambda request, snapshots: Decision(-1, "closed"))), pools)
    assert run.end_s == 4.0
    assert run.replicas[0].steps == 0


def test_a_horizon_cuts_the_run(exact):
    """Steps of a second; three answers of 4 tokens from 0, 3 and 6 s. At 8 s the third has sampled twice."""
    trace = Trace.build(arrival_s=[0.0, 3.0, 6.0, 20.0], input_tokens=8, output_tokens=4)
    pools = [make_pool(async_scheduling=False)]
    run = check(replay(trace, pools, exact=exact, horizon_s=8.5), pools)
    assert run.status.tolist() == [Status.COMPLETED, Status.COMPLETED, Status.UNFINISHED, Status.UNFINISHED]
    assert run.finish_s[:2].tolist() == [4.0, 7.0]
    assert run.first_token_s[:3].tolist() == [1.0, 4.0, 7.0]
    assert math.isnan(run.first_token_s[3])
    assert (run.end_s, run.horizon_s, run.interrupted) == (8.5, 8.5, False)


def test_a_horizon_in_the_midst_of_an_answer_counts_what_was_done(exact):
    """200 tokens at a second each, cut at 100.5 s: busy all the time, 100 tokens out, one more in the making."""
    trace = Trace.build(arrival_s=[0.0], input_tokens=8, output_tokens=200)
    pools = [make_pool(async_scheduling=False)]
    (totals,) = check(replay(trace, pools, exact=exact, horizon_s=100.5), pools).replicas
    assert totals.busy_s == pytest.approx(100.5)
    assert 100 <= totals.output_tokens <= 101


def test_tokens_after_the_horizon_have_not_come(exact):
    """The first token of a request is known when its step is scheduled; at 0.5 s it is still being computed."""
    trace = Trace.build(arrival_s=[0.0], input_tokens=8, output_tokens=4)
    pools = [make_pool()]
    run = check(replay(trace, pools, exact=exact, horizon_s=0.5), pools)
    assert math.isnan(run.first_token_s[0])
    assert run.status[0] == Status.UNFINISHED


def test_a_horizon_after_the_end_changes_nothing():
    pools, trace = busy_fleet()
    whole = check(replay(trace, pools), pools)
    late = check(replay(trace, pools, horizon_s=1e6), pools)
    assert late.end_s == whole.end_s
    assert identical(whole, late)


def test_progress_rises_from_nothing_and_stays_below_one():
    seen: list[float] = []
    pools = [make_pool(2, GPU_LIKE)]
    check(replay(synthetic(5000, 100.0, 20, 5), pools, progress=seen.append), pools)
    assert seen[0] == 0.0
    assert seen == sorted(seen)
    assert len(set(seen)) > 10
    assert seen[-1] < 1.0


@pytest.mark.parametrize("arrival_s", [[100.0], [0.0] * 30], ids=["late", "at once"])
def test_looks_are_few_however_late_a_trace_starts_or_long_it_drains(arrival_s):
    """The progress of a span of nothing: 100 s of waiting, or 30 answers of 10 s, one after the other."""
    looks = 0

    def count() -> bool:
        nonlocal looks
        looks += 1
        return False

    trace = Trace.build(arrival_s=arrival_s, input_tokens=8, output_tokens=10)
    pools = [make_pool(max_num_seqs=1)]
    check(replay(trace, pools, stop=count), pools)
    assert looks < 10_000


def test_stop_ends_the_run_early_and_says_so():
    """Asked to stop once 2,000 requests have been routed: what has ended by then is kept, the rest is unfinished."""
    routed = 0

    def choose(request, snapshots):
        nonlocal routed
        routed += 1
        return Decision(request.index % 2)

    pools = [make_pool(2, GPU_LIKE)]
    trace = synthetic(5000, 100.0, 20, 5)
    run = check(replay(trace, pools, Choose(choose), stop=lambda: routed >= 2000), pools)
    done = run.status == Status.COMPLETED
    assert run.interrupted
    assert 1900 < done.sum() < 3500
    assert run.end_s < trace.arrival_s[-1]
    whole = replay(trace, pools)
    np.testing.assert_array_equal(run.finish_s[done], whole.finish_s[done])


def test_stop_is_heard_while_the_last_answers_are_drained():
    """All 200 requests are here within two seconds; one seat serves them for a minute. Asked to stop half-way."""
    shown: list[Snapshot] = []

    def choose(request, snapshots):
        shown.append(snapshots[0])
        return Decision(0)

    pools = [make_pool(1, GPU_LIKE, max_num_seqs=1)]
    trace = synthetic(200, 100.0, 20, 50)
    run = check(
        replay(trace, pools, Choose(choose), stop=lambda: len(shown) == 200 and shown[0].in_flight <= 100), pools
    )
    assert run.interrupted
    assert run.end_s > trace.arrival_s[-1]
    assert 100 <= (run.status == Status.COMPLETED).sum() < 150


def test_no_pools_and_no_replicas():
    trace = Trace.build(arrival_s=[0.0], input_tokens=1, output_tokens=1)
    with pytest.raises(UsageError, match="the fleet has no pools: give at least one"):
        replay(trace, [], Choose(lambda request, snapshots: Decision(0)))
    with pytest.raises(UsageError, match="pool a: replicas must be at least 1, got 0"):
        make_pool(0, name="a")


def test_pools_are_numbered_in_order():
    trace = Trace.build(arrival_s=np.arange(5.0), input_tokens=8, output_tokens=2)
    pools = [make_pool(2, name="a"), make_pool(3, name="b", num_gpu_blocks=201)]
    run = check(replay(trace, pools), pools)
    assert [(totals.replica, totals.pool) for totals in run.replicas] == list(enumerate("aabbb"))
    assert [totals.num_gpu_blocks for totals in run.replicas] == [101, 101, 201, 201, 201]
    assert run.replica.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("samples", [1, 10, 200])
def test_the_timeline_keeps_about_as_many_samples_as_asked(samples):
    """Between half and twice as many, also where the drain outlasts the arrivals ten times over."""
    pools = [make_pool(1, GPU_LIKE, max_num_seqs=4)]
    for rate_per_s in (5.0, 500.0):
        run = check(replay(synthetic(300, rate_per_s, 40, 40), pools, samples=samples), pools)
        assert samples / 2 <= len(run.timeline.t_s) <= 2 * samples + 1
        gaps_s = np.diff(run.timeline.t_s)
        assert gaps_s == pytest.approx(gaps_s[:1].repeat(len(gaps_s)), rel=1e-6)


def test_the_timeline_shows_what_the_engine_holds(exact):
    """Blocks of 4, 100 of them. a: 8 prompt tokens from 0 s, 8 more from 1 s to 9 s: 2 blocks, then 3, then 4."""
    trace = Trace.build(arrival_s=[0.0, 10.0], input_tokens=[8, 1], output_tokens=[9, 1])
    pools = [make_pool(async_scheduling=False)]
    run = check(replay(trace, pools, exact=exact, samples=20), pools)
    at = {float(t): i for i, t in enumerate(run.timeline.t_s)}
    held = [round(float(run.timeline.kv_usage[at[t], 0]) * 100) for t in (0.5, 1.5, 4.5, 5.5, 8.5, 9.5)]
    assert held == [2, 3, 3, 4, 4, 0]
    assert [int(run.timeline.running[at[t], 0]) for t in (0.5, 8.5, 9.5)] == [1, 1, 0]
