"""One engine on a clock, timed by hand: a step takes exactly a second, unless a test says otherwise.

Step i is written s_i; "s1: a[0:8]" computes tokens 0 to 7 of a. In sync mode a step begins where the one before
ends, and is scheduled there. In async mode s_(i+1) is scheduled when s_i begins, one output ahead.
"""

from __future__ import annotations

import pytest
from fleet.fleets import LinearStepTime, make_pool, replay
from fleet.invariants import check

from simroute.engine.clock import Clock
from simroute.engine.config import EngineConfig
from simroute.engine.replica import Replica
from simroute.engine.sequence import EngineRequest
from simroute.errors import SimulationError
from simroute.results.run import FleetRun
from simroute.workload.trace import Trace

SYNC = {"async_scheduling": False}
ASYNC = {"async_scheduling": True}


@pytest.fixture(params=[True, False], ids=["exact", "fast"])
def exact(request):
    return request.param


def play(*arrivals: tuple[float, ...], exact: bool, step_time: LinearStepTime | None = None, **engine) -> FleetRun:
    """Requests of (arrival_s, input_tokens, output_tokens, priority=0) through one engine."""
    arrival_s, prompts, answers, priorities = zip(*((*row, 0)[:4] for row in arrivals), strict=True)
    trace = Trace.build(arrival_s=arrival_s, input_tokens=prompts, output_tokens=answers, priority=priorities)
    pools = [make_pool(step_time=step_time, **engine)]
    return check(replay(trace, pools, exact=exact), pools)


@pytest.mark.parametrize("config", [SYNC, ASYNC], ids=["sync", "async"])
def test_one_request_takes_a_step_a_token(exact, config):
    """s1 prefills and samples, s2..s5 decode: the first token after 1 s, the fifth after 5 s; no step is wasted."""
    played = play((2.0, 10, 5), exact=exact, **config)
    assert played.first_token_s.tolist() == [3.0]
    assert played.finish_s.tolist() == [7.0]
    assert (played.itl.count, played.itl.mean) == (4, 1.0)
    (replica,) = played.replicas
    assert (replica.steps, replica.busy_s, replica.prefill_tokens, replica.output_tokens) == (5, 5.0, 10, 5)


@pytest.mark.parametrize("config", [SYNC, ASYNC], ids=["sync", "async"])
def test_its_latency_is_the_sum_of_its_steps(exact, config):
    """10 prompt tokens: 55 pairs. Then decode contexts of 11, 12 .. 49: 39 steps, 39 * 30 tokens of context."""
    step_time = LinearStepTime(base_s=0.5, per_token_s=0.01, per_pair_s=0.001, per_context_token_s=0.002)
    played = play((0.0, 10, 40), exact=exact, step_time=step_time, **config)
    prefill_s = 0.5 + 10 * 0.01 + 55 * 0.001
    assert played.first_token_s.tolist() == pytest.approx([prefill_s])
    assert played.finish_s.tolist() == pytest.approx([prefill_s + 39 * (0.5 + 0.01) + 39 * 30 * 0.002])


def test_chunked_prefill_sync(exact):
    """Budget 8. s1: a[0:8]; s2: a[8:16]; s3: a[16:20], b[0:4]; s4: a decodes, b[4:6]; s5: both decode; s6: b decodes.

    a: first token after s3, second after s4, last after s5. b: first after s4, then s5 and s6.
    """
    played = play((0.0, 20, 3), (0.5, 6, 3), exact=exact, max_num_batched_tokens=8, **SYNC)
    assert played.first_token_s.tolist() == [3.0, 4.0]
    assert played.finish_s.tolist() == [5.0, 6.0]


def test_chunked_prefill_async(exact):
    """The same steps, for s2 and s3 are scheduled before b matters: s3 is scheduled at 1 s, when s1's output is in.

    b arrived at 0.5 s and gets s3's last 4 tokens, as in sync mode.
    """
    played = play((0.0, 20, 3), (0.5, 6, 3), exact=exact, max_num_batched_tokens=8, **ASYNC)
    assert played.first_token_s.tolist() == [3.0, 4.0]
    assert played.finish_s.tolist() == [5.0, 6.0]


def test_a_joining_request_sync(exact):
    """a runs alone from 0 s. b arrives at 2.5 s, during s3: it joins s4 (3 to 4 s)."""
    played = play((0.0, 4, 8), (2.5, 4, 2), exact=exact, **SYNC)
    assert played.first_token_s.tolist() == [1.0, 4.0]
    assert played.finish_s.tolist() == [8.0, 5.0]


def test_a_joining_request_waits_one_step_more_under_async(exact):
    """b arrives at 2.5 s, when s4 (3 to 4 s) is already scheduled: it joins s5 (4 to 5 s)."""
    played = play((0.0, 4, 8), (2.5, 4, 2), exact=exact, **ASYNC)
    assert played.first_token_s.tolist() == [1.0, 5.0]
    assert played.finish_s.tolist() == [8.0, 6.0]


