"""From scenario to trace, pools and targets."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import get_args

import pytest

from simroute.engine.config import EngineConfig
from simroute.errors import UsageError
from simroute.results.slo import Slo
from simroute.scenario.build import build
from simroute.scenario.models import EngineSpec, KvCacheDtype
from simroute.scenario.quality import Named, quality_table

ROW = {"model": "Qwen3-8B", "quantization": "fp8", "request_class": "extraction", "mean": 0.8, "note": "a guess"}


@pytest.fixture
def built(reading, data):
    return lambda **changes: build(reading(data | changes).scenario)


def test_traces_are_cut_then_scaled_then_tagged_then_merged(built):
    sources = [
        {"path": "trace.csv", "window_s": [5, 15], "head": 4, "rate_scale": 2, "request_class": "chat", "tier": "gold"},
        {"path": "trace.csv", "head": 2, "priority": 3},
    ]
    trace = built(traffic={"traces": sources, "rate_scale": 2}).trace
    # The window's four first requests, one a second, at 2 x 2 the speed; the other file's first two at 2 x the speed.
    assert trace.arrival_s.tolist() == [0.0, 0.0, 0.25, 0.5, 0.5, 0.75]
    assert trace.input_tokens.tolist() == [105, 100, 106, 107, 101, 108]
    assert [trace.class_names[code] for code in trace.class_code] == ["chat", "coding", "chat", "chat", "chat", "chat"]
    assert [trace.tier_names[code] for code in trace.tier_code].count("gold") == 4
    assert trace.priority.tolist() == [0, 3, 0, 0, 3, 0]


def test_a_trace_that_is_drawn_has_its_own_window_and_seed(built, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "chunk-1-trace.csv").write_text("0,0.1,1,Gamma,1,1\n600,0.2,1,Gamma,1,1\n")
    lengths = json.dumps({"0": {"input_tokens": "{5: 1}", "output_tokens": "{7: 1}"}})
    (tmp_path / "set" / "chunk-1-dataset.json").write_text(lengths)

    def arrivals(**changes):
        return built(traffic={"traces": [{"path": "set"} | changes]}, seed=9).trace.arrival_s.tolist()

    assert len(arrivals(window_s=[600, 1200], seed=4)) == 120
    assert arrivals(seed=4) == arrivals(seed=4)
    assert arrivals(seed=4) != arrivals() == arrivals(seed=0)


@pytest.fixture
def mooncake(tmp_path):
    """A trace whose prefix blocks are of 512 tokens, in Mooncake's format."""
    row = {"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}
    (tmp_path / "mooncake.jsonl").write_text(json.dumps(row) + "\n")
    return {"traces": [{"path": "mooncake.jsonl"}]}


def test_kv_blocks_must_fit_the_traces_prefixes_where_they_are_cached(built, data, mooncake):
    data["pools"].append(data["pools"][0] | {"name": "second", "engine": {"block_size": 48}})
    with pytest.raises(UsageError, match=r"^pools\[1\].engine: block_size 48 does not fit .* blocks of 512 tokens"):
        built(traffic=mooncake)
    data["pools"][1]["engine"]["enable_prefix_caching"] = False
    assert [pool.engine.block_size for pool in built(traffic=mooncake).pools] == [16, 48]


def test_every_kv_cache_type_of_the_schema_is_sized(built, data):
    blocks = {}
    for name in get_args(KvCacheDtype):
        data["pools"][0]["kv_cache_dtype"] = name
        blocks[name] = built().pools[0].engine.num_gpu_blocks
    assert blocks["auto"] == blocks["bfloat16"] == blocks["float16"]
    assert blocks["fp8"] == blocks["fp8_e4m3"] == blocks["fp8_e5m2"] == pytest.approx(2 * blocks["auto"], abs=1)


def test_every_engine_setting_can_be_asked_for(built, data):
    sized = {"num_gpu_blocks"}  # of the pool
    assert set(EngineSpec.model_fields) == {f.name for f in fields(EngineConfig)} - sized
    asked = {"max_num_active_seqs": 7, "long_prefill_token_threshold_adaptive": True}
    data["pools"][0]["engine"] = asked
    engine = built().pools[0].engine
    assert {name: getattr(engine, name) for name in asked} == asked


def test_targets_and_floors_fall_back_to_default(built):
    classes = {"default": {"slo": {"ttft_s": 2}, "quality_floor": 0.5}, "chat": {"slo": {"tpot_s": 0.1}}}
    found = built(classes=classes | {"coding": {"quality_floor": 0}})
    assert found.slo == {"default": Slo(ttft_s=2), "chat": Slo(tpot_s=0.1)}
    assert found.quality_floor == {"default": 0.5, "chat": 0.5, "coding": 0.0}


def test_a_pool_carries_price_memory_and_quality(built, data):
    data["pools"][0] |= {"price": {"usd_per_gpu_hour": 1.5}, "tensor_parallel": 2, "num_gpu_blocks": 9000}
    found = built(quality=[ROW])
    (pool,) = found.pools
    assert pool.gpus_per_replica == 2
    assert pool.variant.usd_per_hour == 3.0
    assert pool.engine.num_gpu_blocks == 9000
    assert found.quality("only", "chat") is not None  # published
    assert found.quality("only", "extraction") is None  # assumed, but no request and no class asks for it
    assert found.assumptions == ()


def test_assumptions_that_matter_are_stated(built):
    found = built(quality=[ROW], classes={"extraction": {"quality_floor": 0.7}})
    assert found.quality("only", "extraction") == (0.8, 0.8, 0.8)
    assert found.stated() == ("assumed: quality of Qwen3-8B fp8 for extraction is 0.8 (0.8 to 0.8): a guess",)


def test_a_context_larger_than_the_cache_is_cut_to_it_and_said(built, data):
    data["pools"][0] |= {"num_gpu_blocks": 101}
    found = built()
    assert found.pools[0].engine.max_model_len == 1600
    assert "pool only: max_model_len is 1,600, all that its KV cache holds" in found.notes


def test_published_recovery_is_a_fraction_of_what_is_known_of_the_16_bit_model(reading, data):
    base = {"model": "Llama-3.1-8B", "quantization": "bf16", "request_class": "coding", "mean": 0.6, "note": "card"}
    quality = reading(data | {"quality": [base]}).scenario.quality.assumed
    row = quality_table([Named("Llama-3.1-8B", "w4a16")], quality).find(Named("Llama-3.1-8B", "w4a16"), "coding")
    assert row is not None
    assert row.assumed
    assert row.mean == pytest.approx(0.6 * (0.997 + 0.974) / 2)
    assert (row.low, row.high) == (pytest.approx(0.6 * 0.974), pytest.approx(0.6 * 0.997))
    assert quality_table([Named("Llama-3.1-8B", "w4a16")], []).find(Named("Llama-3.1-8B", "w4a16"), "coding") is None


def test_policies_are_built_for_the_fleet(built, data):
    data["pools"].append(data["pools"][0] | {"name": "second", "replicas": 3})
    found = built(policies=["round_robin"])
    policy = found.policy(found.scenario.policies[0], seed=1)
    assert [policy.choose(_request(), []).replica for _ in range(5)] == [0, 1, 2, 3, 0]


def _request():
    from simroute.workload.request import Request

    return Request(0, 0.0, 10, 10)
