"""A request as its client sees it: one call, made of attempts. Owns `Call`; may import engine."""

from __future__ import annotations

from simroute.engine.sequence import EngineRequest

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
        self.attempts = 0
        self.number = NOWHERE
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
        self.attempts += 1
        self.begun = False
        self.request = EngineRequest(
            asked.index,
            now,
            asked.input_tokens + done,
            asked.max_tokens - done,
            asked.request_class,
            asked.tier,
            asked.tenant,
            asked.priority,
            asked.session,
            asked.prefix_ids,
        )
        return self.request
