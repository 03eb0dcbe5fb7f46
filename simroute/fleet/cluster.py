"""A router in front of pools of replicas, replaying a trace on SimPy's clock. Owns `simulate`.

`Cluster` puts the parts together, on a `Site` that they share. Requests come from `clients`, go through `direct` (a
fleet that never changes) or `gateway` (one that lives) to the replicas in their places (`slot`), which `lifecycle`
changes.
May import fleet's other files, engine, policy, results, workload, errors, rng and simpy.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import simpy

from simroute import rng
from simroute.engine.kv_index import KvIndex
from simroute.engine.replica import Replica
from simroute.engine.sequence import EngineRequest
from simroute.errors import UsageError
from simroute.fleet.arrivals import check_block_size
from simroute.fleet.autoscale import keep_scaling
from simroute.fleet.clients import OpenLoop, Sessions, Users
from simroute.fleet.direct import Direct
from simroute.fleet.external import ExternalReplica
from simroute.fleet.failures import keep_failing
from simroute.fleet.gateway import Gateway
from simroute.fleet.options import FleetOptions
from simroute.fleet.pool import Pool
from simroute.fleet.recorder import BUFFERED_GAPS
from simroute.fleet.scrape import scrape
from simroute.fleet.site import Site
from simroute.fleet.slot import Slot
from simroute.fleet.standstill import Standstill
from simroute.fleet.timeline import TimelineSampler
from simroute.policy.context import Membership
from simroute.policy.snapshot import RoutingPolicy
from simroute.results.run import FleetRun, ReplicaTotals
from simroute.workload.trace import Trace

LOOKS = 1000
"""How often, while the trace arrives, progress is reported and `stop` is asked."""

Events = Generator[simpy.Event, None, None]


def simulate(
    trace: Trace,
    pools: Sequence[Pool],
    policy: RoutingPolicy,
    *,
    policy_name: str,
    seed: int,
    members: Membership | None = None,
    options: FleetOptions | None = None,
    exact: bool = False,
    horizon_s: float | None = None,
    samples: int = 1000,
    progress: Callable[[float], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> FleetRun:
    """Replay `trace` through `pools` under `policy` until the last request ends (or `horizon_s`).

    It also ends, without a horizon, when all that is left is held at the router and nobody will ever take it.

    `members` is what the policy knows of which replicas are up (left out: they always are); `options` how the fleet
    lives (left out: nothing changes, and the router always knows all metrics). `exact` runs the engines step by step:
    the same times, slower. About `samples` points of the timeline are kept. `progress` is called with the fraction of
    arrivals seen; when `stop` returns true the run ends early, marked interrupted.
    Raises UsageError for an empty fleet or block sizes that do not fit the trace, SimulationError when a request can
    never be admitted or the policy fails.
    """
    if not pools:
        raise UsageError("the fleet has no pools: give at least one")
    for pool in pools:
        if pool.engine.enable_prefix_caching and pool.external is None:
            check_block_size(trace, pool.engine.block_size)
    members = members or Membership(True for pool in pools for _ in range(pool.places))
    cluster = Cluster(trace, pools, policy, policy_name, seed, members, options or FleetOptions(), exact, samples)
    cluster.watch(progress, stop)
    cluster.run(horizon_s)
    return cluster.result(policy_name, horizon_s)


class Cluster:
    """One simulation: a site with a router, clients and whatever goes wrong there, from its beginning to its end."""

    def __init__(
        self,
        trace: Trace,
        pools: Sequence[Pool],
        policy: RoutingPolicy,
        policy_name: str,
        seed: int,
        members: Membership,
        options: FleetOptions,
        exact: bool,
        samples: int,
    ) -> None:
        site = Site(
            trace,
            pools,
            policy_name,
            seed,
            members,
            options,
            exact=exact,
            boot=self._boot,
            lost=self._lost,
            over=self.see_whether_over,
        )
        self.trace = trace
        self.seed = seed
        self.options = options
        self.env = env = site.env
        self.recorder = site.recorder
        self.slots = site.slots
        self.life = site.life
        self.interrupted = False
        self.over = env.event()
        self._endless = False  # nothing but the last request ends it
        self._exact = exact
        self._kv_events = getattr(policy, "reads_kv_events", False)
        living = not options.plain or any(pool.external or pool.places > pool.replicas for pool in pools)
        counting = getattr(policy, "counts_tokens", False) or hasattr(policy, "review")
        self.gateway = Gateway(site, policy) if living or counting else None
        self.front = self.gateway or Direct(site, policy)
        counts = self.gateway.counts if self.gateway is not None else None
        self.sampler = TimelineSampler(env, self.slots, trace.arrival_s, samples, counts)
        if self.gateway is not None:
            keep_failing(site, self.gateway)
            for name, scaling in options.scaling.items():
                keep_scaling(site, self.gateway, name, scaling)
        self.life.begin()
        self.source = self._source(site)
        scrape(env, site.snapshots, options.signals, rng.stream(seed, "scrape"))

    def _source(self, site: Site) -> OpenLoop | Users | Sessions:
        env, requests, take = self.env, iter(site.arrivals), self.front.take
        clients = self.options.clients
        if self.gateway is None or not clients.closed:
            return OpenLoop(env, requests, take, self.see_whether_over)
        make = Users if clients.users is not None else Sessions
        sent_s = self.recorder.keep_arrivals()
        source = make(env, requests, take, self.see_whether_over, sent_s, clients, self.seed)
        self.gateway.ended = source.ended
        return source

    def _boot(self, slot: Slot) -> Replica | ExternalReplica:
        """A fresh replica for a place."""
        pool = slot.pool
        if pool.external is not None:
            return ExternalReplica(self.env, pool.external, self.front, lambda i: rng.stream(self.seed, "external", i))
        replica = Replica(self.env, pool.engine, pool.step_time, self.front, exact=self._exact)
        if self._kv_events and pool.engine.enable_prefix_caching:
            self._publish(slot, replica)
        return replica

    def _publish(self, slot: Slot, replica: Replica) -> None:
        """Keep an index of what `replica` caches beside the router, by its KV events."""
        env, delay_s = self.env, self.options.router.kv_event_delay_s
        index = KvIndex(slot.pool.engine.block_size, self.trace.prefix_block_tokens, delay_s)
        replica.publish_kv_events(index)
        slot.index = index
        slot.snapshot.hits = lambda request: index.hit_tokens(request, env.now)

    def _lost(self, slot: Slot, requests: list[EngineRequest], reason: str) -> None:
        if requests:
            assert self.gateway is not None
            self.gateway.lost(slot, requests, reason)

    def see_whether_over(self) -> None:
        """The run ends when nothing is under way and nothing will come."""
        if not self.front.outstanding and self.source.done and not self.over.triggered:
            self.over.succeed()

    def run(self, horizon_s: float | None) -> None:
        """Run to the end."""
        env = self.env
        self._endless = horizon_s is None
        if horizon_s is not None:
            deadline = env.timeout(max(horizon_s, 0.0))
            env.run_to(self.over | deadline)
        else:
            env.run_to(self.over)

    def watch(self, progress: Callable[[float], None] | None, stop: Callable[[], bool] | None) -> None:
        """From time to time: flush, report progress, and see whether to stop."""
        self.env.process(self._watch(progress, stop))

    def _watch(self, progress: Callable[[float], None] | None, stop: Callable[[], bool] | None) -> Events:
        """Less often the longer it lasts."""
        interval_s = max(float(self.trace.arrival_s[-1]) / LOOKS, 1e-3) if len(self.trace) else 1.0
        standstill = None
        if self.gateway is not None:
            changing = bool(self.options.scaling or self.options.failures)
            standstill = Standstill(self.gateway, self.slots, changing=changing)
        while True:
            for _ in range(LOOKS):
                self.recorder.flush(BUFFERED_GAPS)
                if progress is not None and not self.source.done:
                    progress(self.source.sent / len(self.trace))
                self.interrupted = stop is not None and stop()
                if self.interrupted or self._in_vain(standstill):
                    if not self.over.triggered:
                        self.over.succeed()
                    return
                yield self.env.timeout(interval_s)
            interval_s *= 2

    def _in_vain(self, standstill: Standstill | None) -> bool:
        """Whether the last requests will never end, and no horizon will cut them off."""
        return self._endless and self.source.still and standstill is not None and standstill.reached(self.env.now)

    def result(self, policy_name: str, horizon_s: float | None) -> FleetRun:
        """Everything recorded, as arrays."""
        recorder, end_s = self.recorder, float(self.env.now)
        totals = [self._totals(slot, end_s) for slot in self.slots]
        recorder.flush()
        return FleetRun(
            trace=self.trace,
            policy=policy_name,
            seed=self.seed,
            **recorder.columns(end_s, [slot.pool for slot in self.slots]),
            itl=recorder.itl,
            timeline=self.sampler.timeline(),
            replicas=totals,
            end_s=end_s,
            horizon_s=horizon_s,
            interrupted=self.interrupted,
            events=tuple(self.life.events) if self.gateway is not None else (),
        )

    def _totals(self, slot: Slot, end_s: float) -> ReplicaTotals:
        """The sums of a place, with what is unfinished there put on record."""
        replica = slot.replica
        if replica is not None:
            replica.settle()
        if isinstance(replica, Replica):
            scheduler = replica.scheduler
            for request in (*scheduler.running, *scheduler.waiting):
                self.recorder.history(request, int(self.trace.input_tokens[request.index]))
                if request not in scheduler.running and not request.preemptions:
                    self.recorder.never_admitted(request)
        slot.bank()
        caching = slot.pool.engine.enable_prefix_caching and slot.pool.external is None
        return slot.totals(end_s, self.recorder.prefix_tokens(slot.number) if caching else (0, 0))
