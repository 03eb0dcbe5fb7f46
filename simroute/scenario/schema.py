"""The JSON Schema of scenario files, for editors: the models' own, with the policies and their options filled in.

Imports of simroute: policy and, of this room, models.
"""

from __future__ import annotations

import json
from typing import Any

from simroute.policy.routing import POLICIES, options_schema
from simroute.scenario.models import Scenario

_IMPORTED = r"^\w+(\.\w+)*[.:]\w+$"
"""A policy of the user's own: package.module:Class."""


def schema() -> dict[str, Any]:
    """The schema as a dictionary (JSON Schema, draft 2020-12)."""
    found = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Scenario.model_json_schema()
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


def schema_text() -> str:
    """The schema as indented JSON with a final line break: the content of docs/scenario.schema.json."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
