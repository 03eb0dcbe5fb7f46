"""A request as its client sees it: one call, made of attempts. Owns `Call`; may import engine."""

from __future__ import annotations

from math import inf

from simroute.engine.sequence import EngineRequest

NOWHERE = -1


class Call:
    """What a client waits for: `original` is the request as it first came, never sent itself.

    `request` is the attempt that is under way, at replica `number` (NOWHERE: at none), `begun` once its first token is
    scheduled; `coming` while the router takes its time over it, `held` while it is in the gateway's queue. `tries`
    counts how often the client has asked again, `resends` how often the router has sent it anew since. `done_tokens`
    of the answer came from replicas that are gone, the last of them at `paused_s`; `first_s` is when the attempt's own
    first token comes. `lost` says why the last replica that had it is gone, if one is since the client asked.
    `attempts` counts those made so far. The client hangs up at `leaves_s`, for good at `bored_s`. `over`: it has ended.
    """

    __slots__ = (
        "attempts",
        "begun",
        "bored_s",
        "coming",
        "done_tokens",
        "first_s",
        "held",
        "leaves_s",
        "lost",
        "number",
        "original",
        "over",
        "paused_s",
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
        self.paused_s = 0.0
        self.first_s = inf
        self.lost = ""
        self.bored_s = inf
        self.leaves_s = inf
        self.over = False

    def attempt(self, now: float) -> EngineRequest:
        """A fresh attempt that reaches the router at `now`: what has come already is part of its prompt."""
        asked, done = self.original, self.done_tokens
        self.attempts += 1
        self.begun = False
        self.first_s = inf
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
