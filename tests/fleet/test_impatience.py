"""Clients that hang up, lose interest and ask again: when, and what becomes of their seats and blocks.

Steps take a second: an answer of n tokens takes n seconds on its seat.
"""

from __future__ import annotations

import numpy as np
import pytest
from fleet.living import live
from fleet.seconds import Refusing, reasons, requests, seconds, statuses

from simroute.fleet.options import ClientOptions, FleetOptions, Retries, RouterOptions
from simroute.fleet.patience import LOST_INTEREST, TIMED_OUT
from simroute.policy.gateway_queue import GatewayQueue, GatewayQueueOptions
from simroute.results.metrics import summarise
from simroute.results.run import Status
from simroute.results.store import request_table
from simroute.rng import stream


@pytest.fixture(params=[True, False], ids=["exact", "fast"])
def exact(request):
    return request.param


def clients(**options) -> FleetOptions:
    return FleetOptions(clients=ClientOptions(**options))


def trying(most: int, *, timeout_s: float | None = None, admission=(), **retries) -> FleetOptions:
    timeouts = {} if timeout_s is None else {"default": timeout_s}
    return FleetOptions(
        admission=admission, clients=ClientOptions(timeout_s=timeouts, retries=Retries(most=most, **retries))
    )


# -- hanging up --------------------------------------------------------------------------------------------------------


def test_a_client_that_waits_too_long_hangs_up_and_its_seat_is_free_at_the_next_step(exact):
    """chat waits 2.5 s: the answer of four would take four. Who waits behind it begins at 3 s, not at 4 s."""
    trace = requests([0.0, 1.0], [4, 2], request_class=["chat", "batch"])
    run = live(trace, [seconds()], clients(timeout_s={"chat": 2.5}), exact=exact)
    assert statuses(run) == [Status.CANCELLED, Status.COMPLETED]
    assert reasons(run) == [TIMED_OUT, ""]
    assert run.left_s[0] == 2.5
    assert np.isnan(run.first_token_s[0]), "it got no whole answer"
    assert (run.first_token_s[1], run.finish_s[1]) == (4.0, 5.0)
    assert run.replicas[0].output_tokens == 3 + 2


def test_an_answer_within_the_time_is_none_too_late(exact):
    run = live(requests([0.0, 10.0], [2, 3]), [seconds()], clients(timeout_s={"default": 2.5}), exact=exact)
    assert statuses(run) == [Status.COMPLETED, Status.CANCELLED]
    assert run.left_s[1] == 12.5


def test_a_class_s_own_timeout_comes_before_the_default():
    trace = requests([0.0, 0.0], 9, request_class=["chat", "batch"])
    run = live(trace, [seconds(2)], clients(timeout_s={"default": 3.5, "chat": 5.5}))
    assert run.left_s.tolist() == [5.5, 3.5]


def test_the_clock_runs_in_the_router_and_in_its_queue(exact):
    """A second each in the router: at 2.5 s one is being answered, one is held, and the router is at the third."""
    options = FleetOptions(
        router=RouterOptions(throughput_rps=1.0),
        queue=GatewayQueue(GatewayQueueOptions()),
        clients=ClientOptions(timeout_s={"chat": 2.5}),
    )
    trace = requests([0.0, 0.0, 0.0], 9, request_class=["batch", "chat", "chat"])
    run = live(trace, [seconds()], options, exact=exact)
    assert run.attempts.tolist() == [1, 0, 0]
    assert run.left_s[1:].tolist() == [2.5] * 2
    assert reasons(run) == ["", TIMED_OUT, TIMED_OUT]


def test_a_client_that_leaves_gives_its_blocks_back(exact):
    """Blocks of 4, 20 of them. The first holds 15 for its prompt, so the second, which needs 10, waits: for its seat
    it has, but no room. At 2.5 s the first leaves, and at 3 s the second begins.
    """
    pool = seconds(seats=8, num_gpu_blocks=21, max_model_len=80, enable_prefix_caching=False)
    trace = requests([0.0, 1.0], [9, 2], input_tokens=[60, 40], request_class=["chat", "batch"])
    run = live(trace, [pool], clients(timeout_s={"chat": 2.5}), exact=exact)
    assert run.first_token_s[1] == 4.0
    patient = live(trace, [pool], FleetOptions(), exact=exact)
    assert patient.first_token_s[1] == 10.0


