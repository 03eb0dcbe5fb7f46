"""Many servers where queueing theory has the answer: one queue before all of them, and the better of two at random.

A replica with one seat is a server; its service time is that of the answer, whose length is geometric, the discrete
exponential (see test_queueing, also for the tolerance).

M/M/k, one queue before k servers: an arrival waits with probability C(k, a), Erlang's formula for a = l E[S] busy
servers, and then (1 / (k m - l)) on average:

    W = C / (k m - l),   C = a^k / k! k / (k - a) / (sum of a^i / i! for i < k  +  a^k / k! k / (k - a))

Many queues, one before each of n servers at load l: sent to one at random, a share l^i of them holds i or more
requests. Sent to the shorter of two drawn at random, in the limit of many servers, a share l^(2^i - 1) does
(Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, 1996): the tail falls doubly exponentially.
"""

from __future__ import annotations

from math import factorial

import numpy as np
import pytest
from fleet.fleets import LinearStepTime, make_policy_for, make_pool
from numpy.typing import NDArray

from simroute.fleet.cluster import simulate
from simroute.fleet.options import FleetOptions
from simroute.policy.gateway_queue import GatewayQueue, GatewayQueueOptions
from simroute.results.run import FleetRun
from simroute.rng import stream
from simroute.workload.trace import Trace

STEP_S = 0.01
MEAN_TOKENS = 50
SERVICE_S = STEP_S * MEAN_TOKENS
BATCHES = 40


def served(
    servers: int, load: float, requests: int, policy: str, options: FleetOptions | None = None, *, seed: int
) -> FleetRun:
    """Poisson arrivals at `load` of so many servers, with answers of geometric length."""
    rate_per_s = load * servers / SERVICE_S
    trace = Trace.build(
        arrival_s=np.cumsum(stream(seed, "arrivals").exponential(1 / rate_per_s, requests)),
        input_tokens=4,
        output_tokens=np.minimum(stream(seed, "answers").geometric(1 / MEAN_TOKENS, requests), 1000),
    )
    engine = {"max_num_seqs": 1, "async_scheduling": False, "max_model_len": 1024, "num_gpu_blocks": 300}
    pools = [make_pool(servers, LinearStepTime(base_s=STEP_S), **engine)]
    made = make_policy_for(pools, policy, seed)
    return simulate(trace, pools, made, policy_name=policy, seed=seed, options=options, samples=200)


def erlang_c(servers: int, busy: float) -> float:
    """The probability that an arrival finds all servers busy, of which `busy` are on average."""
    last = busy**servers / factorial(servers) * servers / (servers - busy)
    return last / (sum(busy**i / factorial(i) for i in range(servers)) + last)


def assert_mean(values: NDArray[np.float64], expected: float, bias: float = 0.0) -> None:
    """The mean after a warm-up is within four standard errors (by batch means) of `expected`, and its known `bias`."""
    batches = values[len(values) // 10 :].reshape(BATCHES, -1).mean(axis=1)
    error = batches.std(ddof=1) / np.sqrt(BATCHES)
    assert error < 0.08 * expected, "too short a run to tell anything"
    assert batches.mean() == pytest.approx(expected, abs=4 * error + bias)


@pytest.mark.parametrize(("servers", "load"), [(2, 0.7), (5, 0.8), (16, 0.85)])
def test_one_queue_before_all_replicas_is_mmk(servers, load):
    """The gateway holds what finds no seat; whoever is free takes the first. The discrete service waits 1% less."""
    options = FleetOptions(queue=GatewayQueue(GatewayQueueOptions()))
    run = served(servers, load, 40_000, "least_requests", options, seed=servers)
    waited = run.first_token_s - STEP_S - run.trace.arrival_s
    waits = erlang_c(servers, load * servers)
    mean_s = waits * SERVICE_S / (servers * (1 - load))
    assert_mean((waited > 1e-9).astype(float), waits)
    assert_mean(waited, mean_s, bias=0.02 * mean_s)


def test_a_queue_before_each_replica_waits_longer_than_one_before_all():
    """The same work and the same servers: at random, in turn, where there are fewest, all from one queue."""
    queue = FleetOptions(queue=GatewayQueue(GatewayQueueOptions()))
    waits = [
        float((run.first_token_s - run.trace.arrival_s).mean())
        for run in (
            served(5, 0.8, 8_000, "least_requests", queue, seed=3),
            served(5, 0.8, 8_000, "least_requests", seed=3),
            served(5, 0.8, 8_000, "round_robin", seed=3),
            served(5, 0.8, 8_000, "random", seed=3),
        )
    ]
    assert waits == sorted(waits)
    assert waits[3] > 3 * waits[0]


def tail(run: FleetRun, most: int) -> NDArray[np.float64]:
    """The share of servers with at least 1, 2 .. `most` requests, while requests come, after the first quarter."""
    timeline, end_s = run.timeline, float(run.trace.arrival_s[-1])
    held = (timeline.running + timeline.waiting)[(timeline.t_s > end_s / 4) & (timeline.t_s < end_s)]
    return np.array([(held >= i).mean() for i in range(1, most + 1)])


SERVERS, LOAD, REQUESTS = 300, 0.7, 50_000
FIRST = np.arange(1, 9)


@pytest.fixture(scope="module")
def tails():
    """The tail of 300 servers at load 0.7, by policy."""
    return {p: tail(served(SERVERS, LOAD, REQUESTS, p, seed=5), len(FIRST)) for p in ("random", "power_of_two")}


def test_at_random_the_tail_falls_exponentially(tails):
    """l, l^2, l^3 ..: each server by itself is an M/M/1 queue, which forgets in about S / (1 - sqrt(l))^2 seconds.

    So a server tells something new so many times, and the share of all such looks has a binomial's standard error.
    """
    expected = LOAD**FIRST
    looks = SERVERS * 0.75 * REQUESTS * SERVICE_S / (LOAD * SERVERS) / (SERVICE_S / (1 - LOAD**0.5) ** 2)
    assert looks > 500
    error = np.sqrt(expected * (1 - expected) / looks)
    assert (np.abs(tails["random"] - expected) < 4 * error).all()


def test_the_better_of_two_has_a_doubly_exponential_tail(tails):
    """l, l^3, l^7, l^15, l^31: 0.7, 0.34, 0.082, 0.0047 and 0.000016, while one in six has five at random."""
    expected = LOAD ** (2.0**FIRST - 1)
    found = tails["power_of_two"]
    np.testing.assert_allclose(found[:3], expected[:3], rtol=0.1)
    assert found[3] == pytest.approx(expected[3], rel=0.4)
    assert found[4] < 5e-4
    assert found[5:].max() == 0.0
    assert tails["random"][4] > 0.1
