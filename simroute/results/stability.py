"""Whether a run's percentiles mean anything: STABLE, BACKLOGGED or OVERLOADED. Imports only `results.run`.

A queue counts requests that have arrived and wait for their first token; it is read at each arrival, once for the
whole fleet and once for each pool, since one pool can drown while others idle. Chance alone moves the number of
arrivals among n by about sqrt(n), so a queue longer than 3 sqrt(n) means that, for a time, more came than could be
served: BACKLOGGED. If, moreover, the queue is that long at the last arrival and has grown through the run (from the
first third of the arrivals to the second, and by a quarter or more to the third), waiting longer would only make it
worse: OVERLOADED, and tail latencies would measure nothing but the length of the trace. The worst of the labels of
the fleet and its pools is the run's.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from simroute.results.run import FleetRun, Status

Floats = NDArray[np.float64]

CHANCE = 3.0
GROWTH = 1.25


class Stability(StrEnum):
    """How a queue behaved, from good to bad."""

    STABLE = "STABLE"
    BACKLOGGED = "BACKLOGGED"
    OVERLOADED = "OVERLOADED"


_SEVERITY = list(Stability)


def stability(run: FleetRun) -> Stability:
    """The label of `run`: the worst of the whole fleet's and every pool's."""
    return max([_label(run, run.status != Status.REJECTED), *pool_stability(run).values()], key=_SEVERITY.index)


def pool_stability(run: FleetRun) -> dict[str, Stability]:
    """The label of each pool, from the requests that were sent to it."""
    pools = {totals.pool: [r.replica for r in run.replicas if r.pool == totals.pool] for totals in run.replicas}
    routed = run.status != Status.REJECTED
    return {name: _label(run, routed & np.isin(run.replica, members)) for name, members in pools.items()}


def queue_at_arrivals(arrival_s: Floats, first_token_s: Floats) -> NDArray[np.int64]:
    """Requests without a first token just after each arrival, shape (requests,).

    `arrival_s` ascends; `first_token_s` belongs to the same requests, NaN where there never was a first token.
    """
    ordered = np.sort(first_token_s)  # NaN sorts to the end and is never passed
    started: NDArray[np.int64] = np.searchsorted(ordered, arrival_s, side="right")
    return np.arange(1, len(arrival_s) + 1, dtype=np.int64) - started


def _served_s(run: FleetRun) -> Floats:
    """When each request stopped waiting for its first token: because it came, or because its client left."""
    if run.left_s is None:
        return run.first_token_s
    return np.where(np.isnan(run.first_token_s), run.left_s, run.first_token_s)


def _label(run: FleetRun, members: NDArray[np.bool_]) -> Stability:
    """The label of the queue that the requests `members` (a mask) make."""
    rows = np.flatnonzero(members & (run.arrival_s <= run.end_s))
    if run.sent_s is not None:  # clients that wait for answers do not arrive in the trace's order
        rows = rows[np.argsort(run.sent_s[rows], kind="stable")]
    arrival_s = run.arrival_s[rows]
    queue = queue_at_arrivals(arrival_s, _served_s(run)[rows])
    limit = CHANCE * len(queue) ** 0.5
    if not len(queue) or queue.max() <= limit:
        return Stability.STABLE
    first, second, third = (part.mean() for part in np.array_split(queue, 3))
    growing = first < second and second * GROWTH <= third
    # Requests that arrive at one instant are no growth over time.
    spread_out = arrival_s[0] < arrival_s[-1]
    return Stability.OVERLOADED if spread_out and growing and queue[-1] > limit else Stability.BACKLOGGED
