"""SimPy's clock, told *when* instead of *in how long*. Owns `Clock` and `StandingEvent`; may import simpy only."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from operator import attrgetter

import simpy
from simpy.events import NORMAL, EventPriority

AFTER_ARRIVALS = EventPriority(2)
"""SimPy priority of schedule points: whatever else happens at the same instant happens before them."""
AFTER_SCHEDULES = EventPriority(3)
"""SimPy priority of what must come after the schedule points of its instant."""


class Clock(simpy.Environment):
    """A SimPy environment whose events can be queued for an absolute time.

    A delay is rounded on its way to the clock and back; a schedule point has to come up at the very float at which it
    was reckoned, so that what is due then is due.
    """

    now: float = property(attrgetter("_now"), doc="The time in seconds.")  # type: ignore[assignment]

    def schedule_at(self, event: simpy.Event, priority: EventPriority, at_s: float) -> None:
        """Queue `event` for `at_s`, which is not before now except by rounding."""
        heappush(self._queue, (at_s, priority, next(self._eid), event))

    def call_at(self, at_s: float, act: Callable[[], None]) -> None:
        """Call `act()` at `at_s`, which is not before now except by rounding."""
        heappush(self._queue, (at_s, NORMAL, next(self._eid), StandingEvent(self, lambda _now: act())))

    def step(self) -> None:
        """Process the next event. Raises what a process raised, and EmptySchedule when there is no event."""
        queue = self._queue
        if queue and isinstance(event := queue[0][3], StandingEvent):
            self._now = heappop(queue)[0]
            event.ring(self._now)
        else:
            super().step()

    def run_to(self, last: simpy.Event) -> None:
        """`run(until=last)`, without a call of `step` for every standing event."""
        queue, step = self._queue, self.step
        while last.callbacks is not None:
            while (event := queue[0][3]).__class__ is StandingEvent:
                self._now = at_s = heappop(queue)[0]
                ring = event.ring
                ring(at_s)
            step()


class StandingEvent(simpy.Event):
    """An event that comes up again and again, queued anew for each time: a schedule point allocates nothing.

    It has one callback, `ring`, which is told the time. Only a `Clock` rings it.
    """

    def __init__(self, env: Clock, ring: Callable[[float], None]) -> None:
        self.env = env
        self._ok = True
        self.ring = ring
