"""What a scenario promises, as constraints that a summary keeps or breaks, one by one.

Owns `Constraint` and the headline numbers of a cell. Imports results and, of scenario, build.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from simroute.results.compare import TARGET_ATTAINMENT, Summary, floor_kept
from simroute.results.slo import Slo, slo_for
from simroute.results.stability import Stability
from simroute.scenario.build import Built

LATENCIES = ("ttft_s", "tpot_s", "e2e_s")


class Constraint(NamedTuple):
    """One promise to one class: p99 of a latency (`ttft_s`, `tpot_s`, `e2e_s`) at most `limit` seconds,
    `slo_attainment` at least `limit`, or `below_floor_share` of its answers at most `limit`.
    """

    constraint: str
    request_class: str
    limit: float

    def value(self, summary: Summary) -> float | None:
        """What the summary has for it; None where it cannot be stated."""
        if self.constraint == "below_floor_share":
            found = summary["quality"]["below_floor_by_class"].get(self.request_class)
        else:
            part = summary["by_class"].get(self.request_class, {})
            found = part.get(self.constraint)
            found = found["p99"] if isinstance(found, Mapping) else found
        return None if found is None else float(found)

    def holds(self, summary: Summary) -> bool:
        """Whether the summary keeps it; nothing is promised to a class that sends nothing."""
        if self.request_class not in summary["by_class"]:
            return True
        value, overloaded = self.value(summary), bool(summary["stability"] == Stability.OVERLOADED)
        if self.constraint == "slo_attainment":
            return value is not None and value >= self.limit and not overloaded
        if value is None:  # an overloaded run has no p99; a class without an answer breaks its attainment, not this
            return not overloaded
        return value <= self.limit

    def violation(self, summary: Summary) -> dict[str, Any]:
        """What is broken, as plain data."""
        return {
            "constraint": self.constraint,
            "class": self.request_class,
            "value": self.value(summary),
            "limit": self.limit,
        }


def constraints_of(built: Built, target: float = TARGET_ATTAINMENT) -> tuple[Constraint, ...]:
    """Everything that is promised to the classes of the trace; `target` is the share that must be in time."""
    found = []
    for name in built.trace.class_names:
        slo = slo_for(built.slo, name)
        limits = [(latency, getattr(slo, latency)) for latency in LATENCIES]
        found += [Constraint(latency, name, limit) for latency, limit in limits if limit is not None]
        if slo != Slo():
            found.append(Constraint("slo_attainment", name, target))
        if name in built.quality_floor:
            found.append(Constraint("below_floor_share", name, round(1.0 - target, 9)))
    return tuple(found)


def broken(constraints: Sequence[Constraint], summary: Summary) -> list[Constraint]:
    """The constraints that the summary does not keep."""
    return [each for each in constraints if not each.holds(summary)]


def kept_all(constraints: Sequence[Constraint], summary: Summary) -> bool:
    """Whether it keeps all of them and is not overloaded."""
    return summary["stability"] != Stability.OVERLOADED and not broken(constraints, summary)


def nearness(summary: Summary) -> float:
    """How near a summary is to its targets: the lesser of the shares in time and above the quality floor."""
    return min(summary["slo_attainment"] or 0.0, floor_kept(summary))
