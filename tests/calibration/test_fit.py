"""From runs to a calibration: what the file says, which runs are refused and why."""

from __future__ import annotations

import json

import numpy as np
import pytest
from calibration.engine_steps import DEFAULT_GRAPHS, Engine, measured
from typer.testing import CliRunner

from simroute.calibration.engines import graph_sizes_of
from simroute.calibration.fit import LONE_BIAS_SD, fit, with_loads
from simroute.calibration.runs import Run, write_run
from simroute.cli.main import app
from simroute.errors import CalibrationError
from simroute.hardware.calibration_file import calibration_text, load_calibration


@pytest.fixture(scope="module")
def run():
    return measured(Engine(sweep_s=-0.2e-3), load_steps=600)


@pytest.fixture(scope="module")
def calibration(run):
    return fit([run], ["abc"]).calibration


def test_the_engine_is_named_as_in_the_catalogue(calibration):
    assert (calibration.model, calibration.scheme, calibration.gpu) == ("Llama-3.1-8B", "fp8", "H100")
    assert (calibration.basis, calibration.vllm, calibration.kv_cache_dtype) == ("measured", "0.26.0", "auto")
    assert calibration.memory is not None
    assert (calibration.memory.num_gpu_blocks, calibration.memory.max_num_seqs) == (30000, 256)


def test_the_range_is_what_was_measured(run, calibration):
    assert calibration.range.tokens == (1, 2048)
    assert calibration.range.decode_seqs == (0, 250)
    pairs = run.iterations["prefill_pairs"]
    assert calibration.range.prefill_pairs == (pairs.min(), pairs.max())


def test_the_error_is_of_unseen_steps_and_of_whole_runs(calibration):
    assert calibration.error.median == pytest.approx(0.6745 * 0.02, rel=0.2)
    # Sweep and load lie log(0.95) apart: two groups, whose standard deviation is that over the root of two.
    assert calibration.error.bias_sd == pytest.approx(-np.log(0.95) / 2**0.5, rel=0.2)


def test_provenance_and_notes(calibration):
    (source,) = calibration.provenance
    assert source.what == "measured run: sweep, load-30"
    assert source.source == "vLLM 0.26.0 on NVIDIA H100 80GB HBM3, dummy weights, 8 cores of a processor"
    assert (source.rows, source.sha256) == (1125, "abc")
    assert any(note.startswith("steps under load took +0.2") for note in calibration.notes)
    assert any("no requests to tell the time outside the engine" in note for note in calibration.notes)


def test_the_same_runs_give_the_same_file(run, calibration):
    assert calibration_text(fit([run], ["abc"]).calibration) == calibration_text(calibration)


def test_a_sweep_alone_is_less_sure_and_says_so():
    found = fit([measured(Engine(), load_steps=0)]).calibration
    assert found.error.bias_sd == LONE_BIAS_SD
    assert "no load was measured: steps under load may take longer than these" in found.notes


def test_several_runs_are_fitted_together_and_their_difference_counts():
    runs = [measured(Engine(), load_steps=400, seed=1, name="a"), measured(Engine(), load_steps=400, seed=2, name="b")]
    runs[1].iterations["service_s"] *= 1.1
    found = fit(runs).calibration
    assert found.error.bias_sd == pytest.approx(0.055, rel=0.25)
    assert len(found.provenance) == 2
    assert found.step.gemm_ms[2048] == pytest.approx(42.0, rel=0.03)


def only(run, rows):
    return Run(run.meta, run.iterations[rows].reset_index(drop=True), run.requests, run.name)


def test_runs_too_small_to_fit_say_what_to_add(run):
    steps = run.iterations
    cases = {
        "decode batches of 1, 2, 4, 8, 16, 32, 64, 128, 256 requests": steps["decode_seqs"] == 0,
        "prefill chunks of 16, 32, 64, 128, 256, 512, 1,024, 2,048 tokens": steps["prefill_seqs"] == 0,
        "decode batches of 1, 2, 4, 16, 32, 64, 128, 256 requests": (steps["decode_seqs"] % 250).isin([0, 8]),
    }
    for said, rows in cases.items():
        rows = rows & (steps["decode_seqs"] != 250)
        with pytest.raises(CalibrationError, match=f"too little to fit in .* steps: add {said}"):
            fit([only(run, rows)])
    short = steps[(steps["prefill_seqs"] > 0) | (steps["decode_context_tokens"] == 64 * steps["decode_seqs"])]
    with pytest.raises(CalibrationError, match="add the same decode batches at contexts a few times as long"):
        fit([only(run, steps.index.isin(short.index))])


def test_what_was_not_measured_is_noted(run):
    small = only(run, (run.iterations["decode_seqs"] <= 64) & (run.iterations["prefill_tokens"] <= 512))
    notes = " ".join(fit([small]).calibration.notes)
    assert "no batch decodes more than 64 of max_num_seqs 256 requests: extrapolated beyond" in notes
    assert "no batch has more than 512 of max_num_batched_tokens 2,048: extrapolated beyond" in notes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vllm": "0.32.0"}, "vllm 0.26.0 and 0.32.0"),
        ({"model": "Qwen/Qwen3-8B"}, "model Llama-3.1-8B and Qwen3-8B"),
        ({"tensor_parallel": 2}, "tensor_parallel 1 and 2"),
        ({"engine_args": {"kv-cache-dtype": "fp8"}}, "kv_cache_dtype auto and fp8"),
    ],
)
def test_runs_of_different_engines_are_refused(run, change, said):
    other = Run(run.meta.model_copy(update=change), run.iterations, run.requests, "other")
    with pytest.raises(CalibrationError, match=f"run and other are of different engines: {said}: fit each by itself"):
        fit([run, other])


