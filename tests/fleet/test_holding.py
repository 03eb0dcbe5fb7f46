"""The gateway's queue in front of a fleet: order, limits, fairness, and requests that wait for a replica to come up.

Steps take a second, so an answer of n tokens takes n seconds on its seat; places start in 11 s.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fleet.living import live
from fleet.seconds import Choose, Refusing, endpoint, reasons, requests, seconds, statuses, under
from fleet.test_lifecycle import Planned

from simroute.fleet.failures import OUTAGE
from simroute.fleet.options import ClientOptions, Failures, FleetOptions, Outage, Retries, RouterOptions, Scaling
from simroute.fleet.pool import Startup
from simroute.fleet.standstill import PATIENCE_S
from simroute.hardware.calibration import RequestTerms
from simroute.policy.admission import make_admission
from simroute.policy.autoscaling import make_autoscaler
from simroute.policy.context import NO_REPLICA
from simroute.policy.gateway_queue import GATEWAY_FULL, TENANT_FULL, WAITED_TOO_LONG, GatewayQueue, GatewayQueueOptions
from simroute.policy.snapshot import Decision
from simroute.results.metrics import summarise
from simroute.results.run import FleetRun, Status


@pytest.fixture(params=[True, False], ids=["exact", "fast"])
def exact(request):
    return request.param


def holding(queue: dict[str, Any] | None = None, **options: Any) -> FleetOptions:
    return FleetOptions(queue=GatewayQueue(GatewayQueueOptions(**(queue or {}))), **options)


def order_of(run: FleetRun) -> list[int]:
    """The requests in the order in which they were answered."""
    answered = np.flatnonzero(run.status == Status.COMPLETED)
    return answered[np.argsort(run.finish_s[answered], kind="stable")].tolist()


def held_at(run: FleetRun, at_s: float) -> int:
    """Requests held at the last sample before `at_s`."""
    assert run.timeline.held is not None
    return int(run.timeline.held[np.searchsorted(run.timeline.t_s, at_s) - 1])


# -- order -------------------------------------------------------------------------------------------------------------


def test_what_finds_no_seat_is_held_and_sent_when_one_is_free(exact):
    """One seat: each of three takes two seconds. vLLM's own queue stays empty."""
    run = live(requests([0.0, 0.5, 1.0, 10.0], 2), [seconds()], holding(), exact=exact)
    assert run.finish_s.tolist() == [2.0, 4.0, 6.0, 12.0]
    assert [held_at(run, at_s) for at_s in (0.4, 0.9, 1.9, 3.9, 5.9)] == [0, 1, 2, 1, 0]
    assert run.timeline.waiting[run.timeline.t_s > 0].max() == 0


def test_a_queue_in_front_of_idle_replicas_holds_nobody():
    run = live(requests([0.0] * 3 + [5.0]), [seconds(3)], holding())
    assert run.finish_s[:3].tolist() == [1.0] * 3
    assert run.timeline.held.max() == 0


def test_more_than_one_in_flight_a_seat_waits_in_vllm(exact):
    """Two a seat: the second waits in the engine, the third in the gateway."""
    run = live(requests([0.0, 0.0, 0.0, 9.0], 2), [seconds()], holding({"in_flight_per_seat": 2.0}), exact=exact)
    assert run.finish_s[:3].tolist() == [2.0, 4.0, 6.0]
    assert held_at(run, 1.9) == 1
    assert run.timeline.waiting[run.timeline.t_s > 0].max() == 1


def test_the_lowest_priority_leaves_first(exact):
    trace = requests([0.0, 0.1, 0.2, 0.3, 0.4], 2, priority=[0, 5, 1, 5, 0])
    run = live(trace, [seconds()], holding({"order": "priority"}), exact=exact)
    assert order_of(run) == [0, 4, 2, 1, 3]


