"""One request as a router sees it. Owns `Request`; imports nothing of simroute."""

from __future__ import annotations

from collections.abc import Sequence


class Request:
    """A request on its way through the fleet (exists only while in flight).

    `max_tokens` is the answer's true length: policies that real routers could run must not read it.
    `prefix_ids` are chained content ids of the token stream, one for each `prefix_block_tokens` tokens
    (see `Trace`); equal ids mean equal tokens from the start of the prompt up to the end of that block.
    """

    __slots__ = (
        "arrival_s",
        "index",
        "input_tokens",
        "max_tokens",
        "prefix_ids",
        "priority",
        "request_class",
        "session",
        "tenant",
        "tier",
    )

    def __init__(
        self,
        index: int,
        arrival_s: float,
        input_tokens: int,
        max_tokens: int,
        request_class: str = "default",
        tier: str = "default",
        tenant: str = "default",
        priority: int = 0,
        session: int = -1,
        prefix_ids: Sequence[int] = (),
    ) -> None:
        self.index = index
        self.arrival_s = arrival_s
        self.input_tokens = input_tokens
        self.max_tokens = max_tokens
        self.request_class = request_class
        self.tier = tier
        self.tenant = tenant
        self.priority = priority
        self.session = session
        self.prefix_ids = prefix_ids