@pytest.mark.parametrize(("config", "first_s"), [(SYNC, 4.0), (ASYNC, 5.0)], ids=["sync", "async"])
def test_an_arrival_on_a_schedule_point_is_seen_there(exact, config, first_s):
    """b arrives at 3 s, as s3's output comes in. Sync: s4 is scheduled now. Async: s5 is, s4 was at 2 s."""
    assert play((0.0, 4, 8), (3.0, 4, 2), exact=exact, **config).first_token_s.tolist()[1] == first_s


def test_head_of_line_blocking(exact):
    """19 blocks, a prompt of 40 tokens takes 10: b (40) must wait for a; c (4 tokens) would fit but stands behind it.

    a: s1..s4 (0 to 4 s). b and c: admitted at 4 s, when a's blocks are free.
    """
    config = SYNC | {"num_gpu_blocks": 20, "max_model_len": 76}
    played = play((0.0, 40, 4), (0.5, 40, 2), (0.6, 4, 2), exact=exact, **config)
    assert played.first_token_s.tolist() == [1.0, 5.0, 5.0]
    assert played.finish_s.tolist() == [4.0, 6.0, 6.0]


def test_freed_blocks_come_one_step_later_under_async(exact):
    """As above, but s5 is scheduled at 3 s, before a's last token is in, and finds nothing to do.

    a's last output comes at 4 s; only then do b and c get in: s5 is empty, so nothing runs before them.
    """
    config = ASYNC | {"num_gpu_blocks": 20, "max_model_len": 76}
    played = play((0.0, 40, 4), (0.5, 40, 2), (0.6, 4, 2), exact=exact, **config)
    assert played.finish_s.tolist() == [4.0, 6.0, 6.0]


def test_a_seat_is_free_one_step_later_under_async(exact):
    """Two seats: a ends with s4, b goes on to s8. c waits for a's seat. Sync: s5. Async: s5 is scheduled at 3 s
    with b alone, c joins s6 (5 to 6 s)."""
    arrivals = (0.0, 4, 4), (0.0, 4, 8), (0.5, 4, 2)
    assert play(*arrivals, exact=exact, max_num_seqs=2, **SYNC).first_token_s.tolist() == [1.0, 1.0, 5.0]
    assert play(*arrivals, exact=exact, max_num_seqs=2, **ASYNC).first_token_s.tolist() == [1.0, 1.0, 6.0]


def test_preemption_and_resume(exact):
    """8 blocks of 4. a and b prefill 12 tokens each in s1: 3 blocks each, 2 left. In s2 both need a 4th: none left.

    s6 computes position 17: a needs a 5th block, so b, the last in RUNNING, is preempted: it has 5 answer tokens, its
    17 tokens need 5 blocks, 3 are free. a goes on with s6..s10, its 10th token at 10 s. At 10 s b resumes:
    s11 recomputes 17 tokens and samples its 6th; s12..s15 give the other four.
    """
    config = SYNC | {"num_gpu_blocks": 9, "max_model_len": 32, "enable_prefix_caching": False}
    played = play((0.0, 12, 10), (0.0, 12, 10), exact=exact, **config)
    assert played.first_token_s.tolist() == [1.0, 1.0]
    assert played.finish_s.tolist() == [10.0, 15.0]
    assert played.preemptions.tolist() == [0, 1]
    assert played.replicas[0].prefill_tokens == 12 + 12 + 17
    assert played.replicas[0].output_tokens == 20
    # b's fifth token came at 5 s, its sixth at 11 s; every other gap is a step.
    assert played.itl.quantile(1.0) == pytest.approx(6.0, rel=2e-3)
    assert played.itl.quantile(16 / 17) == pytest.approx(1.0, rel=2e-3)


def test_cached_blocks_shorten_the_resume(exact):
    """With prefix caching b's first 4 blocks (16 tokens) survive where a does not evict them.

    b leaves 4 full blocks; a takes one in s6 and one in s10: the end of b's chain goes first. At 10 s b finds 2 blocks
    cached, and 9 of its 17 tokens are computed again.
    """
    config = SYNC | {"num_gpu_blocks": 9, "max_model_len": 32}
    played = play((0.0, 12, 10), (0.0, 12, 10), exact=exact, **config)
    assert played.finish_s.tolist() == [10.0, 15.0]
    assert played.replicas[0].prefill_tokens == 12 + 12 + 9


def test_priority_preempts_the_least_urgent(exact):
    """As in the test above, but a is the less urgent (larger number): it gives way, though it came first."""
    config = SYNC | {"num_gpu_blocks": 9, "max_model_len": 32, "enable_prefix_caching": False, "policy": "priority"}
    played = play((0.0, 12, 10, 1), (0.0, 12, 10, 0), exact=exact, **config)
    assert played.finish_s.tolist() == [15.0, 10.0]
    assert played.preemptions.tolist() == [1, 0]


