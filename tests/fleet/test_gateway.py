"""The way through the router: its own time, admission, and policies that fail. Steps of a second: an answer of n tokens
takes n seconds."""

from __future__ import annotations

import numpy as np
import pytest
from fleet.living import live
from fleet.seconds import Choose, Refusing, endpoint, reasons, requests, seconds, statuses, under

from simroute.errors import SimulationError
from simroute.fleet.options import FleetOptions, RouterOptions
from simroute.fleet.recorder import MOST_REASONS, NO_REASON, OTHER_REASON
from simroute.policy.admission import make_admission
from simroute.policy.context import NO_REPLICA
from simroute.policy.snapshot import Decision
from simroute.results.run import Status
from simroute.rng import stream


@pytest.fixture(params=[True, False], ids=["exact", "fast"])
def exact(request):
    return request.param


# -- the router's own time ---------------------------------------------------------------------------------------------


def test_the_router_s_latency_comes_on_top(exact):
    run = live(requests([0.0, 10.0], 3), [seconds()], FleetOptions(router=RouterOptions(latency_s=0.5)), exact=exact)
    assert run.first_token_s.tolist() == [1.5, 11.5]
    assert run.finish_s.tolist() == [3.5, 13.5]


def test_requests_queue_in_front_of_a_router_with_a_throughput(exact):
    """Half a second each, then 0.25 s: four of one instant reach the replicas at 0.75, 1.25, 1.75 and 2.25 s."""
    router = RouterOptions(latency_s=0.25, throughput_rps=2.0)
    run = live(requests([0.0] * 4), [seconds(4)], FleetOptions(router=router), exact=exact)
    assert run.first_token_s.tolist() == [1.75, 2.25, 2.75, 3.25]


def test_an_idle_router_owes_nothing():
    """Three a second of service: after a pause, the next request waits for its own service alone."""
    options = FleetOptions(router=RouterOptions(throughput_rps=4.0))
    run = live(requests([0.0, 0.0, 7.0, 7.125]), [seconds(4)], options)
    assert run.first_token_s.tolist() == [1.25, 1.5, 8.25, 8.5]


def waits_before_the_router(gaps_s, throughput_rps):
    """Each request's wait in front of a router that has an endpoint behind it that never makes anybody wait."""
    trace = requests(np.cumsum(gaps_s))
    run = live(trace, [endpoint()], FleetOptions(router=RouterOptions(throughput_rps=throughput_rps)))
    return run.first_token_s - 1.0 - 1 / throughput_rps - trace.arrival_s


def test_an_overloaded_router_is_dd1():
    """One every 0.4 s, served in 0.5 s: each waits 0.1 s longer than the one before."""
    waited = waits_before_the_router(np.full(100, 0.4), 2.0)
    np.testing.assert_allclose(waited, 0.1 * np.arange(100), atol=1e-9)
    assert waits_before_the_router(np.full(100, 0.6), 2.0) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("load", [0.5, 0.7])
