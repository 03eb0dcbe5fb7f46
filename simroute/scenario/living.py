"""How a scenario's fleet lives, as the fleet takes it. Owns `fleet_options`, `living` and `external_pool`.

May import errors, engine, fleet, policy and, of this room, fleet_models and models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from simroute.engine.config import EngineConfig
from simroute.fleet import options as fleet
from simroute.fleet.pool import External, Pool, Startup
from simroute.fleet.scrape import METRICS, Signal, Signals
from simroute.hardware.reference import REFERENCE_INPUT_TOKENS, REFERENCE_OUTPUT_TOKENS
from simroute.hardware.speed import FlatSpeed
from simroute.hardware.steptime import Basis, Batch
from simroute.policy.admission import make_admission
from simroute.policy.autoscaling import make_autoscaler
from simroute.policy.context import Targets
from simroute.policy.gateway_queue import GatewayQueue, GatewayQueueOptions
from simroute.policy.options import parse_options
from simroute.policy.snapshot import RoutingPolicy, VariantInfo
from simroute.scenario.fleet_models import (
    ClientsSpec,
    ExternalSpec,
    FailuresSpec,
    RouterSpec,
    SignalSpec,
    StartupSpec,
)
from simroute.scenario.models import PoolSpec, Scenario
from simroute.workload.columns import DEFAULT_NAME

BYTES_PER_GB = 1e9
EXTERNAL = "external"
"""The quantization scheme and GPU of somebody else's endpoint, where a name is asked for."""
SEATS = 100_000
"""Requests at once that somebody else's endpoint is taken to serve: its rate limit comes first."""


def fleet_options(
    scenario: Scenario, targets: Mapping[str, Targets], remake: Callable[[], RoutingPolicy]
) -> fleet.FleetOptions:
    """Everything about router, clients, autoscalers and failures, fresh for one replay.

    `remake` makes the policy anew. Raises UsageError for rules and options that `check` would have found.
    """
    router = scenario.router
    return fleet.FleetOptions(
        signals=_signals(router),
        router=fleet.RouterOptions(
            router.latency_s, router.throughput_rps, router.kv_event_delay_s, router.on_loss, router.most_resends
        ),
        remake=remake,
        admission=tuple(make_admission(rule.name, rule.options, targets) for rule in router.admission),
        queue=None if router.queue is None else _queue(router.queue),
        clients=_clients(scenario.clients),
        scaling={pool.name: _scaling(pool) for pool in scenario.pools if pool.autoscale is not None},
        failures=_failures(scenario.failures),
    )


def startup_of(spec: StartupSpec, weight_bytes: float, gpus: int) -> Startup:
    """Stage by stage; `weight_bytes` are those on each of `gpus` GPUs, loaded through one pipe."""
    weights_s = spec.weights_s
    if weights_s is None:
        weights_s = weight_bytes * gpus / BYTES_PER_GB / spec.weights_gb_per_s
    return Startup(spec.node_s, spec.image_s, weights_s, spec.engine_s)


@dataclass(frozen=True, slots=True)
class _Stated:
    """An endpoint's steps as far as its clients see any: a token of each answer every `tpot_s`, whatever the batch."""

    tpot_s: float
    estimated: bool = False
    basis: Basis = "estimated"

    def duration_s(self, batch: Batch) -> float:
        """The stated time per token."""
        return self.tpot_s

    def decode_line(self, decode_seqs: int) -> tuple[float, float]:
        """The same, at any context."""
        return self.tpot_s, 0.0

    def drawn(self, rng: np.random.Generator) -> _Stated:
        """Itself: it is stated, not measured."""
        return self


def living(pool: Pool, spec: PoolSpec, weight_bytes: float) -> Pool:
    """`pool` with room to grow, as its spec says, and with what it takes to start a replica."""
    most = spec.autoscale.max_replicas if spec.autoscale else spec.replicas
    startup = startup_of(spec.startup, weight_bytes, spec.tensor_parallel)
    return replace(pool, places=most, startup=startup, zones=spec.zones)


