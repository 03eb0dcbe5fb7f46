"""`simroute run`: what it prints, stores and returns."""

from __future__ import annotations

import json
import os
import re
import signal
import sys

import pytest

from simroute.cli.assertions import METRICS
from simroute.scenario import run as scenario_run


def test_json_is_all_there_is_on_stdout_and_equals_the_stored_summary(simroute, folder):
    done = simroute("run", "tiny.yaml", "--json", "-o", "out")
    assert done.code == 0
    assert done.out == (folder / "out/summary.json").read_text()
    assert json.loads(done.out)["policies"]["least_requests"]["requests"]["completed"] == 60
    assert {p.name for p in (folder / "out").iterdir()} == {
        "summary.json",
        "manifest.json",
        "requests.parquet",
        "report.html",
    }


def test_the_same_command_gives_the_same_bytes(simroute, folder):
    policies = ("--policy", "random", "--policy", "power_of_two")
    first = simroute("run", "tiny.yaml", "--json", *policies)
    assert simroute("run", "tiny.yaml", "--json", *policies).out == first.out
    assert simroute("run", "tiny.yaml", "--json", "--seed", "5", *policies).out != first.out


def test_exact_and_fast_agree(simroute):
    fast, exact = (json.loads(simroute("run", "tiny.yaml", "--json", *more).out) for more in ((), ("--exact",)))
    for metric in ("ttft_s", "e2e_s"):
        expected = exact["policies"]["least_requests"][metric]
        assert fast["policies"]["least_requests"][metric] == pytest.approx(expected, rel=1e-7)


def test_tables_go_to_stdout_warnings_to_stderr_and_quiet_silences_both(simroute):
    shown = simroute("run", "tiny.yaml", "--set", "classes.default.quality_floor=0.5")
    assert "least_requests" in shown.out
    assert "warning: --set classes.default.quality_floor: no pool reaches 0.5" in shown.err
    silent = simroute("run", "tiny.yaml", "--quiet", "--set", "classes.default.quality_floor=0.5")
    assert (silent.code, silent.out, silent.err) == (0, "", "")


def test_dry_run_says_what_would_run_and_writes_nothing(simroute, folder):
    done = simroute("run", "tiny.yaml", "--dry-run", "-o", "out", "--policy", "quant_aware")
    assert done.code == 0
    assert "60 requests" in done.out
    assert "only: 2 x Llama-3.1-8B fp8 on 1 L40S" in done.out
    assert "policies  quant_aware" in done.out
    assert not (folder / "out").exists()


def test_overrides_reach_the_run(simroute):
    done = simroute("run", "tiny.yaml", "--json", "--set", "pools[only].replicas=3", "--set", "name=wider")
    summary = json.loads(done.out)
    assert summary["scenario"] == "wider"
    assert summary["policies"]["least_requests"]["gpus"] == 3


def test_traces_on_the_command_line_replace_the_scenarios_own(simroute, folder):
    (folder / "other.csv").write_text("arrival_s,input_tokens,output_tokens\n0,10,5\n1,10,5\n")
    tags = ("--set", "traffic.traces[0].request_class=chat", "--set", "traffic.traces[1].request_class=coding")
    done = simroute("run", "tiny.yaml", "--json", "--trace", "other.csv", "--trace", "trace.csv", *tags)
    by_class = json.loads(done.out)["policies"]["least_requests"]["by_class"]
    assert {name: part["requests"]["arrived"] for name, part in by_class.items()} == {"chat": 2, "coding": 60}


def test_the_traffic_that_was_replayed_is_named_and_a_claim_about_other_traffic_is_not(simroute, folder):
    (folder / "other.csv").write_text("arrival_s,input_tokens,output_tokens\n0,10,5\n90,10,5\n")
    described = ("--set", "description=A day of chat", "-o", "out")
    own = simroute("run", "tiny.yaml", *described)
    assert "traffic: trace.csv: 60 requests over 11.8 s" in own.out
    assert "A day of chat" in (folder / "out/report.html").read_text().partition("<main>")[0]
    other = simroute("run", "tiny.yaml", "--trace", "other.csv", *described)
    assert "traffic: other.csv: 2 requests over 90 s" in other.out
    header = (folder / "out/report.html").read_text().partition("<main>")[0]
    assert "other.csv: 2 requests over 90 s, seed 0" in header
    assert "A day of chat" not in header


