"""Sees that a run waits in vain. Owns `Standstill`; may import fleet's other files."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from simroute.fleet.gateway import Gateway
from simroute.fleet.slot import Slot, State

PATIENCE_S = 86_400.0
"""So long a run waits for replicas that may never come up, when nothing else can happen any more."""


class Standstill:
    """Whether all that is left of a run is held, and nobody will come up who takes it.

    Where replicas come and go (`changing`) that is not known before it has lasted for `PATIENCE_S`.
    """

    def __init__(self, gateway: Gateway, slots: Sequence[Slot], *, changing: bool) -> None:
        self._gateway = gateway
        self._slots = slots
        self._patience_s = PATIENCE_S if changing else 0.0
        self._since_s = inf
        self._sent = 0

    def reached(self, now: float) -> bool:
        """Look at the fleet, at a time when nobody will send another request by himself."""
        moved, self._sent = self._gateway.sent != self._sent, self._gateway.sent
        if moved or not self._gateway.stuck or any(map(_in_motion, self._slots)):
            self._since_s = inf
            return False
        self._since_s = min(self._since_s, now)
        return now - self._since_s >= self._patience_s


def _in_motion(slot: Slot) -> bool:
    """Whether a replica comes or goes there by itself: it starts, it drains, or an outage will end."""
    return slot.state in (State.STARTING, State.DRAINING) or bool(slot.held) or slot.due
