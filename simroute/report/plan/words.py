"""A plan's document in words: its fleet, its promises and limits in their units, what the search did.

The document is plan.json, plain data; only what every plan has is asked for, the rest may be absent or null. Imports
`text` and units.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

from simroute.report.text import UNKNOWN, milliseconds, number, percent, span, usd

Document: TypeAlias = Mapping[str, Any]
"""plan.json."""
Plan: TypeAlias = Mapping[str, Any]
"""One candidate fleet of it."""

_NAMES = {
    "ttft_p99": "p99 TTFT",
    "tpot_p99": "p99 TPOT",
    "e2e_p99": "p99 E2E",
    "attainment": "requests within targets",
    "quality_floor": "answers that reach the floor",
    "budget": "USD a month",
    "stability": "stability",
}
_MOST_TOLD = 3
_ASKED = ("traffic", "price", "step times")
"""What managers ask about, however little it moves."""
_SPANS = {
    "tokens": "tokens a step",
    "decode_seqs": "requests decoding",
    "decode_context_tokens": "tokens of their context",
}


def chosen(document: Document) -> Plan | None:
    """The plan that the document is about: the best, or failing that the nearest miss."""
    return document.get("best") or document.get("nearest")


def fleet(plan: Plan) -> str:
    """The pools in a phrase: `6 x small + 2 x large`."""
    return " + ".join(f"{pool['replicas']} x {pool['name']}" for pool in plan["pools"])


def policy(plan: Plan) -> str:
    """The routing policy, as the plan calls it."""
    return str(plan["policy"].get("label") or plan["policy"]["name"])


def gpus(plan: Plan) -> str:
    """GPUs by kind: `6 L40S + 4 H100`."""
    kinds: dict[str, int] = {}
    for pool in plan["pools"]:
        kinds[pool["gpu"]] = kinds.get(pool["gpu"], 0) + pool["replicas"] * pool["tensor_parallel"]
    return " + ".join(f"{count} {gpu}" for gpu, count in kinds.items())


def traffic(document: Document) -> str:
    """What was planned for, in one sentence."""
    of = document.get("traffic") or {}
    parts = [" + ".join(map(str, of.get("traces") or ()))]
    if of.get("requests") is not None:
        lasting = f" over {span(of['seconds'])}" if of.get("seconds") else ""
        rate = f" ({number(of['requests_per_s'])} a second)" if of.get("requests_per_s") else ""
        parts.append(f"{of['requests']:,} requests{lasting}{rate}")
    if of.get("growth") not in (None, 1, 1.0):
        parts.append(f"{of['growth']:g} times today's rate")
    return ", ".join(filter(None, parts))


def relaxations(document: Document) -> list[str]:
    """What would have to be asked less of, where nothing is feasible."""
    return [str(each["text"]) for each in document.get("relax") or ()]


def searched(document: Document) -> str:
    """What the search did, in one sentence."""
    of = document.get("search") or {}
    if not of:
        return ""
    pruned = ", ".join(f"{n:,} {_ruled_out(reason)}" for reason, n in (of.get("pruned") or {}).items())
    asked = f"{of['asked']:,} asked about in " if of.get("asked") is not None else ""
    reused = f" and {of['reused']:,} from earlier runs" if of.get("reused") else ""
    failed = f", {of['failed']:,} failed" if of.get("failed") else ""
    seconds = f" in {span(of['seconds'])}" if of.get("seconds") else ""
    variants = f" of {of['options']:,} variants" if of.get("options") else ""
    replays = f"{asked}{of.get('simulated', 0):,} replays{reused}{failed}"
    return f"{of.get('candidates', 0):,} fleets{variants}{seconds}: {pruned or 'none ruled out'}; {replays}"


def _ruled_out(reason: str) -> str:
    return "not needed" if reason == "not_needed" else f"ruled out by {reason.replace('_', ' ')}"


def by_reach(document: Document) -> list[Mapping[str, Any]]:
    """What the cheapest plan's cost hangs on, what moves it most first: infinitely, where no fleet is left."""
    base = (document.get("best") or {}).get("cost_usd_per_month", 0.0)

    def reach(entry: Mapping[str, Any]) -> float:
        costs = [entry[end]["cost_usd_per_month"] for end in ("low", "high")]
        return max(math.inf if cost is None else abs(cost - base) for cost in costs)

    return sorted(document.get("sensitivity") or (), key=reach, reverse=True)


def sensitivities(document: Document) -> list[str]:
    """In a line each: the factors that move the bill most, and of traffic, prices and step times at least one."""
    ordered = by_reach(document)
    asked = [next((e for e in ordered if str(e["factor"]).startswith(name)), None) for name in _ASKED]
    chosen = [entry for entry in ordered if entry in ordered[:_MOST_TOLD] or entry in asked]
    return [f"{entry['factor']} {_end(entry['low'])}, {_end(entry['high'])}" for entry in chosen]


def _end(end: Mapping[str, Any]) -> str:
    cost = end["cost_usd_per_month"]
    return f"{end['label']}: {'no fleet will do' if cost is None else f'{usd(cost)} a month'}"


def measured(span: Mapping[str, Any] | None) -> str:
    """The load that a calibration was measured under, in words."""
    told = [(_SPANS[name], span[name][1]) for name in _SPANS if span and span.get(name)]
    return f"up to {', '.join(f'{most:,} {words}' for words, most in told)}" if told else UNKNOWN


def broken(plan: Plan) -> str:
    """What a plan breaks, in words; why it failed, where it did."""
    if plan.get("error"):
        return str(plan["error"])
    said = []
    for check in plan.get("violations") or ():
        promise, value, limit = promised(check, plan.get("stage"))
        said.append(promise if value == UNKNOWN and limit == UNKNOWN else f"{promise}: {value}, limit {limit}")
    return "; ".join(said)


def phrase(constraint: str, request_class: str | None) -> str:
    """A constraint in words: `p99 TTFT of chat`."""
    name = _NAMES.get(constraint, constraint.replace("_", " "))
    return f"{name} of {request_class}" if request_class else name


def amount(constraint: str, value: float | None, stage: str | None = None) -> str:
    """A constraint's value or limit in its unit; at stage `peak` a p99 is judged by the share that is in time."""
    if value is None or constraint == "stability":
        return UNKNOWN
    if constraint in ("attainment", "quality_floor") or "share" in constraint:
        return percent(value)
    if constraint.endswith("_p99"):
        if stage == "peak":
            return f"{percent(value)} in time"
        return f"{milliseconds(value)} ms" if constraint.startswith("tpot") else f"{number(value)} s"
    return usd(value) if constraint == "budget" or "usd" in constraint else f"{value:,g}"


def promised(check: Mapping[str, Any], stage: str | None = None) -> tuple[str, str, str]:
    """A promise, what became of it, and its limit."""
    name = str(check["constraint"])
    limit = amount(name, check.get("limit"), stage).removesuffix(" in time")
    return phrase(name, check.get("class")), amount(name, check.get("value"), stage), limit
