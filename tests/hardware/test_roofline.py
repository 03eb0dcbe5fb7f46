"""The roofline: its seam's properties, each term by hand, and published or measured speeds."""

import csv
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simroute.errors import CatalogueError, UsageError
from simroute.hardware import catalogue, roofline
from simroute.hardware.memory import KvCapacity, engine_defaults, kv_blocks
from simroute.hardware.reference import reference_cost, reference_tokens_per_s
from simroute.hardware.roofline import RooflineStepTime, expected_experts
from simroute.hardware.select import step_time_model
from simroute.hardware.steptime import Batch, StepTimeModel

CLOSED_LOOP = Path(__file__).resolve().parents[3] / "shared/data/measured/h100_llama70b_fp8_vllm_closed_loop.csv"
COMBINATIONS = [
    ("llama-3.1-8b", "bf16", "H100", 1),
    ("llama-3.1-70b", "fp8", "H100", 4),
    ("qwen3-8b", "awq", "A100-80GB", 1),
    ("qwen3-30b-a3b", "fp8", "L40S", 2),
    ("gpt-oss-20b", "mxfp4", "L4", 1),
    ("mixtral-8x7b", "bf16", "MI300X", 1),
    ("llama-3.2-1b", "fp16", "T4", 1),
]
COUNTS = st.integers(0, 4096)


def model_of(name, scheme, gpu, tp=1, **options):
    return RooflineStepTime(
        catalogue.model(name), catalogue.scheme(scheme), catalogue.gpu(gpu), tensor_parallel=tp, **options
    )


MODELS: list[StepTimeModel] = [model_of(*combination) for combination in COMBINATIONS]


def decode(seqs, context):
    return Batch(0, 0, 0, seqs, context, seqs)


def decode_s(model, seqs, context_each):
    intercept, slope = model.decode_line(seqs)
    return intercept + slope * seqs * context_each


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(MODELS), COUNTS, COUNTS, st.integers(1, 512), COUNTS, COUNTS)
def test_duration_is_linear_in_decode_context(model, prefill_tokens, pairs, seqs, context, more):
    durations = [model.duration_s(Batch(1, prefill_tokens, pairs, seqs, context + k * more, seqs)) for k in range(3)]
    assert durations[2] - durations[1] == pytest.approx(durations[1] - durations[0], rel=1e-6, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(MODELS), st.integers(1, 1024), st.integers(1, 10**6))
def test_a_decoding_batch_is_on_the_decode_line(model, seqs, context):
    intercept, slope = model.decode_line(seqs)
    assert model.duration_s(decode(seqs, context)) == pytest.approx(intercept + slope * context, rel=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(MODELS), COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, st.integers(0, 5), st.integers(1, 64))
def test_more_work_never_takes_less_time(model, tokens, pairs, seqs, context, sampled, field, more):
    batch = Batch(1, tokens, pairs, seqs, context, sampled)
    name = fields(Batch)[field].name
    heavier = replace(batch, **{name: getattr(batch, name) + more})
    assert model.duration_s(heavier) >= model.duration_s(batch) > 0


@pytest.mark.parametrize("model", MODELS)
def test_every_estimate_says_so(model):
    assert model.estimated


def test_doubling_tensor_parallel_halves_what_is_read_and_adds_communication():
    one, two = (model_of("llama-3.1-8b", "bf16", "H100", tp) for tp in (1, 2))
    assert two.decode_line(1)[1] == pytest.approx(one.decode_line(1)[1] / 2)
    weights_s = 32 * 218_103_808 * 2 / (3350e9 * roofline.WEIGHT_READ_EFFICIENCY)
    head_s = 128256 * 4096 * 2 / (3350e9 * roofline.WEIGHT_READ_EFFICIENCY)
    saved = one.decode_line(1)[0] - two.decode_line(1)[0]
    reduces_s = 2 * 32 * roofline.NVLINK_LATENCY_S
    assert saved == pytest.approx((weights_s + head_s) / 2 - reduces_s, rel=0.01)