def test_load_phases_can_be_kept_for_validation():
    run = measured(Engine(), load_steps=300)
    phases = (run.meta.phases[0], run.meta.phases[1].model_copy(update={"fraction": 0.3}))
    run = Run(run.meta.model_copy(update={"phases": phases}), run.iterations, run.requests, "run")
    assert with_loads(run, [0.3]).iterations.equals(run.iterations)
    assert (with_loads(run, []).iterations["phase"] == 0).all()
    assert fit([with_loads(run, [])]).calibration.provenance[0].what == "measured run: sweep"
    with pytest.raises(CalibrationError, match=r"run: no load at 0\.6 of capacity: has 0\.3"):
        with_loads(run, [0.6])


def test_every_load_of_an_unknown_fraction_is_kept_for_validation():
    run = measured(Engine(), load_steps=300)
    sweep, load = run.meta.phases
    phases = (sweep, load, load.model_copy(update={"name": "again"}), load.model_copy(update={"fraction": 0.3}))
    of_phase = run.iterations.assign(phase=run.iterations["phase"] * (1 + run.iterations.index % 3))
    run = Run(run.meta.model_copy(update={"phases": phases}), of_phase, run.requests, "run")
    assert set(with_loads(run, [0.3]).iterations["phase"]) == {0, 3}


def test_an_engine_of_one_request_at_a_time_can_be_fitted():
    run = measured(Engine(), load_steps=0, max_num_seqs=1)
    alone = only(run, (run.iterations["decode_seqs"] == 1) | (run.iterations["decode_seqs"] == 0))
    assert fit([alone]).calibration.range.decode_seqs == (0, 1)


def test_the_distribution_of_errors_is_in_the_file(calibration):
    shares = calibration.error.percentiles
    assert list(shares) == [1, 5, 25, 50, 75, 95, 99]
    assert list(shares.values()) == sorted(shares.values())
    assert shares[95] - shares[5] == pytest.approx(2 * 1.645 * 0.02, rel=0.2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"engine_args": {"gpu_memory_utilization": 1.5}},
            "gpu_memory_utilization: input should be less than or equal",
        ),
        ({"engine_args": {"gpu_memory_utilization": "all"}}, "gpu_memory_utilization: input should be a valid number"),
        ({"num_gpu_blocks": 1}, "num_gpu_blocks: input should be greater than or equal to 2, got 1"),
    ],
)
def test_a_cache_that_no_engine_has_is_one_line(run, change, said):
    odd = Run(run.meta.model_copy(update=change), run.iterations, run.requests, "run")
    with pytest.raises(CalibrationError, match=f"meta.json: {said}"):
        fit([odd])


def test_requests_alone_are_refused(run):
    with pytest.raises(CalibrationError, match="run: has requests but no iterations"):
        fit([Run(run.meta, run.iterations.head(0), run.requests, "run")])


def test_graph_sizes_that_the_engine_may_have_captured(run):
    def of(**engine_args):
        return graph_sizes_of(run.meta.model_copy(update={"engine_args": engine_args}))

    (default,) = of()
    assert default == (*DEFAULT_GRAPHS, *range(272, 513, 16))
    assert of(**{"enforce-eager": True}) == ()
    assert of(**{"--cudagraph-capture-sizes": [8, 1, 4]}) == ((1, 4, 8),)
    assert of(compilation_config={"cudagraph_capture_sizes": [2, 16]}) == ((2, 16),)
    assert of(cudagraph_capture_sizes=[]) == ()
    small = run.meta.model_copy(update={"max_num_seqs": 8})
    assert graph_sizes_of(small) == ((1, 2, 4, 8, 16),)


def simroute(*arguments):
    return CliRunner().invoke(app, ["calibrate", *map(str, arguments)], env={"COLUMNS": "200"})


def test_the_command_writes_a_file_and_tells_of_it(run, tmp_path):
    write_run(run, tmp_path / "run")
    file = tmp_path / "cal/h100/llama-3.1-8b/fp8.yaml"
    shown = simroute("fit", tmp_path / "run", "-o", file)
    assert shown.exit_code == 0, shown.output
    for text in (
        "decode_context_token",
        "gemm at 2048 tokens",
        "ms",
        "both",
        "whole runs differ by",
        "measured: tokens",
    ):
        assert text in shown.output
    found = load_calibration(file)
    assert found.provenance[0].sha256 is not None
    assert str(tmp_path) not in file.read_text()
    listed = simroute("list", tmp_path / "cal")
    assert "H100 Llama-3.1-8B fp8" in listed.output
    (row,) = json.loads(simroute("list", tmp_path / "cal", "--json").output)
    assert row["error"]["median"] == found.error.median
    assert row["path"] == str(file)
    assert json.loads(simroute("list", tmp_path / "cal", "--only", "H100/qwen", "--json").output) == []


def test_a_refusal_leaves_nothing_behind(run, tmp_path):
    write_run(only(run, run.iterations["decode_seqs"] == 0), tmp_path / "run")
    refused = simroute("fit", tmp_path / "run", "-o", tmp_path / "cal/new.yaml")
    assert isinstance(refused.exception, CalibrationError)
    assert not (tmp_path / "cal").exists()


def test_an_empty_folder_has_no_calibrations(tmp_path):
    assert "no calibrations" in simroute("list", tmp_path).output
