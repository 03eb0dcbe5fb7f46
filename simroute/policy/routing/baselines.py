"""The routing policies that proxies have: rotation, chance, fewest requests, best of two, emptiest cache, fixed tiers.

May import errors, policy.context and policy.snapshot, and workload.request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import cycle
from operator import attrgetter
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from simroute.errors import UsageError, unknown
from simroute.policy.context import BalancerOptions, ByClass, Group, PolicyContext, uniforms
from simroute.policy.snapshot import Decision, Snapshot
from simroute.workload.request import Request

_in_flight = attrgetter("in_flight")
_kv_then_in_flight = attrgetter("kv_cache_usage", "in_flight")


class RoundRobin:
    """Each replica in turn, whatever its load. Uses no signal."""

    Options: ClassVar[type[BalancerOptions]] = BalancerOptions

    def __init__(self, options: BalancerOptions, context: PolicyContext) -> None:
        self._rotations = ByClass(context, options, lambda pools: cycle(Group(context, pools).choices))

    def choose(self, request: Request, snapshots: Sequence[Snapshot]) -> Decision:
        """The next replica of the rotation."""
        return next(self._rotations[request.request_class])


class _Balancer:
    """A policy that picks from the replicas which may serve the request's class."""

    Options: ClassVar[type[BalancerOptions]] = BalancerOptions

    def __init__(self, options: BalancerOptions, context: PolicyContext) -> None:
        self._groups = ByClass(context, options, partial(Group, context))
        self._uniforms = uniforms(context.rng)


class Random(_Balancer):
    """A replica drawn uniformly. Uses no signal."""

    def choose(self, request: Request, snapshots: Sequence[Snapshot]) -> Decision:
        """Any replica, each as likely as another."""
        choices = self._groups[request.request_class].choices
        return choices[int(next(self._uniforms) * len(choices))]


class LeastRequests(_Balancer):
    """The replica with the fewest requests in flight; ties go to the lowest number.

    Uses the router's own count, which is never stale.
    """

    def choose(self, request: Request, snapshots: Sequence[Snapshot]) -> Decision:
        """The replica with the fewest requests in flight."""
        return self._groups[request.request_class].least(snapshots, _in_flight)


class PowerOfTwo(_Balancer):
    """Of two different replicas drawn at random, the one with fewer requests in flight; a tie goes to the first drawn.

    Costs the same for any number of replicas. Two draws a request, whatever they find, keep runs comparable.
    """

    def choose(self, request: Request, snapshots: Sequence[Snapshot]) -> Decision:
        """The less loaded of two replicas drawn without replacement."""
        choices = self._groups[request.request_class].choices
        n = len(choices)
        i = int(next(self._uniforms) * n)
        j = int(next(self._uniforms) * (n - 1))
        if n == 1:
            return choices[0]
        if j >= i:
            j += 1
        first, second = choices[i], choices[j]
        return second if snapshots[second.replica].in_flight < snapshots[first.replica].in_flight else first


class LeastKv(_Balancer):
    """The replica with the lowest KV-cache usage at the last scrape; ties go to the fewest in flight, then the lowest.

    Between two scrapes usage stands still, so every request goes to the same replica (herding).
    """

    def choose(self, request: Request, snapshots: Sequence[Snapshot]) -> Decision:
        """The replica with the emptiest KV cache."""
        return self._groups[request.request_class].least(snapshots, _kv_then_in_flight)


class StaticTierOptions(BaseModel):
    """`tiers` maps a tenant tier to a pool's name; every other tier goes to `default` (the first pool unless named)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tiers: Mapping[str, str] = Field(default_factory=dict)
    default: str | None = None


class StaticTier:
    """Each tenant tier has its pool; inside it, the replica with the fewest requests in flight.

    What teams do by hand today, and the baseline to beat: it neither spills nor looks at quality.
    Raises UsageError when a tier is sent to a pool that does not exist or has no replica.
    """

    Options: ClassVar[type[StaticTierOptions]] = StaticTierOptions

    def __init__(self, options: StaticTierOptions, context: PolicyContext) -> None:
        staffed = {context.variants[p].pool: p for p in context.pool_of_replica}
        first = context.variants[context.pool_of_replica[0]].pool
        for pool in (options.default or first, *options.tiers.values()):
            if pool not in staffed:
                raise UsageError(f"static_tier: {unknown('pool', pool, staffed)}")
        self._context = context
        self._pool_of_tier = {tier: staffed[pool] for tier, pool in options.tiers.items()}
        self._default_pool = staffed[options.default or first]
        self._regroup()
        context.members.listen(self._regroup)

    def _regroup(self) -> None:
        self._groups = {tier: Group(self._context, (pool,)) for tier, pool in self._pool_of_tier.items()}
        self._default = Group(self._context, (self._default_pool,))

    def choose(self, request: Request, snapshots: Sequence[Snapshot]) -> Decision:
        """The least busy replica of the tier's pool."""
        return self._groups.get(request.tier, self._default).least(snapshots, _in_flight)
