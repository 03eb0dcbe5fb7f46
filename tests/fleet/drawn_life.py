"""Draws whole lives of fleets: several pools, faults, impatient clients, autoscalers, other people's endpoints, and any
policy that needs no options of its own."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from fleet.drawn import drawn_prefixes
from fleet.living import a_pool
from fleet.seconds import endpoint

from simroute.fleet import options as fleet
from simroute.fleet.pool import Pool, Startup
from simroute.fleet.scrape import Signal, Signals, same_signal
from simroute.policy.admission import make_admission
from simroute.policy.autoscaling import make_autoscaler
from simroute.policy.gateway_queue import GatewayQueue, GatewayQueueOptions
from simroute.workload.trace import Trace

BLOCK = 4
REQUESTS = 120
SPAN_S = 8.0
"""About so long the trace is; faults fall within it."""

POLICIES: dict[str, dict[str, Any]] = {
    "random": {},
    "round_robin": {},
    "least_requests": {},
    "power_of_two": {},
    "least_kv": {},
    "least_tokens": {},
    "session_affinity": {},
    "prefix_affinity": {},
    "weighted": {},
    "prefix_precise": {},
    "join_shortest_expected_wait": {},
    "latency_target": {},
    "cost_aware": {},
    "quant_aware": {},
    "length_split": {},
    "difficulty_threshold": {},
    "cascade": {"accept_rate": {"default": 0.5}},
    "spillover": {},
    "two_level": {},
    "static_tier": {"tiers": {"gold": "b"}, "default": "a"},
}
KV_EVENTS = ("prefix_precise", "weighted")
"""Policies that see what answers and evictions do to caches later in fast mode: see docs/engine.md."""


@dataclass(frozen=True, slots=True)
class Life:
    """One fleet to simulate; `options()` makes fresh ones."""

    pools: list[Pool]
    trace: Trace
    policy: str
    policy_options: dict[str, Any]
    options: Callable[[], fleet.FleetOptions]


def drawn_life(seed: int) -> Life:
    """A fleet, its traffic and what happens to it."""
    rng = random.Random(seed)
    own = [_pool(rng, name) for name in "abc"[: rng.randint(1, 3)]]
    outside = [_endpoint(rng)] if rng.random() < 0.35 else []
    policies = [
        name for name in POLICIES if (name != "static_tier" or len(own) > 1) and (name != "spillover" or outside)
    ]
    policy = rng.choice(policies)
    signals, router, clients, failures = _signals(rng), _router(rng), _clients(rng), _failures(rng, own)
    queue, admission, scaling = _queue(rng), _admission(rng), _scaling(rng, own)

    def options() -> fleet.FleetOptions:
        return fleet.FleetOptions(
            signals=signals,
            router=router,
            admission=[make_admission(name, given) for name, given in admission],
            queue=None if queue is None else GatewayQueue(GatewayQueueOptions(**queue)),
            clients=clients,
            scaling={
                name: replace(each, autoscaler=make_autoscaler("hpa", each.autoscaler))  # type: ignore[arg-type]
                for name, each in scaling.items()
            },
            failures=failures,
        )

    return Life([*own, *outside], _trace(rng), policy, POLICIES[policy], options)


def _maybe(rng: random.Random, chance: float, value: Any, otherwise: Any) -> Any:
    return value if rng.random() < chance else otherwise


def _pool(rng: random.Random, name: str) -> Pool:
    """Scarce or ample seats, memory and budget; one pool may have room to grow, another none."""
    replicas = rng.randint(1, 3)
    pool = a_pool(
        replicas,
        replicas + rng.randint(0, 2),
        num_gpu_blocks=rng.choice([70, 120, 400]),
        max_num_seqs=rng.randint(1, 9),
        max_num_batched_tokens=rng.choice([16, 64, 200]),
        enable_prefix_caching=rng.random() < 0.8,
        policy=rng.choice(["fcfs", "fcfs", "priority"]),
        watermark=rng.choice([0.0, 0.05]),
        scheduler_reserve_full_isl=rng.random() < 0.7,
        long_prefill_token_threshold=rng.choice([0, 0, 12]),
        async_scheduling=rng.random() < 0.5,
    )
    quality = {"default": (rng.uniform(0.3, 0.9),) * 3}
    variant = replace(pool.variant, pool=name, usd_per_1m_tokens=float(rng.randint(1, 4)), quality=quality)
    startup = rng.choice([pool.startup, Startup(0.5, 0.0, rng.random(), 0.0), Startup()])
    zones = rng.choice([("east", "west"), ("east",), ("west", "east", "north")])
    return replace(pool, name=name, variant=variant, startup=startup, zones=zones)


def _endpoint(rng: random.Random) -> Pool:
    limit = rng.choice([None, 20.0, 100.0])
    return endpoint(
        ttft_s=rng.uniform(0.05, 1.0),
        tpot_s=rng.uniform(0.0, 0.05),
        spread=rng.choice([0.0, 0.5]),
        requests_per_minute=limit,
    )


def _signals(rng: random.Random) -> Signals:
    mixed = {"running": Signal(0.3, 0.1, 0.1, 0.2), "waiting": Signal(), "kv_cache_usage": Signal(1.0)}
    return rng.choice([same_signal(Signal()), same_signal(Signal(0.5)), mixed])


def _router(rng: random.Random) -> fleet.RouterOptions:
    return fleet.RouterOptions(
        latency_s=rng.choice([0.0, 0.05]),
        throughput_rps=rng.choice([None, None, 30.0]),
        kv_event_delay_s=rng.choice([0.0, 0.2]),
        on_loss=rng.choice(["fail", "retry", "resume"]),
        most_resends=rng.randint(0, 2),
    )


def _clients(rng: random.Random) -> fleet.ClientOptions:
    loop = rng.choice(["open", "users", "sessions"])
    return fleet.ClientOptions(
        timeout_s=rng.choice([{}, {"default": 0.5}, {"default": 3.0, "tool": 1.0}]),
        cancel_share=rng.choice([0.0, 0.3]),
        cancel_after_s=0.4,
        retries=fleet.Retries(most=rng.randint(0, 2), backoff_s=0.3, jitter=0.5),
        users=rng.randint(1, 20) if loop == "users" else None,
        wait_in_session=loop == "sessions",
        think_s=rng.choice([0.0, 0.2]),
        tools=frozenset({"tool"}),
        tool_s=0.3,
    )


def _failures(rng: random.Random, pools: list[Pool]) -> fleet.Failures:
    """Up to three faults of each kind, in half of the lives each."""

    def some(fault: Callable[[], Any], chance: float = 0.5) -> list[Any]:
        return [fault() for _ in range(rng.randint(1, 3))] if rng.random() < chance else []

    def pool() -> Pool:
        return rng.choice(pools)

    def moment() -> float:
        return rng.uniform(0.0, SPAN_S)

    def straggler() -> fleet.Straggler:
        hit = pool()
        return fleet.Straggler(
            moment(), rng.uniform(0.1, 6.0), hit.name, rng.randrange(hit.places), rng.uniform(0.5, 8.0)
        )

    return fleet.Failures(
        crashes=some(lambda: fleet.Crashes(rng.uniform(0.5, 8.0), rng.choice([None, pool().name])))[:1],
        outages=some(
            lambda: fleet.Outage(
                moment(),
                rng.uniform(0.1, 6.0),
                rng.choice([None, None, "east", "west"]),
                rng.choice([None, pool().name]),
                rng.choice([None, None, 1, 2]),
            )
        ),
        spot=some(lambda: fleet.Spot(pool().name, rng.uniform(1.0, 8.0), rng.uniform(0.0, 2.0), rng.uniform(0.0, 2.0))),
        stragglers=some(straggler),
        router=some(lambda: fleet.RouterRestart(moment(), rng.uniform(0.0, 2.0)), 0.3),
    )


def _queue(rng: random.Random) -> dict[str, Any] | None:
    return rng.choice(
        [
            None,
            {},
            {"max_held": 5, "max_wait_s": 1.0, "order": "fair"},
            {"max_held_per_tenant": 6, "max_wait_s": 5.0, "order": "priority_fair"},
        ]
    )


def _admission(rng: random.Random) -> list[tuple[str, dict[str, Any]]]:
    rules: list[tuple[str, dict[str, Any]]] = [
        ("token_bucket", {"rate_per_s": 10.0, "burst": 5.0}),
        ("queue_limit", {"per_replica": 6}),
        ("deadline", {"deadline_s": {"default": 2.0}}),
        ("tier_shed", {"tiers": {"free": {"enter": 0.8, "leave": 0.5}}}),
    ]
    return [rule for rule in rules if rng.random() < 0.2]


def _scaling(rng: random.Random, pools: list[Pool]) -> dict[str, fleet.Scaling]:
    """An autoscaler for three pools in ten, its options in the place of itself."""
    scaling = {}
    for pool in pools:
        limits = {"min_replicas": rng.randint(0, 1), "max_replicas": pool.places, "cooldown_s": 2.0}
        options = {"targets": {"concurrency": 4, "held": 2}, "scale_down": {"stabilization_window_s": 2.0}}
        if rng.random() < 0.3:
            scaling[pool.name] = fleet.Scaling(limits | options, rng.uniform(0.5, 5.0), rng.uniform(0.1, 5.0))  # type: ignore[arg-type]
    return scaling


def _trace(rng: random.Random) -> Trace:
    """Sessions, tenants, tiers and priorities in a mix; seven in ten have content that others share."""
    numbers = np.random.default_rng(rng.getrandbits(32))
    prompts, answers = numbers.integers(1, 120, REQUESTS), numbers.integers(1, 80, REQUESTS)
    gaps_s = numbers.exponential(SPAN_S / REQUESTS * rng.choice([0.5, 1.0, 2.0]), REQUESTS)
    gaps_s[numbers.random(REQUESTS) < 0.1] = 0.0
    prefixes = drawn_prefixes(rng, prompts.tolist(), answers.tolist(), BLOCK) if rng.random() < 0.7 else None
    return Trace.build(
        arrival_s=np.cumsum(gaps_s),
        input_tokens=prompts,
        output_tokens=answers,
        priority=numbers.integers(0, 3, REQUESTS),
        tier=numbers.choice(["free", "gold"], REQUESTS).tolist(),
        tenant=numbers.choice(["a", "b", "c"], REQUESTS).tolist(),
        request_class=numbers.choice(["default", "tool"], REQUESTS).tolist(),
        session=np.arange(REQUESTS) % 12,
        **({"prefixes": prefixes, "prefix_block_tokens": BLOCK} if prefixes is not None else {}),
    )
