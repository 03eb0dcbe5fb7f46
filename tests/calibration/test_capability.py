"""Capability matrices: what is simulated is what the engine does alone, what is known of accuracy comes along."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from simroute.calibration.capability.candidates import candidates_of, variant_id
from simroute.calibration.capability.matrix import Known, Load, capability_matrix, capacity_rps
from simroute.errors import CalibrationError, ScenarioError, UsageError
from simroute.hardware.calibration import Calibration, FitError, MeasuredRange, Memory, RequestTerms, StepTerms
from simroute.hardware.calibration_file import save_calibration
from simroute.hardware.reference import reference_tokens_per_s
from simroute.hardware.steptime import Batch
from simroute.policy.capability import QualityRow

SHAPE = (512, 64)
POOL = {"name": "a", "model": "Llama-3.1-8B", "quantization": "fp8", "gpu": "L40S"}


def calibration(**changes):
    """A replica that takes 1 ms a step, 1 ms for each 100 tokens of a batch and 1 us for each token of context."""
    wide = (0, 10**9)
    known = {
        "model": "Llama-3.1-8B",
        "scheme": "fp8",
        "gpu": "L40S",
        "vllm": "0.19.0",
        "basis": "measured",
        "step": StepTerms(launch_ms=1, gemm_ms={100: 1, 8100: 81}, decode_context_token_ns=1000),
        "range": MeasuredRange(tokens=wide, decode_seqs=wide, decode_context_tokens=wide, prefill_pairs=wide),
        "error": FitError(median=0.02, p90=0.05, bias_sd=0.03),
        "memory": Memory(
            num_gpu_blocks=5001,
            block_size=16,
            gpu_memory_utilization=0.9,
            max_model_len=8192,
            max_num_batched_tokens=2048,
            max_num_seqs=64,
        ),
    }
    return Calibration(**(known | changes))


@pytest.fixture
def scenario(tmp_path):
    """`scenario(*pools)`: a scenario file of these pools."""

    def write(*pools, **more):
        (tmp_path / "trace.csv").write_text("arrival_s,input_tokens,output_tokens,request_class\n0,9,9,chat\n")
        data = {"name": "s", "traffic": {"traces": [{"path": "trace.csv"}]}, "pools": pools or [POOL]}
        (tmp_path / "scenario.yaml").write_text(json.dumps(data | more))
        return tmp_path / "scenario.yaml"

    return write


@pytest.fixture
def measured(tmp_path):
    """`measured(**changes)`: a calibration file."""

    def write(**changes):
        save_calibration(calibration(**changes), tmp_path / "cal/fp8.yaml")
        return tmp_path / "cal/fp8.yaml"

    return write


def rows(paths, *shares, shape=SHAPE, known=None, requests=400, **more):
    found = candidates_of(paths)
    loads = [Load(share, *shape) for share in shares]
    return capability_matrix(found.candidates, loads, known or Known(), requests=requests, jobs=1, **more).rows


def test_variants_of_a_scenario_are_named_once_and_by_what_they_are(scenario):
    large = {"name": "b", "model": "Llama-3.3-70B", "quantization": "fp8", "gpu": "H100", "tensor_parallel": 2}
    found = candidates_of([scenario(POOL, POOL | {"name": "again", "replicas": 3}, large)])
    assert [c.variant_id for c in found.candidates] == ["llama-3.1-8b-fp8-l40s", "llama-3.3-70b-fp8-h100-tp2"]
    named = dataclasses.replace(found.candidates[0].pool.variant, model="Own/Model", gpu="RTX PRO 6000")
    assert variant_id(named, "auto") == "own-model-fp8-rtx-pro-6000"
    assert variant_id(named, "fp8_e4m3") == "own-model-fp8-rtx-pro-6000-fp8kv"


def test_other_settings_make_another_variant(scenario):
    other = POOL | {"name": "narrow", "engine": {"max_num_seqs": 4}}
    found = candidates_of([scenario(POOL, other)])
    assert [c.variant_id for c in found.candidates] == ["llama-3.1-8b-fp8-l40s", "llama-3.1-8b-fp8-l40s-narrow"]


def test_a_calibration_is_simulated_under_the_settings_that_were_measured(measured):
    (candidate,) = candidates_of([measured()]).candidates
    engine = candidate.pool.engine
    assert (engine.num_gpu_blocks, engine.max_num_seqs, engine.max_num_batched_tokens) == (5001, 64, 2048)
    assert candidate.pool.step_time.basis == "measured"
    assert candidate.kv_cache_tokens == 80_000
    assert candidate.usd_per_hour is not None
    (row,) = rows([measured()], 0.01)
    # An idle replica: one step for the whole prompt, and then one for each further token.
    assert row.ttft_p50_ms == pytest.approx(1 + 5.12, rel=1e-3)
    assert row.tpot_p50_ms == pytest.approx(1 + 1 + 0.001 * (512 + 33), rel=1e-2)
    assert row.basis == "measured"


@pytest.mark.parametrize("gpu", ["L40S", "Ryzen 9"])
def test_what_clients_wait_outside_the_engine_counts(measured, gpu):
    (row,) = rows([measured(gpu=gpu, request=RequestTerms(overhead_ms=5, per_input_token_us=10))], 0.01)
    assert row.ttft_p50_ms == pytest.approx(1 + 5.12 + 5 + 5.12, rel=1e-3)


def test_outside_the_catalogue_a_replica_has_no_price_and_needs_its_memory(measured):
    (row,) = rows([measured(model="own-model", gpu="Ryzen 9")], 0.5)
    assert (row.variant_id, row.model_id, row.gpu) == ("own-model-fp8-ryzen-9", "own-model", "Ryzen 9")
    assert (row.usd_per_hour, row.cost_per_1m_tokens, row.gpu_memory_gb) == (None, None, None)
    assert row.throughput_tok_s > 0
    assert row.accuracy == {}
    with pytest.raises(CalibrationError, match=r"fp8\.yaml: unknown GPU 'Ryzen 9'.*must state its memory"):
        candidates_of([measured(gpu="Ryzen 9", memory=None)])


def test_folders_and_several_files_are_taken_together(measured, scenario):
    found = candidates_of([measured().parent, scenario(POOL | {"gpu": "H100"})])
    assert [c.variant_id for c in found.candidates] == ["llama-3.1-8b-fp8-l40s", "llama-3.1-8b-fp8-h100"]
    assert len(found.scenarios) == 1


def test_the_closed_loop_finds_the_capacity_that_the_reference_formula_gives(scenario):
    (candidate,) = candidates_of([scenario()]).candidates
    load = Load(1.0, 1024, 256)
    rate = reference_tokens_per_s(
        candidate.pool.step_time, candidate.capacity, max_num_seqs=candidate.pool.engine.max_num_seqs
    )
    assert capacity_rps(candidate, load) * 256 == pytest.approx(rate, rel=0.03)


def test_an_idle_replica_answers_after_one_step(scenario):
    path = scenario(POOL | {"calibration": "none"})
    (candidate,) = candidates_of([path]).candidates
    (row,) = rows([path], 0.001)
    prompt, _ = SHAPE
    step_s = candidate.pool.step_time.duration_s(Batch(1, prompt, prompt * (prompt + 1) // 2, 0, 0, 1))
    assert row.ttft_p50_ms == pytest.approx(step_s * 1e3, rel=1e-4)
    assert row.is_stable
    assert row.basis == "estimated"


def test_rows_follow_the_load_up_to_the_capacity(measured):
    low, high, beyond = rows([measured()], 0.3, 0.9, 2.0, requests=3000)
    (candidate,) = candidates_of([measured()]).candidates
    capacity = capacity_rps(candidate, Load(1.0, *SHAPE)) * SHAPE[1]
    for row, share in ((low, 0.3), (high, 0.9)):
        assert row.throughput_tok_s == pytest.approx(share * capacity, rel=0.05)
        assert row.requests_per_s == pytest.approx(share * capacity / SHAPE[1], rel=1e-4)
        assert row.cost_per_1m_tokens == pytest.approx(row.usd_per_hour / 3600 / row.throughput_tok_s * 1e6, rel=1e-3)
        assert row.is_stable
    assert low.ttft_p50_ms < low.ttft_p99_ms < high.ttft_p99_ms
    assert not beyond.is_stable
    assert beyond.ttft_p99_ms is None
    assert beyond.throughput_tok_s == pytest.approx(capacity, rel=0.05)


def test_loads_beyond_what_was_measured_are_flagged(measured):
    narrow = MeasuredRange(
        tokens=(1, 100), decode_seqs=(1, 64), decode_context_tokens=(0, 10**6), prefill_pairs=(0, 10**9)
    )
    (row,) = rows([measured(range=narrow)], 0.5)
    assert row.extrapolated == ("512 tokens in a batch, measured up to 100",)


def test_what_is_known_of_accuracy_comes_with_its_source(scenario):
    note = {"model": "Llama-3.1-8B", "quantization": "fp8", "request_class": "default", "mean": 0.7, "note": "a guess"}
    given = [QualityRow("Llama-3.1-8B", "fp8", "chat", 0.6, 0.5, 0.7, "own tasks")]
    found = candidates_of([scenario(quality=[note])])
    known = Known(given, found.scenarios[0].quality.assumed)
    (row,) = rows([scenario(quality=[note])], 0.5, known=known)
    assert (row.accuracy["chat"].mean, row.accuracy["chat"].source, row.accuracy["chat"].assumed) == (
        0.6,
        "own tasks",
        False,
    )
    assert (row.accuracy["default"].mean, row.accuracy["default"].assumed) == (0.7, True)
    (published,) = rows([scenario(POOL | {"model": "Qwen3-8B"})], 0.5)
    assert published.accuracy["reasoning"].source.startswith("GSM8K: ")


def test_the_same_arguments_give_the_same_matrix_in_any_number_of_processes(measured):
    found = candidates_of([measured()]).candidates
    loads = [Load(share, *SHAPE) for share in (0.4, 0.8)]
    one, two = (capability_matrix(found, loads, Known(), requests=300, seed=3, jobs=jobs) for jobs in (1, 2))
    assert one == two
    other = capability_matrix(found, loads, Known(), requests=300, seed=4, jobs=1)
    assert other.rows[0].ttft_p99_ms != one.rows[0].ttft_p99_ms


def test_a_request_that_no_replica_takes_is_refused_before_anything_runs(measured):
    with pytest.raises(UsageError, match=r"--shape 9000x1: llama-3.1-8b-fp8-l40s takes requests of at most 8,192"):
        rows([measured()], 0.5, shape=(9000, 1))


@pytest.mark.parametrize(("name", "error"), [("gone.yaml", ScenarioError), ("empty", UsageError)])
def test_sources_that_hold_nothing_are_refused(tmp_path, name, error):
    (tmp_path / "empty").mkdir()
    with pytest.raises(error, match=name):
        candidates_of([tmp_path / name])


def test_progress_is_told_by_row(measured):
    seen = []
    rows([measured()], 0.3, 0.6, progress=lambda fractions: seen.append(tuple(fractions)))
    assert seen[-1] == (1.0, 1.0)
    assert np.all(np.diff(seen, axis=0) >= 0)
