"""Numbers and notes in words, alike in the terminal and in HTML. Imports only results."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from simroute.results import compare
from simroute.results.compare import Summary
from simroute.results.intervals import LEVEL, value_at
from simroute.results.run import FleetRun

UNKNOWN = "-"
ESTIMATED_MARK = "≈"
ESTIMATED = "step times are estimated by a roofline model, not calibrated on this hardware"
BASES = {"estimated": f"{ESTIMATED_MARK} estimated", "proxy": "composed, by proxy"}
"""What a pool's step times rest on, where the word itself would not be understood."""


def number(value: float | None, scale: float = 1.0) -> str:
    """`value * scale` to three significant digits without an exponent: 0.123, 1.23, 12.3, 1,234."""
    if value is None:
        return UNKNOWN
    scaled = value * scale
    if scaled == 0:
        return "0"
    decimals = next((d for limit, d in ((0.9995, 3), (9.995, 2), (99.95, 1)) if abs(scaled) < limit), 0)
    return f"{scaled:,.{decimals}f}"


def count(value: float | None) -> str:
    """How many of something there are: a whole number as it is, a mean over time to three significant digits."""
    if value is None:
        return UNKNOWN
    return str(int(value)) if float(value).is_integer() else number(value)


def milliseconds(value_s: float | None) -> str:
    """Seconds as a number of milliseconds."""
    return number(value_s, 1e3)


def percent(share: float | None) -> str:
    """A share as a percentage, rounded down (see `results.compare.percent`)."""
    return UNKNOWN if share is None else compare.percent(share)


def usd(value: float | None) -> str:
    """An amount of money: cents below 100 USD, whole dollars above."""
    if value is None:
        return UNKNOWN
    return f"${value:,.2f}" if value < 100 else f"${value:,.0f}"


def ranged(form: Callable[[float | None], str], summary: Summary, name: str) -> str:
    """The number called `name` in a summary, such as `ttft_s.p99`, and its interval where replicates gave one."""
    return f"{form(value_at(summary, name))} {interval(form, summary, name)}".rstrip()


def interval(form: Callable[[float | None], str], summary: Summary, name: str) -> str:
    """The interval alone: `[0.39, 0.52]`; empty where there is none, or none of its two ends."""
    ends = summary.get("intervals", {}).get(name, (None, None))
    return "" if ends[0] is None and ends[1] is None else f"[{form(ends[0])}, {form(ends[1])}]"


def estimates(summaries: Sequence[Summary]) -> str:
    """Which step times are estimates, in one sentence; empty where none is."""
    pools = [(name, pool["estimated"]) for summary in summaries for name, pool in summary["by_pool"].items()]
    named = dict.fromkeys(name for name, estimated in pools if estimated)
    if len(named) == len(dict(pools)) or not named:
        return ESTIMATED if named else ""
    return ESTIMATED.replace("step times", f"step times of pool {', '.join(named)}", 1)


def replicated(summaries: Sequence[Summary]) -> str:
    """What the intervals of these summaries are, in one sentence; empty where there are none."""
    counts = sorted({summary["replicates"]["count"] for summary in summaries if "replicates" in summary})
    if not counts:
        return ""
    return (
        f"[low, high]: {LEVEL:.0%} of {' or '.join(map(str, counts))} replicates with step times "
        f"drawn anew within their error; {UNKNOWN} where an overloaded one leaves no bound"
    )


def span(duration_s: float) -> str:
    """A duration in its natural unit: 45 s, 12.5 min, 3.2 h, 2 days."""
    for unit_s, unit in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if duration_s >= 2 * unit_s:
            return f"{duration_s / unit_s:.3g} {unit}"
    return f"{duration_s:.3g} s"


def traffic(names: Sequence[str], run: FleetRun) -> str:
    """What was replayed, in one sentence: the traces' names, and requests and span up to the horizon."""
    arrival_s = run.arrival_s
    if run.horizon_s is not None:
        arrival_s = arrival_s[arrival_s <= run.horizon_s]
    duration_s = float(np.ptp(arrival_s[np.isfinite(arrival_s)])) if len(arrival_s) else 0.0
    named = f"{' + '.join(names)}: " if names else ""
    return f"{named}{len(arrival_s):,} requests over {span(duration_s)}"


def state(summary: Summary) -> str:
    """The stability label of a policy or one of its pools, marked when it rests on estimated step times."""
    return f"{ESTIMATED_MARK} {summary['stability']}" if summary["estimated"] else str(summary["stability"])


def lost(summary: Summary) -> int:
    """Requests that arrived and were not answered."""
    requests: dict[str, int] = summary["requests"]
    return requests["arrived"] - requests["completed"]


def resent(summary: Summary) -> bool:
    """Whether requests were sent to replicas more than once each."""
    sent: int = summary["attempts"]
    requests: dict[str, int] = summary["requests"]
    return sent > requests["arrived"] - requests["rejected"]


def lives(summary: Summary) -> bool:
    """Whether anything happened to the replicas, or to requests because of them, that a fixed fleet does not know."""
    fleet = summary["fleet"]
    idle = fleet["ready_share"] is not None and fleet["ready_share"] < 1
    return bool(idle or fleet["crashes"] or fleet["most_held"] or fleet["token_usd"])


def ends(summary: Summary) -> list[str]:
    """Why requests got no answer, a line for each way to end."""
    ways = (("rejected", "reject_reasons"), ("failed", "failure_reasons"), ("cancelled", "cancel_reasons"))
    return [
        f"{way}: {', '.join(f'{reason} ({requests:,})' for reason, requests in found.items())}"
        for way, key in ways
        if (found := summary.get(key))
    ]


def collected_notes(summaries: Sequence[Summary], general: Sequence[str] = ()) -> list[str]:
    """The general notes, then every policy's and its reasons, once each: without names when all policies say so."""
    holders: dict[str, list[str]] = {}
    for summary in summaries:
        for note in (*summary["notes"], *ends(summary)):
            holders.setdefault(note, []).append(summary["policy"])
    notes = list(general)
    for note, policies in holders.items():
        notes.append(note if len(policies) == len(summaries) else f"{', '.join(policies)}: {note}")
    return notes
