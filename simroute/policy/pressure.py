"""Pressure with hysteresis: when a pool counts as full, and when it has room again.

Shared by the policies that spill from one pool to another. May import errors, policy.context and policy.snapshot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field, model_validator

from simroute.errors import UsageError, unknown
from simroute.policy.context import PolicyContext
from simroute.policy.snapshot import Snapshot, VariantInfo


class Band(BaseModel):
    """Hysteresis: a signal at `enter` or above puts a pool under pressure, below `leave` it has room again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enter: float = Field(gt=0.0, allow_inf_nan=False)
    leave: float = Field(gt=0.0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _ordered(self) -> Band:
        if self.leave > self.enter:
            raise ValueError(f"leave must not be above enter, got leave {self.leave:g} and enter {self.enter:g}")
        return self


class PoolBands(BaseModel):
    """One pool's own thresholds; what is left out is as for every pool."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kv_cache_usage: Band | None = None
    occupancy: Band | None = None
    waiting: Band | None = None


class PressureOptions(BaseModel):
    """When a pool is under pressure. Signals are means over its replicas; any one of them suffices.

    `kv_cache_usage`: 0..1. `occupancy`: requests on a replica over its `max_num_seqs`. `waiting`: requests waiting in
    its queue, which is what grows first when long prompts use up the compute. `pools` overrides them by pool name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kv_cache_usage: Band = Band(enter=0.85, leave=0.75)
    occupancy: Band = Band(enter=0.90, leave=0.75)
    waiting: Band = Band(enter=8.0, leave=2.0)
    pools: Mapping[str, PoolBands] = Field(default_factory=dict)


class PoolPressure:
    """One pool's ready replicas and whether it is under pressure.

    Thresholds are kept as sums over the replicas, which spares a division a signal a request. `least` and `fewest`
    are the replica with the fewest requests in flight and that number, as of the last look (`has_room`).
    """

    __slots__ = ("_bands", "_enter", "_leave", "fewest", "least", "max_num_seqs", "pressed", "price", "replicas")

    def __init__(self, options: PressureOptions, variant: VariantInfo) -> None:
        own = options.pools.get(variant.pool, PoolBands())
        self._bands = (
            own.kv_cache_usage or options.kv_cache_usage,
            own.occupancy or options.occupancy,
            own.waiting or options.waiting,
        )
        self.price = variant.usd_per_1m_tokens
        self.max_num_seqs = variant.max_num_seqs
        self.pressed = False
        self.least = -1
        self.fewest = 0
        self.staff(())

    def staff(self, replicas: tuple[int, ...]) -> None:
        """These replicas take requests from now on. The pool stays under pressure, or not, until it is looked at.

        A pool that has lost its last replica is a new one when it comes back.
        """
        kv, occupancy, waiting = self._bands
        n = len(replicas)
        seats = n * self.max_num_seqs
        self._enter = (kv.enter * n, occupancy.enter * seats, waiting.enter * n)
        self._leave = (kv.leave * n, occupancy.leave * seats, waiting.leave * n)
        self.replicas = replicas
        self.pressed = bool(replicas) and self.pressed

    def has_room(self, snapshots: Sequence[Snapshot]) -> bool:
        """Look at every replica once: remember the one with the fewest in flight, move the hysteresis, say the result.

        A replica's requests are the larger of what it reported and what this router has in flight there: the first
        knows other routers' requests, the second what came since the last scrape. Call it on a pool with replicas.
        """
        kv, requests, waiting = 0.0, 0, 0
        least, fewest = -1, -1
        for replica in self.replicas:
            seen = snapshots[replica]
            in_flight, queued = seen.in_flight, seen.num_requests_waiting
            reported = seen.num_requests_running + queued
            kv += seen.kv_cache_usage
            requests += in_flight if in_flight > reported else reported
            waiting += queued
            if least < 0 or in_flight < fewest:
                least, fewest = replica, in_flight
        self.least, self.fewest = least, fewest
        kv_bound, requests_bound, waiting_bound = self._leave if self.pressed else self._enter
        self.pressed = kv >= kv_bound or requests >= requests_bound or waiting >= waiting_bound
        return not self.pressed

    def fill(self) -> float:
        """Requests in flight for each seat on the emptiest replica, as of the last look."""
        return self.fewest / self.max_num_seqs


def pressures(options: PressureOptions, context: PolicyContext, policy: str) -> tuple[PoolPressure, ...]:
    """The pressure of every pool, by pool number, kept up to date with the replicas that are ready.

    Raises UsageError, naming `policy`, for thresholds of an unknown pool.
    """
    names = [variant.pool for variant in context.variants]
    for name in options.pools:
        if name not in names:
            raise UsageError(f"{policy}: pools: {unknown('pool', name, names)}")
    pools = tuple(PoolPressure(options, variant) for variant in context.variants)

    def staff() -> None:
        ready: list[list[int]] = [[] for _ in pools]
        for replica, pool in enumerate(context.pool_of_replica):
            if context.members[replica]:
                ready[pool].append(replica)
        for pressure, replicas in zip(pools, ready, strict=True):
            pressure.staff(tuple(replicas))

    staff()
    context.members.listen(staff)
    return pools
