"""Samples the fleet at regular times. Owns `TimelineSampler`; may import fleet, results and workload."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Generator, Sequence

import numpy as np
import simpy

from simroute.fleet.scrape import NOBODY
from simroute.fleet.slot import Slot, State
from simroute.results.run import Timeline
from simroute.workload.columns import Floats


class TimelineSampler:
    """Keeps between `samples` / 2 and 2 `samples` points, however long the run turns out to be.

    `counts` gives (requests held, requests sent) of a fleet that changes; None for one that does not.
    """

    def __init__(
        self,
        env: simpy.Environment,
        slots: Sequence[Slot],
        arrival_s: Floats,
        samples: int,
        counts: Callable[[], tuple[int, int]] | None,
    ) -> None:
        self._env = env
        self._slots = slots
        self._counts = counts
        self._limit = 2 * samples
        span_s = float(arrival_s[-1] - arrival_s[0]) if len(arrival_s) else 0.0
        self._start_s = float(arrival_s[0]) if len(arrival_s) else 0.0
        self._interval_s = max(span_s / samples, 1e-3)
        self._rows: list[array[float]] = []
        env.process(self._sample())

    def _sample(self) -> Generator[simpy.Event, None, None]:
        env = self._env
        yield env.timeout(self._start_s)
        while True:
            self._rows.append(self._row())
            if len(self._rows) > self._limit:
                self._rows = self._rows[::2]
                self._interval_s *= 2
            yield env.timeout(self._interval_s)

    def _row(self) -> array[float]:
        row = array("d", [self._env.now, *(self._counts() if self._counts else (0, 0))])
        for slot in self._slots:
            replica = slot.replica or NOBODY
            ready = slot.state is State.READY
            row.extend((replica.num_requests_running, replica.num_requests_waiting, replica.kv_cache_usage, ready))
            row.append(slot.busy_s)
        return row

    def timeline(self) -> Timeline:
        """The samples so far."""
        table = np.array(self._rows, dtype=np.float64).reshape(len(self._rows), 3 + 5 * len(self._slots))
        running, waiting, usage, ready, busy_s = (table[:, 3 + k :: 5] for k in range(5))
        changing = self._counts is not None
        return Timeline(
            table[:, 0].copy(),
            running.astype(np.int32),
            waiting.astype(np.int32),
            usage.astype(np.float32),
            ready.astype(np.bool_) if changing else None,
            table[:, 1].astype(np.int32) if changing else None,
            table[:, 2].astype(np.int64) if changing else None,
            busy_s.copy(),
        )
