"""What the router sees: its own count at once, the engines' metrics as old as the last scrape."""

from __future__ import annotations

from itertools import groupby
from typing import NamedTuple

import numpy as np
import pytest
from fleet.fleets import GPU_LIKE, make_pool, replay, synthetic
from fleet.invariants import check

from simroute.policy.snapshot import Decision
from simroute.workload.trace import Trace

INTERVAL_S = 0.25


class Seen(NamedTuple):
    """The only replica's snapshot at one arrival."""

    at_s: float
    in_flight: int
    metrics: tuple[int, int, float]


class Watcher:
    """Sends everything to the first replica and writes down what it was shown."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    def choose(self, request, snapshots):
        shown = snapshots[0]
        metrics = shown.num_requests_running, shown.num_requests_waiting, shown.kv_cache_usage
        self.seen.append(Seen(request.arrival_s, shown.in_flight, metrics))
        return Decision(0)


def watch(trace, exact=False, **options):
    """What arrivals are shown of one engine with eight seats, and its run."""
    pools = [make_pool(1, GPU_LIKE, max_num_seqs=8)]
    watcher = Watcher()
    return watcher.seen, check(replay(trace, pools, watcher, exact=exact, **options), pools)


@pytest.fixture(scope="module")
def load():
    """Arrivals that keep about six of eight seats taken; one of them comes an instant after each scrape."""
    trace = synthetic(400, 35.0, 40, 30, seed=4)
    after_scrapes = np.arange(1, trace.arrival_s[-1] // INTERVAL_S + 1) * INTERVAL_S + 1e-9
    arrival_s = np.sort(np.concatenate([trace.arrival_s, after_scrapes]))
    answers = np.random.default_rng(4).integers(1, 60, len(arrival_s))
    return Trace.build(arrival_s=arrival_s, input_tokens=40, output_tokens=answers)


def by_window(seen):
    """The snapshots between one scrape and the next."""
    return [list(group) for _, group in groupby(seen, key=lambda s: s.at_s // INTERVAL_S)]


def test_metrics_change_at_scrapes_only(load):
    seen, _ = watch(load, scrape_interval_s=INTERVAL_S)
    windows = by_window(seen)
    assert len(windows) > 20
    assert all(len({s.metrics for s in window}) == 1 for window in windows)
    assert len({s.metrics for s in seen}) > 15


def test_a_scrape_reads_what_is_live_at_that_instant(load):
    """The policy ignores what it sees, so both runs are one; each window's metrics are those live at its start."""
    live, scraped = (by_window(watch(load, scrape_interval_s=s)[0])[1:] for s in (0.0, INTERVAL_S))
    assert [window[0].metrics for window in scraped] == [window[0].metrics for window in live]
    assert any(len({s.metrics for s in window}) > 1 for window in live)


@pytest.mark.parametrize("scrape_interval_s", [0.0, INTERVAL_S])
def test_the_router_s_own_count_is_never_stale(load, scrape_interval_s):
    """In flight at an arrival: those before it that have not ended by then."""
    seen, run = watch(load, scrape_interval_s=scrape_interval_s)
    for i, shown in enumerate(seen):
        assert shown.in_flight == (run.finish_s[:i] > shown.at_s).sum()


def test_watching_changes_nothing(load):
    """Reading metrics, which in fast mode looks into a stretch, leaves the run as it is."""
    _, live = watch(load)
    _, rarely = watch(load, scrape_interval_s=100.0)
    np.testing.assert_array_equal(live.finish_s, rarely.finish_s)
    np.testing.assert_array_equal(live.first_token_s, rarely.first_token_s)


def test_both_modes_show_the_same(load):
    exact, fast = watch(load, exact=True)[0], watch(load)[0]
    assert [s.in_flight for s in fast] == [s.in_flight for s in exact]
    assert [s.metrics[:2] for s in fast] == [s.metrics[:2] for s in exact]
    assert [s.metrics[2] for s in fast] == pytest.approx([s.metrics[2] for s in exact], abs=1e-12)


def test_before_the_first_scrape_engines_look_empty():
    """At 0 s nothing has been read yet; until the next scrape, at 0.15 s, the engine looks idle."""
    trace = Trace.build(arrival_s=[0.0, 0.0, 0.1, 0.2], input_tokens=8, output_tokens=60)
    seen, _ = watch(trace, scrape_interval_s=0.15)
    assert [s.metrics for s in seen[:3]] == [(0, 0, 0.0)] * 3
    assert [s.in_flight for s in seen] == [0, 1, 2, 3]
    assert seen[3].metrics[0] == 3
