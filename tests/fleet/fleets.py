"""Small fleets with step times one can add up in the head, and one call that replays a trace through them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simroute.engine.config import EngineConfig
from simroute.fleet.cluster import simulate
from simroute.fleet.options import FleetOptions
from simroute.fleet.pool import Pool
from simroute.fleet.scrape import Signal, same_signal
from simroute.hardware.steptime import Basis, Batch
from simroute.policy.context import PolicyContext
from simroute.policy.routing import make_policy
from simroute.policy.snapshot import RoutingPolicy, VariantInfo
from simroute.results.run import FleetRun
from simroute.workload.trace import Trace


@dataclass(frozen=True)
class LinearStepTime:
    """A step takes `base_s`, and so much more for each token, each (query, key) pair and each token of context."""

    base_s: float = 1.0
    per_token_s: float = 0.0
    per_pair_s: float = 0.0
    per_context_token_s: float = 0.0
    estimated: bool = True
    basis: Basis = "estimated"

    def drawn(self, rng: np.random.Generator) -> LinearStepTime:
        return self

    def duration_s(self, batch: Batch) -> float:
        tokens = batch.prefill_tokens + batch.decode_seqs
        attention_s = batch.prefill_pairs * self.per_pair_s + batch.decode_context_tokens * self.per_context_token_s
        return self.base_s + tokens * self.per_token_s + attention_s

    def decode_line(self, decode_seqs: int) -> tuple[float, float]:
        return self.base_s + decode_seqs * self.per_token_s, self.per_context_token_s


GPU_LIKE = LinearStepTime(base_s=5.5e-3, per_token_s=2.2e-5, per_pair_s=1e-9, per_context_token_s=4.4e-8)
"""About an 8B model on a large GPU: 5.5 ms to read the weights."""


def make_pool(replicas: int = 1, step_time: Any = None, name: str = "pool", **engine: Any) -> Pool:
    """A pool of engines with blocks of 4 tokens, 100 of them usable, whose steps take a second unless stated."""
    settings = {"num_gpu_blocks": 101, "block_size": 4, "max_model_len": 256, "max_num_batched_tokens": 64} | engine
    config = EngineConfig(**settings)
    variant = VariantInfo(name, "model", "bf16", "H100", 1, 4.0, 1.0, config.max_num_seqs, {})
    return Pool(name, replicas, variant, config, step_time or LinearStepTime(), 1)


def make_policy_for(pools: Sequence[Pool], name: str, seed: int = 0, **options: Any) -> RoutingPolicy:
    """A policy of the registry, built for these pools."""
    pool_of_replica = [number for number, pool in enumerate(pools) for _ in range(pool.replicas)]
    variants = [pool.variant for pool in pools]
    return make_policy(name, options, PolicyContext(variants, pool_of_replica, np.random.default_rng(seed)))


def replay(
    trace: Trace, pools: Sequence[Pool], policy: str | RoutingPolicy = "round_robin", **options: Any
) -> FleetRun:
    """Simulate the trace under a policy, named or made; the seed is 0."""
    made, name = (make_policy_for(pools, policy), policy) if isinstance(policy, str) else (policy, "own")
    if (interval_s := options.pop("scrape_interval_s", None)) is not None:
        options["options"] = FleetOptions(signals=same_signal(Signal(interval_s)))
    return simulate(trace, pools, made, policy_name=name, seed=0, **options)


def synthetic(requests: int, rate_per_s: float, input_tokens: int, output_tokens: int, seed: int = 0) -> Trace:
    """Poisson arrivals; lengths uniform up to twice these means."""
    rng = np.random.default_rng(seed)
    return Trace.build(
        arrival_s=np.cumsum(rng.exponential(1 / rate_per_s, requests)),
        input_tokens=rng.integers(1, 2 * input_tokens, requests),
        output_tokens=rng.integers(1, 2 * output_tokens, requests),
    )
