"""A place in the fleet, where one replica runs at a time. Owns `Slot` and `State`.

May import engine, fleet's other files and results.
"""

from __future__ import annotations

from enum import IntEnum

from simroute.engine.kv_index import KvIndex
from simroute.engine.replica import Replica
from simroute.fleet.external import ExternalReplica
from simroute.fleet.pool import Pool
from simroute.fleet.scrape import ScrapedReplica
from simroute.results.run import ReplicaTotals

SUMS = ("busy_s", "steps", "prefill_tokens", "output_tokens")


class State(IntEnum):
    """What a place is doing: nothing, bringing a replica up, serving, or finishing what it has."""

    DOWN = 0
    STARTING = 1
    READY = 2
    DRAINING = 3


class Slot:
    """A place of `pool`, number `number` of the fleet and `ordinal` of the pool.

    `life` counts the replicas that it had, so that an event meant for one of them does not hit the next. `held` counts
    the outages for which none may be started now, `due` says that one is to be started when there is none. Sums run
    over all of them. `index` is what the router knows of its cache by KV events, if it keeps that.
    """

    __slots__ = (
        "_ready_since_s",
        "_since_s",
        "billed_s",
        "crashes",
        "due",
        "held",
        "index",
        "life",
        "number",
        "ordinal",
        "pool",
        "preemptions",
        "ready_s",
        "replica",
        "snapshot",
        "starts",
        "state",
        "sums",
        "usd",
        "zone",
    )

    def __init__(self, number: int, ordinal: int, pool: Pool, snapshot: ScrapedReplica) -> None:
        self.number = number
        self.ordinal = ordinal
        self.pool = pool
        self.snapshot = snapshot
        self.zone = pool.zones[ordinal % len(pool.zones)]
        self.replica: Replica | ExternalReplica | None = None
        self.state = State.DOWN
        self.held = 0
        self.due = False
        self.index: KvIndex | None = None
        self.life = 0
        self.starts = 0
        self.crashes = 0
        self.billed_s = 0.0
        self.ready_s = 0.0
        self.usd = 0.0
        self.preemptions = 0
        self.sums = dict.fromkeys(SUMS, 0.0)
        self._since_s: float | None = None
        self._ready_since_s: float | None = None

    # -- the bill -----------------------------------------------------------------------------------------------------

    def rent(self, now: float) -> None:
        """Its GPUs are paid from now on (if they were not)."""
        if self._since_s is None:
            self._since_s = now

    def give_back(self, now: float) -> None:
        """Its GPUs are not paid any longer."""
        if self._since_s is not None:
            self.billed_s += now - self._since_s
            self._since_s = None

    # -- its replica --------------------------------------------------------------------------------------------------

    def put(self, replica: Replica | ExternalReplica, now: float) -> None:
        """`replica` is up here and takes requests."""
        self.replica = replica
        self.state = State.READY
        self.life += 1
        self.starts += 1
        self.snapshot.attach(replica)
        self._ready_since_s = now

    def remove(self, state: State, now: float) -> None:
        """The replica is gone (its own sums are kept), and the place is in `state`."""
        self.bank()
        self.replica = None
        self.state = state
        self.snapshot.attach(None)
        self.snapshot.hits = self.index = None
        if self._ready_since_s is not None:
            self.ready_s += now - self._ready_since_s
            self._ready_since_s = None

    def bank(self) -> None:
        """Add up what the replica here has done; it does nothing more."""
        replica = self.replica
        if replica is None:
            return
        if isinstance(replica, ExternalReplica):
            self.usd += replica.usd
        else:
            self.preemptions += replica.scheduler.preemptions
        for name in SUMS:
            self.sums[name] += getattr(replica, name)

    @property
    def busy_s(self) -> float:
        """Seconds in which a step was executing here, up to now; to be asked before the replica here is banked."""
        return self.sums["busy_s"] + (self.replica.busy_s if self.replica else 0.0)

    def totals(self, end_s: float, prefix_tokens: tuple[int, int]) -> ReplicaTotals:
        """Its sums at the end, when the replica that is left has been banked."""
        pool = self.pool
        self.give_back(end_s)
        if self._ready_since_s is not None:
            self.ready_s += end_s - self._ready_since_s
            self._ready_since_s = None
        return ReplicaTotals(
            replica=self.number,
            pool=pool.name,
            gpu=pool.variant.gpu,
            gpus=pool.gpus_per_replica,
            usd_per_hour=pool.variant.usd_per_hour,
            estimated=pool.external is None and pool.step_time.estimated,
            num_gpu_blocks=pool.engine.num_gpu_blocks,
            busy_s=self.sums["busy_s"],
            steps=int(self.sums["steps"]),
            prefill_tokens=int(self.sums["prefill_tokens"]),
            output_tokens=int(self.sums["output_tokens"]),
            preemptions=self.preemptions,
            prefix_queried_tokens=prefix_tokens[0],
            prefix_hit_tokens=prefix_tokens[1],
            billed_s=self.billed_s,
            ready_s=self.ready_s,
            starts=self.starts,
            crashes=self.crashes,
            token_usd=self.usd,
        )
