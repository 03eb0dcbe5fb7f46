"""One long replay cut into windows of time that run side by side, each warmed up by the traffic just before it.

A window's requests are replayed behind those of the `warmup_s` before it, which fill queues and caches, and before
those of two minutes after it, which keep its last ones company; only its own rows are kept. A window that does not
begin as the one before it ends is replayed again behind all of that one. Merging is exact: rows stand where they stand
in the trace, gaps between tokens and the replicas' sums are counted in their window and added. How much the warm-up
matters is measured on a window that is replayed behind the whole window before it.
Imports scenario and what is below it, and of the planner cache, executor, joined, piece and window.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from simroute.errors import SimulationError, UsageError
from simroute.planner.execution.cache import Cache, key_of, replay_document
from simroute.planner.execution.executor import Executor, Failure, ProcessPool, Progress
from simroute.planner.windows.joined import Item, Joined
from simroute.planner.windows.piece import Piece, Span
from simroute.planner.windows.window import around, replay_piece
from simroute.scenario.build import Built, build
from simroute.scenario.loader import load
from simroute.scenario.models import Scenario
from simroute.scenario.run import RunResult, chosen

WARMUP_S = 600.0
"""Seconds of traffic before a window that bring the fleet into its state, unless said otherwise."""
MOST_WINDOWS = 10_000


class SplitInterrupted(KeyboardInterrupt):
    """Ctrl-C came before all windows were done; says how many are kept, and how to go on."""


def split_run(
    scenario: Scenario | Built | str | os.PathLike[str],
    policies: Sequence[str] | None = None,
    *,
    windows: int,
    warmup_s: float = WARMUP_S,
    seed: int | None = None,
    exact: bool = False,
    executor: Executor | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """As `scenario.run.run`, each policy's replay cut into `windows` that run side by side through `executor`.

    `cache` keeps every window that is done, and gives back those that it has. Each summary has a key `split` more (see
    docs/split.md). Raises UsageError for a fleet that no warm-up brings into its state, SimulationError where windows
    failed (all others are kept), SplitInterrupted on Ctrl-C (half a day is no result).
    """
    if isinstance(scenario, str | os.PathLike):
        scenario = load(os.fspath(scenario))
    built = build(scenario) if isinstance(scenario, Scenario) else scenario
    update: dict[str, Any] = {"policies": chosen(built.scenario, policies), "replicates": 0}
    built = replace(built, scenario=built.scenario.model_copy(update=update | ({} if seed is None else {"seed": seed})))
    _check(built, windows, warmup_s)
    spans = spans_of(built, windows, warmup_s)
    runs = [Joined.begun(built, number, spans) for number in range(len(built.scenario.policies))]
    replays = _Replays(built, exact, executor or ProcessPool(), cache or Cache(None), progress)

    def take(item: Item, piece: Piece) -> None:
        runs[item.policy].take(item, piece)

    try:
        wanted = [item for run in runs for item in run.first()]
        while wanted:
            replays.ask(wanted, take)
            wanted = [item for run in runs for item in run.again()]
        return RunResult(built, exact, tuple(run.result() for run in runs), interrupted=False)
    except KeyboardInterrupt:
        raise SplitInterrupted(f"interrupted: {replays.kept_said()}") from None


def spans_of(built: Built, windows: int, warmup_s: float) -> list[Span]:
    """Windows of equal length over the whole trace; one in which nothing arrives is a part of the one before it."""
    arrival_s = built.trace.arrival_s
    edges_s = np.linspace(0.0, float(arrival_s[-1]), windows + 1)[:-1]
    first = [0, *(int(row) for row in np.searchsorted(arrival_s, edges_s[1:]))]
    spans: list[Span] = []
    for start_s, begin, end in reversed(list(zip(edges_s, first, [*first[1:], len(arrival_s)], strict=True))):
        if begin < end:
            stop_s = spans[-1].start_s if spans else None  # whatever is under way at the end of the last ends there
            spans.append(Span(max(float(start_s) - warmup_s, 0.0), float(start_s), stop_s, begin, end))
    return spans[::-1]


@dataclass(frozen=True, slots=True)
class _Task:
    """Replays an item; travels to the workers."""

    built: Built
    exact: bool

    def __call__(self, item: Item) -> Piece:
        """The piece that its span gives."""
        return replay_piece(self.built, self.built.scenario.policies[item.policy], item.span, exact=self.exact)


@dataclass(slots=True)
class _Replays:
    """Asks for pieces, from the cache or through the executor, and keeps those that are new."""

    built: Built
    exact: bool
    executor: Executor
    cache: Cache
    progress: Progress | None
    asked: int = 0
    kept: int = 0
    _rows: int = 0
    _rows_done: int = 0
    _documents: dict[int, dict[str, Any] | None] = field(default_factory=dict)

    def ask(self, items: Sequence[Item], take: Callable[[Item, Piece], None]) -> None:
        """Tell `take` of the piece of every item.

        Raises SimulationError for what failed, once all others are done, and KeyboardInterrupt.
        """
        self.asked += len(items)
        self._rows += sum(map(self._size, items))
        missing = [item for item in items if not self._reused(item, take)]
        failed: list[tuple[Item, str]] = []
        done = 0
        task = _Task(self.built, self.exact)
        for number, piece in self.executor.map(task, missing, progress=lambda _: self._tell()):
            item = missing[number]
            if isinstance(piece, Failure):
                failed.append((item, piece.message))
            else:
                key = self._key(item)
                self.kept += bool(key and self.cache.put_arrays(key, piece.arrays()))
                take(item, piece)
            done += 1
            self._rows_done += self._size(item)
        if done < len(missing):
            raise KeyboardInterrupt
        if failed:
            item, message = min(failed)
            others = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
            raise SimulationError(
                f"window from {item.span.start_s:,.0f} s{others} failed: {message}; {self.kept_said()}"
            )

    def kept_said(self) -> str:
        """What is kept, and how to go on."""
        return self.cache.going_on(f"{self.kept} of {self.asked} replays are" if self.kept else "")

    def _reused(self, item: Item, take: Callable[[Item, Piece], None]) -> bool:
        """Whether the cache had it."""
        key = self._key(item)
        arrays = None if key is None else self.cache.get_arrays(key)
        if arrays is None:
            return False
        take(item, Piece.of_arrays(arrays))
        self.kept += 1
        self._rows_done += self._size(item)
        return True

    def _key(self, item: Item) -> str | None:
        """What a piece is kept under; None where it may not be kept."""
        if item.policy not in self._documents:
            spec = self.built.scenario.policies[item.policy]
            self._documents[item.policy] = replay_document(self.built, spec, exact=self.exact)
        document = self._documents[item.policy]
        return None if document is None else key_of({"replay": document, "span": asdict(item.span)})

    def _size(self, item: Item) -> int:
        first, stop = around(self.built.trace, item.span)
        return stop - first

    def _tell(self) -> None:
        if self.progress:
            self.progress(self._rows_done / self._rows)


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