def test_context_slope_is_kv_bytes_over_bandwidth():
    slope = model_of("llama-3.1-8b", "bf16", "H100").decode_line(1)[1]
    assert slope == pytest.approx(32 * 8 * 2 * 128 * 2 / (3350e9 * roofline.KV_READ_EFFICIENCY[2]))
    fp8 = model_of("llama-3.1-8b", "bf16", "H100", kv_cache_dtype="fp8").decode_line(1)[1]
    assert fp8 == pytest.approx(32 * 8 * 2 * 128 / (3350e9 * roofline.KV_READ_EFFICIENCY[1]))


def test_sliding_layers_cost_a_window_and_do_not_grow_with_context():
    model = catalogue.model("gpt-oss-20b")
    slope = model_of("gpt-oss-20b", "mxfp4", "H100").decode_line(1)[1]
    per_layer = 8 * 2 * 64 * 2 / (3350e9 * roofline.KV_READ_EFFICIENCY[2])
    assert slope == pytest.approx((model.num_hidden_layers - model.sliding_window_layers) * per_layer)


def test_a_large_prefill_is_bound_by_arithmetic():
    model = model_of("llama-3.1-8b", "bf16", "H100")
    tokens = 8192
    pairs = tokens * (tokens + 1) // 2
    projections_s = 2 * 32 * 218_103_808 * tokens / (989.4e12 * roofline.SIXTEEN_BIT_EFFICIENCY)
    attention_s = 4 * 32 * 128 * 32 * pairs / (989.4e12 * roofline.PREFILL_ATTENTION_EFFICIENCY)
    assert model.duration_s(Batch(1, tokens, pairs, 0, 0, 1)) == pytest.approx(projections_s + attention_s, rel=0.08)


def test_synchronous_scheduling_costs_cpu_time_for_every_sequence():
    overlapped, serial = (model_of("llama-3.1-8b", "bf16", "H100", async_scheduling=flag) for flag in (True, False))
    extra = serial.decode_line(100)[0] - overlapped.decode_line(100)[0]
    expected = roofline.SYNC_CPU_S - roofline.ASYNC_CPU_S + 100 * roofline.SYNC_CPU_PER_SEQ_S
    assert extra == pytest.approx(expected)


def test_expected_experts():
    model = catalogue.model("mixtral-8x7b")
    assert expected_experts(model, 1) == pytest.approx(2)
    assert expected_experts(model, 2) == pytest.approx(8 * (1 - 0.75**2))
    assert expected_experts(model, 1000) == pytest.approx(8)


def test_fp8_without_an_fp8_unit_reads_less_but_multiplies_no_faster():
    bf16, fp8 = (model_of("qwen3-8b", scheme, "A100-80GB") for scheme in ("bf16", "fp8"))
    assert decode_s(fp8, 1, 512) < decode_s(bf16, 1, 512)
    assert fp8.duration_s(Batch(1, 2048, 0, 0, 0, 0)) > bf16.duration_s(Batch(1, 2048, 0, 0, 0, 0))


def test_impossible_combinations_are_refused():
    with pytest.raises(CatalogueError, match="bf16 does not run on T4"):
        model_of("llama-3.1-8b", "bf16", "T4")
    with pytest.raises(UsageError, match="tensor_parallel"):
        model_of("qwen2.5-7b", "bf16", "H100", 8)


def test_a_single_h100_decodes_llama_8b_in_six_to_seven_milliseconds():
    assert 0.006 < decode_s(model_of("llama-3.1-8b", "bf16", "H100"), 1, 128) < 0.007


