"""Metrics that come late, at odd times or not at all, each in its own way; what is known of a replica that is new.

Steps take a second. One request more arrives at every full second and stays, so that at t + 0.5 s there are t + 1.
"""

from __future__ import annotations

import numpy as np
import pytest
from fleet.seconds import requests, seconds, under
from fleet.test_lifecycle import scaled

from simroute.errors import UsageError
from simroute.fleet.options import Failures, FleetOptions, Outage, RouterRestart
from simroute.fleet.scrape import METRICS, Signal, same_signal
from simroute.policy.snapshot import Decision

N = 30


class Watching:
    """Sends every request to the first replica that it may, and writes down what it was shown of one."""

    def __init__(self, watched: int = 0) -> None:
        self._watched = watched
        self.seen: dict[float, tuple[int, int, float]] = {}
        self.tokens: dict[float, tuple[int, int]] = {}

    def choose(self, request, snapshots):
        shown = snapshots[self._watched]
        metrics = shown.num_requests_running, shown.num_requests_waiting, round(shown.kv_cache_usage, 9)
        self.seen[request.arrival_s] = metrics
        self.tokens[request.arrival_s] = shown.in_flight_tokens, shown.queued_tokens
        return Decision(0)


def watch(seats: int = 64, **signals: Signal) -> dict[float, tuple[int, int, float]]:
    """What a request every second is shown, at its full second; all answers are long."""
    ways = same_signal(Signal()) | signals
    watching = Watching()
    trace = requests([0.25, *np.arange(1.0, N)], 100)
    under(trace, [seconds(seats=seats, async_scheduling=False)], watching, FleetOptions(signals=ways))
    return watching.seen


def running(seen: dict[float, tuple[int, int, float]]) -> list[int]:
    return [metrics[0] for metrics in seen.values()]


def test_what_is_live_is_seen_at_once():
    """Request t is admitted when a step ends, at t + 0.25 s: at t s all those before it are in steps."""
    assert running(watch()) == list(range(N))


def test_a_delay_shows_the_past():
    """Read every second from 0 s on, known 2.5 s later: at t s what was read at t - 3 s, before that nothing."""
    live_ = running(watch())
    late = running(watch(running=Signal(1.0, delay_s=2.5)))
    assert late[:3] == [0, 0, 0]
    assert late[4:] == live_[1 : N - 3]


def test_each_metric_comes_in_its_own_way():
    """One seat: everybody else waits. `running` is live, `waiting` read every five seconds, usage never again."""
    seen = watch(seats=1, waiting=Signal(5.0), kv_cache_usage=Signal(1000.0))
    times = list(seen)
    at = {at_s: seen[at_s] for at_s in times}
    assert [at[float(t)][0] for t in range(1, 12)] == [1] * 11
    assert len({at[float(t)][1] for t in range(6, 10)}) == 1
    assert at[11.0][1] - at[6.0][1] == 5
    assert {metrics[2] for metrics in seen.values()} == {0.0}


def test_metrics_read_at_one_instant_belong_together():
    """Read alike, running and waiting always add up to what was in the engine at one moment."""
    seen = watch(seats=4, running=Signal(3.0), waiting=Signal(3.0))
    totals = [metrics[0] + metrics[1] for metrics in seen.values()]
    assert totals == sorted(totals)
    assert set(np.diff(totals)) <= {0, 2, 3, 4}


def test_jitter_reads_up_to_so_much_late():
    """Read every five seconds and up to two late: known at most 7 s after the last reading was, never before it."""
    seen = watch(running=Signal(5.0, jitter_s=2.0))
    exact = watch()
    for at_s, metrics in seen.items():
        read_from, read_to = at_s - 7.0, at_s
        possible = [exact[t][0] for t in exact if read_from - 1.0 <= t <= read_to]
        assert metrics[0] in {0, *possible}
    changes = [b for a, b in zip(seen, list(seen)[1:], strict=False) if seen[a] != seen[b]]
    assert len({at_s % 5 for at_s in changes}) > 1, "not always at the same time after the round"


