"""A pool of the scenario as the fleet needs it: calibration, memory, step time, price and quality looked up.

May import errors, engine, fleet, hardware, policy and, of this room, models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simroute.engine.config import EngineConfig
from simroute.errors import CalibrationError, CatalogueError
from simroute.fleet.pool import Pool
from simroute.hardware import catalogue
from simroute.hardware.calibration import RequestTerms
from simroute.hardware.memory import KvCapacity, engine_defaults, kv_blocks
from simroute.hardware.reference import REFERENCE_INPUT_TOKENS, REFERENCE_OUTPUT_TOKENS, reference_cost
from simroute.hardware.select import FoundCalibration, calibration_at, calibration_in, step_time_model
from simroute.hardware.specs import GpuSpec, ModelSpec, QuantScheme
from simroute.hardware.speed import StepSpeed
from simroute.policy.snapshot import VariantInfo
from simroute.scenario.models import NO_CALIBRATION, PoolSpec


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
    """A pool with everything looked up except quality: its hardware, calibration, KV memory and engine settings."""

    spec: PoolSpec
    hardware: Hardware
    calibration: FoundCalibration | None
    capacity: KvCapacity
    engine: EngineConfig
    notes: tuple[str, ...]


def look_up(spec: PoolSpec) -> Hardware:
    """The catalogue's rows for a pool. Raises CatalogueError for the first name it does not know."""
    gpu = catalogue.gpu(spec.gpu)
    own = spec.price.usd_per_gpu_hour
    if own is not None:
        price, source = own, "as given"
    else:
        offer = catalogue.price(gpu.name, spec.price.provider, spec.price.term)
        price, source = offer.usd_per_gpu_hour, f"{offer.provider} {offer.term}, {offer.sku} ({offer.retrieved})"
    return Hardware(catalogue.model(spec.model), catalogue.scheme(spec.quantization), gpu, price, source)


def calibration_of(spec: PoolSpec, hardware: Hardware, folder: str | None = None) -> FoundCalibration | None:
    """The calibration that the pool names or that `folder` holds for it (see `Scenario.calibrations`); None: estimate.

    Raises CalibrationError for one that is unreadable or of another replica.
    """
    if (spec.calibration or folder) == NO_CALIBRATION:
        return None
    replica = (hardware.model, hardware.scheme, hardware.gpu, spec.tensor_parallel, spec.kv_cache_dtype)
    if spec.calibration is not None:
        try:
            return calibration_at(spec.calibration, *replica)
        except CalibrationError as error:
            raise CalibrationError(f"calibration: {error}") from None
    return calibration_in(folder, *replica)


def variant_of(spec: PoolSpec, calibrations: str | None = None) -> Variant:
    """The pool's calibration, if there is one, and its engine, sized by its memory.

    `calibrations` is the scenario's folder. KV blocks are those that the pool states, else those that a calibration
    measured under the same limits, else the formula's. Left out, `max_model_len` is the model's context, or what the
    KV cache holds where that is less (noted).
    Raises CapacityError when the model does not fit, CatalogueError and UsageError for what vLLM refuses,
    CalibrationError as `calibration_of` does.
    """
    hardware = look_up(spec)
    found = calibration_of(spec, hardware, calibrations)
    asked = spec.engine
    default_tokens, default_seqs = engine_defaults(hardware.gpu)
    max_num_batched_tokens = asked.max_num_batched_tokens or default_tokens
    max_num_seqs = asked.max_num_seqs or default_seqs
    limits = {
        "block_size": asked.block_size,
        "gpu_memory_utilization": spec.gpu_memory_utilization,
        "max_num_batched_tokens": max_num_batched_tokens,
        "max_num_seqs": max_num_seqs,
    }
    measured, notes = _measured_blocks(spec, found, limits)
    capacity = kv_blocks(
        hardware.model,
        hardware.scheme,
        hardware.gpu,
        tensor_parallel=spec.tensor_parallel,
        kv_cache_dtype=spec.kv_cache_dtype,
        max_model_len=asked.max_model_len or asked.block_size,
        num_gpu_blocks_override=measured,
        **limits,  # type: ignore[arg-type]
    )
    context = hardware.model.max_position_embeddings
    max_model_len = asked.max_model_len or min(context, capacity.usable_tokens)
    if max_model_len > context:
        raise CatalogueError(f"max_model_len {max_model_len} is beyond the context of {hardware.model.name}: {context}")
    if not asked.max_model_len and max_model_len < context:
        notes.append(f"max_model_len is {max_model_len:,}, all that its KV cache holds")
    settings: dict[str, Any] = asked.model_dump() | {
        "max_num_batched_tokens": max_num_batched_tokens,
        "max_num_seqs": max_num_seqs,
        "max_model_len": max_model_len,
        "num_gpu_blocks": capacity.num_gpu_blocks,
    }
    engine = EngineConfig(**settings)
    notes += _doubts(found, engine)
    return Variant(spec, hardware, found, capacity, engine, tuple(f"pool {spec.name}: {note}" for note in notes))


def _measured_blocks(
    spec: PoolSpec, found: FoundCalibration | None, limits: Mapping[str, float]
) -> tuple[int | None, list[str]]:
    """The KV blocks that the pool or its calibration measured, and why those of the calibration are not taken."""
    memory = found.calibration.memory if found else None
    if spec.num_gpu_blocks is not None or memory is None:
        return spec.num_gpu_blocks, []
    theirs = {name: getattr(memory, name) for name in limits}
    other = [f"{name} {theirs[name]:g}" for name, ours in limits.items() if theirs[name] not in (None, ours)]
    if other:
        return None, [f"KV blocks by the formula: the calibration measured them under {', '.join(other)}"]
    return memory.num_gpu_blocks, []


def _doubts(found: FoundCalibration | None, engine: EngineConfig) -> list[str]:
    """Where the pool's engine runs unlike the one that was calibrated."""
    if found is None or found.calibration.async_scheduling == engine.async_scheduling:
        return []
    return [
        f"async_scheduling is {str(engine.async_scheduling).lower()} here, but was not in the calibration: the CPU "
        "time between steps differs"
    ]


def pool_of(variant: Variant, quality: Mapping[str, tuple[float, float, float]]) -> Pool:
    """The pool as the fleet takes it; `quality` maps request classes to (mean, low, high)."""
    spec, hardware, engine = variant.spec, variant.hardware, variant.engine
    measured = variant.calibration.calibration if variant.calibration else None
    step_time = step_time_model(
        hardware.model,
        hardware.scheme,
        hardware.gpu,
        spec.tensor_parallel,
        kv_cache_dtype=spec.kv_cache_dtype,
        async_scheduling=engine.async_scheduling,
        calibration=measured,
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
        max_num_batched_tokens=engine.max_num_batched_tokens,
        kv_tokens=variant.capacity.usable_tokens,
        speed=StepSpeed(step_time, engine.max_num_batched_tokens),
    )
    request = measured.request if measured else RequestTerms()
    return Pool(spec.name, spec.replicas, info, engine, step_time, spec.tensor_parallel, request)


def _reference_load(engine: EngineConfig) -> dict[str, int]:
    """The usual reference load, shortened for an engine that takes no request as long."""
    room = min(engine.max_model_len, (engine.num_gpu_blocks - 1) * engine.block_size)
    output_tokens = min(REFERENCE_OUTPUT_TOKENS, max(room // 4, 1))
    return {"input_tokens": max(min(REFERENCE_INPUT_TOKENS, room - output_tokens), 1), "output_tokens": output_tokens}
