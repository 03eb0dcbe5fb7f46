"""Replicas come and go: ordered, up, draining, stopped, crashed, lost. Owns `Lifecycle`.

Keeps the bill, the log of events and the policies' `Membership`; who decides is elsewhere (`autoscale`, `failures`).
May import engine, fleet's other files, policy and results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from simroute.engine.clock import Clock
from simroute.engine.replica import Replica
from simroute.engine.sequence import EngineRequest
from simroute.fleet.external import ExternalReplica
from simroute.fleet.slot import Slot, State
from simroute.policy.context import Membership
from simroute.results.run import FleetEvent

CRASHED = "its replica crashed"
STOPPED = "its replica was stopped"
Boot = Callable[[Slot], Replica | ExternalReplica]
Lost = Callable[[Slot, list[EngineRequest], str], None]


class Lifecycle:
    """Changes the state of places. `boot` makes a replica for one, `lost` is told of requests that died with one.

    `ups` and `downs` are called with the place after a replica came up or went.
    """

    def __init__(self, env: Clock, slots: Sequence[Slot], members: Membership, boot: Boot, lost: Lost) -> None:
        self.slots = slots
        self.events: list[FleetEvent] = []
        self.ups: list[Callable[[Slot], None]] = []
        self.downs: list[Callable[[Slot], None]] = []
        self._env = env
        self._members = members
        self._boot = boot
        self._lost = lost

    def begin(self) -> None:
        """The run starts: the replicas that each pool begins with are up and paid for."""
        for slot in self.slots:
            if slot.ordinal < slot.pool.replicas:
                slot.rent(self._env.now)
                self._up(slot)
            else:
                self._members.set(slot.number, False)

    def order(self, slot: Slot) -> None:
        """Start a replica in a place where none is: it is paid from now on, and up after its cold start."""
        slot.rent(self._env.now)
        self.note(slot, "order")
        self._start(slot, slot.pool.startup.cold_s)

    def drain(self, slot: Slot) -> None:
        """Send no more requests to a replica; it stops when it has answered those it has."""
        slot.state = State.DRAINING
        self.note(slot, "drain")
        self._members.set(slot.number, False)
        self.settle(slot)

    def settle(self, slot: Slot) -> None:
        """Stop the replica if it drains and has nothing left to do; called after each answer of a draining one."""
        if slot.state is State.DRAINING and not slot.snapshot.in_flight:
            self.stop(slot)

    def stop(self, slot: Slot) -> None:
        """End a replica in good order, or the start of one; requests that it still has are lost."""
        self._end(slot, State.DOWN, "stop", STOPPED)
        slot.give_back(self._env.now)

    def crash(self, slot: Slot) -> None:
        """The engine of a place dies; its process starts again on the same machine, unless it was to stop anyway."""
        slot.crashes += 1
        if slot.state is State.DRAINING:
            self._end(slot, State.DOWN, "crash", CRASHED)
            self.note(slot, "stop")
            slot.give_back(self._env.now)
            return
        self._end(slot, State.STARTING, "crash", CRASHED)
        self._start(slot, slot.pool.startup.restart_s)

    def lose(self, slots: Sequence[Slot], reason: str) -> None:
        """The machines under these places are gone at once, with whatever was running or starting there."""
        for slot in slots:  # nothing that one of them loses may be sent to another
            self._members.set(slot.number, False)
        for slot in slots:
            if slot.state is not State.DOWN:
                slot.crashes += 1
                self._end(slot, State.DOWN, "lost", reason)
                slot.give_back(self._env.now)

    def note(self, slot: Slot, what: str) -> None:
        """Write an event of `slot` down."""
        self.events.append(FleetEvent(self._env.now, slot.number, what))

    def later(self, delay_s: float, slot: Slot, act: Callable[[Slot], None]) -> None:
        """`act(slot)` in `delay_s` seconds, unless what is in the place now has ended by then."""
        life = slot.life

        def due() -> None:
            if slot.life == life:
                act(slot)

        self._env.call_at(self._env.now + delay_s, due)

    def _start(self, slot: Slot, delay_s: float) -> None:
        slot.state = State.STARTING
        slot.life += 1  # a start that was broken off must not finish later
        if delay_s:
            self.later(delay_s, slot, self._up)
        else:
            self._up(slot)

    def _up(self, slot: Slot) -> None:
        slot.put(self._boot(slot), self._env.now)
        self.note(slot, "ready")
        self._members.set(slot.number, True)
        for told in self.ups:
            told(slot)

    def _end(self, slot: Slot, state: State, what: str, reason: str) -> None:
        """Whatever is in the place ends; then those who had requests there are told."""
        self._members.set(slot.number, False)
        replica = slot.replica
        requests = replica.halt() if replica is not None else []
        slot.remove(state, self._env.now)
        slot.life += 1
        self.note(slot, what)
        self._lost(slot, requests, reason)
        for told in self.downs:
            told(slot)
