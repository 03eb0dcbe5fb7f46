"""Deployable output: every simulated setting is there in vLLM's flags, files parse, names are safe, gaps are said."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess

import pytest
import yaml
from planner.plans import ENGINE, big_pool, document, infeasible, plan, pool

from simroute.errors import CatalogueError, UsageError
from simroute.planner.emit import KINDS, emit
from simroute.planner.emit.common import comment, servers, slug
from simroute.planner.emit.flags import engine_flags, unsaid, weights
from simroute.planner.emit.routing import routing
from simroute.policy.routing import POLICIES

# Flags of vLLM 0.32, read off its parser.
VLLM_FLAGS = {
    "--host", "--port", "--served-model-name", "--dtype", "--quantization", "--tensor-parallel-size", "--max-model-len",
    "--max-num-seqs", "--max-num-batched-tokens", "--block-size", "--gpu-memory-utilization", "--kv-cache-dtype",
    "--scheduling-policy", "--enable-prefix-caching", "--no-enable-prefix-caching", "--enable-chunked-prefill",
    "--no-enable-chunked-prefill", "--async-scheduling", "--no-async-scheduling", "--max-num-active-seqs",
    "--long-prefill-token-threshold", "--long-prefill-token-threshold-adaptive", "--no-scheduler-reserve-full-isl",
    "--watermark",
}  # fmt: skip


def test_every_engine_setting_of_the_simulator_has_a_flag_or_a_reason():
    from dataclasses import fields

    from simroute.engine.config import EngineConfig

    assert set(ENGINE) == {field.name for field in fields(EngineConfig)} | {
        "gpu_memory_utilization",
        "kv_cache_dtype",
        "kv_source",
    }
    assert not any("no flag of vLLM" in line for line in unsaid(pool()))


def test_settings_become_the_flags_they_are():
    flags = engine_flags(big_pool())
    assert flags == [
        *("--tensor-parallel-size", "2", "--max-model-len", "16384", "--max-num-seqs", "128"),
        *("--max-num-batched-tokens", "8192", "--block-size", "16", "--gpu-memory-utilization", "0.92"),
        *("--kv-cache-dtype", "auto", "--scheduling-policy", "fcfs"),
        *("--no-enable-prefix-caching", "--enable-chunked-prefill", "--no-async-scheduling"),
    ]


def test_newer_settings_are_said_only_where_they_differ_from_vllms_default():
    odd = ENGINE | {
        "max_num_active_seqs": 64,
        "long_prefill_token_threshold": 2048,
        "long_prefill_token_threshold_adaptive": True,
        "scheduler_reserve_full_isl": False,
        "watermark": 0.01,
    }
    flags = engine_flags(pool(engine=odd))
    assert flags[-8:] == [
        *("--max-num-active-seqs", "64", "--long-prefill-token-threshold", "2048"),
        *("--long-prefill-token-threshold-adaptive", "--no-scheduler-reserve-full-isl", "--watermark", "0.01"),
    ]
    assert any("at vLLM's defaults, as simulated" in line for line in unsaid(pool()))
    assert not any("at vLLM's defaults" in line for line in unsaid(pool(engine=odd)))


def test_a_setting_without_a_flag_is_said_and_not_dropped():
    lines = list(unsaid(pool(engine=ENGINE | {"novelty": 3})))
    assert "simulated, but no flag of vLLM is known for: novelty=3" in lines
    assert "21,000 KV blocks (336,000 tokens)" in lines[0]


@pytest.mark.parametrize(
    ("scheme", "gpu", "model", "flags"),
    [
        ("bf16", "H100", "meta-llama/Llama-3.1-8B-Instruct", ("--dtype", "bfloat16")),
        ("fp16", "T4", "meta-llama/Llama-3.1-8B-Instruct", ("--dtype", "float16")),
        ("fp8", "H100", "meta-llama/Llama-3.1-8B-Instruct", ("--quantization", "fp8_per_tensor")),
        ("awq-int4", "H100", None, ()),
        ("gptq-int4", "T4", None, ("--dtype", "float16")),
        ("w4a16", "A100", None, ()),
        ("w8a8-int8", "A100", None, ()),
        ("nvfp4", "B200", None, ()),
    ],
)
def test_a_scheme_asks_for_its_own_checkpoint_and_no_repository_is_invented(scheme, gpu, model, flags):
    loaded = weights(pool(quantization=scheme, gpu=gpu))
    assert (loaded.model, loaded.flags) == (model, flags)
    assert "meta-llama/Llama-3.1-8B-Instruct" in loaded.words
    if model is None:
        assert "quantized already" in loaded.words


def test_a_checkpoint_that_the_plan_names_is_taken_and_a_native_scheme_needs_none():
    assert weights(pool(quantization="awq-int4", checkpoint="/models/mine")).model == "/models/mine"
    native = weights(pool(model="gpt-oss-20b", quantization="mxfp4", gpu="H100"))
    assert (native.model, native.flags) == ("openai/gpt-oss-20b", ())
    assert weights(pool(model="mine/config.json", quantization="bf16")).model is None


def test_an_unknown_kind_or_gpu_and_an_empty_plan_are_one_clear_line():
    with pytest.raises(UsageError, match="--emit k9s: unknown kind 'k9s': did you mean k8s"):
        emit("k9s", plan(), document())
    with pytest.raises(UsageError, match="no pools"):
        emit("vllm", plan([]), document())
    with pytest.raises(CatalogueError, match="H1000"):
        emit("vllm", plan([pool(gpu="H1000")]), document())


@pytest.mark.parametrize("kind", KINDS)
def test_every_flag_is_one_of_vllms_and_every_pool_is_there(kind):
    texts = emit(kind, plan(), document())
    whole = "".join(texts.values())
    code = re.sub(r"^\s*#.*$", "", whole, flags=re.MULTILINE)
    own = {"--service-discovery", "--static-backends", "--static-models", "--routing-logic"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", code)) <= VLLM_FLAGS | own
    for said in ("small-fp8", "large", "LLAMA_3_3_70B_AWQ_INT4", "quant_aware", "vLLM 0.32", "$17,75"):
        assert said in whole


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_plan_gives_the_same_files_and_every_yaml_parses(kind):
    texts = emit(kind, plan(), document())
    assert texts == emit(kind, plan(), document())
    for name, text in texts.items():
        assert text.endswith("\n")
        if name.endswith(".yaml"):
            assert all(isinstance(part, dict) for part in yaml.safe_load_all(text))


@pytest.mark.parametrize("kind", KINDS)
def test_names_cannot_break_out_of_comments_files_or_yaml(kind):
    hostile = "x: y\n$(touch /tmp/owned) `id` '\"; #\nkind: Secret"
    texts = emit(kind, plan([pool(name=hostile, model=hostile, quantization="bf16")]), document(name=hostile))
    for name, text in texts.items():
        assert re.fullmatch(r"[a-z0-9.-]+", name)
        if name.endswith(".yaml"):
            parts = [part for part in yaml.safe_load_all(text) if part]
            assert all(part.get("kind") != "Secret" for part in parts)
        else:
            check = subprocess.run(["sh", "-n"], input=text, text=True, capture_output=True, check=False)
            assert check.returncode == 0, check.stderr


def test_a_script_runs_vllm_with_its_flags_and_asks_for_a_checkpoint(tmp_path):
    fake = tmp_path / "vllm"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    texts = emit("vllm", plan(), document())
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PORT": "8123"}

    def start(name, **variables):
        command = [shutil.which("sh"), "-s", "--", "--seed", "1"]
        given = environment | variables
        return subprocess.run(command, input=texts[name], text=True, capture_output=True, env=given, check=False)

    small = start("serve-small-fp8.sh")
    assert small.stdout.split()[:6] == [
        "serve",
        "meta-llama/Llama-3.1-8B-Instruct",
        "--host",
        "0.0.0.0",
        "--port",
        "8123",
    ]
    assert small.stdout.split()[-2:] == ["--seed", "1"]
    refused = start("serve-large.sh")
    assert refused.returncode != 0
    assert "a checkpoint of meta-llama/Llama-3.3-70B-Instruct" in refused.stderr
    assert "/models/70b" in start("serve-large.sh", LLAMA_3_3_70B_AWQ_INT4="/models/70b").stdout


def test_clients_ask_for_one_name_whichever_replica_answers():
    mixed = servers(plan(), document())
    assert [server.names for server in mixed] == [("chat-and-code", "small-fp8"), ("chat-and-code", "large")]
    (alone,) = servers(plan([pool()]), document())
    assert alone.names == ("meta-llama/Llama-3.1-8B-Instruct", "small-fp8")


def test_pools_with_alike_names_stay_apart_and_names_are_safe():
    found = servers(plan([pool(name="A b"), pool(name="a-b"), pool(name="a_b"), pool(name="70B")]), document())
    names = [server.name for server in found]
    assert len(set(names)) == 4
    assert all(re.fullmatch(r"[a-z][a-z0-9-]{0,39}", name) for name in names)
    assert slug("x" * 99) == "x" * 40
    assert slug("7" * 99) == f"pool-{'7' * 35}"


def test_a_plan_that_misses_its_targets_says_so_in_every_file():
    missed = infeasible()
    for kind in KINDS:
        assert all(
            "WARNING: this plan does not meet" in text for text in emit(kind, missed["nearest"], missed).values()
        )


def test_comments_wrap_and_stay_comments():
    lines = comment(["a" * 60 + " " + "b" * 60, "two\nlines", ""]).splitlines()
    assert lines == [f"# {'a' * 60}", f"#   {'b' * 60}", "# two lines", "#"]


@pytest.mark.parametrize(
    ("policy", "logic", "exact"),
    [
        ("round_robin", "roundrobin", True),
        ("random", "roundrobin", False),
        ("session_affinity", "session", False),
        ("prefix_affinity", "prefixaware", False),
        ("prefix_precise", "prefixaware", False),
        ("least_requests", "roundrobin", False),
    ],
)
def test_policies_map_to_the_routers_nearest_and_say_what_differs(policy, logic, exact):
    made = plan(policy=policy)
    chosen = routing(made, servers(made, document()))
    assert (chosen.logic, chosen.exact) == (logic, exact)
    assert policy in " ".join(chosen.words)


def test_every_policy_has_an_answer_and_one_replica_needs_none():
    for policy in POLICIES:
        made = plan(policy=policy, options={"margin": 0.2})
        assert routing(made, servers(made, document())).logic in {"roundrobin", "session", "prefixaware"}
    alone = plan([pool(replicas=1)], policy="oracle")
    assert routing(alone, servers(alone, document())).exact


def test_scripts_quote_what_a_shell_would_read():
    text = emit("vllm", plan([pool(checkpoint="/models/my weights; rm")]), document())["serve-small-fp8.sh"]
    assert shlex.quote("/models/my weights; rm") in text


def test_the_documentation_lists_every_kind_and_policy_and_its_example_runs():
    import doctest
    from pathlib import Path

    page = Path(__file__).resolve().parents[2] / "docs/deploying.md"
    assert doctest.testfile(str(page), module_relative=False, encoding="utf-8").failed == 0
    text = page.read_text("utf-8")
    for name in (*KINDS, *ENGINE.keys() - {"kv_source"}):
        assert f"`{name}`" in text, name
    for policy, logic in re.findall(r"^\| `(\w+)` \| `(\w+)`", text, re.MULTILINE):
        if policy in POLICIES:
            made = plan(policy=policy)
            assert routing(made, servers(made, document())).logic == logic
