"""`simroute plan` from the command line: what it prints, writes, asserts and exits with."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from simroute.errors import OutputError
from simroute.planner.answer import proof
from simroute.planner.fleets.search import Search

PLAN = """\
name: tiny
traffic: {traces: [{path: trace.csv}]}
classes:
  default: {slo: {ttft_s: 1, tpot_s: 0.08}}
candidates:
  - {model: Llama-3.1-8B, quantization: [bf16, fp8], gpu: [L4, L40S], replicas: {max: 4}}
  - {model: Llama-3.3-70B, gpu: L4}
calibrations: none
"""


@pytest.fixture
def plan(folder: Path) -> Path:
    (folder / "plan.yaml").write_text(PLAN)
    return folder / "plan.yaml"


def test_the_answer_comes_first(simroute, plan):
    done = simroute("plan", "plan.yaml", "--jobs", "1", "-o", "out")
    assert done.code == 0, done.err
    assert done.out.startswith("Buy ")
    for word in (
        "Plans to choose from",
        "headroom:",
        "sensitivity: traffic",
        "search:",
        "cannot run: Llama-3.3-70B-bf16-L4",
        "written: out/",
    ):
        assert word in done.out
    document = json.loads((plan.parent / "out/plan.json").read_text())
    assert document["feasible"]
    assert (plan.parent / "out/.simroute-cache").is_dir()


def test_what_was_emitted_is_named(simroute, plan):
    several = ("--set", "candidates[0].replicas.min=2")
    done = simroute("plan", "plan.yaml", "--jobs", "1", "-o", "out", "--emit", "k8s", "--emit", "compose", *several)
    assert "written: out/k8s/ (kubernetes.yaml)" in done.out
    assert "written: out/compose/ (" in done.out
    assert "warning: --emit k8s: a Service picks a replica blindly" in done.err
    assert "warning: --emit compose: the plan's policy least_requests has no counterpart" in done.err
    done = simroute(
        "plan", "plan.yaml", "--jobs", "1", "-o", "none", "--emit", "k8s", "--set", "quotas={L4: 0, L40S: 0}"
    )
    assert "not written: k8s: there is no plan to deploy" in done.out
    assert not (plan.parent / "none/k8s").exists()


def test_the_proof_is_in_one_line(simroute, plan):
    done = simroute("plan", "plan.yaml", "--jobs", "1", "-o", "out")
    assert "proof: no cheaper fleet can do it: each was simulated, or ruled out by a bound or a limit" in done.out
    for name in ("plan.md", "plan.html"):
        assert "no cheaper fleet can do it" in (plan.parent / "out" / name).read_text()


def test_files_that_cannot_be_written_do_not_cost_the_answer(simroute, plan, monkeypatch):
    def full(path: Path, text: str) -> None:
        raise OutputError(f"{path}: cannot write results: No space left on device")

    monkeypatch.setattr("simroute.results.store.write_text", full)
    done = simroute("plan", "plan.yaml", "--jobs", "1", "-o", "out")
    assert done.code == 2
    assert done.out.startswith("Buy ")
    assert "No space left" in done.err


def test_json_alone(simroute, plan):
    done = simroute("plan", "plan.yaml", "--jobs", "1", "--json")
    assert json.loads(done.out)["best"]["meets"]


def test_assertions_about_the_best_plan(simroute, plan):
    done = simroute("plan", "plan.yaml", "--jobs", "1", "--quiet", "--assert", "cost_usd_per_month < $1")
    assert done.code == 99
    assert "best has cost_usd_per_month" in done.err
    done = simroute("plan", "plan.yaml", "--jobs", "1", "--quiet", "--assert", "gpus <= 8", "--assert", "headroom >= 1")
    assert (done.code, done.out) == (0, "")
    assert simroute("plan", "plan.yaml", "--assert", "gps < 1").code == 2


def test_infeasible_exits_with_three_and_says_what_to_relax(simroute, plan):
    done = simroute("plan", "plan.yaml", "--jobs", "1", "--set", "budget_usd_per_month=100.0")
    assert done.code == 3
    assert "raise the budget from $100" in done.out
    done = simroute(
        "plan", "plan.yaml", "--jobs", "1", "--set", "budget_usd_per_month=100.0", "--set", "quotas={L4: 0, L40S: 0}"
    )
    assert " ".join(done.out.split()).count("raise the budget from $100") == 2
    assert "(and 1 more, all of them)." in " ".join(done.out.split("\n\n")[0].split())


def test_a_dry_run_says_what_is_searched(simroute, plan):
    done = simroute("plan", "plan.yaml", "--dry-run")
    assert done.code == 0
    assert "16 candidates: 4 variants" in done.out
    assert "cannot run  Llama-3.3-70B-bf16-L4" in done.out


def test_a_mistake_is_located(simroute, plan):
    done = simroute("plan", "plan.yaml", "--set", "candidates[0].gpu=[L5]")
    assert done.code == 2
    assert "candidates[0].gpu" in done.err
    assert simroute("plan", "nothing.yaml").code == 2


@pytest.mark.parametrize(
    "place",
    [
        "simroute.planner.fleets.search.Search._verify",
        *(f"simroute.planner.answer.proof.{part}" for part in ("headroom", "sensitivity")),
    ],
)
def test_ctrl_c_keeps_what_is_finished(simroute, plan, monkeypatch, place):
    module, name = place.rsplit(".", 1)
    owner = Search if module.endswith("Search") else proof
    action = getattr(owner, name)

    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        return action(*arguments)

    monkeypatch.setattr(owner, name, interrupted)
    done = simroute("plan", "plan.yaml", "--jobs", "1", "-o", "out", "--assert", "gpus < 0")
    assert done.code == 130
    (line,) = [line for line in done.err.splitlines() if line.startswith("warning: interrupted: ")]
    kept = "what is done is kept in out/.simroute-cache: the same command goes on from there"
    assert line.endswith(f", assertions were not checked; {kept}")
    document = json.loads((plan.parent / "out/plan.json").read_text())
    assert document["evaluated"]
    assert any("interrupted" in note for note in document["notes"])
    assert document["best"]["meets"]
    if name != "_verify":
        assert "interrupted: the answer is complete, what would change it is not" in line
        assert (document["headroom"] is not None) == (name == "sensitivity")
