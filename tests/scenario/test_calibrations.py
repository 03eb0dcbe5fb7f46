"""Scenarios and calibrations: named by a pool, found in a folder, refused when of another replica, told afterwards."""

from __future__ import annotations

import pytest

from simroute.errors import ScenarioError
from simroute.hardware.calibration import Calibration
from simroute.hardware.calibration_file import calibration_path, file_sha256, save_calibration
from simroute.scenario.build import build
from simroute.scenario.run import run

MEMORY = {
    "num_gpu_blocks": 12345,
    "block_size": 16,
    "gpu_memory_utilization": 0.92,
    "max_model_len": 4096,
    "max_num_batched_tokens": 2048,
    "max_num_seqs": 256,
}


def calibration(**changes):
    data = {
        "model": "Qwen3-8B",
        "scheme": "fp8",
        "gpu": "L40S",
        "vllm": "0.26.0",
        "basis": "measured",
        "step": {"launch_ms": 1.0, "gemm_ms": {1: 9.0}},
        "range": {name: [1, 100] for name in ("tokens", "decode_seqs", "decode_context_tokens", "prefill_pairs")},
        "error": {"median": 0.02, "p90": 0.05, "bias_sd": 0.03},
    }
    return Calibration.model_validate(data | changes)


@pytest.fixture
def folder(tmp_path, data):
    """The scenario's own folder of calibrations, with the one of its pool."""
    data["calibrations"] = "mine"
    data["pools"][0]["engine"] = {"max_num_batched_tokens": 2048, "max_num_seqs": 256}
    save_calibration(calibration(), calibration_path(tmp_path / "mine", "Qwen3-8B", "fp8", "L40S"))
    return tmp_path / "mine"


def problem(reading, data):
    with pytest.raises(ScenarioError) as caught:
        reading(data)
    (line,) = caught.value.problems
    return line


def test_the_folder_is_searched_and_the_manifest_says_what_was_found(reading, data, folder):
    result = run(reading(data).scenario)
    (pool,) = result.built.pools
    assert pool.step_time.basis == "measured"
    assert pool.step_time.decode_line(3) == pytest.approx((10e-3, 0.0))
    path = calibration_path(folder, "Qwen3-8B", "fp8", "L40S")
    assert result.manifest()["calibrations"] == {"only": {"path": str(path), "sha256": file_sha256(path)}}
    assert result.results[0].summary["estimated"] is False


def test_a_pool_names_its_calibration(reading, data, tmp_path):
    save_calibration(calibration(), tmp_path / "other.yaml")
    data["pools"][0]["calibration"] = "other.yaml"
    data["calibrations"] = "none"
    assert build(reading(data).scenario).pools[0].step_time.basis == "measured"


@pytest.mark.parametrize("where", ["pool", "scenario"])
def test_estimates_can_be_asked_for(reading, data, folder, where):
    if where == "pool":
        data["pools"][0]["calibration"] = "none"
    else:
        data["calibrations"] = "none"
    result = run(reading(data).scenario)
    assert result.built.pools[0].step_time.estimated
    assert result.manifest()["calibrations"] == {}


def test_a_calibration_of_another_replica_is_one_located_line(reading, data, tmp_path):
    save_calibration(calibration(gpu="H100", tensor_parallel=2), tmp_path / "other.yaml")
    data["pools"][0]["calibration"] = "other.yaml"
    line = problem(reading, data)
    assert "pools[0].calibration: " in line
    assert "the calibration is of another replica: gpu H100, not L40S; tensor_parallel 2, not 1" in line


def test_absent_files_and_folders_are_located(reading, data):
    data["calibrations"] = "nowhere"
    assert "calibrations: no such folder: " in problem(reading, data)
    del data["calibrations"]
    data["pools"][0]["calibration"] = "nowhere.yaml"
    line = problem(reading, data)
    assert "pools[0].calibration: " in line
    assert "cannot read the calibration" in line


def test_measured_blocks_win_where_the_limits_agree(reading, data, folder, tmp_path):
    path = calibration_path(folder, "Qwen3-8B", "fp8", "L40S")
    save_calibration(calibration(memory=MEMORY), path)
    built = build(reading(data).scenario)
    assert built.pools[0].engine.num_gpu_blocks == 12345
    assert built.variants[0].capacity.source == "measured"
    data["pools"][0]["num_gpu_blocks"] = 9000  # what the scenario states wins over both
    assert build(reading(data).scenario).pools[0].engine.num_gpu_blocks == 9000


def test_measured_blocks_of_other_limits_are_not_taken_and_it_says_so(reading, data, folder):
    path = calibration_path(folder, "Qwen3-8B", "fp8", "L40S")
    save_calibration(calibration(memory=MEMORY | {"gpu_memory_utilization": 0.8, "max_num_seqs": 64}), path)
    built = build(reading(data).scenario)
    assert built.variants[0].capacity.source == "formula"
    said = "pool only: KV blocks by the formula: the calibration measured them under "
    assert f"{said}gpu_memory_utilization 0.8, max_num_seqs 64" in built.notes


def test_another_kind_of_scheduling_is_a_doubt(reading, data, folder):
    data["pools"][0]["engine"]["async_scheduling"] = False
    assert any("async_scheduling is false here" in note for note in build(reading(data).scenario).notes)
