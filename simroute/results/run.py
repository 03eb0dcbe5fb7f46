"""What one simulation of one policy leaves behind, as arrays. Imports only workload and `results.itl`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from simroute.results.itl import ItlHistogram
from simroute.workload.trace import Trace


class Status(IntEnum):
    """How a request ended."""

    UNFINISHED = 0
    COMPLETED = 1
    REJECTED = 2


@dataclass(slots=True)
class Timeline:
    """Samples of every replica at regular times: `t_s` (m,), the others (m, replicas)."""

    t_s: NDArray[np.float64]
    running: NDArray[np.int32]
    waiting: NDArray[np.int32]
    kv_usage: NDArray[np.float32]


@dataclass(slots=True)
class ReplicaTotals:
    """One replica's sums over the run.

    `steps` and the token counts cover all that was scheduled up to the run's `end_s`, a step still in execution
    included; `busy_s`, the time in which the engine had a step in execution, only what had passed by then.
    """

    replica: int
    pool: str
    gpu: str
    gpus: int
    usd_per_hour: float
    estimated: bool
    num_gpu_blocks: int
    busy_s: float
    steps: int
    prefill_tokens: int
    output_tokens: int
    preemptions: int
    prefix_queried_tokens: int
    prefix_hit_tokens: int


@dataclass(slots=True)
class FleetRun:
    """One policy's replay of one trace; row i of every array is request i of `trace`.

    `first_token_s` and `finish_s` are absolute simulated seconds (NaN when never reached), `status` holds `Status`,
    `replica` is -1 for what was rejected before routing, `reject_code` indexes `reject_reasons` (-1 for none).
    `end_s` is the clock at the end; `interrupted` says that the run was cut off by hand.
    `generated_tokens` is what each request was given, or would have been, where the engine clips answers
    (None: exactly the trace's `output_tokens`).
    """

    trace: Trace
    policy: str
    seed: int
    first_token_s: NDArray[np.float64]
    finish_s: NDArray[np.float64]
    status: NDArray[np.int8]
    replica: NDArray[np.int32]
    preemptions: NDArray[np.int32]
    cached_tokens: NDArray[np.int64]
    reject_code: NDArray[np.int8]
    reject_reasons: tuple[str, ...]
    itl: ItlHistogram
    timeline: Timeline
    replicas: list[ReplicaTotals]
    end_s: float
    horizon_s: float | None
    interrupted: bool
    generated_tokens: NDArray[np.int64] | None = None
