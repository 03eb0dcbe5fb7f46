"""Fast and exact mode agree whatever happens to an engine: clients go, it slows down, it dies. To 1e-9."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from engine.script import Action, Played, abort, ask, halt, look, play, slow_down
from fleet.drawn import drawn_engine, drawn_trace
from fleet.fleets import GPU_LIKE, make_pool
from hypothesis import event, given, settings
from hypothesis import strategies as st

from simroute.fleet.arrivals import Arrivals
from simroute.fleet.pool import Pool
from simroute.workload.trace import Trace

SAME = 1e-9
Script = list[tuple[float, Action]]


def drawn_script(rng: random.Random, trace: Trace, pool: Pool, exact: bool) -> Script:
    """The trace's requests, with clients that go soon or late, changes of speed, looks, and now and then a death."""
    script: Script = []
    end_s = float(trace.arrival_s[-1]) + 1.0
    arrivals = Arrivals(trace, only_shared=not exact)
    patience_s = rng.choice([0.01, 0.05, 0.2, 1.0])
    share = rng.choice([0.0, 0.3, 0.6, 1.0])
    for request in arrivals:
        goes, after_s = rng.random() < share, rng.expovariate(1 / patience_s)
        if request.input_tokens >= pool.engine.max_model_len:
            continue
        if request.prefix_ids and pool.engine.enable_prefix_caching:
            arrivals.describe(request, pool.engine.block_size)
        script.append((request.arrival_s, lambda played, request=request: played.submit(request)))
        if goes:
            script.append((request.arrival_s + after_s, abort(request.index)))
    for _ in range(rng.choice([0, 0, 3, 10])):
        script.append((rng.uniform(0, end_s), slow_down(rng.choice([0.5, 1.0, 1.0, 3.0, 10.0]))))
    script.extend((rng.uniform(0, end_s), look) for _ in range(20))
    script.extend((rng.uniform(0, end_s), ask) for _ in range(rng.choice([0, 0, 10, 300])))
    if rng.random() < 0.5:
        death_s = rng.uniform(0, end_s)
        script = [entry for entry in script if entry[0] < death_s] + [(death_s, halt)]
    return script


def drawn_story(seed: int, exact: bool) -> Played:
    rng = random.Random(seed)
    pool = make_pool(1, GPU_LIKE, **drawn_engine(rng, rng.choice([1, 2, 4, 8, 16])))
    trace = drawn_trace(rng, [pool])
    script = drawn_script(rng, trace, pool, exact)
    engine = {name: getattr(pool.engine, name) for name in pool.engine.__dataclass_fields__}
    return play(script, exact, GPU_LIKE, **engine)


def check_both_modes(seed: int) -> Played:
    """Whatever can be seen of an engine is the same; returns it."""
    exact, fast = drawn_story(seed, True), drawn_story(seed, False)
    assert fast.first_token_s == pytest.approx(exact.first_token_s, rel=SAME)
    assert fast.finish_s == pytest.approx(exact.finish_s, rel=SAME)
    assert fast.aborted == exact.aborted
    assert fast.unfinished == exact.unfinished
    assert fast.seen == exact.seen
    assert fast.totals == exact.totals
    assert fast.gap_count == exact.gap_count
    assert fast.gaps_s == pytest.approx(exact.gaps_s, rel=SAME)
    assert fast.replica.busy_s == pytest.approx(exact.replica.busy_s, rel=SAME)
    for index, request in fast.requests.items():
        other = exact.requests[index]
        assert (request.cached_tokens, request.preemptions) == (other.cached_tokens, other.preemptions)
        if index in fast.unfinished:
            assert request.generated_tokens == other.generated_tokens
            if request.generated_tokens:
                assert request.last_token_s == pytest.approx(other.last_token_s, rel=SAME)
    for played in (fast, exact):
        check_ends(played)
    return fast


def check_ends(played: Played) -> None:
    """Every request ended in exactly one way, and no block is held."""
    ended = Counter([*played.finish_s, *played.aborted, *played.unfinished])
    assert ended == Counter(list(played.requests))
    scheduler = played.replica.scheduler
    assert not scheduler.has_requests
    assert scheduler.used_blocks == 0
    assert scheduler.pool.free == scheduler.pool.usable
    for index, tokens in played.aborted.items():
        assert 0 <= tokens < played.requests[index].stop_tokens - played.requests[index].input_tokens + 1
    arrived = sum(played.aborted.values()) + sum(played.requests[index].generated_tokens for index in played.unfinished)
    whole = sum(played.requests[index].stop_tokens - played.requests[index].input_tokens for index in played.finish_s)
    assert arrived + whole <= played.replica.output_tokens
    if not played.aborted and not played.unfinished:
        assert whole == played.replica.output_tokens


@settings(max_examples=100, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_both_modes_agree_whatever_happens(seed):
    played = check_both_modes(seed)
    event(f"aborted: {bool(played.aborted)}, dead: {bool(played.unfinished)}")


def test_what_was_drawn_is_worth_drawing():
    """The same generator over plain seeds: aborts in every state, deaths with work in hand, hits and preemptions."""
    met: Counter[str] = Counter()
    for seed in range(60):
        played = check_both_modes(seed)
        requests = [played.requests[index] for index in played.aborted]
        met["aborted"] += len(requests)
        met["aborted with tokens"] += sum(tokens > 0 for tokens in played.aborted.values())
        met["aborted, preempted before"] += sum(request.preemptions > 0 for request in requests)
        met["aborted, hit before"] += sum(request.cached_tokens > 0 for request in requests)
        met["died"] += bool(played.unfinished)
        met["died with tokens"] += sum(played.requests[index].generated_tokens > 0 for index in played.unfinished)
        met["finished"] += len(played.finish_s)
    assert min(met.values()) > 5
    assert len(met) == 7