def test_tenants_take_turns_end_to_end(exact):
    """acme floods with six, globex comes last with two. The first finds room and leaves an empty queue, which begins
    anew with the second; from there on they alternate.
    """
    trace = requests([0.0] * 6 + [0.5] * 2, tenant=["acme"] * 6 + ["globex"] * 2)
    fair = live(trace, [seconds()], holding({"order": "fair"}), exact=exact)
    assert order_of(fair) == [0, 1, 6, 2, 7, 3, 4, 5]
    assert order_of(live(trace, [seconds()], holding(), exact=exact)) == list(range(8))


def test_a_tenant_of_twice_the_weight_gets_twice_the_seats():
    """Both flood from the start; of the first twelve served after that, eight are of the heavy one."""
    tenants = np.array(["acme", "globex"] * 20)
    run = live(
        requests([0.0] * 40, tenant=tenants.tolist()), [seconds()], holding({"order": "fair", "weights": {"acme": 2.0}})
    )
    first = tenants[order_of(run)[1:13]]
    assert (first == "acme").sum() == 8


def test_fairness_counts_prompt_tokens_not_requests():
    """Prompts of acme are three times as long, so that it gets one turn in four."""
    trace = requests([0.0] * 40, tenant=["acme", "globex"] * 20, input_tokens=[24, 8] * 20)
    run = live(trace, [seconds()], holding({"order": "fair"}))
    served = [index % 2 for index in order_of(run)[1:13]]
    assert served.count(0) == 3


# -- limits ------------------------------------------------------------------------------------------------------------


def test_who_waits_too_long_is_rejected_to_the_second(exact):
    """One seat, two seconds each, 2.5 s at most in the queue: the third would begin at 4 s and gives up at 2.75 s."""
    run = live(requests([0.0, 0.0, 0.25, 4.5], 2), [seconds()], holding({"max_wait_s": 2.5}), exact=exact)
    assert reasons(run) == ["", "", WAITED_TOO_LONG, ""]
    assert statuses(run)[2] is Status.REJECTED
    assert run.left_s[2] == 2.75
    assert run.attempts.tolist() == [1, 1, 0, 1]


def test_a_full_queue_refuses(exact):
    run = live(requests([0.0] * 4, 2), [seconds()], holding({"max_held": 2}), exact=exact)
    assert reasons(run) == ["", "", "", GATEWAY_FULL]


def test_a_seat_is_free_while_its_client_is_away(exact):
    """The first times out at 5 s and asks again at 25 s: the second has its seat meanwhile."""
    clients = ClientOptions(timeout_s={"chat": 5.0}, retries=Retries(most=1, backoff_s=20.0))
    trace = requests([0.0, 0.5], [100, 2], request_class=["chat", "batch"])
    run = live(trace, [seconds()], holding(clients=clients), exact=exact)
    assert statuses(run) == [Status.CANCELLED, Status.COMPLETED]
    assert run.finish_s[1] == 7.0


def test_a_seat_is_free_when_the_answer_has_left_it(exact):
    """The first answer is there at 2 s, and a minute later at its client, who hangs up at 30 s and asks no more."""
    pool = replace(seconds(), request=RequestTerms(overhead_ms=60_000.0))
    options = holding(clients=ClientOptions(timeout_s={"chat": 30.0}))
    run = live(requests([0.0, 0.5], 2, request_class=["chat", "batch"]), [pool], options, exact=exact)
    assert statuses(run) == [Status.CANCELLED, Status.COMPLETED]
    assert (run.left_s[0], run.finish_s[1]) == (30.0, 64.0)


def test_a_tenant_s_limit_is_its_own():
    trace = requests([0.0] * 5, 2, tenant=["a", "a", "a", "b", "b"])
    run = live(trace, [seconds()], holding({"max_held_per_tenant": 1}))
    assert reasons(run) == ["", "", TENANT_FULL, "", TENANT_FULL]


