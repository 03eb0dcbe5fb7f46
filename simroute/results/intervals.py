"""How sure the headline numbers are: intervals over replicates, whose step times were drawn anew within their error.

Owns what is kept of a replicate and the keys `replicates` and `intervals` of a summary. Imports numpy and, of
results, compare and metrics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from simroute.results.compare import Summary, meets
from simroute.results.metrics import rounded
from simroute.results.stability import Stability

LEVEL = 0.9
"""The share of the replicates that an interval covers: from their 5th to their 95th percentile."""
ENOUGH = 20
"""With fewer replicates, a 5th percentile lies between the two lowest of them."""
HEADLINES = (
    *(f"{latency}.{point}" for latency in ("ttft_s", "tpot_s", "itl_s", "e2e_s") for point in ("p50", "p90", "p99")),
    "slo_attainment",
    "goodput_rps",
    "output_tokens_per_s",
    "cost_usd_per_month",
    "cost_usd_per_1m_output_tokens",
)
"""The numbers of a summary that get an interval; a dot leads into a part of it."""


class Replicate(NamedTuple):
    """What is kept of one replicate of one policy: its headline numbers (None where undefined) and verdicts."""

    numbers: tuple[float | None, ...]
    stability: str
    meets_targets: bool


def kept(summary: Summary) -> Replicate:
    """What the summary of a replicate adds to the intervals."""
    return Replicate(tuple(value_at(summary, name) for name in HEADLINES), summary["stability"], meets(summary))


def value_at(summary: Summary, name: str) -> float | None:
    """The number called `name` in a summary, such as `ttft_s.p99`."""
    value: Any = summary
    for key in name.split("."):
        value = value[key]
    return None if value is None else float(value)


def with_intervals(summary: Summary, replicates: Sequence[Replicate]) -> dict[str, Any]:
    """`summary` with the keys `replicates` and `intervals`, as docs/results.md defines them.

    A number that a replicate could not state (the tail of an overloaded run) counts as above all others; where the
    interval's end falls among those, it is None: no bound can be given. An interval is widened to the number itself
    where few replicates happen to lie all on one side of it.
    """
    columns = zip(*(replicate.numbers for replicate in replicates), strict=True)
    points = kept(summary).numbers
    labels = [replicate.stability for replicate in replicates]
    added: dict[str, Any] = {
        "replicates": {
            "count": len(replicates),
            "meets_targets": sum(replicate.meets_targets for replicate in replicates),
            "stability": {str(label): labels.count(label) for label in Stability},
        },
        "intervals": {
            name: interval(column, point) for name, column, point in zip(HEADLINES, columns, points, strict=True)
        },
    }
    if len(replicates) < ENOUGH:
        few = f"intervals rest on {len(replicates)} replicates: {ENOUGH} or more show the tails better"
        added["notes"] = [*summary["notes"], few]
    return {**summary, **rounded(added)}


def interval(column: Sequence[float | None], point: float | None) -> tuple[float, float]:
    """(low, high) of the middle `LEVEL` of a column, linear between ranks, and `point`; infinite without a bound."""
    values = np.sort([_bound(value) for value in column])
    low, high = (_quantile(values, share) for share in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return min(low, _bound(point)), max(high, _bound(point))


def _bound(value: float | None) -> float:
    return math.inf if value is None else value


def _quantile(values: np.typing.NDArray[np.float64], share: float) -> float:
    """As `np.quantile`, but between a number and infinity lies infinity instead of a NaN."""
    rank = share * (len(values) - 1)
    below = math.floor(rank)
    low, high = float(values[below]), float(values[min(below + 1, len(values) - 1)])
    return low if rank == below or low == high else low + (rank - below) * (high - low)
