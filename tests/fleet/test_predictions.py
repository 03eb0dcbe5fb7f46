"""What the policies predict of latency, held against what the engine then does: a lone request, then whole loads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fleet.fleets import GPU_LIKE, make_pool, replay, synthetic
from policy.stage import Seen
from scipy import stats

from simroute.hardware.speed import StepSpeed
from simroute.policy.routing.predict import Prediction, predict
from simroute.workload.trace import Trace

BUDGET = 2048
KNOWN = {"num_gpu_blocks": 60_001, "max_model_len": 8192, "max_num_batched_tokens": BUDGET, "max_num_seqs": 64}


def known_pool():
    """One engine like an 8B model on a large GPU, whose router knows its step times."""
    pool = make_pool(step_time=GPU_LIKE, **KNOWN)
    variant = replace(pool.variant, max_num_batched_tokens=BUDGET, kv_tokens=240_000, speed=StepSpeed(GPU_LIKE, BUDGET))
    return replace(pool, variant=variant)


@pytest.mark.parametrize(("input_tokens", "output_tokens"), [(100, 50), (2048, 200), (5000, 100)])
def test_a_lone_request_takes_what_is_predicted(input_tokens, output_tokens):
    pool = known_pool()
    trace = Trace.build(arrival_s=[0.0], input_tokens=[input_tokens], output_tokens=[output_tokens])
    run = replay(trace, [pool])
    found = predict(Seen(0, pool.variant), input_tokens, output_tokens)
    assert found.ttft_s == pytest.approx(run.first_token_s[0], rel=1e-9)
    assert found.e2e_s == pytest.approx(run.finish_s[0], rel=1e-3)


def predictions(pool, trace, run):
    """For each request what a router that counts exactly would have predicted when it arrived."""
    arrival_s, mean_output = trace.arrival_s, float(trace.output_tokens.mean())
    for i in range(len(trace)):
        live = np.flatnonzero(run.finish_s[:i] > arrival_s[i])
        queued = live[run.first_token_s[live] > arrival_s[i]]
        seen = Seen(0, pool.variant)
        seen.load(len(live), int(trace.input_tokens[live].sum()), int(trace.input_tokens[queued].sum()))
        yield predict(seen, int(trace.input_tokens[i]), mean_output)


@pytest.mark.parametrize(
    ("load", "rate_per_s", "input_tokens", "output_tokens"),
    [("light", 4, 1000, 200), ("busy", 14, 1000, 200), ("overload", 30, 1000, 200), ("long prompts", 4, 4000, 100)],
)
def test_predictions_are_near_and_in_the_right_order(load, rate_per_s, input_tokens, output_tokens):
    pool, trace = known_pool(), synthetic(1200, rate_per_s, input_tokens, output_tokens)
    run = replay(trace, [pool])
    found = Prediction(*np.array(list(predictions(pool, trace, run))).T)
    ttft_s = run.first_token_s - trace.arrival_s
    ratio = np.quantile(found.ttft_s / ttft_s, [0.1, 0.5, 0.9])
    assert 0.85 < ratio[1] < 1.25, load
    assert ratio[0] > 0.6, load
    assert ratio[2] < 2.0, load
    assert stats.spearmanr(found.ttft_s, ttft_s).statistic > 0.85, load
    answers = trace.output_tokens > 20
    tpot_s = ((run.finish_s - run.first_token_s) / (trace.output_tokens - 1).clip(1))[answers]
    assert np.median(found.tpot_s[answers] / tpot_s) == pytest.approx(1.0, abs=0.2), load