@pytest.mark.parametrize(("scheme", "published"), [("bf16", 13.3), ("fp8", 16.5), ("awq-int4", 9.8)])
def test_saturated_h100_keeps_the_published_order_of_schemes(scheme, published):
    """Qwen3-8B on one H100 at full load, thousand output tokens a second: int4 loses, fp8 wins (GPUStack)."""
    spec, gpu, quant = catalogue.model("qwen3-8b"), catalogue.gpu("H100"), catalogue.scheme(scheme)
    tokens, seqs = engine_defaults(gpu)
    capacity = kv_blocks(spec, quant, gpu, max_model_len=4096, max_num_batched_tokens=tokens, max_num_seqs=seqs)
    model = step_time_model(spec, quant, gpu)
    rate = reference_tokens_per_s(model, capacity, max_num_seqs=512, input_tokens=300, output_tokens=300)
    assert rate / 1e3 == pytest.approx(published, rel=0.15)


def test_int4_wins_while_memory_bound():
    bf16, awq = (model_of("qwen3-8b", scheme, "H100") for scheme in ("bf16", "awq-int4"))
    assert decode_s(awq, 1, 512) < 0.6 * decode_s(bf16, 1, 512)


@pytest.mark.skipif(not CLOSED_LOOP.is_file(), reason=f"measured closed loop not found: {CLOSED_LOOP}")
def test_measured_tpot_of_a_70b_model_is_within_a_quarter():
    """vLLM 0.10.2, fp8 with fp8 KV, TP 2 to 8; without the row whose KV cache overflows and preempts."""
    with CLOSED_LOOP.open(newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if float(row["silicon_ttft_ms"]) < 10_000]
    errors = []
    for row in rows:
        tp = int(float(row["tp_size"]))
        model = model_of("llama-3.1-70b", "fp8", "H100", tp, kv_cache_dtype="fp8", async_scheduling=False)
        predicted_s = closed_loop_tpot_s(model, int(row["concurrency"]), 0.9 * int(row["isl"]), 0.9 * int(row["osl"]))
        errors.append(predicted_s * 1e3 / float(row["silicon_tpot_ms"]) - 1)
    assert len(rows) == 29
    assert max(map(abs, errors)) < 0.25
    assert sum(map(abs, errors)) / len(errors) < 0.1


def closed_loop_tpot_s(model, seqs, input_tokens, output_tokens):
    """Mean step a decoding request sees: decoding at the mean context, plus the others' prefills spread over it."""
    context = int(seqs * (input_tokens + output_tokens / 2))
    alone = model.duration_s(decode(seqs, context))
    pairs = int(input_tokens * (input_tokens + 1) / 2)
    mixed = model.duration_s(Batch(1, int(input_tokens), pairs, seqs, context, seqs))
    return alone + (mixed - alone) * (seqs - 1) / output_tokens


class Fixed:
    """A step-time fake: 10 ms a step, 1 ms more for a prefill."""

    estimated = False
    basis = "measured"

    def drawn(self, rng):
        return self

    def duration_s(self, batch):
        return 0.011 if batch.prefill_seqs else 0.010

    def decode_line(self, decode_seqs):
        return 0.010, 0.0


def capacity_of(num_gpu_blocks):
    return KvCapacity(num_gpu_blocks, 16, 0.0, 0.0, 0.0, 0.0, 0.0, "measured")


def test_reference_cost_by_hand():
    """10 requests of 160 tokens fit; a cycle is 60 steps of 10 ms and 10 prefills of 1 ms for 600 tokens."""
    load = {"max_num_seqs": 64, "input_tokens": 100, "output_tokens": 60}
    rate = reference_tokens_per_s(Fixed(), capacity_of(101), **load)
    assert rate == pytest.approx(600 / 0.61)
    assert reference_cost(Fixed(), capacity_of(101), 3.6, **load) == pytest.approx(0.001 / rate * 1e6)


def test_reference_load_respects_max_num_seqs_and_refuses_what_cannot_run():
    assert reference_tokens_per_s(
        Fixed(), capacity_of(101), max_num_seqs=1, input_tokens=100, output_tokens=60
    ) == pytest.approx(60 / 0.601)
    with pytest.raises(UsageError, match="does not fit in a KV cache of 160 tokens"):
        reference_cost(Fixed(), capacity_of(11), 1.0, max_num_seqs=8)
