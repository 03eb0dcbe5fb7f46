"""Autoscaling: how many replicas a pool should have. The autoscalers by name, and the seam they share.

A new autoscaler is a class with `Options` (a `Limits`), `__init__(options)` and `desired` (see `hpa`), one line in
`AUTOSCALERS` and a section in docs/fleet.md. May import policy.*.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simroute.policy.autoscaling.hpa import Hpa
from simroute.policy.autoscaling.limits import Autoscaler, Limits, PoolLoad
from simroute.policy.autoscaling.predictive import Predictive
from simroute.policy.autoscaling.scheduled import Scheduled
from simroute.policy.options import OptionProblem, options_of, parse_options, problems_in

__all__ = [
    "AUTOSCALERS",
    "SYNC_PERIOD_S",
    "Autoscaler",
    "Limits",
    "PoolLoad",
    "autoscaler_schema",
    "check_autoscaler",
    "make_autoscaler",
]

SYNC_PERIOD_S = 15.0
"""How often Kubernetes asks its autoscaler (`--horizontal-pod-autoscaler-sync-period`)."""

AUTOSCALERS: dict[str, type[Any]] = {
    "hpa": Hpa,
    "scheduled": Scheduled,
    "predictive": Predictive,
}
"""Every autoscaler by name: a class with `Options` (a frozen `Limits`) and `__init__(options)`."""


def make_autoscaler(name: str, options: Mapping[str, Any]) -> Autoscaler:
    """The autoscaler `name` with `options`, for one pool: it keeps a history.

    Raises UsageError for an unknown name (with the nearest ones) and for options that are unknown, out of range or
    contradict each other (all of them, a line each).
    """
    parsed = parse_options(f"autoscaler {name}", options_of("autoscaler", name, AUTOSCALERS), options)
    autoscaler: Autoscaler = AUTOSCALERS[name](parsed)
    return autoscaler


def check_autoscaler(name: str, options: Mapping[str, Any]) -> list[OptionProblem]:
    """Everything wrong with the options of `name`, in the order of the file. Raises UsageError for an unknown name."""
    return problems_in(options_of("autoscaler", name, AUTOSCALERS), options)


def autoscaler_schema(name: str) -> dict[str, Any]:
    """The JSON Schema of the options of autoscaler `name`. Raises UsageError for an unknown name."""
    return options_of("autoscaler", name, AUTOSCALERS).model_json_schema()
