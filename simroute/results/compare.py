"""Which policy to choose: ranking, differences to a baseline and the answer in one sentence. Imports nothing.

Works on the dicts of `metrics.summarise`, so on a loaded summary.json as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Summary = Mapping[str, Any]
Standing = tuple[bool, float, float, float]

TARGET_ATTAINMENT = 0.99
"""The share of all requests that must meet their SLO, and of all answers that must reach their class's quality floor.

Latency targets are p99 targets unless said otherwise, and one answer in a hundred may be below the floor likewise: a
policy that falls back on a lesser variant in a rare squeeze is not thrown out for it.
"""


def meets(summary: Summary, target: float = TARGET_ATTAINMENT) -> bool:
    """Whether enough requests met their SLO and enough answers their quality floor, in a run not overloaded."""
    return _in_time(summary, target) and floor_kept(summary) >= target


def floor_kept(summary: Summary) -> float:
    """The share of the answers that reach their class's quality floor; 1 where nothing was answered."""
    return 1.0 - (summary["quality"]["below_floor_share"] or 0.0)


def rank(summaries: Sequence[Summary], target: float = TARGET_ATTAINMENT) -> list[Summary]:
    """Best first, by `standing`; of equals by name."""
    return sorted(summaries, key=lambda summary: (standing(summary, target), summary["policy"]))


def standing(summary: Summary, target: float = TARGET_ATTAINMENT) -> Standing:
    """What policies are ranked by, the least first: whether the target is missed, how far, cost a month, p99 TTFT.

    Those that meet the target go by cost, then p99 TTFT; after them the others by nearness (stated below zero), then
    cost. Nearness is the lesser of two shares: of the requests within their SLO, of the answers that reach their floor.
    """
    good = meets(summary, target)
    near = 0.0 if good else min(summary["slo_attainment"] or 0.0, floor_kept(summary))
    return not good, -near, summary["cost_usd_per_month"], _p99_ttft_s(summary)


def difference(summary: Summary, baseline: Summary) -> dict[str, float | None]:
    """What changes against `baseline`: relative changes (0.1 is 10% more), attainment as a difference of shares.

    None where either side is undefined or the baseline is 0.
    """

    def relative(value: float | None, base: float | None) -> float | None:
        return value / base - 1.0 if value is not None and base else None

    changes = {key: relative(summary[key], baseline[key]) for key in ("cost_usd_per_month", "goodput_rps")}
    for metric in ("ttft_s", "tpot_s", "e2e_s"):
        changes[f"{metric}.p99"] = relative(summary[metric]["p99"], baseline[metric]["p99"])
    shares = summary["slo_attainment"], baseline["slo_attainment"]
    changes["slo_attainment"] = None if None in shares else shares[0] - shares[1]
    return changes


def answer(summaries: Sequence[Summary], target: float = TARGET_ATTAINMENT) -> str:
    """One sentence: the cheapest policy that meets the targets, or how near the best one comes."""
    if not summaries:
        return "No policy was run to the end."
    best = rank(summaries, target)[0]
    cost = f"${best['cost_usd_per_month']:,.0f}/month"
    if meets(best, target):
        also = sum(meets(s, target) for s in summaries) - 1
        lead = "Cheapest policy that meets the targets" if also else "The policy that meets the targets"
        if also and len({s["cost_usd_per_month"] for s in summaries if meets(s, target)}) == 1:
            lead = f"Best of the {also + 1} policies that meet the targets"
        return f"{lead}: {best['policy']} at {cost}; {_outcome(best)}."
    return (
        f"No policy meets the targets for {target:.0%} of requests: the nearest, {best['policy']} at {cost}, "
        f"{_shortfall(best, target)}."
    )


def percent(share: float) -> str:
    """A share as a percentage with one decimal, rounded down: 99.97% is not all, and 98.96% does not reach 99%."""
    return f"{math.floor(share * 1000 + 1e-6) / 10:.1f}%"


def _in_time(summary: Summary, target: float) -> bool:
    attained = summary["slo_attainment"]
    return summary["stability"] != "OVERLOADED" and attained is not None and attained >= target


def _shortfall(summary: Summary, target: float) -> str:
    """What a policy misses: its latency targets, its quality floors or both."""
    floors = f"only {percent(floor_kept(summary))} of its answers reach their quality floor"
    if _in_time(summary, target):
        return f"meets the latency targets, but {floors}"
    attained = "no" if summary["slo_attainment"] is None else f"{percent(summary['slo_attainment'])} of"
    state = " and is OVERLOADED" if summary["stability"] == "OVERLOADED" else ""
    also = f", and {floors}" if floor_kept(summary) < target else ""
    return f"meets the latency targets for {attained} requests{state}{also}"


def _outcome(summary: Summary) -> str:
    ttft_s = summary["ttft_s"]["p99"]
    p99 = "p99 TTFT unknown" if ttft_s is None else f"p99 TTFT {ttft_s:.3g} s{_between(summary)}"
    return f"{p99}, {percent(summary['slo_attainment'])} of requests within their targets{_meeting(summary)}"


def _between(summary: Summary) -> str:
    """The interval of the p99 TTFT, where there is one."""
    low_s, high_s = summary.get("intervals", {}).get("ttft_s.p99", (None, None))
    if low_s is None:
        return ""
    return f" [{low_s:.3g}, {high_s:.3g}]" if high_s is not None else f" [{low_s:.3g} or more]"


def _meeting(summary: Summary) -> str:
    """In how many replicates the targets were met, where there were any."""
    found = summary.get("replicates")
    return f"; targets met in {found['meets_targets']} of {found['count']} replicates" if found else ""


def _p99_ttft_s(summary: Summary) -> float:
    value = summary["ttft_s"]["p99"]
    return math.inf if value is None else float(value)
