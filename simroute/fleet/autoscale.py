"""Asks each pool's autoscaler how many replicas it wants, and orders or drains them. Owns `keep_scaling`.

May import fleet's other files and policy.
"""

from __future__ import annotations

from collections.abc import Generator

import simpy

from simroute.fleet.gateway import Gateway
from simroute.fleet.lifecycle import Lifecycle
from simroute.fleet.options import Scaling
from simroute.fleet.site import Site
from simroute.fleet.slot import Slot, State
from simroute.fleet.watch import PoolWatch
from simroute.policy.autoscaling import PoolLoad

LATENCY_WINDOW_S = 60.0
"""Over so long the times to first token count that an autoscaler is told of."""


def keep_scaling(site: Site, gateway: Gateway, pool: str, scaling: Scaling) -> None:
    """Scale `pool` while the run lasts."""
    watch = gateway.watches[pool] = PoolWatch(LATENCY_WINDOW_S)
    slots = [slot for slot in site.slots if slot.pool.name == pool]
    site.env.process(_scale(site, gateway, slots, watch, scaling))


def _scale(
    site: Site, gateway: Gateway, slots: list[Slot], watch: PoolWatch, scaling: Scaling
) -> Generator[simpy.Event, None, None]:
    env, interval_s = site.env, scaling.interval_s
    while True:
        yield env.timeout(interval_s)
        load = _load(env.now, gateway, slots, watch, interval_s)
        want = min(max(scaling.autoscaler.desired(load), 0), len(slots))
        _reach(site.life, slots, want, scaling.drain_s)


def _load(now: float, gateway: Gateway, slots: list[Slot], watch: PoolWatch, interval_s: float) -> PoolLoad:
    """What the autoscaler is shown: metrics as the router knows them. What is held may be meant for any pool."""
    ready = [slot.snapshot for slot in slots if slot.state is State.READY]
    return PoolLoad(
        now_s=now,
        ready=len(ready),
        starting=sum(slot.state is State.STARTING for slot in slots),
        draining=sum(slot.state is State.DRAINING for slot in slots),
        in_flight=sum(seen.in_flight for seen in ready),
        held=gateway.held,
        running=sum(seen.num_requests_running for seen in ready),
        waiting=sum(seen.num_requests_waiting for seen in ready),
        kv_usage=sum(seen.kv_cache_usage for seen in ready) / len(ready) if ready else 0.0,
        ttft_p90_s=watch.ttft_p90_s(now),
        arrivals_per_s=watch.arrivals_per_s(interval_s),
    )


def _reach(life: Lifecycle, slots: list[Slot], want: int, drain_s: float) -> None:
    """Order replicas in the first free places, or let go those that are starting, then those with least to do."""
    active = [slot for slot in slots if slot.state in (State.STARTING, State.READY)]
    for slot in [slot for slot in slots if slot.state is State.DOWN and not slot.held][: max(want - len(active), 0)]:
        life.order(slot)

    def least_to_do(slot: Slot) -> tuple[bool, int, int]:
        return slot.state is State.READY, slot.snapshot.in_flight, -slot.number

    for slot in sorted(active, key=least_to_do)[: max(len(active) - want, 0)]:
        if slot.state is State.STARTING:
            life.stop(slot)
        else:
            life.drain(slot)
            if slot.state is State.DRAINING:
                life.later(drain_s, slot, life.stop)