def test_admission_comes_before_the_queue_and_sees_it():
    rule = Refusing(admits=lambda request: True)
    live(requests([0.0] * 4, 2), [seconds()], holding(admission=(rule,)))
    assert [(load.in_flight, load.held) for load in rule.shown] == [(0, 0), (1, 0), (1, 1), (1, 2)]


# -- nobody is up ------------------------------------------------------------------------------------------------------


def test_a_fleet_at_zero_holds_until_a_replica_has_come_up(exact):
    """Looked at every five seconds: ordered at 5 s, up at 16 s."""
    scaler = make_autoscaler("hpa", {"min_replicas": 0, "max_replicas": 1, "targets": {"concurrency": 4}})
    run = live(
        requests([1.0, 2.0], 2), [seconds(0, places=1)], holding(scaling={"pool": Scaling(scaler, 5.0)}), exact=exact
    )
    assert run.first_token_s.tolist() == [17.0, 19.0]
    assert run.finish_s.tolist() == [18.0, 20.0]
    assert [tuple(event)[0::2] for event in run.events] == [(5.0, "order"), (16.0, "ready")]
    assert run.replicas[0].billed_s == 15.0


def test_a_request_whose_client_leaves_while_nobody_is_up_is_taken_out():
    options = holding({"max_wait_s": 3.0}, failures=Failures(outages=[Outage(0.5, 1.0)]))
    run = live(requests([1.0, 20.0]), [seconds()], options)
    assert reasons(run) == [WAITED_TOO_LONG, ""]
    assert run.left_s[0] == 4.0


def by_tier(**options: Any) -> dict[str, Any]:
    """Gold goes to pool a, which is up; free to pool b, which an autoscaler starts at 10 s: it is up at 21 s."""
    scaling = {"b": Scaling(Planned((0, 0), (10, 1)), 1.0)}
    return {
        "pools": [seconds(name="a"), seconds(0, places=1, name="b")],
        "options": holding(options, scaling=scaling),
        "policy": "static_tier",
        "policy_options": {"tiers": {"gold": "a", "free": "b"}},
    }


def test_who_waits_for_a_pool_that_is_down_does_not_keep_others_waiting(exact):
    """Five of free are first in the queue, and none of them can go; gold is served as if they were not there."""
    trace = requests([0.0] * 5 + [1.0] * 3, 2, tier=["free"] * 5 + ["gold"] * 3)
    run = live(trace, **by_tier(), exact=exact)
    assert run.finish_s[5:].tolist() == [3.0, 5.0, 7.0]
    assert run.finish_s[:5].tolist() == [23.0, 25.0, 27.0, 29.0, 31.0], "and they keep their order"
    assert held_at(run, 0.9) == 5


def test_a_pool_that_is_down_stops_no_clock(exact):
    """What waits for it waits no longer than it may, however often the others' answers have the queue looked at."""
    trace = requests([0.0, 0.5, *np.arange(1.0, 12.0)], tier=["free"] * 2 + ["gold"] * 11)
    run = live(trace, **by_tier(max_wait_s=6.0), exact=exact)
    assert reasons(run)[:2] == [WAITED_TOO_LONG] * 2
    assert run.left_s[:2].tolist() == [6.0, 6.5]


def test_a_pool_that_is_down_fills_the_queue():
    trace = requests([0.0] * 3 + [1.0], tier=["free"] * 3 + ["gold"])
    run = live(trace, **by_tier(max_held=2))
    assert reasons(run) == ["", "", GATEWAY_FULL, GATEWAY_FULL]


def test_clients_of_a_pool_that_is_down_may_leave():
    settings = by_tier()
    settings["options"] = FleetOptions(
        queue=settings["options"].queue,
        scaling=settings["options"].scaling,
        clients=ClientOptions(timeout_s={"chat": 4.0}),
    )
    trace = requests([0.0] * 2 + [1.0], tier=["free"] * 2 + ["gold"], request_class=["chat", "batch", "batch"])
    run = live(trace, **settings)
    assert reasons(run) == ["its client timed out", "", ""]
    assert run.left_s[0] == 4.0
    assert run.finish_s[1:].tolist() == [22.0, 2.0]


