"""The JSON Schema of scenario files, for editors: the models' own, with names and options filled in.

Those are of the policies, the admission rules, the autoscalers and the gateway's queue. `described` does the same for
any file that has policies and quality. Imports of simroute: policy and, of this room, models.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import BaseModel

from simroute.policy.admission import ADMISSIONS, admission_schema
from simroute.policy.autoscaling import AUTOSCALERS, autoscaler_schema
from simroute.policy.gateway_queue import GatewayQueueOptions
from simroute.policy.routing import POLICIES, options_schema
from simroute.scenario.models import Scenario

_IMPORTED = r"^\w+(\.\w+)*[.:]\w+$"
"""A policy of the user's own: package.module:Class."""
_LIMITS = ("min_replicas", "max_replicas")
"""Options of autoscalers that a scenario gives beside them."""


def schema() -> dict[str, Any]:
    """The schema as a dictionary (JSON Schema, draft 2020-12)."""
    return described(Scenario)


def described(root: type[BaseModel]) -> dict[str, Any]:
    """The schema of a kind of file with `policies` and `quality`, as a dictionary."""
    found = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | root.model_json_schema()
    definitions = found["$defs"]
    own = {"type": "string", "pattern": _IMPORTED}
    policies = _by_name(definitions, "PolicySpec", "", POLICIES, options_schema)
    definitions["PolicySpec"]["properties"]["name"] |= {"anyOf": [policies, own]}
    found["properties"]["policies"]["items"] = {"anyOf": [policies, own, {"$ref": "#/$defs/PolicySpec"}]}
    if "RouterSpec" in definitions:
        _describe_router(definitions)
    if "AutoscaleSpec" in definitions:
        scalers = _by_name(definitions, "AutoscaleSpec", "autoscaler ", AUTOSCALERS, _without_limits)
        definitions["AutoscaleSpec"]["properties"]["name"] |= scalers
    quality = found["properties"]["quality"]
    bare = {"type": "array", "items": {"$ref": "#/$defs/QualityAssumption"}}
    quality["anyOf"] = [bare, {"$ref": quality.pop("$ref")}]
    return found


def _describe_router(definitions: dict[str, Any]) -> None:
    """Fill in admission rules, which a bare name stands for too, and the gateway's queue."""
    rules = _by_name(definitions, "RuleSpec", "rule ", ADMISSIONS, admission_schema)
    definitions["RuleSpec"]["properties"]["name"] |= rules
    router = definitions["RouterSpec"]["properties"]
    router["admission"]["items"] = {"anyOf": [rules, {"$ref": "#/$defs/RuleSpec"}]}
    definitions["options of the queue"] = GatewayQueueOptions.model_json_schema()
    router["queue"]["anyOf"] = [{"$ref": "#/$defs/options of the queue"}, {"type": "null"}]


def _by_name(
    definitions: dict[str, Any], spec: str, kind: str, names: Iterable[str], of: Callable[[str], dict[str, Any]]
) -> dict[str, Any]:
    """Let `spec` have, with each of these names, the options that `of` describes; the schema of the names alone."""
    usual = definitions[spec]["properties"]["name"].get("default")
    definitions[spec]["allOf"] = []
    for name in names:
        options = of(name)
        definitions |= options.pop("$defs", {})
        definitions[f"options of {kind}{name}"] = options
        named: dict[str, Any] = {"properties": {"name": {"const": name}}}
        if name != usual:  # (what is left out has any constant)
            named["required"] = ["name"]
        then = {"properties": {"options": {"$ref": f"#/$defs/options of {kind}{name}"}}}
        definitions[spec]["allOf"].append({"if": named, "then": then})
    return {"type": "string", "enum": list(names)}


def _without_limits(autoscaler: str) -> dict[str, Any]:
    """The options of an autoscaler as a scenario gives them."""
    options = autoscaler_schema(autoscaler)
    for name in _LIMITS:
        del options["properties"][name]
    options["required"] = [name for name in options.get("required", ()) if name not in _LIMITS]
    return options


def as_text(found: dict[str, Any]) -> str:
    """A schema as indented JSON with a final line break: the content of docs/scenario.schema.json and its like."""
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"
