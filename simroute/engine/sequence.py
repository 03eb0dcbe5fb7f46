"""A request inside one engine. Owns `EngineRequest`; may import workload only.

vLLM brings a request's computed tokens up to its tokens plus output placeholders. Between two calls of `schedule()`
that difference has a closed form: a request that has sampled owes exactly one token. Two numbers therefore describe
it, `num_computed_tokens` and `target_tokens`, and no bookkeeping is needed for each generated token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from simroute.workload.request import Request


class EngineRequest(Request):
    """A request and its place in one engine.

    `num_computed_tokens`: tokens whose KV entries are scheduled or done. `target_tokens`: what the next schedule
    brings it up to (prompt, or prompt plus outputs plus the placeholder of async scheduling).
    `decoding`: it has sampled since it was last admitted, so each step computes one token.
    `paused`: it decodes, but missed the last step. `last_token_s`: when its last token came, kept from a preemption
    or pause until it samples again (-1 otherwise), and from the death of its engine.
    `stop_tokens`: prompt plus answer, clipped by max_model_len. `num_blocks` are held, the first
    `num_cached_blocks` of them full and hittable; `content_blocks` is how many leading blocks have a content id
    (`blocks_per_id` of them an id): the rest is unique to the request.
    `generated_tokens`: tokens that had arrived when it was aborted or its engine died; set only then.
    """

    admission: int  # set on admission
    generated_tokens: int
    __slots__ = (
        "admission",
        "blocks",
        "blocks_per_id",
        "cached_tokens",
        "content_blocks",
        "decoding",
        "generated_tokens",
        "last_token_s",
        "num_blocks",
        "num_cached_blocks",
        "num_computed_tokens",
        "paused",
        "preemptions",
        "stop_tokens",
        "target_tokens",
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
        self.index = index  # (as in Request, whose initialiser would be a second call for each of a million requests)
        self.arrival_s = arrival_s
        self.input_tokens = input_tokens
        self.max_tokens = max_tokens
        self.request_class = request_class
        self.tier = tier
        self.tenant = tenant
        self.priority = priority
        self.session = session
        self.prefix_ids = prefix_ids
        self.num_computed_tokens = 0
        self.target_tokens = input_tokens
        self.stop_tokens = input_tokens + max_tokens
        self.decoding = False
        self.paused = False
        self.num_blocks = 0
        self.num_cached_blocks = 0
        self.content_blocks = 0
        self.blocks_per_id = 1
        self.blocks: list[Any] = []
        self.preemptions = 0
        self.cached_tokens = 0
        self.last_token_s = -1.0

    @property
    def sampled(self) -> bool:
        """True once its first token is scheduled."""
        return self.target_tokens > self.input_tokens

    @property
    def order(self) -> tuple[int, float, int]:
        """The key of priority scheduling: lower is served first, the highest is preempted first."""
        return (self.priority, self.arrival_s, self.index)

    @property
    def drained(self) -> bool:
        """True when its last token is scheduled: nothing is left to compute, the output is still on its way."""
        return self.decoding and self.num_computed_tokens >= self.stop_tokens - 1
