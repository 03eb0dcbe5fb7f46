"""What admission and the gateway's queue are told of the fleet. Owns `LoadBook`.

May import fleet's other files and policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

from simroute.fleet.scrape import ScrapedReplica
from simroute.fleet.slot import Slot
from simroute.policy.admission import FleetLoad
from simroute.policy.context import Membership

RECENT_S = 10.0
"""Over about so long the rate of answers is averaged that admission is told of."""


class LoadBook:
    """Keeps a `FleetLoad`, in which our own replicas count alone; who sends a request there keeps `in_flight`."""

    def __init__(self, slots: Sequence[Slot], snapshots: Sequence[ScrapedReplica], members: Membership) -> None:
        self.load = FleetLoad()
        self._slots = slots
        self._snapshots = snapshots
        self._members = members
        self._answered_s = 0.0

    def recount(self) -> None:
        """Other replicas take requests: how many of ours there are, and how much room that is."""
        ready = [slot for slot in self._slots if self._members[slot.number] and slot.pool.external is None]
        self.load.ready_replicas = len(ready)
        self.load.seats = sum(slot.pool.variant.max_num_seqs for slot in ready)

    def look(self, held: int, now: float) -> FleetLoad:
        """The load now, with so many requests held."""
        load = self.load
        load.held = held
        load.waiting = sum(snapshot.num_requests_waiting for snapshot in self._snapshots)
        load.completions_per_s *= exp((self._answered_s - now) / RECENT_S)
        self._answered_s = now
        return load

    def answered(self, at_s: float) -> None:
        """One of our replicas has answered."""
        load = self.load
        load.completions_per_s = load.completions_per_s * exp((self._answered_s - at_s) / RECENT_S) + 1 / RECENT_S
        self._answered_s = at_s

    def forget(self) -> None:
        """The router has died: it does not know any more at which rate answers came."""
        self.load.completions_per_s = 0.0
