"""Who pays for what and who gets how much: shares of the bill, and fairness between tenants.

Imports numpy and, of results, latency, run and extrapolation's StepTimes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from simroute.results.extrapolation import StepTimes
from simroute.results.latency import Latencies, generated_tokens
from simroute.results.run import FleetRun, Status

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MOST_TENANTS = 50
"""Tenants that get a row of their own: those with the most requests."""


def cost_shares(run: FleetRun, step_times: Mapping[str, StepTimes]) -> Floats:
    """Each request's share of the bill, shape (requests,); they add up to 1 unless nothing was completed or paid for.

    A replica's price is split over the requests that it completed in proportion to their work: prompt tokens that were
    not cached plus output tokens, an output token weighing its pool's `output_token_weight`. The price of replicas
    that completed nothing is carried by all others in proportion to theirs.
    """
    shares = np.zeros(len(run.trace))
    completed = np.flatnonzero((run.status == Status.COMPLETED) & (run.replica >= 0))
    by = run.replica[completed]
    pools = [totals.pool for totals in run.replicas]
    weight = np.array([step_times[pool].output_token_weight if pool in step_times else 1.0 for pool in pools])
    computed = run.trace.input_tokens[completed] - run.cached_tokens[completed]
    work = computed + weight[by] * generated_tokens(run)[completed]
    done = np.bincount(by, weights=work, minlength=len(pools))
    usd = np.array([totals.usd for totals in run.replicas]) * (done > 0)
    if usd.sum() > 0:
        shares[completed] = usd[by] / usd.sum() * work / done[by]
    return shares


def jain(values: Floats) -> float:
    """Jain's fairness index (Jain, Chiu and Hawe 1984): (Σx)² / (n Σx²).

    1 when all are equal, 1/n when one has everything; NaN for no values, and when all are 0.
    """
    squares = len(values) * float(np.square(values).sum())
    return float(values.sum()) ** 2 / squares if squares > 0 else math.nan


def fairness(run: FleetRun, times: Latencies, met: Bools, arrived: Bools) -> dict[str, float]:
    """How evenly tenants are served: their number, and Jain's index of two things that each of them gets.

    `goodput`: the share of a tenant's requests within their targets, that is goodput relative to demand.
    `e2e_per_token`: the mean end-to-end latency of a tenant's completed requests divided by their output tokens.
    """
    tenant, tenants = run.trace.tenant_code, len(run.trace.tenant_names)
    demand = np.bincount(tenant[arrived], minlength=tenants)
    served = np.bincount(tenant[arrived & met], minlength=tenants)
    completed = run.status == Status.COMPLETED
    e2e_s_per_token = times.e2e_s[completed] / generated_tokens(run)[completed]
    answers = np.bincount(tenant[completed], minlength=tenants)
    waited_s = np.bincount(tenant[completed], weights=e2e_s_per_token, minlength=tenants)
    asked, answered = demand > 0, answers > 0
    return {
        "tenants": int(asked.sum()),
        "goodput": jain(served[asked] / demand[asked]),
        "e2e_per_token": jain(waited_s[answered] / answers[answered]),
    }


def busiest_tenants(run: FleetRun, arrived: Bools) -> list[str]:
    """The tenants that sent anything, in the trace's order: at most `MOST_TENANTS`, those with the most requests."""
    demand = np.bincount(run.trace.tenant_code[arrived], minlength=len(run.trace.tenant_names))
    first = np.argsort(-demand, kind="stable")[:MOST_TENANTS]
    return [run.trace.tenant_names[code] for code in np.sort(first) if demand[code]]
