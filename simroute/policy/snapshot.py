"""What a policy may know: the variants on offer and one snapshot a replica. May import only workload.

Owns the seams `RoutingPolicy`, `Reviewer` (a policy that looks at answers) and `Speed`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from simroute.workload.request import Request


class Speed(Protocol):
    """How long steps of a variant take, as far as a router may know: what predictions of latency rest on."""

    def prefill_s(self, tokens: int) -> float:
        """Seconds to compute `tokens` prompt tokens on a replica that does nothing else."""

    def decode_s(self, seqs: int, context_tokens: int) -> float:
        """Seconds of a step in which `seqs` requests with `context_tokens` of context in all decode a token each."""


@dataclass(frozen=True, slots=True)
class VariantInfo:
    """One pool's variant of a model, as the capability matrix describes it.

    `usd_per_hour` is one replica's price (all its GPUs); `usd_per_1m_tokens` its cost of output tokens when busy,
    the measure of efficiency; `quality` maps a request class to (mean, low, high), each in 0..1.
    `kv_tokens` is what a replica's KV cache holds, `max_num_batched_tokens` its budget of a step; `speed` predicts
    its steps (None where nothing is known). `external` marks somebody else's endpoint, paid by the token.
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
    max_num_batched_tokens: int = 8192
    kv_tokens: int = 0
    speed: Speed | None = None
    external: bool = False


class Snapshot(Protocol):
    """One replica as the router sees it now: scraped vLLM metrics may be stale, what the router counts never is.

    The sequence of snapshots is indexed by replica number over the whole fleet, replicas that take no requests now
    included: `PolicyContext.members` knows which do.
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
    def in_flight_tokens(self) -> int:
        """Prompt tokens of the requests in flight there."""

    @property
    def queued_tokens(self) -> int:
        """Prompt tokens of those in flight that have not answered their first token yet."""

    @property
    def num_requests_running(self) -> int:
        """`vllm:num_requests_running` at the last scrape."""

    @property
    def num_requests_waiting(self) -> int:
        """`vllm:num_requests_waiting` at the last scrape."""

    @property
    def kv_cache_usage(self) -> float:
        """`vllm:kv_cache_usage_perc` at the last scrape, 0..1."""

    def prefix_hit_tokens(self, request: Request) -> int:
        """Leading prompt tokens of `request` in the replica's KV cache, by the KV events that have come in."""


class Decision(NamedTuple):
    """Send to `replica`, or reject (`replica` -1) with a `reason`."""

    replica: int
    reason: str = ""


class RoutingPolicy(Protocol):
    """Chooses a replica for a request: no clock, no I/O, so the same object serves simulator and live router.

    The time is `request.arrival_s`: when this attempt of the request reached the router.
    """

    def choose(self, request: Request, snapshots: Sequence[Snapshot]) -> Decision:
        """Where `request` goes, given one snapshot a replica (all of the fleet, by number)."""


@runtime_checkable
class Reviewer(Protocol):
    """A routing policy that looks at each whole answer before the client gets any of it."""

    def review(self, request: Request, replica: int, snapshots: Sequence[Snapshot]) -> Decision | None:
        """`replica` has answered: None to pass the answer on, or where to ask again for a better one."""
