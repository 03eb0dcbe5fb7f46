"""Clients go, the engine slows down and dies: one replica on a clock, timed by hand, a step taking a second.

Step i is written s_i. In sync mode a step is scheduled when the one before ends. In async mode s_(i+1) is scheduled
when s_i begins: what happens during s_i takes effect when s_i ends, where s_(i+2) is scheduled and s_(i+1) begins.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from engine.script import Action, Played, abort, halt, look, play, slow_down, submit
from fleet.fleets import LinearStepTime

from simroute.errors import SimulationError

SYNC = {"async_scheduling": False}
ASYNC = {"async_scheduling": True}
BOTH = pytest.mark.parametrize("config", [SYNC, ASYNC], ids=["sync", "async"])


@pytest.fixture(params=[True, False], ids=["exact", "fast"])
def exact(request):
    return request.param


def arrivals(*rows: tuple[float, ...]) -> list[tuple[float, Action]]:
    """Requests of (arrival_s, input_tokens, max_tokens, priority=0), numbered from 0."""
    return [(row[0], submit(index, row[0], *row[1:3], priority=(*row, 0)[3])) for index, row in enumerate(rows)]


def drained(played: Played) -> Played:
    """Nothing is left in the engine, and no block is lost."""
    scheduler = played.replica.scheduler
    assert not scheduler.has_requests
    assert scheduler.used_blocks == 0
    assert scheduler.pool.free == scheduler.pool.usable
    assert not scheduler.prefilling
    assert not scheduler.group.members
    return played


@BOTH
@pytest.mark.parametrize("policy", ["fcfs", "priority"])
def test_abort_in_waiting(exact, config, policy):
    """One seat: a has it until 4 s. b goes at 1.5 s, so that c is next: it begins at 4 s (async: s5 was empty)."""
    script = [*arrivals((0.0, 4, 4), (0.1, 4, 4), (0.2, 4, 2)), (1.5, abort(1))]
    played = drained(play(script, exact, max_num_seqs=1, policy=policy, **config))
    assert played.first_token_s == {0: 1.0, 2: 5.0}
    assert played.finish_s == {0: 4.0, 2: 6.0}
    assert played.aborted == {1: 0}
    assert played.totals == {"steps": 6, "prefill_tokens": 8, "output_tokens": 6, "preemptions": 0}


@pytest.mark.parametrize(("config", "first_s"), [(SYNC, 3.0), (ASYNC, 4.0)], ids=["sync", "async"])
def test_abort_in_prefill(exact, config, first_s):
    """Budget 8, a prompt of 40: a would prefill until s5, and b wait. a goes in s2 (1 to 2 s).

    Sync: s3 is b's. Async: s3 was scheduled at 1 s with 8 more tokens of a; s4 is b's.
    """
    script = [*arrivals((0.0, 40, 4), (0.5, 6, 2)), (1.5, abort(0))]
    played = drained(play(script, exact, max_num_batched_tokens=8, **config))
    assert played.first_token_s == {1: first_s}
    assert played.finish_s == {1: first_s + 1}
    assert played.totals["prefill_tokens"] == 8 * (first_s - 1) + 6
    assert played.aborted == {0: 0}


def test_abort_in_decode_sync(exact):
    """A step takes 0.5 s and 0.25 s a token. s1: 8 prompt tokens, 2.5 s. s2, s3: both decode, 1 s each: 3.5, 4.5 s.

    b goes at 3.7 s, in s3: from s4 on a is alone, 0.75 s a step. b has seen the tokens of s1 and s2.
    """
    step_time = LinearStepTime(base_s=0.5, per_token_s=0.25)
    script = [*arrivals((0.0, 4, 8), (0.0, 4, 8)), (3.7, abort(1))]
    played = drained(play(script, exact, step_time, **SYNC))
    assert played.first_token_s == {0: 2.5, 1: 2.5}
    assert played.finish_s == {0: 4.5 + 5 * 0.75}
    assert played.aborted == {1: 2}
    assert played.totals["output_tokens"] == 3 * 2 + 5


def test_abort_in_decode_async(exact):
    """As above, but s4 was scheduled at 3.5 s with both: a is alone from s5 on, which begins at 5.5 s."""
    step_time = LinearStepTime(base_s=0.5, per_token_s=0.25)
    script = [*arrivals((0.0, 4, 8), (0.0, 4, 8)), (3.7, abort(1))]
    played = drained(play(script, exact, step_time, **ASYNC))
    assert played.finish_s == {0: 5.5 + 4 * 0.75}
    assert played.aborted == {1: 2}
    assert played.totals["output_tokens"] == 4 * 2 + 4


@pytest.mark.parametrize(
    ("gone_s", "sync_s", "async_s"), [(50.0, 50, 51), (50.25, 51, 52), (1.0, 1, 2), (98.5, 99, 100)]
)
@BOTH
def test_abort_in_a_stretch(exact, config, gone_s, sync_s, async_s):
    """Two decode for 100 s, a step a second; per token a step takes a second more: with one gone, steps are shorter.

    The abort is seen at a schedule point of that very instant. s_k has both up to k = sync_s or async_s.
    """
    step_time = LinearStepTime(base_s=0.5, per_token_s=0.25)
    script = [*arrivals((0.0, 1, 120), (0.0, 1, 120)), (gone_s, abort(0))]
    played = drained(play(script, exact, step_time, **config))
    both = sync_s if config is SYNC else async_s
    assert played.finish_s[1] == pytest.approx(both + (120 - both) * 0.75, rel=1e-12)
    assert played.aborted == {0: sync_s - 1}
    assert played.totals["output_tokens"] == 120 + both


@pytest.mark.parametrize(("gone_s", "first_s"), [(2.5, 5.0), (3.5, 6.0), (4.0, 6.0)])
def test_abort_with_the_last_token_in_flight_async(exact, gone_s, first_s):
    """Two seats: a ends with s4 (3 to 4 s), scheduled at 2 s; b goes on to s8; c waits for a seat.

    a goes in s3: at 3 s its seat is free, though its last token is on its way; c is in s5, which begins at 4 s.
    a goes in s4, or as its last token comes: at 4 s it leaves, as it would have anyway, and nobody is told of an end.
    """
    script = [*arrivals((0.0, 4, 4), (0.0, 4, 8), (0.5, 4, 2)), (gone_s, abort(0))]
    played = drained(play(script, exact, max_num_seqs=2, **ASYNC))
    assert played.first_token_s == {0: 1.0, 1: 1.0, 2: first_s}
    assert played.finish_s == {1: 8.0, 2: first_s + 1}
    assert played.aborted == {0: int(gone_s - 0.1)}


def test_abort_with_the_last_token_in_flight_sync(exact):
    """a goes in s4, which computes its last token: it leaves at 4 s, as it would have anyway."""
    script = [*arrivals((0.0, 4, 4), (0.0, 4, 8), (0.5, 4, 2)), (3.5, abort(0))]
    played = drained(play(script, exact, max_num_seqs=2, **SYNC))
    assert played.first_token_s[2] == 5.0
    assert 0 not in played.finish_s
    assert played.aborted == {0: 3}


@BOTH
def test_an_abort_after_the_end_does_nothing(exact, config):
    script = [*arrivals((0.0, 4, 4), (0.0, 4, 8)), (5.5, abort(0)), (20.0, abort(1))]
    played = drained(play(script, exact, **config))
    assert played.finish_s == {0: 4.0, 1: 8.0}
    assert played.aborted == {}


@BOTH
def test_aborted_before_it_is_seen(exact, config):
    """It comes and goes at one instant, or between two schedule points: no step knows of it."""
    script = [*arrivals((0.0, 4, 3), (2.0, 4, 3), (2.25, 4, 3)), (2.0, abort(1)), (2.5, abort(2))]
    played = drained(play([*script, (9.0, submit(3, 9.0, 4, 2)), (9.0, abort(3))], exact, **config))
    assert played.finish_s == {0: 3.0}
    assert played.totals["steps"] == 3
    assert played.aborted == {1: 0, 2: 0, 3: 0}


def test_a_blocked_queue_moves_up(exact):
    """19 blocks: a's 40 tokens take 10, and one more; b's 40 do not fit beside it; c's 4 would, behind b.

    b goes at 1.5 s: c is in s3. In the other story a goes: b and c are in s3.
    """
    config = SYNC | {"num_gpu_blocks": 20, "max_model_len": 76}
    rows = arrivals((0.0, 40, 9), (0.5, 40, 2), (0.6, 4, 2))
    played = drained(play([*rows, (1.5, abort(1))], exact, **config))
    assert played.first_token_s == {0: 1.0, 2: 3.0}
    assert played.finish_s == {0: 9.0, 2: 4.0}
    played = drained(play([*rows, (1.5, abort(0))], exact, **config))
    assert played.first_token_s == {0: 1.0, 1: 3.0, 2: 3.0}


def test_a_preempted_request_goes(exact):
    """8 blocks: at s6 a needs a 5th, and b, with 5 tokens, is preempted until a ends at 10 s. b goes at 7.5 s."""
    config = SYNC | {"num_gpu_blocks": 9, "max_model_len": 32}
    script = [*arrivals((0.0, 12, 10), (0.0, 12, 10), (7.0, 4, 2)), (7.5, abort(1))]
    played = drained(play(script, exact, **config))
    assert played.aborted == {1: 5}
    assert played.first_token_s == {0: 1.0, 1: 1.0, 2: 9.0}


def test_the_step_of_those_who_have_gone_is_carried_out(exact):
    """a is alone and goes in s3: at 3 s nobody is left, but s4 executes until 4 s. b and c have come by then: s5."""
    script = [*arrivals((0.0, 4, 8), (3.2, 4, 2), (3.5, 4, 1)), (2.5, abort(0)), (20.0, submit(3, 20.0, 4, 1))]
    played = drained(play(script, exact, **ASYNC))
    assert played.first_token_s == {0: 1.0, 1: 5.0, 2: 5.0, 3: 21.0}
    assert played.finish_s == {1: 6.0, 2: 5.0, 3: 21.0}
    assert played.replica.busy_s == 7.0
    assert played.replica.idle_s == 14.0


@BOTH
def test_gaps_belong_to_scheduled_tokens(exact, config):
    """b's tokens of s1, s2 and, under async, s3 are scheduled before it leaves: so many less one are its gaps."""
    played = drained(play([*arrivals((0.0, 4, 8), (0.0, 4, 8)), (1.5, abort(1))], exact, **config))
    assert played.gap_count == 7 + (1 if config is SYNC else 2)


