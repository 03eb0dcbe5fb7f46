"""Files that vLLM 0.32 and guidellm 0.8.1 wrote themselves, cut to a few requests: a model of four layers on a CPU."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from calibration import synthetic
from simroute.calibration.ingest import guidellm, iteration_log, vllm_serve, vllm_sweep
from simroute.calibration.ingest.described import Described
from simroute.calibration.runs import read_run, write_run
from simroute.calibration.steps import steps_of
from simroute.calibration.validate import chosen_phases, validate
from simroute.errors import CalibrationError, SimrouteError

DATA = Path(__file__).parent / "data"
SETTINGS = {"num_gpu_blocks": 4096, "block_size": 128, "max_num_batched_tokens": 256, "async_scheduling": False}
ENGINE = Described(gpu="cpu", scheme="bf16", vllm="0.32.0", settings=SETTINGS)
CALIBRATION = synthetic.calibration(model="tiny", step={"launch_ms": 2.0, "gemm_ms": {1: 0.5, 256: 20.0}})


def validated(run, folder):
    """The phases of validation.json, from the run as it is read back."""
    write_run(run, folder)
    again = read_run(folder)
    return validate(CALIBRATION, again, chosen_phases(again), replicates=0).document["phases"]


def test_bench_serve(tmp_path):
    run = vllm_serve.read(DATA / "vllm_bench_serve.json", ENGINE)
    assert run.meta.model == "tiny"
    result = json.loads((DATA / "vllm_bench_serve.json").read_text())
    e2e_s = run.requests["finish_s"] - run.requests["arrival_s"]
    assert e2e_s.to_numpy() == pytest.approx(result["latencies"], abs=1e-4)
    assert (run.requests["chunk_s"].map(len) == run.requests["output_tokens"]).all()  # a token a chunk
    (phase,) = validated(run, tmp_path).values()
    assert phase["requests"] == {"sent": 12, "compared": 12}
    assert phase["metrics"]["ttft_s"]["mean"]["measured"] == pytest.approx(np.mean(result["ttfts"]), abs=1e-6)
    assert phase["metrics"]["itl_s"]["p50"]["measured"] > 0


def test_bench_serve_in_a_closed_loop(tmp_path):
    run = vllm_serve.read(DATA / "vllm_bench_serve_closed.json", ENGINE)
    assert run.meta.notes[0].startswith("vllm_bench_serve_closed.json: a closed loop of 4")
    in_flight = [(run.requests["arrival_s"] <= t).sum() - (run.requests["finish_s"] < t).sum()
                 for t in run.requests["arrival_s"]]  # fmt: skip
    assert max(in_flight) <= 4
    validated(run, tmp_path)


def test_bench_serve_without_details():
    with pytest.raises(SimrouteError, match="run `vllm bench serve` with --save-result --save-detailed"):
        vllm_serve.read(DATA / "vllm_bench_serve_plain.json", ENGINE)


def test_bench_serve_that_appended(tmp_path):
    text = (DATA / "vllm_bench_serve.json").read_text()
    (tmp_path / "two.json").write_text(text + text)
    with pytest.raises(CalibrationError, match=r"more than one result \(--append-result\): give each a file"):
        vllm_serve.read(tmp_path / "two.json", ENGINE)


def test_sweep(tmp_path):
    runs = vllm_sweep.read(DATA / "vllm_bench_sweep", ENGINE)
    assert {name: run.meta.max_num_seqs for name, run in runs.items()} == {"max_num_seqs=4": 4, "max_num_seqs=8": 8}
    for name, run in runs.items():
        assert list(validated(run, tmp_path / name)) == ["request_rate=3 run=0", "request_rate=6 run=0"]


def test_guidellm(tmp_path):
    run = guidellm.read(DATA / "guidellm.json", ENGINE)
    assert run.meta.model == "tiny"
    assert run.meta.notes[0].startswith("0-concurrent: a closed loop")
    requests = run.requests
    assert requests["ok"].tolist() == [True, True, True, False, False]
    assert requests["output_tokens"].tolist() == [300] * 5  # those cut off had asked for as many
    (phase,) = validated(run, tmp_path).values()
    assert phase["requests"] == {"sent": 5, "compared": 3}
    report = json.loads((DATA / "guidellm.json").read_text())
    first = report["benchmarks"][0]["requests"]["successful"][0]
    assert requests["input_tokens"][0] == first["prompt_tokens"]
    timings = first["info"]["timings"]
    assert requests["finish_s"][0] - requests["arrival_s"][0] == pytest.approx(
        timings["last_token_iteration"] - timings["request_start"]
    )


def test_guidellm_in_which_nothing_succeeded():
    with pytest.raises(CalibrationError, match=r"no successful requests: 1 failed, the first with: ValueError.*empty"):
        guidellm.read(DATA / "guidellm_errored.json", ENGINE)


def test_iteration_log():
    """The plug-in recorded the same steps: the contexts that are derived agree to what the log can tell."""
    run = iteration_log.read(DATA / "iteration_log.txt", Described(gpu="cpu", scheme="bf16"))
    meta = run.meta
    assert (meta.vllm, meta.model, meta.tensor_parallel, meta.async_scheduling) == ("0.32.0", "tiny", 1, False)
    assert (meta.num_gpu_blocks, meta.block_size) == (4096, 128)
    assert (meta.max_num_seqs, meta.max_num_batched_tokens, meta.max_model_len) == (8, 256, 1024)
    assert not meta.enable_prefix_caching
    assert "which it tells to 524 tokens" in meta.notes[0]
    truth = [step for step in json.loads((DATA / "iteration_log_steps.json").read_text()).values() if step[0] == 8]
    steps = run.iterations[run.iterations["decode_seqs"] == 8]
    assert len(steps) >= len(truth) - 2
    derived = steps["decode_context_tokens"].to_numpy()
    assert np.abs(derived - np.array([context for _, context, _ in truth])[: len(derived)]).max() < 524
    assert (steps["service_s"].to_numpy() <= [service for _, _, service in truth[: len(steps)]]).all()


def test_steps_that_a_log_leaves_out_are_no_part_of_others():
    run = iteration_log.read(DATA / "iteration_log.txt", Described(gpu="cpu", scheme="bf16"))
    assert len(run.iterations) < 40
    assert steps_of([run]).duration_s == pytest.approx(run.iterations["service_s"].to_numpy(), rel=1e-6)
