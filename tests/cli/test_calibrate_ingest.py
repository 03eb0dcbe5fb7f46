"""`simroute calibrate ingest`: each command writes a run directory that reads back, or nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from calibration.test_ingest import LOG, guidellm_report, guidellm_request, serve_result, shapes

from calibration import synthetic
from simroute.calibration.runs import read_run, write_run

ENGINE = ("--gpu", "H100", "--scheme", "bf16", "--set", "num_gpu_blocks=1001")


@pytest.fixture
def files(folder):
    (folder / "bench.json").write_text(json.dumps(serve_result()))
    (folder / "sweep/BENCH--request_rate=1").mkdir(parents=True)
    (folder / "sweep/BENCH--request_rate=1/run=0.json").write_text(json.dumps(serve_result()))
    (folder / "forward.json").write_text(json.dumps([{"case": "a", "requests": shapes((1, 9)), "median_us": 9.0}]))
    (folder / "log.txt").write_text(LOG)
    (folder / "report.json").write_text(json.dumps(guidellm_report({"successful": [guidellm_request(1.0)]})))
    return folder


@pytest.mark.parametrize(
    ("command", "source", "held"),
    [
        ("vllm-serve", "bench.json", "2 requests in 1 phase"),
        ("vllm-sweep", "sweep", "2 requests in 1 phase"),
        ("vllm-forward", "forward.json", "1 iterations in 1 phase"),
        ("iteration-log", "log.txt", "3 iterations in 1 phase"),
        ("guidellm", "report.json", "1 requests in 1 phase"),
    ],
)
def test_a_run_directory_is_written(simroute, files, command, source, held):
    done = simroute("calibrate", "ingest", command, source, "-o", "run", *ENGINE, "--tp", "2", "--vllm", "0.33.0")
    assert (done.code, done.out) == (0, f"written: run/ ({held})\n")
    assert all(line.startswith("note: ") for line in done.err.splitlines())
    meta = read_run(files / "run").meta
    assert (meta.gpu, meta.scheme, meta.tensor_parallel, meta.vllm, meta.num_gpu_blocks) == (
        "H100", "bf16", 2, "0.33.0", 1001,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("vllm-serve", "nowhere.json", *ENGINE), "nowhere.json: cannot read"),
        (("vllm-serve", "bench.json", *ENGINE[:4]), "bench.json: does not say how many KV blocks"),
        (("vllm-serve", "bench.json", *ENGINE, "--set", "blocks=3"), "unknown engine setting 'blocks'"),
        (("vllm-sweep", "bench.json", *ENGINE), "bench.json: not a folder"),
        (("iteration-log", "log.txt", *ENGINE, "--async-scheduling"), "under async scheduling"),
        (("guidellm", "bench.json", *ENGINE), "not a guidellm report"),
        (("vllm-forward", "bench.json", *ENGINE), "not a list of cases"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(simroute, files, arguments, message):
    done = simroute("calibrate", "ingest", *arguments, "-o", "run")
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert message in done.err
    assert not (files / "run").exists()


def test_what_was_measured_is_not_written_over(simroute, files):
    run = synthetic.run()
    write_run(replace(run, meta=run.meta.model_copy(update={"plan": {"seed": 0}})), files / "run")
    done = simroute("calibrate", "ingest", "vllm-serve", "bench.json", "-o", "run", *ENGINE)
    assert (done.code, done.out) == (2, "")
    assert "run: holds a run of `simroute calibrate measure`: choose another -o" in done.err
    assert len(read_run(files / "run").requests) == len(run.requests)
