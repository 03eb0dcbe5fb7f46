"""A fleet of fake replicas, described in one line a pool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from simroute.policy.context import PolicyContext
from simroute.policy.routing import make_policy
from simroute.policy.snapshot import Decision, RoutingPolicy, VariantInfo
from simroute.workload.request import Request


@dataclass
class FakeReplica:
    """A snapshot whose values a test sets."""

    replica: int
    variant: VariantInfo
    in_flight: int = 0
    num_requests_running: int = 0
    num_requests_waiting: int = 0
    kv_cache_usage: float = 0.0
    in_flight_tokens: int = 0
    queued_tokens: int = 0
    hits: Mapping[int, int] = field(default_factory=dict)
    """Cached prompt tokens by request index."""

    def prefix_hit_tokens(self, request: Request) -> int:
        return self.hits.get(request.index, 0)


class FakeFleet:
    """Pools given as name=(replicas, usd_per_1m_tokens, {class: mean quality}), 10 seats a replica."""

    def __init__(
        self, floor: Mapping[str, float] | None = None, **pools: tuple[int, float, Mapping[str, float]]
    ) -> None:
        self.floor = floor or {}
        self.variants = [
            VariantInfo(
                name, "m", name, "H100", 1, 1.0, usd, 10, {c: (q, q - 0.05, q + 0.05) for c, q in quality.items()}
            )
            for name, (_, usd, quality) in pools.items()
        ]
        self.pool_of_replica = [p for p, (replicas, _, _) in enumerate(pools.values()) for _ in range(replicas)]
        self.seen = [FakeReplica(r, self.variants[p]) for r, p in enumerate(self.pool_of_replica)]

    def context(self, seed: int = 0) -> PolicyContext:
        return PolicyContext(self.variants, self.pool_of_replica, np.random.default_rng(seed), self.floor)

    def policy(self, name: str, seed: int = 0, **options: Any) -> RoutingPolicy:
        return make_policy(name, options, self.context(seed))

    def ask(self, policy: RoutingPolicy, request_class: str = "chat", tier: str = "free") -> Decision:
        return policy.choose(Request(0, 0.0, 100, 10, request_class, tier), self.seen)

    def pick(self, policy: RoutingPolicy, request_class: str = "chat", tier: str = "free") -> int:
        return self.ask(policy, request_class, tier).replica


@pytest.fixture(scope="session")
def fleet() -> Callable[..., FakeFleet]:
    """FakeFleet(floor, **pools)."""
    return FakeFleet