def test_poisson_arrivals_before_the_router_are_md1(load):
    """Pollaczek-Khinchine with constant service S: W = load S / (2 (1 - load)); see test_queueing for the tolerance."""
    service_s, requests_, batches = 0.1, 20_000, 40
    gaps_s = stream(3, "arrivals").exponential(service_s / load, requests_)
    waited = waits_before_the_router(gaps_s, 1 / service_s)[requests_ // 10 :].reshape(batches, -1).mean(axis=1)
    error = waited.std(ddof=1) / np.sqrt(batches)
    expected = load * service_s / (2 * (1 - load))
    assert error < 0.06 * expected
    assert waited.mean() == pytest.approx(expected, abs=4 * error)


# -- admission ---------------------------------------------------------------------------------------------------------


def test_rules_are_asked_in_order_and_the_first_refusal_counts(exact):
    """At 0 s two get in and fill both seats, so three are refused by the limit, which costs the bucket nothing.

    At 1.5 s the seats are free again, but the bucket, which refills by 0.5 a second, holds 0.75; at 2.5 s 1.25.
    """
    rules = (
        make_admission("queue_limit", {"total": 2}),
        make_admission("token_bucket", {"rate_per_s": 0.5, "burst": 2}),
    )
    trace = requests([0.0] * 5 + [1.5, 2.5])
    run = live(trace, [seconds(2)], FleetOptions(admission=rules), exact=exact)
    full, rate = "too many requests in the fleet", "over the rate limit"
    assert reasons(run) == ["", "", full, full, full, rate, ""]
    assert statuses(run)[2:6] == [Status.REJECTED] * 4
    assert run.attempts.tolist() == [1, 1, 0, 0, 0, 0, 1]
    assert run.left_s[2:6].tolist() == [0.0, 0.0, 0.0, 1.5]
    assert run.replica.tolist() == [0, 1, -1, -1, -1, -1, 0]


def test_admission_stands_behind_the_router_s_own_time():
    """It is asked when the request has been handled and says no then."""
    rule = Refusing()
    run = live(
        requests([0.0, 0.0]),
        [seconds()],
        FleetOptions(router=RouterOptions(latency_s=0.25, throughput_rps=2.0), admission=(rule,)),
    )
    assert rule.asked == [(0.75, 0), (1.25, 1)]
    assert run.left_s.tolist() == [0.75, 1.25]


def test_rules_see_the_load_of_the_fleet(exact):
    """Two replicas of two seats. By 2.5 s one has two requests and the other one, which ended at 2 s."""
    rule = Refusing(admits=lambda request: request.index < 3)
    run = live(
        requests([0.0, 0.0, 0.0, 2.5], [4, 2, 4, 1]),
        [seconds(2, seats=2)],
        FleetOptions(admission=(rule,)),
        exact=exact,
    )
    assert run.replica.tolist() == [0, 1, 0, -1]
    assert [load.in_flight for load in rule.shown] == [0, 1, 2, 2]
    assert [load.waiting for load in rule.shown] == [0, 1, 2, 0]  # those of one instant are waiting until it is over
    assert {(load.ready_replicas, load.seats, load.held) for load in rule.shown} == {(2, 4, 0)}
    rates = [load.completions_per_s for load in rule.shown]
    # One answer 0.5 s ago, forgotten exponentially over 10 s.
    assert rates == [0.0, 0.0, 0.0, pytest.approx(0.1 * np.exp(-0.05))]


def test_the_rate_of_answers_is_right_in_the_long_run():
    """Two a second end, for a minute: the average over 10 s has seen e^-6 too little of it."""
    rule = Refusing(admits=lambda request: True)
    live(requests(np.arange(120) / 2), [seconds(2)], FleetOptions(admission=(rule,)))
    assert rule.shown[-1].completions_per_s == pytest.approx(2.0, rel=0.06)


def test_waiting_is_what_engines_report():
    """Three at 0 s on one seat: at 0.5 s one runs and two wait in vLLM's queue."""
    rule = Refusing(admits=lambda request: request.index < 3)
    live(requests([0.0, 0.0, 0.0, 0.5]), [seconds()], FleetOptions(admission=(rule,)))
    assert [(load.in_flight, load.waiting) for load in rule.shown] == [(0, 0), (1, 1), (2, 2), (3, 2)]


# -- policies that fail ------------------------------------------------------------------------------------------------

plain_and_living = pytest.mark.parametrize(
    "options", [None, FleetOptions(router=RouterOptions(latency_s=0.25))], ids=["plain", "living"]
)


def fault(choose, options=None, pools=None):
    """The one line said when three requests, a second apart, are routed by `choose`."""
    with pytest.raises(SimulationError) as caught:
        under(requests([0.0, 1.0, 2.0]), pools or [seconds(2)], Choose(choose), options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@plain_and_living
def test_a_policy_that_raises_is_named_with_the_request(options):
    def choose(request, snapshots):
        return Decision(0) if request.index < 2 else snapshots["no such replica"]

    at_s = 2.25 if options else 2
    said = f"policy own: choose of request 2 (class default, {at_s} s) raised TypeError: tuple indices must be"
    assert fault(choose, options).startswith(said)


@plain_and_living
def test_a_policy_cannot_change_what_it_is_shown(options):
    said = fault(lambda request, snapshots: snapshots.clear(), options)
    assert "choose of request 0 (class default, 0" in said
    assert "AttributeError: 'tuple' object has no attribute 'clear'" in said


@plain_and_living
def test_a_refusal_without_a_reason_is_counted_all_the_same(options):
    run = under(requests([0.0, 1.0]), [seconds()], Choose(lambda request, snapshots: Decision(-1)), options)
    assert reasons(run) == [NO_REASON, NO_REASON]


@plain_and_living
def test_a_reason_is_text(options):
    said = fault(lambda request, snapshots: (-1, None), options)
    assert said.endswith("returned (-1, None), whose reason must be text, as in Decision(-1, 'too long')")


@plain_and_living
def test_reasons_with_a_number_in_each_are_not_told_apart_for_ever(options):
    numbered = Choose(lambda request, snapshots: Decision(-1, f"no room for request {request.index}"))
    run = under(requests([0.0] * 300), [seconds()], numbered, options)
    assert reasons(run)[:2] == ["no room for request 0", "no room for request 1"]
    assert reasons(run)[MOST_REASONS - 1 :] == ["no room for request 99", *200 * [OTHER_REASON]]


@plain_and_living
@pytest.mark.parametrize("answer", [None, 3, "pool"], ids=str)
def test_a_policy_that_answers_nonsense_is_told_so(options, answer):
    said = fault(lambda request, snapshots: answer, options)
    assert said.endswith(f"returned {answer!r}, which is no Decision(replica, reason)")


@plain_and_living
@pytest.mark.parametrize("number", [2, "pool", 0.5], ids=str)
def test_a_replica_that_does_not_exist_cannot_be_chosen(options, number):
    said = fault(lambda request, snapshots: Decision(number), options)
    assert said.endswith(f"returned replica {number!r}, which takes no requests now; ready are replicas 0-1")


def test_a_replica_that_is_not_up_cannot_be_chosen():
    said = fault(lambda request, snapshots: Decision(2), pools=[seconds(2, places=3)])
    assert said.endswith("returned replica 2, which takes no requests now; ready are replicas 0-1")
    assert fault(lambda request, snapshots: Decision(0), pools=[seconds(0, places=1)]).endswith("replicas none")


def test_a_reviewer_that_fails_is_named_too():
    policy = Choose(lambda request, snapshots: Decision(0))
    policy.review = lambda request, replica, snapshots: Decision(7)
    with pytest.raises(SimulationError, match=r"^policy own: review of request 0 .* returned replica 7"):
        under(requests([0.0]), [seconds()], policy)


@plain_and_living
def test_an_error_in_the_policy_s_own_words_goes_through_as_it_is(options):
    def choose(request, snapshots):
        raise SimulationError("my own words")

    assert fault(choose, options) == "my own words"


def test_without_a_queue_a_fleet_that_is_down_rejects(exact):
    run = live(requests([0.0, 5.0]), [seconds(0, places=2)], FleetOptions(), exact=exact)
    assert reasons(run) == [NO_REPLICA] * 2
    assert run.end_s == 5.0
