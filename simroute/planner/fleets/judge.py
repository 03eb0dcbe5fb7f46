"""Whether one fleet keeps its promises: every constraint beside what the simulation gave. Owns `Check` and `judged`.

Imports results and, of this room, candidates. A percentile or share counts what did not finish as a miss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from simroute.planner.fleets.candidates import Fleet, Space
from simroute.results.latency import latencies
from simroute.results.run import FleetRun
from simroute.results.slo import Slo, slo_for

METRICS = ("ttft", "tpot", "e2e")
P99_SHARE = 0.01
"""A 99th percentile may be passed by so many."""
_ROUNDING = 1e-9
_PEAK_MARGIN, _PEAK_SPARE = 1.1, 2
"""A stretch is replayed from an empty fleet, which helps, and with other draws, which may not: near misses are left to
the whole trace."""


class Check(NamedTuple):
    """A constraint of a class (None: of the fleet) and what became of it.

    `value` is None where nothing is known. `margin` is the room that is left, as a share of the limit; below 0 it is
    broken. `loss` says what the fleet had lost when it was judged ("" for nothing).
    """

    constraint: str
    request_class: str | None
    value: float | None
    limit: float
    margin: float
    loss: str = ""

    @property
    def kept(self) -> bool:
        """Whether it holds."""
        return self.margin >= 0

    def document(self, *, margin: bool) -> dict[str, Any]:
        """As plain JSON, under the names of plan.json."""
        found = {"constraint": self.constraint, "class": self.request_class, "value": self.value, "limit": self.limit}
        found |= {"margin": self.margin} if margin else {}
        return found | ({"loss": self.loss} if self.loss else {})


def at_most(name: str, request_class: str | None, value: float | None, limit: float) -> Check:
    """A check that `value` is at most `limit`; unknown is broken, and worse than anything known."""
    if value is None:
        return Check(name, request_class, None, limit, -math.inf)
    room = (limit - value) / limit if limit else -value
    return Check(name, request_class, value, limit, room if abs(room) > _ROUNDING else 0.0)


def at_least(name: str, request_class: str | None, value: float | None, limit: float) -> Check:
    """A check that the share `value` is at least `limit`; its margin is in what may be missed, where that is known."""
    if value is None:
        return Check(name, request_class, None, limit, -math.inf)
    allowed = 1 - limit
    room = (value - limit) / allowed if allowed > _ROUNDING else value - limit
    return Check(name, request_class, value, limit, room if abs(room) > _ROUNDING else 0.0)


def judged(space: Space, result: Mapping[str, Any]) -> list[Check]:
    """Every promise about latency, attainment, quality and stability beside a whole replay's `result`."""
    summary = result["summary"]
    found = [Check("stability", None, None, 0.0, -1.0 if summary["stability"] == "OVERLOADED" else math.inf)]
    for name in space.classes:
        found += _class_checks(space, name, summary)
    return [check for check in found if check.margin < math.inf]


def _class_checks(space: Space, name: str, summary: Mapping[str, Any]) -> list[Check]:
    wanted, group = space.wanted(name), summary["by_class"].get(name)
    floor = space.built.quality_floor.get(name)
    if group is None:  # (every request of the class was cut off)
        return [at_least("attainment", name, None, space.attainment(name))]
    ended = group["requests"]
    attained = group["slo_attainment"] if wanted.slo is not None else ended["completed"] / ended["arrived"]
    found = [at_least("attainment", name, attained, space.attainment(name))]
    if wanted.p99 is not None:
        limits = ((metric, getattr(wanted.p99, f"{metric}_s")) for metric in METRICS)
        found += [
            at_most(f"{metric}_p99", name, group[f"{metric}_s"]["p99"], limit_s)
            for metric, limit_s in limits
            if limit_s is not None and _has(group, metric)
        ]
    if floor is not None:
        below = summary["quality"]["below_floor_by_class"].get(name)
        found.append(at_least("quality_floor", name, None if below is None else 1 - below, space.spec.floor_share))
    return found


def _has(group: Mapping[str, Any], metric: str) -> bool:
    """Whether any answer of the class has the metric: those of one token, or that come in one piece, have no TPOT."""
    return metric != "tpot" or group["tpot_s"]["mean"] is not None


def misses(space: Space, run: FleetRun) -> dict[str, dict[str, int]]:
    """How many requests of each class missed their `attainment`, or passed each limit of a p99."""
    times, trace = latencies(run), run.trace
    found: dict[str, dict[str, int]] = {}
    for name in space.classes:
        if name not in trace.class_names:
            continue
        members = trace.class_code == trace.class_names.index(name)
        aimed = slo_for(space.built.slo, name) if space.wanted(name).slo is not None else Slo()
        met = aimed.met(times)
        counts = {"attainment": int(np.count_nonzero(members & ~met))}
        limits = space.wanted(name).p99
        for metric in METRICS if limits is not None else ():
            limit_s = getattr(limits, f"{metric}_s")
            if limit_s is not None:
                over = members & (getattr(times, f"{metric}_s") > limit_s)
                counts[f"{metric}_p99"] = int(np.count_nonzero(over))
        found[name] = counts
    return found


def hopeless(space: Space, missed: Mapping[str, Mapping[str, int]]) -> list[Check]:
    """The promises that a stretch of the trace breaks for the whole of it.

    Its misses alone are more than all requests of the class together may miss.
    """
    found = []
    for name, counts in missed.items():
        total = space.requests(name)
        for constraint, count in counts.items():
            share = 1 - space.attainment(name) if constraint == "attainment" else P99_SHARE
            if count > share * total * _PEAK_MARGIN + _PEAK_SPARE:
                kept = 1 - count / total
                found.append(at_least(constraint, name, kept, 1 - share))
    return found


def named_loss(space: Space, fleet: Fleet, left: Fleet) -> str:
    """`1 x A gone`: what `left` lacks of `fleet`."""
    remaining = dict(left)
    gone = [(count - remaining.get(option, 0), space.options[option].name) for option, count in fleet]
    return " + ".join(f"{count} x {name}" for count, name in gone if count) + " gone"


def cheap_checks(space: Space, fleet: Fleet) -> list[Check]:
    """Budget and quotas."""
    found = []
    budget = space.spec.budget_usd_per_month
    if budget is not None:
        found.append(at_most("budget", None, space.usd_per_month(fleet), budget))
    for gpu, count in space.gpus(fleet).items():
        quota = space.quota(gpu)
        if quota is not None:
            found.append(at_most(f"quota {gpu}", None, float(count), float(quota)))
    return found


def worst(checks: Sequence[Check]) -> float:
    """How far the broken ones are off, 0 where none is: what near misses are ranked by."""
    return sum(min(-check.margin, 1e6) for check in checks if not check.kept)
