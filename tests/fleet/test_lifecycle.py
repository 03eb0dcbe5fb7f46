"""From order to stop: what each stage takes, what is paid, what is written down. Places start in 5 + 3 + 2 + 1 seconds
and restart in 2 + 1; steps take a second."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fleet.living import live
from fleet.seconds import reasons, requests, seconds, statuses

from simroute.fleet.options import Crashes, Failures, FleetOptions, Outage, RouterOptions, Scaling
from simroute.fleet.pool import Startup
from simroute.policy.autoscaling.limits import PoolLoad
from simroute.results.metrics import summarise
from simroute.results.run import FleetRun, Status
from simroute.rng import stream


class Planned:
    """An autoscaler with a plan: (from when, how many replicas); it also remembers what it was shown."""

    def __init__(self, *plan: tuple[float, int]) -> None:
        self._plan = plan
        self.shown: list[PoolLoad] = []

    def desired(self, load: PoolLoad) -> int:
        """See Autoscaler."""
        self.shown.append(load)
        return [replicas for from_s, replicas in self._plan if from_s <= load.now_s][-1]


def scaled(*plan: tuple[float, int], drain_s: float = 300.0, **options) -> FleetOptions:
    """A fleet whose one pool follows a plan, looked at every second."""
    return FleetOptions(scaling={"pool": Scaling(Planned(*plan), 1.0, drain_s)}, **options)


def log(run: FleetRun) -> list[tuple[float, int, str]]:
    """The events, without those of the start."""
    return [tuple(event) for event in run.events if event.at_s or event.what != "ready"]


@pytest.fixture(params=[True, False], ids=["exact", "fast"])
def exact(request):
    return request.param


def test_a_start_takes_the_sum_of_its_stages_and_is_paid_from_the_order(exact):
    """Ordered at 2 s, ready 11 s later; gone at once when it is not wanted any more from 20 s on."""
    run = live(requests([30.0]), [seconds(1, places=2)], scaled((0, 1), (2, 2), (20, 1)), exact=exact)
    assert run.events[0] == (0.0, 0, "ready")
    assert log(run) == [(2.0, 1, "order"), (13.0, 1, "ready"), (20.0, 1, "drain"), (20.0, 1, "stop")]
    assert [totals.billed_s for totals in run.replicas] == [31.0, 18.0]
    assert [totals.ready_s for totals in run.replicas] == [31.0, 7.0]
    assert [(totals.starts, totals.crashes) for totals in run.replicas] == [(1, 0), (1, 0)]


@pytest.mark.parametrize(
    ("startup", "ready_s"),
    [
        (Startup(), 2.0),
        (Startup(node_s=180), 182.0),
        (Startup(image_s=60), 62.0),
        (Startup(weights_s=30), 32.0),
        (Startup(engine_s=45), 47.0),
        (Startup(180, 60, 30, 45), 317.0),
    ],
    ids=["at once", "node", "image", "weights", "engine", "all"],
)
def test_every_stage_counts(startup, ready_s):
    pool = replace(seconds(1, places=2), startup=startup)
    run = live(requests([400.0]), [pool], scaled((0, 1), (2, 2)))
    assert log(run) == [(2.0, 1, "order"), (ready_s, 1, "ready")]
    assert run.replicas[1].billed_s == run.end_s - 2.0


def test_a_start_that_is_not_wanted_any_more_is_broken_off():
    """Ordered at 2 s and stopped at 5 s, it never comes up; ordered again at 9 s it takes its whole time."""
    run = live(requests([30.0]), [seconds(1, places=2)], scaled((0, 1), (2, 2), (5, 1), (9, 2)))
    assert log(run) == [(2.0, 1, "order"), (5.0, 1, "stop"), (9.0, 1, "order"), (20.0, 1, "ready")]
    assert run.replicas[1].billed_s == 3.0 + 22.0
    assert run.replicas[1].ready_s == 11.0


def test_a_replica_drains_before_it_stops(exact):
    """Four answers of six seconds; from 2 s on one replica is enough. Of two equally busy, the later place goes.

    It has taken in requests 1 and 3, with one seat: the second of them ends at 12 s, and so does its bill. Request 4
    comes while it drains and waits behind the two of the other.
    """
    trace = requests([0.0, 0.0, 0.0, 0.0, 3.0], [6, 6, 6, 6, 1])
    run = live(trace, [seconds(2)], scaled((0, 2), (2, 1)), exact=exact)
    assert log(run) == [(2.0, 1, "drain"), (12.0, 1, "stop")]
    assert run.replica.tolist() == [0, 1, 0, 1, 0]
    assert run.finish_s.tolist() == [6.0, 6.0, 12.0, 12.0, 13.0]
    assert [totals.billed_s for totals in run.replicas] == [13.0, 12.0]
    assert [totals.ready_s for totals in run.replicas] == [13.0, 12.0], "a replica that drains is still at work"


@pytest.mark.parametrize(
    ("on_loss", "finish_s", "status"),
    [("fail", None, Status.FAILED), ("retry", 6.0 + 12.0, Status.COMPLETED), ("resume", 6.0 + 7.0, Status.COMPLETED)],
)
def test_what_does_not_end_within_the_drain_is_lost(exact, on_loss, finish_s, status):
    """Twelve tokens from 0 s; drained from 2 s on, stopped at 5.5 s: five have come by then, seven have not.

    The other replica's next step begins at 6 s.
    """
    run = live(
        requests([0.0, 0.0], [12, 12]),
        [seconds(2, seats=2)],
        scaled((0, 2), (2, 1), drain_s=3.5, router=RouterOptions(on_loss=on_loss)),
        exact=exact,
    )
    assert log(run) == [(2.0, 1, "drain"), (5.5, 1, "stop")]
    assert run.replicas[1].billed_s == 5.5
    assert statuses(run) == [Status.COMPLETED, status]
    if finish_s is None:
        assert reasons(run)[1] == "its replica was stopped"
        assert run.left_s[1] == 5.5
    else:
        assert run.replica.tolist() == [0, 0]
        assert run.finish_s[1] == finish_s


def crash_times(mtbf_s: float, place: int, seed: int = 0):
    """When the replica of a place would crash after having come up, crash after crash."""
    draws = stream(seed, "crash", place)
    while True:
        yield draws.exponential(mtbf_s)


def test_a_crash_restarts_the_engine_on_its_machine_which_is_paid_on(exact):
    """Up for a time drawn for its place, then weights and engine again: three seconds."""
    options = FleetOptions(failures=Failures(crashes=[Crashes(30.0)]))
    run = live(requests([0.0, 200.0]), [seconds()], options, exact=exact)
    draws = crash_times(30.0, 0)
    expected, at_s = [], 0.0
    while (at_s := at_s + next(draws)) < 201.0:
        expected += [(at_s, 0, "crash"), (at_s + 3.0, 0, "ready")]
        at_s += 3.0
    seen = log(run)
    assert len(seen) >= 6
    assert [(number, what) for _, number, what in seen] == [e[1:] for e in expected[: len(seen)]]
    assert [at_s for at_s, _, _ in seen] == pytest.approx([e[0] for e in expected[: len(seen)]])
    crashes = sum(what == "crash" for _, _, what in seen)
    (totals,) = run.replicas
    assert (totals.billed_s, totals.crashes) == (run.end_s, crashes)
    assert totals.starts == 1 + sum(what == "ready" for _, _, what in seen)
    assert totals.ready_s == pytest.approx(run.end_s - 3.0 * crashes, abs=3.0)


def test_a_replica_that_crashes_while_it_drains_is_gone():
    """Nobody wanted it any more: it is not started again, and its machine goes back."""
    (first,) = [next(crash_times(30.0, 1))]
    drain_s = float(int(first))  # the last whole second before the crash
    options = scaled((0, 2), (drain_s, 1), failures=Failures(crashes=[Crashes(30.0)]))
    trace = requests([drain_s - 1.0] * 2 + [first + 20.0], [1, 40, 1])
    run = live(trace, [seconds(2)], options, seed=0, policy="round_robin", horizon_s=first + 30.0)
    mine = [(at_s, what) for at_s, number, what in log(run) if number == 1]
    assert mine == [(drain_s, "drain"), (first, "crash"), (first, "stop")]
    assert run.replicas[1].billed_s == first
    assert run.replicas[1].crashes == 1


def test_a_lost_machine_is_paid_until_it_is_lost_and_replaced_by_one_that_starts_cold():
    """Lost at 4 s for 6 s, then ordered anew."""
    options = FleetOptions(failures=Failures(outages=[Outage(4.0, 6.0)]))
    run = live(requests([0.0, 30.0]), [seconds()], options)
    assert log(run) == [(4.0, 0, "lost"), (10.0, 0, "order"), (21.0, 0, "ready")]
    (totals,) = run.replicas
    assert (totals.billed_s, totals.ready_s) == (4.0 + 21.0, 4.0 + 10.0)


def test_the_summary_counts_what_happened():
    """One of two lost at 4 s and back at 21 s, of 31 s: 62 - 6 s are paid, and 45 s of them it took requests."""
    options = FleetOptions(failures=Failures(outages=[Outage(4.0, 6.0, "east")]))
    pool = seconds(2)
    run = live(requests([0.0, 30.0]), [pool], options)
    fleet = summarise(run, {}, lambda pool, request_class: None)["fleet"]
    assert (fleet["starts"], fleet["crashes"]) == (3, 1)
    assert fleet["ready_share"] == pytest.approx(45.0 / 56.0)
    assert fleet["without_replica_share"] == 0.0
    assert sum(t.usd for t in run.replicas) == pytest.approx(56.0 / 3600 * pool.variant.usd_per_hour)


def test_autoscalers_are_shown_what_the_router_knows():
    """At 1 s: request 0 runs on place 0; at 3 s place 1 starts, and another request waits behind the first."""
    planned = Planned((0, 1), (2, 2))
    options = FleetOptions(scaling={"pool": Scaling(planned, 1.0)})
    live(requests([0.0, 2.5], [20, 1]), [seconds(1, places=3)], options)
    first, third, later = planned.shown[0], planned.shown[2], planned.shown[14]
    assert (first.now_s, first.ready, first.starting, first.in_flight, first.running) == (1.0, 1, 0, 1, 1)
    assert (third.now_s, third.ready, third.starting, third.in_flight) == (3.0, 1, 1, 2)
    assert (third.running, third.waiting, third.arrivals_per_s) == (1, 1, 1.0)
    assert (later.now_s, later.ready, later.starting, later.ttft_p90_s) == (15.0, 2, 0, 1.0)
