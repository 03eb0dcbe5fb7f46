"""Somebody else's endpoint: its latency, its bill and its rate limit; spilling to it, and cascades that end there.

Our own steps take a second. The endpoint takes 1 s to the first token and 0.5 s for each other, at $1 a million prompt
tokens (8 a request) and $2 a million answer tokens, unless a test says otherwise.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fleet.living import live
from fleet.seconds import PROMPT, Refusing, endpoint, reasons, requests, seconds, statuses

from simroute.fleet.failures import OUTAGE
from simroute.fleet.gateway import RATE_LIMITED
from simroute.fleet.options import ClientOptions, Failures, FleetOptions, Outage, Retries, RouterOptions, RouterRestart
from simroute.fleet.patience import TIMED_OUT
from simroute.fleet.pool import Pool
from simroute.policy.routing.draws import RequestDraws
from simroute.results.latency import latencies
from simroute.results.metrics import summarise
from simroute.results.run import FleetRun, Status
from simroute.results.slo import Slo
from simroute.rng import stream

PLAIN = FleetOptions()


@pytest.fixture(params=[True, False], ids=["exact", "fast"])
def exact(request):
    return request.param


def charged(*answers: int) -> float:
    """USD for answers of these lengths to prompts of PROMPT tokens."""
    return sum(PROMPT * 1e-6 + answer * 2e-6 for answer in answers)


def token_usd(run: FleetRun) -> list[float]:
    return [totals.token_usd for totals in run.replicas]


# -- latency and bill --------------------------------------------------------------------------------------------------


def test_everybody_is_answered_alike_however_many_there_are():
    run = live(requests([0.0] * 50 + [7.0], 5), [endpoint()], PLAIN)
    assert (run.first_token_s - run.arrival_s).tolist() == [1.0] * 51
    assert (run.finish_s - run.first_token_s).tolist() == [2.0] * 51
    assert run.itl.count == 51 * 4
    assert run.itl.mean == pytest.approx(0.5)


def test_an_answer_of_one_token_has_no_gaps():
    run = live(requests([0.0]), [endpoint()], PLAIN)
    assert (run.finish_s[0], run.itl.count) == (1.0, 0)


def test_the_bill_adds_up_and_machines_are_not_on_it():
    """Three answers of 2, 3 and 5 tokens; an hour of our own pool costs what it says."""
    own = seconds()
    run = live(requests([0.0, 0.0, 0.0, 3600.0], [2, 3, 5, 1]), [own, endpoint()], PLAIN, policy="round_robin")
    assert run.replica.tolist() == [0, 1, 0, 1]
    assert token_usd(run) == [0.0, pytest.approx(charged(3, 1))]
    assert run.replicas[1].usd == pytest.approx(charged(3, 1))
    assert (run.replicas[1].prefill_tokens, run.replicas[1].output_tokens) == (2 * PROMPT, 4)
    summary = summarise(run, {}, lambda pool, request_class: None)
    assert summary["fleet"]["token_usd"] == pytest.approx(charged(3, 1))
    assert summary["gpus"] == 1
    hours = run.end_s / 3600
    own_usd = own.variant.usd_per_hour * hours
    assert summary["cost_usd_per_month"] == pytest.approx((own_usd + charged(3, 1)) * 730 / hours)
    assert summary["by_pool"]["outside"]["cost_usd_per_month"] == pytest.approx(charged(3, 1) * 730 / hours)


def test_each_request_has_a_factor_of_its_own_on_both_times():
    """Lognormal with a spread of 0.5, the same for a request whatever else is under way, and 1 at the median."""
    trace = requests(np.arange(400) * 0.1, 3)
    run = live(trace, [endpoint(spread=0.5)], PLAIN)
    factor = np.array([np.exp(0.5 * stream(0, "external", i).standard_normal()) for i in range(400)])
    np.testing.assert_allclose(run.first_token_s - run.arrival_s, factor)
    np.testing.assert_allclose(run.finish_s - run.first_token_s, factor)
    assert np.median(factor) == pytest.approx(1.0, rel=0.15)
    two = live(trace, [endpoint(spread=0.5), endpoint("other", spread=0.5)], PLAIN, policy="random")
    np.testing.assert_array_equal(two.finish_s, run.finish_s)


def test_a_client_that_leaves_pays_for_what_had_come():
    """At 2.75 s the first token has come, and those of 1.5, 2 and 2.5 s: four of ten."""
    run = live(requests([0.0], 10), [endpoint()], FleetOptions(clients=ClientOptions(timeout_s={"default": 2.75})))
    assert reasons(run) == [TIMED_OUT]
    assert token_usd(run) == [pytest.approx(charged(4))]
    assert run.itl.count == 3, "it has seen them"
    early = live(requests([0.0], 10), [endpoint()], FleetOptions(clients=ClientOptions(timeout_s={"default": 0.5})))
    assert token_usd(early) == [pytest.approx(charged(0))]
    assert early.itl.count == 0


def test_what_has_come_by_the_horizon_is_paid():
    run = live(requests([0.0, 0.0], [2, 10]), [endpoint()], PLAIN, horizon_s=2.75)
    assert token_usd(run) == [pytest.approx(charged(2, 4))]
    assert run.itl.count == 1 + 3
    assert statuses(run) == [Status.COMPLETED, Status.UNFINISHED]


def test_a_router_that_dies_pays_too():
    options = FleetOptions(failures=Failures(router=[RouterRestart(2.75, 1.0)]))
    run = live(requests([0.0], 10), [endpoint()], options)
    assert statuses(run) == [Status.FAILED]
    assert token_usd(run) == [pytest.approx(charged(4))]


def test_nothing_that_happens_to_our_machines_happens_to_it():
    options = FleetOptions(failures=Failures(outages=[Outage(1.0, 5.0)]))
    run = live(requests([0.0, 2.0], 5), [endpoint()], options)
    assert statuses(run) == [Status.COMPLETED] * 2
    assert [event.what for event in run.events] == ["ready"]


# -- the rate limit ----------------------------------------------------------------------------------------------------


def test_more_than_so_many_in_any_minute_get_a_429():
    """Two a minute: those of 0 and 10 s fill it until 60 s, that of 60 s until 70 s, and so on."""
    arrivals = [0.0, 10.0, 20.0, 59.9, 60.0, 69.0, 70.0]
    run = live(requests(arrivals), [endpoint(requests_per_minute=2)], PLAIN)
    assert reasons(run) == ["", "", RATE_LIMITED, RATE_LIMITED, "", RATE_LIMITED, ""]
    assert token_usd(run) == [pytest.approx(charged(*[1] * 4))], "a refusal costs nothing"
    assert run.attempts.tolist() == [1, 1, 0, 0, 1, 0, 1]


def test_a_client_may_ask_again_after_a_429():
    """Refused at 1 s, and at 31 s; at 91 s there is room."""
    options = FleetOptions(clients=ClientOptions(retries=Retries(most=3, backoff_s=30.0)))
    run = live(requests([0.0, 1.0]), [endpoint(requests_per_minute=1)], options)
    assert statuses(run) == [Status.COMPLETED] * 2
    assert run.first_token_s.tolist() == [1.0, 92.0]


def test_a_429_after_a_loss_is_a_failure_for_the_loss():
    """Our replica dies at 1.5 s, and the endpoint has had its one request of the minute."""
    options = FleetOptions(router=RouterOptions(on_loss="retry"), failures=Failures(outages=[Outage(1.5, 100.0)]))
    run = live(requests([0.0, 0.0], 4), [seconds(), endpoint(requests_per_minute=1)], options, policy="round_robin")
    assert run.replica.tolist() == [1, 1]
    assert (statuses(run)[0], reasons(run)) == (Status.FAILED, [OUTAGE, ""])


# -- spilling ----------------------------------------------------------------------------------------------------------


def spill(trace, pools, options=PLAIN, **policy_options) -> FleetRun:
    """Two seats of ours; from the second on they are full (in flight over seats), until one is free."""
    full = {"occupancy": {"enter": 1.0, "leave": 0.75}}
    return live(trace, pools, options, policy="spillover", policy_options=full | policy_options)


def test_what_finds_our_seats_taken_goes_outside_and_is_paid(exact):
    """Two seats: 0 and 1 stay, 2 and 3 spill; at 5 s the seats are free again."""
    trace = requests([0.0, 0.0, 0.0, 1.0, 5.0], [4, 4, 3, 3, 1])
    run = spill(trace, [seconds(seats=2), endpoint()])
    assert run.replica.tolist() == [0, 0, 1, 1, 0]
    assert run.first_token_s.tolist() == [1.0, 1.0, 1.0, 2.0, 6.0]
    assert token_usd(run)[1] == pytest.approx(charged(3, 3))


def test_the_policy_s_limit_keeps_us_below_the_endpoint_s():
    """One a minute may spill: the others wait for our seat, and nobody is told 429."""
    trace = requests([0.0] * 4, 2)
    run = spill(trace, [seconds(), endpoint(requests_per_minute=1)], requests_per_minute=1)
    assert run.replica.tolist() == [0, 1, 0, 0]
    assert run.finish_s.tolist() == [2.0, 1.5, 4.0, 6.0]
    careless = spill(trace, [seconds(), endpoint(requests_per_minute=1)])
    assert reasons(careless) == ["", "", RATE_LIMITED, RATE_LIMITED]


def test_with_our_fleet_down_everything_spills():
    options = FleetOptions(failures=Failures(outages=[Outage(1.5, 10.0)]))
    run = spill(requests([0.0, 2.0, 30.0], 4), [seconds(), endpoint()], options)
    assert run.replica.tolist() == [1, 1, 0]
    assert run.finish_s.tolist() == [1.5 + 2.5, 4.5, 34.0]


def test_only_who_may_spill_does():
    trace = requests([0.0, 0.0, 0.0], 2, tier=["free", "free", "gold"])
    run = spill(trace, [seconds(), endpoint()], tiers=["gold"])
    assert run.replica.tolist() == [0, 0, 1]


# -- cascades ----------------------------------------------------------------------------------------------------------


def cascade(trace, pools: list[Pool], accept: float, options=PLAIN, *, exact: bool = False) -> FleetRun:
    chain = [pool.name for pool in pools]
    return live(
        trace,
        pools,
        options,
        policy="cascade",
        policy_options={"chain": chain, "accept_rate": {"default": accept}},
        exact=exact,
    )


def small_and_large(**large) -> list[Pool]:
    return [seconds(name="small", seats=8), seconds(name="large", seats=8, **large)]


def test_an_accepted_answer_comes_as_a_whole(exact):
    """Three tokens of a second: the client sees the first when the judge has seen the last."""
    run = cascade(requests([0.0, 10.0], 3), small_and_large(), 1.0, exact=exact)
    assert run.first_token_s.tolist() == run.finish_s.tolist() == [3.0, 13.0]
    assert np.isnan(latencies(run).tpot_s).all(), "it sees no token after another"
    assert run.itl.count == 0
    assert Slo(tpot_s=0.001).met(latencies(run)).all()
    assert not Slo(ttft_s=2.9).met(latencies(run)).any()
    for slo, said in ((Slo(tpot_s=0.001), True), (Slo(ttft_s=9.0), False)):
        notes = summarise(run, {"default": slo}, lambda pool, request_class: None)["notes"]
        assert ("2 answers came in one piece: a target on TPOT asks nothing of them" in notes) is said
    assert run.attempts.tolist() == [1, 1]
    assert run.replica.tolist() == [0, 0]


def test_an_answer_that_is_not_accepted_is_paid_twice_and_waited_for_twice(exact):
    """Three seconds at the small model, three at the large one."""
    run = cascade(requests([0.0, 10.0], 3), small_and_large(), 0.0, exact=exact)
    assert run.first_token_s.tolist() == run.finish_s.tolist() == [6.0, 16.0]
    assert run.attempts.tolist() == [2, 2]
    assert run.replica.tolist() == [1, 1]
    assert [(t.prefill_tokens, t.output_tokens) for t in run.replicas] == [(2 * PROMPT, 6)] * 2


def test_a_share_is_accepted_the_same_for_every_attempt():
    """As drawn for each request: those below 0.6 stay with the small model."""
    trace = requests(np.arange(200) * 10.0, 2)
    run = cascade(trace, small_and_large(), 0.6)
    draws = RequestDraws(np.random.default_rng(0), "cascade")
    accepted = np.array([draws(index, 0) < 0.6 for index in range(200)])
    assert 0.5 < accepted.mean() < 0.7
    np.testing.assert_array_equal(run.replica, np.where(accepted, 0, 1))
    np.testing.assert_allclose(run.finish_s - trace.arrival_s, np.where(accepted, 2.0, 4.0))
    assert run.attempts.sum() == 200 + (~accepted).sum()


def test_a_cascade_that_ends_outside_pays_there_for_what_is_escalated():
    pools = [seconds(name="small", seats=8), endpoint()]
    run = cascade(requests([0.0, 10.0], [3, 5]), pools, 0.0)
    assert token_usd(run) == [0.0, pytest.approx(charged(3, 5))]
    assert run.finish_s.tolist() == [3.0 + 2.0, 10.0 + 5.0 + 3.0]


def test_with_the_large_model_down_the_small_one_s_answer_goes_out():
    options = FleetOptions(failures=Failures(outages=[Outage(1.5, 100.0, pool="large")]))
    run = cascade(requests([0.0], 3), small_and_large(), 0.0, options)
    assert (run.replica[0], run.first_token_s[0]) == (0, 3.0)


def test_a_second_answer_that_is_lost_begins_the_cascade_anew(exact):
    """Escalated at 3 s, lost at 4.5 s with the only replica of the large model: the small one answers again."""
    options = FleetOptions(
        router=RouterOptions(on_loss="retry"), failures=Failures(outages=[Outage(4.5, 100.0, pool="large")])
    )
    run = cascade(requests([0.0], 3), small_and_large(), 0.0, options, exact=exact)
    assert (run.replica[0], run.attempts[0]) == (0, 3)
    assert run.first_token_s[0] == run.finish_s[0] == 7.5


def test_a_client_may_leave_between_two_answers(exact):
    options = FleetOptions(clients=ClientOptions(timeout_s={"default": 4.5}))
    run = cascade(requests([0.0], 3), small_and_large(), 0.0, options, exact=exact)
    assert statuses(run) == [Status.CANCELLED]
    assert run.left_s[0] == 4.5
    assert np.isnan(run.first_token_s[0])


def test_what_is_escalated_is_not_admitted_again():
    """Admission has let the request in once."""
    rule = Refusing(admits=lambda request: True)
    cascade(requests([0.0], 3), small_and_large(), 0.0, replace(PLAIN, admission=(rule,)))
    assert rule.times == [0.0]


def test_a_429_at_the_end_of_a_cascade_rejects():
    """The endpoint takes one a minute: the second answer that is not accepted has nowhere to go."""
    pools = [seconds(name="small", seats=8), endpoint(requests_per_minute=1)]
    run = cascade(requests([0.0, 0.0], 3), pools, 0.0)
    assert statuses(run) == [Status.COMPLETED, Status.REJECTED]
