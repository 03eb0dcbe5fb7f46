"""The fleets that a search has not come by: those cheaper than the best, and other variants than its own.

Where they are few, all are simulated and nothing is left to belief. Where they are many, a fleet is presumed to fail
when one with as much of everything has failed under the same policy, and `gap_of` says how much of the bill is proved.
Owns `Gap`. Imports, of this room, candidates and evaluate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from simroute.planner.fleets.candidates import Fleet, differs, within
from simroute.planner.fleets.evaluate import Candidate, Verdict

if TYPE_CHECKING:
    from simroute.planner.fleets.search import Search

AT_ONCE = 8
"""Candidates asked about together, however many processes there are: the search does not depend on them."""
_LESS = 1 - 1e-9


@dataclass(frozen=True, slots=True)
class Gap:
    """Between the least bill that is proved and the best fleet's.

    Every candidate below `proved_usd_per_month` was simulated or ruled out by a bound (None: every one there is, and
    none will do). From there to the best fleet's bill, `unsimulated` candidates were not; `counted` says whether these
    are all of them. `closed`: nor was any left that costs as much as the best.
    """

    proved_usd_per_month: float | None
    best_usd_per_month: float | None
    unsimulated: int
    counted: bool
    closed: bool

    def document(self) -> dict[str, Any]:
        """As in plan.json."""
        return {
            "proved_usd_per_month": self.proved_usd_per_month,
            "unsimulated": self.unsimulated,
            "share": self.share,
            "text": self.text,
        }

    @property
    def share(self) -> float | None:
        """How much less than the best fleet's bill might do, at most, as a share of it; None without a best fleet."""
        if self.best_usd_per_month is None or self.proved_usd_per_month is None:
            return None
        return 1 - self.proved_usd_per_month / self.best_usd_per_month if self.best_usd_per_month else 0.0

    @property
    def text(self) -> str:
        """In words, in one line."""
        open_, best = self.unsimulated or not self.counted, self.best_usd_per_month
        if not open_:
            which = "no fleet here can do it" if best is None else "no cheaper fleet can do it"
            return f"{which}: each was simulated, or ruled out by a bound or a limit"
        many = f"{'' if self.counted else 'at least '}{self.unsimulated:,} candidates were not simulated"
        proved = f"no fleet below ${self.proved_usd_per_month:,.0f} a month can do it (proved)"
        if best is None:
            return f"{proved}; of the dearer ones, {many}"
        return f"{proved}; between that and ${best:,.0f}, {many}: {self.share:.1%} of the bill might be saved at most"


def sweep(search: Search, most: int) -> int:
    """Simulate the fleets as cheap as the best or cheaper that nothing has ruled out, all if these are at most `most`.

    If they are more, half as many with more of something than every fleet that failed, the dearest first, but last
    those that could keep a floor by chance alone; then the cheapest, which raises what is proved. Gives back how many
    of `most` are left.
    """
    listing = search.listed(search.cost_limit())
    waiting = _unknown(search, listing.fleets)
    if listing.covered_usd_per_month >= search.cost_limit() and len(waiting) <= most:
        return most - _asked(search, waiting, most, "cheaper fleets")
    dearest = waiting[::-1]
    promising = sorted(dearest, key=search.by_chance)
    asked = _asked(search, promising, most // 2, "cheaper fleets", believing=True)
    cheapest = _unknown(search, search.listed(search.cost_limit()).fleets)
    return most - asked - _asked(search, cheapest, most - asked, "the cheapest fleets")


def sweep_others(search: Search, most: int) -> None:
    """Simulate the fleets of other variants than the best's, the cheapest first, until one keeps every promise.

    Not where these are more than `most`, or dearer than the frontier reaches: then it is said.
    """
    best = search.best
    if best is None or search.spent:
        return
    space, second = search.space, _second(search, best)
    limit = min(search.cost_limit(space.spec.search.frontier_cost), second)
    listing = search.listed(limit)
    waiting = _unknown(search, [f for f in listing.fleets if differs(f, best.candidate.fleet)])
    waiting = [c for c in waiting if space.usd_per_month(c.fleet) < second * _LESS]
    counted = listing.covered_usd_per_month >= limit
    if counted and len(waiting) <= most:
        _asked(search, waiting, most, "the runner-up", too_dear=lambda: _second(search, best))
    else:
        many = f"{len(waiting):,}" if counted else f"{len(waiting):,} or more"
        search.notes.append(
            f"the runner-up is the cheapest found: {many} cheaper candidates of other variants than the best fleet's "
            "were not simulated"
        )


def gap_of(search: Search) -> Gap:
    """What is proved of the best fleet's bill, by the verdicts there are."""
    space, best = search.space, search.best
    cost = None if best is None else space.usd_per_month(best.candidate.fleet)
    limit = search.cost_limit()
    listing = search.listed(limit)
    left = [space.usd_per_month(c.fleet) for c in _unknown(search, listing.fleets, failed=True)]
    cheaper = left if cost is None else [each for each in left if each < cost * _LESS]
    counted = listing.covered_usd_per_month >= limit
    proved = min(cheaper, default=cost if counted else listing.covered_usd_per_month)
    return Gap(proved, cost, len(cheaper), counted, counted and not left)


def _second(search: Search, best: Verdict) -> float:
    """What the cheapest fleet of other variants that is known to keep every promise costs; infinite without one."""
    good = [v.candidate.fleet for v in search.verdicts() if v.meets]
    others = [fleet for fleet in good if differs(fleet, best.candidate.fleet)]
    return min(map(search.space.usd_per_month, others), default=float("inf"))


def _unknown(search: Search, fleets: Iterable[Fleet], *, failed: bool = False) -> list[Candidate]:
    """The candidates of these fleets without a verdict; with `failed` also those that could not be simulated."""
    known = {v.candidate for v in search.verdicts() if not (failed and v.error)}
    return [candidate for candidate in search.candidates(fleets) if candidate not in known]


def _asked(
    search: Search,
    waiting: Sequence[Candidate],
    most: int,
    what: str,
    *,
    believing: bool = False,
    too_dear: Callable[[], float] | None = None,
) -> int:
    """Ask about candidates in their order, without those that have become too dear; gives back how many were asked.

    When `believing`, also without those that presumably fail.
    """
    total, asked = len(waiting), 0
    while waiting and asked < most and not search.spent:
        search.progress(0.8 + 0.15 * (1 - len(waiting) / total), what)
        limit = search.cost_limit() if too_dear is None else too_dear()
        failed = [v.candidate for v in search.verdicts() if not v.meets and not v.error] if believing else []
        batch, waiting = _next(search, waiting, min(AT_ONCE, most - asked), limit, failed)
        asked += len(batch)
        search.ask(batch)
    return asked


def _next(
    search: Search, waiting: Sequence[Candidate], most: int, limit: float, failed: Sequence[Candidate]
) -> tuple[list[Candidate], Sequence[Candidate]]:
    """The next candidates to ask about, and those after them."""
    batch: list[Candidate] = []
    for place, candidate in enumerate(waiting):
        if len(batch) == most:
            return batch, waiting[place:]
        fleet, policy = candidate
        if search.space.usd_per_month(fleet) > limit:
            continue
        if not any(other.policy == policy and within(fleet, other.fleet) for other in failed):
            batch.append(candidate)
    return batch, []
