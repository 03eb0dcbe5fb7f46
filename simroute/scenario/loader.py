"""Scenario file to checked `Scenario`: every problem at once, each with file, line, column and path.

Owns the wording of type and range errors. Imports errors, yamlfile and, of this room, models, source and check.
"""

from __future__ import annotations

import json
import os
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from simroute.errors import ScenarioError, UnfitError, unknown
from simroute.scenario import check
from simroute.scenario.models import NO_CALIBRATION, Scenario
from simroute.scenario.source import Keys, Problem, Source
from simroute.yamlfile import parse

M = TypeVar("M", bound=BaseModel)

_BOUNDS = {
    "greater_than_equal": ("≥", "ge"),
    "greater_than": (">", "gt"),
    "less_than_equal": ("≤", "le"),
    "less_than": ("<", "lt"),
}
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "string": "text",
    "bool": "true or false",
    "dict": "a mapping of fields",
    "model": "a mapping of fields",
    "tuple": "a list",
}
_FEW = 6
"""Fields of a mapping that a message names, at most."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checked scenario, and one located line for each thing that looks wrong but can run."""

    scenario: Scenario
    warnings: tuple[str, ...]


class Kind(NamedTuple):
    """A kind of YAML file: what it must be, the field that only it has, and the command that reads it."""

    shape: str
    field: str
    reader: str


SCENARIO = Kind(
    "a scenario is a mapping with name, traffic and pools",
    "pools",
    "this is a scenario: simroute run, check, compare and whatif read it",
)
PLAN = Kind(
    "a plan is a mapping with name, traffic and candidates",
    "candidates",
    "this is a plan file: simroute plan reads it, with --dry-run it checks it",
)


def load(path: str | Path, *, overrides: Sequence[str] = (), traces: Sequence[str | Path] = ()) -> Scenario:
    """The scenario in `path`, checked.

    `overrides` are assignments such as `pools[0].replicas=4`. `traces` (relative to the working directory) take the
    place of the scenario's own; overrides come after. Raises ScenarioError with every problem found.
    """
    return read(path, overrides=overrides, traces=traces).scenario


def read(
    path: str | Path, *, overrides: Sequence[str] = (), traces: Sequence[str | Path] = (), option: str = "--set"
) -> Loaded:
    """As `load`, with the warnings; errors of overrides name the `option` that they were given by."""
    return _validate(opened(path, SCENARIO, overrides, traces, option))


def opened(
    path: str | Path,
    kind: Kind,
    overrides: Sequence[str],
    traces: Sequence[str | Path],
    option: str = "--set",
) -> Source:
    """The file with traces and overrides in their places and every path resolved; `kind` is what it must be.

    Raises ScenarioError for a file that is no mapping or of another kind, UsageError for overrides that cannot be made.
    """
    source = Source.read(Path(path))
    if not isinstance(source.data, dict) or not source.data:
        got = "it is empty" if not source.data else f"got {type(source.data).__name__}"
        raise ScenarioError([f"{path}:1:1 {kind.shape}: {got}"])
    for other in (SCENARIO, PLAN):
        if other.field in source.data and kind.field not in source.data:
            raise ScenarioError([source.locate(Problem((other.field,), other.reader, on_key=True))])
    own = _classes(source.data)
    if traces:
        source.put(("traffic", "traces"), [{} for _ in traces], "--trace")
    for i, trace in enumerate(traces):
        source.put(("traffic", "traces", i, "path"), os.path.abspath(trace), f"--trace {trace}")
    for assignment in overrides:
        source.override(assignment, option)
    for i, (before, now) in enumerate(zip(own, _classes(source.data), strict=False) if traces else ()):
        if before is not None and now is None:
            tag = f"--set traffic.traces[{i}].request_class={before}"
            lost = f"takes the place of a trace of class '{before}' and has no class itself: {tag}"
            source.doubts.append(Problem(("traffic", "traces", i, "path"), lost))
    resolve_paths(source.data, Path(path).parent)
    return source


def _classes(data: Any) -> list[Any]:
    """The class that each of a file's traces is tagged with, None where it is not, whatever else the file holds."""
    traffic = data.get("traffic")
    traces = traffic.get("traces") if isinstance(traffic, dict) else None
    return [t.get("request_class") if isinstance(t, dict) else None for t in traces] if isinstance(traces, list) else []


def changed(scenario: Scenario, values: Mapping[str, Any]) -> Scenario:
    """`scenario` with other values at these paths (as in overrides: `pools[cheap].replicas`), checked anew.

    Relative paths of files start at the working directory. Raises ScenarioError and UsageError as `load` does:
    UnfitError where everything named exists, and it does not fit.
    """
    if not values:
        return scenario
    written = json.dumps(scenario.model_dump(mode="json"))
    source = Source(None, parse(written, text_keys=True))
    for path, value in values.items():
        source.override(f"{path}={json.dumps(value)}")
    return _validate(source).scenario


