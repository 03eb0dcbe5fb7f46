"""Own replicas first; what they have no room for goes to somebody else's endpoint, within its rate limit.

May import errors, policy.context, policy.pressure and policy.snapshot, and workload.request.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from operator import attrgetter
from typing import ClassVar, NamedTuple

from pydantic import Field

from simroute.errors import UsageError, unknown
from simroute.policy.context import NO_REPLICA, NO_VARIANT, BalancerOptions, ByClass, Group, PolicyContext
from simroute.policy.pressure import PoolPressure, PressureOptions, pressures
from simroute.policy.snapshot import Decision, Snapshot
from simroute.workload.request import Request

_in_flight = attrgetter("in_flight")
_SECONDS_PER_MINUTE = 60.0


class SpilloverOptions(PressureOptions, BalancerOptions):
    """`to`: the pool that takes what spills (left out: every external one).

    `requests_per_minute`: its rate limit (left out: none). `classes`, `tiers`: who may spill (left out: everyone).
    """

    to: str | None = None
    requests_per_minute: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)
    classes: tuple[str, ...] = ()
    tiers: tuple[str, ...] = ()


class RateLimit:
    """So many requests a minute, as providers count them: a bucket that fills evenly and holds one minute's worth."""

    def __init__(self, requests_per_minute: float) -> None:
        self._per_s = requests_per_minute / _SECONDS_PER_MINUTE
        self._most = max(requests_per_minute, 1.0)
        self._left = self._most
        self._counted_s = 0.0

    def take(self, now_s: float) -> bool:
        """Use up one request if there is one left at `now_s`, which must not run backwards."""
        self._left = min(self._most, self._left + max(now_s - self._counted_s, 0.0) * self._per_s)
        self._counted_s = now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


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
        self._limit = RateLimit(options.requests_per_minute) if options.requests_per_minute is not None else None
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
        return self._limit is None or self._limit.take(now_s)
