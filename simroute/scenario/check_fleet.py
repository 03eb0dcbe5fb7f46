"""Checks of how a fleet lives: known rules and options, pools and zones that exist, times inside the traffic.

May import errors, policy and, of this room, fleet_models, models and source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from simroute.errors import SimrouteError, unknown
from simroute.policy.admission import check_admission
from simroute.policy.autoscaling import check_autoscaler
from simroute.policy.gateway_queue import GatewayQueueOptions
from simroute.policy.options import OptionProblem, problems_in
from simroute.scenario.fleet_models import ExternalSpec, FailuresSpec, RouterSpec
from simroute.scenario.models import PoolSpec
from simroute.scenario.source import Keys, Problem


@dataclass(frozen=True, slots=True)
class FleetParts:
    """The parts of a scenario about its fleet's life that are valid by themselves."""

    pools: Mapping[int, PoolSpec]
    external: Mapping[int, ExternalSpec]
    router: RouterSpec | None
    failures: FailuresSpec | None


def fleet_problems(parts: FleetParts) -> Iterator[Problem]:
    """Everything wrong with them."""
    yield from _router_rules(parts)
    yield from _autoscalers(parts)
    yield from _failing_places(parts)


def _router_rules(parts: FleetParts) -> Iterator[Problem]:
    if parts.router is None:
        return
    for i, rule in enumerate(parts.router.admission):
        keys: Keys = ("router", "admission", i)
        yield from _options((*keys, "options"), lambda rule=rule: check_admission(rule.name, rule.options), keys)  # type: ignore[misc]
    queue = parts.router.queue
    if queue is not None:
        yield from _options(("router", "queue"), lambda: problems_in(GatewayQueueOptions, queue), ("router", "queue"))


def _autoscalers(parts: FleetParts) -> Iterator[Problem]:
    for i, pool in parts.pools.items():
        scale = pool.autoscale
        if scale is None:
            continue
        keys: Keys = ("pools", i, "autoscale")
        options = scale.options | {"min_replicas": scale.min_replicas, "max_replicas": scale.max_replicas}
        yield from _options((*keys, "options"), lambda: check_autoscaler(scale.name, options), (*keys, "name"))  # noqa: B023


def _failing_places(parts: FleetParts) -> Iterator[Problem]:
    """Pools and zones that failures name."""
    failures = parts.failures
    if failures is None:
        return
    names = [pool.name for pool in parts.pools.values()]
    zones = {zone for pool in parts.pools.values() for zone in pool.zones}
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
    for i, straggler in enumerate(failures.stragglers):
        pool = next((pool for pool in parts.pools.values() if pool.name == straggler.pool), None)
        most = pool and (pool.autoscale.max_replicas if pool.autoscale else pool.replicas)
        if most and straggler.replica >= most:
            keys = ("failures", "stragglers", i, "replica")
            got = f"the replicas of pool {straggler.pool}, got {straggler.replica}"
            yield Problem(keys, f"must be in 0..{most - 1}, {got}")


def _options(keys: Keys, check: Callable[[], list[OptionProblem]], name_keys: Keys) -> Iterator[Problem]:
    """What `check` finds at `keys`; a name that it does not know at `name_keys`."""
    try:
        for problem in check():
            yield Problem((*keys, *problem.path), problem.message)
    except SimrouteError as error:
        yield Problem(name_keys, str(error))
