"""The routing policies by name: `POLICIES`, `make_policy` and what a scenario needs to check their options.

A new policy is a class with `Options` and `choose` (see `baselines`), one line in `POLICIES` and a section in
docs/policies.md. May import errors and policy.*.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from simroute.errors import UsageError, unknown
from simroute.policy.affinity import SessionAffinity
from simroute.policy.baselines import LeastKv, LeastRequests, PowerOfTwo, Random, RoundRobin, StaticTier
from simroute.policy.context import PolicyContext
from simroute.policy.prefix import PrefixAffinity, PrefixPrecise
from simroute.policy.quant_aware import QuantAware
from simroute.policy.snapshot import RoutingPolicy
from simroute.policy.tokens import LeastTokens
from simroute.policy.weighted import Weighted

__all__ = ["POLICIES", "OptionProblem", "PolicyContext", "check_options", "make_policy", "options_schema"]

POLICIES: dict[str, type[Any]] = {
    "round_robin": RoundRobin,
    "random": Random,
    "least_requests": LeastRequests,
    "power_of_two": PowerOfTwo,
    "least_kv": LeastKv,
    "static_tier": StaticTier,
    "least_tokens": LeastTokens,
    "session_affinity": SessionAffinity,
    "prefix_affinity": PrefixAffinity,
    "prefix_precise": PrefixPrecise,
    "weighted": Weighted,
    "quant_aware": QuantAware,
}
"""Every routing policy by name: a class with `Options` (a frozen model) and `__init__(options, context)`."""


class OptionProblem(NamedTuple):
    """One wrong option: the keys that lead to it, and what is wrong with it."""

    path: tuple[str | int, ...]
    message: str

    def __str__(self) -> str:
        return ": ".join(filter(None, (".".join(map(str, self.path)), self.message)))


def make_policy(name: str, options: Mapping[str, Any], context: PolicyContext) -> RoutingPolicy:
    """The policy `name` with `options` for the fleet of `context`.

    Raises UsageError for an unknown name (with the nearest ones) and for options that are unknown or out of range
    (all of them, a line each).
    """
    problems = check_options(name, options)
    if problems:
        raise UsageError("\n".join(f"policy {name}: {problem}" for problem in problems))
    policy: RoutingPolicy = POLICIES[name](_options_of(name).model_validate(dict(options)), context)
    return policy


def check_options(name: str, options: Mapping[str, Any]) -> list[OptionProblem]:
    """Everything wrong with the options of policy `name`, in the order of the file. Raises UsageError for its name."""
    try:
        _options_of(name).model_validate(dict(options))
    except ValidationError as error:
        return [_problem(name, dict(e)) for e in error.errors(include_url=False)]
    return []


def options_schema(name: str) -> dict[str, Any]:
    """The JSON Schema of the options of policy `name`. Raises UsageError for an unknown name."""
    return _options_of(name).model_json_schema()


def _options_of(name: str) -> type[BaseModel]:
    if name not in POLICIES:
        raise UsageError(unknown("policy", name, POLICIES))
    options: type[BaseModel] = POLICIES[name].Options
    return options


def _problem(name: str, error: Mapping[str, Any]) -> OptionProblem:
    path = tuple(error["loc"])
    if error["type"] == "extra_forbidden":
        return OptionProblem(path, unknown("option", str(path[-1]), _option_names(name, nested=len(path) > 1)))
    got = "" if error["type"] in ("missing", "value_error") else f", got {error['input']!r}"
    return OptionProblem(path, error["msg"].removeprefix("Value error, ") + got)


def _option_names(name: str, *, nested: bool) -> list[str]:
    """The options of policy `name`, or those of the models inside it."""
    schema = options_schema(name)
    models = schema.get("$defs", {}).values() if nested else [schema]
    return [option for model in models for option in model.get("properties", {})]
