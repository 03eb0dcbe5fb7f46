"""What routers are told of a replica's speed is the sum of the steps that its engine would take."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simroute.hardware import catalogue
from simroute.hardware.roofline import RooflineStepTime
from simroute.hardware.speed import FlatSpeed, StepSpeed
from simroute.hardware.steptime import Batch

MODEL = RooflineStepTime(catalogue.model("Llama-3.1-8B"), catalogue.scheme("fp8"), catalogue.gpu("H100"))


def steps_s(tokens, budget):
    """The same sum in plain terms: one step after the other."""
    total_s, start = 0.0, 0
    while start < tokens:
        n = min(budget, tokens - start)
        total_s += MODEL.duration_s(Batch(1, n, n * start + n * (n + 1) // 2, 0, 0, int(start + n == tokens)))
        start += n
    return total_s


@given(st.lists(st.integers(0, 40_000), min_size=1, max_size=5), st.sampled_from([512, 2048, 8192]))
def test_a_prompt_takes_the_sum_of_its_chunks_in_whatever_order_it_is_asked_for(prompts, budget):
    speed = StepSpeed(MODEL, budget)
    for tokens in prompts:
        assert speed.prefill_s(tokens) == pytest.approx(steps_s(tokens, budget), rel=1e-12)


def test_a_prompt_that_fits_the_budget_is_one_step():
    speed = StepSpeed(MODEL, 8192)
    assert speed.prefill_s(1000) == MODEL.duration_s(Batch(1, 1000, 500_500, 0, 0, 1))
    assert speed.prefill_s(0) == 0.0


@given(st.integers(1, 500), st.integers(0, 1_000_000))
def test_a_decode_step_is_the_models_own(seqs, context_tokens):
    expected = MODEL.duration_s(Batch(0, 0, 0, seqs, context_tokens, seqs))
    assert StepSpeed(MODEL, 8192).decode_s(seqs, context_tokens) == pytest.approx(expected, rel=1e-12)


def test_it_travels_to_worker_processes():
    speed = StepSpeed(MODEL, 2048)
    speed.prefill_s(5000)
    assert pickle.loads(pickle.dumps(speed)).prefill_s(9000) == speed.prefill_s(9000)


def test_of_somebody_elses_endpoint_only_two_latencies_are_known():
    speed = FlatSpeed(ttft_s=0.4, tpot_s=0.02)
    assert {speed.prefill_s(tokens) for tokens in (0, 10, 100_000)} == {0.4}
    assert {speed.decode_s(seqs, 1000 * seqs) for seqs in (1, 500)} == {0.02}
