"""Fleets whose step times one can add up in the head, and requests to put to a policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from simroute.policy.context import Membership, PolicyContext, Targets
from simroute.policy.routing import make_policy
from simroute.policy.snapshot import Decision, RoutingPolicy, VariantInfo
from simroute.workload.request import Request


@dataclass(frozen=True)
class LinearSpeed:
    """A prompt token takes 1 ms, a decode step 10 ms, unless stated; attention costs nothing unless stated."""

    token_s: float = 1e-3
    step_s: float = 1e-2
    seq_s: float = 0.0
    context_token_s: float = 0.0
    token_squared_s: float = 0.0

    def prefill_s(self, tokens: int) -> float:
        return tokens * self.token_s + tokens**2 * self.token_squared_s

    def decode_s(self, seqs: int, context_tokens: int) -> float:
        return self.step_s + seqs * self.seq_s + context_tokens * self.context_token_s


def variant(
    pool: str,
    usd: float = 1.0,
    quality: Mapping[str, float] | None = None,
    *,
    seats: int = 10,
    speed: LinearSpeed | None = LinearSpeed(),
    budget: int = 1000,
    kv_tokens: int = 0,
    external: bool = False,
) -> VariantInfo:
    """A pool's variant, named after the pool."""
    figures = {name: (q, q - 0.05, q + 0.05) for name, q in (quality or {}).items()}
    return VariantInfo(pool, "m", pool, "H100", 1, 1.0, usd, seats, figures, budget, kv_tokens, speed, external)


@dataclass
class Seen:
    """A snapshot whose values a test sets."""

    replica: int
    variant: VariantInfo
    in_flight: int = 0
    in_flight_tokens: int = 0
    queued_tokens: int = 0
    num_requests_running: int = 0
    num_requests_waiting: int = 0
    kv_cache_usage: float = 0.0

    def prefix_hit_tokens(self, request: Request) -> int:
        return 0

    def load(self, requests: int, tokens: int, queued_tokens: int = 0) -> None:
        """So many requests in flight with so many prompt tokens in all, of which some have no first token yet."""
        self.in_flight, self.in_flight_tokens, self.queued_tokens = requests, tokens, queued_tokens


class Stage:
    """Pools of (replicas, variant), all up and idle at first."""

    def __init__(
        self,
        *pools: tuple[int, VariantInfo],
        floor: Mapping[str, float] | None = None,
        targets: Mapping[str, Targets] | None = None,
    ) -> None:
        self.variants = [variant for _, variant in pools]
        self.pool_of_replica = [p for p, (replicas, _) in enumerate(pools) for _ in range(replicas)]
        self.seen = [Seen(r, self.variants[p]) for r, p in enumerate(self.pool_of_replica)]
        self.members = Membership(True for _ in self.seen)
        self._floor, self._targets = floor or {}, targets or {}

    def context(self, seed: int = 0) -> PolicyContext:
        rng = np.random.default_rng(seed)
        return PolicyContext(self.variants, self.pool_of_replica, rng, self._floor, self._targets, members=self.members)

    def policy(self, name: str, seed: int = 0, **options: Any) -> Any:
        return make_policy(name, options, self.context(seed))

    def ask(self, policy: RoutingPolicy, request: Request | None = None) -> Decision:
        return policy.choose(request or ask_for(), self.seen)

    def pick(self, policy: RoutingPolicy, request: Request | None = None) -> int:
        return self.ask(policy, request).replica

    def down(self, *replicas: int) -> None:
        for replica in replicas:
            self.members.set(replica, False)

    def up(self, *replicas: int) -> None:
        for replica in replicas:
            self.members.set(replica, True)


def ask_for(
    request_class: str = "chat", index: int = 0, arrival_s: float = 0.0, tokens: int = 100, tier: str = "free"
) -> Request:
    """A request with a prompt of `tokens` tokens."""
    return Request(index, arrival_s, tokens, 10, request_class, tier)
