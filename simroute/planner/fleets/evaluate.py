"""The simulator's verdict on fleets: the busiest stretch first, the whole trace for those that survive it.

Owns `Evaluator`. All fleets see the same traffic and draw from the same streams. Results are kept by key, so that
nothing is simulated twice. Imports errors, interrupt and, of scenario, run; of this room, what it asks with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from simroute import interrupt
from simroute.errors import SimrouteError
from simroute.planner.execution.cache import Cache, key_of, replay_document
from simroute.planner.execution.executor import Executor, Failure
from simroute.planner.fleets.candidates import Fleet, Space, fleet_built
from simroute.planner.fleets.judge import Check, cheap_checks, hopeless, judged, misses, named_loss
from simroute.planner.fleets.utilisation import utilisation
from simroute.scenario.build import Built
from simroute.scenario.run import replayed
from simroute.workload.trace import Trace

FEWEST_PEAK = 200
"""A stretch of fewer requests is not replayed apart: the whole trace is quick."""
PEAK_BINS = 400


class Candidate(NamedTuple):
    """A fleet under one of the plan's policies."""

    fleet: Fleet
    policy: int


class _Replay(NamedTuple):
    candidate: Candidate
    stage: str
    rate_scale: float
    down: tuple[int, ...] = ()
    """Options of which a loss has left nothing, where the policy asks for them by name."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of a candidate: `checks` against every promise, by a replay of the `stage` (peak or whole).

    `summary` is the full summary of the whole fleet, None where the verdict fell earlier; `error` why it could not
    be simulated.
    """

    candidate: Candidate
    stage: str
    checks: tuple[Check, ...]
    summary: Mapping[str, Any] | None = None
    error: str = ""

    @property
    def meets(self) -> bool:
        """Whether every promise is kept."""
        return not self.error and self.stage == "whole" and all(check.kept for check in self.checks)

    @property
    def violations(self) -> tuple[Check, ...]:
        """What is broken."""
        return tuple(check for check in self.checks if not check.kept)


@dataclass
class Tally:
    """What the search has done."""

    simulated: int = 0
    reused: int = 0
    failed: int = 0


