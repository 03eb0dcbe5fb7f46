"""Latency against load: the best plan's whole fleet on the whole trace, from a quarter of the traffic to overload.

Imports results and, of the planner, evaluate and targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simroute.planner.fleets.evaluate import Candidate, Evaluator
from simroute.planner.targets import LATENCIES
from simroute.results.headlines import headlines
from simroute.results.stability import Stability

BELOW = (0.25, 0.5, 0.75, 1.0)
BEYOND = (1.25, 1.6, 2.0, 3.0)
"""Times the rate at which a promise breaks: one after the other, up to the first that the fleet is OVERLOADED at."""
CLOSE = 1.15
"""The knee is seen where the highest rate that is borne and the lowest that is not are within so much of each other."""
MOST_MIDDLES = 2


def curve(evaluator: Evaluator, best: Candidate, breaks_at: float | None) -> list[dict[str, Any]]:
    """Every rate at which the whole fleet was replayed, lowest first, once those that were missing are done.

    `breaks_at` is where headroom ends; where that is not known nothing beyond it is asked for.
    """
    evaluator.whole(best, [*BELOW, *_rates(breaks_at, 1.0, BEYOND[0])])
    for factor in BEYOND[1:] if breaks_at is not None else ():
        if _overloaded(evaluator, best) is None:
            evaluator.whole(best, _rates(breaks_at, factor))
    for _ in range(MOST_MIDDLES):
        high = _overloaded(evaluator, best)
        low = max((rate for rate in evaluator.whole(best) if high is not None and rate < high), default=None)
        if high is not None and low is not None and high > low * CLOSE:
            evaluator.whole(best, _rates((low * high) ** 0.5, 1.0))
    trace = evaluator.space.built.trace
    usual_rps = len(trace) / trace.duration_s if trace.duration_s else None
    known = evaluator.whole(best).items()
    return [_point(rate, usual_rps and rate * usual_rps, found["summary"]) for rate, found in known]


def _point(rate_scale: float, rate_rps: float | None, summary: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "rate_scale": rate_scale,
        "rate_rps": rate_rps,
        **headlines(summary),
        "kv_usage": _fullest(summary),
        "stability": summary["stability"],
        "by_class": {
            name: {f"{latency.removesuffix('_s')}_p99_s": group[latency]["p99"] for latency in LATENCIES}
            for name, group in summary["by_class"].items()
        },
    }


def _fullest(summary: Mapping[str, Any]) -> float | None:
    """The share of its KV cache that the fullest pool has in use but for a hundredth of the time."""
    return max((pool["kv_usage"]["p99"] for pool in summary["by_pool"].values()), default=None)


def _rates(rate: float | None, *factors: float) -> list[float]:
    """Multiples of a rate, to four digits as headroom has them."""
    return [] if rate is None else [float(f"{rate * factor:.4g}") for factor in factors]


def _overloaded(evaluator: Evaluator, best: Candidate) -> float | None:
    """The lowest rate known at which the fleet is OVERLOADED."""
    known = evaluator.whole(best).items()
    return next((rate for rate, found in known if found["summary"]["stability"] == Stability.OVERLOADED), None)
