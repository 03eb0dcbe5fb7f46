"""The calibrations that come with simroute: against physics, and against measured runs where those are at hand."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from simroute.hardware import catalogue
from simroute.hardware.calibration_file import calibration_files, load_calibration, shipped
from simroute.hardware.fitted import FittedStepTime
from simroute.hardware.memory import kv_token_bytes
from simroute.hardware.steptime import Batch
from simroute.hardware.weights import layer_weight_bytes

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared/data"
COMPOSED = {
    path.relative_to(shipped()).as_posix(): calibration
    for path in calibration_files(shipped())
    if (calibration := load_calibration(path)).basis != "measured"
}
NVLINK = ("A100-80GB", "H100", "H200", "B200")
ONE_SEQUENCE = Batch(0, 0, 0, 1, 1024, 1)


def seconds(calibration, batch):
    return FittedStepTime(calibration).duration_s(batch)


def of(gpu, model, scheme, suffix=""):
    return COMPOSED[f"{gpu}/{model}/{scheme}{suffix}.yaml"]


def spec(calibration):
    return catalogue.model(calibration.model), catalogue.scheme(calibration.scheme), catalogue.gpu(calibration.gpu)


@pytest.mark.parametrize("name", COMPOSED)
def test_each_says_what_it_rests_on(name):
    calibration = COMPOSED[name]
    licences = {row.source.split("(")[1].split(")")[0] for row in calibration.provenance}
    assert licences <= {"Apache-2.0", "MIT"}
    assert all(row.sha256 and row.rows and row.retrieved for row in calibration.provenance)
    assert calibration.error.bias_sd > 0
    assert calibration.error.median < 0.03
    assert (calibration.basis == "proxy") == (calibration.scheme in ("w8a8-int8", "awq-int4", "w4a16"))


@pytest.mark.parametrize("name", COMPOSED)
def test_no_step_is_faster_than_reading_weights_and_cache(name):
    calibration = COMPOSED[name]
    model, scheme, gpu = spec(calibration)
    cache_bytes = kv_token_bytes(model, scheme, calibration.tensor_parallel, calibration.kv_cache_dtype)
    cache_s = cache_bytes * model.num_hidden_layers / gpu.bandwidth_bytes_s
    assert calibration.step.decode_context_token_ns * 1e-9 > 0.9 * cache_s
    if not model.is_moe:
        weights = layer_weight_bytes(model, scheme, calibration.tensor_parallel) * model.num_hidden_layers
        assert seconds(calibration, ONE_SEQUENCE) > weights / gpu.bandwidth_bytes_s


@pytest.mark.parametrize("name", [name for name, found in COMPOSED.items() if found.basis == "composed"])
def test_no_prefill_is_faster_than_the_datasheet_multiplies(name):
    calibration = COMPOSED[name]
    model, scheme, gpu = spec(calibration)
    bits = 8 if scheme.name == "fp8" else 16
    rate = gpu.flops["fp8"] if bits == 8 else gpu.sixteen_bit_flops
    weights = layer_weight_bytes(model, scheme, calibration.tensor_parallel) * 8 / bits
    picked = model.num_experts_per_tok / model.num_experts if model.is_moe else 1
    operations = 2 * 8192 * weights * model.num_hidden_layers * picked
    assert seconds(calibration, Batch(1, 8192, 8192 * 8193 // 2, 0, 0, 1)) > operations / rate


@pytest.mark.parametrize("gpu", ["h100", "h200", "l40s"])  # (vLLM 0.19's fp8 kernels are hardly faster on B200)
@pytest.mark.parametrize("model", ["llama-3.1-8b", "qwen2.5-7b", "qwen3-30b-a3b"])
def test_eight_bits_are_faster_than_sixteen(gpu, model):
    plain, quantized = of(gpu, model, "bf16", "-tp2"), of(gpu, model, "fp8", "-tp2")
    for batch in (ONE_SEQUENCE, Batch(0, 0, 0, 64, 65536, 64), Batch(1, 4096, 4096 * 4097 // 2, 0, 0, 1)):
        assert seconds(quantized, batch) < seconds(plain, batch)


@pytest.mark.parametrize("gpu", ["h100", "h200"])
def test_four_bits_win_with_one_request_and_awq_loses_at_full_load(gpu):
    plain, awq = of(gpu, "llama-3.1-8b", "bf16"), of(gpu, "llama-3.1-8b", "awq-int4")
    assert seconds(awq, ONE_SEQUENCE) < 0.6 * seconds(plain, ONE_SEQUENCE)
    full = Batch(0, 0, 0, 512, 512 * 400, 512)
    assert seconds(awq, full) > seconds(plain, full)


@pytest.mark.parametrize("gpu", NVLINK)
def test_more_ranks_over_nvlink_are_faster(gpu):
    folder = gpu.lower()
    sizes = [of(folder, "llama-3.3-70b", "bf16", f"-tp{tp}") for tp in (2, 4, 8) if gpu != "A100-80GB" or tp > 2]
    for batch in (Batch(0, 0, 0, 32, 32768, 32), Batch(1, 4096, 4096 * 4097 // 2, 0, 0, 1)):
        times = [seconds(calibration, batch) for calibration in sizes]
        assert times == sorted(times, reverse=True)


def test_a_cache_of_eight_bits_is_read_in_less_time():
    plain, small = of("h100", "llama-3.3-70b", "fp8", "-tp2"), of("h100", "llama-3.3-70b", "fp8", "-tp2-fp8kv")
    assert small.step.decode_context_token_ns < 0.75 * plain.step.decode_context_token_ns


@pytest.fixture
def benchmarks(monkeypatch):
    """The modules of benchmarks/, which are scripts and no package."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module


