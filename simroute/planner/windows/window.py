"""One window of a split replay: its simulation, and what is kept of it.

Imports engine, fleet, results and scenario, and of this room piece and agreement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simroute.engine.replica import Replica
from simroute.fleet.cluster import Cluster
from simroute.planner.windows.agreement import state_of
from simroute.planner.windows.piece import ROWS, SUMS, Piece, Span, compact
from simroute.results.itl import ItlHistogram
from simroute.results.run import FleetRun, ReplicaTotals, Status, Timeline
from simroute.scenario.build import Built
from simroute.scenario.models import PolicySpec
from simroute.workload.trace import Trace

COOLDOWN_S = 120.0
"""Seconds of traffic after a window, at most, that its last requests share the fleet with."""
_LOOK_S = 5.0
"""Seconds of simulated time after which it is seen whether all of a window's requests have ended."""
_ABSOLUTE = ("first_token_s", "finish_s", "left_s")


def replay_piece(built: Built, spec: PolicySpec, span: Span, *, exact: bool) -> Piece:
    """Replay a span behind its warm-up and before the first traffic of the next window."""
    trace, first = _around(built.trace, span)
    scenario, members = built.scenario, built.members()
    policy = built.policy(spec, scenario.seed, members)
    samples = max(round(scenario.samples * trace.duration_s / max(built.trace.duration_s, 1e-9)), 2)
    options = built.options(spec, scenario.seed, members)
    cluster = Cluster(trace, built.fleet, policy, spec.shown, scenario.seed, members, options, exact, samples)
    cluster.watch(None, None)
    if span.start_s > span.from_s:
        cluster.run(span.start_s - span.from_s)
    before, _ = _counted(cluster)
    begins = state_of(cluster)
    cluster.run(None if span.stop_s is None else span.stop_s - span.start_s)
    after, itl = _counted(cluster)
    ends = state_of(cluster)
    end_s = float(cluster.env.now) + span.from_s
    mine = slice(span.begin - first, span.end - first)
    while span.stop_s is not None and _under_way(cluster, mine) and not cluster.over.triggered:
        cluster.run(_LOOK_S)
    run = cluster.result(spec.shown, None)
    return Piece(
        rows=_rows(run, mine, span.from_s),
        reasons=run.reasons,
        itl=itl,
        timeline=_within(run.timeline, span),
        replicas=[_since(*each) for each in zip(run.replicas, before, after, strict=True)],
        end_s=end_s,
        begins=begins,
        ends=ends,
        company=_company(run, mine.stop),
    )


def _rows(run: FleetRun, mine: slice, from_s: float) -> dict[str, NDArray[Any]]:
    """The columns of the span's own rows, at the trace's times."""
    found = {}
    for name in ROWS:
        column = getattr(run, name)
        if column is not None:
            found[name] = compact(column[mine] + from_s if name in _ABSOLUTE else column[mine])
    return found


def _company(run: FleetRun, first: int) -> NDArray[np.int64]:
    """What the requests from row `first` on found in a cache, as far as their first token has come."""
    known = ~np.isnan(run.first_token_s[first:])
    return np.where(known, run.cached_tokens[first:], -1)


def _under_way(cluster: Cluster, mine: slice) -> bool:
    """Whether one of the span's own requests has not ended, and will."""
    recorder, gateway = cluster.recorder, cluster.gateway
    if gateway is not None and gateway.stuck:  # (replicas neither come nor go here)
        return False
    unanswered = np.frombuffer(recorder.status, dtype=np.int8)[mine] == Status.UNFINISHED
    return bool((unanswered & np.isnan(np.frombuffer(recorder.finish_s, dtype=np.float64)[mine])).any())


def _since(totals: ReplicaTotals, before: Mapping[str, Any], after: Mapping[str, Any]) -> ReplicaTotals:
    """A replica's totals with the sums of the span alone."""
    sums: dict[str, Any] = {name: after[name] - before[name] for name in before}
    return replace(totals, **sums)


def _around(trace: Trace, span: Span) -> tuple[Trace, int]:
    """The traffic that a span is replayed in, its clock started at `from_s`, and its first row."""
    first, stop = around(trace, span)
    part = trace.select(np.arange(first, stop))
    return replace(part, arrival_s=part.arrival_s - span.from_s), first


def around(trace: Trace, span: Span) -> tuple[int, int]:
    """The rows that a span is replayed in: from the first to before the last."""
    first, stop = int(np.searchsorted(trace.arrival_s, span.from_s)), span.end
    if span.stop_s is not None:
        stop = max(stop, int(np.searchsorted(trace.arrival_s, span.stop_s + COOLDOWN_S)))
    return first, stop


def _counted(cluster: Cluster) -> tuple[list[dict[str, float]], ItlHistogram]:
    """The sums of every place up to now, and the gaps since this was last asked.

    A step that is being executed now is counted to the time before.
    """
    sums = []
    for slot in cluster.slots:
        replica = slot.replica
        assert isinstance(replica, Replica)
        replica.settle()
        counts = {"preemptions": replica.scheduler.preemptions}
        sums.append({name: counts[name] if name in counts else getattr(replica, name) for name in SUMS})
    recorder = cluster.recorder
    recorder.flush()
    itl, recorder.itl = recorder.itl, ItlHistogram()
    return sums, itl


def _within(timeline: Timeline, span: Span) -> Timeline:
    """The samples of the span itself, at the trace's times."""
    t_s = timeline.t_s + span.from_s
    mine = t_s >= span.start_s
    if span.stop_s is not None:
        mine &= t_s < span.stop_s
    columns = ("running", "waiting", "kv_usage", "ready", "held", "attempts")
    kept: dict[str, Any] = {
        name: column if (column := getattr(timeline, name)) is None else column[mine] for name in columns
    }
    return Timeline(t_s[mine], **kept)
