"""SimPy's clock, told *when* instead of *in how long*. Owns `Clock` and `StandingEvent`; may import simpy only."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

import simpy
from simpy.events import EventPriority


class Clock(simpy.Environment):
    """A SimPy environment whose events can be queued for an absolute time.

    A delay is rounded on its way to the clock and back; a schedule point has to come up at the very float at which it
    was reckoned, so that what is due then is due.
    """

    def schedule_at(self, event: simpy.Event, priority: EventPriority, at_s: float) -> float:
        """Queue `event` for `at_s`, or for now where that is later (by rounding). Returns the time it will come up."""
        if at_s < self._now:
            at_s = self._now
        heappush(self._queue, (at_s, priority, next(self._eid), event))
        return at_s

    def run_to(self, event: simpy.Event) -> None:
        """Process events in order until `event` has been processed: `run(until=event)` without a call an event.

        Raises what a process raised, and IndexError when no event is left.
        """
        queue = self._queue
        while event.callbacks is not None:
            self._now, _, _, current = heappop(queue)
            callbacks, current.callbacks = current.callbacks, None  # type: ignore[assignment]
            for callback in callbacks:
                callback(current)
            if not current._ok and not current.defused:
                raise current.value


class StandingEvent(simpy.Event):
    """One event that comes up again and again: queued anew for each time, so that a schedule point allocates nothing.

    SimPy takes the callbacks away from an event that it has processed; whoever is called puts them back.
    """

    def __init__(self, env: simpy.Environment, callback: Callable[[simpy.Event], None]) -> None:
        self.env = env
        self._ok = True
        self._value = None
        self.standing = self.callbacks = [callback]
