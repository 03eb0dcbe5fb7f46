"""KV memory: pieces by hand, refusals, defaults, and measured engines."""

import importlib.util
import statistics
from pathlib import Path

import pytest

from simroute.errors import CapacityError, UsageError
from simroute.hardware import catalogue
from simroute.hardware.footprint import Layout, activation_bytes, captured_graphs
from simroute.hardware.memory import engine_defaults, kv_blocks, kv_token_bytes
from simroute.hardware.weights import (
    allocated_bytes,
    check_shards,
    layer_weight_bytes,
    stage_layers,
    stage_weight_bytes,
    tensor_parallel_sizes,
)
from simroute.units import GIB, MIB

ROOT = Path(__file__).resolve().parents[2]
MEASURED = ROOT.parent / "shared/data/measured/h100_vllm019_kv_memory.csv"
RTX_4090_RUN = {"max_model_len": 32768, "max_num_batched_tokens": 2048, "max_num_seqs": 256}
LLAMA, QWEN, H100 = catalogue.model("llama-3.1-8b"), catalogue.model("qwen2.5-7b"), catalogue.gpu("H100")
BF16, FP8 = catalogue.scheme("bf16"), catalogue.scheme("fp8")
SERVER = {"max_model_len": 8192, "max_num_batched_tokens": 8192, "max_num_seqs": 1024}


def benchmark():
    spec = importlib.util.spec_from_file_location("kv_memory", ROOT / "benchmarks/kv_memory.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Llama-3.2-1B", 1_235_814_400),
        ("Llama-3.1-8B", 8_030_261_248),
        ("Llama-3.1-70B", 70_553_706_496),
        ("Qwen2.5-7B", 7_615_616_512),
        ("Qwen2.5-72B", 72_706_203_648),
        ("Qwen3-8B", 8_190_735_360),
        ("Qwen3-30B-A3B", 30_532_122_624),
        ("Mistral-Small-24B", 23_572_403_200),
        ("Mixtral-8x7B", 46_702_792_704),
    ],
)
def test_weights_are_the_published_parameter_counts(name, parameters):
    """Sizes as the checkpoints' safetensors state them; rotary table and allocator rounding come on top."""
    model = catalogue.model(name)
    (total,) = stage_weight_bytes(model, BF16, 1, 1)
    rotary = model.max_position_embeddings * model.head_dim * 2
    assert total - rotary >= 2 * parameters
    assert total - rotary == pytest.approx(2 * parameters, rel=0.006)


def test_one_llama_layer_by_hand():
    attention = 4096 * (4096 + 2 * 1024) + 4096 * 4096
    feed_forward = 3 * 4096 * 14336
    norms = 2 * 4096
    assert layer_weight_bytes(LLAMA, BF16, 1) == 2 * (attention + feed_forward + norms)
    assert layer_weight_bytes(LLAMA, FP8, 1) == attention + feed_forward + 2 * norms
    grouped = 4 + 0.15625
    expected = (attention + feed_forward) * grouped / 8 + 2 * norms
    assert layer_weight_bytes(LLAMA, catalogue.scheme("awq"), 1) == pytest.approx(expected, rel=1e-9)


def test_only_experts_are_quantized_under_mxfp4():
    model = catalogue.model("gpt-oss-20b")
    difference = layer_weight_bytes(model, BF16, 1) - layer_weight_bytes(model, catalogue.scheme("mxfp4"), 1)
    assert difference == pytest.approx(32 * 3 * 2880 * 2880 * (2 - 4.25 / 8), rel=0.01)


def test_large_tensors_take_whole_segments_unless_the_rest_is_worth_splitting():
    assert allocated_bytes(9.7 * MIB) == 9.7 * MIB
    assert allocated_bytes(31.5 * MIB) == 32 * MIB
    assert allocated_bytes(24.5 * MIB) == 24.5 * MIB
    assert allocated_bytes(231 * MIB) == 232 * MIB


def test_tensor_parallel_shards_weights_and_keeps_norms():
    whole, half = layer_weight_bytes(LLAMA, BF16, 1), layer_weight_bytes(LLAMA, BF16, 2)
    norms = 2 * 4096 * 2
    assert half - norms == pytest.approx((whole - norms) / 2, rel=1e-9)


def test_pipeline_stages_split_layers_as_vllm_does():
    assert stage_layers(32, 4) == (8, 8, 8, 8)
    assert stage_layers(61, 4) == (15, 15, 16, 15)
    assert stage_layers(30, 4) == (7, 8, 8, 7)
    first, middle, last = (stage_weight_bytes(LLAMA, BF16, 1, 4)[i] for i in (0, 1, 3))
    assert first - middle == 128256 * 4096 * 2
    assert last - first == 4096 * 2


def test_a_tied_head_is_stored_once_except_across_a_pipeline():
    model = catalogue.model("llama-3.2-1b")
    head = 128256 * 2048 * 2
    alone = sum(stage_weight_bytes(model, BF16, 1, 1))
    piped = sum(stage_weight_bytes(model, BF16, 1, 2))
    rotary = model.max_position_embeddings * model.head_dim * 2
    assert piped - alone == pytest.approx(head + rotary, abs=MIB)


def test_kv_bytes_of_a_token():
    assert kv_token_bytes(LLAMA, BF16) == 8 * 2 * 128 * 2
    assert kv_token_bytes(LLAMA, BF16, 1, "fp8") == 8 * 2 * 128
    assert kv_token_bytes(QWEN, BF16, 4) == 1 * 2 * 128 * 2
    with pytest.raises(UsageError, match="kv_cache_dtype: must be one of auto"):
        kv_token_bytes(LLAMA, BF16, 1, "int3")


