"""What to buy next: replicas added one at a time to fleets that miss their targets, until each meets them.

Imports of the planner cells, executor and targets, and scenario's models through them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from simroute.planner.execution.executor import Progress, portion
from simroute.planner.study.cells import At, Cells
from simroute.planner.targets import nearness

MOST = 4
"""Replicas that are added before it is given up."""
MOST_REPLAYS = 48
"""Replays that the purchases of all changes may ask for together; those of the scenario as it is are not counted."""


class Need(NamedTuple):
    """A variation that misses its targets at a rate."""

    variation: int
    rate: float


@dataclass(frozen=True, slots=True)
class Offer:
    """One more replica of a pool, on top of what was bought before: what it brings and costs."""

    pool: str
    at: At
    usd_per_month: float
    meets: bool
    gain: float


@dataclass(frozen=True, slots=True)
class Purchase:
    """A step: what every pool would have brought, and which was taken."""

    rate: float
    offers: tuple[Offer, ...]
    best: Offer


@dataclass(slots=True)
class Buying:
    """What was bought, by variation, and the variations for which it was not looked (further), for want of replays.

    At every step the best is taken: the cheapest that meets all targets, else the one that comes nearest to them for
    its money. Pools that scale by themselves are left alone.
    """

    cells: Cells
    bought: dict[int, list[Purchase]] = field(default_factory=dict)
    cut_short: list[int] = field(default_factory=list)
    _asked: int = 0

    def look(self, needs: Sequence[Need], progress: Progress | None = None) -> None:
        """Step by step for all needs at once; the first variation comes first and needs no budget."""
        fleets = {need: At(need.variation, need.rate) for need in needs}
        for step in range(MOST):
            wanted = {need: offers for need, at in fleets.items() if (offers := self._afforded(at))}
            asked = [more for offers in wanted.values() for more in offers.values()]
            if not asked:
                return
            self.cells.ask(asked, portion(progress, 1 - 0.5**step, 1 - 0.5 ** (step + 1)))
            fleets = {
                need: best.at
                for need, offers in wanted.items()
                if (best := self._taken(need, fleets[need], offers)) is not None and not best.meets
            }
            if self.cells.interrupted:
                return

    def _afforded(self, at: At) -> dict[str, At]:
        """One replica more of each pool, while there are replays left for all of them."""
        pools = [p.name for p in self.cells.variations[at.variation].built.scenario.pools if p.autoscale is None]
        if at.variation:
            if self._asked + len(pools) > MOST_REPLAYS:
                self.cut_short.append(at.variation)
                return {}
            self._asked += len(pools)
        return {pool: At(at.variation, at.rate, (*at.bought, pool)) for pool in pools}

    def _taken(self, need: Need, before: At, wanted: dict[str, At]) -> Offer | None:
        """The best of what was asked for; None where nothing came, or not all of it."""
        if any(at not in self.cells.known and at not in self.cells.failed for at in wanted.values()):
            return None
        known = {pool: at for pool, at in wanted.items() if at in self.cells.known}
        offers = [_offer(self.cells, before, pool, at) for pool, at in known.items()]
        if not offers:
            return None
        best = min(offers, key=_preference)
        self.bought.setdefault(need.variation, []).append(Purchase(need.rate, tuple(offers), best))
        return best


def first_break(cells: Cells, variation: int, steps: Sequence[float]) -> float | None:
    """The lowest of the rates `steps` at which `variation` misses its targets, as far as is known."""
    return next((r for r in cells.rates(variation) if r in steps and not cells.holds(At(variation, r))), None)


def _offer(cells: Cells, before: At, pool: str, more: At) -> Offer:
    old, new = cells.known[before], cells.known[more]
    price = new["cost_usd_per_month"] - old["cost_usd_per_month"]
    return Offer(pool, more, price, cells.holds(more), nearness(new) - nearness(old))


def _preference(offer: Offer) -> tuple[bool, float, str]:
    """The least first: whether it misses the targets, then its price or what is gained for it."""
    worth = offer.usd_per_month if offer.meets else -offer.gain / max(offer.usd_per_month, 1e-9)
    return not offer.meets, worth, offer.pool
