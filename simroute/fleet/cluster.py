"""A router in front of pools of replicas, replaying a trace on SimPy's clock. Owns `simulate`.

May import fleet's other files, engine, policy, results, workload, errors and simpy.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import simpy
from simpy.events import NORMAL

from simroute.engine.clock import Clock, StandingEvent
from simroute.engine.replica import Replica
from simroute.engine.sequence import EngineRequest
from simroute.errors import SimulationError, UsageError
from simroute.fleet.arrivals import Arrivals, check_block_size
from simroute.fleet.pool import Pool
from simroute.fleet.recorder import BUFFERED_GAPS, Recorder
from simroute.fleet.scrape import ScrapedReplica
from simroute.fleet.timeline import TimelineSampler
from simroute.policy.snapshot import RoutingPolicy
from simroute.results.run import FleetRun, ReplicaTotals
from simroute.workload.trace import Trace

LOOKS = 1000
"""How often, while the trace arrives, progress is reported and `stop` is asked."""
TOO_LONG = "prompt does not fit max_model_len"

Events = Generator[simpy.Event, None, None]


def simulate(
    trace: Trace,
    pools: Sequence[Pool],
    policy: RoutingPolicy,
    *,
    policy_name: str,
    seed: int,
    scrape_interval_s: float = 0.0,
    exact: bool = False,
    horizon_s: float | None = None,
    samples: int = 1000,
    progress: Callable[[float], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> FleetRun:
    """Replay `trace` through `pools` under `policy` until the last request ends (or `horizon_s`).

    `scrape_interval_s` is how often the router reads the replicas' metrics (0: it always knows them). `exact` runs
    the engines step by step: the same times, slower. About `samples` points of the timeline are kept. `progress` is
    called with the fraction of arrivals seen; when `stop` returns true the run ends early, marked interrupted.
    Raises UsageError for an empty fleet or block sizes that do not fit the trace, SimulationError when a request can
    never be admitted.
    """
    if not pools:
        raise UsageError("the fleet has no pools: give at least one")
    for pool in pools:
        if pool.engine.enable_prefix_caching:
            check_block_size(trace, pool.engine.block_size)
    cluster = _Cluster(trace, pools, policy, scrape_interval_s, exact, samples, progress, stop)
    end_s = cluster.run(horizon_s)
    return cluster.result(policy_name, seed, end_s, horizon_s)


class _Cluster:
    """One simulation: the clock, the replicas, what the router sees and what is recorded."""

    def __init__(
        self,
        trace: Trace,
        pools: Sequence[Pool],
        policy: RoutingPolicy,
        scrape_interval_s: float,
        exact: bool,
        samples: int,
        progress: Callable[[float], None] | None,
        stop: Callable[[], bool] | None,
    ) -> None:
        self.trace = trace
        self.env = env = Clock()
        self.choose = policy.choose
        self.recorder = Recorder(trace)
        self.replica_of = self.recorder.replica
        self.finish_s = self.recorder.finish_s
        self.first_token = self.recorder.first_token_s.__setitem__
        self.gaps = self.recorder.gaps
        self.pools = [pool for pool in pools for _ in range(pool.replicas)]  # by replica
        self.engines = [pool.engine for pool in self.pools]
        self.replicas = [Replica(env, pool.engine, pool.step_time, self, exact=exact) for pool in self.pools]
        self.snapshots = [
            ScrapedReplica(number, pool.variant, replica, live=scrape_interval_s <= 0)
            for number, (pool, replica) in enumerate(zip(self.pools, self.replicas, strict=True))
        ]
        self.doors = list(zip(self.engines, self.snapshots, self.replicas, strict=True))
        self.progress = progress
        self.stop = stop
        self.outstanding = 0
        self.arriving = True
        self.interrupted = False
        self.over = env.event()
        self.arrivals = Arrivals(trace, only_shared=not exact)
        self.sampler = TimelineSampler(env, self.replicas, trace.arrival_s, samples)
        self.requests = iter(self.arrivals)
        self.next_request = next(self.requests, None)
        self.arrival = StandingEvent(env, self._arrive)
        env.schedule(self.arrival, NORMAL)
        env.process(self._watch())
        if scrape_interval_s > 0:
            env.process(self._scrape(scrape_interval_s))

    def run(self, horizon_s: float | None) -> float:
        """Run to the end; returns the clock there."""
        env = self.env
        if horizon_s is not None:
            deadline = env.timeout(max(horizon_s, 0.0))
            env.run_to(self.over | deadline)
        else:
            env.run_to(self.over)
        return float(env.now)

    def finished(self, request: EngineRequest, at_s: float) -> None:
        """See Observer: the router learns it at once, the response having passed through it."""
        index = request.index
        self.finish_s[index] = at_s
        if request.cached_tokens or request.preemptions:
            self.recorder.history(request)
        self.snapshots[self.replica_of[index]].in_flight -= 1
        self.outstanding -= 1
        if not self.outstanding and not self.arriving:
            self._end()

    def _arrive(self, now: float) -> None:
        """The next request of the trace arrives, and all others of the same instant."""
        request = self.next_request
        while request is not None:
            if request.arrival_s > now:
                self.next_request = request
                self.env.schedule_at(self.arrival, NORMAL, request.arrival_s)
                return
            number, reason = self.choose(request, self.snapshots)
            if number < 0:
                self.recorder.rejected(request, reason)
            else:
                self._admit(request, number)
            request = next(self.requests, None)
        self.next_request = None
        self.arriving = False
        if not self.outstanding:
            self._end()

    def _admit(self, request: EngineRequest, number: int) -> None:
        """`request` goes to replica `number`."""
        try:
            engine, snapshot, replica = self.doors[number]
        except IndexError:
            raise SimulationError(f"the policy chose replica {number}, but there are {len(self.doors)}") from None
        self.replica_of[request.index] = number
        if request.input_tokens >= engine.max_model_len:  # vLLM answers HTTP 400
            self.recorder.rejected(request, TOO_LONG)
            return
        if request.prefix_ids and engine.enable_prefix_caching:
            self.arrivals.describe(request, engine.block_size)
        self.outstanding += 1
        snapshot.in_flight += 1
        replica.submit(request)

    def _end(self) -> None:
        if not self.over.triggered:
            self.over.succeed()

    def _watch(self) -> Events:
        """From time to time: flush, report, and see whether to stop; less often the longer it lasts."""
        interval_s = max(float(self.trace.arrival_s[-1]) / LOOKS, 1e-3) if len(self.trace) else 1.0
        while True:
            for _ in range(LOOKS):
                self.recorder.flush(BUFFERED_GAPS)
                if self.progress is not None and self.next_request is not None:
                    self.progress(self.next_request.index / len(self.trace))
                if self.stop is not None and self.stop():
                    self.interrupted = True
                    self._end()
                    return
                yield self.env.timeout(interval_s)
            interval_s *= 2

    def _scrape(self, interval_s: float) -> Events:
        while True:
            for snapshot in self.snapshots:
                snapshot.refresh()
            yield self.env.timeout(interval_s)

    def result(self, policy_name: str, seed: int, end_s: float, horizon_s: float | None) -> FleetRun:
        """Everything recorded, as arrays."""
        recorder = self.recorder
        totals = [self._totals(number) for number in range(len(self.replicas))]
        recorder.flush()
        return FleetRun(
            trace=self.trace,
            policy=policy_name,
            seed=seed,
            **recorder.columns(end_s, self.pools),
            reject_reasons=tuple(recorder.reject_reasons),
            itl=recorder.itl,
            timeline=self.sampler.timeline(),
            replicas=totals,
            end_s=end_s,
            horizon_s=horizon_s,
            interrupted=self.interrupted,
        )

    def _totals(self, number: int) -> ReplicaTotals:
        pool, replica = self.pools[number], self.replicas[number]
        replica.settle()
        scheduler = replica.scheduler
        for request in (*scheduler.running, *scheduler.waiting):
            self.recorder.history(request)
            if request not in scheduler.running and not request.preemptions:
                self.recorder.never_admitted(request)
        caching = pool.engine.enable_prefix_caching
        queried_tokens, hit_tokens = self.recorder.prefix_tokens(number) if caching else (0, 0)
        return ReplicaTotals(
            replica=number,
            pool=pool.name,
            gpu=pool.variant.gpu,
            gpus=pool.gpus_per_replica,
            usd_per_hour=pool.variant.usd_per_hour,
            estimated=pool.step_time.estimated,
            num_gpu_blocks=pool.engine.num_gpu_blocks,
            busy_s=replica.busy_s,
            steps=replica.steps,
            prefill_tokens=replica.prefill_tokens,
            output_tokens=replica.output_tokens,
            preemptions=scheduler.preemptions,
            prefix_queried_tokens=queried_tokens,
            prefix_hit_tokens=hit_tokens,
        )
