"""Plan file to checked `PlanSpec`: every problem at once, each with file, line, column and path.

Imports errors, hardware's catalogue, policy, what of scenario reads and checks scenario files and, of this room, judge,
naming, options and spec.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simroute.errors import ScenarioError, SimrouteError
from simroute.hardware import catalogue
from simroute.planner.fleets import naming
from simroute.planner.fleets.judge import P99_SHARE
from simroute.planner.fleets.options import variant_names
from simroute.planner.fleets.spec import PlanSpec
from simroute.policy.routing import ignores_floors
from simroute.results.compare import TARGET_ATTAINMENT
from simroute.scenario import check
from simroute.scenario.loader import PLAN, as_written, opened, validated
from simroute.scenario.models import SloSpec
from simroute.scenario.source import Keys, Problem


@dataclass(frozen=True, slots=True)
class LoadedPlan:
    """A checked plan file, and one located line for each thing that looks wrong but can be searched."""

    spec: PlanSpec
    warnings: tuple[str, ...]


def load_plan(path: str | Path, *, overrides: Sequence[str] = (), traces: Sequence[str | Path] = ()) -> PlanSpec:
    """The plan file `path`, checked; arguments and errors are those of `simroute.load`."""
    return read_plan(path, overrides=overrides, traces=traces).spec


def read_plan(path: str | Path, *, overrides: Sequence[str] = (), traces: Sequence[str | Path] = ()) -> LoadedPlan:
    """As `load_plan`, with the warnings. Raises ScenarioError with every problem found."""
    source = opened(path, PLAN, overrides, traces)
    _resolve(source.data, Path(path).parent)
    spec, problems = validated(source.data, PlanSpec)
    problems += check.problems(check.parts_of({k: v for k, v in source.data.items() if k != "pools"}))
    problems += _unknown_names(source.data)
    problems += _contradictions(spec) if spec else []
    problems += [*_named_twice(spec), *_pools_named(spec)] if spec and not problems else []
    problems = [problem._replace(keys=as_written(problem.keys, source.data)) for problem in problems]
    if problems or spec is None:
        raise ScenarioError([source.locate(p) for p in sorted(problems, key=source.position)])
    return LoadedPlan(spec, tuple(source.locate(p) for p in (*source.doubts, *_doubts(spec))))


def _resolve(data: dict[str, Any], base: Path) -> None:
    """Let paths of the candidates' models start at the plan file too."""
    candidates = data.get("candidates")
    for item in candidates if isinstance(candidates, list) else ():
        models = item.get("model") if isinstance(item, dict) else None
        if isinstance(models, str) and models.endswith(".json"):
            item["model"] = os.path.normpath(base / models)
        elif isinstance(models, list):
            item["model"] = [_path(base, name) for name in models]


def _path(base: Path, name: Any) -> Any:
    return os.path.normpath(base / name) if isinstance(name, str) and name.endswith(".json") else name


_FINDERS: dict[str, Callable[[str], object]] = {
    "model": catalogue.model,
    "quantization": catalogue.scheme,
    "gpu": catalogue.gpu,
}


