"""Own replicas first; what they have no room for goes to somebody else's endpoint, within its rate limit.

May import errors, policy.admission.token_bucket, policy.context, policy.options, policy.pressure, policy.snapshot and
workload.request.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from operator import attrgetter
from typing import ClassVar, NamedTuple

from simroute.errors import UsageError, unknown
from simroute.policy.admission.token_bucket import Bucket
from simroute.policy.context import NO_REPLICA, NO_VARIANT, BalancerOptions, ByClass, Group, PolicyContext
from simroute.policy.options import Positive
from simroute.policy.pressure import PoolPressure, PressureOptions, pressures
from simroute.policy.snapshot import Decision, Snapshot
from simroute.workload.request import Request

_in_flight = attrgetter("in_flight")
_SECONDS_PER_MINUTE = 60.0


class SpilloverOptions(PressureOptions, BalancerOptions):
    """`to`: the pool that takes what spills (left out: every external one).

    `requests_per_minute`: the most that spills, as providers count it: a bucket that fills evenly and holds one
    minute's worth (left out: no limit). `classes`, `tiers`: who may spill (left out: everyone).
    """

    to: str | None = None
    requests_per_minute: Positive | None = None
    classes: tuple[str, ...] = ()
    tiers: tuple[str, ...] = ()

    @property
    def needs_external(self) -> bool:
        """Whether it does nothing of its own without somebody else's endpoint."""
        return self.to is None


class _Sides(NamedTuple):
    """What one class may use."""

    own: tuple[PoolPressure, ...]
    outside: Group
    reachable: bool
    """Whether a replica of `outside` takes requests."""
    nothing: Decision


class Spillover:
    """Own pools while one of them has room, then the external pool while its rate limit allows.

    Among own pools, the emptiest replica for its `max_num_seqs` of those with room, or of all when neither own pools
    nor the limit leave any. A request that may not spill stays, whatever the pressure. With no own replica up,
    requests that may spill do. Raises UsageError for an unknown pool.
    """

    Options: ClassVar[type[SpilloverOptions]] = SpilloverOptions

    def __init__(self, options: SpilloverOptions, context: PolicyContext) -> None:
        names = [variant.pool for variant in context.variants]
        if options.to is not None and options.to not in names:
            raise UsageError(f"spillover: to: {unknown('pool', options.to, names)}")
        self._outside = {
            pool
            for pool, variant in enumerate(context.variants)
            if (variant.external if options.to is None else variant.pool == options.to)
        }
        self._classes, self._tiers = frozenset(options.classes), frozenset(options.tiers)
        per_minute = options.requests_per_minute
        self._limit = (
            None if per_minute is None else Bucket(per_minute / _SECONDS_PER_MINUTE, max(per_minute, 1.0), 0.0)
        )
        self._decisions = tuple(Decision(r) for r in range(len(context.pool_of_replica)))
        self._pools = pressures(options, context, "spillover")
        self._sides = ByClass(context, options, partial(self._divide, context))

    def _divide(self, context: PolicyContext, pools: tuple[int, ...]) -> _Sides:
        own = tuple(self._pools[p] for p in pools if p not in self._outside and self._pools[p].replicas)
        outside = Group(context, [p for p in pools if p in self._outside])
        nothing = Decision(-1, NO_REPLICA if pools else NO_VARIANT)
        return _Sides(own, outside, outside.choices[0].replica >= 0, nothing)

    def choose(self, request: Request, snapshots: Sequence[Snapshot]) -> Decision:
        """An own replica with room, or one outside, or the emptiest own one."""
        own, outside, reachable, nothing = self._sides[request.request_class]
        roomy = [pool for pool in own if pool.has_room(snapshots)]
        if not roomy and reachable and self._may_spill(request) and self._within_limit(request.arrival_s):
            return outside.least(snapshots, _in_flight)
        if own:
            return self._decisions[min(roomy or own, key=PoolPressure.fill).least]
        return nothing

    def _may_spill(self, request: Request) -> bool:
        allowed = not self._classes or request.request_class in self._classes
        return allowed and (not self._tiers or request.tier in self._tiers)

    def _within_limit(self, now_s: float) -> bool:
        return self._limit is None or self._limit.take(1.0, now_s)
