"""`simroute compare`: what it prints, stores and returns, and what it refuses."""

from __future__ import annotations

import json
import os
import signal

import pyarrow.parquet as pq
import pytest

from simroute.cli.assertions import METRICS
from simroute.cli.compare import _NAMES, _metrics
from simroute.results.paired import HEADLINES
from simroute.scenario import run as scenario_run

POLICIES = ("--policy", "random", "--policy", "least_requests")
SMALL = ("compare", "tiny.yaml", *POLICIES, "--seeds", "3", "--block", "0.5")


def test_json_is_all_there_is_on_stdout_and_equals_the_stored_document(simroute, folder):
    done = simroute(*SMALL, "--json", "-o", "out")
    assert done.code == 0
    assert done.out == (folder / "out/compare.json").read_text()
    found = json.loads(done.out)
    assert (found["baseline"], found["worlds"], found["level"], found["block_s"]) == ("random", 3, 0.95, 0.5)
    assert {p.name for p in (folder / "out").iterdir()} == {"compare.json", "compare.html"}


def test_the_same_command_gives_the_same_bytes(simroute, folder):
    pages = [
        (simroute(*SMALL, "--json", "-o", name).out, (folder / name / "compare.html").read_text()) for name in "ab"
    ]
    assert pages[0] == pages[1]
    assert simroute(*SMALL, "--json", "--seed", "5").out != pages[0][0]


def test_the_answer_comes_first_then_places_and_differences(simroute):
    done = simroute(*SMALL, "--baseline", "least_requests", "--level", "0.9")
    assert done.out.index("worlds") < done.out.index("Policies over 3 worlds, best first")
    assert done.out.index("Policies over") < done.out.index("random against least_requests")
    assert "90% interval" in done.out
    silent = simroute(*SMALL, "--quiet")
    assert (silent.code, silent.out, silent.err) == (0, "", "")


def test_without_policies_all_of_the_scenario_are_compared(simroute):
    policies = "policies=[random, least_kv, {name: random, label: again}]"
    done = simroute("compare", "tiny.yaml", "--seeds", "2", "--json", "--set", policies)
    assert list(json.loads(done.out)["differences"]) == ["least_kv", "again"]


def test_decisions_go_to_a_file_of_their_own(simroute, folder):
    done = simroute(*SMALL, "--decisions", "logs/decisions.parquet")
    assert done.code == 0
    assert "written: logs/decisions.parquet" in done.out
    assert "Decisions on the trace itself" in done.out
    table = pq.read_table(folder / "logs/decisions.parquet")
    assert table.column_names == [
        *("policy", "request", "arrival_s", "class", "tenant", "tier"),
        *("chosen", "best", "chosen_s", "best_s", "regret_s"),
    ]
    assert table["policy"].to_pylist() == ["random"] * 60 + ["least_requests"] * 60
    regrets = [value for value in table["regret_s"].to_pylist() if value is not None]
    assert all(value >= 0 for value in regrets)


def test_assertions_are_on_differences(simroute):
    held = simroute(*SMALL, "--quiet", "--assert", "cost_usd_per_month.high <= $0", "--assert", "ttft_p50.mean < 1s")
    assert (held.code, held.err) == (0, "")
    failed = simroute(*SMALL, "--quiet", "--assert", "least_requests: cost_usd_per_month.low < $-1")
    assert failed.code == 99
    assert "least_requests has cost_usd_per_month.low = $0.00" in failed.err


def test_every_headline_can_be_asserted_in_the_unit_of_a_run(simroute):
    assert set(_NAMES.values()) == {headline.name for headline in HEADLINES}
    assert set(_NAMES) <= METRICS.keys()
    differences = json.loads(simroute(*SMALL, "--json").out)["differences"]["least_requests"]
    for keys, _dimension in _metrics().values():
        assert keys[1] in differences[keys[0]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compare", "tiny.yaml"), "compare: needs two policies or more, got least_requests"),
        ((*SMALL, "--policy", "randm"), "unknown policy 'randm': did you mean random?"),
        ((*SMALL, "--baseline", "least"), "baseline: unknown policy 'least'"),
        ((*SMALL, "--seeds", "1"), "seeds: must be 2 to 10,000, got 1: an interval needs several worlds"),
        ((*SMALL, "--level", "95"), "level: must be above 0 and below 1, such as 0.95, got 95"),
        ((*SMALL, "--block", "-3"), "block: must be a number of seconds above 0, got -3"),
        ((*SMALL, "--block", "1e-7"), "at most 1,000,000; give a longer block"),
        ((*SMALL, "--decisions", "."), "--decisions .: is a folder; give a file"),
        ((*SMALL, "--decisions", "trace.csv/d.parquet"), "trace.csv: is a file; give a directory for the results"),
        ((*SMALL, "-o", "trace.csv"), "trace.csv: is a file; give a directory for the results"),
        ((*SMALL, "--assert", "ttft_p99 < 1s"), "unknown metric 'ttft_p99': did you mean ttft_p99"),
        ((*SMALL, "--assert", "random: ttft_p99.high < 1s"), "unknown policy 'random': known are least_requests"),
        (("compare", "gone.yaml"), "gone.yaml: no such file"),
    ],
)
def test_wrong_usage_is_one_line(simroute, arguments, message):
    done = simroute(*arguments)
    assert (done.code, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert line.startswith("simroute: ")
    assert message in line


def test_ctrl_c_keeps_what_is_whole_and_says_so(simroute, folder, monkeypatch):
    parent, simulate = os.getpid(), scenario_run.simulate
    monkeypatch.setattr("simroute.scenario.replay.cpus", lambda: 1)
    begun = []

    def interrupted(*arguments, stop, **named):
        begun.append(named["policy_name"])
        if len(begun) == 6:  # world 0, world 1, and now world 2 under the second policy
            os.kill(parent, signal.SIGINT)
            while not stop():
                pass
        return simulate(*arguments, stop=stop, **named)

    monkeypatch.setattr(scenario_run, "simulate", interrupted)
    done = simroute(*SMALL, "-o", "out", "--assert", "ttft_p99.high < 0s")
    assert done.code == 130
    assert "warning: interrupted: 1 of 3 worlds were compared, assertions were not checked" in done.err
    assert json.loads((folder / "out/compare.json").read_text())["manifest"]["interrupted"] is True
