"""What goes wrong, when and where. Places are in east and west in turn, start in 11 s and restart in 3; steps take a
second."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fleet.living import a_pool, live, some
from fleet.seconds import reasons, requests, seconds, statuses
from fleet.test_lifecycle import crash_times, log, scaled

from simroute.errors import UsageError
from simroute.fleet.cluster import Cluster
from simroute.fleet.options import (
    Crashes,
    Failures,
    FleetOptions,
    Outage,
    RouterOptions,
    RouterRestart,
    Spot,
    Straggler,
)
from simroute.policy.context import Membership, PolicyContext
from simroute.policy.gateway_queue import GatewayQueue, GatewayQueueOptions
from simroute.policy.routing import make_policy
from simroute.policy.snapshot import RoutingPolicy
from simroute.results.run import FleetRun, Status
from simroute.rng import stream


@pytest.fixture(params=[True, False], ids=["exact", "fast"])
def exact(request):
    return request.param


def failing(**kinds) -> FleetOptions:
    return FleetOptions(failures=Failures(**kinds))


def down(run: FleetRun) -> list[tuple[float, int]]:
    """When which places were lost."""
    return [(at_s, number) for at_s, number, what in log(run) if what == "lost"]


# -- outages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outage", "places"),
    [
        (Outage(5.0, 10.0), [0, 1, 2, 3, 4, 5]),
        (Outage(5.0, 10.0, zone="east"), [0, 2, 3, 5]),
        (Outage(5.0, 10.0, zone="west"), [1, 4]),
        (Outage(5.0, 10.0, pool="b"), [3, 4, 5]),
        (Outage(5.0, 10.0, zone="east", pool="b"), [3, 5]),
        (Outage(5.0, 10.0, replicas=2), [0, 1]),
        (Outage(5.0, 10.0, pool="b", replicas=2), [3, 4]),
        (Outage(5.0, 10.0, zone="east", replicas=3), [0, 2, 3]),
    ],
    ids=["all", "east", "west", "b", "east of b", "two", "two of b", "three of east"],
)
def test_an_outage_hits_what_it_names(outage, places):
    """Two pools of three; east has the first and third of each."""
    run = live(requests([0.0, 40.0]), [seconds(3, name="a"), seconds(3, name="b")], failing(outages=[outage]))
    assert down(run) == [(5.0, place) for place in places]
    assert [e for e in log(run) if e[2] != "lost"] == [(15.0, p, "order") for p in places] + [
        (26.0, p, "ready") for p in places
    ]


def test_an_outage_of_a_replica_that_starts_ends_its_start():
    """Lost at 4 s, ordered at 5 s, starting until 16 s; lost again at 10 s, and ordered again at 12 s."""
    run = live(requests([30.0]), [seconds()], failing(outages=[Outage(4.0, 1.0), Outage(10.0, 2.0)]))
    assert log(run) == [
        (4.0, 0, "lost"),
        (5.0, 0, "order"),
        (10.0, 0, "lost"),
        (12.0, 0, "order"),
        (23.0, 0, "ready"),
    ]
    assert run.replicas[0].crashes == 2


@pytest.mark.parametrize("second", [Outage(5.0, 20.0), Outage(5.0, 20.0, zone="east")], ids=["all", "east"])
def test_of_two_outages_at_once_the_last_to_end_counts(second):
    """East is lost from 2 to 8 s and from 5 to 25 s: there is nothing to be had before 25 s."""
    options = failing(outages=[Outage(2.0, 6.0, zone="east"), second])
    run = live(requests([0.0, 50.0]), [seconds()], options)
    assert log(run) == [(2.0, 0, "lost"), (25.0, 0, "order"), (36.0, 0, "ready")]


def test_a_short_outage_inside_a_long_one_changes_nothing():
    options = failing(outages=[Outage(2.0, 30.0), Outage(5.0, 1.0)])
    run = live(requests([0.0, 50.0]), [seconds()], options)
    assert log(run) == [(2.0, 0, "lost"), (32.0, 0, "order"), (43.0, 0, "ready")]


def test_so_many_machines_are_lost_not_empty_places():
    """A pool of two in four places, scaled down to place 1: it is that one which has a machine to lose."""
    options = scaled((0, 2), (2, 1), failures=Failures(outages=[Outage(5.5, 100.0, replicas=1)]))
    run = live(requests([0.0, 1.5, 60.0], [1, 3, 1]), [seconds(2, places=4)], options, policy="round_robin")
    assert log(run)[:4] == [(2.0, 0, "drain"), (2.0, 0, "stop"), (5.5, 1, "lost"), (6.0, 0, "order")]


def test_a_pool_that_is_scaled_orders_elsewhere_during_an_outage_and_not_in_its_zone():
    """West is out from 4.5 to 24.5 s. A fourth place is in the west too, so it has to wait; a fifth is in the east."""
    options = scaled((0, 3), failures=Failures(outages=[Outage(4.5, 20.0, zone="west")]))
    run = live(requests([0.0, 50.0]), [seconds(3, places=4)], options)
    assert log(run) == [(4.5, 1, "lost"), (25.0, 1, "order"), (36.0, 1, "ready")]
    roomy = live(requests([0.0, 50.0]), [seconds(3, places=5)], options)
    assert log(roomy) == [(4.5, 1, "lost"), (5.0, 4, "order"), (16.0, 4, "ready")]


# -- spot machines -----------------------------------------------------------------------------------------------------


def spot_life_s(place: int, mean_s: float) -> float:
    return float(stream(0, "spot", place).exponential(mean_s))


def test_a_spot_machine_drains_at_its_notice_and_is_taken(exact):
    """It has 5 s to drain after the notice, and its owner gives another one 2 s after that."""
    notice_s = spot_life_s(0, 20.0)
    run = live(
        requests([notice_s - 2.5, notice_s + 1.0, notice_s + 20.0], [200, 1, 1]),
        [seconds()],
        failing(spot=[Spot("pool", 20.0, 5.0, 2.0)]),
        exact=exact,
    )
    taken_s = notice_s + 5.0
    assert log(run)[:5] == [
        (pytest.approx(at_s), 0, what)
        for at_s, what in [
            (notice_s, "notice"),
            (notice_s, "drain"),
            (taken_s, "lost"),
            (taken_s + 2.0, "order"),
            (taken_s + 13.0, "ready"),
        ]
    ]
    assert reasons(run) == ["its spot machine was taken back", "no replica is ready", ""]
    assert statuses(run)[:2] == [Status.FAILED, Status.REJECTED]
    assert run.replicas[0].crashes == 1


def test_a_spot_machine_that_has_drained_goes_back_before_it_is_taken():
    """Idle at its notice, it stops at once; the next one comes when the notice has run out, and the gap."""
    notice_s = spot_life_s(0, 20.0)
    run = live(requests([0.0, notice_s + 30.0]), [seconds()], failing(spot=[Spot("pool", 20.0, 5.0, 2.0)]))
    assert [(what, pytest.approx(at_s)) for at_s, _, what in log(run)[:5]] == [
        ("notice", notice_s),
        ("drain", notice_s),
        ("stop", notice_s),
        ("order", notice_s + 7.0),
        ("ready", notice_s + 18.0),
    ]
    assert run.replicas[0].crashes == 0


def test_only_the_spot_pool_is_taken():
    run = live(
        requests([0.0, 200.0]), [seconds(2, name="own"), seconds(2, name="spot")], failing(spot=[Spot("spot", 20.0)])
    )
    assert {number for _, number, what in log(run) if what == "notice"} == {2, 3}


def test_a_spot_machine_whose_owner_is_out_comes_back_when_the_outage_is_over():
    """Taken before the outage, its successor is due in the midst of it: it is ordered at its end."""
    notice_s = spot_life_s(0, 20.0)
    due_s = notice_s + 7.0
    options = failing(spot=[Spot("pool", 20.0, 5.0, 2.0)], outages=[Outage(due_s - 1.0, 10.0)])
    run = live(requests([0.0, due_s + 40.0]), [seconds()], options)
    orders = [at_s for at_s, _, what in log(run) if what == "order"]
    assert orders[0] == pytest.approx(due_s + 9.0)


# -- stragglers --------------------------------------------------------------------------------------------------------


def test_a_straggler_takes_factor_times_as_long(exact):
    """Ten answers of 2 s, one after another, on each of two replicas; from 4 to 10 s one is three times as slow.

    Its requests take 2 s until 4 s, then 6 s: that of 4 s ends at 10 s, and the next takes 2 s again.
    """
    trace = requests([0.0] * 12, 2)
    run = live(
        trace,
        [seconds(2)],
        failing(stragglers=[Straggler(4.0, 6.0, "pool", 1, 3.0)]),
        policy="round_robin",
        exact=exact,
    )
    assert run.finish_s[0::2].tolist() == [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]
    assert run.finish_s[1::2].tolist() == [2.0, 4.0, 10.0, 12.0, 14.0, 16.0]
    assert log(run) == [(4.0, 1, "slow"), (10.0, 1, "normal")]


def test_a_replica_that_takes_a_straggler_s_place_is_not_slow():
    """Slow from 0 s on; its machine is lost at 3 s, and the one that is ready at 15 s is as fast as any."""
    options = failing(stragglers=[Straggler(0.0, 1000.0, "pool", 0, 10.0)], outages=[Outage(3.0, 1.0)])
    run = live(requests([20.0], 4), [seconds()], options)
    assert run.finish_s.tolist() == [24.0]


def test_a_straggler_that_is_down_is_none():
    options = failing(stragglers=[Straggler(5.0, 1000.0, "pool", 0, 10.0)], outages=[Outage(3.0, 1.0)])
    run = live(requests([20.0], 4), [seconds()], options)
    assert (run.finish_s.tolist(), [what for _, _, what in log(run)]) == ([24.0], ["lost", "order", "ready"])


@pytest.mark.parametrize(("pool", "ordinal"), [("pool", 2), ("pool", -1), ("other", 0)])
def test_a_straggler_that_does_not_exist_is_an_error(pool, ordinal):
    with pytest.raises(UsageError, match=f"straggler: pool {pool} has . places, numbered from 0; got {ordinal}"):
        live(requests([0.0]), [seconds(2)], failing(stragglers=[Straggler(0.0, 1.0, pool, ordinal, 2.0)]))


# -- the router --------------------------------------------------------------------------------------------------------


def queue(**options) -> GatewayQueue:
    return GatewayQueue(GatewayQueueOptions(**options))


def test_a_router_that_restarts_loses_what_it_has_in_hand(exact):
    """One seat: at 2.5 s one request is being answered and one held. At 3 s nobody is there, at 5 s somebody is again.

    The engine hears that its client has gone, and is free for the request of 5 s.
    """
    trace = requests([0.0, 1.0, 3.0, 5.0], [4, 1, 1, 1])
    options = replace(failing(router=[RouterRestart(2.5, 2.0)]), queue=queue())
    run = live(trace, [seconds()], options, exact=exact)
    assert reasons(run) == ["the router died", "the router died", "the router is down", ""]
    assert statuses(run)[:3] == [Status.FAILED] * 3
    assert run.left_s[:3].tolist() == [2.5, 2.5, 3.0]
    assert run.attempts.tolist() == [1, 0, 0, 1]
    assert run.finish_s[3] == 6.0
    assert log(run) == [(2.5, -1, "router")]


def test_what_the_router_is_handling_is_lost_with_it_and_its_backlog_too():
    """A second each: at 2.5 s the third is being handled and the fourth waits. Back at 3.5 s, there is no backlog."""
    options = replace(failing(router=[RouterRestart(2.5, 1.0)]), router=RouterOptions(throughput_rps=1.0))
    run = live(requests([0.0, 0.0, 0.0, 0.0, 4.0]), [seconds(2)], options)
    assert reasons(run) == [""] + ["the router died"] * 3 + [""]
    assert run.left_s[1:4].tolist() == [2.5, 2.5, 2.5]
    assert run.finish_s[4] == 6.0


def test_a_router_that_restarts_has_forgotten_its_policy_s_state():
    """Round robin begins again with the first replica."""
    options = failing(router=[RouterRestart(2.5, 0.0)])
    run = live(requests([0.0, 1.0, 3.0, 4.0]), [seconds(3)], options, policy="round_robin")
    assert run.replica.tolist() == [0, 1, 0, 1]


def test_nobody_listens_for_a_policy_that_is_gone():
    """However often the router restarts, one policy and the router itself are told of replicas that come and go."""
    pool = a_pool(2)
    members = Membership([True, True])
    context = PolicyContext([pool.variant], [0, 0], stream(0, "policy"), members=members)

    def make() -> RoutingPolicy:
        return make_policy("two_level", {"variant": {"name": "cascade"}}, context)

    alone = Membership([True, True])
    make_policy("two_level", {"variant": {"name": "cascade"}}, replace(context, members=alone))
    restarts = failing(router=[RouterRestart(float(at_s), 0.0) for at_s in range(1, 20)])
    cluster = Cluster(some(5, 0.1), [pool], make(), "own", 0, members, replace(restarts, remake=make), False, 10)
    cluster.run(None)
    assert len(members._listeners) == len(alone._listeners) + 1


# -- common random numbers ---------------------------------------------------------------------------------------------


def times_of(run: FleetRun, what: str) -> dict[int, list[float]]:
    times: dict[int, list[float]] = {}
    for event in run.events:
        if event.what == what:
            times.setdefault(event.replica, []).append(event.at_s)
    return times


@pytest.mark.parametrize(
    ("kind", "what"),
    [({"crashes": [Crashes(10.0)]}, "crash"), ({"spot": [Spot("pool", 10.0, 1.0, 1.0)]}, "notice")],
    ids=["crashes", "spot"],
)
def test_every_policy_meets_the_same_luck(kind, what):
    """Crashes and notices of each place come at the same times, whatever the router does."""
    trace = some(200, 10.0)
    runs = [
        live(trace, [a_pool(4)], failing(**kind), policy=policy, horizon_s=20.0)
        for policy in ("round_robin", "least_requests", "power_of_two")
    ]
    first, *others = (times_of(run, what) for run in runs)
    assert sum(map(len, first.values())) > 2
    assert len({tuple(run.replica) for run in runs}) == 3
    assert all(other == first for other in others)
    another = live(trace, [a_pool(4)], failing(**kind), seed=1, horizon_s=20.0)
    assert times_of(another, what) != first


def test_a_place_that_is_added_changes_no_other_s_luck():
    crashes = [
        times_of(live(requests([0.0, 60.0]), [seconds(n)], failing(crashes=[Crashes(10.0)])), "crash") for n in (2, 4)
    ]
    assert crashes[0] == {place: crashes[1][place] for place in (0, 1)}
    assert crashes[0][0][0] == next(crash_times(10.0, 0))


def test_crashes_of_one_pool_alone():
    pools = [seconds(2, name="a"), seconds(2, name="b")]
    run = live(requests([0.0, 60.0]), pools, failing(crashes=[Crashes(10.0, "b")]))
    assert {number for _, number, what in log(run) if what == "crash"} == {2, 3}


def test_crashes_are_as_frequent_as_their_mean_says():
    """Forty places for 1,000 s, each up for 100 s and down for 3: 40,000 / 103 crashes, within four roots of that."""
    run = live(requests([0.0, 1000.0]), [seconds(40)], failing(crashes=[Crashes(100.0)]))
    crashes = sum(event.what == "crash" for event in run.events)
    expected = 1000.0 * 40 / 103.0
    assert crashes == pytest.approx(expected, abs=4 * np.sqrt(expected))
