"""Kernels added up to steps, against sums worked by hand; and steps turned into a calibration."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pandas as pd
import pytest
from calibration.kernel_tables import decode_s, gemm_s

from calibration import kernel_tables as tables_of
from simroute.calibration.ingest.build import (
    CPU_S,
    LAUNCH_S,
    PIECEWISE_DECODE_S,
    PIECEWISE_PROMPT_S,
    from_op_tables,
    full_graphs,
    named_replica,
    overhead,
)
from simroute.calibration.ingest.compose import (
    Limits,
    Overhead,
    composed,
    composed_batches,
    pairs,
    predicted_s,
    step_s,
)
from simroute.calibration.ingest.kernels import ELEMENTWISE_KERNEL_S, NVLINK_SHARE, SAMPLER_S, TableKernels
from simroute.calibration.ingest.op_tables import OpTables
from simroute.calibration.ingest.products import Products
from simroute.errors import CalibrationError, CatalogueError, UsageError
from simroute.hardware import catalogue
from simroute.hardware.fitted import FittedStepTime
from simroute.hardware.steptime import Batch

MODEL = catalogue.model("Llama-3.2-1B")  # 16 layers, hidden 2048, 32 heads over 8 KV heads of 64, MLP 8192
LAYER = ((3072, 2048), (2048, 2048), (16384, 2048), (2048, 8192))
HALF_LAYER = ((1536, 2048), (2048, 1024), (8192, 2048), (2048, 4096))
ELEMENTWISE_S = 5 * ELEMENTWISE_KERNEL_S  # two norms, rotary embedding, cache write, activation
H100_BYTES_S = 3350e9
LINK_BYTES_S = 450e9
REDUCE_BYTES_S = max(tables_of.REDUCE_BYTES_S, LINK_BYTES_S * NVLINK_SHARE)  # (two ranks send every byte once)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tables_of.write_tables(tmp_path_factory.mktemp("tables"))
    tables_of.write_experts(root)
    return root


NONE = Overhead(0.0)


def kernels(folder, scheme="bf16", tp=1, model=MODEL, full_graphs=True):
    return TableKernels(OpTables(folder, "H100"), model, catalogue.scheme(scheme), tp, full_graphs=full_graphs)


def head_s(seqs, ranks=1):
    largest = gemm_s(seqs, 65536, 2048)
    product_s = largest * 128256 / 65536 if ranks == 1 else gemm_s(seqs, 64128, 2048)
    gathered_s = seqs * 128256 * 2 * (ranks - 1) / ranks / LINK_BYTES_S
    return product_s + SAMPLER_S + seqs * 128256 * 8 / H100_BYTES_S + gathered_s


def test_a_decode_step_worked_by_hand(folder):
    layer_s = sum(gemm_s(8, n, k) for n, k in LAYER) + ELEMENTWISE_S + decode_s(8, 8000)
    batch = Batch(0, 0, 0, 8, 8000, 8)
    assert step_s(kernels(folder), batch, Overhead(0.001, 0.5)) == pytest.approx(
        0.001 + 16 * layer_s + head_s(8), rel=1e-4
    )


def test_a_prefill_step_worked_by_hand(folder):
    norms, rotary, cache, activation = 2 * 4 * 2048, 2 * (2048 + 512), 2 * 1024, 3 * 8192
    layer_s = sum(gemm_s(4096, n, k) for n, k in LAYER) + tables_of.prefill_s(1, 4096)
    layer_s += 4096 * (norms + rotary + cache + activation) * 2 / H100_BYTES_S
    batch = Batch(1, 4096, pairs(4096, 0), 0, 0, 1)
    expected_s = 0.001 + 0.002 + 16 * layer_s + head_s(1)
    assert step_s(kernels(folder), batch, Overhead(0.001, 0.002)) == pytest.approx(expected_s, rel=1e-4)


def test_ranks_share_the_products_and_reduce_twice_a_layer(folder):
    layer_s = sum(gemm_s(8, n, k) for n, k in HALF_LAYER) + ELEMENTWISE_S + decode_s(8, 8000)
    layer_s += 2 * (tables_of.REDUCE_S + 8 * 2048 * 2 / REDUCE_BYTES_S)
    batch = Batch(0, 0, 0, 8, 8000, 8)
    assert step_s(kernels(folder, tp=2), batch, NONE) == pytest.approx(16 * layer_s + head_s(8, 2), rel=1e-4)


def test_beyond_cuda_graphs_an_all_reduce_is_launched(folder):
    two = kernels(folder, tp=2)
    grown_s = 16 * sum(gemm_s(1024, n, k) - gemm_s(512, n, k) for n, k in HALF_LAYER)
    reduced_s = 16 * 2 * (tables_of.EAGER_S - tables_of.REDUCE_S + 512 * 2048 * 2 / REDUCE_BYTES_S)
    token_s = (2 * 4 * 2048 + 2 * 1280 + 2 * 512 + 3 * 4096) * 2 / H100_BYTES_S
    elementwise_s = 16 * (1024 * token_s - max(512 * token_s, ELEMENTWISE_S))
    assert two.tokens_s(1024) - two.tokens_s(512) == pytest.approx(grown_s + reduced_s + elementwise_s, rel=1e-4)


def test_before_full_graphs_the_measured_all_reduce_stands(folder):
    new, old = kernels(folder, tp=2), kernels(folder, tp=2, full_graphs=False)
    message_bytes = 512 * 2048 * 2
    slower_s = message_bytes / tables_of.REDUCE_BYTES_S - message_bytes / REDUCE_BYTES_S
    assert old.tokens_s(512) - new.tokens_s(512) == pytest.approx(16 * 2 * slower_s, rel=1e-3)
    assert old.tokens_s(4096) == new.tokens_s(4096)


def test_graphs_in_pieces_cost_every_layer_a_launch():
    assert overhead(MODEL, "0.19.0") == Overhead(LAUNCH_S + CPU_S, 16 * PIECEWISE_PROMPT_S)
    old = overhead(MODEL, "0.10.2")
    assert old.step_s == pytest.approx(LAUNCH_S + CPU_S + 16 * PIECEWISE_DECODE_S)
    assert old.step_s + old.prompt_s == pytest.approx(LAUNCH_S + CPU_S + 16 * PIECEWISE_PROMPT_S)
    versions = ("0.9.1", "0.10.2", "0.11.0", "0.26.0+cu130", "1.0.0", "not recorded")
    assert [full_graphs(version) for version in versions] == [False, False, True, True, True, True]


def test_eight_bit_weights_take_half_the_time_to_read(folder):
    saved_s = 16 * sum(n * k for n, k in LAYER) / tables_of.BYTES_S
    assert kernels(folder).tokens_s(8) - kernels(folder, "fp8").tokens_s(8) == pytest.approx(saved_s, rel=1e-6)


def test_experts_take_the_place_of_the_feed_forward(tmp_path):
    tables_of.write_tables(tmp_path)
    tables_of.write_experts(tmp_path)
    for op in ("context", "generation"):  # the model's heads are of 128
        path = tmp_path / f"h100/attention/vllm/0.19.0/{op}_attention_perf.parquet"
        rows = pd.read_parquet(path)
        rows.assign(head_dim=128, num_key_value_heads=4, num_heads=32).drop_duplicates(
            ["batch_size", "isl", *(["step"] if op == "generation" else [])]
        ).to_parquet(path)
    model = catalogue.model("Qwen3-30B-A3B")  # 48 layers, hidden 2048, 32 heads over 4, 128 experts of 768
    layer_s = gemm_s(64, 5120, 2048) + gemm_s(64, 2048, 4096) + gemm_s(64, 1024, 2048)  # (routers: the smallest shape)
    layer_s += tables_of.EXPERTS_S + 64 * tables_of.EXPERT_TOKEN_S + 6 * ELEMENTWISE_KERNEL_S
    assert kernels(tmp_path, model=model).tokens_s(64) == pytest.approx(48 * layer_s, rel=1e-4)


def test_a_kernel_timed_on_a_warm_cache_is_not_faster_than_memory(tmp_path):
    tables_of.write_tables(tmp_path)
    path = tmp_path / "h100/gemm/vllm/0.19.0/gemm_perf.parquet"
    rows = pd.read_parquet(path)
    small = (rows["n"] == 1024) & (rows["k"] == 4096)
    rows.loc[small, "latency"] = 1e-6
    rows.to_parquet(path)
    tables = OpTables(tmp_path, "H100")
    curve = Products(tables, catalogue.scheme("bf16")).of(1024, 4096)
    assert curve.at(8) == pytest.approx(1024 * 4096 * 2 / tables.stream_bytes_s("bfloat16"))
    assert tables.stream_bytes_s("bfloat16") == pytest.approx(tables_of.BYTES_S, rel=0.02)


def test_sizes_that_no_engine_pads_to_are_left_out(folder):
    assert kernels(folder).sizes.tolist() == [1, 8, 16, 64, 128, 512, 1024, 4096, 16384]


def test_impossible_prefill_attention_is_replaced_by_that_of_the_same_chip(tmp_path):
    tables_of.write_tables(tmp_path)
    tables_of.write_tables(tmp_path, "h200", "NVIDIA H200")
    path = tmp_path / "h200/attention/vllm/0.19.0/context_attention_perf.parquet"
    rows = pd.read_parquet(path)
    rows.assign(latency=rows["latency"] / 1000).to_parquet(path)
    tables = OpTables(tmp_path, "H200")
    taken = TableKernels(tables, MODEL, catalogue.scheme("bf16"))
    batch = Batch(1, 4096, pairs(4096, 0), 0, 0, 1)
    assert taken.attention_s(batch) == pytest.approx(16 * tables_of.prefill_s(1, 4096), rel=1e-3)
    assert any("that of H100 in bfloat16 stands in" in note for note in tables.notes)
    (tmp_path / "h100").rename(tmp_path / "elsewhere")
    rows = pd.read_parquet(tmp_path / "elsewhere/gemm/vllm/0.19.0/gemm_perf.parquet")
    rows.assign(device="another").to_parquet(tmp_path / "elsewhere/gemm/vllm/0.19.0/gemm_perf.parquet")
    with pytest.raises(CalibrationError, match="timed faster than H200 can multiply"):
        TableKernels(OpTables(tmp_path, "H200"), MODEL, catalogue.scheme("bf16"))


def test_int8_on_hopper_is_fp8_and_four_bits_save_reading(folder):
    assert kernels(folder, "w8a8-int8").tokens_s(64) == kernels(folder, "fp8").tokens_s(64)
    weights = 16 * sum(n * k for n, k in LAYER)
    saved_s = weights * (2 - catalogue.scheme("w4a16").weight_bytes) / tables_of.BYTES_S
    assert kernels(folder).tokens_s(1) - kernels(folder, "w4a16").tokens_s(1) == pytest.approx(saved_s, rel=0.02)
    awq_s, bf16_s, w4a16_s = (kernels(folder, name).tokens_s(4096) for name in ("awq-int4", "bf16", "w4a16"))
    assert w4a16_s < bf16_s < awq_s


def test_off_hopper_another_frameworks_ratio_is_borrowed(tmp_path):
    tables_of.write_tables(tmp_path, "a100", "NVIDIA A100-SXM4-80GB", formats=("bfloat16",))
    a100 = OpTables(tmp_path, "A100-80GB")
    with pytest.raises(CalibrationError, match="no kernel tables for awq-int4 on A100-80GB"):
        Products(a100, catalogue.scheme("awq-int4"))
    rows = pd.read_parquet(tmp_path / "a100/gemm/vllm/0.19.0/gemm_perf.parquet")
    theirs = pd.concat([rows.assign(latency=1.0), rows.assign(gemm_dtype="int4_wo", latency=0.25 + rows["m"] / 4096)])
    (tmp_path / "a100/gemm/trtllm/1.0.0").mkdir(parents=True)
    theirs.to_parquet(tmp_path / "a100/gemm/trtllm/1.0.0/gemm_perf.parquet")
    products = Products(a100, catalogue.scheme("awq-int4"), OpTables(tmp_path, "A100-80GB", "trtllm"))
    assert products.of(4096, 4096).at(1024) == pytest.approx(0.5 * gemm_s(1024, 4096, 4096))
    assert products.plain(4096, 4096).at(1024) == pytest.approx(gemm_s(1024, 4096, 4096))


def test_the_fit_reproduces_its_steps_and_says_what_it_covers(folder):
    limits = Limits(max_num_batched_tokens=4096, max_num_seqs=512, kv_tokens=200_000, max_model_len=16384)
    found = composed(kernels(folder), limits, Overhead(0.5e-3))
    assert found.step.launch_ms == 0.5
    assert found.median < 0.01
    assert found.p90 < 0.03
    assert found.range.tokens == (1, 4096)
    assert found.range.decode_seqs == (0, 512)
    assert found.range.decode_context_tokens[1] <= 200_000
    assert found.step.decode_context_token_ns == pytest.approx(16 * tables_of.CONTEXT_S * 1e9, rel=0.01)
    assert found.step.prefill_pair_ns == pytest.approx(16 * tables_of.PAIR_S * 1e9, rel=0.05)


def test_the_fit_predicts_as_the_engine_will_read_it(folder):
    limits = Limits(4096, 512, 200_000, 16384)
    calibration = from_op_tables(folder, named_replica("Llama-3.2-1B", "bf16", "H100"), "someone")
    model = FittedStepTime(calibration)
    batches = composed_batches(kernels(folder).sizes, limits)
    padded = [batch for batch in batches if batch.prefill_seqs or batch.decode_seqs in calibration.step.graph_sizes]
    expected = predicted_s(calibration.step, np.array([astuple(batch) for batch in padded], dtype=float))
    assert [model.duration_s(batch) for batch in padded] == pytest.approx(expected.tolist(), rel=1e-9)


def test_a_calibration_says_what_it_rests_on(folder):
    replica = named_replica("Llama-3.2-1B", "bf16", "H100", 2)
    calibration = from_op_tables(folder, replica, "someone (licence)", "2026-11-22")
    assert (calibration.model, calibration.gpu, calibration.tensor_parallel) == ("Llama-3.2-1B", "H100", 2)
    assert (calibration.basis, calibration.vllm) == ("composed", "0.19.0")
    assert calibration.step.launch_ms == pytest.approx((LAUNCH_S + CPU_S) * 1e3)
    assert {row.retrieved for row in calibration.provenance} == {"2026-11-22"}
    assert any("comm kernels" in row.what for row in calibration.provenance)
    assert any("interpolated" in note for note in calibration.notes)
    one = from_op_tables(folder, named_replica("Llama-3.2-1B", "w8a8-int8", "H100"), "someone")
    assert one.basis == "proxy"
    assert one.error.bias_sd > calibration.error.bias_sd


def test_draws_move_large_batches_together_and_more_than_decode_steps(folder):
    calibration = from_op_tables(folder, named_replica("Llama-3.2-1B", "bf16", "H100"), "someone")
    rng = np.random.default_rng(0)
    drawn = [FittedStepTime(calibration.drawn(rng)) for _ in range(200)]
    decode, prefill = Batch(0, 0, 0, 32, 32_000, 32), Batch(1, 4096, pairs(4096, 0), 0, 0, 1)
    decode_sd, prefill_sd = (
        float(np.std([np.log(model.duration_s(batch)) for model in drawn])) for batch in (decode, prefill)
    )
    assert decode_sd == pytest.approx(calibration.error.bias_sd, rel=0.15)
    assert prefill_sd > 1.5 * decode_sd


def test_what_vllm_refuses_is_refused(folder):
    with pytest.raises(UsageError, match="tensor_parallel"):
        kernels(folder, tp=3)
    with pytest.raises(CatalogueError, match="unknown"):
        named_replica("no-such-model", "bf16", "H100")
    with pytest.raises(CalibrationError, match="no kernel tables for mxfp4"):
        kernels(folder, "mxfp4")
