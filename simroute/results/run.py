"""What one simulation of one policy leaves behind, as arrays. Imports only units, workload and `results.itl`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simroute.results.itl import ItlHistogram
from simroute.units import SECONDS_PER_HOUR
from simroute.workload.trace import Trace


class Status(IntEnum):
    """How a request ended.

    REJECTED: nobody would take it. FAILED: it was taken, and lost with a replica or router. CANCELLED: its client left.
    """

    UNFINISHED = 0
    COMPLETED = 1
    REJECTED = 2
    FAILED = 3
    CANCELLED = 4


class FleetEvent(NamedTuple):
    """What happened to a place of the fleet: `order` (it is paid from now on), `ready`, `drain`, `stop`, `crash`,
    `lost` (with its machine), `notice` (of being preempted), `slow`, `normal`; `router` (place -1) for the router.
    """

    at_s: float
    replica: int
    what: str


@dataclass(slots=True)
class Timeline:
    """Samples of every replica at regular times: `t_s` (m,), the others (m, replicas).

    `busy_s` (m, replicas): the seconds in which a step was executing, up to then (None: not kept).
    Of a fleet that changes also: `ready` (m, replicas), which of them took requests; `held` (m,), requests in the
    gateway's queue; `attempts` (m,), requests sent so far, retries included. None where nothing changes.
    """

    t_s: NDArray[np.float64]
    running: NDArray[np.int32]
    waiting: NDArray[np.int32]
    kv_usage: NDArray[np.float32]
    ready: NDArray[np.bool_] | None = None
    held: NDArray[np.int32] | None = None
    attempts: NDArray[np.int64] | None = None
    busy_s: NDArray[np.float64] | None = None


@dataclass(slots=True)
class ReplicaTotals:
    """The sums over the run of one replica, or of all that followed each other in one place of the fleet.

    `billed_s` is how long its GPUs were paid for, `ready_s` how long it took requests; `starts` counts replicas, and
    `crashes` those that were lost. `token_usd` is what somebody else's endpoint charged for tokens.
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
    billed_s: float
    ready_s: float
    starts: int = 1
    crashes: int = 0
    token_usd: float = 0.0

    @property
    def usd(self) -> float:
        """What it cost over the run."""
        return self.usd_per_hour * self.billed_s / SECONDS_PER_HOUR + self.token_usd


@dataclass(slots=True)
class FleetRun:
    """One policy's replay of one trace; row i of every array is request i of `trace`.

    `first_token_s` and `finish_s` are absolute simulated seconds (NaN when never reached), `status` holds `Status`,
    `replica` is -1 for what was rejected before routing, `reason_code` indexes `reasons` (-1 for none): why a request
    was rejected, failed or was cancelled.
    `end_s` is the clock at the end; `interrupted` says that the run was cut off by hand.
    `generated_tokens` is what each request was given, or would have been, where the engine clips answers
    (None: exactly the trace's `output_tokens`).

    Where clients and fleet have a life of their own: `sent_s` is when each request first arrived (inf: never), if not
    when the trace says; `left_s` when those ended that got no answer; `tries` how often the client of each asked,
    `attempts` how often it was sent to a replica; `events` what happened to the fleet, in order.
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
    reason_code: NDArray[np.int32]
    reasons: tuple[str, ...]
    itl: ItlHistogram
    timeline: Timeline
    replicas: list[ReplicaTotals]
    end_s: float
    horizon_s: float | None
    interrupted: bool
    generated_tokens: NDArray[np.int64] | None = None
    sent_s: NDArray[np.float64] | None = None
    left_s: NDArray[np.float64] | None = None
    tries: NDArray[np.int32] | None = None
    attempts: NDArray[np.int32] | None = None
    events: tuple[FleetEvent, ...] = ()

    @property
    def arrival_s(self) -> NDArray[np.float64]:
        """When each request arrived, shape (requests,); in order unless clients wait for each other's answers."""
        return self.trace.arrival_s if self.sent_s is None else self.sent_s

    @property
    def times_asked(self) -> NDArray[np.int32]:
        """How often the client of each request asked, shape (requests,); once in a fleet that never changes."""
        return (self.arrival_s <= self.end_s).astype(np.int32) if self.tries is None else self.tries

    @property
    def times_sent(self) -> NDArray[np.int32]:
        """How often each request was sent to a replica, shape (requests,); in such a fleet once unless refused."""
        return self.times_asked * (self.status != Status.REJECTED) if self.attempts is None else self.attempts