# -- resending, and other people's endpoints ---------------------------------------------------------------------------


def test_what_is_lost_is_held_when_nobody_else_is_up(exact):
    """Lost at 1.5 s, one token having come; a machine is ordered at 2.5 s and is up at 13.5 s."""
    options = holding(router=RouterOptions(on_loss="resume"), failures=Failures(outages=[Outage(1.5, 1.0)]))
    run = live(requests([0.0], 4), [seconds()], options, exact=exact)
    assert (run.first_token_s[0], run.finish_s[0], run.attempts[0]) == (1.0, 16.5, 2)


def test_what_was_lost_has_failed_when_the_queue_has_no_place_for_it(exact):
    """Two seats are lost at 1.5 s with what was in them; one place in the queue, and 30 s until a machine is up."""
    options = holding({"max_held": 1, "max_wait_s": 5.0}, failures=Failures(outages=[Outage(1.5, 30.0)]))
    run = live(requests([0.0, 0.0], 4), [seconds(2)], options, exact=exact)
    assert statuses(run) == [Status.FAILED, Status.FAILED]
    assert reasons(run) == [OUTAGE, OUTAGE]
    assert run.left_s.tolist() == [6.5, 1.5], "the first had a place, and waited too long in it"


def test_who_asks_again_after_a_loss_begins_with_a_clean_slate():
    """It has failed at 3.5 s, for the loss; what it asks anew a second later has only waited too long."""
    options = holding(
        {"max_wait_s": 2.0},
        failures=Failures(outages=[Outage(1.5, 30.0)]),
        clients=ClientOptions(retries=Retries(most=1, backoff_s=1.0)),
    )
    run = live(requests([0.0], 4), [seconds()], options)
    assert (statuses(run), reasons(run), run.left_s[0]) == ([Status.REJECTED], [WAITED_TOO_LONG], 6.5)


# -- waiting in vain ---------------------------------------------------------------------------------------------------


def test_a_run_ends_when_nobody_can_ever_take_what_is_held():
    """The second request may go to place 1 alone, and nobody orders a replica there: it would wait for ever."""
    policy = Choose(lambda request, snapshots: Decision(-1, NO_REPLICA) if request.index else Decision(0))
    run = under(requests([0.0, 1.0], 2), [seconds(1, places=2)], policy, holding())
    assert statuses(run) == [Status.COMPLETED, Status.UNFINISHED]
    assert run.end_s == pytest.approx(2.0, abs=0.1)
    summary = summarise(run, {}, lambda pool, request_class: None)
    assert summary["requests"]["unfinished"] == 1
    assert "1 requests were held to the end: no replica that may serve them would ever have come up" in summary["notes"]


@pytest.mark.parametrize("clients", [ClientOptions(users=1), ClientOptions(wait_in_session=True)])
def test_clients_that_wait_for_what_is_held_send_nothing_more(clients):
    """The second request is held for ever, and the third is not sent before it has ended: nobody arrives then."""
    policy = Choose(lambda request, snapshots: Decision(-1, NO_REPLICA) if request.index else Decision(0))
    trace = requests([0.0, 1.0, 2.0], 2, session=[1, 1, 1])
    run = under(trace, [seconds(1, places=2)], policy, holding(clients=clients))
    assert statuses(run) == [Status.COMPLETED, Status.UNFINISHED, Status.UNFINISHED]
    assert run.sent_s is not None
    assert run.sent_s.tolist() == [0.0, 2.0, np.inf]
    summary = summarise(run, {}, lambda pool, request_class: None)
    assert any(note.startswith("1 requests were held to the end") for note in summary["notes"])