def test_blocks_are_what_is_left_over_bytes_of_a_block():
    capacity = kv_blocks(LLAMA, BF16, H100, **SERVER)
    used = capacity.weight_bytes + capacity.activation_bytes + capacity.graph_bytes + capacity.non_torch_bytes
    assert capacity.kv_bytes == pytest.approx(0.92 * 79.19 * GIB - used, abs=1)
    assert capacity.num_gpu_blocks == capacity.kv_bytes // (32 * 16 * 4096)
    assert capacity.usable_tokens == (capacity.num_gpu_blocks - 1) * 16
    assert capacity.source == "formula"


def test_the_sampler_sets_the_peak_of_many_sequences_and_the_forward_pass_of_few():
    many = activation_bytes(LLAMA, Layout(1, 1, 8192, 1024), last=True)
    few = activation_bytes(LLAMA, Layout(1, 1, 8192, 8), last=True)
    assert many - few > 0.8 * GIB
    assert few == activation_bytes(LLAMA, Layout(1, 1, 8192, 8), last=False)


def test_captured_graphs_of_the_default_server():
    assert captured_graphs(1024) == 2 * 51
    assert captured_graphs(256) == 51 + 35
    assert captured_graphs(1) == 2 + 1


def test_a_measured_block_count_wins():
    capacity = kv_blocks(LLAMA, BF16, H100, num_gpu_blocks_override=2588, **SERVER)
    assert (capacity.num_gpu_blocks, capacity.source) == (2588, "measured")
    assert capacity.kv_bytes == 2588 * 32 * 16 * 4096


def test_a_model_that_does_not_fit_is_refused_with_the_numbers():
    model = catalogue.model("llama-3.3-70b")
    with pytest.raises(CapacityError) as refused:
        kv_blocks(model, BF16, H100, **SERVER)
    assert str(refused.value) == (
        "Llama-3.3-70B bf16 on 1 x H100: does not fit: of 72.85 GiB usable a GPU (of 79.19), weights 131.45, "
        "activations 1.97, CUDA graphs 1.57, non-torch 0.25 GiB are 62.38 GiB too many: "
        "set tensor_parallel 2 or choose a scheme with smaller weights"
    )


def test_a_context_that_does_not_fit_is_refused_with_the_one_that_would():
    layout = {**SERVER, "max_model_len": 131072, "max_num_batched_tokens": 2048, "max_num_seqs": 256}
    with pytest.raises(CapacityError, match=r"max_model_len 131072 needs 16\.00; max_model_len \d+ would fit"):
        kv_blocks(LLAMA, BF16, catalogue.gpu("L4"), **layout)
    with pytest.raises(CapacityError, match="take a GPU with more memory"):
        kv_blocks(catalogue.model("llama-3.1-70b"), catalogue.scheme("fp16"), catalogue.gpu("T4"), **layout)


def test_uneven_splits_are_refused():
    assert tensor_parallel_sizes(QWEN) == [1, 2, 4]
    assert 16 in tensor_parallel_sizes(LLAMA)
    with pytest.raises(UsageError, match=r"tensor_parallel: Qwen2\.5-7B has 28 attention heads and 4 KV heads.*got 8"):
        check_shards(QWEN, 8)
    with pytest.raises(UsageError, match="pipeline_parallel: must be 1 to 28"):
        check_shards(QWEN, 1, 29)
    with pytest.raises(UsageError, match="gpu_memory_utilization"):
        kv_blocks(LLAMA, BF16, H100, gpu_memory_utilization=1.2, **SERVER)


@pytest.mark.parametrize(
    ("gpu", "server", "offline"),
    [
        ("B200", (16384, 1024), (16384, 1024)),
        ("MI300X", (16384, 1024), (16384, 1024)),
        ("H100", (8192, 1024), (16384, 1024)),
        ("RTX-PRO-6000", (8192, 1024), (16384, 1024)),
        ("A100-80GB", (2048, 256), (8192, 256)),
        ("L4", (2048, 256), (8192, 256)),
    ],
)
def test_engine_defaults_follow_vllm(gpu, server, offline):
    assert engine_defaults(catalogue.gpu(gpu)) == server
    assert engine_defaults(catalogue.gpu(gpu), "llm_class") == offline


def test_engine_defaults_refuse_other_uses():
    with pytest.raises(UsageError, match="usage: must be api_server or llm_class, got batch"):
        engine_defaults(H100, "batch")


@pytest.mark.skipif(not MEASURED.is_file(), reason=f"measured engines not found: {MEASURED}")
def test_the_formula_is_within_two_percent_of_every_measured_engine():
    module = benchmark()
    rows = list(module.compare(MEASURED))
    errors = [abs(row.error) for row in rows]
    assert len(rows) == 24
    assert statistics.median(errors) <= 0.005
    assert max(errors) <= 0.02
    for model in {row.model for row in rows}:
        assert max(map(abs, module.held_out_errors(rows, model))) <= 0.05


def test_another_gpu_and_batch_limit_stays_within_ten_percent():
    """vLLM 0.19, Llama-3.1-8B, bf16, RTX 4090, gpu_memory_utilization 0.9: 2,588 blocks (LLMServingSim's run)."""
    capacity = kv_blocks(
        LLAMA,
        BF16,
        catalogue.gpu("RTX 4090"),
        gpu_memory_utilization=0.9,
        subtract_cuda_graphs=False,
        **RTX_4090_RUN,
    )
    assert capacity.num_gpu_blocks == pytest.approx(2588, rel=0.1)