def _validate(source: Source) -> Loaded:
    scenario, problems = validated(source.data, Scenario)
    parts = check.parts_of(source.data)
    problems += check.problems(parts)
    problems = [problem._replace(keys=as_written(problem.keys, source.data)) for problem in problems]
    if problems or scenario is None:
        unfit = scenario is not None and all(problem.unfit for problem in problems)
        raise (UnfitError if unfit else ScenarioError)(
            [source.locate(p) for p in sorted(problems, key=source.position)]
        )
    return Loaded(scenario, tuple(source.locate(p) for p in (*source.doubts, *check.warnings(parts))))


def validated(data: Any, model: type[M]) -> tuple[M | None, list[Problem]]:
    """`data` as a `model`, the root of a file; or None and what is wrong with its shape, types and ranges."""
    try:
        return model.model_validate(data), []
    except ValidationError as error:
        found = (_explain(dict(each), model) for each in error.errors(include_url=False))
        return None, [problem for problem in found if problem is not None]


def as_written(keys: Keys, data: Mapping[str, Any]) -> Keys:
    """`keys` as the file has them: assumptions about quality may stand in `quality` itself, as a bare list."""
    bare = keys[:2] == ("quality", "assumed") and isinstance(data.get("quality"), list)
    return ("quality", *keys[2:]) if bare else keys


def resolve_paths(data: dict[str, Any], base: Path) -> None:
    """Let relative paths of traces, calibrations, matrices and models' config.json start at the scenario file."""
    traffic = data.get("traffic")
    traces = traffic.get("traces") if isinstance(traffic, dict) else None
    pools, quality = data.get("pools"), data.get("quality")
    places = (
        (traces, "path"),
        (pools, "model"),
        (pools, "calibration"),
        ([data], "calibrations"),
        ([quality], "matrix"),
    )
    for items, field in places:
        for item in items if isinstance(items, list) else ():
            value = item.get(field) if isinstance(item, dict) else None
            if isinstance(value, str) and _is_path(field, value):
                item[field] = os.path.normpath(base / value)


def _is_path(field: str, value: str) -> bool:
    """Whether this value of a field that may hold a path is one."""
    return value.endswith(".json") if field == "model" else value not in ("", NO_CALIBRATION)


def _explain(error: Mapping[str, Any], root: type[BaseModel]) -> Problem | None:
    """A pydantic error in the project's words; None for one that only follows from another."""
    keys, kind, got = tuple(error["loc"]), error["type"], error["input"]
    if kind == "extra_forbidden":
        return Problem(keys, unknown("field", str(keys[-1]), _fields(keys[:-1], root)), on_key=True)
    if kind == "missing":
        return Problem(keys, "missing: " + _description(keys, root))
    if kind == "too_short" and got:
        return None
    if kind == "too_long":
        return Problem(keys, f"must have {error['ctx']['max_length']} values, got {len(got)}")
    if kind in ("too_short", "string_too_short"):
        return Problem(keys, "must not be empty")
    wording = _wording(kind, error)
    if kind == "model_type" and 0 < len(names := _fields(keys, root)) <= _FEW:
        wording += f" ({', '.join(names)})"
    return Problem(keys, wording + ("" if kind == "value_error" else f", got {_shown(got)}"))


def _wording(kind: str, error: Mapping[str, Any]) -> str:
    if kind in _BOUNDS:
        sign, name = _BOUNDS[kind]
        return f"must be {sign} {error['ctx'][name]:g}"
    if kind == "literal_error":
        return f"must be {error['ctx']['expected'].replace(chr(39), '')}"
    if kind == "finite_number":
        return "must be a finite number"
    if kind == "value_error":
        return str(error["msg"]).removeprefix("Value error, ")
    wanted = _KINDS.get(kind.removesuffix("_type"))
    return f"must be {wanted}" if wanted and kind.endswith("_type") else str(error["msg"])


def _shown(value: Any) -> str:
    """A value as the file would write it, short."""
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    if value is None:
        return "nothing"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _fields(keys: Keys, root: type[BaseModel]) -> list[str]:
    model = _model_at(keys, root)
    return list(model.model_fields) if model else []


def _description(keys: Keys, root: type[BaseModel]) -> str:
    model = _model_at(keys[:-1], root)
    return (model.model_fields[str(keys[-1])].description or "").rstrip(".") if model else "needed here"


def _model_at(keys: Keys, root: type[BaseModel]) -> type[BaseModel] | None:
    """The model that describes the mapping at `keys`, found by walking the annotations from `root`."""
    kind: Any = root
    for key in keys:
        kind = kind.model_fields[key].annotation if _is_model(kind) else _item(kind)
        if not _is_model(kind):
            kind = _strip(kind)
    kind = _strip(kind)
    return kind if _is_model(kind) else None


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _item(kind: Any) -> Any:
    """What a list or mapping type holds: of tuple[X, ...] and dict[str, X] the X."""
    return next(arg for arg in reversed(typing.get_args(kind)) if arg is not Ellipsis)


def _strip(kind: Any) -> Any:
    """`X` of `X | None` and of `Annotated[X, ...]`."""
    while typing.get_origin(kind) not in (None, tuple, dict):
        kind = typing.get_args(kind)[0]
    return kind
