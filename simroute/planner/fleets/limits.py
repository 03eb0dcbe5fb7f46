"""What a class's promises let miss: its limits, and how many of its requests may break them. What bounds rest on.

Owns `Limits`. Imports, of this room, candidates and judge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simroute.planner.fleets.candidates import Space
from simroute.planner.fleets.judge import METRICS, P99_SHARE

SLACK = 1e-6
"""Rounding that turns no bound into a refusal, as a share."""


@dataclass(frozen=True, slots=True)
class Limits:
    """A class: its requests, its limits in seconds (inf for none), and how many may break them in all."""

    members: NDArray[np.bool_]
    ttft_s: float
    tpot_s: float
    e2e_s: float
    spared: int
    aims: tuple[tuple[tuple[float, ...], int], ...]
    """Limits (ttft, tpot, e2e) that hold together, and how many requests may miss them."""
    below_floor: int

    @property
    def may_fall_below(self) -> bool:
        """Whether all of its answers may be below its floor."""
        return self.below_floor >= int(self.members.sum())


def limits_of(space: Space, name: str) -> Limits:
    """What the class `name` asks for, and how many of its requests may miss it."""
    trace = space.built.trace
    members = trace.class_code == trace.class_names.index(name)
    wanted, total = space.wanted(name), int(members.sum())
    missing = int((1 - space.attainment(name)) * total * (1 + SLACK) + SLACK)
    below = int((1 - space.spec.floor_share) * total * (1 + SLACK) + SLACK)
    floored = name in space.built.quality_floor
    aims: list[tuple[tuple[float, ...], int]] = [(tuple(_limit(wanted.slo, m) for m in METRICS), missing)]
    spared = missing + (below if floored else 0)
    for place, metric in enumerate(METRICS):
        limit_s = _limit(wanted.p99, metric)
        if limit_s < math.inf:
            alone = [math.inf] * len(METRICS)
            alone[place] = limit_s
            over = math.ceil(P99_SHARE * total) + 1
            aims.append((tuple(alone), over + missing))
            spared += over
    ttft_s, tpot_s, e2e_s = (min(limits[place] for limits, _ in aims) for place in range(len(METRICS)))
    return Limits(members, ttft_s, tpot_s, e2e_s, spared, tuple(aims), below if floored else 0)


def _limit(slo: object, metric: str) -> float:
    value = getattr(slo, f"{metric}_s", None)
    return math.inf if value is None else float(value)
