"""What only the catalogue or another field can tell: known names, files that exist, models that fit, floors met.

Each check is one function that yields a `Problem` for everything it finds. They run on whatever parts of a file are
valid by themselves, so that one mistyped number does not hide an unknown model.
May import errors, hardware, policy and, of this room, models and source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from simroute.errors import unknown
from simroute.policy.routing import POLICIES, check_options
from simroute.scenario.models import ClassSpec, PolicySpec, PoolSpec, QualityAssumption, Scenario, TraceSource
from simroute.scenario.source import Problem

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a scenario that are valid by themselves, each list item with its index in the file."""

    traces: Mapping[int, TraceSource] = field(default_factory=dict)
    pools: Mapping[int, PoolSpec] = field(default_factory=dict)
    policies: Mapping[int, PolicySpec] = field(default_factory=dict)
    classes: Mapping[str, ClassSpec] = field(default_factory=dict)
    quality: Mapping[int, QualityAssumption] = field(default_factory=dict)


def parts_of(data: Mapping[str, Any]) -> Parts:
    """The valid parts of a scenario's plain data."""
    traffic = data.get("traffic")
    classes = data.get("classes")
    return Parts(
        traces=_items(TraceSource, traffic.get("traces") if isinstance(traffic, dict) else None),
        pools=_items(PoolSpec, data.get("pools")),
        policies=_items(PolicySpec, data.get("policies", [p.name for p in Scenario.model_fields["policies"].default])),
        classes={k: c for k, v in classes.items() if (c := _valid(ClassSpec, v))} if isinstance(classes, dict) else {},
        quality=_items(QualityAssumption, data.get("quality")),
    )


def _items(model: type[M], values: Any) -> dict[int, M]:
    items = enumerate(values) if isinstance(values, list) else ()
    return {i: item for i, value in items if (item := _valid(model, value)) is not None}


def _valid(model: type[M], value: Any) -> M | None:
    try:
        return model.model_validate(value)
    except ValidationError:
        return None


def problems(parts: Parts) -> list[Problem]:
    """Everything that keeps the scenario from running."""
    return [p for check in _CHECKS for p in check(parts)]


def _trace_files(parts: Parts) -> Iterator[Problem]:
    for i, trace in parts.traces.items():
        if not Path(trace.path).is_file():
            what = "is a folder, not a file" if Path(trace.path).is_dir() else "no such file"
            yield Problem(("traffic", "traces", i, "path"), f"{what}: {trace.path}")


def _policy_names(parts: Parts) -> Iterator[Problem]:
    for i, policy in parts.policies.items():
        if policy.name not in POLICIES:
            yield Problem(("policies", i), unknown("policy", policy.name, POLICIES))
            continue
        for problem in check_options(policy.name, policy.options):
            yield Problem(("policies", i, "options", *problem.path), problem.message)


def _unique_names(parts: Parts) -> Iterator[Problem]:
    seen: dict[tuple[str, str], int] = {}
    named = [("pools", i, "name", p.name) for i, p in parts.pools.items()]
    named += [("policies", i, "label", p.shown) for i, p in parts.policies.items()]
    for where, i, key, name in named:
        first = seen.setdefault((where, name), i)
        if first != i:
            hint = "" if where == "pools" else ": give one of them another label"
            yield Problem((where, i, key), f"'{name}' is already the {key} of {where}[{first}]{hint}")


_CHECKS = (_unique_names, _trace_files, _policy_names)
