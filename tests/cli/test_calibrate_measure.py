"""`simroute calibrate measure`: a fake server from the command line, and one line for what cannot be meant."""

from __future__ import annotations

import pytest
from calibration.fakevllm import FakeVllm, served

from simroute.calibration.runs import read_run

MEASURE = ["calibrate", "measure", "-o", "run"]
BRIEF = ["--budget", "5", "--duration", "1", "--loads", "0.5", "--gpu", "cpu", "--output-tokens", "3"]


def test_a_running_server_is_measured(simroute, folder):
    with served(FakeVllm("steps")) as url:
        done = simroute(*MEASURE, "--url", url, "--trace-steps", "steps", *BRIEF)
    assert done.code == 0
    run = read_run(folder / "run")
    assert f"fake bf16 on cpu, vLLM {run.meta.vllm}: {len(run.iterations):,} steps" in done.out
    assert done.out.endswith("written: run/ (meta.json, iterations.parquet, requests.parquet)\n")
    assert done.err.splitlines()[-6:] == [
        f"{phase}: done" for phase in ("start", "sweep-prefill", "sweep-decode", "sweep-mixed", "capacity", "load-0.5")
    ]


def test_a_failing_server_is_one_line_and_an_exit_code(simroute):
    with served(FakeVllm("steps", "500")) as url:
        done = simroute(*MEASURE, "--url", url, "--trace-steps", "steps", *BRIEF)
    assert (done.code, done.err) == (2, "simroute: HTTP 500: out of luck; nothing had been measured\n")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "give either --launch MODEL or --url URL"),
        (["--launch", "m", "--url", "http://x"], "give either --launch MODEL or --url URL"),
        (["--url", "http://host:port"], "--url: must be http://HOST:PORT, got 'http://host:port'"),
        (["--model-config", "no/config.json", "--dummy-weights"], "--model-config: no such file: no/config.json"),
        (["--launch", "m", "--tp", "2"], "go with --url"),
        (["--url", "nonsense"], "--url: must be http://HOST:PORT, got 'nonsense'"),
        (["--url", "http://x", "--dummy-weights"], "need --launch"),
        (["--launch", "m", "--model-config", "c.json"], "add --dummy-weights"),
        (["--launch", "c.json"], "add --dummy-weights"),
        (["--launch", "no/c.json", "--dummy-weights"], "--model-config: no such file: no/c.json"),
        (["--launch", "m", "--trace-steps", "f"], "go with --url"),
        (["--launch", "m", "--loads", "0.3,many"], "must be numbers separated by commas, got '0.3,many'"),
        (["--launch", "m", "--loads", "0.3,0.3"], "must be different fractions"),
        (["--launch", "m", "--loads", "0"], "must be different fractions above 0"),
    ],
)
def test_what_cannot_be_meant_is_one_line(simroute, folder, args, said):
    done = simroute(*MEASURE, *args)
    assert done.code == 2
    [line] = [line for line in done.err.splitlines() if not line.startswith("warning: no --trace-steps")]
    assert line.startswith("simroute: ")
    assert said in line
    assert not (folder / "run").exists()
