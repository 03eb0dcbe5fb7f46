"""The routing policies by name: `POLICIES`, `make_policy` and what a scenario needs to check their options.

A new policy is a class with `Options` and `choose` (see `baselines`), one line in `POLICIES` and a section in
docs/policies.md. May import policy.*.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simroute.policy.baselines import LeastKv, LeastRequests, PowerOfTwo, Random, RoundRobin, StaticTier
from simroute.policy.context import PolicyContext
from simroute.policy.options import OptionProblem, options_of, parse_options, problems_in
from simroute.policy.oracle import Oracle
from simroute.policy.quant_aware import QuantAware
from simroute.policy.snapshot import RoutingPolicy

__all__ = ["POLICIES", "OptionProblem", "PolicyContext", "check_options", "make_policy", "options_schema"]

POLICIES: dict[str, type[Any]] = {
    "round_robin": RoundRobin,
    "random": Random,
    "least_requests": LeastRequests,
    "power_of_two": PowerOfTwo,
    "least_kv": LeastKv,
    "static_tier": StaticTier,
    "quant_aware": QuantAware,
    "oracle": Oracle,
}
"""Every routing policy by name: a class with `Options` (a frozen model) and `__init__(options, context)`."""


def make_policy(name: str, options: Mapping[str, Any], context: PolicyContext) -> RoutingPolicy:
    """The policy `name` with `options` for the fleet of `context`.

    Raises UsageError for an unknown name (with the nearest ones) and for options that are unknown or out of range
    (all of them, a line each).
    """
    parsed = parse_options(f"policy {name}", options_of("policy", name, POLICIES), options)
    policy: RoutingPolicy = POLICIES[name](parsed, context)
    return policy


def check_options(name: str, options: Mapping[str, Any]) -> list[OptionProblem]:
    """Everything wrong with the options of policy `name`, in the order of the file. Raises UsageError for its name."""
    return problems_in(options_of("policy", name, POLICIES), options)


def options_schema(name: str) -> dict[str, Any]:
    """The JSON Schema of the options of policy `name`. Raises UsageError for an unknown name."""
    return options_of("policy", name, POLICIES).model_json_schema()
