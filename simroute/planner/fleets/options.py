"""The options of a plan: every variant with its engine settings that its candidates list, its name and its price.

Those that cannot run (the model does not fit, vLLM refuses, no price is known) are listed with the reason.
Owns `Option` and `Unfit`. Imports errors, hardware's catalogue, units, of scenario models and variants, and of this
room spec.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from simroute.errors import SimrouteError, UsageError
from simroute.hardware import catalogue
from simroute.planner.fleets.spec import CandidateSpec, PlanSpec, ReplicaRange
from simroute.scenario.models import PoolSpec, PriceSpec
from simroute.scenario.variants import variant_of
from simroute.units import HOURS_PER_MONTH


class Unfit(NamedTuple):
    """A candidate that no fleet can use, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Option:
    """A variant with its engine settings, as one replica: `gpus` of kind `gpu` for `usd_per_hour` together."""

    name: str
    spec: PoolSpec
    replicas: ReplicaRange
    gpu: str
    gpus: int
    usd_per_hour: float
    family: str | None = None
    """Its candidate's name."""

    @property
    def usd_per_month(self) -> float:
        """One replica's bill."""
        return self.usd_per_hour * HOURS_PER_MONTH


def options_of(spec: PlanSpec) -> tuple[tuple[Option, ...], tuple[Unfit, ...]]:
    """Every variant that a plan's candidates list, in their order: those that can run, and those that cannot.

    Raises CatalogueError for unknown names, UsageError where the same variant is listed in two ways.
    """
    prices = {catalogue.gpu(name).name: price for name, price in spec.prices.items()}
    tried: dict[str, PoolSpec] = {}
    options: dict[str, Option] = {}
    unfit: list[Unfit] = []
    for candidate in spec.candidates:
        for pool in _pools(spec, candidate, prices):
            pool = _distinct(pool, tried)
            if pool.name in tried:
                if pool.name in options:
                    _agree(options[pool.name], candidate)
                continue
            tried[pool.name] = pool
            try:
                hardware = variant_of(pool, spec.calibrations).hardware
            except SimrouteError as error:
                unfit.append(Unfit(pool.name, str(error)))
                continue
            gpus, usd_per_hour = pool.tensor_parallel, hardware.usd_per_gpu_hour * pool.tensor_parallel
            options[pool.name] = Option(
                pool.name, pool, candidate.replicas, hardware.gpu.name, gpus, usd_per_hour, candidate.name
            )
    return tuple(options.values()), tuple(unfit)


def _agree(option: Option, candidate: CandidateSpec) -> None:
    """Raises UsageError where a variant is listed again under another name, or with other numbers of replicas."""
    if option.family != candidate.name:
        names = " and ".join(f"'{name}'" if name else "no name" for name in (option.family, candidate.name))
        raise UsageError(f"candidates: {option.name} is listed under {names}: list it once")
    if option.replicas != candidate.replicas:
        ranges = " and ".join(f"{each.min} to {each.max}" for each in (option.replicas, candidate.replicas))
        raise UsageError(f"candidates: {option.name} is listed with {ranges} replicas: list it once")


def _distinct(pool: PoolSpec, tried: Mapping[str, PoolSpec]) -> PoolSpec:
    """`pool` under a name of its own, unless one that was tried is just the same."""
    name, number = pool.name, 1
    while pool.name in tried and tried[pool.name] != pool:
        number += 1
        pool = pool.model_copy(update={"name": f"{name}-{number}"})
    return pool


def variant_names(spec: PlanSpec) -> set[str]:
    """What the plan calls its variants, whether they can run or not. Raises CatalogueError for unknown names."""
    return {pool.name for candidate in spec.candidates for pool in _pools(spec, candidate, {})}


def _pools(spec: PlanSpec, candidate: CandidateSpec, prices: dict[str, PriceSpec]) -> Iterator[PoolSpec]:
    """One pool of one replica for every combination that the candidate lists."""
    grid = {name: values for name in type(candidate.grid).model_fields if (values := getattr(candidate.grid, name))}
    hardware = (candidate.model, candidate.quantization, candidate.gpu, candidate.tensor_parallel)
    for model, scheme, gpu, tensor_parallel, kv in itertools.product(*hardware, candidate.kv_cache_dtype):
        for settings in itertools.product(*grid.values()):
            tried = dict(zip(grid, settings, strict=True))
            kind = catalogue.gpu(gpu).name
            yield PoolSpec(
                name=_name(model, scheme, kind, tensor_parallel, kv, tried, candidate),
                model=model,
                quantization=scheme,
                gpu=kind,
                tensor_parallel=tensor_parallel,
                kv_cache_dtype=kv,
                gpu_memory_utilization=candidate.gpu_memory_utilization,
                price=prices.get(kind, PriceSpec()),
                engine=candidate.engine.model_copy(update=tried),
                zones=spec.availability.zones,
            )


_SHORT = {"max_num_seqs": "seqs", "max_num_batched_tokens": "tokens"}


def _name(
    model: str, scheme: str, gpu: str, tensor_parallel: int, kv: str | None, tried: dict[str, Any], of: CandidateSpec
) -> str:
    """`Llama-3.1-8B-fp8-H100-tp2`, and what of a grid was chosen."""
    parts = [catalogue.model(model).name, catalogue.scheme(scheme).name, gpu.replace(" ", "-")]
    parts += [f"tp{tensor_parallel}"] if tensor_parallel > 1 else []
    parts += [f"kv-{kv}"] if kv and len(of.kv_cache_dtype) > 1 else []
    for name, value in tried.items():
        if len(getattr(of.grid, name)) > 1:
            parts.append(("cached" if value else "uncached") if isinstance(value, bool) else f"{_SHORT[name]}{value}")
    return "-".join(parts)
