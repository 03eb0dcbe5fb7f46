"""Which candidates the simulator is asked about, and what is known when it has answered.

Fleets of one option come first: for each option and policy the count is bisected between what the bounds need and
what the best fleet so far costs. Then mixed fleets, which a linear model proposes and whose neighbours are tried.
Then the cheaper fleets that nothing has ruled out (see `sweep`).
Owns `Search`. Imports policy and, of this room, bounds, candidates, evaluate, listing, mixes and sweep.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field

from simroute.planner.fleets.bounds import Bounds
from simroute.planner.fleets.candidates import Fleet, Space
from simroute.planner.fleets.evaluate import Candidate, Evaluator, Verdict
from simroute.planner.fleets.listing import Listing, below
from simroute.planner.fleets.mixes import proposals
from simroute.planner.fleets.sweep import AT_ONCE, Gap, gap_of, sweep, sweep_others
from simroute.policy.routing import ignores_floors

USUAL_UTILISATION = 0.6
MOST_PROPOSALS = 10
"""Sets of variants that the linear model may propose."""
MOST_NEIGHBOURS = 24
"""Fleets tried around each proposal."""
SWEPT_REQUESTS, FEWEST_SWEPT = 1_500_000, 16
"""Requests that the sweep may replay, and the candidates that it looks at however many requests they take."""
_LEAP = 1.35
_EQUAL = 1 + 1e-9

Line = Generator[Candidate, Verdict | None, None]
Stages = Callable[[float, str], None]
"""Is told the share of the work that is done, and what is being done."""


@dataclass
class Search:
    """One search of a space."""

    evaluator: Evaluator
    bounds: Bounds
    progress: Stages = lambda done, what: None
    notes: list[str] = field(default_factory=list)
    exhaustive: bool = True
    """Whether every cheaper fleet was simulated or ruled out by a bound."""
    gap: Gap | None = None
    """What is proved of the best fleet's cost, once the search has run."""
    _listing: tuple[float, Listing] = (0.0, Listing([], 0.0))
    _blind: list[bool] | None = None

    @property
    def space(self) -> Space:
        """What is searched."""
        return self.evaluator.space

    def run(self) -> None:
        """Search until done, stopped, or out of simulations."""
        self._lines()
        self._mixes()
        left = sweep(self, self.most_swept())
        self._verify()
        sweep_others(self, left)
        self.gap = gap_of(self)
        self.exhaustive = self.gap.closed

    @property
    def best(self) -> Verdict | None:
        """The cheapest fleet that keeps every promise; of equals the one with the lowest p99 TTFT."""
        good = [verdict for verdict in self.verdicts() if verdict.meets]
        return min(good, key=self.order, default=None)

    def verdicts(self) -> list[Verdict]:
        """Every verdict on the traffic as it is."""
        return [verdict for (_, scale), verdict in self.evaluator.verdicts.items() if scale == 1.0]

    def order(self, verdict: Verdict) -> tuple[float, float, Fleet, int]:
        """What fleets that keep their promises are ranked by, the least first."""
        fleet, policy = verdict.candidate
        ttft_s = verdict.summary["ttft_s"]["p99"] if verdict.summary else None
        cost = round(self.space.usd_per_month(fleet), 6)
        return cost, math.inf if ttft_s is None else ttft_s, fleet, policy

    @property
    def spent(self) -> bool:
        """Whether no more may be simulated."""
        evaluator = self.evaluator
        return evaluator.stopped or evaluator.whole_replays >= self.space.spec.search.most_simulations

    def cost_limit(self, factor: float = 1.0) -> float:
        """What a fleet may cost to be of interest: so many times the best so far."""
        best = self.best
        budget = self.space.spec.budget_usd_per_month
        limit = math.inf if budget is None else budget
        return limit if best is None else min(limit, self.space.usd_per_month(best.candidate.fleet) * factor) * _EQUAL

    def candidates(self, fleets: Iterable[Fleet]) -> list[Candidate]:
        """These fleets under every policy that they can be run under."""
        return [Candidate(fleet, p) for fleet in fleets for p in self.space.policies_for(fleet)]

    def by_chance(self, candidate: Candidate) -> bool:
        """Whether only some of a fleet's variants reach a class's floor, and its policy looks at no floors."""
        if self._blind is None:
            self._blind = [ignores_floors(policy.name, policy.options) for policy in self.space.spec.policies]
        able = self.bounds.able[[option for option, _ in candidate.fleet]]
        return self._blind[candidate.policy] and bool((able.any(axis=0) & ~able.all(axis=0)).any())

    def listed(self, usd_per_month: float) -> Listing:
        """The fleets up to this bill that nothing but a simulation can rule out."""
        asked, listing = self._listing
        if asked != usd_per_month and listing.covered_usd_per_month < usd_per_month:
            listing = below(self.space, self.bounds, usd_per_month)
            self._listing = usd_per_month, listing
        fleets, covered = listing
        kept = [fleet for fleet in fleets if self.space.usd_per_month(fleet) <= usd_per_month]
        return Listing(kept, min(covered, usd_per_month))

    def ask(self, candidates: Sequence[Candidate]) -> list[Verdict | None]:
        """A verdict on each, in order, None for those that a stop left unknown; failures are noted."""
        found = self.evaluator.ask(candidates)
        for verdict in found:
            if verdict is not None and verdict.error:
                note = f"not simulated: {self.space.key(*verdict.candidate)}: {verdict.error}"
                self.notes += [note] if note not in self.notes else []
        return found

    def _lines(self) -> None:
        """Every option under every policy, the most promising first, several side by side."""
        options = [o for o in range(len(self.space.options)) if self.bounds.variants_refused((o,)) is None]
        options.sort(key=lambda o: (self._floor(o) * self.space.options[o].usd_per_month, o))
        waiting = [self._line(o, policy) for o in options for policy in self.space.policies_for(((o, 1),))]
        total, waiting = len(waiting), waiting[::-1]
        running: list[tuple[Line, Candidate]] = []
        while (running or waiting) and not self.spent:
            while waiting and len(running) < AT_ONCE:
                self._advance(waiting.pop(), None, running)
            verdicts = self.ask([candidate for _, candidate in running])
            going, running = running, []
            for (line, _), verdict in zip(going, verdicts, strict=True):
                if verdict is not None:
                    self._advance(line, verdict, running)
            self.progress(0.6 * (1 - (len(waiting) + len(running)) / total), "fleets of one variant")

    @staticmethod
    def _advance(line: Line, verdict: Verdict | None, running: list[tuple[Line, Candidate]]) -> None:
        try:
            running.append((line, line.send(verdict)))
        except StopIteration:
            return

    def _floor(self, option: int) -> int:
        """The fewest replicas of a fleet of one option that no bound rules out, above its most where all are."""
        limits = self.space.options[option].replicas
        count = max(limits.min, self.bounds.least(option))
        while count <= limits.max and self.bounds.refusal(((option, count),)) == "throughput":
            count += 1
        while count <= limits.max and self.bounds.refusal(((option, count),)) == "availability":
            count += 1
        return count

    def _line(self, option: int, policy: int) -> Line:
        """Find the count from which the promises are kept, by leaps upward and bisection."""
        low, high = self._floor(option) - 1, None
        ask = low + 1
        load = self.bounds.least(option)
        ask = max(ask, math.floor(load / USUAL_UTILISATION * 0.9))
        while True:
            most = self._most(option, self.space.spec.search.frontier_cost)
            if high is None:
                if low >= most:
                    return
                ask = min(max(ask, low + 1), most)
            elif high - low <= 1:
                return
            else:
                ask = (low + high) // 2
            verdict = yield Candidate(((option, ask),), policy)
            if verdict is not None and verdict.meets:
                high = ask
            else:
                low = max(low, ask)
                ask = max(low + 1, math.floor(low * _LEAP))

    def _most(self, option: int, factor: float) -> int:
        """The most replicas of one option that are of interest and allowed."""
        found = self.space.options[option]
        price = found.usd_per_month
        limit = self.cost_limit(factor)
        most = min(found.replicas.max, self.space.spec.fleets.most_replicas)
        most = most if limit == math.inf or not price else min(most, int(limit / price))
        quota = self.space.quota(found.gpu)
        return most if quota is None else min(most, quota // found.gpus)

    def _mixes(self) -> None:
        """Around each fleet that the linear model proposes: fewer where it holds, more where it does not."""
        if self.space.spec.fleets.most_variants < 2:
            return
        listing = self.listed(self.cost_limit())
        complete = listing.covered_usd_per_month >= self.cost_limit()
        if complete and len(self.candidates(listing.fleets)) <= self.most_swept():
            return  # (the sweep asks about them all)
        for number, fleet in enumerate(proposals(self.space, self.bounds, self._utilisation(), MOST_PROPOSALS)):
            self.progress(0.6 + 0.2 * number / MOST_PROPOSALS, "mixed fleets")
            self._around(fleet)
            if self.spent:
                return

    def _utilisation(self) -> float:
        """How much of the best fleet's time its least work takes."""
        best = self.best
        if best is None or len(best.candidate.fleet) > 1:
            return USUAL_UTILISATION
        ((option, count),) = best.candidate.fleet
        used = [(float(self.bounds.seconds((option,), s).sum()), s) for s in self.bounds.stretches((option,))]
        if not used:  # (as few requests as may all miss)
            return USUAL_UTILISATION
        seconds, stretch = max(used, key=lambda pair: pair[0])
        load = seconds / stretch.length_s
        return min(max(load / count, 0.2), 0.95)

    def _around(self, start: Fleet) -> None:
        queue, seen = [start], {start}
        tried = 0
        while queue and tried < MOST_NEIGHBOURS and not self.spent:
            fleets = [queue.pop(0) for _ in range(min(len(queue), 3))]
            fleets = [f for f in fleets if self.of_interest(f)]
            tried += len(fleets)
            asked = [candidate for candidate in self.candidates(fleets) if not self.by_chance(candidate)]
            if not asked:
                continue
            verdicts = self.ask(asked)
            for fleet in fleets:
                own = [v for c, v in zip(asked, verdicts, strict=True) if c.fleet == fleet and v is not None]
                step = -1 if any(v.meets for v in own) else 1
                for neighbour in self.space.neighbours(fleet, step):
                    if neighbour not in seen:
                        seen.add(neighbour)
                        queue.append(neighbour)

    def of_interest(self, fleet: Fleet) -> bool:
        """Whether a fleet is cheap enough, allowed, and ruled out by no bound."""
        if self.space.usd_per_month(fleet) > self.cost_limit() or self.space.refusal(fleet) is not None:
            return False
        return self.bounds.refusal(fleet) is None

    def most_swept(self) -> int:
        """Fleets that may be simulated for no other reason than that nothing rules them out."""
        stated = self.space.spec.search.exhaustive
        if stated is not None:
            return stated
        available = self.space.spec.availability
        replays = 1 + available.lose_replicas + (len(available.zones) if available.lose_zones else 0)
        return max(SWEPT_REQUESTS // (self.evaluator.first_requests * replays), FEWEST_SWEPT)

    def _verify(self) -> None:
        """No fewer replicas of the best fleet's variants will do, and one more of each will: or it is said.

        Latency need not be monotone: of one variant, every count is simulated that no bound rules out.
        """
        verified: Candidate | None = None
        while (best := self.best) is not None and best.candidate != verified and not self.spent:
            verified = best.candidate
            fleet = best.candidate.fleet
            fewer: Iterable[Fleet] = self.space.neighbours(fleet, -1)
            if len(fleet) == 1:
                ((option, count),) = fleet
                fewer = [((option, n),) for n in range(self._floor(option), count)]
            self.ask(self.candidates(f for f in fewer if self.of_interest(f)))
        if best is not None and not self.spent:
            self._look_above(best.candidate)

    def _look_above(self, best: Candidate) -> None:
        """Whether one more replica of each variant keeps the promises as well, as one would think."""
        more = [f for f in self.space.neighbours(best.fleet, 1) if self.space.refusal(f) is None]
        for neighbour, verdict in zip(more, self.ask([Candidate(f, best.policy) for f in more]), strict=True):
            if verdict is not None and not verdict.meets and not verdict.error:
                self.notes.append(
                    f"not monotone: {self.space.key(neighbour, best.policy)} costs more than the best and breaks "
                    f"{', '.join(_named(verdict))}"
                )


def _named(verdict: Verdict) -> list[str]:
    return [f"{c.constraint}{f' of {c.request_class}' if c.request_class else ''}" for c in verdict.violations]