@BOTH
def test_abort_from_within_an_observer(exact, config):
    """a ends at 4 s and takes b with it. The schedule point of 4 s is under way: b leaves at the next."""
    script = arrivals((0.0, 4, 4), (0.0, 4, 20), (0.0, 4, 9))
    step_time = LinearStepTime(base_s=0.5, per_token_s=0.5)
    played = drained(play(script, exact, step_time, on_finish=lambda played: played.abort(1), **config))
    # s1 to s4: 6.5 + 3 * 2 s; then two decode 1.5 s a step, up to s5 or s6; then c alone, 1 s a step
    both = 1 if config is SYNC else 2
    assert played.finish_s[0] == 12.5
    assert played.finish_s[2] == 12.5 + both * 1.5 + (5 - both)


@BOTH
def test_a_request_sent_as_an_answer_ends_joins_behind_the_schedule_point(exact, config):
    """a ends at 4 s, b goes on. c is sent at 4 s by an event of its own, after the schedule point of that instant."""

    def send(played: Played) -> None:
        if len(played.requests) == 2:
            played.replica.env.timeout(0.0).callbacks.append(lambda _: submit(2, 4.0, 4, 2)(played))

    played = drained(play(arrivals((0.0, 4, 4), (0.0, 4, 9)), exact, on_finish=send, **config))
    assert played.first_token_s[2] == (6.0 if config is SYNC else 7.0)


