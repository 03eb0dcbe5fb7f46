"""Calibration files: what they may say, read and written, found by name, and drawn within their error."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from simroute.errors import CalibrationError
from simroute.hardware import calibration_file
from simroute.hardware.calibration import Calibration, StepTerms
from simroute.hardware.calibration_file import (
    calibration_files,
    calibration_path,
    calibration_text,
    find_calibration,
    load_calibration,
    save_calibration,
    shipped,
)

ROOT = Path(__file__).resolve().parents[2]
DATA = {
    "model": "Llama-3.1-8B",
    "scheme": "fp8",
    "gpu": "H100",
    "vllm": "0.19",
    "basis": "measured",
    "step": {
        "launch_ms": 0.5,
        "gemm_ms": {1: 4.0, 64: 5.0, 512: 12.0},
        "decode_seq_us": 20.0,
        "prefill_pair_ns": 1.25,
        "decode_context_token_ns": 44.123456,
        "graph_sizes": [1, 2, 4, 8],
    },
    "memory": {
        "num_gpu_blocks": 30000,
        "block_size": 16,
        "gpu_memory_utilization": 0.92,
        "max_model_len": 8192,
        "max_num_batched_tokens": 8192,
    },
    "range": {
        "tokens": [1, 8192],
        "decode_seqs": [1, 256],
        "decode_context_tokens": [1, 500_000],
        "prefill_pairs": [1, 10**8],
    },
    "error": {"median": 0.02, "p90": 0.05, "bias_sd": 0.03},
    "covariance": {
        "parameters": ["gemm_ms[1]", "gemm_ms[64]", "decode_seq_us"],
        "relative": [[1e-4, 5e-5, 0.0], [5e-5, 4e-4, -2e-4], [0.0, -2e-4, 1e-2]],
    },
    "provenance": [{"what": "run", "source": "a machine: with a colon", "rows": 4000}],
    "notes": ["dummy weights"],
}


def calibration(**changes):
    return Calibration.model_validate(DATA | changes)


def test_a_file_reads_back_as_what_was_written(tmp_path):
    path = tmp_path / "new" / "folder" / "fp8.yaml"
    save_calibration(calibration(), path)
    again = load_calibration(path)
    assert again.step.decode_context_token_ns == 44.123  # five significant digits
    terms = calibration().step.model_copy(update={"decode_context_token_ns": 44.123})
    assert again == calibration().model_copy(update={"step": terms})
    assert calibration_text(again) == path.read_text()
    assert [item.name for item in path.parent.iterdir()] == ["fp8.yaml"]


def test_the_file_is_in_the_order_of_the_fields_with_units_in_the_names():
    lines = calibration_text(calibration()).splitlines()
    assert lines[0].startswith("# Step times")
    assert [line.split(":")[0] for line in lines[1:9]] == list(Calibration.model_fields)[:8]
    assert "vllm: '0.19'" in lines  # text, not a number
    assert "    64: 5.0" in lines


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("launch_ms: 0.5", "launch_ms: -0.5", "step.launch_ms: input should be greater than or equal to 0, got -0.5"),
        ("64: 5.0", "64: 3.0", "step.gemm_ms: must not fall with the tokens, but 1: 4 is above 64: 3"),
        ("launch_ms: 0.5", "lanch_ms: 0.5", r"step.launch_ms: field required \(and 1 more\)"),
        ("bias_sd: 0.03", "bias_sd: .nan", "error.bias_sd: input should be a finite number"),
        ("- gemm_ms[64]", "- gemm_ms[65]", r"covariance.parameters: not among the terms of step: gemm_ms\[65\]"),
        ("model:", "model: [", r"fp8.yaml:3:7: not YAML: expected ',' or ']'"),
        ("graph_sizes: [1, 2", "graph_sizes: [2, 1", "step.graph_sizes: must rise"),
    ],
)
def test_a_faulty_file_is_one_line_with_its_field(tmp_path, old, new, message):
    path = tmp_path / "fp8.yaml"
    text = calibration_text(calibration())
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(CalibrationError, match=message) as caught:
        load_calibration(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_faulty_field_is_found_in_its_file(tmp_path):
    path = tmp_path / "fp8.yaml"
    lines = calibration_text(calibration()).splitlines()
    number = lines.index("  decode_seq_us: 20.0")
    lines[number] = "  decode_seq_us: much"
    path.write_text("\n".join(lines))
    with pytest.raises(CalibrationError, match=rf"fp8\.yaml:{number + 1}:18 step\.decode_seq_us: .*, got 'much'"):
        load_calibration(path)


def test_what_is_no_calibration_is_said(tmp_path):
    with pytest.raises(CalibrationError, match="cannot read the calibration: No such file"):
        load_calibration(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CalibrationError, match="not a calibration: it is not text"):
        load_calibration(tmp_path / "binary.yaml")
    (tmp_path / "file").write_text("")
    with pytest.raises(CalibrationError, match="cannot write the calibration"):
        save_calibration(calibration(), tmp_path / "file" / "fp8.yaml")


def test_a_covariance_is_square():
    with pytest.raises(ValidationError, match="square of 1 rows"):
        calibration(covariance={"parameters": ["launch_ms"], "relative": [[0.1, 0.1]]})


def test_files_are_found_by_their_place(tmp_path):
    names = ("Llama-3.1-8B", "w8a8-int8", "RTX PRO 6000")
    path = calibration_path(tmp_path, *names, tensor_parallel=2, kv_cache_dtype="fp8_e4m3")
    assert path == tmp_path / "rtx-pro-6000/llama-3.1-8b/w8a8-int8-tp2-fp8kv.yaml"
    assert find_calibration(tmp_path, *names) is None
    save_calibration(calibration(), calibration_path(tmp_path, *names))
    assert find_calibration(tmp_path, *names) == tmp_path / "rtx-pro-6000/llama-3.1-8b/w8a8-int8.yaml"
    assert find_calibration(tmp_path, *names, tensor_parallel=2) is None
    assert list(calibration_files(tmp_path)) == [tmp_path / "rtx-pro-6000/llama-3.1-8b/w8a8-int8.yaml"]
    with pytest.raises(CalibrationError, match="no such folder"):
        list(calibration_files(tmp_path / "absent"))


def test_shipped_calibrations_are_valid_and_in_their_place():
    for number, path in enumerate(calibration_files(shipped())):
        found = load_calibration(path)
        names = (found.model, found.scheme, found.gpu, found.tensor_parallel, found.kv_cache_dtype)
        assert path == calibration_path(shipped(), *names)
        if number % 10 == 0 and found.basis != "measured":  # (those are as the version that fitted them wrote them)
            assert calibration_text(found) == path.read_text(encoding="utf-8"), f"{path}: not as simroute writes it"


def test_a_wheel_has_them_where_they_are_looked_for(tmp_path, monkeypatch):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert shipped() == ROOT / "calibration"
    monkeypatch.setattr(calibration_file, "_PACKAGE", tmp_path / "simroute")
    (tmp_path / included["calibration"]).mkdir(parents=True)
    assert shipped() == tmp_path / included["calibration"]


def test_draws_have_the_stated_spread():
    rng = np.random.default_rng(0)
    fitted = calibration().step.values()
    draws = [calibration().drawn(rng).step.values() for _ in range(4000)]
    factors = np.array([draw["launch_ms"] for draw in draws]) / fitted["launch_ms"]  # no covariance of its own
    assert np.log(factors).std() == pytest.approx(0.03, rel=0.05)
    assert np.log(factors).mean() == pytest.approx(0.0, abs=0.002)
    names = DATA["covariance"]["parameters"]
    relative = np.array([[draw[name] / fitted[name] for name in names] for draw in draws]) / factors[:, None]
    np.testing.assert_allclose(np.cov(relative.T), DATA["covariance"]["relative"], rtol=0.12, atol=6e-5)


def test_draws_stay_physical_and_the_same_seed_draws_the_same():
    wild = {"parameters": ["gemm_ms[1]", "gemm_ms[64]"], "relative": [[1.0, 0.0], [0.0, 1.0]]}
    for seed in range(200):
        drawn = calibration(covariance=wild).drawn(np.random.default_rng(seed))
        knots = list(drawn.step.gemm_ms.values())
        assert knots == sorted(knots)
        assert min(knots) >= 0
        assert drawn == calibration(covariance=wild).drawn(np.random.default_rng(seed))


def test_what_a_request_costs_is_drawn_within_its_error():
    request = {"overhead_ms": 10.0, "per_input_token_us": 5.0}
    errors = {"overhead_error_ms": 1.0, "per_input_token_error_us": 0.5, "error_correlation": -0.8}
    rng = np.random.default_rng(0)
    drawn = [calibration(request=request | errors).drawn(rng).request for _ in range(3000)]
    values = np.array([[each.overhead_ms, each.per_input_token_us] for each in drawn])
    assert values.mean(axis=0) == pytest.approx([10.0, 5.0], rel=0.01)
    assert values.std(axis=0) == pytest.approx([1.0, 0.5], rel=0.05)
    assert np.corrcoef(values.T)[0, 1] == pytest.approx(-0.8, abs=0.03)
    wild = calibration(request=request | {"overhead_error_ms": 30.0})
    assert min(wild.drawn(rng).request.overhead_ms for _ in range(100)) == 0.0
    old = calibration(request=request)  # a file without errors is drawn as it is
    assert old.drawn(rng).request == old.request


def test_without_error_a_draw_is_the_calibration_itself():
    exact = calibration(covariance=None, error={"median": 0, "p90": 0, "bias_sd": 0})
    assert exact.drawn(np.random.default_rng(3)) == exact


def test_knots_are_put_in_order():
    assert list(StepTerms(launch_ms=0, gemm_ms={512: 3, 1: 1, 64: 2}).gemm_ms) == [1, 64, 512]


def test_the_measured_range_names_what_is_beyond_it():
    measured = calibration().range
    assert measured.outside(tokens=8192, decode_seqs=257) == ("decode_seqs",)
    assert measured.outside(tokens=8193, prefill_pairs=1) == ("tokens",)
