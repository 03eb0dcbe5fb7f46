"""Against a real vLLM: the plug-in in an unmodified engine, and a whole measurement of a model of random weights."""

from __future__ import annotations

import json
import os

import pytest

from simroute.calibration.measure.describe import Names
from simroute.calibration.measure.load import Lengths
from simroute.calibration.measure.server import Launch
from simroute.calibration.measure.session import Plan, Target, measure

PYTHON = os.environ.get("SIMROUTE_VLLM_PYTHON")
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256, "intermediate_size": 512,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 2048,
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
    "hidden_act": "silu", "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not PYTHON, reason="SIMROUTE_VLLM_PYTHON does not name a Python with vLLM and simroute"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vllm")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    limits = ("--max-num-seqs", "8", "--max-num-batched-tokens", "256", "--max-model-len", "1024")
    launch = Launch("tiny", folder / "config.json", dummy_weights=True, args=limits, python=str(PYTHON))
    plan = Plan(loads=(0.5,), budget_s=25.0, lengths=Lengths(40, 10))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB; on a CPU, vLLM asks for nearly all memory otherwise
        return measure(Target(launch), plan, folder / "run", Names(), lambda *_: None)


def test_the_engine_tells_what_it_is(run):
    meta = run.meta
    assert (meta.max_num_seqs, meta.max_num_batched_tokens, meta.max_model_len) == (8, 256, 1024)
    assert meta.hf_config["hidden_size"] == 256
    assert (meta.scheme, meta.dummy_weights) == ("bf16", True)
    assert meta.vllm != "unknown"


@pytest.mark.parametrize("name", ["sweep-prefill", "sweep-decode", "sweep-mixed", "load-0.5"])
def test_no_token_is_lost(run, name):
    phase = run.phase(name)
    assert phase.requests["ok"].all()
    assert phase.iterations["sampled_seqs"].sum() == phase.requests["output_tokens"].sum()
    assert phase.iterations["prefill_tokens"].sum() <= phase.requests["input_tokens"].sum()  # the rest was cached


def test_prefixes_hit_the_cache_as_designed(run):
    alone = run.phase("sweep-prefill").iterations
    assert alone["prefill_context_tokens"].max() > 0


def test_a_client_sees_a_token_after_the_step_that_made_it(run):
    phase = run.phase("load-0.5")
    iterations, requests = phase.iterations, phase.requests
    first_output_s = (iterations["t_s"] + iterations["sched_s"] + iterations["service_s"]).min()
    assert requests["first_token_s"].min() > first_output_s
    assert (requests["first_token_s"] > requests["arrival_s"]).all()
