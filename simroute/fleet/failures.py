"""Makes things go wrong as planned. Owns `keep_failing`; may import errors, engine, fleet's other
files, results and rng.

Every place draws from a stream of its own, so that all policies meet the same luck as far as their fleets are alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from simroute import rng
from simroute.engine.replica import Replica
from simroute.errors import UsageError
from simroute.fleet.gateway import Gateway
from simroute.fleet.options import Crashes, Outage, RouterRestart, Spot, Straggler
from simroute.fleet.site import Site
from simroute.fleet.slot import Slot, State
from simroute.results.run import FleetEvent

OUTAGE = "its machine was lost"
PREEMPTED = "its spot machine was taken back"


def keep_failing(site: Site, gateway: Gateway) -> None:
    """Let everything happen that is planned; call it before the first replicas are up.

    Raises UsageError for a straggler that does not exist.
    """
    failures, faults = site.options.failures, _Faults(site, gateway)
    for number, crashes in enumerate(failures.crashes):
        faults.crash(crashes, number)
    for number, spot in enumerate(failures.spot):
        faults.preempt(spot, number)
    for outage in failures.outages:
        site.env.call_at(outage.at_s, partial(faults.lose, outage))
    for straggler in failures.stragglers:
        slot = faults.place(straggler.pool, straggler.ordinal)
        site.env.call_at(straggler.at_s, partial(faults.slow, slot, straggler))
    for restart in failures.router:
        site.env.call_at(restart.at_s, partial(faults.restart, restart))


class _Faults:
    """The faults of one run."""

    def __init__(self, site: Site, gateway: Gateway) -> None:
        self._site = site
        self._gateway = gateway
        self._env = site.env
        self._life = site.life
        self._factors: dict[tuple[int, int], list[float]] = {}  # of what is in a place: how much slower it is, and why

    def crash(self, crashes: Crashes, number: int) -> None:
        """Engines crash once in `mtbf_s` on average while they are up; `number` tells entries of the plan apart."""
        draws = self._draws("crash", number)
        life = self._life

        def up(slot: Slot) -> None:
            if crashes.pool in (None, slot.pool.name) and slot.pool.external is None:
                life.later(draws(slot).exponential(crashes.mtbf_s), slot, life.crash)

        life.ups.append(up)

    def preempt(self, spot: Spot, entry: int) -> None:
        """Machines are taken back, with a notice, and replaced; `entry` tells entries of the plan apart."""
        draws = self._draws("spot", entry)
        life = self._life

        def up(slot: Slot) -> None:
            if slot.pool.name == spot.pool:
                life.later(draws(slot).exponential(spot.mean_life_s), slot, notice)

        def notice(slot: Slot) -> None:
            life.note(slot, "notice")
            life_number = slot.life
            if slot.state is State.READY:
                life.drain(slot)
            at_s = self._env.now + spot.notice_s
            self._env.call_at(at_s, lambda: taken(slot, life_number))

        def taken(slot: Slot, number: int) -> None:
            if slot.life == number:
                life.lose([slot], PREEMPTED)
            self._env.call_at(self._env.now + spot.gap_s, lambda: follow(slot))

        def follow(slot: Slot) -> None:
            slot.due = True
            self._replace(slot)

        life.ups.append(up)

    def lose(self, outage: Outage) -> None:
        """Machines are gone, and no others are to be had there until the outage ends."""
        hit = [
            slot
            for slot in self._site.slots
            if outage.zone in (None, slot.zone) and outage.pool in (None, slot.pool.name) and not slot.pool.external
        ]
        used = [slot for slot in hit if slot.state is not State.DOWN][: outage.replicas]
        if outage.replicas is not None:
            hit = used
        for slot in hit:
            slot.held += 1
        for slot in used:
            slot.due = True
        self._life.lose(used, OUTAGE)

        def end() -> None:
            for slot in hit:
                slot.held -= 1
                self._replace(slot)

        self._env.call_at(self._env.now + outage.duration_s, end)

    def place(self, pool: str, ordinal: int) -> Slot:
        """Place number `ordinal` of `pool`. Raises UsageError where there is none."""
        places = [slot for slot in self._site.slots if slot.pool.name == pool]
        if not 0 <= ordinal < len(places):
            raise UsageError(f"straggler: pool {pool} has {len(places)} places, numbered from 0; got {ordinal}")
        return places[ordinal]

    def slow(self, slot: Slot, straggler: Straggler) -> None:
        """The replica in a place gets slow for a while; one that takes its place meanwhile is not."""
        if not isinstance(slot.replica, Replica):
            return
        factors = self._factors.setdefault((slot.number, slot.life), [])
        factors.append(straggler.factor)
        slot.replica.slow_down(math.prod(factors))
        self._life.note(slot, "slow")

        def normal(slot: Slot) -> None:
            if isinstance(slot.replica, Replica):
                factors.remove(straggler.factor)
                slot.replica.slow_down(math.prod(factors))
                self._life.note(slot, "normal")

        self._life.later(straggler.duration_s, slot, normal)

    def restart(self, restart: RouterRestart) -> None:
        """The router dies and comes back."""
        self._life.events.append(FleetEvent(self._env.now, -1, "router"))
        self._gateway.restart(restart.down_s)

    def _replace(self, slot: Slot) -> None:
        """Order a new machine for a place that lost its own, unless somebody else decides how many there are."""
        if slot.held or not slot.due:
            return
        slot.due = False
        if slot.state is State.DOWN and slot.pool.name not in self._site.options.scaling:
            self._life.order(slot)

    def _draws(self, what: str, entry: int) -> Callable[[Slot], np.random.Generator]:
        """The stream of each place for this kind of fault."""
        streams: dict[int, np.random.Generator] = {}
        seed = self._site.seed

        def draws(slot: Slot) -> np.random.Generator:
            if slot.number not in streams:
                streams[slot.number] = rng.stream(seed, what, slot.number, *([entry] if entry else []))
            return streams[slot.number]

        return draws
