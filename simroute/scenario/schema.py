"""The JSON Schema of scenario files, for editors: the models' own, with the policies and their options filled in.

`described` does the same for any file that has policies and quality. Imports policy and, of this room, models.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from simroute.policy.routing import POLICIES, options_schema
from simroute.scenario.models import Scenario

_IMPORTED = r"^\w+(\.\w+)*[.:]\w+$"
"""A policy of the user's own: package.module:Class."""


def schema() -> dict[str, Any]:
    """The schema as a dictionary (JSON Schema, draft 2020-12)."""
    return described(Scenario)


def described(root: type[BaseModel]) -> dict[str, Any]:
    """The schema of a kind of file with `policies` and `quality`, as a dictionary."""
    found = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | root.model_json_schema()
    definitions = found["$defs"]
    names = {"type": "string", "enum": list(POLICIES)}
    own = {"type": "string", "pattern": _IMPORTED}
    policy = definitions["PolicySpec"]
    policy["properties"]["name"] |= {"anyOf": [names, own]}
    policy["allOf"] = []
    for name in POLICIES:
        options = options_schema(name)
        definitions |= options.pop("$defs", {})
        definitions[f"options of {name}"] = options
        then = {"properties": {"options": {"$ref": f"#/$defs/options of {name}"}}}
        policy["allOf"].append({"if": {"properties": {"name": {"const": name}}}, "then": then})
    found["properties"]["policies"]["items"] = {"anyOf": [names, own, {"$ref": "#/$defs/PolicySpec"}]}
    quality = found["properties"]["quality"]
    bare = {"type": "array", "items": {"$ref": "#/$defs/QualityAssumption"}}
    quality["anyOf"] = [bare, {"$ref": quality.pop("$ref")}]
    return found


def as_text(found: dict[str, Any]) -> str:
    """A schema as indented JSON with a final line break: the content of docs/scenario.schema.json and its like."""
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"
