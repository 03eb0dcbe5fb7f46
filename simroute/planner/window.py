"""One window of a split replay: its simulation, what is kept of it, and the pieces put together again.

Imports fleet, results and scenario.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simroute.engine.replica import Replica
from simroute.fleet.cluster import Cluster
from simroute.results.itl import ItlHistogram
from simroute.results.run import FleetRun, ReplicaTotals, Status, Timeline
from simroute.scenario.build import Built
from simroute.scenario.models import PolicySpec
from simroute.workload.trace import Trace

COOLDOWN_S = 120.0
"""Seconds of traffic after a window, at most, that its last requests share the fleet with."""
_LOOK_S = 5.0
"""Seconds of simulated time after which it is seen whether all of a window's requests have ended."""
ROWS: Mapping[str, Any] = {
    "first_token_s": np.nan,
    "finish_s": np.nan,
    "status": Status.UNFINISHED,
    "replica": -1,
    "preemptions": 0,
    "cached_tokens": 0,
    "reason_code": -1,
    "generated_tokens": 0,
    "left_s": np.nan,
    "tries": 0,
    "attempts": 0,
}
"""The columns of a FleetRun, and what a row has in them until its piece comes."""
_ABSOLUTE = ("first_token_s", "finish_s", "left_s")
_SUMS = ("busy_s", "steps", "prefill_tokens", "output_tokens")


@dataclass(frozen=True, slots=True)
class Span:
    """Rows `begin` to `end` of the trace, which arrive from `start_s` to `stop_s` (None: to the end of the run).

    Replayed behind the traffic from `from_s` on.
    """

    from_s: float
    start_s: float
    stop_s: float | None
    begin: int
    end: int


@dataclass(slots=True)
class Piece:
    """What a span leaves: its rows, with times as in the trace, and what was counted between its start and its end."""

    rows: dict[str, NDArray[Any] | None]
    reasons: tuple[str, ...]
    itl: ItlHistogram
    timeline: Timeline
    replicas: list[ReplicaTotals]
    end_s: float


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
    cluster.run(None if span.stop_s is None else span.stop_s - span.start_s)
    after, itl = _counted(cluster)
    end_s = float(cluster.env.now) + span.from_s
    mine = slice(span.begin - first, span.end - first)
    while span.stop_s is not None and _under_way(cluster, mine) and not cluster.over.triggered:
        cluster.run(_LOOK_S)
    run = cluster.result(spec.shown, None)
    rows = {name: column if (column := getattr(run, name)) is None else column[mine] for name in ROWS}
    for name in _ABSOLUTE:
        column = rows[name]
        rows[name] = None if column is None else column + span.from_s
    totals = [_since(*each) for each in zip(run.replicas, before, after, strict=True)]
    return Piece(rows, run.reasons, itl, _within(run.timeline, span), totals, end_s)


def _under_way(cluster: Cluster, mine: slice) -> bool:
    """Whether one of the span's own requests has not ended."""
    recorder = cluster.recorder
    unanswered = np.frombuffer(recorder.status, dtype=np.int8)[mine] == Status.UNFINISHED
    return bool((unanswered & np.isnan(np.frombuffer(recorder.finish_s, dtype=np.float64)[mine])).any())


def _since(totals: ReplicaTotals, before: Mapping[str, Any], after: Mapping[str, Any]) -> ReplicaTotals:
    """A replica's totals with the sums of the span alone."""
    sums: dict[str, Any] = {name: after[name] - before[name] for name in before}
    return replace(totals, **sums)


def _around(trace: Trace, span: Span) -> tuple[Trace, int]:
    """The traffic that a span is replayed in, its clock started at `from_s`, and its first row."""
    first = int(np.searchsorted(trace.arrival_s, span.from_s))
    stop = span.end
    if span.stop_s is not None:
        stop = max(stop, int(np.searchsorted(trace.arrival_s, span.stop_s + COOLDOWN_S)))
    part = trace.select(np.arange(first, stop))
    return replace(part, arrival_s=part.arrival_s - span.from_s), first


def _counted(cluster: Cluster) -> tuple[list[dict[str, float]], ItlHistogram]:
    """The sums of every place up to now, and the gaps since this was last asked.

    A step that is being executed now is counted to the time before.
    """
    sums = []
    for slot in cluster.slots:
        replica = slot.replica
        assert isinstance(replica, Replica)
        replica.settle()
        sums.append({name: getattr(replica, name) for name in _SUMS} | {"preemptions": replica.scheduler.preemptions})
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


def merged(built: Built, label: str, pieces: Sequence[Piece], spans: Sequence[Span]) -> FleetRun:
    """The pieces as one run of the whole trace; rows of which there is no piece are unfinished."""
    trace = built.trace
    reasons = tuple(dict.fromkeys(reason for piece in pieces for reason in piece.reasons))
    columns: dict[str, Any] = {}
    for name, empty in ROWS.items():
        if (sample := pieces[0].rows[name]) is None:
            columns[name] = None
            continue
        columns[name] = column = np.full(len(trace), empty, dtype=sample.dtype)
        for piece, span in zip(pieces, spans, strict=True):
            column[span.begin : span.end] = piece.rows[name]
    for piece, span in zip(pieces, spans, strict=True):
        codes = columns["reason_code"][span.begin : span.end]
        table = np.array([*(reasons.index(reason) for reason in piece.reasons), -1], dtype=codes.dtype)
        codes[:] = table[codes]  # (-1, no reason, is the table's last)
    itl = ItlHistogram()
    for piece in pieces:
        itl.merge(piece.itl)
    end_s = max(piece.end_s for piece in pieces)
    return FleetRun(
        trace=trace,
        policy=label,
        seed=built.scenario.seed,
        **columns,
        reasons=reasons,
        itl=itl,
        timeline=_joined([piece.timeline for piece in pieces]),
        replicas=_totals(trace, [piece.replicas for piece in pieces], columns, built, end_s),
        end_s=end_s,
        horizon_s=None,
        interrupted=False,
    )


def _joined(parts: Sequence[Timeline]) -> Timeline:
    def column(name: str) -> Any:
        found = [getattr(part, name) for part in parts]
        return None if found[0] is None else np.concatenate(found)

    names = ("t_s", "running", "waiting", "kv_usage", "ready", "held", "attempts")
    return Timeline(**{name: column(name) for name in names})


def _totals(
    trace: Trace, pieces: Sequence[Sequence[ReplicaTotals]], columns: Mapping[str, Any], built: Built, end_s: float
) -> list[ReplicaTotals]:
    """The sums of every replica over all pieces; it was paid for, and up, from the first second to the last."""
    caching = [pool.engine.enable_prefix_caching for pool in built.fleet for _ in range(pool.places)]
    replica, admitted = columns["replica"], columns["status"] != Status.REJECTED
    found = []
    for number, parts in enumerate(zip(*pieces, strict=True)):
        sums: dict[str, Any] = {name: sum(getattr(part, name) for part in parts) for name in (*_SUMS, "preemptions")}
        mine = admitted & (replica == number) & caching[number]
        tokens = (int(trace.input_tokens[mine].sum()), int(columns["cached_tokens"][mine].sum()))
        prefix = dict(zip(("prefix_queried_tokens", "prefix_hit_tokens"), tokens, strict=True))
        found.append(replace(parts[0], **sums, **prefix, billed_s=end_s, ready_s=end_s, starts=1))
    return found
