"""What the answer hangs on: the cost of the cheapest fleet if one thing were otherwise, for everything in `worlds`.

In each of these worlds fleets around those that were found are simulated, of the variants and under the policies of
the best plan, the runner-up and the frontier: not the whole search anew. Prices need no simulation.
Imports, of the planner, bounds, candidates, evaluate, search and worlds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from simroute.planner.answer.worlds import SHARE, End, factors, restricted
from simroute.planner.fleets.bounds import Bounds
from simroute.planner.fleets.candidates import Fleet, Space, within
from simroute.planner.fleets.evaluate import Candidate, Evaluator, Verdict
from simroute.planner.fleets.search import Search

MOST_SHAPES = 4
"""Choices of variants with a policy that are looked at, the cheapest ones."""
MOST_TRIED = 16
"""Fleets of one shape that are simulated in one world."""
FEW = 6
"""So many that fail, and it is seen whether twice as many replicas fail too."""
AT_ONCE = 3

Entry = dict[str, Any]


def sensitivity(
    search: Search, best: Verdict, others: Sequence[Verdict], progress: Callable[[float], None] = lambda done: None
) -> tuple[list[Entry], list[str]]:
    """An entry a factor, as in plan.json, and notes on those that were not looked at.

    `others` are the runner-up and the frontier. At most `search.sensitivity` replays of the whole trace are made: a
    factor that they do not suffice for is left out.
    """
    limit = search.space.spec.search.sensitivity
    if not limit:
        return [], []
    near = _Near.of(search, [best, *others], limit)
    base = {"cost_usd_per_month": search.space.usd_per_month(best.candidate.fleet), "fleet": _key(search.space, best)}
    found, missing = [], []
    wanted = list(factors(near.space))
    for number, factor in enumerate(wanted):
        progress(number / len(wanted))
        ends = [_end(near, end, base) for end in (factor.low, factor.high)]
        if None in ends:
            missing.append(factor.name)
        else:
            found.append({"factor": factor.name, "low": ends[0], "high": ends[1]})
    notes = []
    if missing and not search.evaluator.stopped:
        notes.append(f"sensitivity to {', '.join(missing)} not found within search.sensitivity: {limit} replays")
    return [*found, *_prices(search, best)], notes


def _end(near: _Near, end: End, base: Entry) -> Entry | None:
    """The cheapest fleet with one value of a factor; None where that is not known."""
    if end.space is None:
        return {"label": end.label, **base}
    known, cheapest = near.cheapest(end.space())
    if not known:
        return None
    space = near.space
    cost = None if cheapest is None else space.usd_per_month(cheapest.fleet)
    return {"label": end.label, "cost_usd_per_month": cost, "fleet": cheapest and space.key(*cheapest)}


def _prices(search: Search, best: Verdict) -> list[Entry]:
    """What a kind of GPU of the best plan costs, more or less: all fleets that were simulated, at other prices."""
    space, good = search.space, [verdict for verdict in search.verdicts() if verdict.meets]
    found = []
    for gpu in space.gpus(best.candidate.fleet):
        entry: Entry = {"factor": f"price of {gpu}"}
        for end, factor in (("low", 1 - SHARE), ("high", 1 + SHARE)):
            priced = {id(v): _priced(space, v.candidate.fleet, gpu, factor) for v in good}
            cheapest = min(good, key=lambda v: (priced[id(v)], search.order(v)))
            cost = priced[id(cheapest)]
            entry[end] = {
                "label": f"{factor - 1:+.0%}",
                "cost_usd_per_month": cost,
                "fleet": _key(space, cheapest),
            }
        found.append(entry)
    return found


def _priced(space: Space, fleet: Fleet, gpu: str, factor: float) -> float:
    options = ((space.options[option], count) for option, count in fleet)
    return sum(o.usd_per_month * count * (factor if o.gpu == gpu else 1.0) for o, count in options)


def _key(space: Space, verdict: Verdict) -> str:
    return space.key(*verdict.candidate)


@dataclass
class _Near:
    """The fleets that are looked at in every world: those of `starts`, cheapest first, and what lies around them."""

    evaluator: Evaluator
    space: Space
    starts: list[Candidate]
    left: int
    bounds: Bounds

    @classmethod
    def of(cls, search: Search, verdicts: Sequence[Verdict], limit: int) -> _Near:
        """A start for each shape among the verdicts."""
        shapes: dict[tuple[tuple[int, ...], int], Candidate] = {}
        for verdict in sorted(verdicts, key=search.order):
            fleet, policy = verdict.candidate
            shapes.setdefault((tuple(option for option, _ in fleet), policy), verdict.candidate)
        chosen = list(shapes.values())[:MOST_SHAPES]
        options = sorted({option for fleet, _ in chosen for option, _ in fleet})
        policies = sorted({policy for _, policy in chosen})
        space = restricted(search.space, options, policies)
        starts = [
            Candidate(tuple((options.index(option), count) for option, count in fleet), policies.index(policy))
            for fleet, policy in chosen
        ]
        return cls(search.evaluator, space, starts, limit, Bounds(space))

    def cheapest(self, world: Space) -> tuple[bool, Candidate | None]:
        """Whether the world was looked at to the end, and the cheapest fleet that keeps its promises there, if any."""
        evaluator = self.evaluator.beside(world)
        look = _Look(evaluator, Bounds(world), self.left)
        starts = [Candidate(self._guess(look.bounds, start.fleet), start.policy) for start in self.starts]
        complete = all(look.around(start) for start in starts)
        self.left -= evaluator.whole_replays
        self.evaluator.stopped = evaluator.stopped
        return complete, look.best

    def _guess(self, bounds: Bounds, fleet: Fleet) -> Fleet:
        """The fleet with as many more replicas as there is more work."""
        options = [option for option, _ in fleet]
        before, after = _work(self.bounds, options), _work(bounds, options)
        growth = after / before if before > 0 and math.isfinite(after) else 1.0
        ranges = [self.space.options[option].replicas for option in options]
        counts = [min(max(round(n * growth), r.min), r.max) for (_, n), r in zip(fleet, ranges, strict=True)]
        return tuple(zip(options, counts, strict=True))


@dataclass
class _Walk:
    """Fleets of one shape under one policy: those to look at next, and what is known of the others.

    `held` says that one of them keeps its promises, `doubted` that it was asked whether any does.
    """

    start: Candidate
    queue: list[Fleet]
    seen: set[Fleet]
    failed: list[Fleet] = field(default_factory=list)
    tried: int = 0
    held: bool = False
    doubted: bool = False

    @classmethod
    def of(cls, space: Space, start: Candidate) -> _Walk:
        """The start, and beside it the fleets that must fail if it is the answer."""
        fleets = [start.fleet, *space.neighbours(start.fleet, -1)]
        return cls(start, fleets, set(fleets))

    def go_on(self, fleets: Iterable[Fleet]) -> None:
        """Look at these too, unless that was done."""
        for fleet in fleets:
            if fleet not in self.seen:
                self.seen.add(fleet)
                self.queue.append(fleet)


@dataclass
class _Look:
    """One look at a world: the best fleet so far. `limit` is the most replays of the whole trace."""

    evaluator: Evaluator
    bounds: Bounds
    limit: int
    best: Candidate | None = None

    def around(self, start: Candidate) -> bool:
        """Fewer replicas where a fleet holds or is too dear, more where it fails; False where it could not be ended."""
        walk = _Walk.of(self.evaluator.space, start)
        while batch := self._batch(walk):
            if walk.tried >= FEW and not (walk.held or walk.doubted) and self._hopeless(walk):
                return True
            if walk.tried >= MOST_TRIED or not self._asked(batch, walk):
                return False
        return True

    def _batch(self, walk: _Walk) -> list[Fleet]:
        """The next fleets that only the simulator can tell about; of the others it is known where they lead."""
        space = self.evaluator.space
        found: list[Fleet] = []
        while walk.queue and len(found) < AT_ONCE:
            fleet = walk.queue.pop(0)
            if self._dear(fleet) or space.refusal(fleet) is not None:
                walk.go_on(space.neighbours(fleet, -1))
            elif self.bounds.refusal(fleet) is not None or any(within(fleet, failed) for failed in walk.failed):
                walk.go_on(space.neighbours(fleet, 1))
            else:
                found.append(fleet)
        return found

    def _dear(self, fleet: Fleet) -> bool:
        """Whether it costs no less than the best so far."""
        cost = self.evaluator.space.usd_per_month
        return self.best is not None and cost(fleet) >= cost(self.best.fleet) * (1 - 1e-9)

    def _asked(self, fleets: Sequence[Fleet], walk: _Walk) -> bool:
        """Ask about these and go on from the answers; False where one is missing."""
        if self.evaluator.whole_replays >= self.limit:
            return False
        walk.tried += len(fleets)
        verdicts = self.evaluator.ask([Candidate(fleet, walk.start.policy) for fleet in fleets])
        for fleet, verdict in zip(fleets, verdicts, strict=True):
            if verdict is None:
                return False
            if verdict.meets:
                walk.held = True
                self.best = self.best if self._dear(fleet) else verdict.candidate
            else:
                walk.failed.append(fleet)
            walk.go_on(self.evaluator.space.neighbours(fleet, -1 if verdict.meets else 1))
        return True

    def _hopeless(self, walk: _Walk) -> bool:
        """Whether even twice as many replicas fail, as far as there may be so many: then more of them do not help."""
        space = self.evaluator.space
        options = [(space.options[option].replicas.max, option, count) for option, count in walk.start.fleet]
        twice = tuple((option, min(2 * count, most)) for most, option, count in options)
        walk.doubted = True
        if space.refusal(twice) is not None:
            return False
        (verdict,) = self.evaluator.ask([Candidate(twice, walk.start.policy)])
        return verdict is not None and not verdict.meets


def _work(bounds: Bounds, options: Sequence[int]) -> float:
    """Replicas that the busiest stretch keeps busy at least, each request on the option that does it soonest."""
    return max(
        (float(bounds.seconds(options, each).min(axis=0).sum()) / each.length_s for each in bounds.stretches(options)),
        default=0.0,
    )
