"""What a policy may know: the variants on offer and one snapshot a replica. May import only workload."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from simroute.workload.request import Request


@dataclass(frozen=True, slots=True)
class VariantInfo:
    """One pool's variant of a model, as the capability matrix describes it.

    `usd_per_hour` is one replica's price (all its GPUs); `usd_per_1m_tokens` its cost of output tokens when busy,
    the measure of efficiency; `quality` maps a request class to (mean, low, high), each in 0..1.
    """

    pool: str
    model: str
    quantization: str
    gpu: str
    tensor_parallel: int
    usd_per_hour: float
    usd_per_1m_tokens: float
    max_num_seqs: int
    quality: Mapping[str, tuple[float, float, float]]


class Snapshot(Protocol):
    """One replica as the router sees it now: scraped vLLM metrics may be stale, `in_flight` never is.

    The sequence of snapshots is indexed by replica number over the whole fleet.
    """

    @property
    def replica(self) -> int:
        """Its number in the fleet, which is also its place in the sequence."""

    @property
    def variant(self) -> VariantInfo:
        """What runs there."""

    @property
    def in_flight(self) -> int:
        """Requests this router has sent there and not seen finished (known exactly, by the router itself)."""

    @property
    def num_requests_running(self) -> int:
        """`vllm:num_requests_running` at the last scrape."""

    @property
    def num_requests_waiting(self) -> int:
        """`vllm:num_requests_waiting` at the last scrape."""

    @property
    def kv_cache_usage(self) -> float:
        """`vllm:kv_cache_usage_perc` at the last scrape, 0..1."""


class Decision(NamedTuple):
    """Send to `replica`, or reject (`replica` -1) with a `reason`."""

    replica: int
    reason: str = ""


class RoutingPolicy(Protocol):
    """Chooses a replica for a request: no clock, no I/O, so the same object serves simulator and live router."""

    def choose(self, request: Request, snapshots: Sequence[Snapshot]) -> Decision:
        """Where `request` goes, given one snapshot a replica (all of the fleet, by number)."""
