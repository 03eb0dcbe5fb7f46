"""Plan file to checked `PlanSpec`: every problem at once, each with file, line, column and path.

Imports errors, hardware's catalogue and, of scenario, what reads and checks scenario files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simroute.errors import ScenarioError, SimrouteError
from simroute.hardware import catalogue
from simroute.planner.spec import PlanSpec
from simroute.scenario import check
from simroute.scenario.loader import PLAN, as_written, opened, validated
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
    problems = [problem._replace(keys=as_written(problem.keys, source.data)) for problem in problems]
    if problems or spec is None:
        raise ScenarioError([source.locate(p) for p in sorted(problems, key=source.position)])
    return LoadedPlan(spec, tuple(source.locate(p) for p in _doubts(spec)))


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


def _doubts(spec: PlanSpec) -> Iterator[Problem]:
    """Quotas and prices of GPUs that no candidate uses."""
    used = {catalogue.gpu(name).name for candidate in spec.candidates for name in candidate.gpu}
    stated: Mapping[str, Any]
    for field, stated in (("quotas", spec.quotas), ("prices", spec.prices)):
        for name in stated:
            if catalogue.gpu(name).name not in used:
                yield Problem((field, name), "no candidate uses this GPU", on_key=True)
