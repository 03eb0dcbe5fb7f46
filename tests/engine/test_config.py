"""Engine settings: vLLM's defaults, what it clips and what it refuses."""

from __future__ import annotations

import pytest

from simroute.engine.config import EngineConfig
from simroute.errors import UsageError


def test_defaults_are_those_of_the_api_server():
    config = EngineConfig(num_gpu_blocks=1000)
    assert (config.block_size, config.max_num_batched_tokens, config.max_num_seqs) == (16, 8192, 1024)
    assert config.enable_prefix_caching
    assert config.enable_chunked_prefill
    assert config.async_scheduling
    assert config.policy == "fcfs"


def test_seats_are_clipped_to_the_token_budget():
    assert EngineConfig(num_gpu_blocks=1000, max_num_batched_tokens=64, max_num_seqs=256).max_num_seqs == 64


def test_a_context_that_just_fits():
    """128 tokens take 8 blocks of 16; the null block is a ninth."""
    EngineConfig(num_gpu_blocks=9, max_model_len=128)
    with pytest.raises(UsageError, match="max_model_len 128 needs 8 KV blocks of 16 tokens, but only 7 are usable"):
        EngineConfig(num_gpu_blocks=8, max_model_len=128)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"block_size": 0}, "block_size: must be at least 1, got 0"),
        ({"max_num_seqs": 0}, "max_num_seqs: must be at least 1, got 0"),
        ({"max_num_batched_tokens": -1}, "max_num_batched_tokens: must be at least 1, got -1"),
        ({"max_model_len": 0}, "max_model_len: must be at least 1, got 0"),
        ({"max_num_active_seqs": 0}, "max_num_active_seqs: must be at least 1, got 0"),
        ({"long_prefill_token_threshold": -1}, "long_prefill_token_threshold: must be at least 0, got -1"),
        ({"watermark": -0.1}, "watermark: must be at least 0 and below 1, got -0.1"),
        ({"watermark": 1.0}, "watermark: must be at least 0 and below 1, got 1.0"),
        ({"policy": "lifo"}, "policy: must be fcfs or priority, got lifo"),
        ({"enable_chunked_prefill": False, "max_num_batched_tokens": 512}, "enable chunked prefill or raise"),
    ],
)
def test_what_vllm_refuses(settings, complaint):
    with pytest.raises(UsageError, match=complaint):
        EngineConfig(num_gpu_blocks=1000, **settings)
