"""The gateway's queue on the clock: who is held, who is sent on, who has waited too long. Owns `Holding`.

Orders and limits are `policy.gateway_queue`'s. May import engine, fleet's other files and policy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from simroute.engine.clock import Clock
from simroute.fleet.call import Call
from simroute.policy.admission import FleetLoad
from simroute.policy.context import NO_REPLICA
from simroute.policy.gateway_queue import WAITED_TOO_LONG, GatewayQueue


class Holding:
    """Holds calls while the fleet is full, or nobody is up who may serve them.

    `route(call)` gives (replica, reason) as the policy decides now; a call then goes to `send(call, replica)` or
    `turn_away(call, reason)`. `always_room`: somebody else's endpoint is there, which is never full.
    """

    def __init__(
        self,
        env: Clock,
        queue: GatewayQueue,
        load: FleetLoad,
        calls: Mapping[int, Call],
        *,
        route: Callable[[Call], tuple[int, str]],
        send: Callable[[Call, int], None],
        turn_away: Callable[[Call, str], None],
        always_room: bool,
    ) -> None:
        self._env = env
        self._queue = queue
        self._load = load
        self._calls = calls
        self._route = route
        self._send = send
        self._turn_away = turn_away
        self._always_room = always_room
        self._expiry_s: float | None = None
        self._pumping = False

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def expires(self) -> bool:
        """Whether somebody who is held will have waited too long at some time."""
        return self._queue.next_expiry_s is not None

    def hold(self, call: Call) -> None:
        """Put `call` into the queue, or turn it away where that is full."""
        reason = self._queue.push(call.request, self._env.now)
        if reason is not None:
            self._turn_away(call, reason)
            return
        call.held = True
        self._expire_later()

    def take_out(self, call: Call) -> None:
        """The client of a call that is held has left."""
        call.held = False
        self._queue.remove(call.request)

    def recall(self) -> None:
        """Other replicas are up: whoever waited for one is asked for again."""
        self._queue.recall()

    def pump(self) -> None:
        """Send on what is held, while there is room."""
        queue, now = self._queue, self._env.now
        if self._pumping:
            return
        self._pumping = True  # a call that ends at once pumps again
        while (self._always_room or queue.has_room(self._load)) and (request := queue.peek(now)) is not None:
            call = self._calls[request.index]
            number, reason = self._route(call)
            if number < 0 and reason == NO_REPLICA:
                queue.set_aside(request)
                continue
            queue.pop(now)
            call.held = False
            if number >= 0:
                self._send(call, number)
            else:
                self._turn_away(call, reason)
        self._pumping = False

    def _expire_later(self) -> None:
        due_s = self._queue.next_expiry_s
        if due_s is not None and (self._expiry_s is None or due_s < self._expiry_s):
            self._expiry_s = due_s
            self._env.call_at(due_s, self._expire)

    def _expire(self) -> None:
        """Turn away those who have been held for too long."""
        self._expiry_s = None
        for request in self._queue.expire(self._env.now):
            call = self._calls.get(request.index)
            if call is not None and call.held and call.request is request:  # its client may have left meanwhile
                call.held = False
                self._turn_away(call, WAITED_TOO_LONG)
        self._expire_later()