def test_a_label_picks_the_scenarios_policy_with_its_options(simroute):
    policies = "policies=[{name: quant_aware, label: careful, options: {waiting: {enter: 2, leave: 1}}}, random]"
    done = simroute("run", "tiny.yaml", "--json", "--set", policies, "--policy", "careful")
    assert list(json.loads(done.out)["policies"]) == ["careful"]


def test_assertions_that_hold_are_silent_and_failures_show_the_observed_value(simroute):
    assert simroute("run", "tiny.yaml", "--quiet", "--assert", "ttft_p99 < 100s").err == ""
    failed = simroute("run", "tiny.yaml", "--quiet", "--assert", "ttft_p99 < 1ms", "--assert", "gpu_busy > 0%")
    assert failed.code == 99
    assert failed.err.startswith("assertion failed: ttft_p99 < 1ms: least_requests has ttft_p99 = 0.")
    assert failed.err.count("\n") == 1


def test_every_metric_of_an_assertion_is_in_the_summary(simroute):
    summary = json.loads(simroute("run", "tiny.yaml", "--json").out)["policies"]["least_requests"]
    for keys, _ in METRICS.values():
        value = summary
        for key in keys:
            assert key in value
            value = value[key]


@pytest.mark.parametrize("policies", [["random"], ["random", "least_kv", "round_robin"]])
def test_ctrl_c_keeps_partial_results_and_marks_them(simroute, folder, monkeypatch, policies):
    parent, simulate = os.getpid(), scenario_run.simulate

    def interrupted(*arguments, stop, policy_name, **named):
        if policy_name == policies[0]:  # a second Ctrl-C would end it all at once
            os.kill(parent, signal.SIGINT)
        while not stop():
            pass
        return simulate(*arguments, stop=stop, policy_name=policy_name, **named)

    monkeypatch.setattr(scenario_run, "simulate", interrupted)
    chosen = [argument for policy in policies for argument in ("--policy", policy)]
    done = simroute("run", "tiny.yaml", "-o", "out", "--assert", "ttft_p99 < 1ms", *chosen)
    assert done.code == 130
    assert "warning: interrupted: results are partial" in done.err
    assert "Traceback" not in done.err
    stored = json.loads((folder / "out/summary.json").read_text())
    assert json.loads((folder / "out/manifest.json").read_text())["interrupted"] is True
    assert 1 <= len(stored["policies"]) <= len(policies)
    assert all(part["interrupted"] for part in stored["policies"].values())


def test_replicates_give_every_headline_an_interval(simroute, folder):
    done = simroute("run", "tiny.yaml", "--replicates", "3", "-o", "out")
    assert done.code == 0
    assert re.search(r"p99 TTFT [\d.]+ s \[[\d.]+, [\d.]+\]", done.out)
    assert "[low, high]: 90% of 3 replicates" in done.out
    assert "3/3" in done.out
    summary = json.loads((folder / "out/summary.json").read_text())["policies"]["least_requests"]
    low_s, high_s = summary["intervals"]["ttft_s.p99"]
    assert 0 < low_s <= summary["ttft_s"]["p99"] <= high_s
    report = (folder / "out/report.html").read_text()
    assert "[low, high]: 90% of 3 replicates" in report
    assert "3 of 3" in report


def test_replicates_below_zero_are_refused(simroute):
    done = simroute("run", "tiny.yaml", "--replicates", "-1")
    assert done.code == 2
    assert "--replicates" in done.err
    refused = simroute("run", "tiny.yaml", "--set", "replicates=-1")
    assert (refused.code, refused.err) == (2, "simroute: --set replicates: must be ≥ 0, got -1\n")


OWN = """
from simroute.policy.snapshot import Decision


class Second:
    def __init__(self, options, context):
        pass

    def choose(self, request, snapshots):
        return Decision(1)
"""


def test_a_policy_of_your_own_lies_in_the_working_directory(simroute, folder, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (folder / "policy_beside_the_scenario.py").write_text(OWN)
    name = "policy_beside_the_scenario:Second"
    assert simroute("check", "tiny.yaml", "--set", f"policies=['{name}']").code == 0
    done = json.loads(simroute("run", "tiny.yaml", "--json", "--policy", name).out)
    assert done["policies"][name]["requests"]["completed"] == 60
    sys.modules.pop("policy_beside_the_scenario")