@pytest.mark.parametrize("overhead_ms", [0.0, 300_000.0])
def test_who_thinks_is_waited_for(overhead_ms):
    """One user waits in vain; the other has its answer, or thinks about it, and sends another one."""
    policy = Choose(lambda request, snapshots: Decision(0) if request.index != 1 else Decision(-1, NO_REPLICA))
    pool = replace(seconds(1, places=2), request=RequestTerms(overhead_ms=overhead_ms))
    run = under(requests([0.0] * 4), [pool], policy, holding(clients=ClientOptions(users=2, think_s=100.0)))
    assert statuses(run) == [Status.COMPLETED, Status.UNFINISHED, Status.COMPLETED, Status.COMPLETED]


def test_where_replicas_come_and_go_a_day_is_waited():
    """The autoscaler sees a request held and keeps its replica, of which the policy wants to know nothing."""
    scaler = make_autoscaler("hpa", {"min_replicas": 0, "max_replicas": 1, "targets": {"concurrency": 4}})
    options = holding(scaling={"pool": Scaling(scaler, 60.0)})
    never = Choose(lambda request, snapshots: Decision(-1, NO_REPLICA))
    run = under(requests([0.0]), [seconds(0, places=1)], never, options)
    assert statuses(run) == [Status.UNFINISHED]
    assert PATIENCE_S < run.end_s < 1.2 * PATIENCE_S


def test_a_horizon_is_waited_for():
    run = live(requests([0.0]), [seconds(0, places=1)], holding(), horizon_s=50.0)
    assert (statuses(run), run.end_s) == ([Status.UNFINISHED], 50.0)


@pytest.mark.parametrize("options", [{"clients": ClientOptions(timeout_s={"default": 500.0})}, {"max_wait_s": 500.0}])
def test_who_will_give_up_is_waited_for(options):
    wait = {key: options[key] for key in options.keys() & {"max_wait_s"}}
    run = live(requests([0.0]), [seconds(0, places=1)], holding(wait, **(options if not wait else {})))
    assert run.left_s[0] == 500.0


def test_a_slow_start_and_a_long_outage_are_waited_for():
    """Ten days until machines are to be had again, and as long again until one is up."""
    long_s = 10 * PATIENCE_S
    pool = replace(seconds(), startup=Startup(node_s=long_s))
    run = live(requests([1.0]), [pool], holding(failures=Failures(outages=[Outage(0.5, long_s)])))
    assert run.finish_s[0] == 0.5 + 2 * long_s + 1.0


# -- resending, and other people's endpoints: seats --------------------------------------------------------------------


def test_an_endpoint_of_others_takes_no_seat_and_has_always_room():
    """It is up when no replica of ours is, and the policy may send there what it wants: nothing is held."""
    run = live(requests([0.0] * 3), [seconds(0, places=1), endpoint()], holding())
    assert run.first_token_s.tolist() == [1.0] * 3
    assert run.timeline.held.max() == 0


def test_admission_counts_our_own_replicas_alone():
    """Half of five requests are at an endpoint of others: the two seats are what the fleet has, and two are taken."""
    rule = Refusing(admits=lambda request: True)
    options = FleetOptions(admission=(rule,))
    live(requests([0.0] * 4 + [1.5], 4), [seconds(2), endpoint()], options, policy="round_robin")
    assert [(load.ready_replicas, load.seats) for load in rule.shown] == [(2, 2)] * 5
    assert [load.in_flight for load in rule.shown] == [0, 1, 2, 2, 3]


def test_tiers_are_shed_by_the_load_of_our_own_replicas():
    shed = make_admission("tier_shed", {"tiers": {"free": {"enter": 1.0, "leave": 0.5}}})
    trace = requests([0.0, 0.0, 1.0], 9, tier=["gold", "gold", "free"])
    run = live(trace, [seconds(), endpoint()], FleetOptions(admission=(shed,)), policy="round_robin")
    assert reasons(run) == ["", "", "the tier is shed at this load"]