def test_a_share_of_readings_never_arrives():
    """Every second, seven of ten lost: what is shown changes about nine times in thirty."""
    seen = running(watch(running=Signal(1.0, loss=0.7)))
    changes = int((np.diff(seen) > 0).sum())
    assert 3 <= changes <= 16
    assert running(watch(running=Signal(1.0, loss=1.0))) == [0] * N


def test_the_router_s_own_counts_are_never_late():
    """Eight prompt tokens each, all of which the router itself has sent; one seat, so that only the first begins."""
    watching = Watching()
    trace = requests([0.25, *np.arange(1.0, 6.0)], 100)
    watching.counts_tokens = True
    options = FleetOptions(signals=same_signal(Signal(1000.0)))
    under(trace, [seconds()], watching, options)
    assert [tokens for tokens, _ in watching.tokens.values()] == [0, 8, 16, 24, 32, 40]
    assert [queued for _, queued in watching.tokens.values()] == [0, 0, 8, 16, 24, 32]


@pytest.mark.parametrize("field", ["delay_s", "jitter_s", "loss"])
def test_what_is_always_known_is_never_late(field):
    with pytest.raises(UsageError, match="has no delay, jitter or loss"):
        Signal(0.0, **{field: 0.5})


# -- replicas that are new ---------------------------------------------------------------------------------------------


class Pinned(Watching):
    """Sends to the replica that is watched, when it is up; else to the first."""

    def __init__(self, watched: int, up_from_s: float, down_s: tuple[float, float] = (np.inf, np.inf)) -> None:
        super().__init__(watched)
        self._up_from_s = up_from_s
        self._down_s = down_s

    def choose(self, request, snapshots):
        super().choose(request, snapshots)
        up = request.arrival_s >= self._up_from_s and not self._down_s[0] <= request.arrival_s < self._down_s[1]
        return Decision(self._watched if up else 0)


def test_of_a_replica_that_has_come_up_nothing_is_known_until_it_is_read():
    """Ordered at 2 s and up at 13 s; read every four seconds: at 16 s for the first time since it is there."""
    watching = Pinned(1, up_from_s=13.5)
    options = scaled((0, 1), (2, 2), signals=same_signal(Signal(4.0)))
    under(requests(np.arange(0.25, 24.0), 100), [seconds(1, places=2, seats=64)], watching, options)
    seen = {at_s: metrics[0] for at_s, metrics in watching.seen.items()}
    assert [seen[t + 0.25] for t in range(24)] == [0] * 16 + [2] * 4 + [6] * 4


def test_news_of_a_replica_that_is_gone_says_nothing_of_its_successor():
    """Place 1 is lost at 5.5 s and up again at 17.5 s; what was read of it at 4 s arrives at 18 s, and is dropped."""
    watching = Pinned(1, up_from_s=0.0, down_s=(5.5, 19.0))
    options = FleetOptions(
        signals=same_signal(Signal(4.0, delay_s=14.0)), failures=Failures(outages=[Outage(5.5, 1.0, zone="west")])
    )
    under(requests(np.arange(0.25, 24.0), 100), [seconds(2, seats=64)], watching, options)
    assert set(watching.seen.values()) == {(0, 0, 0.0)}


def test_a_router_that_restarts_knows_nothing_until_it_reads_again():
    """Read every four seconds; dead at 9.5 s for an instant: its next reading is that of 12 s."""
    watching = Watching()
    options = FleetOptions(signals=same_signal(Signal(4.0)), failures=Failures(router=[RouterRestart(9.5, 0.0)]))
    under(requests(np.arange(0.25, 16.0), 100), [seconds(seats=64)], watching, options)
    seen = [metrics[0] for metrics in watching.seen.values()]
    assert seen[8:10] == [8, 8]
    assert seen[10:12] == [0, 0]
    assert seen[12] == 2, "the requests of 10.25 and 11.25 s; those before it were cut off with the router"


def test_the_metrics_all_have_a_signal():
    assert set(same_signal(Signal())) == set(METRICS)
