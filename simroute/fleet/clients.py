"""Who sends the requests of a trace, and when. Owns `OpenLoop`, `Users` and `Sessions`.

`OpenLoop` sends them at the trace's times, whatever happens to them. `Users` and `Sessions` wait for answers.
May import engine, fleet's other files and rng.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from math import log1p
from typing import Protocol

from simpy.events import NORMAL

from simroute import rng
from simroute.engine.clock import Clock, StandingEvent
from simroute.engine.sequence import EngineRequest
from simroute.fleet.options import ClientOptions

Take = Callable[[EngineRequest], None]


class Source(Protocol):
    """Sends requests. `done`: none will come any more, unless one that is under way has a next one that is due."""

    done: bool

    @property
    def still(self) -> bool:
        """Whether none will come any more before one that is under way ends."""

    sent: int
    """How many rows of the trace have been sent."""


class OpenLoop:
    """Sends each request when the trace says; `over` is called when that was the last."""

    def __init__(self, env: Clock, requests: Iterator[EngineRequest], take: Take, over: Callable[[], None]) -> None:
        self.done = False
        self._env = env
        self._requests = requests
        self._take = take
        self._over = over
        self._next = next(requests, None)
        self._event = StandingEvent(env, self._arrive)
        env.schedule(self._event, NORMAL)

    @property
    def still(self) -> bool:
        """See Source."""
        return self.done

    @property
    def sent(self) -> int:
        """See Source."""
        return 0 if self._next is None else self._next.index

    def _arrive(self, now: float) -> None:
        """The next request of the trace arrives, and all others of the same instant."""
        request, take = self._next, self._take
        while request is not None:
            if request.arrival_s > now:
                self._next = request
                self._env.schedule_at(self._event, NORMAL, request.arrival_s)
                return
            take(request)
            request = next(self._requests, None)
        self._next = None
        self.done = True
        self._over()


class _Thinking(ABC):
    """What those share who wait for answers: times to think, drawn for each request, and when it really arrived."""

    def __init__(
        self,
        env: Clock,
        requests: Iterator[EngineRequest],
        take: Take,
        over: Callable[[], None],
        sent_s: array[float],
        options: ClientOptions,
        seed: int,
    ) -> None:
        self.done = False
        self.sent = 0
        self._env = env
        self._take = take
        self._over = over
        self._sent_s = sent_s
        self._options = options
        self._seed = seed
        self._thinking = 0  # clients
        self._begin(requests)

    @abstractmethod
    def _begin(self, requests: Iterator[EngineRequest]) -> None:
        """Set out to send `requests`."""

    def _send(self, request: EngineRequest) -> None:
        """`request` is sent now."""
        request.arrival_s = self._sent_s[request.index] = self._env.now
        self.sent += 1
        self._take(request)

    def _think_s(self, ended: EngineRequest) -> float:
        """How long the client of an ended request thinks, or its tool works; every policy meets the same times."""
        options = self._options
        mean_s = options.tool_s if ended.request_class in options.tools else options.think_s
        if not mean_s:
            return 0.0
        return -mean_s * log1p(-float(rng.stream(self._seed, "think", ended.index).random()))

    def _think_until(self, at_s: float, act: Callable[[], None]) -> None:
        """A client does nothing before `at_s`, and `act()` then."""
        self._thinking += 1

        def thought() -> None:
            self._thinking -= 1
            act()

        self._env.call_at(at_s, thought)


class Users(_Thinking):
    """So many users take the trace's requests in order, each the next when its last has ended and it has thought."""

    def _begin(self, requests: Iterator[EngineRequest]) -> None:
        users = self._options.users
        assert users is not None
        self._requests = requests
        self._upcoming = next(requests, None)
        for _ in range(users):
            self._think_until(0.0, self._next)

    @property
    def still(self) -> bool:
        """See Source."""
        return self.done or not self._thinking

    def ended(self, request: EngineRequest, after_s: float) -> None:
        """The call of `request` is over; its client learns it `after_s` seconds later."""
        if not self.done:
            self._think_until(self._env.now + after_s + self._think_s(request), self._next)

    def _next(self) -> None:
        request = self._upcoming
        if request is not None:
            self._upcoming = next(self._requests, None)
            self._send(request)
        if self._upcoming is None and not self.done:  # (nobody thinks any longer than somebody waits)
            self.done = True
            self._over()


class Sessions(_Thinking):
    """Each session's turns come one after another: at the trace's time, or when the last answer was read, if later."""

    def _begin(self, requests: Iterator[EngineRequest]) -> None:
        self._turns: dict[int, deque[EngineRequest]] = {}  # of sessions that wait for an answer: what comes next
        self._waiting = 0  # turns that are due: who thinks without one has nothing more to ask, once the trace is over
        self._open = OpenLoop(self._env, requests, self._due, self._see)

    def _due(self, request: EngineRequest) -> None:
        """The trace says that `request` comes now."""
        if request.session < 0:
            self._send(request)
        elif request.session in self._turns:
            self._turns[request.session].append(request)
            self._waiting += 1
        else:
            self._turns[request.session] = deque()
            self._send(request)

    @property
    def still(self) -> bool:
        """See Source."""
        return self._open.done and not self._thinking

    def ended(self, request: EngineRequest, after_s: float) -> None:
        """The call of `request` is over; its client learns it `after_s` seconds later."""
        if request.session < 0:
            return
        wait_s = after_s + self._think_s(request)
        if wait_s:
            self._think_until(self._env.now + wait_s, lambda: self._thought(request.session))
        else:
            self._thought(request.session)

    def _thought(self, session: int) -> None:
        """The session's last answer has been read: its next turn goes out, if it is due."""
        turns = self._turns[session]
        if turns:
            self._waiting -= 1
            self._send(turns.popleft())
        else:
            del self._turns[session]
        self._see()

    def _see(self) -> None:
        self.done = self._open.done and not self._waiting
        if self.done:
            self._over()
