"""The simulator where queueing theory has the answer: one server with Poisson arrivals.

One seat (`max_num_seqs=1`) makes an engine a server that takes requests in order of arrival. Its service time is
the sum of the request's steps; each step takes h, the prompt is prefilled in the first of them. An answer of n tokens
then takes S = n h. The Pollaczek-Khinchine formula gives the mean time in WAITING of such an M/G/1 queue with
arrival rate l and load r = l E[S] < 1:

    W = l E[S^2] / (2 (1 - r))

M/D/1: every answer has n tokens, E[S^2] = (n h)^2, W = r n h / (2 (1 - r)).
M/M/1: n is geometric with mean 1/p, the discrete exponential: E[n^2] = (2 - p) / p^2. With p -> 0 at constant h/p this
is the exponential service of M/M/1, W = r E[S] / (1 - r); at p = 1/50 the difference is 1%, so both are checked.

A request admitted at a step boundary never waits for it: the server is either idle (a step begins at once) or
busy, and then it is freed at a boundary. That holds without async scheduling, which hands a seat on one step late.

Tolerance: waits of successive requests are correlated, so the standard error comes from batch means: the run is cut
into 40 batches, much longer than a busy period, whose means are nearly independent. Four standard errors are allowed,
which a right simulator misses once in ten thousand seeds; the seeds are fixed.
"""

from __future__ import annotations

import numpy as np
import pytest
from fleet.fleets import LinearStepTime, make_pool, replay
from fleet.invariants import check
from numpy.typing import NDArray

from simroute.rng import stream
from simroute.workload.trace import Trace

STEP_S = 0.01
MEAN_TOKENS = 50
REQUESTS = 40_000
BATCHES = 40
PROMPT_TOKENS = 4


def waits(answers: NDArray[np.int64], load: float, seed: int) -> NDArray[np.float64]:
    """Each request's time in WAITING before one server at this load."""
    rate_per_s = load / (MEAN_TOKENS * STEP_S)
    trace = Trace.build(
        arrival_s=np.cumsum(stream(seed, "arrivals").exponential(1 / rate_per_s, len(answers))),
        input_tokens=PROMPT_TOKENS,
        output_tokens=answers,
    )
    engine = {"max_num_seqs": 1, "async_scheduling": False, "max_model_len": 1024, "num_gpu_blocks": 300}
    pools = [make_pool(step_time=LinearStepTime(base_s=STEP_S), **engine)]
    run = check(replay(trace, pools, samples=100), pools)
    return run.first_token_s - STEP_S - trace.arrival_s


def assert_mean(values: NDArray[np.float64], expected: float) -> None:
    """The mean, its first tenth left out as the warm-up, is within four standard errors of what is expected."""
    batches = values[len(values) // 10 :].reshape(BATCHES, -1).mean(axis=1)
    standard_error = batches.std(ddof=1) / np.sqrt(BATCHES)
    assert standard_error < 0.06 * expected, "too short a run to tell anything"
    assert batches.mean() == pytest.approx(expected, abs=4 * standard_error)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_constant_service_is_md1(load):
    waited = waits(np.full(REQUESTS, MEAN_TOKENS), load, seed=1)
    service_s = MEAN_TOKENS * STEP_S
    assert_mean(waited, load * service_s / (2 * (1 - load)))
    # PASTA: an arrival finds the server idle with probability 1 - r.
    assert_mean((waited < 1e-9).astype(float), 1 - load)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_geometric_service_is_mm1(load):
    p = 1 / MEAN_TOKENS
    answers = np.minimum(stream(2, "answers").geometric(p, REQUESTS), 1000)  # 1 in 10^9 is longer than that
    waited = waits(answers, load, seed=2)
    rate_per_s = load / (MEAN_TOKENS * STEP_S)
    assert_mean(waited, rate_per_s * STEP_S**2 * (2 - p) / p**2 / (2 * (1 - load)))
    # The exponential limit, for the time in the system too: E[T] = E[S] / (1 - r).
    service_s = MEAN_TOKENS * STEP_S
    assert_mean(waited + answers * STEP_S, service_s / (1 - load))


def test_two_servers_are_not_one_queue():
    """Round robin over two engines gives each every second arrival: Erlang-2 gaps, which wait less than Poisson's.

    Kingman's bound for GI/G/1 holds: W <= l (var A + var S) / (2 (1 - r)), here with var S = 0, var A = 2 / rate^2 and
    l = rate / 2.
    """
    load, service_s = 0.8, MEAN_TOKENS * STEP_S
    rate_per_s = 2 * load / service_s
    trace = Trace.build(
        arrival_s=np.cumsum(stream(3, "arrivals").exponential(1 / rate_per_s, REQUESTS)),
        input_tokens=PROMPT_TOKENS,
        output_tokens=MEAN_TOKENS,
    )
    pools = [make_pool(2, LinearStepTime(base_s=STEP_S), max_num_seqs=1, async_scheduling=False)]
    run = check(replay(trace, pools, samples=100), pools)
    waited = (run.first_token_s - STEP_S - trace.arrival_s).mean()
    assert waited < rate_per_s / 2 * 2 / rate_per_s**2 / (2 * (1 - load))
    assert waited < 0.75 * load * service_s / (2 * (1 - load)), "less than M/D/1 at the same load"
    for totals in run.replicas:
        assert totals.busy_s / run.end_s == pytest.approx(load, rel=0.03)
