"""Step times of a calibration, by hand, and the rules that the engine's fast mode relies on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simroute.hardware.calibration import Calibration
from simroute.hardware.fitted import FittedStepTime
from simroute.hardware.steptime import Batch, ScaledStepTime, StepTimeModel

STEP = {
    "launch_ms": 1.0,
    "gemm_ms": {4: 2.0, 8: 4.0, 16: 5.0},
    "prefill_seq_us": 100.0,
    "decode_seq_us": 10.0,
    "prefill_pair_ns": 1000.0,
    "decode_context_token_ns": 2000.0,
    "sampled_seq_us": 50.0,
}


def model(**changes) -> FittedStepTime:
    return FittedStepTime(
        Calibration.model_validate(
            {
                "model": "m",
                "scheme": "bf16",
                "gpu": "g",
                "vllm": "0.26.0",
                "basis": "composed",
                "step": STEP | changes,
                "range": {
                    name: [1, 100] for name in ("tokens", "decode_seqs", "decode_context_tokens", "prefill_pairs")
                },
                "error": {"median": 0.01, "p90": 0.02, "bias_sd": 0.1},
            }
        )
    )


def decode(seqs, context):
    return Batch(0, 0, 0, seqs, context, seqs)


def test_a_mixed_step_by_hand():
    # 1 + gemm(10) + 1 prefill + 2 decodes + 36 pairs + 100 tokens of context + 3 samples, in ms
    expected = 1.0 + 4.25 + 0.1 + 0.02 + 0.036 + 0.2 + 0.15
    assert model().duration_s(Batch(1, 8, 36, 2, 100, 3)) == pytest.approx(expected * 1e-3)


@pytest.mark.parametrize(
    ("tokens", "gemm_ms"), [(1, 2.0), (4, 2.0), (6, 3.0), (8, 4.0), (12, 4.5), (16, 5.0), (32, 7.0)]
)
def test_gemm_is_flat_then_linear_then_goes_on(tokens, gemm_ms):
    assert model().duration_s(Batch(1, tokens, 0, 0, 0, 0)) == pytest.approx((1.1 + gemm_ms) * 1e-3)


def test_one_knot_is_a_constant():
    flat = model(gemm_ms={8: 3.0})
    assert flat.duration_s(decode(1, 0)) - flat.duration_s(decode(64, 0)) == pytest.approx(-63 * 60e-6)


def test_decoding_batches_are_padded_and_others_are_not():
    padded, plain = model(graph_sizes=[4, 8]), model()
    # 5 requests run as 8: gemm 4.0 instead of 2.5 ms; 9 are beyond the largest graph.
    assert padded.duration_s(decode(5, 0)) - plain.duration_s(decode(5, 0)) == pytest.approx(1.5e-3)
    assert padded.duration_s(decode(8, 0)) == plain.duration_s(decode(8, 0))
    assert padded.duration_s(decode(9, 0)) == plain.duration_s(decode(9, 0))
    mixed = Batch(1, 1, 1, 4, 0, 5)
    assert padded.duration_s(mixed) == plain.duration_s(mixed)


@given(seqs=st.integers(1, 300), context=st.integers(0, 10**7), padded=st.booleans())
def test_a_decoding_batch_is_on_the_decode_line(seqs, context, padded):
    step_time: StepTimeModel = model(graph_sizes=[4, 8, 64]) if padded else model()
    intercept_s, slope_s = step_time.decode_line(seqs)
    assert step_time.duration_s(decode(seqs, context)) == pytest.approx(intercept_s + slope_s * context, rel=1e-12)


@given(tokens=st.integers(1, 20_000), more=st.integers(0, 20_000))
def test_more_tokens_never_take_less(tokens, more):
    step_time = model()
    assert step_time.duration_s(Batch(1, tokens + more, 0, 0, 0, 0)) >= step_time.duration_s(
        Batch(1, tokens, 0, 0, 0, 0)
    )


def test_it_says_what_it_rests_on():
    assert not model().estimated
    assert model().basis == "composed"


def test_a_draw_is_another_model_of_the_same_seed():
    batch = decode(8, 1000)
    drawn = model().drawn(np.random.default_rng(1)).duration_s(batch)
    assert drawn == model().drawn(np.random.default_rng(1)).duration_s(batch)
    assert drawn != model().duration_s(batch)
    factors = [model().drawn(np.random.default_rng(i)).duration_s(batch) for i in range(800)]
    assert np.log(factors).std() == pytest.approx(0.1, rel=0.1)


def test_a_scaled_model_scales_every_time():
    scaled: StepTimeModel = ScaledStepTime(model(), 1.5)
    batch = Batch(1, 8, 36, 2, 100, 3)
    assert scaled.duration_s(batch) == pytest.approx(1.5 * model().duration_s(batch))
    assert scaled.decode_line(7) == pytest.approx([1.5 * part for part in model().decode_line(7)])
    assert (scaled.basis, scaled.estimated) == ("composed", False)
