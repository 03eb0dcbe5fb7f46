"""Small runs built by hand: what a simulation would leave behind, without a simulation."""

import math

import numpy as np

from simroute.results.itl import ItlHistogram
from simroute.results.run import FleetRun, ReplicaTotals, Status, Timeline
from simroute.workload.trace import Trace


def make_trace(arrival_s, output_tokens=None, classes=None, tiers=None, tenants=None):
    """A trace of 100-token prompts; `classes`, `tiers` and `tenants` name each request's (default: all `default`)."""
    n = len(arrival_s)
    class_names, class_code = _coded(classes or ["default"] * n)
    tier_names, tier_code = _coded(tiers or ["default"] * n)
    tenant_names, tenant_code = _coded(tenants or ["default"] * n)
    zeros = np.zeros(n, dtype=np.int64)
    return Trace(
        arrival_s=np.asarray(arrival_s, dtype=np.float64),
        input_tokens=np.full(n, 100, dtype=np.int64),
        output_tokens=np.asarray(output_tokens if output_tokens is not None else [11] * n, dtype=np.int64),
        class_code=class_code,
        tenant_code=tenant_code,
        tier_code=tier_code,
        priority=zeros,
        session=zeros - 1,
        class_names=class_names,
        tenant_names=tenant_names,
        tier_names=tier_names,
        prefix_offsets=np.zeros(n + 1, dtype=np.int64),
        prefix_ids=np.zeros(0, dtype=np.int64),
        prefix_block_tokens=0,
    )


def make_replica(replica=0, pool="h100", **changes):
    totals = {
        "gpu": "H100",
        "gpus": 1,
        "usd_per_hour": 2.0,
        "estimated": False,
        "num_gpu_blocks": 1000,
        "busy_s": 5.0,
        "steps": 10,
        "prefill_tokens": 100,
        "output_tokens": 40,
        "preemptions": 0,
        "prefix_queried_tokens": 0,
        "prefix_hit_tokens": 0,
        "billed_s": math.nan,  # (make_run: the whole run)
        "ready_s": math.nan,
    }
    return ReplicaTotals(replica=replica, pool=pool, **(totals | changes))


def make_run(trace, ttft_s, e2e_s, *, policy="round_robin", end_s=None, replicas=None, replica=None, **changes):
    """A run in which request i takes `ttft_s[i]` and `e2e_s[i]`; a NaN in `e2e_s` leaves it unfinished."""
    n = len(trace)
    first_token_s = trace.arrival_s + np.asarray(ttft_s, dtype=np.float64)
    finish_s = trace.arrival_s + np.asarray(e2e_s, dtype=np.float64)
    replicas = replicas or [make_replica()]
    itl = ItlHistogram()
    itl.add(np.array([0.02]), np.array([0.02]), np.array([10]), np.array([n]))
    samples = np.zeros((4, len(replicas)))
    run = FleetRun(
        trace=trace,
        policy=policy,
        seed=1,
        first_token_s=first_token_s,
        finish_s=finish_s,
        status=np.where(np.isnan(finish_s), Status.UNFINISHED, Status.COMPLETED).astype(np.int8),
        replica=np.asarray(replica if replica is not None else [0] * n, dtype=np.int32),
        preemptions=np.zeros(n, dtype=np.int32),
        cached_tokens=np.zeros(n, dtype=np.int64),
        reason_code=np.full(n, -1, dtype=np.int32),
        reasons=("too_long", "no_variant"),
        itl=itl,
        timeline=Timeline(
            np.arange(4.0), samples.astype(np.int32), samples.astype(np.int32), samples.astype(np.float32)
        ),
        replicas=replicas,
        end_s=float(np.nanmax(finish_s)) if end_s is None else end_s,
        horizon_s=None,
        interrupted=False,
    )
    for name, value in changes.items():
        setattr(run, name, value)
    for totals in run.replicas:
        if math.isnan(totals.billed_s):
            totals.billed_s = totals.ready_s = run.end_s
    return run


def reject(run, request, reason_code=0):
    """Turn one request of `run` into a rejected one."""
    run.status[request] = Status.REJECTED
    run.reason_code[request] = reason_code
    run.replica[request] = -1
    run.first_token_s[request] = run.finish_s[request] = math.nan


def fifo_run(arrival_s, service_s, **changes):
    """First come, first served by one server: Lindley's recursion, the first token at the end of service."""
    finish_s = np.empty(len(arrival_s))
    free_s = 0.0
    for i, (arrived_s, needed_s) in enumerate(zip(arrival_s, service_s, strict=True)):
        free_s = finish_s[i] = max(free_s, arrived_s) + needed_s
    taken_s = finish_s - arrival_s
    return make_run(make_trace(arrival_s), taken_s, taken_s, **changes)


def _coded(labels):
    names = tuple(dict.fromkeys(labels))
    return names, np.array([names.index(label) for label in labels], dtype=np.int64)
