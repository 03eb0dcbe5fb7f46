"""Which variants a capability matrix is about: the pools of a scenario, or what calibration files were made for.

May import scenario and everything below it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from simroute.calibration.replay import lone_pool
from simroute.engine.config import EngineConfig
from simroute.errors import CalibrationError, CatalogueError, UsageError
from simroute.fleet.pool import Pool
from simroute.hardware import catalogue
from simroute.hardware.calibration import Calibration
from simroute.hardware.calibration_file import calibration_files, load_calibration
from simroute.hardware.memory import KvCapacity, engine_defaults
from simroute.policy.snapshot import VariantInfo
from simroute.scenario.loader import load
from simroute.scenario.matrix import first_problem
from simroute.scenario.models import EngineSpec, PoolSpec, Scenario
from simroute.scenario.source import Source
from simroute.scenario.variants import Variant, pool_of, variant_of


@dataclass(frozen=True, slots=True)
class Candidate:
    """One variant, as a pool of one replica. `capacity` is None, and so is the price, outside the catalogue."""

    variant_id: str
    pool: Pool
    kv_cache_dtype: str
    capacity: KvCapacity | None
    usd_per_hour: float | None

    @property
    def kv_cache_tokens(self) -> int:
        """Tokens of context that fit in the KV cache: every block but the null block."""
        engine = self.pool.engine
        return (engine.num_gpu_blocks - 1) * engine.block_size

    @property
    def gpu_memory_bytes(self) -> float | None:
        """Bytes on each GPU before any KV cache."""
        known = self.capacity
        if known is None:
            return None
        return known.weight_bytes + known.activation_bytes + known.graph_bytes + known.non_torch_bytes


@dataclass(frozen=True, slots=True)
class Sources:
    """What the files on the command line hold: variants, and the scenarios among the files."""

    candidates: tuple[Candidate, ...]
    scenarios: tuple[Scenario, ...]


def candidates_of(paths: Sequence[Path]) -> Sources:
    """The variants of these scenarios, calibration files and folders of calibrations, each once.

    Raises UsageError when there are none, and ScenarioError, CalibrationError, CatalogueError and CapacityError as
    reading and sizing them do.
    """
    found: dict[str, Candidate] = {}
    scenarios = []
    for path in _files(paths):
        if _is_calibration(path):
            candidates = [_calibrated(path)]
        else:
            scenario = load(path)
            scenarios.append(scenario)
            candidates = [_sized(variant_of(spec, scenario.calibrations)) for spec in scenario.pools]
        for candidate in candidates:
            _add(found, candidate)
    if not found:
        raise UsageError(f"{', '.join(map(str, paths))}: no scenario and no calibration there")
    return Sources(tuple(found.values()), tuple(scenarios))


def variant_id(info: VariantInfo, kv_cache_dtype: str) -> str:
    """The name of a variant: `llama-3.3-70b-fp8-h100-tp2`, and `-fp8kv` behind it where the KV cache is in fp8."""
    model, quantization, gpu = info.model, info.quantization, info.gpu
    suffix = f"-tp{info.tensor_parallel}" if info.tensor_parallel > 1 else ""
    suffix += "-fp8kv" if kv_cache_dtype.startswith("fp8") else ""
    return f"{model}-{quantization}-{gpu}{suffix}".lower().replace(" ", "-").replace("/", "-")


def _add(found: dict[str, Candidate], candidate: Candidate) -> None:
    """Keep a variant once; one that differs in settings alone goes by its pool's name as well."""
    known = found.get(candidate.variant_id)
    if known is None:
        found[candidate.variant_id] = candidate
    elif known.pool.engine != candidate.pool.engine or known.usd_per_hour != candidate.usd_per_hour:
        name = f"{candidate.variant_id}-{candidate.pool.name}"
        found[name] = replace(candidate, variant_id=name)


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from calibration_files(path)
        else:
            yield path


def _is_calibration(path: Path) -> bool:
    """Calibrations have step terms, scenarios traffic; what has neither is taken for a faulty scenario."""
    data = Source.read(path).data
    return isinstance(data, dict) and "step" in data and "traffic" not in data


def _sized(variant: Variant) -> Candidate:
    pool = pool_of(variant, {})
    cache = variant.spec.kv_cache_dtype or variant.hardware.scheme.kv_cache_dtype
    return Candidate(variant_id(pool.variant, cache), pool, cache, variant.capacity, pool.variant.usd_per_hour)


def _calibrated(path: Path) -> Candidate:
    """The replica that a calibration was made for: under the settings that were measured, where it states them."""
    calibration = load_calibration(path)
    try:
        gpu = catalogue.gpu(calibration.gpu)
        model = catalogue.model(calibration.model)
        scheme = catalogue.scheme(calibration.scheme)
    except CatalogueError as error:
        return _outside_the_catalogue(path, calibration, error)
    settings: dict[str, Any] = {"async_scheduling": calibration.async_scheduling}
    pool: dict[str, Any] = {}
    if calibration.memory is not None:
        measured = calibration.memory.model_dump(exclude_none=True)
        pool = {"gpu_memory_utilization": measured.pop("gpu_memory_utilization")}
        pool["num_gpu_blocks"] = measured.pop("num_gpu_blocks")
        settings |= measured
    default_tokens, _ = engine_defaults(gpu)
    settings.setdefault("max_num_batched_tokens", default_tokens)
    try:
        spec = PoolSpec(
            name=path.stem,
            model=model.name,
            quantization=scheme.name,
            gpu=gpu.name,
            tensor_parallel=calibration.tensor_parallel,
            kv_cache_dtype=calibration.kv_cache_dtype,  # type: ignore[arg-type]
            calibration=str(path),
            engine=EngineSpec(**settings),
            **pool,
        )
    except ValidationError as error:
        raise CalibrationError(f"{path}: {first_problem(error)}") from None
    return _sized(variant_of(spec))


def _outside_the_catalogue(path: Path, calibration: Calibration, unknown: CatalogueError) -> Candidate:
    """A replica that only its calibration describes: of known memory, without a price."""
    if calibration.memory is None:
        raise CalibrationError(f"{path}: {unknown}; outside the catalogue, a calibration must state its memory")
    settings = calibration.memory.model_dump(exclude_none=True, exclude={"gpu_memory_utilization"})
    engine = EngineConfig(**settings, async_scheduling=calibration.async_scheduling)
    pool = lone_pool(path.stem, calibration, engine)
    return Candidate(variant_id(pool.variant, calibration.kv_cache_dtype), pool, calibration.kv_cache_dtype, None, None)