# -- losing interest ---------------------------------------------------------------------------------------------------


def test_interest_is_lost_after_times_drawn_for_each_request(exact):
    """Everybody loses it, after 4 s on average; those who had their answer by then keep it."""
    run = live(
        requests(np.arange(50) * 20.0, 5), [seconds()], clients(cancel_share=1.0, cancel_after_s=4.0), exact=exact
    )
    after_s = -4.0 * np.log1p(-stream(0, "interest").random((50, 2))[:, 1])
    gone = after_s < 5.0
    assert 0 < gone.sum() < 50
    assert ((run.status == Status.CANCELLED) == gone).all()
    np.testing.assert_allclose(run.left_s[gone], run.trace.arrival_s[gone] + after_s[gone])
    assert {reason for reason in reasons(run) if reason} == {LOST_INTEREST}


def test_a_share_of_clients_loses_interest():
    run = live(requests(np.arange(400) * 9.0, 8), [seconds()], clients(cancel_share=0.25, cancel_after_s=1e-6))
    chance = stream(0, "interest").random((400, 2))[:, 0]
    assert ((run.status == Status.CANCELLED) == (chance < 0.25)).all()
    assert (run.status == Status.CANCELLED).mean() == pytest.approx(0.25, abs=0.07)


def test_who_lost_interest_does_not_come_back():
    """Not even between two tries: refused at 0 s, it would ask again at 30 s, but has gone by then."""
    rule = Refusing()
    options = FleetOptions(
        admission=(rule,),
        clients=ClientOptions(cancel_share=1.0, cancel_after_s=1.0, retries=Retries(most=3, backoff_s=30.0)),
    )
    run = live(requests([0.0]), [seconds()], options)
    assert (rule.times, reasons(run)) == ([0.0], [LOST_INTEREST])
    assert run.left_s[0] < 30.0


# -- asking again ------------------------------------------------------------------------------------------------------


def test_backoff_grows_by_its_factor_up_to_its_longest():
    """Waits of 1, 2, 4 and then 5 s: asked at 0, 1, 3, 7, 12 and 17 s, and given up at the last refusal."""
    rule = Refusing()
    run = live(requests([0.0]), [seconds()], trying(5, admission=(rule,), factor=2.0, longest_s=5.0))
    assert rule.times == [0.0, 1.0, 3.0, 7.0, 12.0, 17.0]
    assert (run.left_s[0], statuses(run), reasons(run)) == (17.0, [Status.REJECTED], ["refused"])
    assert run.attempts[0] == 0, "it never reached a replica"


def test_jitter_is_drawn_for_each_request_and_try():
    """Each wait is its own factor between 0.5 and 1.5, the same under every policy of one seed."""
    rule = Refusing()
    live(requests([0.0, 100.0]), [seconds()], trying(3, admission=(rule,), backoff_s=4.0, jitter=0.5))
    for index, start_s in enumerate([0.0, 100.0]):
        times = [at_s for at_s, asked in rule.asked if asked == index]
        factors = [1 + 0.5 * stream(0, "backoff", index, k).uniform(-1, 1) for k in range(3)]
        waits = np.array([4.0, 8.0, 16.0]) * factors
        np.testing.assert_allclose(times, start_s + np.cumsum([0.0, *waits]))
    assert len({round(at_s % 100, 6) for at_s, _ in rule.asked}) == 7


@pytest.mark.parametrize(("on", "asked"), [("rejected", 3), ("failed", 1), ("timeout", 1)])
def test_a_client_asks_again_only_after_what_it_does_not_accept(on, asked):
    rule = Refusing()
    live(requests([0.0]), [seconds()], trying(2, admission=(rule,), on=frozenset({on})))
    assert len(rule.asked) == asked


