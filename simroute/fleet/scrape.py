"""What the router knows of each replica. Owns `ScrapedReplica`; may import engine and policy."""

from __future__ import annotations

from simroute.engine.replica import Replica
from simroute.policy.snapshot import VariantInfo
from simroute.workload.request import Request


class ScrapedReplica:
    """The `Snapshot` of one replica: the router's counts always exact, the metrics as of the last `refresh` (or live).

    The counts of tokens are kept only for a policy that asks for them (`counts_tokens`).
    """

    __slots__ = (
        "_kv",
        "_live",
        "_replica",
        "_running",
        "_waiting",
        "in_flight",
        "in_flight_tokens",
        "queued_tokens",
        "replica",
        "variant",
    )

    def __init__(self, number: int, variant: VariantInfo, replica: Replica, *, live: bool) -> None:
        self.replica = number
        self.variant = variant
        self.in_flight = 0
        self.in_flight_tokens = 0
        self.queued_tokens = 0
        self._replica = replica
        self._live = live
        self._running = self._waiting = 0
        self._kv = 0.0

    def refresh(self) -> None:
        """Scrape the replica's metrics now."""
        self._running = self._replica.num_requests_running
        self._waiting = self._replica.num_requests_waiting
        self._kv = self._replica.kv_cache_usage

    @property
    def num_requests_running(self) -> int:
        """See Snapshot."""
        return self._replica.num_requests_running if self._live else self._running

    @property
    def num_requests_waiting(self) -> int:
        """See Snapshot."""
        return self._replica.num_requests_waiting if self._live else self._waiting

    @property
    def kv_cache_usage(self) -> float:
        """See Snapshot."""
        return self._replica.kv_cache_usage if self._live else self._kv

    def prefix_hit_tokens(self, request: Request) -> int:
        """See Snapshot."""
        return 0
