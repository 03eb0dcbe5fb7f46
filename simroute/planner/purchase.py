"""What to buy next: replicas added one at a time to a fleet that misses its targets, until it meets them.

Imports of this room cells and targets, and scenario's models through them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from simroute.planner.cells import At, Cells, Progress, within
from simroute.planner.targets import nearness

MOST = 4
"""Replicas that are added before it is given up."""


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


def purchases(cells: Cells, variation: int, steps: Sequence[float], progress: Progress | None) -> Iterator[Purchase]:
    """Add replicas at the first of the rates `steps` at which `variation` breaks: the best, then the best beside it.

    The best is the cheapest that meets all targets, else the one that comes nearest to them for its money. Pools that
    scale by themselves are left alone.
    """
    rate = next((r for r in cells.rates(variation) if r in steps and not cells.holds(At(variation, r))), None)
    pools = [p.name for p in cells.variations[variation].built.scenario.pools if p.autoscale is None]
    if rate is None or not pools:
        return
    at = At(variation, rate)
    for step in range(MOST):
        wanted = {pool: At(variation, rate, (*at.bought, pool)) for pool in pools}
        cells.ask(list(wanted.values()), within(progress, 1 - 0.5**step, 1 - 0.5 ** (step + 1)))
        offers = [_offer(cells, at, pool, more) for pool, more in wanted.items() if more in cells.known]
        if not offers or cells.interrupted:
            return
        best = min(offers, key=_preference)
        yield Purchase(rate, tuple(offers), best)
        if best.meets:
            return
        at = best.at


def _offer(cells: Cells, before: At, pool: str, more: At) -> Offer:
    old, new = cells.known[before], cells.known[more]
    price = new["cost_usd_per_month"] - old["cost_usd_per_month"]
    return Offer(pool, more, price, cells.holds(more), nearness(new) - nearness(old))


def _preference(offer: Offer) -> tuple[bool, float, str]:
    """The least first: whether it misses the targets, then its price or what is gained for it."""
    worth = offer.usd_per_month if offer.meets else -offer.gain / max(offer.usd_per_month, 1e-9)
    return not offer.meets, worth, offer.pool
