"""The fleets that a plan spans: options (a variant with its engine settings), how many of each, and what they cost.

Owns `Option`, `Fleet` and `Space`. Options that cannot run (the model does not fit, vLLM refuses, no price is known)
are listed with the reason. Imports errors, hardware's catalogue, units and, of scenario, models, build and variants.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from simroute.errors import SimrouteError, UsageError
from simroute.hardware import catalogue
from simroute.planner.spec import CandidateSpec, PlanClass, PlanSpec, ReplicaRange
from simroute.results.compare import TARGET_ATTAINMENT
from simroute.scenario.build import Built, build
from simroute.scenario.models import ClassSpec, PoolSpec, PriceSpec, Scenario, SloSpec, Traffic
from simroute.scenario.variants import variant_of
from simroute.units import HOURS_PER_MONTH

SAMPLES = 100
"""Points of a replay's timeline: enough for a chart; of a short trace, more would cost more than the rest."""
Fleet = tuple[tuple[int, int], ...]
"""Option numbers, rising, each with how many replicas."""


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

    @property
    def usd_per_month(self) -> float:
        """One replica's bill."""
        return self.usd_per_hour * HOURS_PER_MONTH


@dataclass(frozen=True, slots=True)
class Space:
    """Everything a search needs: what was asked, the options and, for all of them together, what a replay needs."""

    spec: PlanSpec
    options: tuple[Option, ...]
    unfit: tuple[Unfit, ...]
    built: Built

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that send requests."""
        names = self.built.trace.class_names
        return tuple(names[code] for code in sorted(set(self.built.trace.class_code.tolist())))

    def requests(self, request_class: str) -> int:
        """How many requests of a class arrive."""
        trace = self.built.trace
        return int((trace.class_code == trace.class_names.index(request_class)).sum())

    def attainment(self, request_class: str) -> float:
        """The least share of a class's requests within their targets; without any, of those that complete."""
        wanted = self.wanted(request_class)
        return wanted.attainment if wanted.attainment is not None else TARGET_ATTAINMENT

    def wanted(self, request_class: str) -> PlanClass:
        """What a class asks for, with what it takes from `default`."""
        return self.spec.wanted(request_class)

    def usd_per_month(self, fleet: Fleet) -> float:
        """The bill of a whole fleet, busy or not."""
        return sum(self.options[option].usd_per_month * count for option, count in fleet)

    def gpus(self, fleet: Fleet) -> Counter[str]:
        """GPUs of each kind."""
        found: Counter[str] = Counter()
        for option, count in fleet:
            found[self.options[option].gpu] += self.options[option].gpus * count
        return found

    def key(self, fleet: Fleet, policy: int) -> str:
        """The candidate's name: `3 x A + 2 x B, least_requests`."""
        pools = " + ".join(f"{count} x {self.options[option].name}" for option, count in fleet)
        return f"{pools}, {self.spec.policies[policy].shown}"

    def quota(self, gpu: str) -> int | None:
        """Most GPUs of a kind, None where there is no limit."""
        return next((most for name, most in self.spec.quotas.items() if catalogue.gpu(name).name == gpu), None)

    def refusal(self, fleet: Fleet) -> str | None:
        """`quota`, `budget` or `size` where the fleet breaks a limit that needs no simulation; else None."""
        if sum(count for _, count in fleet) > self.spec.fleets.most_replicas:
            return "size"
        if any(most is not None and n > most for gpu, n in self.gpus(fleet).items() for most in [self.quota(gpu)]):
            return "quota"
        budget = self.spec.budget_usd_per_month
        return "budget" if budget is not None and self.usd_per_month(fleet) > budget * (1 + 1e-12) else None

    def lone_fleets(self) -> Iterator[Fleet]:
        """Every fleet of one option."""
        for number, option in enumerate(self.options):
            for count in range(option.replicas.min, option.replicas.max + 1):
                yield ((number, count),)

    def size(self) -> int:
        """How many candidates there are, fleets times policies, quota and budget left aside."""
        most = self.spec.fleets.most_replicas
        ways = {(0, 0): 1}  # (variants, replicas): fleets
        for option in self.options:
            for (variants, total), fleets in list(ways.items()):
                if variants == self.spec.fleets.most_variants:
                    continue
                for count in range(option.replicas.min, min(option.replicas.max, most - total) + 1):
                    key = (variants + 1, total + count)
                    ways[key] = ways.get(key, 0) + fleets
        return (sum(ways.values()) - 1) * len(self.spec.policies)

    def degraded(self, fleet: Fleet) -> list[Fleet]:
        """The distinct fleets that the losses to be survived can leave, smallest first; empty ones included."""
        return sorted(
            {*self._without_replicas(fleet), *self._without_zones(fleet)} - {fleet},
            key=lambda left: (_total(left), left),
        )

    def _without_replicas(self, fleet: Fleet) -> Iterator[Fleet]:
        losing = self.spec.availability.lose_replicas
        if losing:
            for lost in itertools.product(*(range(min(count, losing) + 1) for _, count in fleet)):
                if sum(lost) == min(losing, _total(fleet)):
                    yield _less(fleet, lost)

    def _without_zones(self, fleet: Fleet) -> Iterator[Fleet]:
        available = self.spec.availability
        zones = len(available.zones)
        for gone in itertools.combinations(range(zones), available.lose_zones) if available.lose_zones else ():
            yield _less(fleet, [sum(place % zones in gone for place in range(count)) for _, count in fleet])


