"""One replica from its name: memory, saturation and latency against oracles, what is refused, the command, the page."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import simroute
from simroute.calibration.capability.candidates import Candidate
from simroute.calibration.capability.matrix import Load, capacity_rps
from simroute.cli.main import main
from simroute.errors import CapacityError, CatalogueError, UsageError
from simroute.hardware.steptime import Batch
from simroute.planner.capacity import Capacity, capacity, saturation_rps
from simroute.scenario.models import EngineSpec, PoolSpec
from simroute.scenario.variants import pool_of, variant_of

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/capacity.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def small() -> Capacity:
    return capacity("Llama-3.1-8B", "L40S", quantization="fp8", loads=(0.1, 0.5, 0.95))


def test_it_is_public():
    assert simroute.capacity is capacity


def test_memory_and_seats_are_those_of_a_scenario(small: Capacity):
    variant = variant_of(PoolSpec(name="x", model="Llama-3.1-8B", quantization="fp8", gpu="L40S"))
    document = small.document()
    assert document["memory"]["weight_bytes"] == pytest.approx(variant.capacity.weight_bytes)
    assert document["kv_tokens"] == variant.capacity.usable_tokens
    assert document["max_concurrency"] == min(variant.engine.max_num_seqs, variant.capacity.usable_tokens // 1280)


def test_one_seat_and_one_token_saturate_at_the_rate_of_the_prefill():
    engine = EngineSpec(max_num_seqs=1, max_num_batched_tokens=2048, async_scheduling=False)
    pool = pool_of(variant_of(PoolSpec(name="x", model="Llama-3.1-8B", gpu="L40S", engine=engine)), {})
    prompt = 1000
    step_s = pool.step_time.duration_s(Batch(1, prompt, prompt * (prompt + 1) // 2, 0, 0, 1))
    assert saturation_rps(replace(pool, engine=pool.engine), prompt, 1) == pytest.approx(1 / step_s, rel=1e-6)


def test_saturation_agrees_with_the_closed_loop_of_the_capability_matrix(small: Capacity):
    candidate = Candidate("x", small.pool, "auto", small.variant.capacity, None)
    assert small.requests_per_s == pytest.approx(capacity_rps(candidate, Load(1.0, 1024, 256)), rel=0.1)


def test_latency_grows_with_load_and_cost_falls(small: Capacity):
    low, half, high = small.loads
    assert low.ttft_p99_s < half.ttft_p99_s < high.ttft_p99_s
    assert low.tpot_p50_s < half.tpot_p50_s < high.tpot_p50_s
    assert low.usd_per_1m_output_tokens > half.usd_per_1m_output_tokens > high.usd_per_1m_output_tokens
    assert low.running < half.running < high.running <= small.max_concurrency


def test_below_saturation_all_that_comes_is_served(small: Capacity):
    for point in small.loads:
        assert point.output_tokens_per_s == pytest.approx(256 * point.requests_per_s, rel=0.08)


def test_littles_law_holds_at_every_load(small: Capacity):
    """Running = rate x time in the replica; the mean of TPOT is near its median here."""
    for point in small.loads[:2]:
        residence_s = point.ttft_p50_s + 255 * point.tpot_p50_s
        assert point.running == pytest.approx(point.requests_per_s * residence_s, rel=0.15)


def test_costs_are_the_price_over_the_tokens(small: Capacity):
    saturated = small.document()["saturation"]
    tokens_per_hour = saturated["output_tokens_per_s"] * 3600
    assert saturated["usd_per_1m_output_tokens"] == pytest.approx(small.usd_per_hour / tokens_per_hour * 1e6)
    assert saturated["usd_per_1m_tokens"] == pytest.approx(saturated["usd_per_1m_output_tokens"] / 5)


def test_the_same_arguments_give_the_same_document(small: Capacity):
    again = capacity("llama-3.1-8b", "l40s", quantization="fp8", loads=(0.1, 0.5, 0.95))
    assert json.dumps(small.document()) == json.dumps(again.document())


def test_own_prices_and_published_quantization():
    found = capacity("gpt-oss-20b", "H100", usd_per_gpu_hour=2.0, loads=()).document()
    assert (found["quantization"], found["usd_per_hour"], found["price"]) == ("mxfp4", 2.0, "as given")


def test_without_a_price_costs_are_unknown(monkeypatch):
    monkeypatch.setattr("simroute.hardware.catalogue._prices", lambda: ())
    found = capacity("Qwen3-8B", "L40S", loads=(0.5,)).document()
    assert found["usd_per_hour"] is None
    assert found["saturation"]["usd_per_1m_tokens"] is None
    assert found["loads"][0]["usd_per_1m_output_tokens"] is None
    assert any("no on-demand price of L40S" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"model": "Qwen3-9B", "gpu": "L40S"}, CatalogueError, "unknown model 'Qwen3-9B': did you mean"),
        ({"model": "Qwen3-8B", "gpu": "L41S"}, CatalogueError, "unknown GPU 'L41S'"),
        ({"model": "Llama-3.3-70B", "gpu": "L40S"}, CapacityError, "does not fit"),
        (
            {"model": "Qwen3-8B", "gpu": "L40S", "input_tokens": 0},
            UsageError,
            "input tokens: must be at least 1, got 0",
        ),
        ({"model": "Qwen3-8B", "gpu": "L40S", "input_tokens": 99_999}, UsageError, "do not fit: this replica takes"),
        ({"model": "Qwen3-8B", "gpu": "L40S", "loads": (1.0,)}, UsageError, "below 1"),
        ({"model": "Qwen3-8B", "gpu": "L40S", "tensor_parallel": 0}, UsageError, "tensor_parallel"),
    ],
)
def test_what_is_impossible_is_told_in_one_line(arguments, error, text):
    with pytest.raises(error, match=re.escape(text)) as told:
        capacity(**arguments)
    assert "\n" not in str(told.value)


def test_the_command_prints_the_document(monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["simroute", *shlex.split("capacity Qwen3-8B L40S --input 128 --output 16 --json")]
    )
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    document = json.loads(capsys.readouterr().out)
    assert document["max_concurrency"] == 256
    assert document["limited_by"] == "max_num_seqs"


def test_the_page_shows_what_its_command_prints():
    (command,) = re.findall(r"^```sh\nsimroute (.*)\n```", PAGE, re.MULTILINE)
    (shown,) = re.findall(r"^```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    run = [sys.executable, "-m", "simroute", *shlex.split(command)]
    done = subprocess.run(run, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == shown.strip()


def test_every_key_is_explained(small: Capacity):
    document = small.document()
    named = set(re.findall(r"`(\w+)`", PAGE))
    parts = (document, document["memory"], document["saturation"], document["loads"][0], document["calibration"] or {})
    assert {key for part in parts for key in part} <= named
