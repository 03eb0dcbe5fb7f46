"""What a search's verdicts say together: plans as plain data, the frontier, the runner-up, the nearest miss.

Owns the shape of `Plan` in plan.json. Imports hardware, results and, of the planner, candidates, evaluate, judge
and targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from simroute.hardware.memory import KvCapacity
from simroute.hardware.select import FoundCalibration
from simroute.planner.fleets.candidates import Space, differs
from simroute.planner.fleets.evaluate import Verdict
from simroute.planner.fleets.judge import Check, worst
from simroute.results.headlines import headlines
from simroute.results.metrics import rounded

_NEAR = 1e-9


def plan_document(space: Space, verdict: Verdict) -> dict[str, Any]:
    """One candidate with what is known of it."""
    fleet, policy = verdict.candidate
    spec = space.spec.policies[policy]
    summary = verdict.summary
    document = {
        "id": space.key(fleet, policy),
        "pools": [_pool(space, option, count, summary) for option, count in fleet],
        "policy": {"name": spec.name, "label": spec.shown, "options": spec.options},
        "cost_usd_per_month": space.usd_per_month(fleet),
        "gpus": sum(space.gpus(fleet).values()),
        "headlines": headlines(summary),
        "stability": summary["stability"] if summary else None,
        "meets": verdict.meets,
        "violations": [check.document(margin=False) for check in verdict.violations],
        "stage": verdict.stage,
        "summary": dict(summary) if summary else None,
    }
    document |= {"error": verdict.error} if verdict.error else {}
    return rounded(document)  # type: ignore[no-any-return]


def _pool(space: Space, option: int, count: int, summary: Any) -> dict[str, Any]:
    variant, pool = space.built.variants[option], space.built.pools[option]
    found = variant.calibration
    capacity: KvCapacity = variant.capacity
    beyond = summary["by_pool"][space.options[option].name]["extrapolated"] if summary else None
    return {
        "name": space.options[option].name,
        "family": space.options[option].family,
        "model": variant.hardware.model.name,
        "hf_id": variant.hardware.model.hf_id,
        "quantization": variant.hardware.scheme.name,
        "gpu": variant.hardware.gpu.name,
        "tensor_parallel": variant.spec.tensor_parallel,
        "replicas": count,
        "usd_per_hour": space.options[option].usd_per_hour,
        "price_source": variant.hardware.price_source,
        "engine": asdict(variant.engine)
        | {
            "kv_cache_dtype": variant.spec.kv_cache_dtype or variant.hardware.scheme.kv_cache_dtype,
            "gpu_memory_utilization": variant.spec.gpu_memory_utilization,
            "kv_source": capacity.source,
        },
        "zones": list(variant.spec.zones),
        "basis": pool.step_time.basis,
        "calibration": found and _calibration(found, beyond),
    }


def _calibration(found: FoundCalibration, beyond: Sequence[str] | None) -> dict[str, Any]:
    """What a pool's step times rest on; `extrapolated`: in what the load went beyond it, None where not replayed."""
    known = found.calibration
    return {
        "file": found.name,
        "vllm": known.vllm,
        "error": {"median": known.error.median, "p90": known.error.p90, "bias_sd": known.error.bias_sd},
        "range": known.range.model_dump(mode="json"),
        "extrapolated": None if beyond is None else list(beyond) or False,
    }


def frontier(space: Space, good: Sequence[Verdict]) -> list[Verdict]:
    """Those that no other beats in cost, p99 TTFT, p99 E2E and quality together, cheapest first."""
    rated = sorted(((_rating(space, verdict), verdict) for verdict in good), key=lambda pair: pair[0])
    kept: list[tuple[tuple[float, ...], Verdict]] = []
    for rating, verdict in rated:  # (whoever beats another sorts before it)
        if not any(_beats(other, rating) for other, _ in kept):
            kept.append((rating, verdict))
    return [verdict for _, verdict in kept]


