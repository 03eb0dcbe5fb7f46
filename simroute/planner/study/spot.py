"""Replicas moved to spot machines: a pool is split in two that differ in their price and in that one is taken back.

Owns `SpotShare` and how it is applied. Policies see both pools, each with its price, as they see any.
Imports errors, hardware's catalogue and scenario.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from simroute.errors import CatalogueError, UnfitError, UsageError, unknown
from simroute.hardware import catalogue
from simroute.scenario.loader import changed
from simroute.scenario.models import PoolSpec, PriceSpec, Scenario
from simroute.scenario.parts import Name, NonNegative, Part, Positive
from simroute.scenario.variants import look_up

SUFFIX = "-spot"
"""Ends the name of the part of a pool that moves to spot machines."""
SPOT = "spot"


class SpotShare(Part):
    """Replicas that run on spot machines: how many, at what price, and how long they are left alone."""

    share: Annotated[float, Field(gt=0, le=1)]
    """Share of a pool's replicas, rounded to whole ones."""
    pool: Name | None = None
    """The pool (left out: every pool that is not on spot machines yet)."""
    price: Positive | None = None
    """Price of a spot machine as a share of the pool's own (left out: the catalogue's, of the pool's provider)."""
    mean_life_s: Positive = 86_400.0
    """Mean time until a machine is taken back: nobody publishes it, so it is an assumption."""
    notice_s: NonNegative = 120.0
    """Time to drain after the notice."""
    gap_s: NonNegative = 0.0
    """Time from the loss to the order of another one."""

    @property
    def shown(self) -> str:
        """In the name of a change: `50% of small on spot`."""
        return f"{100 * self.share:.3g}% of {self.pool or 'all replicas'} on spot"


def on_spot(scenario: Scenario, wanted: SpotShare) -> tuple[Scenario, list[str]]:
    """The scenario with that share of replicas on spot machines, and what was assumed, a line a pool.

    A part of a pool becomes a pool of its own right after it, in the zones where its replicas stood; a whole pool
    stays one. Raises UsageError for a pool that does not exist, UnfitError for one that cannot be split.
    """
    pools: list[dict[str, Any]] = []
    taken: list[dict[str, Any]] = []
    notes: list[str] = []
    affected = _affected(scenario, wanted)
    for pool in scenario.pools:
        moved = math.floor(wanted.share * pool.replicas + 0.5) if pool.name in affected else 0
        parts = [pool] if not moved else list(_parts(scenario, pool, moved, wanted))
        pools += [part.model_dump(mode="json") for part in parts]
        if moved:
            taken.append({"pool": parts[-1].name} | wanted.model_dump(include={"mean_life_s", "notice_s", "gap_s"}))
            notes.append(_note(pool, parts[-1], moved, wanted))
    if not taken:
        raise UnfitError([f"spot: {wanted.share:g} of the replicas of {', '.join(affected) or 'no pool'} is none"])
    wholly = {each["pool"] for each in taken}  # (parts of a pool have no failures of their own)
    kept = [each for each in scenario.model_dump(mode="json")["failures"]["spot"] if each["pool"] not in wholly]
    return changed(scenario, {"pools": pools, "failures.spot": kept + taken}), notes


def _affected(scenario: Scenario, wanted: SpotShare) -> list[str]:
    names = [pool.name for pool in scenario.pools]
    if wanted.pool is not None and wanted.pool not in names:
        raise UsageError(f"spot: {unknown('pool', wanted.pool, names)}")
    found = [pool for pool in scenario.pools if wanted.pool in (None, pool.name)]
    return [pool.name for pool in found if pool.price.term != SPOT]


def _parts(scenario: Scenario, pool: PoolSpec, moved: int, wanted: SpotShare) -> Iterator[PoolSpec]:
    """The part that stays, if any, and the one on spot machines."""
    price = _price(pool, wanted)
    stays = pool.replicas - moved
    if not stays:
        yield pool.model_copy(update={"price": price})
        return
    if pool.autoscale is not None:
        raise UnfitError([f"spot: pool {pool.name} scales by itself, so no share of it stays: move all of it"])
    if named := sorted(_named(scenario, pool.name)):
        raise UnfitError([f"spot: {', '.join(named)} names pool {pool.name} and would mean half of it: move all of it"])
    turn = stays % len(pool.zones)
    yield pool.model_copy(update={"replicas": stays})
    update = {"name": pool.name + SUFFIX, "replicas": moved, "price": price}
    yield pool.model_copy(update=update | {"zones": (*pool.zones[turn:], *pool.zones[:turn])})


def _named(scenario: Scenario, pool: str) -> Iterator[str]:
    """Failures that are about this pool: of its two parts they would hit the first alone."""
    for what, entries in scenario.failures:
        if any(getattr(entry, "pool", None) == pool for entry in entries):
            yield f"failures.{what}"


def _price(pool: PoolSpec, wanted: SpotShare) -> PriceSpec:
    if wanted.price is not None:
        return PriceSpec(usd_per_gpu_hour=look_up(pool).usd_per_gpu_hour * wanted.price)
    advice = "say what share of the pool's own price it is, as in {spot: {share: 0.5, price: 0.4}}"
    if pool.price.usd_per_gpu_hour is not None:
        raise UnfitError([f"spot: pool {pool.name} has a price of its own, which says nothing of spot: {advice}"])
    try:
        catalogue.price(pool.gpu, pool.price.provider, SPOT)
    except CatalogueError as error:
        raise UnfitError([f"spot: pool {pool.name}: {str(error).partition('; choose')[0]}; or {advice}"]) from None
    return PriceSpec(provider=pool.price.provider, term=SPOT)


def _note(pool: PoolSpec, part: PoolSpec, moved: int, wanted: SpotShare) -> str:
    found = look_up(part)
    life = f"taken back after {wanted.mean_life_s / 3600:.3g} h on average, with {wanted.notice_s:g} s of notice"
    again = f"another ordered {f'{wanted.gap_s:g} s later' if wanted.gap_s else 'at once'}"
    source = "" if wanted.price is not None else f" ({found.price_source})"
    paid = f"${found.usd_per_gpu_hour:.3g} an hour a GPU{source}"
    return f"{moved} of {pool.replicas} replicas of {pool.name} on spot machines at {paid}; assumed: {life}, {again}"