def _total(fleet: Fleet) -> int:
    return sum(count for _, count in fleet)


def _less(fleet: Fleet, lost: Sequence[int]) -> Fleet:
    return tuple((o, n - gone) for (o, n), gone in zip(fleet, lost, strict=True) if n > gone)


def space_of(spec: PlanSpec) -> Space:
    """The options of a plan, its traffic read and its hardware looked up.

    Raises UsageError when no option is left, naming why; TraceError and others as `scenario.build` does.
    """
    options, unfit = _options(spec)
    if not options:
        why = "; ".join(f"{each.name}: {each.reason}" for each in unfit[:3])
        more = f" (and {len(unfit) - 3} more)" if len(unfit) > 3 else ""
        raise UsageError(f"candidates: none of {len(unfit)} can run, so there is nothing to search: {why}{more}")
    return Space(spec, options, unfit, build(_scenario(spec, options)))


def _scenario(spec: PlanSpec, options: Sequence[Option]) -> Scenario:
    """The plan as a scenario with one pool of one replica for each option."""
    traffic = Traffic(traces=spec.traffic.traces, rate_scale=spec.traffic.rate_scale * spec.traffic.growth)
    return Scenario(
        name=spec.name,
        description=spec.description,
        seed=spec.seed,
        traffic=traffic,
        classes={name: _class(spec.wanted(name)) for name in spec.classes},
        pools=tuple(option.spec for option in options),
        calibrations=spec.calibrations,
        policies=spec.policies,
        router=spec.router,
        quality=spec.quality,
        samples=SAMPLES,
    )


def _class(wanted: PlanClass) -> ClassSpec:
    """What policies and results are told: where only percentiles are limited, each request aims at those limits."""
    slo = wanted.slo or wanted.p99
    return ClassSpec(slo=slo and SloSpec(**slo.model_dump()), quality_floor=wanted.quality_floor)


def _options(spec: PlanSpec) -> tuple[tuple[Option, ...], tuple[Unfit, ...]]:
    prices = {catalogue.gpu(name).name: price for name, price in spec.prices.items()}
    options: dict[str, Option] = {}
    unfit: dict[str, Unfit] = {}
    for candidate in spec.candidates:
        for pool in _pools(spec, candidate, prices):
            if pool.name in unfit or (pool := _distinct(pool, options)).name in options:
                continue
            try:
                hardware = variant_of(pool, spec.calibrations).hardware
            except SimrouteError as error:
                unfit[pool.name] = Unfit(pool.name, str(error))
                continue
            gpus, usd_per_hour = pool.tensor_parallel, hardware.usd_per_gpu_hour * pool.tensor_parallel
            options[pool.name] = Option(pool.name, pool, candidate.replicas, hardware.gpu.name, gpus, usd_per_hour)
    return tuple(options.values()), tuple(unfit.values())


def _distinct(pool: PoolSpec, options: Mapping[str, Option]) -> PoolSpec:
    """`pool` under a name of its own, unless an option is just the same."""
    name, number = pool.name, 1
    while pool.name in options and options[pool.name].spec != pool:
        number += 1
        pool = pool.model_copy(update={"name": f"{name}-{number}"})
    return pool


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


def fleet_built(space: Space, fleet: Fleet, policy: int) -> Built:
    """The space's `Built` with the pools of one fleet under one policy.

    Raises UsageError for a fleet of no replicas.
    """
    if not fleet:
        raise UsageError("no replica is left")
    built = space.built
    numbers = [option for option, _ in fleet]
    specs = tuple(space.options[option].spec.model_copy(update={"replicas": count}) for option, count in fleet)
    pools = tuple(replace(built.pools[option], replicas=count, places=count) for option, count in fleet)
    scenario = built.scenario.model_copy(update={"pools": specs, "policies": (space.spec.policies[policy],)})
    return replace(built, scenario=scenario, variants=tuple(built.variants[i] for i in numbers), pools=pools)
