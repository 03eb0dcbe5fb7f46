"""Which step time stands for a replica: the calibration that is of it, else the estimate."""

from __future__ import annotations

import numpy as np
import pytest

from simroute.errors import CalibrationError
from simroute.hardware import catalogue
from simroute.hardware.calibration import Calibration
from simroute.hardware.calibration_file import calibration_path, file_sha256, save_calibration
from simroute.hardware.roofline import ERROR_SD
from simroute.hardware.select import calibration_at, calibration_in, step_time_model

REPLICA = (catalogue.model("llama-3.1-8b"), catalogue.scheme("fp8"), catalogue.gpu("H100"))


def calibration(**changes):
    data = {
        "model": "Llama-3.1-8B",
        "scheme": "fp8",
        "gpu": "H100",
        "vllm": "0.26.0",
        "basis": "measured",
        "step": {"launch_ms": 0.5, "gemm_ms": {1: 4.0}},
        "range": {name: [1, 100] for name in ("tokens", "decode_seqs", "decode_context_tokens", "prefill_pairs")},
        "error": {"median": 0.02, "p90": 0.05, "bias_sd": 0.03},
    }
    return Calibration.model_validate(data | changes)


@pytest.fixture
def saved(tmp_path):
    def save(**changes):
        path = tmp_path / "some.yaml"
        save_calibration(calibration(**changes), path)
        return path

    return save


def test_a_calibration_takes_the_place_of_the_estimate(saved):
    assert step_time_model(*REPLICA).basis == "estimated"
    for given in (saved(), calibration()):
        assert step_time_model(*REPLICA, calibration=given).decode_line(1) == pytest.approx((4.5e-3, 0.0))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "Qwen3-8B"}, "model Qwen3-8B, not Llama-3.1-8B"),
        ({"scheme": "bf16"}, "scheme bf16, not fp8"),
        ({"gpu": "H200"}, "gpu H200, not H100"),
        ({"gpu": "a machine of mine"}, "gpu a machine of mine, not H100"),
        ({"tensor_parallel": 2}, "tensor_parallel 2, not 1"),
        ({"kv_cache_dtype": "fp8"}, "kv_cache_dtype fp8, not auto"),
        ({"kv_cache_dtype": "odd"}, "kv_cache_dtype odd, not auto"),
        ({"gpu": "H200", "scheme": "bf16"}, "scheme bf16, not fp8; gpu H200, not H100"),
    ],
)
def test_a_calibration_of_another_replica_is_refused(saved, changes, said):
    path = saved(**changes)
    with pytest.raises(CalibrationError) as caught:
        calibration_at(path, *REPLICA)
    assert str(caught.value).startswith(f"{path}: the calibration is of another replica: {said}; ")


def test_other_names_of_the_same_things_are_no_difference(saved):
    names = {"model": "meta-llama/Llama-3.1-8B-Instruct", "scheme": "fp8-w8a8", "gpu": "h100-80gb"}
    assert calibration_at(saved(**names), *REPLICA, kv_cache_dtype="bfloat16").calibration.gpu == "h100-80gb"


def test_a_folder_is_searched_by_place(tmp_path):
    assert calibration_in(tmp_path, *REPLICA) is None
    path = calibration_path(tmp_path, "Llama-3.1-8B", "fp8", "H100")
    save_calibration(calibration(), path)
    found = calibration_in(tmp_path, *REPLICA)
    assert found is not None
    assert (found.name, found.sha256) == (str(path), file_sha256(path))
    assert calibration_in(tmp_path, *REPLICA, tensor_parallel=2) is None
    assert calibration_in(tmp_path, *REPLICA, kv_cache_dtype="fp8") is None


def test_a_file_in_the_wrong_place_is_refused(tmp_path):
    save_calibration(calibration(), calibration_path(tmp_path, "Llama-3.1-8B", "fp8", "H100", 2))
    with pytest.raises(CalibrationError, match="tensor_parallel 1, not 2"):
        calibration_in(tmp_path, *REPLICA, tensor_parallel=2)


def test_the_estimate_is_drawn_with_its_error():
    estimate = step_time_model(*REPLICA)
    lines = [estimate.drawn(np.random.default_rng(i)).decode_line(8) for i in range(1000)]
    factors = np.array(lines) / estimate.decode_line(8)
    np.testing.assert_allclose(factors[:, 0], factors[:, 1])
    assert np.log(factors[:, 0]).std() == pytest.approx(ERROR_SD, rel=0.1)
    assert estimate.drawn(np.random.default_rng(0)).basis == "estimated"
