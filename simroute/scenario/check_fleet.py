"""Checks of how a fleet lives: known rules and options, pools and zones that exist, times inside the traffic.

May import errors, policy and, of this room, fleet_models, models and source.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from simroute.errors import SimrouteError, unknown
from simroute.policy.admission import check_admission, make_admission
from simroute.policy.autoscaling import check_autoscaler
from simroute.policy.context import Targets
from simroute.policy.gateway_queue import GatewayQueueOptions
from simroute.policy.options import OptionProblem, problems_in
from simroute.policy.routing import needs_external
from simroute.scenario.fleet_models import ExternalSpec, FailuresSpec, RouterSpec
from simroute.scenario.models import PolicySpec, PoolSpec
from simroute.scenario.source import Keys, Problem


@dataclass(frozen=True, slots=True)
class FleetParts:
    """The parts of a scenario about its fleet's life that are valid by themselves."""

    pools: Mapping[int, PoolSpec]
    router: RouterSpec | None
    failures: FailuresSpec | None
    targets: Mapping[str, Targets]
    every_pool: bool
    """Whether no pool had to be left out."""


def fleet_problems(parts: FleetParts) -> Iterator[Problem]:
    """Everything wrong with them."""
    yield from _router_rules(parts)
    yield from _autoscalers(parts)
    if parts.every_pool:
        yield from _failing_places(parts)


def fleet_doubts(parts: FleetParts) -> Iterator[Problem]:
    """What can run but is probably not meant."""
    holds = parts.router is not None and parts.router.queue is not None
    for i, pool in parts.pools.items():
        if pool.autoscale is not None and not pool.autoscale.min_replicas and not holds:
            keys = ("pools", i, "autoscale", "min_replicas")
            yield Problem(
                keys, "at 0 replicas nothing wakes the pool: give router a queue, which holds requests for it"
            )


def idle_policy(policy: PolicySpec, external: Collection[ExternalSpec]) -> str | None:
    """What to say of a policy that lives off endpoints of others, where there are none."""
    if external or not needs_external(policy.name, policy.options):
        return None
    return (
        f"{policy.shown}: what finds no room goes to endpoints of others, and there are none: list them in external, "
        "or name a pool of ours in its option to"
    )


def _router_rules(parts: FleetParts) -> Iterator[Problem]:
    if parts.router is None:
        return
    for i, rule in enumerate(parts.router.admission):
        keys: Keys = ("router", "admission", i)
        wrong = list(_options((*keys, "options"), partial(check_admission, rule.name, rule.options), keys))
        if not wrong:
            wrong = list(_refusal(keys, partial(make_admission, rule.name, rule.options, parts.targets)))
        yield from wrong
    queue = parts.router.queue
    if queue is not None:
        yield from _options(("router", "queue"), lambda: problems_in(GatewayQueueOptions, queue), ("router", "queue"))


def _autoscalers(parts: FleetParts) -> Iterator[Problem]:
    for i, pool in parts.pools.items():
        scale = pool.autoscale
        if scale is None:
            continue
        keys: Keys = ("pools", i, "autoscale")
        limits = {"min_replicas": scale.min_replicas, "max_replicas": scale.max_replicas}
        for name in limits.keys() & scale.options.keys():
            yield Problem((*keys, "options", name), f"give it as autoscale.{name}")
        check = partial(check_autoscaler, scale.name, scale.options | limits)
        yield from _options((*keys, "options"), check, (*keys, "name"))


def _failing_places(parts: FleetParts) -> Iterator[Problem]:
    """Pools and zones that failures name."""
    failures = parts.failures
    if failures is None:
        return
    zones_of = {pool.name: pool.zones for pool in parts.pools.values()}
    names, zones = list(zones_of), {zone for zones in zones_of.values() for zone in zones}
    lists: dict[str, Any] = {"crashes": failures.crashes, "outages": failures.outages, "spot": failures.spot}
    lists["stragglers"] = failures.stragglers
    for what, items in lists.items():
        for i, item in enumerate(items):
            keys: Keys = ("failures", what, i)
            if item.pool is not None and item.pool not in names:
                yield Problem((*keys, "pool"), unknown("pool", item.pool, names))
            zone = getattr(item, "zone", None)
            if zone is not None and zone not in zones:
                yield Problem((*keys, "zone"), unknown("zone", zone, zones))
            elif zone is not None and zone not in zones_of.get(item.pool, zones):
                own = ", ".join(zones_of[item.pool])
                said = f"pool {item.pool} has no replicas in zone {zone}: its zones are {own}"
                yield Problem((*keys, "zone"), said)
    for i, straggler in enumerate(failures.stragglers):
        pool = next((pool for pool in parts.pools.values() if pool.name == straggler.pool), None)
        most = pool and (pool.autoscale.max_replicas if pool.autoscale else pool.replicas)
        if most and straggler.replica >= most:
            keys = ("failures", "stragglers", i, "replica")
            got = f"the replicas of pool {straggler.pool}, got {straggler.replica}"
            yield Problem(keys, f"must be in 0..{most - 1}, {got}")


def _refusal(keys: Keys, make: Callable[[], object]) -> Iterator[Problem]:
    """The problem, at `keys`, that `make` raises, if any."""
    try:
        make()
    except SimrouteError as error:
        yield Problem(keys, str(error))


def _options(keys: Keys, check: Callable[[], list[OptionProblem]], name_keys: Keys) -> Iterator[Problem]:
    """What `check` finds at `keys`; a name that it does not know at `name_keys`."""
    try:
        for problem in check():
            yield Problem((*keys, *problem.path), problem.message)
    except SimrouteError as error:
        yield Problem(name_keys, str(error))
