"""One long replay cut into windows of time that run side by side, each warmed up by the traffic just before it.

A window's requests are replayed behind those of the `warmup_s` before it, which fill queues and caches, and before
those of two minutes after it, which keep its last ones company; only its own rows are kept. Merging is exact: rows
stand where they stand in the trace, gaps between tokens and the replicas' sums are counted in their window and added.
What differs is the state in which a window begins; how much that matters is measured on a window that is replayed
behind the whole window before it. Imports scenario and what is below it, and of this room executor and window.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from simroute.errors import SimulationError, UsageError
from simroute.planner.executor import Executor, Failure, ProcessPool
from simroute.planner.window import Piece, Span, merged, replay_piece
from simroute.results.latency import Latencies, latencies, statistics
from simroute.results.metrics import rounded, summarise
from simroute.scenario.build import Built, build
from simroute.scenario.loader import load
from simroute.scenario.models import Scenario
from simroute.scenario.run import PolicyResult, RunResult, chosen
from simroute.scenario.steptimes import step_times

WARMUP_S = 600.0
"""Seconds of traffic before a window that bring the fleet into its state, unless said otherwise."""
MOST_WINDOWS = 10_000
POINTS = ("p50", "p90", "p95", "p99")
Progress = Callable[[float], None]


def split_run(
    scenario: Scenario | Built | str | os.PathLike[str],
    policies: Sequence[str] | None = None,
    *,
    windows: int,
    warmup_s: float = WARMUP_S,
    seed: int | None = None,
    exact: bool = False,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """As `scenario.run.run`, each policy's replay cut into `windows` that run side by side through `executor`.

    Each summary has a key `split` more: `windows`, `warmup_s`, and on a sample the relative difference of every
    percentile from the unsplit run. Raises UsageError for a fleet that no warm-up brings into its state,
    SimulationError where a window failed, KeyboardInterrupt on Ctrl-C (half a day is no result).
    """
    if isinstance(scenario, str | os.PathLike):
        scenario = load(os.fspath(scenario))
    built = build(scenario) if isinstance(scenario, Scenario) else scenario
    update: dict[str, Any] = {"policies": chosen(built.scenario, policies), "replicates": 0}
    built = replace(built, scenario=built.scenario.model_copy(update=update | ({} if seed is None else {"seed": seed})))
    _check(built, windows, warmup_s)
    spans = spans_of(built, windows, warmup_s)
    sample = _sample(built, spans)
    pieces = [*spans, *([] if sample is None else [sample])]
    items = [(number, span) for number in range(len(built.scenario.policies)) for span in pieces]
    found: dict[int, Piece] = {}
    for number, piece in (executor or ProcessPool()).map(_Window(built, exact), items, progress=progress):
        if isinstance(piece, Failure):
            raise SimulationError(f"window from {items[number][1].start_s:g} s: {piece.message}")
        found[number] = piece
    if len(found) < len(items):
        raise KeyboardInterrupt
    results = tuple(
        _result(built, number, [found[number * len(pieces) + i] for i in range(len(pieces))], spans, sample)
        for number in range(len(built.scenario.policies))
    )
    return RunResult(built, exact, results, interrupted=False)


@dataclass(frozen=True, slots=True)
class _Window:
    """Replays one span under one policy; travels to the workers."""

    built: Built
    exact: bool

    def __call__(self, item: tuple[int, Span]) -> Piece:
        """The piece that the span gives."""
        policy, span = item
        return replay_piece(self.built, self.built.scenario.policies[policy], span, exact=self.exact)


def spans_of(built: Built, windows: int, warmup_s: float) -> list[Span]:
    """Windows of equal length over the whole trace; those in which nothing arrives are left out."""
    arrival_s = built.trace.arrival_s
    edges_s = np.linspace(0.0, float(arrival_s[-1]), windows + 1)[:-1]
    first = [0, *(int(row) for row in np.searchsorted(arrival_s, edges_s[1:]))]
    spans = []
    for k, (begin, end) in enumerate(zip(first, [*first[1:], len(arrival_s)], strict=True)):
        last = k == windows - 1
        start_s = float(edges_s[k])
        stop_s = None if last else float(edges_s[k + 1])
        if begin < end:
            spans.append(Span(max(start_s - warmup_s, 0.0), start_s, stop_s, begin, end))
    if spans:
        spans[-1] = replace(spans[-1], stop_s=None)  # whatever is under way then ends there
    return spans


def _sample(built: Built, spans: Sequence[Span]) -> Span | None:
    """The busiest window but the first, behind the whole window before it: as the unsplit run would come to it."""
    if len(spans) < 2:
        return None
    busiest = max(range(1, len(spans)), key=lambda k: spans[k].end - spans[k].begin)
    return replace(spans[busiest], from_s=spans[busiest - 1].from_s)


def _result(
    built: Built, policy: int, pieces: Sequence[Piece], spans: Sequence[Span], sample: Span | None
) -> PolicyResult:
    """The pieces of one policy as one run, with what is known of its error."""
    spec = built.scenario.policies[policy]
    run = merged(built, spec.shown, pieces[: len(spans)], spans)
    summary = summarise(run, built.slo, built.quality, built.quality_floor, step_times(built.pools))
    warmup_s = max(span.start_s - span.from_s for span in spans)
    split: dict[str, Any] = {"windows": len(spans), "warmup_s": warmup_s}
    note = f"split into {len(spans)} windows, each behind {warmup_s:g} s of the traffic before it"
    if sample is not None:
        rows = slice(sample.begin, sample.end)
        unsplit = merged(built, spec.shown, [pieces[-1]], [sample])
        changes = differences(_rows(latencies(run), rows), _rows(latencies(unsplit), rows))
        split |= {"sample_requests": sample.end - sample.begin, "differences": changes}
        note += _said(changes, sample.end - sample.begin)
    return PolicyResult(run, {**summary, "split": rounded(split), "notes": [*summary["notes"], note]})


def differences(split: Latencies, unsplit: Latencies) -> dict[str, float | None]:
    """The relative difference of every percentile; None where there is none to compare."""
    found: dict[str, float | None] = {}
    for name in ("ttft_s", "tpot_s", "e2e_s"):
        ours, theirs = (statistics(getattr(latency, name)) for latency in (split, unsplit))
        for point in POINTS:
            known = theirs[point] > 0 and not np.isnan(ours[point])
            found[f"{name}.{point}"] = ours[point] / theirs[point] - 1.0 if known else None
    return found


def _said(changes: Mapping[str, float | None], requests: int) -> str:
    known = {name: change for name, change in changes.items() if change is not None}
    if not known:
        return ""
    worst = max(known, key=lambda name: abs(known[name]))
    return (
        f"; on a sample of {requests:,} requests the largest difference of a percentile from the unsplit run is "
        f"{known[worst]:+.2%} ({worst})"
    )


def _rows(of: Latencies, rows: slice) -> Latencies:
    return Latencies(of.ttft_s[rows], of.tpot_s[rows], of.e2e_s[rows])


def _check(built: Built, windows: int, warmup_s: float) -> None:
    """Refuse what cannot be split."""
    if not 2 <= windows <= MOST_WINDOWS:
        raise UsageError(f"windows: must be from 2 to {MOST_WINDOWS:,}, got {windows}")
    if not 0 <= warmup_s < np.inf:
        raise UsageError(f"warm-up: must be 0 s or more, got {warmup_s:g}")
    scenario = built.scenario
    lives = {
        "pools with autoscale": any(pool.autoscale is not None for pool in scenario.pools),
        "failures": scenario.failures != type(scenario.failures)(),
        "external endpoints": bool(scenario.external),
        "clients.users": scenario.clients.users is not None,
        "clients.wait_in_session": scenario.clients.wait_in_session,
        "horizon_s": scenario.horizon_s is not None,
    }
    found = [what for what, there in lives.items() if there]
    if found:
        raise UsageError(
            f"split: {', '.join(found)}: what happened hours ago matters here, so no warm-up brings a window into its "
            "state: replay it in one piece"
        )
