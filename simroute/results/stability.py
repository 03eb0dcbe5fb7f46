"""Whether a run's percentiles mean anything: STABLE, BACKLOGGED or OVERLOADED. Imports only `results.run`.

The queue counts requests that have arrived and wait for their first token; it is read at each arrival. Chance alone
moves the number of arrivals among n by about sqrt(n), so a queue longer than 3 sqrt(n) means that, for a time, more
came than the fleet could serve: the run is BACKLOGGED. If, moreover, the queue is that long at the last
arrival and has grown through the run (from the first third of the arrivals to the second, and by a quarter or more to
the third), waiting longer would only make it worse: the run is OVERLOADED, and its tail latencies would measure
nothing but the length of the trace.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from simroute.results.run import FleetRun, Status

CHANCE = 3.0
GROWTH = 1.25


class Stability(StrEnum):
    """How the queue of a run behaved."""

    STABLE = "STABLE"
    BACKLOGGED = "BACKLOGGED"
    OVERLOADED = "OVERLOADED"


def queue_at_arrivals(run: FleetRun) -> NDArray[np.int64]:
    """Requests without a first token just after each arrival, in order of arrival; rejected requests never count."""
    counted = (run.status != Status.REJECTED) & (run.trace.arrival_s <= run.end_s)
    arrival_s = run.trace.arrival_s[counted]
    first_token_s = np.sort(run.first_token_s[counted])  # NaN (none yet) sorts to the end and is never passed
    started: NDArray[np.int64] = np.searchsorted(first_token_s, arrival_s, side="right")
    return np.arange(1, len(arrival_s) + 1, dtype=np.int64) - started


def stability(run: FleetRun) -> Stability:
    """The label of `run` (see the module's text for its definition)."""
    queue = queue_at_arrivals(run)
    limit = CHANCE * len(queue) ** 0.5
    if not len(queue) or queue.max() <= limit:
        return Stability.STABLE
    # Requests that arrive at one instant are no growth over time.
    spread_out = run.trace.arrival_s[0] < run.trace.arrival_s[-1]
    first, second, third = (part.mean() for part in np.array_split(queue, 3))
    growing = first < second and second * GROWTH <= third
    return Stability.OVERLOADED if spread_out and growing and queue[-1] > limit else Stability.BACKLOGGED
