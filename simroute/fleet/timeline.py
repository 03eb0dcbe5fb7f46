"""Samples the fleet at regular times. Owns `TimelineSampler`; may import engine and results."""

from __future__ import annotations

from array import array
from collections.abc import Generator, Sequence

import numpy as np
import simpy

from simroute.engine.replica import Replica
from simroute.results.run import Timeline
from simroute.workload.columns import Floats


class TimelineSampler:
    """Keeps between `samples` / 2 and 2 `samples` points, however long the run turns out to be."""

    def __init__(self, env: simpy.Environment, replicas: Sequence[Replica], arrival_s: Floats, samples: int) -> None:
        self._env = env
        self._replicas = replicas
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
            row = array("d", [env.now])
            for replica in self._replicas:
                row.extend((replica.num_requests_running, replica.num_requests_waiting, replica.kv_cache_usage))
            self._rows.append(row)
            if len(self._rows) > self._limit:
                self._rows = self._rows[::2]
                self._interval_s *= 2
            yield env.timeout(self._interval_s)

    def timeline(self) -> Timeline:
        """The samples so far."""
        table = np.array(self._rows, dtype=np.float64).reshape(len(self._rows), 1 + 3 * len(self._replicas))
        running, waiting, usage = (table[:, 1 + k :: 3] for k in range(3))
        return Timeline(
            table[:, 0].copy(), running.astype(np.int32), waiting.astype(np.int32), usage.astype(np.float32)
        )
