"""The quantization-aware policy: the cheapest variant that is good enough and has room.

May import policy.context and policy.snapshot, and workload.request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from simroute.errors import UsageError, unknown
from simroute.policy.context import NO_VARIANT, ByClass, FloorRule, PolicyContext
from simroute.policy.snapshot import Decision, Snapshot, VariantInfo
from simroute.workload.request import Request


class Band(BaseModel):
    """Hysteresis: a signal at `enter` or above puts a variant under pressure, below `leave` it has room again."""

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


class QuantAwareOptions(FloorRule):
    """When a variant is under pressure. Signals are means over its replicas; any one of them suffices.

    `kv_cache_usage`: 0..1. `occupancy`: requests on a replica over its `max_num_seqs`. `waiting`: requests waiting in
    its queue, which is what grows first when long prompts use up the compute. `pools` overrides them by pool name.
    """

    kv_cache_usage: Band = Band(enter=0.85, leave=0.75)
    occupancy: Band = Band(enter=0.90, leave=0.75)
    waiting: Band = Band(enter=8.0, leave=2.0)
    pools: Mapping[str, PoolBands] = Field(default_factory=dict)


class _Pool:
    """One pool's replicas and whether it is under pressure.

    Thresholds are kept as sums over the replicas, which spares a division a signal a request.
    """

    __slots__ = ("enter", "fewest", "least", "leave", "max_num_seqs", "pressed", "price", "replicas")

    def __init__(self, options: QuantAwareOptions, variant: VariantInfo, replicas: tuple[int, ...]) -> None:
        own = options.pools.get(variant.pool, PoolBands())
        kv = own.kv_cache_usage or options.kv_cache_usage
        occupancy = own.occupancy or options.occupancy
        waiting = own.waiting or options.waiting
        n, seats = len(replicas), len(replicas) * variant.max_num_seqs
        self.enter = (kv.enter * n, occupancy.enter * seats, waiting.enter * n)
        self.leave = (kv.leave * n, occupancy.leave * seats, waiting.leave * n)
        self.price = variant.usd_per_1m_tokens
        self.max_num_seqs = variant.max_num_seqs
        self.replicas = replicas
        self.pressed = False
        self.least = -1
        self.fewest = 0

    def has_room(self, snapshots: Sequence[Snapshot]) -> bool:
        """Look at every replica once: remember the one with the fewest in flight, move the hysteresis, say the result.

        A replica's requests are the larger of what it reported and what this router has in flight there: the first
        knows other routers' requests, the second what came since the last scrape.
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
        kv_bound, requests_bound, waiting_bound = self.leave if self.pressed else self.enter
        self.pressed = kv >= kv_bound or requests >= requests_bound or waiting >= waiting_bound
        return not self.pressed


class QuantAware:
    """The cheapest variant (USD per million tokens) that meets the class's quality floor and has room.

    Under pressure requests spill to the next more expensive variant that meets the floor, never to one below it. When
    all of those are under pressure, the replica among them with the fewest requests in flight for its `max_num_seqs`.
    Inside a variant: the replica with the fewest in flight, ties to the lowest number. A variant's pressure is judged
    whenever a request looks at it, and is shared by all classes. Raises UsageError for thresholds of an unknown pool.
    """

    Options: ClassVar[type[QuantAwareOptions]] = QuantAwareOptions

    def __init__(self, options: QuantAwareOptions, context: PolicyContext) -> None:
        names = [v.pool for v in context.variants]
        for name in options.pools:
            if name not in names:
                raise UsageError(f"quant_aware: pools: {unknown('pool', name, names)}")
        self._decisions = tuple(Decision(r) for r in range(len(context.pool_of_replica)))
        self._pools = [_Pool(options, v, context.replicas_of((p,))) for p, v in enumerate(context.variants)]
        self._ladders = ByClass(context, options, self._ladder)

    def _ladder(self, pools: tuple[int, ...]) -> tuple[_Pool, ...]:
        """These pools, the cheapest first; the sort is stable, so equal prices keep the order of the scenario."""
        return tuple(sorted((self._pools[p] for p in pools), key=lambda pool: pool.price))

    def choose(self, request: Request, snapshots: Sequence[Snapshot]) -> Decision:
        """The first rung of the class's price ladder that has room."""
        ladder = self._ladders[request.request_class]
        for pool in ladder:
            if pool.has_room(snapshots):
                return self._decisions[pool.least]
        if not ladder:
            return Decision(-1, NO_VARIANT)
        return self._decisions[min(ladder, key=lambda pool: pool.fewest / pool.max_num_seqs).least]
