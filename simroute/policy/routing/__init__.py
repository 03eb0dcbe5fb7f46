"""The routing policies by name: `POLICIES`, `make_policy` and what a scenario needs to check their options.

A new policy is a class with `Options` and `choose` (see `baselines`), one line in `POLICIES` and a section in
docs/policies.md. Policies of other packages are found by `loading`. May import errors and policy.*.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from simroute.errors import SimrouteError, UsageError
from simroute.policy.context import BalancerOptions, PolicyContext
from simroute.policy.options import OptionProblem, problems_in
from simroute.policy.routing.affinity import SessionAffinity
from simroute.policy.routing.baselines import LeastKv, LeastRequests, PowerOfTwo, Random, RoundRobin, StaticTier
from simroute.policy.routing.cascade import Cascade
from simroute.policy.routing.difficulty import DifficultyThreshold
from simroute.policy.routing.latency import CostAware, JoinShortestExpectedWait, LatencyTarget
from simroute.policy.routing.length_split import LengthSplit
from simroute.policy.routing.loading import NoOptions, imported, is_path, offered
from simroute.policy.routing.oracle import Oracle
from simroute.policy.routing.prefix import PrefixAffinity, PrefixPrecise
from simroute.policy.routing.quant_aware import QuantAware
from simroute.policy.routing.spillover import Spillover
from simroute.policy.routing.tokens import LeastTokens
from simroute.policy.routing.two_level import PolicyChoice, TwoLevel
from simroute.policy.routing.weighted import Weighted
from simroute.policy.snapshot import RoutingPolicy

__all__ = [
    "POLICIES",
    "OptionProblem",
    "PolicyContext",
    "built_in",
    "check_options",
    "ignores_floors",
    "make_policy",
    "needs_external",
    "options_schema",
    "policy_class",
    "reviews_answers",
]

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
    "join_shortest_expected_wait": JoinShortestExpectedWait,
    "latency_target": LatencyTarget,
    "cost_aware": CostAware,
    "length_split": LengthSplit,
    "difficulty_threshold": DifficultyThreshold,
    "cascade": Cascade,
    "spillover": Spillover,
    "two_level": TwoLevel,
    "oracle": Oracle,
}
"""Every built-in policy by name: a class with `Options` (a frozen model) and `__init__(options, context)`."""


def policy_class(name: str, also: Iterable[str] = ()) -> type[Any]:
    """The class of policy `name`: built in, imported from a dotted path, or offered by an installed package.

    A class without `Options` takes none. Raises UsageError for a name that is none of these (with the nearest ones,
    `also` among them) and for what cannot be imported or is no policy.
    """
    if name in POLICIES:
        return POLICIES[name]
    return imported(name) if is_path(name) else offered(name, {*POLICIES, *also})


def make_policy(name: str, options: Mapping[str, Any], context: PolicyContext) -> RoutingPolicy:
    """The policy `name` with `options` for the fleet of `context`.

    Raises UsageError as `policy_class` does, for options that are unknown or out of range (all of them, a line each)
    and for a policy of the user's own that cannot be made.
    """
    problems = check_options(name, options)
    if problems:
        raise UsageError("\n".join(f"policy {name}: {problem}" for problem in problems))
    made = _made(name, options)
    try:
        policy: RoutingPolicy = policy_class(name)(made, context)
    except SimrouteError:
        raise
    except Exception as error:
        if name in POLICIES:
            raise
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise UsageError(f"policy {name}: cannot be made from (options, context): {said}") from error
    return policy


def check_options(name: str, options: Mapping[str, Any]) -> list[OptionProblem]:
    """Everything wrong with the options of policy `name`, in the order of the file, policies inside it included.

    Raises UsageError for its name.
    """
    problems = problems_in(_options_of(name), options)
    if problems:
        return problems
    made = _made(name, options)
    return [problem for key, chosen in _policies_inside(made).items() for problem in _inner(key, chosen)]


def needs_external(name: str, options: Mapping[str, Any]) -> bool:
    """Whether policy `name` with these options, or one inside it, does nothing of its own without somebody's endpoint.

    Options of a policy say so by an attribute of that name; wrong ones say nothing. Raises UsageError for its name.
    """
    if check_options(name, options):
        return False
    made = _made(name, options)
    inside = _policies_inside(made).values()
    return getattr(made, "needs_external", False) or any(needs_external(each.name, each.options) for each in inside)


def built_in(name: str, options: Mapping[str, Any]) -> bool:
    """Whether policy `name` and, with these options, which must be right, every one inside it are this package's."""
    if name not in POLICIES:
        return False
    inside = _policies_inside(_made(name, options)).values()
    return all(built_in(each.name, each.options) for each in inside)


def ignores_floors(name: str, options: Mapping[str, Any]) -> bool:
    """Whether policy `name` with these options spreads load over all variants, whatever the quality floors.

    In a policy of several levels the `variant` one decides. Wrong options say nothing. Raises UsageError for its name.
    """
    if check_options(name, options):
        return False
    made = _made(name, options)
    if variant := _policies_inside(made).get("variant"):
        return ignores_floors(variant.name, variant.options)
    return isinstance(made, BalancerOptions) and not made.respect_quality_floor


def reviews_answers(name: str, options: Mapping[str, Any]) -> bool:
    """Whether policy `name` with these options, or one inside it, is shown whole answers: clients then wait for them.

    Wrong options say nothing. Raises UsageError for its name.
    """
    if check_options(name, options):
        return False
    inside = _policies_inside(_made(name, options)).values()
    return hasattr(policy_class(name), "review") or any(reviews_answers(each.name, each.options) for each in inside)


def options_schema(name: str) -> dict[str, Any]:
    """The JSON Schema of the options of policy `name`. Raises UsageError for an unknown name."""
    return _options_of(name).model_json_schema()


def _options_of(name: str) -> type[BaseModel]:
    options: type[BaseModel] = getattr(policy_class(name), "Options", NoOptions)
    return options


def _made(name: str, options: Mapping[str, Any]) -> BaseModel:
    """The options of policy `name`, which must be right, as its model."""
    return _options_of(name).model_validate(dict(options))


def _policies_inside(made: BaseModel) -> dict[str, PolicyChoice]:
    """The policies that options name, by option."""
    chosen = {key: getattr(made, key) for key in type(made).model_fields}
    return {key: value for key, value in chosen.items() if isinstance(value, PolicyChoice)}


def _inner(key: str, chosen: PolicyChoice) -> list[OptionProblem]:
    """Everything wrong with a policy inside another, which names it at `key`."""
    try:
        found = check_options(chosen.name, chosen.options)
    except UsageError as error:
        return [OptionProblem((key, "name"), str(error))]
    return [OptionProblem((key, "options", *problem.path), problem.message) for problem in found]