def test_a_timeout_runs_anew_for_each_try(exact):
    """Hung up at 2.75 s, asked again at 3.75 s, begun at 4 s: done at 6 s, before it would hang up again at 6.5 s."""
    trace = requests([0.0, 0.0], [4, 2], request_class=["batch", "chat"])
    options = FleetOptions(clients=ClientOptions(timeout_s={"chat": 2.75}, retries=Retries(most=2, backoff_s=1.0)))
    run = live(trace, [seconds()], options, exact=exact)
    assert run.finish_s.tolist() == [4.0, 6.0]
    assert run.attempts.tolist() == [1, 2]


def test_a_retry_that_is_answered_is_one_completed_request(exact):
    """Refused at 0 and 1 s, let in at 3 s: the time to first token counts from its first arrival."""
    rule = Refusing(admits=lambda request: request.arrival_s > 2.0)
    run = live(requests([0.0]), [seconds()], trying(3, admission=(rule,)), exact=exact)
    assert (rule.times, run.attempts[0]) == ([0.0, 1.0, 3.0], 1)
    assert (run.first_token_s[0], run.finish_s[0]) == (4.0, 4.0)
    summary = summarise(run, {}, lambda pool, request_class: None)
    assert summary["requests"] == {
        "arrived": 1,
        "completed": 1,
        "rejected": 0,
        "failed": 0,
        "cancelled": 0,
        "unfinished": 0,
    }
    assert summary["ttft_s"]["mean"] == 4.0
    assert (summary["tries"], summary["attempts"]) == (3, 1)


def test_a_storm_of_refusals_shows_in_tries_alone(exact):
    """Nothing reaches a replica: five tries of each."""
    options = trying(4, admission=(Refusing(),), backoff_s=1.0, factor=1.0)
    run = live(requests([0.0] * 3), [seconds()], options, exact=exact)
    assert run.tries.tolist() == [5, 5, 5]
    summary = summarise(run, {}, lambda pool, request_class: None)
    assert (summary["tries"], summary["attempts"], summary["requests"]["rejected"]) == (15, 0, 3)
    table = request_table(run)
    assert (table["tries"].to_pylist(), table["attempts"].to_pylist()) == ([5, 5, 5], [0, 0, 0])


def test_who_asks_more_often_than_a_short_number_holds():
    options = trying(40_000, admission=(Refusing(),), backoff_s=1.0, factor=1.0)
    assert live(requests([0.0]), [seconds()], options).tries.tolist() == [40_001]


def test_a_retry_storm_shows_in_attempts_and_costs_goodput():
    """One seat, two seconds an answer, two requests a second for twenty seconds and then rest.

    Clients that hang up after 5 s and ask again at once have most of its work thrown away.
    """
    trace = requests([*np.arange(0.0, 20.0, 0.5), 120.0], 2)
    calm = live(trace, [seconds()], clients(timeout_s={"other": 1.0}))
    storm = live(trace, [seconds()], trying(6, timeout_s=5.0, backoff_s=0.25, factor=1.0))
    gave_up = live(trace, [seconds()], trying(0, timeout_s=5.0))
    assert calm.attempts.sum() == gave_up.attempts.sum() == 41
    assert storm.attempts.sum() > 4 * 41
    assert storm.timeline.attempts is not None
    assert storm.timeline.attempts[-1] == storm.attempts.sum()
    by_20_s = [run.timeline.attempts[np.searchsorted(run.timeline.t_s, 20.0)] for run in (calm, storm)]
    assert by_20_s[0] == 40
    assert by_20_s[1] > 2 * 40, "it has more to do than has come"
    completed = [int((run.status == Status.COMPLETED).sum()) for run in (calm, storm, gave_up)]
    assert completed[0] == 41
    assert completed[1] < 41
    in_time = [int(np.nansum(run.finish_s - run.trace.arrival_s < 5.0)) for run in (calm, storm, gave_up)]
    assert in_time[1] <= in_time[2]
    assert summarise(storm, {}, lambda pool, request_class: None)["attempts"] == storm.attempts.sum()
