"""The scenarios that ship, on public traces (beside the project, never in it)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRACES = ROOT.parent / "shared/data/traces"
CONVERSATION = TRACES / "AzureLLMInferenceTrace_conv.csv"
CODE = TRACES / "AzureLLMInferenceTrace_code.csv"
MOONCAKE = TRACES / "conversation_trace.jsonl"
SERVEGEN = TRACES / "servegen_deepseek-r1.tar.xz"

pytestmark = pytest.mark.skipif(not TRACES.is_dir(), reason=f"no public traces in {TRACES}")


def results(simroute, scenario, *arguments):
    done = simroute("run", str(ROOT / "scenarios" / scenario), "--json", *arguments)
    assert done.code == 0, done.err
    return json.loads(done.out)


def conserved(summary, requests):
    for policy in summary["policies"].values():
        counts = policy["requests"]
        assert counts["arrived"] == requests
        assert counts["completed"] + counts["rejected"] + counts["unfinished"] == requests


def test_azure_conversation_and_code_merged_each_tagged(simroute):
    tags = ("traffic.traces[0].request_class=chat", "traffic.traces[1].request_class=coding")
    heads = ("traffic.traces[0].head=900", "traffic.traces[1].head=600")
    changes = [argument for change in (*tags, *heads) for argument in ("--set", change)]
    summary = results(simroute, "mixed_traffic.yaml", "--trace", str(CONVERSATION), "--trace", str(CODE), *changes)
    conserved(summary, 1500)
    assert len(summary["policies"]) == 7
    by_class = summary["policies"]["quant_aware"]["by_class"]
    assert {name: part["requests"]["arrived"] for name, part in by_class.items()} == {"chat": 900, "coding": 600}


def test_mooncake_on_the_fleet_sized_for_it(simroute):
    summary = results(simroute, "mooncake.yaml", "--trace", str(MOONCAKE), "--set", "traffic.traces[0].head=800")
    conserved(summary, 800)
    assert summary["policies"]["least_requests"]["prefix_hit_rate"] > 0


def test_ten_minutes_of_a_reasoning_day(simroute):
    window = ("--set", "traffic.traces[0].window_s=[39600,40200]", "--policy", "least_requests")
    summary = results(simroute, "reasoning_day.yaml", "--trace", str(SERVEGEN), *window)
    conserved(summary, 9_797)
    assert summary["policies"]["least_requests"]["stability"] == "STABLE"


def test_a_fleet_too_small_says_so(simroute):
    changes = ("--set", "traffic.traces[0].head=3000", "--set", "traffic.traces[0].rate_scale=50")
    summary = results(simroute, "mooncake.yaml", "--trace", str(MOONCAKE), "--policy", "random", *changes)
    policy = summary["policies"]["random"]
    assert policy["stability"] == "OVERLOADED"
    assert policy["ttft_s"]["p99"] is None
