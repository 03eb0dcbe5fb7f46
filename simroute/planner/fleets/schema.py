"""The JSON Schema of plan files, for editors. Imports scenario's schema and, of this room, spec."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from simroute.planner.fleets.spec import CandidateSpec, EngineGrid, PlanSpec
from simroute.scenario.schema import described

_BARE: tuple[type[BaseModel], ...] = (CandidateSpec, EngineGrid)
"""Parts in which a bare value stands for a list of one."""


def schema() -> dict[str, Any]:
    """The schema as a dictionary (JSON Schema, draft 2020-12): the content of docs/plan.schema.json."""
    found = described(PlanSpec)
    for part in _BARE:
        for field in found["$defs"][part.__name__]["properties"].values():
            if field.get("type") == "array":
                listed = {key: field.pop(key) for key in ("type", "items", "minItems") if key in field}
                field["anyOf"] = [listed["items"], listed]
    return found
