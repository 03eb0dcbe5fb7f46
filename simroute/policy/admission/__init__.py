"""Admission: whether a request may enter the fleet at all. The rules by name, and several of them in a row.

A new rule is a class with `Options`, `__init__(options, targets)` and `admit` (see `rules`), one line in
`ADMISSIONS` and a section in docs/fleet.md. May import policy.*, and workload.request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from simroute.policy.admission.rules import AdmissionRule, Always, Deadline, FleetLoad, QueueLimit, TierShed
from simroute.policy.admission.token_bucket import TokenBucket
from simroute.policy.context import Targets
from simroute.policy.options import OptionProblem, options_of, parse_options, problems_in
from simroute.workload.request import Request

__all__ = [
    "ADMISSIONS",
    "AdmissionChain",
    "AdmissionRule",
    "FleetLoad",
    "admission_schema",
    "check_admission",
    "make_admission",
]

ADMISSIONS: dict[str, type[Any]] = {
    "always": Always,
    "token_bucket": TokenBucket,
    "queue_limit": QueueLimit,
    "deadline": Deadline,
    "tier_shed": TierShed,
}
"""Every admission rule by name: a class with `Options` (a frozen model) and `__init__(options, targets)`."""


class AdmissionChain:
    """Several rules in a row: the first refusal counts, and the rules after it do not see the request.

    So a `token_bucket` charges what a later rule refuses: put it last, unless that is wanted.
    """

    def __init__(self, rules: Sequence[AdmissionRule]) -> None:
        self._rules = tuple(rules)

    def admit(self, request: Request, load: FleetLoad, now_s: float) -> str | None:
        """The reason of the first rule that refuses, None when none does."""
        for rule in self._rules:
            reason = rule.admit(request, load, now_s)
            if reason is not None:
                return reason
        return None


def make_admission(
    name: str, options: Mapping[str, Any], targets: Mapping[str, Targets] | None = None
) -> AdmissionRule:
    """The admission rule `name` with `options`, for classes with these latency `targets` (see `PolicyContext`).

    Raises UsageError for an unknown name (with the nearest ones), for options that are unknown or out of range (all
    of them, a line each) and for a `deadline` without any.
    """
    parsed = parse_options(f"admission rule {name}", options_of("admission rule", name, ADMISSIONS), options)
    rule: AdmissionRule = ADMISSIONS[name](parsed, targets or {})
    return rule


def check_admission(name: str, options: Mapping[str, Any]) -> list[OptionProblem]:
    """Everything wrong with the options of rule `name`, in the order of the file. Raises UsageError for its name."""
    return problems_in(options_of("admission rule", name, ADMISSIONS), options)


def admission_schema(name: str) -> dict[str, Any]:
    """The JSON Schema of the options of rule `name`. Raises UsageError for an unknown name."""
    return options_of("admission rule", name, ADMISSIONS).model_json_schema()