def test_waiting_by_priority(exact):
    """One seat, a holds it until 4 s. b, c and d wait: d is the most urgent, b and c go by arrival."""
    arrivals = (0.0, 4, 4, 0), (0.1, 4, 1, 5), (0.2, 4, 1, 5), (0.3, 4, 1, 1)
    played = play(*arrivals, exact=exact, max_num_seqs=1, policy="priority", **SYNC)
    assert played.finish_s.tolist() == [4.0, 6.0, 7.0, 5.0]


def test_a_long_prefill_lets_the_short_one_through(exact):
    """Threshold 8: with others about, a gets 8 prompt tokens a step. s1: a[0:8], b[0:4] samples. s2: a[8:16], b ends.

    s3: a is alone, the cap no longer holds: a[16:40].
    """
    played = play((0.0, 40, 2), (0.0, 4, 2), exact=exact, long_prefill_token_threshold=8, **SYNC)
    assert played.first_token_s.tolist() == [3.0, 1.0]
    assert played.finish_s.tolist() == [4.0, 2.0]


def test_an_answer_is_clipped_by_the_context(exact):
    """10 prompt tokens in a context of 16: six answer tokens, whatever was asked."""
    played = play((0.0, 10, 50), exact=exact, max_model_len=16, **SYNC)
    assert played.finish_s.tolist() == [6.0]
    assert played.replicas[0].output_tokens == 6


def test_one_token_answers(exact):
    played = play((0.0, 10, 1), (0.0, 10, 1), (0.5, 3, 1), exact=exact, **ASYNC)
    assert played.first_token_s.tolist() == played.finish_s.tolist() == [1.0, 1.0, 2.0]
    assert played.itl.count == 0


def test_an_idle_engine_starts_at_once(exact):
    """Nothing runs between 2 s and 10 s; neither busy time nor gaps may count it."""
    played = play((0.0, 4, 2), (10.0, 4, 2), exact=exact, **ASYNC)
    assert played.finish_s.tolist() == [2.0, 12.0]
    assert played.replicas[0].busy_s == 4.0
    assert (played.itl.count, played.itl.mean) == (2, 1.0)


def test_the_gap_of_one_who_gave_way_in_an_empty_step(exact):
    """a is the less urgent, but runs first: at s6 it needs a 5th block, none of 8 is left, and a is the victim itself.

    That ends the step before b is served: nothing runs, and s6 is scheduled again at once, without a. b (13 tokens
    at s2, 17 with its 5th at s6) ends with s9. a resumes at 9 s: its fifth token came at 5 s, its sixth at 10 s.
    """
    config = SYNC | {"num_gpu_blocks": 9, "max_model_len": 32, "enable_prefix_caching": False, "policy": "priority"}
    played = play((0.0, 12, 10, 1), (0.5, 13, 8, 0), exact=exact, **config)
    assert played.preemptions.tolist() == [1, 0]
    assert played.finish_s.tolist() == [14.0, 9.0]
    assert played.itl.quantile(1.0) == pytest.approx(5.0, rel=2e-3)


def test_the_gap_of_one_who_missed_a_step(exact):
    """6 blocks, two each for d, a, b. s4: d decodes, a needs a third block and is itself the victim: the step ends

    without b. b's tokens come with s3, s5, s6, s7. d's with s1..s5, then a's 9 tokens fit: s2, s3, s6, s7.
    """
    config = SYNC | {"num_gpu_blocks": 7, "max_model_len": 20, "enable_prefix_caching": False, "policy": "priority"}
    played = play((0.0, 5, 5, 0), (0.5, 7, 4, 2), (1.5, 5, 4, 0), exact=exact, **config)
    assert played.first_token_s.tolist() == [1.0, 2.0, 3.0]
    assert played.finish_s.tolist() == [5.0, 7.0, 7.0]
    assert played.preemptions.tolist() == [0, 1, 0]
    gaps_s = [1, 1, 1, 1, 1, 3, 1, 2, 1, 1]
    assert (played.itl.count, played.itl.mean) == (len(gaps_s), sum(gaps_s) / len(gaps_s))


class Deaf:
    """An Observer that takes no notes."""

    def ignore(self, *_: object) -> None: ...

    first_token = finished = gaps = ignore


def test_a_request_that_can_never_be_admitted(exact):
    """The fleet refuses prompts beyond the context; an engine that gets one all the same says so instead of waiting.

    48 tokens take 12 blocks, 10 are usable. A request that fits is served before; then nothing can change any more.
    """
    env = Clock()
    config = EngineConfig(num_gpu_blocks=11, block_size=4, max_model_len=40)
    replica = Replica(env, config, LinearStepTime(), Deaf(), exact=exact)
    replica.submit(EngineRequest(0, 0.0, 10, 3))
    replica.submit(EngineRequest(1, 0.0, 48, 4))
    with pytest.raises(SimulationError, match=r"request 1 \(48 prompt tokens\) can never be admitted: 10 KV blocks"):
        env.run()
    assert env.now == 3.0
