"""Runs of a real vLLM on a CPU that come with simroute: fitting and validating them works everywhere, vLLM or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from simroute.calibration.fit import fit, with_loads
from simroute.calibration.runs import read_run
from simroute.calibration.validate import chosen_phases, validate
from simroute.hardware.calibration_file import load_calibration

FOLDER = Path(__file__).resolve().parents[2] / "calibration/cpu/llama-12x384"
SCHEMES = ("bf16", "w8a8-int8", "w4a16")


@pytest.fixture(scope="module", params=SCHEMES)
def scheme(request):
    return request.param


@pytest.fixture(scope="module")
def run(scheme):
    return read_run(FOLDER / "runs" / scheme)


@pytest.fixture(scope="module")
def fitted(run):
    return fit([with_loads(run, [0.3])])


def test_a_fit_explains_most_steps_of_a_real_engine(fitted):
    assert fitted.calibration.basis == "measured"
    assert fitted.calibration.error.median < 0.15
    assert len(fitted.calibration.step.gemm_ms) > 2


def test_the_calibration_beside_the_runs_is_this_fit(fitted, scheme):
    """Within a part in a thousand: solvers differ from machine to machine."""
    committed = load_calibration(FOLDER / f"{scheme}.yaml")
    assert committed.step.gemm_ms.keys() == fitted.calibration.step.gemm_ms.keys()
    for tokens, milliseconds in committed.step.gemm_ms.items():
        assert fitted.calibration.step.gemm_ms[tokens] == pytest.approx(milliseconds, rel=1e-3)
    assert committed.memory == fitted.calibration.memory


def test_load_that_the_fit_has_not_seen_is_predicted(fitted, run):
    """The run at 60 % of capacity. benchmarks/accuracy.py prints how well; this only tells sense from nonsense."""
    phases = chosen_phases(run, fractions=[0.6])
    (summary,) = validate(fitted.calibration, run, phases, replicates=0).document["phases"].values()
    assert summary["requests"]["compared"] >= 50
    for latency in ("tpot_s", "e2e_s"):
        assert summary["metrics"][latency]["mean"]["ape"] < 0.3
    assert summary["stability"] == {"measured": "STABLE", "predicted": "STABLE"}