@dataclass
class Evaluator:
    """Asks the simulator about candidates, several at once, and remembers the answers.

    `stop` is asked between replays; once it is true, what is missing stays unknown (`stopped`).
    """

    space: Space
    executor: Executor
    cache: Cache
    stop: Callable[[], bool] = lambda: False
    exact: bool = False
    tally: Tally = field(default_factory=Tally)
    stopped: bool = False
    verdicts: dict[tuple[Candidate, float], Verdict] = field(default_factory=dict)
    _results: dict[_Replay, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._peak = peak_of(self.space)

    @property
    def first_requests(self) -> int:
        """Requests in the first replay of a candidate."""
        trace = self.space.built.trace
        return len(trace if self._peak is None else trace.window(*self._peak))

    @property
    def whole_replays(self) -> int:
        """How many replays of the whole trace have been asked for."""
        return sum(replay.stage == "whole" for replay in self._results)

    def ask(self, candidates: Sequence[Candidate], rate_scale: float = 1.0) -> list[Verdict | None]:
        """A verdict on each, in order; None for those that a stop left unknown."""
        wanted = [c for c in dict.fromkeys(candidates) if (c, rate_scale) not in self.verdicts]
        for stage in ("peak", "whole") if self._peak is not None else ("whole",):
            wanted = self._stage(wanted, stage, rate_scale)
        return [self.verdicts.get((candidate, rate_scale)) for candidate in candidates]

    def ask_whole(self, candidates: Sequence[Candidate]) -> None:
        """A verdict by the whole trace on each, even where the busiest stretch has already told against it."""
        self._stage([c for c in dict.fromkeys(candidates) if self._short_of_whole(c)], "whole", 1.0)

    def whole(self, candidate: Candidate, rates: Sequence[float] = ()) -> dict[float, Mapping[str, Any]]:
        """What replays of the whole fleet on the whole trace gave, by rate, lowest first; these rates among them.

        A result has `summary` and `timeline`. What failed, or was left out by a stop, is not there.
        """
        self._replay([_Replay(candidate, "whole", rate) for rate in rates])
        mine = {
            r.rate_scale: found
            for r, found in self._results.items()
            if r == _Replay(candidate, "whole", r.rate_scale) and "error" not in found
        }
        return dict(sorted(mine.items()))

    def beside(self, space: Space) -> Evaluator:
        """One that asks about another space in the same way; what it does is counted together."""
        return replace(self, space=space, verdicts={}, _results={})

    def _short_of_whole(self, candidate: Candidate) -> bool:
        verdict = self.verdicts.get((candidate, 1.0))
        return verdict is None or (verdict.stage != "whole" and not verdict.error)

    def _stage(self, candidates: Sequence[Candidate], stage: str, rate_scale: float) -> list[Candidate]:
        """Replay the stage for all; verdicts are noted where they fall, and those still open given back.

        What a candidate may lose is replayed before the candidate itself, least left first.
        """
        still_open = []
        queue = {c: [*self.space.degraded(c.fleet), c.fleet] for c in candidates}
        found: dict[Candidate, list[Check]] = {c: [] for c in candidates}
        while queue and not self.stopped:
            asked = {c: self._replay_of(c, fleets[0], stage, rate_scale) for c, fleets in queue.items()}
            self._replay([*asked.values()])
            for candidate, replay in asked.items():
                result = self._results.get(replay)
                if result is None:
                    queue.pop(candidate)
                    continue
                left = queue[candidate].pop(0)
                verdict = self._verdict(candidate, left, result, stage, found[candidate])
                if verdict is not None:
                    self.verdicts[candidate, rate_scale] = verdict
                    queue.pop(candidate)
                elif not queue[candidate]:
                    still_open.append(candidate)
                    queue.pop(candidate)
        return still_open

    def _replay_of(self, candidate: Candidate, left: Fleet, stage: str, rate_scale: float) -> _Replay:
        down: tuple[int, ...] = ()
        if len(left) < len(candidate.fleet) and self.space.names_pools(candidate.policy):
            down = tuple(option for option, _ in candidate.fleet if option not in dict(left))
        return _Replay(Candidate(left, candidate.policy), stage, rate_scale, down)

    def _verdict(
        self, candidate: Candidate, left: Fleet, result: Mapping[str, Any], stage: str, found: list[Check]
    ) -> Verdict | None:
        """The verdict, if this replay of what was left of the candidate decides; checks are added to `found`."""
        whole = left == candidate.fleet
        if "error" in result:
            return Verdict(candidate, stage, (), error=str(result["error"]))
        broken = hopeless(self.space, result["misses"]) if stage == "peak" else judged(self.space, result)
        loss = "" if whole else named_loss(self.space, candidate.fleet, left)
        found += [check._replace(loss=loss) for check in broken]
        bad = any(not check.kept for check in found)
        if stage == "peak":
            return Verdict(candidate, stage, tuple(found)) if bad else None
        if whole:
            checks = (*cheap_checks(self.space, candidate.fleet), *found)
            return Verdict(candidate, stage, checks, result["summary"])
        return Verdict(candidate, stage, tuple(found)) if bad else None

    def _replay(self, replays: Sequence[_Replay]) -> None:
        """Results of all, from memory, the cache or the simulator."""
        missing = [r for r in dict.fromkeys(replays) if r not in self._results]
        keys = {r: self._key(r) for r in missing}
        for replay in missing:
            key = keys[replay]
            kept = None if key is None else self.cache.get(key)
            if kept is not None:
                self._results[replay] = kept
                self.tally.reused += 1
        missing = [r for r in missing if r not in self._results]
        if not missing or self.stopped or interrupt.heard() or self.stop():
            self.stopped = self.stopped or bool(missing)
            return
        task = _Task(self.space, self._peak, self.exact)
        try:
            self._take(missing, keys, self.executor.map(task, missing, stop=self.stop))
        except KeyboardInterrupt:  # (just before the executor began to listen, or a second one)
            self.stopped = True
        self.stopped = self.stopped or interrupt.heard() or any(r not in self._results for r in missing)

    def _take(
        self,
        asked: Sequence[_Replay],
        keys: Mapping[_Replay, str | None],
        results: Iterable[tuple[int, dict[str, Any] | Failure]],
    ) -> None:
        """Remember results as they come, and keep those that can be named."""
        for number, result in results:
            replay = asked[number]
            if isinstance(result, Failure):
                self._results[replay] = {"error": result.message}
                self.tally.failed += 1
            else:
                self._results[replay] = result
                self.tally.simulated += 1
                if key := keys[replay]:
                    self.cache.put(key, result)

    def _key(self, replay: _Replay) -> str | None:
        """The cache's key of a replay; None for one that cannot be named."""
        try:
            built = _built(self.space, self._peak, replay)
        except SimrouteError:
            return None
        document = replay_document(built, self.space.spec.policies[replay.candidate.policy], exact=self.exact)
        wanted = {name: self.space.wanted(name).model_dump(mode="json") for name in self.space.classes}
        called = [pool.variant.pool for pool in built.pools]
        named = {"plan": document, "stage": replay.stage, "wanted": wanted, "called": called}
        return None if document is None else key_of(named)


def peak_of(space: Space) -> tuple[float, float] | None:
    """[from, to) of the busiest stretch of the traffic, by tokens, as long as the plan says; None where it is short."""
    trace = space.built.trace
    if round(len(trace) * space.spec.search.peak_share) < FEWEST_PEAK:
        return None
    work = (trace.input_tokens + 4 * trace.output_tokens).astype(np.float64)
    span_s = trace.duration_s * space.spec.search.peak_share
    starts_s = np.linspace(trace.arrival_s[0], trace.arrival_s[-1] - span_s, PEAK_BINS)
    sums = np.concatenate([[0.0], np.cumsum(work)])
    first, last = np.searchsorted(trace.arrival_s, starts_s), np.searchsorted(trace.arrival_s, starts_s + span_s)
    start_s = float(starts_s[int(np.argmax(sums[last] - sums[first]))])
    return start_s, start_s + span_s


def _traffic(trace: Trace, peak: tuple[float, float] | None, replay: _Replay) -> Trace:
    cut = trace.window(*peak) if replay.stage == "peak" and peak is not None else trace
    return cut if replay.rate_scale == 1.0 else cut.scaled(rate=replay.rate_scale)


def _built(space: Space, peak: tuple[float, float] | None, replay: _Replay) -> Built:
    built = fleet_built(space, *replay.candidate, replay.down)
    return replace(built, trace=_traffic(built.trace, peak, replay))


@dataclass(frozen=True, slots=True)
class _Task:
    """One replay, in whatever process: plain data in, plain data out."""

    space: Space
    peak: tuple[float, float] | None
    exact: bool

    def __call__(self, replay: _Replay) -> dict[str, Any]:
        built = _built(self.space, self.peak, replay)
        policy = built.scenario.policies[0]
        run, summary = replayed(built, policy, exact=self.exact, progress=lambda done: None, stop=lambda: False)
        if replay.stage == "peak":
            return {"misses": misses(self.space, run)}
        return {"summary": summary, "timeline": utilisation(run)}
