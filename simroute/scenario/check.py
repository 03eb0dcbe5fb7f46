"""What only the catalogue or another field can tell: known names, files that exist, models that fit, floors met.

Each check is one function that yields a `Problem` for everything it finds. They run on whatever parts of a file are
valid by themselves, so that one mistyped number does not hide an unknown model.
May import errors, rng, workload, hardware, policy and, of this room, models, quality, source and variants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from simroute.errors import SimrouteError, unknown
from simroute.hardware import catalogue
from simroute.policy.context import Targets
from simroute.policy.routing import PolicyContext, check_options, make_policy, policy_class
from simroute.policy.snapshot import VariantInfo
from simroute.rng import stream
from simroute.scenario.check_fleet import FleetParts, fleet_doubts, fleet_problems, idle_policy
from simroute.scenario.fleet_models import ExternalSpec, FailuresSpec, RouterSpec
from simroute.scenario.models import (
    NO_CALIBRATION,
    ClassSpec,
    EngineSpec,
    PolicySpec,
    PoolSpec,
    QualityAssumption,
    Scenario,
    TraceSource,
)
from simroute.scenario.quality import Named, given_rows, quality_table
from simroute.scenario.source import Keys, Problem
from simroute.scenario.variants import look_up, variant_of
from simroute.workload.columns import DEFAULT_NAME
from simroute.workload.formats import FORMATS, is_trace_folder

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a scenario that are valid by themselves, each list item with its index in the file."""

    traces: Mapping[int, TraceSource] = field(default_factory=dict)
    pools: Mapping[int, PoolSpec] = field(default_factory=dict)
    policies: Mapping[int, PolicySpec] = field(default_factory=dict)
    classes: Mapping[str, ClassSpec] = field(default_factory=dict)
    quality: Mapping[int, QualityAssumption] = field(default_factory=dict)
    matrix: str | None = None
    every_pool: bool = True
    """Whether no pool had to be left out."""
    every_external: bool = True
    """Whether no endpoint of others had to be left out."""
    calibrations: str | None = None
    external: Mapping[int, ExternalSpec] = field(default_factory=dict)
    router: RouterSpec | None = None
    failures: FailuresSpec | None = None


def parts_of(data: Mapping[str, Any]) -> Parts:
    """The valid parts of a scenario's plain data."""
    classes = data.get("classes")
    quality = data.get("quality")
    listed, outside = data.get("pools"), data.get("external", [])
    pools, external = _items(PoolSpec, listed), _items(ExternalSpec, outside)
    return Parts(
        traces=_items(TraceSource, _part(data.get("traffic"), "traces")),
        pools=pools,
        policies=_items(PolicySpec, data.get("policies", [p.name for p in Scenario.model_fields["policies"].default])),
        classes={k: c for k, v in classes.items() if (c := _valid(ClassSpec, v))} if isinstance(classes, dict) else {},
        quality=_items(QualityAssumption, quality if isinstance(quality, list) else _part(quality, "assumed")),
        matrix=matrix if isinstance(matrix := _part(quality, "matrix"), str) else None,
        every_pool=_all_valid(pools, listed),
        every_external=_all_valid(external, outside),
        calibrations=folder if isinstance(folder := data.get("calibrations"), str) else None,
        external=external,
        router=_valid(RouterSpec, data.get("router", {})),
        failures=_valid(FailuresSpec, data.get("failures", {})),
    )


