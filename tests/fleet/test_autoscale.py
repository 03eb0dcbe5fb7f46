"""Autoscalers end to end: how many replicas there are over time, from what the router sees of a load with steps.

Steps take a second, and requests come half a second past the full one, so that nobody waits for a step to end: with
answers of n tokens at one a second, n requests are in flight at every full second. Places start in 11 s.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fleet.living import live
from fleet.seconds import requests, seconds
from fleet.test_lifecycle import log

from simroute.fleet.options import FleetOptions, Scaling
from simroute.fleet.pool import Pool, Startup
from simroute.fleet.scrape import Signal, same_signal
from simroute.policy.autoscaling import make_autoscaler
from simroute.policy.gateway_queue import GatewayQueue, GatewayQueueOptions
from simroute.results.run import FleetRun


@pytest.fixture(params=[True, False], ids=["exact", "fast"])
def exact(request):
    return request.param


def scaled(name: str = "hpa", *, interval_s: float = 15.0, drain_s: float = 300.0, **options: Any) -> FleetOptions:
    return FleetOptions(scaling={"pool": Scaling(make_autoscaler(name, options), interval_s, drain_s)})


def sizes(run: FleetRun, *, what: tuple[str, str] = ("order", "stop")) -> list[tuple[float, int]]:
    """(from when, how many) replicas were paid for, or between two other events of each."""
    count = sum(event.at_s == 0 and event.what == "ready" for event in run.events)
    found = [(0.0, count)]
    for at_s, _, event in log(run):
        if event in what:
            count += 1 if event == what[0] else -1
            if found[-1][0] == at_s:
                found.pop()
            found.append((at_s, count))
    return found


def every_second(until_s: float, at_once: int, from_s: float = 0.0) -> list[float]:
    """So many arrivals half a second past each full one."""
    return np.repeat(np.arange(from_s + 0.5, until_s), at_once).tolist()


def test_hpa_follows_a_step_of_load_by_hand(exact):
    """A request a second that takes 4 s: 4 in flight from 4 s on, for 2 a replica: two replicas.

    From 100 s four a second: at 105 s 4 x 4 = 16 are in flight, which asks for 8. The pool may double or grow by 4
    in 15 s, whichever is more: 6 at 105 s. At 120 s it may grow to 12: it takes 8. The load ends at 200 s, and the
    pool keeps its size until what it asked for at 195 s is 300 s old; nothing is in flight then, so one is left.
    """
    trace = requests([*every_second(100.0, 1), *every_second(200.0, 4, from_s=100.0), 600.0], 4)
    options = scaled(max_replicas=10, targets={"concurrency": 2})
    run = live(trace, [seconds(1, places=10, seats=64)], options, exact=exact)
    assert sizes(run) == [(0.0, 1), (15.0, 2), (105.0, 6), (120.0, 8), (495.0, 1)]
    assert sizes(run, what=("ready", "drain"))[1:] == [(26.0, 2), (116.0, 6), (131.0, 8), (495.0, 1)]
    assert sum(t.billed_s for t in run.replicas) == 15 + 2 * 90 + 6 * 15 + 8 * 375 + (run.end_s - 495)


@pytest.mark.parametrize(("window_s", "at_s"), [(0.0, 60.0), (60.0, 105.0), (300.0, 345.0)])
def test_scale_down_waits_for_its_window(window_s, at_s):
    """Ten are in flight up to 54 s, the last look at which is that of 45 s: what it asked for holds for the window."""
    trace = requests([*np.arange(0.0, 45.0, 0.5), 400.0], 5)
    down = {"stabilization_window_s": window_s}
    options = scaled(max_replicas=5, targets={"concurrency": 2}, scale_down=down)
    run = live(trace, [seconds(5, seats=8)], options)
    assert sizes(run) == [(0.0, 5), (at_s, 1)]


def test_a_pool_grows_no_faster_than_it_may(exact):
    """Forty in flight ask for 10 replicas; by one at a time, each half minute."""
    up = {"policies": [{"type": "Pods", "value": 1, "period_s": 30}]}
    options = scaled(max_replicas=10, targets={"concurrency": 4}, scale_up=up)
    run = live(requests(every_second(180.0, 4), 10), [seconds(1, places=10, seats=64)], options, exact=exact)
    assert sizes(run)[:6] == [(0.0, 1), (15.0, 2), (45.0, 3), (75.0, 4), (105.0, 5), (135.0, 6)]


def test_the_greatest_of_several_metrics_counts():
    """Eight in flight on one seat: one runs and seven wait. `concurrency` asks for 2, `waiting` for 4."""
    options = scaled(max_replicas=10, targets={"concurrency": 4, "waiting": 2})
    run = live(requests([0.0] * 8, 100), [seconds(1, places=10)], options)
    assert sizes(run)[:2] == [(0.0, 1), (15.0, 4)]


def test_replicas_that_start_are_not_ordered_again():
    """Each takes 200 s to come up; the pool asks for three and orders two, once."""
    pool = replace(seconds(1, places=10, seats=64), startup=Startup(node_s=200.0))
    run = live(requests(every_second(180.0, 3), 10), [pool], scaled(max_replicas=10, targets={"concurrency": 10}))
    assert sizes(run)[:2] == [(0.0, 1), (15.0, 3)]
    assert [at_s for at_s, _, what in log(run) if what == "order"] == [15.0] * 2


def test_the_queue_of_the_gateway_is_a_metric(exact):
    """One seat and one in flight, however many come: of eight, seven are held, which asks for seven."""
    at_once = {"policies": [{"type": "Pods", "value": 8, "period_s": 15}]}
    options = replace(
        scaled(max_replicas=8, targets={"held": 1}, scale_up=at_once),
        queue=GatewayQueue(GatewayQueueOptions()),
    )
    run = live(requests([0.0] * 8, 40), [seconds(1, places=8)], options, exact=exact)
    assert sizes(run)[:2] == [(0.0, 1), (15.0, 7)]
    assert sorted(run.finish_s.tolist())[:7] == [40.0] + [66.0] * 6


def test_metrics_of_engines_are_as_stale_as_the_router_s():
    """Read every 100 s, and first when there was nothing: `running` is known to be 0 until 100 s."""
    trace, pool = requests(every_second(150.0, 1), 8), seconds(1, places=5, seats=64)
    signals = [same_signal(Signal(interval_s)) for interval_s in (0.0, 100.0)]
    runs = [live(trace, [pool], replace(scaled(max_replicas=5, targets={"running": 2}), signals=s)) for s in signals]
    assert [sizes(run)[1] for run in runs] == [(15.0, 4), (105.0, 4)]


def test_time_to_first_token_is_a_metric():
    """One seat, two seconds an answer, one a second: waits grow by a second each, so that the pool grows by them."""
    options = scaled(max_replicas=4, targets={"ttft_p90_s": 2.0})
    run = live(requests(np.arange(60.0), 2), [seconds(1, places=4)], options)
    first = sizes(run)[1]
    # By 15 s the answers of 0, 1, .. 7 s have begun, after 1, 2, .. 8 s: the 90th percentile is 7.3 s.
    assert first == (15.0, 4)


def test_to_zero_and_back(exact):
    """Nothing comes after 1 s: with a cooldown of 60 s the pool is empty from 75 s on. A request of 100 s is held, a
    replica is ordered at 105 s and ready at 116 s.
    """
    options = replace(
        scaled(min_replicas=0, max_replicas=3, cooldown_s=60.0, targets={"concurrency": 4}),
        queue=GatewayQueue(GatewayQueueOptions()),
    )
    run = live(requests([0.0, 1.0, 100.0], 2), [seconds(1, places=3)], options, exact=exact)
    assert log(run) == [
        (75.0, 0, "drain"),
        (75.0, 0, "stop"),
        (105.0, 0, "order"),
        (116.0, 0, "ready"),
    ]
    assert run.finish_s[2] == 118.0
    assert run.replicas[0].billed_s == 75.0 + 13.0


def test_a_pool_at_zero_without_a_queue_turns_requests_away_and_stays_there():
    """Nobody tells the autoscaler of what was rejected: hold requests if a pool may go to zero."""
    options = scaled(min_replicas=0, max_replicas=3, cooldown_s=60.0, targets={"concurrency": 4})
    run = live(requests([0.0, 100.0, 200.0], 2), [seconds(1, places=3)], options)
    assert [what for _, _, what in log(run)] == ["drain", "stop"]
    assert np.isnan(run.finish_s[1:]).all()


def test_scheduled_windows_open_and_close():
    """Three from 00:01 to 00:03, one at other times; looked at every 15 s."""
    window = {"start": "00:01", "end": "00:03", "replicas": 3}
    options = scaled("scheduled", min_replicas=1, max_replicas=3, windows=[window])
    run = live(requests([0.0, 240.0]), [seconds(1, places=3)], options)
    assert sizes(run) == [(0.0, 1), (60.0, 3), (180.0, 1)]


def test_predictive_orders_before_the_load_comes():
    """Two minutes of four a second in every five; a replica takes 2 a second and 11 s to start.

    Looking 30 s ahead in buckets of 30 s, from the third season on the second replica is ordered before the load.
    """
    forecast = {"replica_requests_per_s": 2.0, "headroom": 0.0, "period_s": 300.0, "bucket_s": 30.0, "lead_s": 30.0}
    calm = {"level_window_s": 240.0, "scale_down": {"stabilization_window_s": 0.0}, "targets": {"concurrency": 100}}
    options = scaled("predictive", min_replicas=1, max_replicas=4, **forecast, **calm)
    arrivals = np.concatenate([start + np.arange(150.0, 270.0, 0.25) for start in range(0, 1500, 300)])
    light = np.concatenate([start + np.arange(0.0, 150.0, 1.0) for start in range(0, 1500, 300)])
    trace = requests(np.sort(np.concatenate([arrivals, light])))
    run = live(trace, [seconds(1, places=4, seats=64)], options)
    ordered = [at_s % 300 for at_s, _, what in log(run) if what == "order" and at_s > 600]
    assert ordered
    assert all(100 <= at_s < 150 for at_s in ordered)


def test_each_pool_has_its_own_autoscaler():
    """Tiers go to pools of their own; only the busy one grows."""
    options = FleetOptions(
        scaling={
            name: Scaling(make_autoscaler("hpa", {"max_replicas": 4, "targets": {"concurrency": 2}})) for name in "ab"
        }
    )
    trace = requests(every_second(60.0, 1), 6, tier="gold")
    pools: list[Pool] = [seconds(1, places=4, seats=8, name=name) for name in "ab"]
    run = live(trace, pools, options, policy="static_tier", policy_options={"tiers": {"gold": "a"}, "default": "b"})
    assert {number for _, number, what in log(run) if what == "order"} <= {1, 2, 3}


def test_of_those_that_must_go_the_ones_that_start_go_first_then_those_with_least_to_do():
    """Three replicas with 1, 2 and 0 long answers: down to two the idle one goes, down to one that with one."""
    options = scaled(
        "scheduled",
        interval_s=1.0,
        min_replicas=1,
        max_replicas=3,
        windows=[{"start": "00:00", "end": "00:01", "replicas": 3}, {"start": "00:00", "end": "00:02", "replicas": 2}],
    )
    trace = requests([0.0, 0.0, 0.0, 0.0], [200, 200, 5, 200])
    run = live(trace, [seconds(3, seats=4)], options, policy="round_robin")
    drains = [(at_s, number) for at_s, number, what in log(run) if what == "drain"]
    assert drains == [(60.0, 2), (120.0, 1)]
