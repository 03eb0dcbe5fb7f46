"""The public `run`: the same trace under every policy, the same results every time."""

from __future__ import annotations

import json

import numpy as np
import pytest

import simroute
from simroute.errors import UsageError
from simroute.results.run import Status
from simroute.scenario.models import Scenario
from simroute.scenario.run import chosen, run


@pytest.fixture
def scenario(reading, data):
    data["policies"] = ["round_robin", "random", {"name": "least_kv", "label": "kv"}]
    data["pools"][0]["replicas"] = 3
    return reading(data).scenario


def test_every_policy_replays_the_whole_trace_in_the_scenarios_order(scenario):
    result = simroute.run(scenario)
    assert [r.summary["policy"] for r in result.results] == ["round_robin", "random", "kv"]
    for policy in result.results:
        assert policy.fleet.trace is result.built.trace
        assert policy.fleet.status.tolist() == [Status.COMPLETED] * 20
        assert policy.summary["requests"]["arrived"] == 20
    assert not result.interrupted


def test_a_path_will_do(scenario, tmp_path):
    assert simroute.run(str(tmp_path / "scenario.yaml"), ["random"]).summary()["scenario"] == "tiny"


def test_processes_change_nothing(scenario):
    alone, together = run(scenario, jobs=1), run(scenario, jobs=2)
    assert alone.summary() == together.summary()
    for one, other in zip(alone.results, together.results, strict=True):
        np.testing.assert_array_equal(one.fleet.finish_s, other.fleet.finish_s)


def test_policies_share_their_luck_and_the_seed_changes_it(scenario):
    def replicas(**options):
        return run(scenario, ["random"], **options).results[0].fleet.replica.tolist()

    assert replicas() == replicas(seed=scenario.seed)
    assert replicas() != replicas(seed=scenario.seed + 1)


def test_policies_are_chosen_by_label_or_name(scenario):
    assert [p.shown for p in chosen(scenario, None)] == ["round_robin", "random", "kv"]
    assert [p.shown for p in chosen(scenario, ["kv", "least_kv", "quant_aware"])] == ["kv", "quant_aware"]
    with pytest.raises(UsageError, match="unknown policy 'vk': did you mean kv"):
        chosen(scenario, ["vk"])


def test_the_manifest_is_about_inputs_alone(scenario):
    manifest = run(scenario, ["random"], seed=4).manifest()
    assert manifest["scenario"]["pools"][0]["replicas"] == 3
    assert manifest == run(scenario, ["random"], seed=4).manifest()


def test_the_manifest_tells_what_really_ran(scenario):
    result = run(scenario, ["kv", "quant_aware"], seed=4, exact=True)
    manifest = result.manifest()
    assert [policy["name"] for policy in manifest["scenario"]["policies"]] == ["least_kv", "quant_aware"]
    assert manifest["seed"] == manifest["scenario"]["seed"] == result.seed == 4
    assert manifest["exact"] is True
    again = run(Scenario.model_validate_json(json.dumps(manifest["scenario"])))
    assert again.summary() == result.summary()


def test_floors_of_the_classes_reach_the_summary(reading, data):
    quality = {"model": "Qwen3-8B", "quantization": "fp8", "request_class": "default", "mean": 0.7, "note": "a guess"}
    classes = {"default": {"quality_floor": 0.8}, "coding": {"quality_floor": 0.6}}
    summary = run(reading(data | {"quality": [quality], "classes": classes}).scenario).results[0].summary
    assert summary["quality"]["below_floor_by_class"] == {"coding": 0.0, "chat": 1.0}
    assert summary["quality"]["below_floor_share"] == 0.5