@BOTH
def test_slow_down(exact, config):
    """From s4 (async: s5) on a step takes two seconds, from 8.5 s on, seen at 9 s (async: 10 s), one again."""
    script = [*arrivals((0.0, 4, 9)), (2.5, slow_down(2.0)), (8.5, slow_down(1.0))]
    played = drained(play(script, exact, **config))
    # sync: 1 2 3 5 7 9 10 11 12. async: s5 4-6, s6 6-8, s7 8-10, s8 (scheduled at 8 s) 10-12, s9 12-13
    assert played.finish_s == {0: 12.0 if config is SYNC else 13.0}
    assert played.gaps_s == played.finish_s[0] - 1.0


@BOTH
def test_an_idle_engine_is_slow_at_once(exact, config):
    script = [(1.0, slow_down(3.0)), *arrivals((2.0, 4, 2))]
    assert play(script, exact, **config).finish_s == {0: 8.0}


@BOTH
def test_slow_down_as_the_engine_goes_idle(exact, config):
    """As the last answer ends, at 2 s, the engine is made slow; idle it is made as usual, then slow again."""
    script = [*arrivals((0.0, 4, 2)), (5.0, slow_down(1.0)), (6.0, slow_down(3.0)), (7.0, submit(1, 7.0, 4, 1))]
    slowly = [50.0]
    played = play(script, exact, on_finish=lambda played: slow_down(slowly.pop())(played) if slowly else None, **config)
    assert played.finish_s == {0: 2.0, 1: 10.0}


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_factor(factor):
    with pytest.raises(SimulationError, match="slow_down: the factor must be a positive number, got"):
        play([(0.0, slow_down(factor))], exact=False)


@BOTH
def test_halt(exact, config):
    """a has s1 and s2. b, of 1.5 s, begins with s3. c, 40 tokens at a budget of 8, begins with s5 or s6; d waits.

    At 4.5 s b has the tokens of s3 and s4. s5 was under way for half a second; under async s6 was scheduled too.
    """
    script = [
        *arrivals((0.0, 4, 2), (1.5, 4, 9), (3.5, 40, 2), (3.6, 4, 2)),
        (4.5, halt),
        (4.5, look),
        (50.0, look),
    ]
    played = play(script, exact, max_num_batched_tokens=8, **config)
    drained(played)
    assert played.finish_s == {0: 2.0}
    assert played.unfinished == [1, 2, 3]
    assert [played.requests[index].generated_tokens for index in (1, 2, 3)] == [2, 0, 0]
    assert played.first_token_s == {0: 1.0, 1: 3.0}
    assert played.replica.busy_s == 4.5
    assert played.seen == [(0, 0, 0)] * 2
    assert played.totals["steps"] == (5 if config is SYNC else 6)


