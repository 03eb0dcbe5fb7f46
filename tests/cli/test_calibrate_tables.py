"""`simroute calibrate ingest op-tables` and `layer-profile`: a calibration in its place, or one clear line."""

from __future__ import annotations

import pytest
from calibration.kernel_tables import write_tables

from simroute.hardware.calibration_file import load_calibration

H100 = ("--gpu", "H100", "--model", "Llama-3.2-1B")


@pytest.fixture
def tables(folder):
    write_tables(folder / "tables")
    return folder


def test_tables_become_a_calibration_in_its_place(simroute, tables):
    arguments = (*H100, "--scheme", "fp8", "--tp", "2", "--source", "someone (licence)", "--retrieved", "2026-11-22")
    done = simroute("calibrate", "ingest", "op-tables", "tables", *arguments, "-o", "made")
    assert done.code == 0
    assert done.out.startswith("written: made/h100/llama-3.2-1b/fp8-tp2.yaml (composed; its steps reproduced to ")
    assert all(line.startswith("note: ") for line in done.err.splitlines())
    calibration = load_calibration(tables / "made/h100/llama-3.2-1b/fp8-tp2.yaml")
    assert calibration.provenance[0].source.startswith("someone (licence), ")
    assert "composed" in simroute("calibrate", "list", "made").out
    assert simroute("calibrate", "list", "made", "--only", "b200").out == (
        "made: none of 1 calibrations has 'b200' in its path\n"
    )
    (tables / "empty").mkdir()
    assert simroute("calibrate", "list", "empty", "--only", "b200").out == "empty: no calibrations\n"


def test_a_file_is_written_where_it_is_asked_for(simroute, tables):
    done = simroute("calibrate", "ingest", "op-tables", "tables/h100", *H100, "--scheme", "bf16", "-o", "mine.yaml")
    assert done.code == 0
    assert load_calibration(tables / "mine.yaml").scheme == "bf16"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("op-tables", "nowhere", *H100, "--scheme", "fp8"), "nowhere: no such folder of kernel tables"),
        (("op-tables", "tables", "--gpu", "B200", *H100[2:], "--scheme", "fp8"), "no kernel tables of B200; there are"),
        (("op-tables", "tables", *H100, "--scheme", "fp8", "--tp", "3"), "tensor_parallel: Llama-3.2-1B has"),
        (("op-tables", "tables", *H100, "--scheme", "fp8", "--tp", "4"), "no all-reduce of num_gpus 4"),
        (("op-tables", "tables", *H100, "--scheme", "mxfp4"), "no kernel tables for mxfp4 on H100"),
        (("op-tables", "tables", *H100[:2], "--model", "Llama-3.3-70B", "--scheme", "bf16"), "does not fit"),
        (("layer-profile", "tables", *H100, "--scheme", "bf16"), "tables/dense.csv: cannot read the profile"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(simroute, tables, arguments, message):
    done = simroute("calibrate", "ingest", *arguments, "-o", "made")
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert message in done.err
    assert not (tables / "made").exists()