def external_pool(spec: ExternalSpec, classes: Iterable[str]) -> Pool:
    """Somebody else's endpoint as a pool, with what its quality for `classes` is said to be.

    Its cost is compared at the reference load of the others.
    """
    stated = {name: spec.quality.get(name, spec.quality.get(DEFAULT_NAME)) for name in classes}
    quality = {name: (mean, mean, mean) for name, mean in stated.items() if mean is not None}
    prompts = REFERENCE_INPUT_TOKENS / REFERENCE_OUTPUT_TOKENS
    per_output = spec.usd_per_1m_output_tokens + spec.usd_per_1m_input_tokens * prompts
    variant = VariantInfo(
        pool=spec.name,
        model=spec.model,
        quantization=EXTERNAL,
        gpu=EXTERNAL,
        tensor_parallel=1,
        usd_per_hour=0.0,
        usd_per_1m_tokens=per_output,
        max_num_seqs=SEATS,
        quality=quality,
        speed=FlatSpeed(spec.ttft_s, spec.tpot_s),
        external=True,
    )
    engine = EngineConfig(
        num_gpu_blocks=spec.max_model_len // 16 + 2,
        max_model_len=spec.max_model_len,
        max_num_seqs=SEATS,
        max_num_batched_tokens=max(spec.max_model_len, SEATS),
        enable_prefix_caching=False,
    )
    terms = External(
        spec.usd_per_1m_input_tokens,
        spec.usd_per_1m_output_tokens,
        spec.ttft_s,
        spec.tpot_s,
        spec.spread,
        spec.requests_per_minute,
    )
    return Pool(spec.name, 1, variant, engine, _Stated(spec.tpot_s), 0, external=terms)


def _signals(router: RouterSpec) -> Signals:
    usual = Signal(router.scrape_interval_s, router.scrape_delay_s, router.scrape_jitter_s, router.scrape_loss)

    def signal(spec: SignalSpec | None) -> Signal:
        return usual if spec is None else Signal(spec.interval_s, spec.delay_s, spec.jitter_s, spec.loss)

    return {name: signal(getattr(router.signals, name)) for name in METRICS}


def _queue(options: Mapping[str, Any]) -> GatewayQueue:
    parsed = parse_options("router.queue", GatewayQueueOptions, options)
    assert isinstance(parsed, GatewayQueueOptions)
    return GatewayQueue(parsed)


def _clients(spec: ClientsSpec) -> fleet.ClientOptions:
    retries, cancel = spec.retries, spec.cancel
    return fleet.ClientOptions(
        timeout_s=spec.timeout_s,
        cancel_share=cancel.share if cancel else 0.0,
        cancel_after_s=cancel.mean_after_s if cancel else 0.0,
        retries=fleet.Retries(**{**retries.model_dump(), "on": frozenset(retries.on)}) if retries else fleet.Retries(),
        users=spec.users,
        wait_in_session=spec.wait_in_session,
        think_s=spec.think_s,
        tools=frozenset(spec.tools),
        tool_s=spec.tool_s,
    )


def _scaling(pool: PoolSpec) -> fleet.Scaling:
    scale = pool.autoscale
    assert scale is not None
    limits = {"min_replicas": scale.min_replicas, "max_replicas": scale.max_replicas}
    return fleet.Scaling(make_autoscaler(scale.name, scale.options | limits), scale.interval_s, scale.drain_s)


def _failures(spec: FailuresSpec) -> fleet.Failures:
    return fleet.Failures(
        crashes=tuple(fleet.Crashes(**each.model_dump()) for each in spec.crashes),
        outages=tuple(fleet.Outage(**each.model_dump()) for each in spec.outages),
        spot=tuple(fleet.Spot(**each.model_dump()) for each in spec.spot),
        stragglers=tuple(
            fleet.Straggler(each.at_s, each.duration_s, each.pool, each.replica, each.factor)
            for each in spec.stragglers
        ),
        router=tuple(fleet.RouterRestart(**each.model_dump()) for each in spec.router),
    )
