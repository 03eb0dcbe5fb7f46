"""How long clients wait, and whether they ask again: timeouts, lost interest, backoff. Owns `Patience`.

Who sends the next request is the business of `clients`. May import engine, fleet's other files, results and rng.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log1p

from simroute import rng
from simroute.engine.clock import Clock
from simroute.fleet.call import Call
from simroute.fleet.options import ClientOptions
from simroute.results.run import Status

TIMED_OUT = "its client timed out"
LOST_INTEREST = "its client lost interest"
_RETRIED_AS = {Status.REJECTED: "rejected", Status.FAILED: "failed", Status.CANCELLED: "timeout"}


class Patience:
    """Sets the time at which the client of each call hangs up; `leave(call, reason, for_good)` is called then."""

    def __init__(
        self, env: Clock, options: ClientOptions, seed: int, requests: int, leave: Callable[[Call, str, bool], None]
    ) -> None:
        self._env = env
        self._options = options
        self._seed = seed
        self._leave = leave
        self._interest = rng.stream(seed, "interest").random((requests, 2)) if options.cancel_share else None

    def begin(self, call: Call) -> None:
        """A client comes: it may lose interest at some time."""
        options = self._options
        if self._interest is not None:
            chance, patience = self._interest[call.original.index].tolist()
            if chance < options.cancel_share:
                call.bored_s = self._env.now - options.cancel_after_s * log1p(-patience)
                self._env.call_at(call.bored_s, lambda: self._leave(call, LOST_INTEREST, True))

    def ask(self, call: Call) -> None:
        """It asks, for the first time or again: it waits until its class's timeout."""
        call.leaves_s = call.bored_s
        timeouts = self._options.timeout_s
        timeout_s = timeouts.get(call.original.request_class, timeouts.get("default")) if timeouts else None
        if timeout_s is not None:
            due_s, tries = self._env.now + timeout_s, call.tries
            call.leaves_s = min(call.bored_s, due_s)
            self._env.call_at(due_s, lambda: self._time_out(call, tries))

    def again_s(self, call: Call, status: Status) -> float | None:
        """It gets no answer this time: seconds until it asks again, None if it gives up."""
        retries = self._options.retries
        if call.tries >= retries.most or _RETRIED_AS[status] not in retries.on:
            return None
        wait_s = min(retries.backoff_s * retries.factor**call.tries, retries.longest_s)
        if retries.jitter:
            draw = rng.stream(self._seed, "backoff", call.original.index, call.tries).uniform(-1, 1)
            wait_s *= 1 + retries.jitter * draw
        return wait_s

    def _time_out(self, call: Call, tries: int) -> None:
        if call.tries == tries:
            self._leave(call, TIMED_OUT, False)