def _rating(space: Space, verdict: Verdict) -> tuple[float, ...]:
    head = headlines(verdict.summary)
    low = (head["ttft_p99_s"], head["e2e_p99_s"])
    quality = head["quality_mean"]
    return (
        round(space.usd_per_month(verdict.candidate.fleet), 6),
        *(math.inf if value is None else value for value in low),
        -(quality or 0.0),
    )


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """At least as good in everything (of equals, the one that comes first)."""
    return all(mine <= theirs + _NEAR for mine, theirs in zip(one, other, strict=True))


def runner_up(best: Verdict, ranked: Sequence[Verdict]) -> Verdict | None:
    """The cheapest other choice of variants that keeps every promise; failing that, the same under another policy.

    What only adds to the best fleet is no other choice.
    """
    others = [v for v in ranked if differs(v.candidate.fleet, best.candidate.fleet)]
    used = [option for option, _ in best.candidate.fleet]
    same = [
        v
        for v in ranked
        if [option for option, _ in v.candidate.fleet] == used and v.candidate.policy != best.candidate.policy
    ]
    return next(iter(others), next(iter(same), None))


def binding(best: Verdict, cheaper: Sequence[Verdict]) -> list[Check]:
    """The best plan's promises: those that cheaper neighbours break, the worst broken first; then by the room left."""
    broken: dict[tuple[str, str | None], float] = {}
    for check in sorted((c for verdict in cheaper for c in verdict.violations), key=lambda check: check.margin):
        broken.setdefault((check.constraint, check.request_class), check.margin)
    known = [check for check in best.checks if check.value is not None]
    tightest: dict[tuple[str, str | None], Check] = {}
    for check in sorted(known, key=lambda check: check.margin):
        tightest.setdefault((check.constraint, check.request_class), check)
    return [tightest[key] for key in sorted(tightest, key=lambda key: (broken.get(key, 0.0), tightest[key].margin))]


def nearest(verdicts: Sequence[Verdict], rank: Callable[[Verdict], Any]) -> Verdict | None:
    """Of those replayed whole, the one whose broken promises are least broken; of equals the first by `rank`."""
    whole = [v for v in verdicts if v.stage == "whole" and not v.error and v.checks]
    return min(whole, key=lambda v: (worst(v.checks), rank(v)), default=None)


_WORDS = {
    "attainment": "the share of requests within their targets",
    "ttft_p99": "the p99 TTFT",
    "tpot_p99": "the p99 TPOT",
    "e2e_p99": "the p99 E2E latency",
    "quality_floor": "the share of answers that reach the quality floor",
    "budget": "the budget",
}


def phrase(check: Check) -> str:
    """A constraint in words: `the p99 TTFT of chat`."""
    what = _WORDS.get(check.constraint, f"the {check.constraint}")
    return (
        what
        + (f" of {check.request_class}" if check.request_class else "")
        + (f" (with {check.loss})" if check.loss else "")
    )


def shown(check: Check, value: float | None) -> str:
    """A value in the constraint's unit."""
    if value is None:
        return "unknown"
    if check.constraint in ("attainment", "quality_floor"):
        return f"{value:.2%}"
    if check.constraint.endswith("_p99"):
        return f"{value:.4g} s"
    return f"${value:,.0f} a month" if check.constraint == "budget" else f"{value:g}"


def at_best(check: Check) -> str:
    """What a plan can reach of a promise that a stretch of the traffic has broken: of a p99, who may be in time."""
    if check.constraint.endswith("_p99"):
        return f"at best {check.value:.2%} of requests keep to {phrase(check)}, and {check.limit:.0%} must"
    return f"{phrase(check)} is at best {shown(check, check.value)}, and {shown(check, check.limit)} is promised"


def relaxation(check: Check) -> dict[str, Any]:
    """What would have to be asked less of, and how much."""
    text = f"relax {phrase(check)} from {shown(check, check.limit)} to {shown(check, check.value)}"
    if check.constraint == "stability":
        text = "the fleet is OVERLOADED: allow more replicas, or plan for less traffic"
    elif check.value is None:
        text = f"{phrase(check)} cannot be stated: the fleet is OVERLOADED"
    return {
        "constraint": check.constraint,
        "class": check.request_class,
        "limit": check.limit,
        "needed": check.value,
        "text": text,
    }
