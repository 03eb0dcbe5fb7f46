"""A replica dies under a request: what the client gets, when, and what was computed for it.

Two places, in east and west; steps take a second, so that by 3.5 s an answer begun at 0 s has three tokens.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fleet.fleets import LinearStepTime
from fleet.living import live
from fleet.seconds import PROMPT, endpoint, reasons, requests, seconds, statuses

from simroute.fleet.failures import OUTAGE
from simroute.fleet.options import ClientOptions, Failures, FleetOptions, Outage, Retries, RouterOptions, RouterRestart
from simroute.results.run import FleetRun, Status
from simroute.workload.trace import Trace


@pytest.fixture(params=[True, False], ids=["exact", "fast"])
def exact(request):
    return request.param


def lossy(on_loss: str, *outages: Outage, most_resends: int = 3, **options) -> FleetOptions:
    router = RouterOptions(on_loss=on_loss, most_resends=most_resends)
    return FleetOptions(router=router, failures=Failures(outages=outages), **options)


EAST = Outage(3.5, 100.0, zone="east")
WEST = Outage(5.5, 100.0, zone="west")


def test_fail_gives_up_at_the_loss(exact):
    run = live(requests([0.0], 6), [seconds(2)], lossy("fail", EAST), exact=exact)
    assert statuses(run) == [Status.FAILED]
    assert reasons(run) == [OUTAGE]
    assert (run.left_s[0], run.attempts[0], run.replica[0]) == (3.5, 1, 0)
    assert np.isnan(run.first_token_s[0])


def test_retry_starts_from_the_prompt(exact):
    """Sent again at 3.5 s: six more seconds, and the client sees its first token only then."""
    run = live(requests([0.0], 6), [seconds(2)], lossy("retry", EAST), exact=exact)
    assert (run.first_token_s[0], run.finish_s[0]) == (4.5, 9.5)
    assert (run.attempts[0], run.replica[0]) == (2, 1)
    assert [totals.output_tokens for totals in run.replicas] == [4, 6], "the fourth token was being computed"
    assert [totals.prefill_tokens for totals in run.replicas] == [PROMPT, PROMPT]


def test_resume_goes_on_from_the_tokens_that_had_come(exact):
    """Three are there and become part of the prompt: three to go."""
    run = live(requests([0.0], 6), [seconds(2)], lossy("resume", EAST), exact=exact)
    assert (run.first_token_s[0], run.finish_s[0]) == (1.0, 6.5)
    assert run.attempts[0] == 2
    assert [totals.output_tokens for totals in run.replicas] == [4, 3]
    assert [totals.prefill_tokens for totals in run.replicas] == [PROMPT, PROMPT + 3]
    assert run.generated_tokens.tolist() == [6]


def gaps(run: FleetRun) -> tuple[int, float, float]:
    """How many gaps clients saw, their sum and the longest: the step under way when a replica died counts as one."""
    return run.itl.count, pytest.approx(run.itl.mean * run.itl.count), pytest.approx(run.itl.quantile(1.0), rel=1e-3)


@pytest.mark.parametrize("overlapped", [0, 1], ids=["sync", "async"])
def test_the_pause_of_a_resumed_answer_is_a_gap_that_its_client_sees(exact, overlapped):
    """Tokens at 1, 2, 3 | 4.5, 5.5, 6.5: four gaps of 1 s and one of 1.5 s, and the fourth token, which never came.

    Under async scheduling the fifth was under way as well.
    """
    run = live(requests([0.0], 6), [seconds(2, async_scheduling=bool(overlapped))], lossy("resume", EAST), exact=exact)
    assert gaps(run) == (6 + overlapped, 6.5 + overlapped, 1.5)


def test_the_pause_is_from_the_last_token_that_came_over_any_number_of_losses(exact):
    """Tokens at 1, 2, 3, the second replica dies before its first at 4.5, the third has 5, 6, 7: a pause of 2 s."""
    third = replace(seconds(3), zones=("east", "west", "north"))
    run = live(requests([0.0], 6), [third], lossy("resume", EAST, Outage(4.0, 100.0, zone="west")), exact=exact)
    assert (run.finish_s[0], gaps(run)) == (7.0, (6, 7.0, 2.0))
    again = live(requests([0.0], 6), [third], lossy("resume", EAST, WEST), exact=exact)
    assert (again.finish_s[0], gaps(again)[2]) == (7.5, 2.0), "1, 2, 3 | 4.5 | 6.5, 7.5"


def test_an_engine_that_was_looked_at_knows_when_its_tokens_came(exact):
    """Another client leaves at 3.25 s: that settles the engine's steps in the middle of one.

    What is lost goes on in the other engine's step from 4 s on: no token between 3 s and 5 s.
    """
    trace = requests([0.0, 0.0, 0.0], 6, request_class=["batch", "batch", "chat"])
    options = lossy("resume", EAST, clients=ClientOptions(timeout_s={"chat": 3.25}))
    run = live(trace, [seconds(2, seats=2)], options, policy="round_robin", exact=exact)
    assert statuses(run) == [Status.COMPLETED, Status.COMPLETED, Status.CANCELLED]
    assert run.replica.tolist() == [1, 1, 0]
    assert gaps(run)[2] == 2.0


def test_a_client_that_leaves_a_resumed_answer_has_seen_its_pause(exact):
    """It hangs up at 5 s, after the token of 4.5 s, or at 4.25 s, before it."""
    for timeout_s, longest_s in ((5.0, 1.5), (4.25, 1.0)):
        options = lossy("resume", EAST, clients=ClientOptions(timeout_s={"default": timeout_s}))
        run = live(requests([0.0], 6), [seconds(2)], options, exact=exact)
        assert statuses(run) == [Status.CANCELLED]
        assert gaps(run)[2] == longest_s


def test_an_answer_begun_anew_has_no_pause(exact):
    """What its client had is worth nothing: it waits for its first token, not between two."""
    assert gaps(live(requests([0.0], 6), [seconds(2)], lossy("retry", EAST), exact=exact))[2] == 1.0


def test_resume_adds_up_over_several_losses(exact):
    """Lost at 3.5 s with three tokens, at 5.5 s with one more (of 4.5 and 5.5 s, the last is lost with its replica)."""
    back = Outage(3.5, 0.5, zone="east")  # ordered at 4 s, up at 15 s
    third = replace(seconds(3), zones=("east", "west", "north"))
    run = live(requests([0.0], 6), [third], lossy("resume", back, WEST), exact=exact)
    assert [totals.prefill_tokens for totals in run.replicas] == [PROMPT, PROMPT + 3, PROMPT + 4]
    assert (run.first_token_s[0], run.finish_s[0], run.attempts[0]) == (1.0, 7.5, 3)


def test_resume_without_a_token_is_a_retry(exact):
    """Lost at 0.5 s, before the first token."""
    run = live(requests([0.0], 6), [seconds(2)], lossy("resume", Outage(0.5, 100.0, zone="east")), exact=exact)
    assert (run.first_token_s[0], run.finish_s[0]) == (1.5, 6.5)
    assert run.replicas[1].prefill_tokens == PROMPT


def test_a_lost_request_does_not_wait_for_its_last_token_alone():
    """Lost at 5.5 s with five of six tokens: one is left, which takes a prefill of the rest."""
    run = live(requests([0.0], 6), [seconds(2)], lossy("resume", Outage(5.5, 100.0, zone="east")))
    assert run.finish_s[0] == 6.5
    assert run.replicas[1].prefill_tokens == PROMPT + 5
    assert run.replicas[1].output_tokens == 1


@pytest.mark.parametrize(("most", "status"), [(0, Status.FAILED), (1, Status.FAILED), (2, Status.COMPLETED)])
def test_most_resends(exact, most, status):
    """Three replicas, of which the first two are lost in turn."""
    pool = replace(seconds(3), zones=("east", "west", "north"))
    run = live(requests([0.0], 6), [pool], lossy("retry", EAST, WEST, most_resends=most), exact=exact)
    assert statuses(run) == [status]
    assert run.attempts[0] == most + 1
    if status is Status.FAILED:
        assert run.left_s[0] == [3.5, 5.5][most]
    else:
        assert (run.first_token_s[0], run.finish_s[0]) == (6.5, 11.5)


def test_a_client_that_asks_again_has_as_many_resends_again():
    """One resend, then the client asks itself: its second try is resent once too."""
    pool = replace(seconds(4), zones=("a", "b", "c", "d"))
    outages = [Outage(at_s, 100.0, zone=zone) for at_s, zone in [(1.5, "a"), (2.5, "b"), (4.5, "c")]]
    clients = ClientOptions(retries=Retries(most=1, backoff_s=1.0))
    run = live(requests([0.0], 6), [pool], lossy("retry", *outages, most_resends=1, clients=clients))
    assert (run.attempts[0], run.replica[0], run.finish_s[0]) == (4, 3, 10.5)


def test_with_nobody_left_it_fails_for_the_first_reason(exact):
    run = live(requests([0.0], 6), [seconds(2)], lossy("retry", Outage(3.5, 100.0)), exact=exact)
    assert reasons(run) == [OUTAGE]
    assert statuses(run) == [Status.FAILED]


def test_everyone_in_flight_is_resent_running_before_waiting(exact):
    """One seat: request 0 runs, 1 waits behind it; both go to the other replica in that order."""
    run = live(requests([0.0, 0.0], 6), [seconds(2)], lossy("retry", EAST), policy="round_robin", exact=exact)
    assert run.finish_s.tolist() == [12.0, 6.0]
    both = live(
        requests([0.0, 0.0, 1.0], [6, 6, 1]),
        [seconds(2)],
        lossy("resume", EAST),
        policy="static_tier",
        exact=exact,
    )
    assert both.replica.tolist() == [1, 1, 1]


def test_tokens_that_overlap_in_flight_are_lost_with_the_engine(exact):
    """Async scheduling has two steps in flight: what has come by 3.5 s is the same."""
    pool = seconds(2, async_scheduling=True)
    run = live(requests([0.0], 6), [pool], lossy("resume", EAST), exact=exact)
    assert (run.first_token_s[0], run.finish_s[0]) == (1.0, 6.5)
    assert run.replicas[1].prefill_tokens == PROMPT + 3


def test_the_last_attempt_s_cache_hits_count():
    """Requests 0 and 1 share a prompt; 1 hits it on place 0, is lost, and finds nothing on place 1."""
    trace = Trace.build(
        arrival_s=[0.0, 2.0], input_tokens=8, output_tokens=[1, 6], prefixes=[[1, 2], [1, 2]], prefix_block_tokens=4
    )
    run = live(trace, [seconds(2)], lossy("retry", EAST))
    assert run.attempts.tolist() == [1, 2]
    assert run.cached_tokens.tolist() == [0, 0]
    assert [(t.prefix_queried_tokens, t.prefix_hit_tokens) for t in run.replicas] == [(8, 0), (8, 0)]


def test_a_prompt_that_nobody_looked_for_counts_as_no_miss():
    """Request 1 waits in vLLM behind 0 until its client leaves: its prompt was never looked up."""
    options = FleetOptions(clients=ClientOptions(timeout_s={"default": 1.5}))
    run = live(requests([0.0, 0.0], 2), [seconds()], options)
    assert statuses(run) == [Status.CANCELLED, Status.CANCELLED]
    assert run.replicas[0].prefix_queried_tokens == PROMPT


def test_a_resumed_prompt_hits_no_more_than_its_client_sent():
    """Ids describe the answer too, and the other replica has answered the same before: it knows 12 tokens of it."""
    rows = [[1, 2, 3, 4]] * 2
    trace = Trace.build(
        arrival_s=[0.0, 10.0], input_tokens=8, output_tokens=[8, 8], prefixes=rows, prefix_block_tokens=4
    )
    run = live(trace, [seconds(2)], lossy("resume", Outage(17.5, 100.0, zone="west")), policy="round_robin")
    assert run.attempts.tolist() == [1, 2]
    assert run.replicas[0].prefill_tokens == 8 + 15 - 12
    assert run.cached_tokens[1] == 8
    assert sum(t.prefix_hit_tokens for t in run.replicas) <= sum(t.prefix_queried_tokens for t in run.replicas)


def test_a_prompt_grown_by_what_had_come_must_fit_like_any_other():
    """Resumed with 252 + 3 tokens in a context of 256, it may still say one word; the engine clips answers anyway."""
    trace = requests([0.0], 6, input_tokens=252)
    run = live(trace, [seconds(2, max_num_batched_tokens=256)], lossy("resume", EAST))
    assert statuses(run) == [Status.COMPLETED]
    assert run.finish_s[0] == 4.5
    assert run.generated_tokens.tolist() == [4]


def test_an_endpoint_of_others_takes_over_what_ours_lost():
    """Four tokens in all; two had come by 2.5 s: two more take 1 s and 0.5 s there."""
    options = lossy("resume", Outage(2.5, 100.0))
    run = live(requests([0.0], 4), [seconds(), endpoint()], options)
    assert (run.first_token_s[0], run.finish_s[0], run.replica[0]) == (1.0, 4.0, 1)
    assert run.replicas[1].token_usd == pytest.approx((10 * 1.0 + 2 * 2.0) * 1e-6)


def test_a_router_s_death_is_not_a_replica_s():
    """on_loss is about replicas: what the router itself loses has failed for its client, who may ask again."""
    options = FleetOptions(
        failures=Failures(router=[RouterRestart(1.5, 1.0)]),
        clients=ClientOptions(retries=Retries(most=1, backoff_s=2.0)),
    )
    run = live(requests([0.0], 4), [seconds()], options)
    assert (run.first_token_s[0], run.finish_s[0], run.attempts[0]) == (4.5, 7.5, 2)


def test_a_step_under_way_is_not_waited_for():
    """Steps of ten seconds: lost at 3.5 s, the request is on the other replica at once."""
    pool = seconds(2)
    pool = replace(pool, step_time=LinearStepTime(base_s=10.0))
    run = live(requests([0.0], 1), [pool], lossy("retry", EAST))
    assert run.finish_s[0] == 13.5
    assert [totals.busy_s for totals in run.replicas] == [3.5, 10.0]