def _part(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _items(model: type[M], values: Any) -> dict[int, M]:
    items = enumerate(values) if isinstance(values, list) else ()
    return {i: item for i, value in items if (item := _valid(model, value)) is not None}


def _all_valid(items: Mapping[int, BaseModel], values: Any) -> bool:
    return isinstance(values, list) and len(items) == len(values)


def _valid(model: type[M], value: Any) -> M | None:
    try:
        return model.model_validate(value)
    except ValidationError:
        return None


def problems(parts: Parts) -> list[Problem]:
    """Everything that keeps the scenario from running."""
    return [problem for find in _CHECKS for problem in find(parts)]


def warnings(parts: Parts) -> list[Problem]:
    """What can run but is probably not meant; call it once there are no problems."""
    return [doubt for find in _DOUBTS for doubt in find(parts)]


def _unique_names(parts: Parts) -> Iterator[Problem]:
    seen: dict[tuple[str, str], int] = {}
    named = [("pools", i, "name", p.name) for i, p in parts.pools.items()]
    named += [("policies", i, "label", p.shown) for i, p in parts.policies.items()]
    for where, i, key, name in named:
        first = seen.setdefault((where, name), i)
        if first != i:
            hint = "" if where == "pools" else ": give one of them another label"
            yield Problem((where, i, key), f"'{name}' is already the {key} of {where}[{first}]{hint}")
    pools = {pool.name: f"pools[{i}]" for i, pool in parts.pools.items()}
    for i, external in parts.external.items():
        if external.name in pools:
            yield Problem(("external", i, "name"), f"'{external.name}' is already the name of {pools[external.name]}")
        pools[external.name] = f"external[{i}]"


def _trace_files(parts: Parts) -> Iterator[Problem]:
    for i, trace in parts.traces.items():
        keys = ("traffic", "traces", i)
        if not Path(trace.path).is_file() and not is_trace_folder(Path(trace.path)):
            yield Problem((*keys, "path"), f"{_no_file(Path(trace.path))}: {trace.path}")
        if trace.format is not None and trace.format not in FORMATS:
            yield Problem((*keys, "format"), unknown("trace format", trace.format, FORMATS))
        if trace.window_s is not None and trace.window_s[0] >= trace.window_s[1]:
            yield Problem((*keys, "window_s"), "must be [from, to] with from < to, got " + _listed(trace.window_s))


def _calibrations(parts: Parts) -> Iterator[Problem]:
    folder = parts.calibrations
    if _missing_folder(folder):
        yield Problem(
            ("calibrations",), f"{'not a folder' if Path(str(folder)).exists() else 'no such folder'}: {folder}"
        )


def _missing_folder(folder: str | None) -> bool:
    return folder not in (None, "", NO_CALIBRATION) and not Path(str(folder)).is_dir()


def _no_file(path: Path) -> str:
    if path.is_dir():
        return "is a folder, not a file"
    return "not a regular file" if path.exists() else "no such file"


def _policies(parts: Parts) -> Iterator[Problem]:
    for i, policy in parts.policies.items():
        nameless = list(_refusals(("policies", i), partial(policy_class, policy.name)))
        if nameless:
            yield from nameless
            continue
        for problem in check_options(policy.name, policy.options):
            yield Problem(("policies", i, "options", *problem.path), problem.message)


def _catalogue_names(parts: Parts) -> Iterator[Problem]:
    lookups: list[tuple[Keys, Callable[[], object]]] = []
    for i, pool in parts.pools.items():
        keys: Keys = ("pools", i)
        lookups += [((*keys, "gpu"), partial(catalogue.gpu, pool.gpu))]
        lookups += [((*keys, "model"), partial(catalogue.model, pool.model))]
        lookups += [((*keys, "quantization"), partial(catalogue.scheme, pool.quantization))]
    for i, row in parts.quality.items():
        keys = ("quality", "assumed", i)
        lookups += [((*keys, "model"), partial(catalogue.model, row.model))]
        lookups += [((*keys, "quantization"), partial(catalogue.scheme, row.quantization))]
    for where, lookup in lookups:
        yield from _refusals(where, lookup)


def _pools_fit(parts: Parts) -> Iterator[Problem]:
    """Price, calibration, memory and engine settings of every pool whose names are known."""
    folder = NO_CALIBRATION if _missing_folder(parts.calibrations) else parts.calibrations
    for i, pool in parts.pools.items():
        keys: Keys = ("pools", i)
        if not _hardware_known(pool):
            continue
        unpriced = list(_refusals((*keys, "price"), partial(look_up, pool)))
        refused = unpriced or map(_at_field, _refusals(keys, partial(variant_of, pool, folder)))
        yield from (problem._replace(unfit=_all_named(pool)) for problem in refused)


def _all_named(pool: PoolSpec) -> bool:
    """Whether the price term and the calibration that a pool with known hardware names exist."""
    calibrated = pool.calibration in (None, NO_CALIBRATION) or Path(str(pool.calibration)).exists()
    return calibrated and pool.price.term in catalogue.TERMS


def _policies_fit_pools(parts: Parts) -> Iterator[Problem]:
    """Options that name pools: the policies themselves refuse what does not exist.

    A pool with a fault of its own exists none the less, so this waits until every pool is valid, others' included.
    """
    variants = [_stand_in(pool) for pool in parts.pools.values()]
    variants += [
        VariantInfo(spec.name, spec.model, "", "", 1, 0.0, 0.0, 1, {}, external=True)
        for spec in parts.external.values()
    ]
    if not variants or not (parts.every_pool and parts.every_external):
        return
    context = PolicyContext(variants, range(len(variants)), stream(0, "check"))
    for i, policy in parts.policies.items():
        known = not list(_refusals((), partial(policy_class, policy.name)))
        if known and not check_options(policy.name, policy.options):
            build = partial(make_policy, policy.name, policy.options, context)
            yield from _refusals(("policies", i, "options"), build)


def _quality_stated_once(parts: Parts) -> Iterator[Problem]:
    seen: dict[tuple[str, ...], int] = {}
    for i, row in parts.quality.items():
        try:
            model, scheme = catalogue.model(row.model).name, catalogue.scheme(row.quantization).name
        except SimrouteError:
            continue
        first = seen.setdefault((model, scheme, row.request_class), i)
        if first != i:
            what = f"{model} {scheme} for {row.request_class}"
            yield Problem(("quality", "assumed", i), f"{what} is already assumed in quality[{first}]")


def _matrix_readable(parts: Parts) -> Iterator[Problem]:
    """The matrix or table of accuracies: its rows, and the names in them."""
    if parts.matrix is not None:
        pools = [pool for pool in parts.pools.values() if _hardware_known(pool)]
        models = {catalogue.model(pool.model).name for pool in pools}
        named = [Named(model, "") for model in models]
        yield from _refusals(("quality", "matrix"), partial(given_rows, parts.matrix, named))


def _floors_within_reach(parts: Parts) -> Iterator[Problem]:
    hardware = {pool.name: look_up(pool) for pool in parts.pools.values()}
    variants = {name: Named(h.model.name, h.scheme.name) for name, h in hardware.items()}
    given = given_rows(parts.matrix, variants.values()) if parts.matrix else ()
    table = quality_table(variants.values(), list(parts.quality.values()), given)
    for request_class, wanted in parts.classes.items():
        floor = wanted.quality_floor
        if floor is None:
            continue
        keys = ("classes", request_class, "quality_floor")
        rows = {name: row for name, v in variants.items() if (row := table.find(v, request_class))}
        found = [(row.mean, f"{row.model} {row.quantization}") for row in rows.values()]
        unknown_at = [(name, "quality") for name in variants.keys() - rows.keys()]
        for i, spec in parts.external.items():
            mean = spec.quality.get(request_class, spec.quality.get(DEFAULT_NAME))
            if mean is None:
                unknown_at.append((spec.name, f"external[{i}].quality"))
            else:
                found.append((mean, f"{spec.model} at {spec.name}"))
        for name, where in unknown_at:
            what = f"quality of pool {name} for {request_class}"
            yield Problem(keys, f"{what} is unknown and counts as 0: add it to {where}")
        best, who = max(found, default=(0.0, ""))
        if best < floor:
            reach = f"the best, {who}, has {best:g}" if who else "nothing is known"
            yield Problem(keys, f"no pool reaches {floor:g}: {reach}")


def _refusals(keys: Keys, action: Callable[[], object]) -> Iterator[Problem]:
    """The problem, at `keys`, that `action` raises, if any."""
    try:
        action()
    except SimrouteError as error:
        yield Problem(keys, str(error))


def _at_field(problem: Problem) -> Problem:
    """A pool's problem at the field that its message opens with, as in `tensor_parallel: must be ...`."""
    name, colon, message = problem.message.partition(": ")
    if colon and name in PoolSpec.model_fields:
        return Problem((*problem.keys, name), message)
    if colon and name in EngineSpec.model_fields:
        return Problem((*problem.keys, "engine", name), message)
    return problem


def _hardware_known(pool: PoolSpec) -> bool:
    lookups = ((catalogue.gpu, pool.gpu), (catalogue.model, pool.model), (catalogue.scheme, pool.quantization))
    return not any(list(_refusals((), partial(lookup, name))) for lookup, name in lookups)


def _stand_in(pool: PoolSpec) -> VariantInfo:
    """A variant with the pool's name: all that policies check their options against."""
    return VariantInfo(pool.name, pool.model, pool.quantization, pool.gpu, 1, 0.0, 0.0, 1, {})


def _listed(values: Sequence[float]) -> str:
    return f"[{', '.join(f'{value:g}' for value in values)}]"


def _fleet(parts: Parts) -> Iterator[Problem]:
    """How the fleet lives."""
    yield from fleet_problems(_fleet_parts(parts))


def _fleet_doubts(parts: Parts) -> Iterator[Problem]:
    yield from fleet_doubts(_fleet_parts(parts))


def _fleet_parts(parts: Parts) -> FleetParts:
    targets = {name: Targets(**spec.slo.model_dump()) for name, spec in parts.classes.items() if spec.slo is not None}
    return FleetParts(parts.pools, parts.router, parts.failures, targets, parts.every_pool)


def _idle_policies(parts: Parts) -> Iterator[Problem]:
    """Policies that live off endpoints of others where there are none."""
    for i, policy in parts.policies.items():
        if said := idle_policy(policy, parts.external.values()):
            yield Problem(("policies", i), said)


_CHECKS = (
    _unique_names,
    _trace_files,
    _calibrations,
    _catalogue_names,
    _pools_fit,
    _policies,
    _policies_fit_pools,
    _fleet,
    _quality_stated_once,
    _matrix_readable,
)
_DOUBTS = (_floors_within_reach, _fleet_doubts, _idle_policies)
