"""From file to checked scenario: defaults, wording, everything at once."""

from __future__ import annotations

import pytest

from simroute import load
from simroute.errors import ScenarioError
from simroute.scenario.loader import read


def problems(reading, data):
    with pytest.raises(ScenarioError) as error:
        reading(data)
    return [problem.split(" ", 1)[1] for problem in error.value.problems]


def test_what_is_left_out_has_the_documented_default(reading, data):
    scenario = reading(data).scenario
    assert [policy.shown for policy in scenario.policies] == ["least_requests"]
    assert scenario.pools[0].replicas == 1
    assert scenario.pools[0].engine.block_size == 16
    assert scenario.router.scrape_interval_s == 0
    assert scenario.horizon_s is None


def test_load_is_public_and_takes_overrides_and_traces(reading, data, tmp_path):
    reading(data)
    other = tmp_path / "other.csv"
    other.write_text((tmp_path / "trace.csv").read_text())
    scenario = load(tmp_path / "scenario.yaml", overrides=["seed=5", "traffic.traces[0].tier=free"], traces=[other])
    assert scenario.seed == 5
    assert [(trace.path, trace.tier) for trace in scenario.traffic.traces] == [(str(other), "free")]


def test_a_trace_that_takes_the_place_of_a_tagged_one_is_doubted_until_it_is_tagged(reading, data, tmp_path):
    data["traffic"]["traces"][0]["request_class"] = "coding"
    assert reading(data).warnings == ()
    path, other = tmp_path / "scenario.yaml", tmp_path / "trace.csv"
    (warning,) = read(path, traces=[other]).warnings
    assert "place of a trace of class 'coding'" in warning
    tag = "traffic.traces[0].request_class=coding"
    assert warning.endswith(f"--set {tag}")
    assert read(path, traces=[other], overrides=[tag]).warnings == ()


def test_relative_traces_start_at_the_scenario_not_at_the_working_directory(reading, data, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    assert reading(data).scenario.traffic.traces[0].path == str(tmp_path / "trace.csv")


def test_scenarios_are_frozen(reading, data):
    scenario = reading(data).scenario
    with pytest.raises(ValueError, match="frozen"):
        scenario.seed = 3


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("seed", -1, "seed: must be ≥ 0, got -1"),
        ("seed", True, "seed: must be a whole number, got true"),
        ("seed", 1.5, "seed: must be a whole number, got 1.5"),
        ("name", 3, "name: must be text, got 3"),
        ("name", "", "name: must not be empty"),
        ("pools", [], "pools: must not be empty"),
        ("pools", {}, "pools: must be a list, got a mapping"),
        ("router", None, "router: must be a mapping of fields, got nothing"),
        ("classes", {"chat": {"quality_floor": 1.5}}, "classes.chat.quality_floor: must be ≤ 1, got 1.5"),
        ("classes", {"chat": {"slo": {"ttft": 1}}}, "classes.chat.slo.ttft: unknown field 'ttft': did you mean ttft_s"),
        ("polices", ["random"], "polices: unknown field 'polices': did you mean policies"),
        ("policies", [4], "policies[0]: must be a mapping of fields (name, label, options), got 4"),
        ("policies", [{"label": "x"}], "policies[0].name: missing: Policy name"),
        ("horizon_s", "1h", "horizon_s: must be a number, got 1h"),
    ],
)
def test_types_and_ranges_in_plain_words(reading, data, field, value, message):
    (found,) = problems(reading, data | {field: value})
    assert found.startswith(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engine": {"policy": "lifo"}}, "pools[0].engine.policy: must be fcfs or priority, got lifo"),
        ({"engine": {"watermark": 2}}, "pools[0].engine.watermark: must be ≤ 1, got 2"),
        ({"price": {"provider": "AWS", "usd_per_gpu_hour": 2}}, "pools[0].price: give provider and term, or usd_per"),
        ({"price": {"term": "stolen"}}, "pools[0].price: unknown price term 'stolen'"),
        ({"quantization": "bf16", "gpu": "T4"}, "pools[0]: scheme bf16 does not run on T4"),
        ({"model": "gone/config.json"}, "pools[0].model: "),
    ],
)
def test_pools_are_checked_where_it_hurts(reading, data, changes, message):
    data["pools"][0] |= changes
    (found,) = problems(reading, data)
    assert found.startswith(message)


def test_one_mistake_hides_no_other(reading, data):
    data["pools"] = [data["pools"][0] | {"replicas": 0, "gpu": "H1"}, data["pools"][0] | {"model": "Qwen9"}]
    data |= {"policies": ["ramdom"], "seed": -1}
    assert {problem.split(":")[0] for problem in problems(reading, data)} == {
        "pools[0].replicas",
        "pools[1].model",
        "policies[0]",
        "seed",
    }


def test_a_quality_is_assumed_once_and_ordered(reading, data):
    row = {"model": "qwen3-8b", "quantization": "fp8", "request_class": "chat", "mean": 0.8, "note": "a guess"}
    (twice,) = problems(reading, data | {"quality": [row, row | {"model": "Qwen3-8B"}]})
    assert twice == "quality[1]: Qwen3-8B fp8 for chat is already assumed in quality[0]"
    (order,) = problems(reading, data | {"quality": [row | {"low": 0.9}]})
    assert order == "quality[0]: low ≤ mean ≤ high must hold, got 0.9, 0.8, 0.8"


def test_floors_out_of_reach_are_warned_about_but_run(reading, data):
    data["classes"] = {"coding": {"quality_floor": 0.99}, "extraction": {"quality_floor": 0.5}}
    warnings = reading(data).warnings
    assert any("classes.coding.quality_floor: no pool reaches 0.99: the best, Qwen3-8B fp8, has" in w for w in warnings)
    assert any("quality of pool only for extraction is unknown and counts as 0" in w for w in warnings)


@pytest.mark.parametrize(("text", "message"), [("", "it is empty"), ("- a\n", "got list"), ("hello\n", "got str")])
def test_a_file_that_is_no_mapping_is_told_what_one_is(tmp_path, text, message):
    path = tmp_path / "scenario.yaml"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=f"a scenario is a mapping with name, traffic and pools: {message}"):
        load(path)