def _unknown_names(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Names that the catalogue does not know, wherever the rest of the file is wrong."""
    named: list[tuple[Keys, str, Any]] = []
    candidates = data.get("candidates")
    for i, item in enumerate(candidates if isinstance(candidates, list) else ()):
        for field in _FINDERS if isinstance(item, dict) else ():
            value = item.get(field)
            if isinstance(value, list):
                named += [(("candidates", i, field, j), field, name) for j, name in enumerate(value)]
            else:
                named.append((("candidates", i, field), field, value))
    for field in ("quotas", "prices"):
        mapping = data.get(field)
        named += [((field, name), "gpu", name) for name in mapping] if isinstance(mapping, dict) else []
    for keys, what, name in named:
        if isinstance(name, str) and name:
            try:
                _FINDERS[what](name)
            except SimrouteError as error:
                yield Problem(keys, str(error), on_key=keys[0] in ("quotas", "prices"))


def _contradictions(spec: PlanSpec) -> Iterator[Problem]:
    most = max(candidate.replicas.max for candidate in spec.candidates)
    most = min(most * spec.fleets.most_variants, spec.fleets.most_replicas)
    losing = spec.availability.lose_replicas
    if losing >= most:
        yield Problem(
            ("availability", "lose_replicas"),
            f"{losing} replica(s) lost leave none: no fleet here has more than {most}; raise candidates[].replicas.max "
            "or lose fewer",
        )
    for i, candidate in enumerate(spec.candidates):
        if candidate.replicas.min > spec.fleets.most_replicas:
            yield Problem(
                ("candidates", i, "replicas"),
                f"min {candidate.replicas.min} is above fleets.most_replicas {spec.fleets.most_replicas}",
            )


def _named_twice(spec: PlanSpec) -> Iterator[Problem]:
    """GPUs that quotas or prices name under two of their names."""
    stated: Mapping[str, Any]
    for field, stated in (("quotas", spec.quotas), ("prices", spec.prices)):
        names: dict[str, str] = {}
        for name in stated:
            first = names.setdefault(catalogue.gpu(name).name, name)
            if first != name:
                yield Problem((field, name), f"the same GPU as '{first}': name it once", on_key=True)


def _pools_named(spec: PlanSpec) -> Iterator[Problem]:
    """Names of candidates, and policies whose options name them."""
    variants = variant_names(spec)
    for i, candidate in enumerate(spec.candidates):
        if candidate.name in variants:
            yield Problem(("candidates", i, "name"), f"'{candidate.name}' is what one of the plan's variants is called")
    families = {candidate.name for candidate in spec.candidates if candidate.name is not None}
    names, most = [*sorted(families), *sorted(variants - families)], spec.fleets.most_variants
    for i, policy in enumerate(spec.policies):
        keys = ("policies", i, "options")
        reason = naming.refusal(policy, names)
        if reason is not None:
            known = f"candidates are called {', '.join(sorted(families))}" if families else "give candidates a `name`"
            yield Problem(keys, f"{reason}; {known}")
        elif len(wanted := naming.needed(policy, names)) > most:
            yield Problem(
                keys,
                f"needs {len(wanted)} variants at once, {', '.join(wanted)}, and no fleet here has more than {most}: "
                f"raise fleets.most_variants",
            )


def _doubts(spec: PlanSpec) -> Iterator[Problem]:
    """Quotas and prices of GPUs that no candidate uses, percentiles promised twice, and floors that nobody looks at."""
    yield from _idle_percentiles(spec)
    yield from _floors_by_chance(spec)
    used = {catalogue.gpu(name).name for candidate in spec.candidates for name in candidate.gpu}
    stated: Mapping[str, Any]
    for field, stated in (("quotas", spec.quotas), ("prices", spec.prices)):
        for name in stated:
            if catalogue.gpu(name).name not in used:
                yield Problem((field, name), "no candidate uses this GPU", on_key=True)


def _floors_by_chance(spec: PlanSpec) -> Iterator[Problem]:
    """Mixed fleets of better and worse variants, under policies that give any request to any of them."""
    floored = [name for name in spec.classes if spec.wanted(name).quality_floor]
    kinds = {kind for each in spec.candidates for kind in itertools.product(each.model, each.quantization)}
    blind = all(ignores_floors(policy.name, policy.options) for policy in spec.policies)
    if floored and blind and len(kinds) > 1 and spec.fleets.most_variants > 1:
        yield Problem(
            ("policies",),
            f"none of these looks at quality floors, and {floored[0]} has one: mixed fleets keep it by chance and take "
            "long to rule out; add quant_aware, or give one of these `respect_quality_floor: true`",
        )


def _idle_percentiles(spec: PlanSpec) -> Iterator[Problem]:
    """Limits of a p99 that `slo` and `attainment` already imply."""
    for name in spec.classes:
        wanted = spec.wanted(name)
        attainment = TARGET_ATTAINMENT if wanted.attainment is None else wanted.attainment
        for metric in SloSpec.model_fields if wanted.p99 and wanted.slo and attainment >= 1 - P99_SHARE else ():
            limit_s, each_s = getattr(wanted.p99, metric), getattr(wanted.slo, metric)
            if limit_s is not None and each_s is not None and limit_s >= each_s:
                more = f"slo.{metric} {each_s:g} for {attainment:.2%} of the requests asks for more"
                yield Problem(("classes", name, "p99", metric), f"{limit_s:g} binds nothing: {more}")