@pytest.mark.parametrize("at_s", [4.0, 4.5, 5.0])
def test_halt_as_tokens_arrive(exact, at_s):
    """What arrives at the instant of death is lost: of tokens at 1, 2, 3 .. s, 3, 4 and 4 have come by then."""
    played = play([*arrivals((0.0, 4, 9)), (at_s, halt)], exact, **ASYNC)
    assert played.requests[0].generated_tokens == {4.0: 3, 4.5: 4, 5.0: 4}[at_s]


def test_a_dead_engine_returns_nobody_whose_client_has_gone(exact):
    played = play([*arrivals((0.0, 4, 9), (0.0, 4, 9)), (2.5, abort(0)), (2.6, halt), (3.0, halt)], exact, **ASYNC)
    assert played.unfinished == [1]
    assert played.aborted == {0: 2}


@BOTH
@pytest.mark.parametrize("late_s", [0.0, 2.5])
def test_halt_from_within_an_observer(exact, config, late_s):
    """a ends at 4 s and the engine is taken down at once, though b and c go on, or are about to begin."""
    script = [*arrivals((0.0, 4, 4), (0.0, 4, 20), (late_s, 4, 9)), (50.0, look)]
    played = drained(play(script, exact, on_finish=Played.halt, **config))
    assert played.unfinished == [1, 2]
    assert played.requests[1].generated_tokens == 3
    assert played.replica.busy_s == 4.0


def test_nothing_reaches_a_dead_engine(exact):
    script = [(1.0, halt), *arrivals((2.0, 4, 2))]
    with pytest.raises(SimulationError, match=r"a request reached an engine that was halted, at 2\.0 s"):
        play(script, exact)


@BOTH
def test_generated_tokens_at_any_time(exact, config):
    """Asking changes nothing. a's tokens come at 1, 2 .. 10 s; b is sent at 2.5 s, its first comes at 4 s or 5 s."""
    asked: dict[float, list[int]] = {}

    def ask(played: Played) -> None:
        replica = played.replica
        asked[replica.env.now] = [replica.generated_tokens(request) for request in played.requests.values()]

    times = [2.65 + 0.7 * k for k in range(9)]
    played = drained(play([*arrivals((0.0, 4, 10), (2.5, 4, 10)), *((at_s, ask) for at_s in times)], exact, **config))
    first_s = 4 if config is SYNC else 5
    assert played.first_token_s == {0: 1.0, 1: first_s}
    assert asked == {at_s: [int(at_s), max(int(at_s) - first_s + 1, 0)] for at_s in times}
    assert played.finish_s == {0: 10.0, 1: first_s + 9}


def test_a_resumed_request_does_not_count_its_tokens_twice(exact):
    """b has 5 tokens when it is preempted, is admitted again with s11, and gets its sixth at 11 s.

    Whenever it is asked, in the middle of steps, what is scheduled less what is in flight is what has come.
    """
    config = ASYNC | {"num_gpu_blocks": 9, "max_model_len": 32, "enable_prefix_caching": False}
    asked: list[int] = []

    def ask(played: Played) -> None:
        asked.append(played.replica.generated_tokens(played.requests[1]))

    script = [*arrivals((0.0, 12, 10), (0.0, 12, 10)), *((at_s + 0.5, ask) for at_s in range(16))]
    played = drained(play(script, exact, **config))
    assert played.replica.scheduler.preemptions == 1
    assert asked == sorted(asked)
    assert {b - a for a, b in pairwise(asked)} == {0, 1}
    assert asked[:7] == [0, 1, 2, 3, 4, 5, 5]
    assert asked[10:] == [5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("at_s", [4.5, 8.5, 10.5, 11.5])
def test_halt_says_when_the_last_token_came_of_one_that_was_preempted(exact, at_s):
    """As above: b has tokens at 1, 2 .. 5 s, then at 11 s. At 10.5 s it is admitted again; its sixth never comes."""
    config = ASYNC | {"num_gpu_blocks": 9, "max_model_len": 32, "enable_prefix_caching": False}
    played = play([*arrivals((0.0, 12, 10), (0.0, 12, 10)), (at_s, halt)], exact, **config)
    came = {4.5: (4, 4.0), 8.5: (5, 5.0), 10.5: (5, 5.0), 11.5: (6, 11.0)}[at_s]
    assert (played.requests[1].generated_tokens, played.requests[1].last_token_s) == came
