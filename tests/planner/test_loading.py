"""Plan files: read with positions, refused with the place of the fault, paths from the file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from planner.spaces import planned, tiny

from simroute.cli.main import main
from simroute.errors import ScenarioError
from simroute.planner.fleets.loading import read_plan
from simroute.planner.fleets.spec import PlanSpec

THREE = {"model": "Llama-3.1-8B", "gpu": "L4", "replicas": {"min": 3}}
ROOT = Path(__file__).resolve().parents[2]


def refusal(folder: Path, data: dict[str, Any]) -> str:
    with pytest.raises(ScenarioError) as refused:
        planned(folder, data)
    return str(refused.value)


def test_bare_values_stand_for_lists_of_one(tmp_path: Path):
    spec = planned(tmp_path, tiny(tmp_path))
    assert spec.candidates[0].model == ("Llama-3.1-8B",)
    assert spec.candidates[0].quantization == ("bf16", "fp8")


def test_every_problem_at_once_each_with_its_place(tmp_path: Path):
    path = tmp_path / "plan.yaml"
    path.write_text(
        "name: wrong\n"
        "traffic: {traces: [{path: nowhere.csv}]}\n"
        "candidates:\n"
        "  - model: Llama-3.1-8B\n"
        "    gpu: [L4, H10]\n"
        "    replicas: {min: 3, max: 2}\n"
        "quotas: {H20O: 4}\n"
        "policies: [round_robbin]\n"
    )
    with pytest.raises(ScenarioError) as refused:
        read_plan(path)
    told = "\n".join(refused.value.problems)
    assert f"{path}:2:27 traffic.traces[0].path: no such file" in told
    assert f"{path}:6:15 candidates[0].replicas: min 3 is above max 2" in told
    assert f"{path}:5:15 candidates[0].gpu[1]: unknown GPU 'H10'" in told
    assert f"{path}:7:10 quotas.H20O: unknown GPU 'H20O'" in told
    assert "round_robbin" in told


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"quotas": {"H20O": 4}}, "unknown GPU 'H20O'"),
        ({"prices": {"L5": {"usd_per_gpu_hour": 1.0}}}, "unknown GPU 'L5'"),
        ({"prices": {"L4": 1.0}}, "prices.L4: must be a mapping of fields (provider, term, usd_per_gpu_hour), got 1.0"),
        ({"availability": {"lose_zones": 1}}, "lose_zones 1 leaves none of 1 zone(s): name more, or lose fewer"),
        ({"availability": {"zones": ["a", "b", "a"], "lose_zones": 1}}, "zone a is named twice"),
        ({"availability": {"lose_replicas": 6}}, "6 replica(s) lost leave none: no fleet here has more than 6"),
        ({"fleets": {"most_replicas": 2}, "candidates": [THREE]}, "min 3 is above fleets.most_replicas 2"),
        ({"quotas": {"L4": 4, "l4": 2}}, "quotas.l4: the same GPU as 'L4': name it once"),
        ({"prices": {"L4": {}, "l4": {"usd_per_gpu_hour": 1.0}}}, "prices.l4: the same GPU as 'L4': name it once"),
        ({"budget_usd_per_month": 0}, "must be > 0"),
        ({"candidates": []}, "must not be empty"),
        ({"candidates": [{"model": "Llama-3.1-8B", "gpu": "L4", "tp": 2}]}, "unknown field 'tp'"),
        ({"classes": {"chat": {"attainment": 1.2}}}, "must be ≤ 1"),
    ],
)
def test_what_contradicts_itself_is_one_clear_line(tmp_path: Path, change: dict[str, Any], told: str):
    assert told in refusal(tmp_path, tiny(tmp_path) | change)


def test_quotas_of_gpus_that_nobody_uses_are_doubted(tmp_path: Path):
    path = tmp_path / "plan.yaml"
    path.write_text(json.dumps(tiny(tmp_path) | {"quotas": {"H200": 4}}))
    assert [line for line in read_plan(path).warnings if "no candidate uses this GPU" in line]


@pytest.mark.parametrize(
    ("p99", "attainment", "doubted"), [(0.5, 0.99, False), (5.0, 0.99, True), (5.0, 0.98, False), (1.0, 1.0, True)]
)
def test_a_percentile_that_binds_nothing_is_doubted(tmp_path: Path, p99: float, attainment: float, doubted: bool):
    path = tmp_path / "plan.yaml"
    wanted = {"slo": {"ttft_s": 1.0}, "p99": {"ttft_s": p99}, "attainment": attainment}
    path.write_text(json.dumps(tiny(tmp_path) | {"classes": {"default": wanted}}))
    assert bool([line for line in read_plan(path).warnings if "binds nothing" in line]) == doubted


def test_an_override_and_a_trace_of_ones_own(tmp_path: Path):
    data = tiny(tmp_path)
    (tmp_path / "plan.yaml").write_text(json.dumps(data))
    (tmp_path / "other.csv").write_text("arrival_s,input_tokens,output_tokens\n0,4,3\n")
    spec = read_plan(tmp_path / "plan.yaml", overrides=["seed=7"], traces=[tmp_path / "other.csv"]).spec
    assert spec.seed == 7
    assert spec.traffic.traces[0].path == str(tmp_path / "other.csv")


def test_a_class_takes_from_default_what_it_does_not_say():
    spec = PlanSpec.model_validate(
        {
            "name": "x",
            "traffic": {"traces": [{"path": "t.csv"}]},
            "candidates": [{"model": "m", "gpu": "g"}],
            "classes": {"default": {"slo": {"ttft_s": 2.0}, "attainment": 0.9}, "chat": {"quality_floor": 0.5}},
        }
    )
    wanted = spec.wanted("chat")
    assert (wanted.attainment, wanted.quality_floor) == (0.9, 0.5)
    assert wanted.slo is not None
    assert wanted.slo.ttft_s == 2.0


@pytest.mark.parametrize("path", sorted((ROOT / "scenarios/plans").glob("*.yaml")), ids=lambda path: path.stem)
def test_plans_that_ship_are_valid(path: Path, tmp_path: Path):
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_s,input_tokens,output_tokens\n0,4,3\n")
    loaded = read_plan(path, traces=[trace])
    assert loaded.spec.candidates
    assert all("takes the place of a trace of class" in warning for warning in loaded.warnings)


@pytest.mark.parametrize("command", ["run", "check", "compare", "whatif"])
def test_a_plan_file_says_which_command_reads_it(tmp_path: Path, command: str, capsys, monkeypatch):
    path = tmp_path / "plan.yaml"
    path.write_text(json.dumps(tiny(tmp_path)))
    assert refused([command, str(path)], monkeypatch, capsys).endswith(
        " candidates: this is a plan file: simroute plan reads it, with --dry-run it checks it\n"
    )


def test_a_scenario_says_which_commands_read_it(tmp_path: Path, capsys, monkeypatch):
    path = tmp_path / "scenario.yaml"
    path.write_text("name: x\npools: []\n")
    told = refused(["plan", str(path)], monkeypatch, capsys)
    assert told == (
        f"simroute: {path}:2:1 pools: this is a scenario: simroute run, check, compare and whatif read it\n"
    )


def refused(arguments: list[str], monkeypatch, capsys) -> str:
    """What a command that is refused says."""
    monkeypatch.setattr(sys, "argv", ["simroute", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    out, err = capsys.readouterr()
    assert (stopped.value.code, out) == (2, "")
    return str(err)


FLOORED = {"classes": {"coding": {"quality_floor": 0.8}}, "fleets": {"most_variants": 2}}


@pytest.mark.parametrize(
    ("change", "doubted"),
    [
        ({}, True),
        ({"policies": ["round_robin", "power_of_two"]}, True),
        ({"policies": ["round_robin", "quant_aware"]}, False),
        ({"policies": [{"name": "round_robin", "options": {"respect_quality_floor": True}}]}, False),
        ({"policies": ["two_level"]}, False),
        ({"policies": [{"name": "two_level", "options": {"variant": "least_requests"}}]}, True),
        ({"policies": ["cascade"]}, False),
        ({"fleets": {"most_variants": 1}}, False),
        ({"classes": {}}, False),
        ({"candidates": [{"model": "Llama-3.1-8B", "gpu": ["L4", "L40S"]}]}, False),
    ],
)
def test_floors_that_no_policy_looks_at_are_doubted(tmp_path: Path, change: dict[str, Any], doubted: bool):
    path = tmp_path / "plan.yaml"
    path.write_text(json.dumps(tiny(tmp_path) | FLOORED | change))
    found = [line for line in read_plan(path).warnings if "looks at quality floors, and coding has one" in line]
    assert bool(found) == doubted
    assert all("add quant_aware" in line and "\n" not in line for line in found)
