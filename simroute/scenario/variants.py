"""A pool of the scenario as the fleet needs it: memory, step time, price and quality looked up.

May import errors, engine, fleet, hardware, policy and, of this room, models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simroute.engine.config import EngineConfig
from simroute.errors import CatalogueError
from simroute.fleet.pool import Pool
from simroute.hardware import catalogue
from simroute.hardware.memory import KvCapacity, engine_defaults, kv_blocks
from simroute.hardware.reference import REFERENCE_INPUT_TOKENS, REFERENCE_OUTPUT_TOKENS, reference_cost
from simroute.hardware.select import step_time_model
from simroute.hardware.specs import GpuSpec, ModelSpec, QuantScheme
from simroute.policy.snapshot import VariantInfo
from simroute.scenario.models import PoolSpec


@dataclass(frozen=True, slots=True)
class Hardware:
    """What the catalogue says of a pool: what runs on what, and what one GPU costs."""

    model: ModelSpec
    scheme: QuantScheme
    gpu: GpuSpec
    usd_per_gpu_hour: float
    price_source: str


@dataclass(frozen=True, slots=True)
class Variant:
    """A pool with everything looked up except quality: its hardware, KV memory and engine settings."""

    spec: PoolSpec
    hardware: Hardware
    capacity: KvCapacity
    engine: EngineConfig
    notes: tuple[str, ...]


def look_up(spec: PoolSpec) -> Hardware:
    """The catalogue's rows for a pool. Raises CatalogueError for the first name it does not know."""
    gpu = catalogue.gpu(spec.gpu)
    own = spec.price.usd_per_gpu_hour
    if own is not None:
        price, source = own, "scenario"
    else:
        offer = catalogue.price(gpu.name, spec.price.provider, spec.price.term)
        price, source = offer.usd_per_gpu_hour, f"{offer.provider} {offer.term}, {offer.sku} ({offer.retrieved})"
    return Hardware(catalogue.model(spec.model), catalogue.scheme(spec.quantization), gpu, price, source)


def variant_of(spec: PoolSpec) -> Variant:
    """The pool's engine, sized by its memory.

    Left out, `max_model_len` is the model's context, or what the KV cache holds where that is less (noted).
    Raises CapacityError when the model does not fit, CatalogueError and UsageError for what vLLM refuses.
    """
    hardware = look_up(spec)
    asked = spec.engine
    default_tokens, default_seqs = engine_defaults(hardware.gpu)
    max_num_batched_tokens = asked.max_num_batched_tokens or default_tokens
    max_num_seqs = asked.max_num_seqs or default_seqs
    capacity = kv_blocks(
        hardware.model,
        hardware.scheme,
        hardware.gpu,
        tensor_parallel=spec.tensor_parallel,
        block_size=asked.block_size,
        gpu_memory_utilization=spec.gpu_memory_utilization,
        kv_cache_dtype=spec.kv_cache_dtype,
        max_model_len=asked.max_model_len or asked.block_size,
        num_gpu_blocks_override=spec.num_gpu_blocks,
        max_num_batched_tokens=max_num_batched_tokens,
        max_num_seqs=max_num_seqs,
    )
    context = hardware.model.max_position_embeddings
    max_model_len = asked.max_model_len or min(context, capacity.usable_tokens)
    notes = []
    if max_model_len > context:
        raise CatalogueError(f"max_model_len {max_model_len} is beyond the context of {hardware.model.name}: {context}")
    if not asked.max_model_len and max_model_len < context:
        notes.append(f"pool {spec.name}: max_model_len is {max_model_len:,}, all that its KV cache holds")
    settings: dict[str, Any] = asked.model_dump() | {
        "max_num_batched_tokens": max_num_batched_tokens,
        "max_num_seqs": max_num_seqs,
        "max_model_len": max_model_len,
        "num_gpu_blocks": capacity.num_gpu_blocks,
    }
    return Variant(spec, hardware, capacity, EngineConfig(**settings), tuple(notes))


def pool_of(variant: Variant, quality: Mapping[str, tuple[float, float, float]]) -> Pool:
    """The pool as the fleet takes it; `quality` maps request classes to (mean, low, high)."""
    spec, hardware, engine = variant.spec, variant.hardware, variant.engine
    step_time = step_time_model(
        hardware.model,
        hardware.scheme,
        hardware.gpu,
        spec.tensor_parallel,
        kv_cache_dtype=spec.kv_cache_dtype,
        async_scheduling=engine.async_scheduling,
    )
    usd_per_hour = hardware.usd_per_gpu_hour * spec.tensor_parallel
    info = VariantInfo(
        pool=spec.name,
        model=hardware.model.name,
        quantization=hardware.scheme.name,
        gpu=hardware.gpu.name,
        tensor_parallel=spec.tensor_parallel,
        usd_per_hour=usd_per_hour,
        usd_per_1m_tokens=reference_cost(
            step_time, variant.capacity, usd_per_hour, max_num_seqs=engine.max_num_seqs, **_reference_load(engine)
        ),
        max_num_seqs=engine.max_num_seqs,
        quality=dict(quality),
    )
    return Pool(spec.name, spec.replicas, info, engine, step_time, spec.tensor_parallel)


def _reference_load(engine: EngineConfig) -> dict[str, int]:
    """The usual reference load, shortened for an engine that takes no request as long."""
    room = min(engine.max_model_len, (engine.num_gpu_blocks - 1) * engine.block_size)
    output_tokens = min(REFERENCE_OUTPUT_TOKENS, max(room // 4, 1))
    return {"input_tokens": max(min(REFERENCE_INPUT_TOKENS, room - output_tokens), 1), "output_tokens": output_tokens}
