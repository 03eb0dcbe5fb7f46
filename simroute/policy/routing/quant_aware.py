"""The quantization-aware policy: the cheapest variant that is good enough, has room and, if asked, is fast enough.

May import errors, policy.context, policy.routing.predict, policy.pressure and policy.snapshot, and workload.request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from simroute.errors import UsageError, unknown
from simroute.policy.context import NO_REPLICA, NO_VARIANT, ByClass, FloorRule, PolicyContext
from simroute.policy.pressure import PoolPressure, PressureOptions, pressures
from simroute.policy.routing.predict import Forecasts, TargetOptions
from simroute.policy.snapshot import Decision, Snapshot
from simroute.workload.request import Request


class QuantAwareOptions(TargetOptions, PressureOptions, FloorRule):
    """When a variant is under pressure, whether its latency is predicted, and where requests go when all are full.

    `predict_slo`: a variant must also be predicted to meet the class's targets, each prediction taking up at most
    `slack` of its target. `fallback`: pools in the order in which they are tried when every variant that meets the
    floor is under pressure; those below the floor are passed over.
    """

    predict_slo: bool = False
    fallback: tuple[str, ...] = ()


class _Ladder(NamedTuple):
    """What one class may use: variants from the cheapest up, and those that serve when all are under pressure."""

    rungs: tuple[PoolPressure, ...]
    last: tuple[PoolPressure, ...]
    nothing: Decision
    """The answer where there are no rungs."""


class QuantAware:
    """The cheapest variant (USD per million tokens) that meets the class's quality floor and has room.

    Under pressure requests spill to the next more expensive variant that meets the floor, never to one below it. When
    all of those are under pressure, the first of `fallback` serves; without one, the replica among them with the
    fewest requests in flight for its `max_num_seqs`. With `predict_slo` the emptiest replica of a variant must also
    be predicted to meet the class's targets; when no variant with room is, the one predicted to miss them by least.
    Inside a variant: the replica with the fewest in flight, ties to the lowest number. A variant's pressure is judged
    whenever a request looks at it, and is shared by all classes. Raises UsageError for an unknown pool.
    """

    Options: ClassVar[type[QuantAwareOptions]] = QuantAwareOptions
    counts_tokens: bool = True
    """Of an instance: whether it reads the token counts, which only predictions do."""

    def __init__(self, options: QuantAwareOptions, context: PolicyContext) -> None:
        names = [variant.pool for variant in context.variants]
        for name in options.fallback:
            if name not in names:
                raise UsageError(f"quant_aware: fallback: {unknown('pool', name, names)}")
        self.counts_tokens = options.predict_slo
        self._slack = options.slack
        self._forecasts = Forecasts(options, context) if options.predict_slo else None
        self._decisions = tuple(Decision(r) for r in range(len(context.pool_of_replica)))
        self._fallback = tuple(names.index(name) for name in options.fallback)
        self._pools = pressures(options, context, "quant_aware")
        self._ladders = ByClass(context, options, self._ladder)

    def _ladder(self, pools: tuple[int, ...]) -> _Ladder:
        """These pools, the cheapest first; the sort is stable, so equal prices keep the order of the scenario."""
        staffed = [p for p in pools if self._pools[p].replicas]
        rungs = tuple(sorted((self._pools[p] for p in staffed), key=lambda pool: pool.price))
        preferred = next(((self._pools[p],) for p in self._fallback if p in staffed), rungs)
        return _Ladder(rungs, preferred, Decision(-1, NO_REPLICA if pools else NO_VARIANT))

    def choose(self, request: Request, snapshots: Sequence[Snapshot]) -> Decision:
        """The first rung of the class's price ladder that has room and is fast enough."""
        ladder = self._ladders[request.request_class]
        used_of = self._forecasts.used(request) if self._forecasts else None
        late, least_used = -1, float("inf")
        for pool in ladder.rungs:
            if not pool.has_room(snapshots):
                continue
            if used_of is None:
                return self._decisions[pool.least]
            seen = snapshots[pool.least]
            used = used_of(seen)
            if used <= self._slack or seen.variant.speed is None:
                return self._decisions[pool.least]
            if used < least_used:
                late, least_used = pool.least, used
        if late >= 0:
            return self._decisions[late]
        if not ladder.rungs:
            return ladder.nothing
        return self._decisions[min(ladder.last, key=PoolPressure.fill).least]
