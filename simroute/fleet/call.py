"""A request as its client sees it: one call, made of attempts. Owns `Call`; may import engine."""

from __future__ import annotations

from typing import Any

from simroute.engine.sequence import EngineRequest, RetriedRequest

NOWHERE = -1


class Call:
    """What a client waits for: `original` is the request as it first came, never sent itself.

    `request` is the attempt that is under way, at replica `number` (NOWHERE: at none), `begun` once its first token is
    scheduled; `coming` while the router takes its time over it, `held` while it is in the gateway's queue. `tries`
    counts how often the client has asked again, `resends` how often the router has sent it anew since. `done_tokens`
    of the answer came from replicas that are gone. `attempts` counts those made so far. `over`: it has ended.
    """

    __slots__ = (
        "attempts",
        "begun",
        "coming",
        "done_tokens",
        "held",
        "number",
        "original",
        "over",
        "request",
        "resends",
        "tries",
    )

    def __init__(self, original: EngineRequest) -> None:
        self.original = original
        self.request = original
        self.number = NOWHERE
        self.attempts = 0
        self.begun = False
        self.held = False
        self.coming = False
        self.tries = 0
        self.resends = 0
        self.done_tokens = 0
        self.over = False

    def attempt(self, now: float) -> EngineRequest:
        """A fresh attempt that reaches the router at `now`: what has come already is part of its prompt."""
        asked, done = self.original, self.done_tokens
        self.begun = False
        request: dict[str, Any] = {
            "index": asked.index,
            "arrival_s": now,
            "input_tokens": asked.input_tokens + done,
            "max_tokens": asked.max_tokens - done,
            "request_class": asked.request_class,
            "tier": asked.tier,
            "tenant": asked.tenant,
            "priority": asked.priority,
            "session": asked.session,
            "prefix_ids": asked.prefix_ids,
        }
        self.request = RetriedRequest(self.attempts, **request) if self.attempts else EngineRequest(**request)
        self.attempts += 1
        return self.request
