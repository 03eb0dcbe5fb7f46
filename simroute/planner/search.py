"""Which candidates the simulator is asked about, and what is known when it has answered.

Fleets of one option come first: for each option and policy the count is bisected between what the bounds need and
what the best fleet so far costs. Then mixed fleets, which a linear model proposes and whose neighbours are tried.
Then every cheaper fleet that nothing has ruled out, where these are few enough to leave nothing to belief.
Owns `Search`. Imports, of this room, bounds, candidates, evaluate and mixes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field

from simroute.planner.bounds import Bounds
from simroute.planner.candidates import Fleet, Space
from simroute.planner.evaluate import Candidate, Evaluator, Verdict
from simroute.planner.mixes import below, proposals

AT_ONCE = 8
"""Candidates asked about together, however many processes there are: the search does not depend on them."""
USUAL_UTILISATION = 0.6
MOST_PROPOSALS = 10
"""Sets of variants that the linear model may propose."""
MOST_NEIGHBOURS = 24
"""Fleets tried around each proposal."""
SWEPT_REQUESTS, FEWEST_SWEPT = 1_500_000, 16
"""Requests that the last sweep may replay, and the candidates that it looks at however many requests they take."""
_LEAP = 1.35
_EQUAL = 1 + 1e-9

Line = Generator[Candidate, Verdict | None, None]
Progress = Callable[[float, str], None]


@dataclass
class Search:
    """One search of a space; `limits` says whether budget and quotas count."""

    evaluator: Evaluator
    bounds: Bounds
    progress: Progress = lambda done, what: None
    notes: list[str] = field(default_factory=list)
    exhaustive: bool = True
    """Whether every cheaper fleet was simulated or ruled out by a bound."""

    @property
    def space(self) -> Space:
        """What is searched."""
        return self.evaluator.space

    def run(self) -> None:
        """Search until done, stopped, or out of simulations."""
        self._lines()
        self._mixes()
        self._sweep()
        self._verify()

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

    def _cost_limit(self, factor: float = 1.0) -> float:
        """What a fleet may cost to be of interest: so many times the best so far."""
        best = self.best
        budget = self.space.spec.budget_usd_per_month
        limit = math.inf if budget is None else budget
        return limit if best is None else min(limit, self.space.usd_per_month(best.candidate.fleet) * factor) * _EQUAL

    def _ask(self, candidates: Sequence[Candidate]) -> list[Verdict | None]:
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
        waiting = [self._line(o, policy) for o in options for policy in range(len(self.space.spec.policies))]
        total, waiting = len(waiting), waiting[::-1]
        running: list[tuple[Line, Candidate]] = []
        while (running or waiting) and not self.spent:
            while waiting and len(running) < AT_ONCE:
                self._advance(line := waiting.pop(), None, running)
                del line
            verdicts = self._ask([candidate for _, candidate in running])
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
        limit = self._cost_limit(factor)
        most = min(found.replicas.max, self.space.spec.fleets.most_replicas)
        most = most if limit == math.inf or not price else min(most, int(limit / price))
        quota = self.space.quota(found.gpu)
        return most if quota is None else min(most, quota // found.gpus)

    def _mixes(self) -> None:
        """Around each fleet that the linear model proposes: fewer where it holds, more where it does not."""
        if self.space.spec.fleets.most_variants < 2:
            return
        listed, complete = below(self.space, self.bounds, self._cost_limit())
        if complete and len(listed) * len(self.space.spec.policies) <= self._most_swept():
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
        stretch = max(self.bounds.stretches((option,)), key=lambda s: float(self.bounds.seconds((option,), s).sum()))
        load = float(self.bounds.seconds((option,), stretch).sum()) / stretch.length_s
        return min(max(load / count, 0.2), 0.95)

    def _around(self, start: Fleet) -> None:
        queue, seen = [start], {start}
        tried = 0
        while queue and tried < MOST_NEIGHBOURS and not self.spent:
            fleets = [queue.pop(0) for _ in range(min(len(queue), 3))]
            fleets = [f for f in fleets if self._of_interest(f)]
            tried += len(fleets)
            asked = [Candidate(f, p) for f in fleets for p in range(len(self.space.spec.policies))]
            verdicts = self._ask(asked)
            for fleet in fleets:
                own = [v for c, v in zip(asked, verdicts, strict=True) if c.fleet == fleet and v is not None]
                step = -1 if any(v.meets for v in own) else 1
                for neighbour in neighbours(self.space, fleet, step):
                    if neighbour not in seen:
                        seen.add(neighbour)
                        queue.append(neighbour)

    def _of_interest(self, fleet: Fleet) -> bool:
        """Whether a fleet is cheap enough, allowed, and ruled out by no bound."""
        if self.space.usd_per_month(fleet) > self._cost_limit() or self.space.refusal(fleet) is not None:
            return False
        return self.bounds.refusal(fleet) is None

    def _sweep(self) -> None:
        """Every fleet as cheap as the best or cheaper that nothing has ruled out, if these are few.

        If they are many, only those with more of something than every fleet that failed, the dearest first.
        """
        policies = range(len(self.space.spec.policies))
        lone = [f for f in self.space.lone_fleets() if self._of_interest(f)]
        mixed, complete = below(self.space, self.bounds, self._cost_limit())
        known = {c for (c, scale) in self.evaluator.verdicts if scale == 1.0}
        fleets = sorted([*lone, *mixed], key=self.space.usd_per_month)
        waiting = [c for fleet in fleets for p in policies if (c := Candidate(fleet, p)) not in known]
        most = self._most_swept()
        self.exhaustive = complete and len(waiting) <= most
        waiting = waiting if self.exhaustive else waiting[::-1]
        total, left = len(waiting), len(waiting) if self.exhaustive else most // 2
        while waiting and left > 0 and not self.spent:
            self.progress(0.8 + 0.15 * (1 - len(waiting) / total), "cheaper fleets")
            batch, waiting = self._next(waiting, min(AT_ONCE, left))
            left -= len(batch)
            self._ask(batch)
        self.exhaustive = self.exhaustive and not waiting
        if not self.exhaustive and not self.evaluator.stopped:
            self.notes.append(
                "some cheaper fleets were not simulated: they have no more of any variant than a fleet that failed, or "
                "the linear model did not propose them; raise search.exhaustive to simulate them all"
            )

    def _most_swept(self) -> int:
        """Fleets that may be simulated for no other reason than that nothing rules them out."""
        stated = self.space.spec.search.exhaustive
        if stated is not None:
            return stated
        available = self.space.spec.availability
        replays = 1 + available.lose_replicas + (len(available.zones) if available.lose_zones else 0)
        return max(SWEPT_REQUESTS // (self.evaluator.first_requests * replays), FEWEST_SWEPT)

    def _next(self, waiting: Sequence[Candidate], most: int) -> tuple[list[Candidate], list[Candidate]]:
        """The next candidates to ask about, and those after them: without what has become too dear, or presumably
        fails because a fleet with as much of everything has failed under the same policy."""
        limit = self._cost_limit()
        failed = [] if self.exhaustive else [v.candidate for v in self.verdicts() if not v.meets and not v.error]
        batch: list[Candidate] = []
        for place, candidate in enumerate(waiting):
            if len(batch) == most:
                return batch, list(waiting[place:])
            fleet, policy = candidate
            if self.space.usd_per_month(fleet) > limit:
                continue
            if not any(other.policy == policy and within(fleet, other.fleet) for other in failed):
                batch.append(candidate)
        return batch, []

    def _verify(self) -> None:
        """One replica less of each variant of the best fleet fails, one more holds: or it is said that it does not."""
        best = self.best
        if best is None or self.spent:
            return
        fleet, policy = best.candidate
        fewer = [f for f in neighbours(self.space, fleet, -1) if self.bounds.refusal(f) is None]
        more = list(neighbours(self.space, fleet, 1))
        verdicts = self._ask([Candidate(f, policy) for f in (*fewer, *more)])
        for neighbour, verdict in zip((*fewer, *more), verdicts, strict=True):
            if neighbour in more and verdict is not None and not verdict.meets and not verdict.error:
                self.notes.append(
                    f"not monotone: {self.space.key(neighbour, policy)} costs more than the best and breaks "
                    f"{', '.join(_named(verdict))}"
                )


def _named(verdict: Verdict) -> list[str]:
    return [f"{c.constraint}{f' of {c.request_class}' if c.request_class else ''}" for c in verdict.violations]


def neighbours(space: Space, fleet: Fleet, step: int) -> Iterable[Fleet]:
    """The fleet with one replica more (or less) of one of its variants, within the options' ranges."""
    found = []
    for place, (option, count) in enumerate(fleet):
        limits = space.options[option].replicas
        if limits.min <= count + step <= limits.max:
            found.append((*fleet[:place], (option, count + step), *fleet[place + 1 :]))
    return [f for f in found if sum(count for _, count in f) <= space.spec.fleets.most_replicas]


def within(small: Fleet, large: Fleet) -> bool:
    """Whether `large` has at least as much of every option."""
    have = dict(large)
    return all(have.get(option, 0) >= count for option, count in small)
