"""`simroute calibrate validate`: what it prints, writes and refuses, and its exit codes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from calibration import synthetic
from simroute.calibration.runs import write_run
from simroute.hardware.calibration_file import save_calibration

MEMORY = {
    "num_gpu_blocks": 400, "block_size": 16, "gpu_memory_utilization": 0.9, "max_model_len": 1024,
    "max_num_batched_tokens": 512, "max_num_seqs": 16,
}  # fmt: skip


@pytest.fixture
def measured(folder):
    """`run/`, measured on the engine of `good.yaml`; the steps of `slow.yaml` are a fifth too long."""
    run, calibration = synthetic.run(), synthetic.calibration(memory=MEMORY)
    write_run(run, folder / "run")
    save_calibration(calibration, folder / "good.yaml")
    save_calibration(synthetic.slower(calibration, 1.2), folder / "slow.yaml")
    rows = run.requests[run.requests["phase"] == 0]
    result = {
        "model_id": "someone/small",
        "start_times": rows["arrival_s"].tolist(),
        "input_lens": rows["input_tokens"].tolist(),
        "output_lens": rows["output_tokens"].tolist(),
        "ttfts": (rows["first_token_s"] - rows["arrival_s"]).tolist(),
        "itls": [np.diff(times).tolist() for times in rows["chunk_s"]],
        "errors": [""] * len(rows),
    }
    (folder / "bench.json").write_text(json.dumps(result))
    return folder


def test_tables_and_remarks(simroute, measured):
    done = simroute("calibrate", "validate", "good.yaml", "run", "--assert", "tpot_mean_ape < 5%")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "small bf16 on cpu, measured, against run"
    assert lines[2] == "load-0.3: 80 of 80 requests compared, 30% of capacity, 3.00 requests a second"
    (tpot,) = (line.split() for line in lines if line.startswith("TPOT p99") and "8." in line)
    assert tpot[3] == tpot[4]
    assert tpot[5] == "+0.0%"
    assert "load-0.6: steps were not recorded: preemptions are not compared" in lines


def test_a_wrong_calibration_fails_its_assertion(simroute, measured):
    arguments = ("calibrate", "validate", "slow.yaml", "run", "--quiet", "--replicates", "0")
    done = simroute(*arguments, "--assert", "tpot_mean_ape < 5%", "--assert", "load-0.3: duration_s_ape < 10%")
    assert (done.code, done.out) == (99, "")
    failures = done.err.splitlines()
    assert len(failures) == 2
    assert failures[0].startswith("assertion failed: tpot_mean_ape < 5%: load-0.3 has tpot_mean_ape = 2")
    assert simroute(*arguments, "--load", "0.3", "--assert", "load-0.3: tpot_mean_error > 10%").code == 0


def test_json_and_files(simroute, measured):
    done = simroute("calibrate", "validate", "good.yaml", "run", "--phase", "load-0.6", "--json", "-o", "out")
    assert done.code == 0
    document = json.loads(done.out)
    assert list(document["phases"]) == ["load-0.6"]
    assert json.loads((measured / "out/validation.json").read_text()) == document
    page = (measured / "out/validation.html").read_text()
    assert "load-0.6: 80 of 80 requests compared" in page
    # Nothing is fetched: plotly is inside.
    assert '<link rel="stylesheet"' not in page
    assert "<script src" not in page
    figures = json.loads(page.split('id="figures">')[1].split("</script>")[0])
    assert {chart.split()[1] for chart in figures} == {"ttft_s", "tpot_s", "e2e_s", "waiting", "answered"}
    assert {line["name"] for line in figures["load-0.6 e2e_s"]["data"]} == {"measured", "predicted"}


def test_a_benchmark_is_validated_with_the_memory_of_the_calibration(simroute, measured):
    done = simroute("calibrate", "validate", "good.yaml", "bench.json", "--json")
    assert done.code == 0
    document = json.loads(done.out)
    assert (document["engine"]["num_gpu_blocks"], document["engine"]["max_num_seqs"]) == (400, 16)
    assert document["phases"]["bench"]["metrics"]["e2e_s"]["mean"]["ape"] < 1e-9
    save_calibration(synthetic.calibration(), measured / "bare.yaml")
    without = simroute("calibrate", "validate", "bare.yaml", "bench.json")
    assert (without.code, without.out) == (2, "")
    assert "give --set num_gpu_blocks=N" in without.err
    given = simroute("calibrate", "validate", "bare.yaml", "bench.json", "--set", "num_gpu_blocks=400", "--quiet")
    assert (given.code, given.err) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("good.yaml", "nowhere"), "nowhere: not a run directory"),
        (("nowhere.yaml", "run"), "nowhere.yaml: cannot read the calibration"),
        (("good.yaml", "good.yaml"), "good.yaml: not JSON"),
        (("good.yaml", "run", "--phase", "load-0.9"), "unknown load phase 'load-0.9': did you mean"),
        (("good.yaml", "run", "--load", "0.9"), "--load 0.9: the run has loads 0.3, 0.6"),
        (("good.yaml", "run", "--set", "blocks=2"), "--set: unknown engine setting 'blocks'"),
        (("good.yaml", "run", "--assert", "tpot_ape < 5%"), "unknown metric 'tpot_ape': did you mean tpot_"),
        (("good.yaml", "run", "--assert", "load-1: tpot_mean_ape < 5%"), "unknown load phase 'load-1'"),
        (("good.yaml", "run", "--assert", "tpot_mean_ape < 5ms"), "unit 'ms' does not fit"),
        (("good.yaml", "run", "--assert", "tpot"), "must be METRIC OP VALUE, such as 'tpot_mean_ape < 5%'"),
    ],
)
def test_bad_input_is_one_line(simroute, measured, arguments, message):
    done = simroute("calibrate", "validate", *arguments, "-o", "out")
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert message in done.err
    assert not (measured / "out").exists()
