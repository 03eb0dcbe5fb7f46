"""Fleets that live, described in one call, and what must hold of every one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from fleet.fleets import GPU_LIKE, make_pool, synthetic

from simroute.engine.replica import Replica
from simroute.fleet.cluster import Cluster
from simroute.fleet.options import FleetOptions
from simroute.fleet.pool import Pool, Startup
from simroute.policy.context import Membership, PolicyContext
from simroute.policy.routing import make_policy
from simroute.results.run import FleetRun, Status
from simroute.workload.trace import Trace

COLD = Startup(node_s=5.0, image_s=3.0, weights_s=2.0, engine_s=1.0)
"""Eleven seconds from order to ready, three from crash to ready."""


def a_pool(replicas: int = 2, places: int = 0, step_time: Any = GPU_LIKE, **engine: Any) -> Pool:
    """A pool that can grow to `places`, in two zones in turn."""
    pool = make_pool(replicas or 1, step_time, **{"num_gpu_blocks": 400, "max_num_seqs": 8} | engine)
    return replace(pool, replicas=replicas, places=places or replicas, startup=COLD, zones=("east", "west"))


def live(
    trace: Trace,
    pools: Sequence[Pool],
    options: FleetOptions,
    *,
    policy: str = "least_requests",
    policy_options: Mapping[str, Any] | None = None,
    seed: int = 0,
    horizon_s: float | None = None,
    exact: bool = False,
) -> FleetRun:
    """Simulate, with all that must hold checked."""
    members = Membership(place < pool.replicas for pool in pools for place in range(pool.places))
    pool_of = [number for number, pool in enumerate(pools) for _ in range(pool.places)]

    def make() -> Any:
        variants = [pool.variant for pool in pools]
        context = PolicyContext(variants, pool_of, np.random.default_rng(seed), members=members)
        return make_policy(policy, policy_options or {}, context)

    options = replace(options, remake=make)
    cluster = Cluster(trace, pools, make(), policy, seed, members, options, exact, 100)
    cluster.watch(None, None)
    cluster.run(horizon_s)
    run = cluster.result(policy, horizon_s)
    check_living(run)
    assert horizon_s is not None or not (run.status == Status.UNFINISHED).any()
    if not (run.status == Status.UNFINISHED).any():
        check_balance(cluster)
    return run


def check_living(run: FleetRun) -> None:
    """Requests are conserved, causes come before effects, and the bill is the integral of what was provisioned."""
    assert sum(int((run.status == status).sum()) for status in Status) == len(run.trace)
    done = run.status == Status.COMPLETED
    assert (done == ~np.isnan(run.finish_s)).all()
    assert (run.first_token_s[done] >= run.arrival_s[done]).all()
    assert (run.finish_s[done] >= run.first_token_s[done]).all()
    silent = np.isin(run.status, (Status.REJECTED, Status.FAILED, Status.CANCELLED))
    assert np.isnan(run.first_token_s[silent]).all()
    assert (silent == (run.reason_code >= 0)).all()
    if run.attempts is not None:
        assert run.left_s is not None
        assert (silent == ~np.isnan(run.left_s)).all()
        assert (run.attempts[done] >= 1).all()
    for totals in run.replicas:
        assert totals.billed_s == np.float64(provisioned_s(run, totals.replica)), f"bill of place {totals.replica}"
        assert totals.ready_s <= totals.billed_s * (1 + 1e-9) + 1e-9 or not totals.gpus
        assert totals.busy_s <= totals.ready_s * (1 + 1e-9) + 1e-9 or not totals.gpus


def provisioned_s(run: FleetRun, place: int) -> float:
    """Seconds for which a place was paid, by the log of events alone."""
    if run.attempts is None:  # a fleet that never changes
        return run.end_s
    total_s, since_s = 0.0, None
    for event in run.events:
        if event.replica != place:
            continue
        if event.what in ("order", "ready") and since_s is None:
            since_s = event.at_s
        elif event.what in ("stop", "lost") and since_s is not None:
            total_s += event.at_s - since_s
            since_s = None
    return total_s + (run.end_s - since_s if since_s is not None else 0.0)


def check_balance(cluster: Cluster) -> None:
    """When every request has ended nobody holds anything: no KV block, no count.

    Requests whose clients left last leave their engine at its next schedule point: the clock goes on until then.
    """
    cluster.env.run(until=cluster.env.now + 60.0)
    for slot in cluster.slots:
        seen = slot.snapshot
        assert (seen.in_flight, seen.in_flight_tokens, seen.queued_tokens) == (0, 0, 0)
        if isinstance(slot.replica, Replica):
            slot.replica.settle()
            assert not slot.replica.scheduler.running
            assert not slot.replica.scheduler.waiting
            assert slot.replica.scheduler.used_blocks == 0


def some(requests: int, rate: float, seed: int = 0, sessions: int = 0) -> Trace:
    """Poisson arrivals of about 60 tokens in and 40 out; of so many sessions in turn, if any."""
    trace = synthetic(requests, rate, 60, 40, seed)
    return replace(trace, session=np.arange(requests) % sessions) if sessions else trace