def needs(path):
    if not (DATA / path).exists():
        pytest.skip(f"needs the public run {path} in {DATA}")


def test_an_overloaded_rtx_4090_is_predicted(benchmarks):
    needs("measured/rtx4090_llama31_8b_vllm019/vllm")
    figures = benchmarks("accuracy_rtx4090").Rtx4090(DATA).figures(draws=0)
    assert {figure.name: round(figure.error, 3) for figure in figures if abs(figure.error) > figure.target} == {}


@pytest.fixture
def h100(benchmarks):
    needs("measured/h100_llama70b_fp8_vllm_closed_loop.csv")
    needs("op_tables")
    return benchmarks("accuracy_h100").H100Llama70B(DATA)


def test_closed_loops_on_h100_are_predicted(h100):
    rows = h100.figures(draws=0)
    tpot, ttft = (np.abs([figures[index].error for _, *figures in rows]) for index in (0, 1))
    assert np.median(tpot) < 0.05
    assert tpot.max() < 0.15
    assert np.median(ttft) < 0.20


def test_the_launch_of_a_step_is_what_fits_the_loops_of_four_clients(h100):
    assert h100.fitted_launch_ms() == pytest.approx(h100.calibrations[2].step.launch_ms, abs=0.05)


def test_intervals_of_a_closed_loop_hold_what_was_measured(h100):
    h100.rows = [row for row in h100.rows if row.concurrency == 8]
    figures = [figure for _, *both in h100.figures(draws=20) for figure in both]
    assert sum(figure.held for figure in figures) >= 0.85 * len(figures)


def test_single_steps_of_a_newer_engine_are_predicted(benchmarks):
    errors = np.abs([figure.error for row in benchmarks("accuracy_steps").figures() for figure in row])
    assert np.median(errors) < 0.05
    assert errors.max() < 0.12


@pytest.mark.parametrize("case", ["h100", "rtx4090", "steps"])
def test_the_documentation_has_the_rows_that_the_benchmark_prints(benchmarks, capsys, case):
    needs("op_tables")
    benchmarks(f"accuracy_{case}").show(DATA, 0)
    printed = capsys.readouterr().out.splitlines()
    page = (ROOT / "docs/hardware.md").read_text("utf-8")
    rows = [line.split(" |  | ")[0] for line in printed if line.startswith("|")]  # (intervals need draws)
    assert len(rows) > 5
    assert [row for row in rows if row not in page] == []
