"""What a scenario hands its policies, and policies of the user's own named in it."""

from __future__ import annotations

import sys
from zlib import crc32

import pytest

from simroute.errors import ScenarioError, UsageError
from simroute.fleet.cluster import simulate
from simroute.policy.context import Targets
from simroute.scenario.build import build
from simroute.scenario.models import PolicySpec
from simroute.scenario.run import chosen, run
from simroute.workload.trace import Trace

SOURCE = """
from pydantic import BaseModel, ConfigDict
from simroute.policy.snapshot import Decision


class Own:
    class Options(BaseModel):
        model_config = ConfigDict(frozen=True, extra="forbid")
        replica: int = 0

    def __init__(self, options, context):
        self.context = context
        self.replica = options.replica

    def choose(self, request, snapshots):
        return Decision(self.replica)
"""


@pytest.fixture
def own(tmp_path, monkeypatch, request):
    """The name of a policy in a module of its own, importable while the test runs."""
    module = f"scenario_own_{crc32(request.node.nodeid.encode())}"
    (tmp_path / f"{module}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield f"{module}:Own"
    sys.modules.pop(module, None)


def context_of(built, name):
    return built.policy(PolicySpec(name=name), seed=0).context


def test_a_policy_is_told_targets_and_floors_of_the_classes(reading, data, own):
    classes = {
        "default": {"slo": {"ttft_s": 2}, "quality_floor": 0.1},
        "chat": {"slo": {"tpot_s": 0.1, "e2e_s": 9}},
    }
    context = context_of(build(reading(data | {"classes": classes}).scenario), own)
    assert context.targets_of("chat") == Targets(tpot_s=0.1, e2e_s=9)
    assert context.targets_of("coding") == Targets(ttft_s=2)
    assert context.quality_floor["coding"] == 0.1
    assert context.prefix_block_tokens == 0


def test_a_policy_is_told_what_prefixes_stand_for(reading, data, own, tmp_path):
    (tmp_path / "mooncake.jsonl").write_text(
        '{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}\n'
    )
    found = build(reading(data | {"traffic": {"traces": [{"path": "mooncake.jsonl"}]}}).scenario)
    assert context_of(found, own).prefix_block_tokens == found.trace.prefix_block_tokens == 512


def test_a_policy_is_told_memory_budget_and_speed_of_each_variant(reading, data, own):
    data["pools"][0] |= {"num_gpu_blocks": 2001, "engine": {"max_num_batched_tokens": 1024, "max_model_len": 4000}}
    found = build(reading(data).scenario)
    (variant,) = context_of(found, own).variants
    (pool,) = found.pools
    assert (variant.max_num_batched_tokens, variant.kv_tokens) == (1024, 32_000)
    assert variant.speed is not None
    slope, context = pool.step_time.decode_line(8), 4000
    assert variant.speed.decode_s(8, context) == slope[0] + slope[1] * context
    assert variant.speed.prefill_s(2048) > 2 * variant.speed.prefill_s(1000) > 0, (
        "two chunks, the second attending back"
    )


def test_the_lone_request_of_a_scenario_has_its_first_token_when_its_policies_predict_it(reading, data):
    data["pools"][0]["calibration"] = "none"
    found = build(reading(data).scenario)
    (pool,) = found.pools
    alone = Trace.build(arrival_s=[0.0], input_tokens=[700], output_tokens=[50])
    fleet = simulate(alone, found.pools, found.policy(PolicySpec(name="random"), 0), policy_name="random", seed=0)
    assert pool.variant.speed.prefill_s(700) == pytest.approx(fleet.first_token_s[0], rel=1e-9)


def test_an_own_policy_runs_from_the_file_and_from_the_command_line(reading, data, own):
    data["pools"][0]["replicas"] = 2
    data["policies"] = ["random", {"name": own, "label": "mine", "options": {"replica": 1}}]
    scenario = reading(data).scenario
    result = run(scenario, ["mine", own], jobs=2)
    assert [r.summary["policy"] for r in result.results] == ["mine"], "one policy under both of its names"
    assert set(result.results[0].fleet.replica.tolist()) == {1}
    data["policies"] = ["random"]
    other = run(reading(data).scenario, [own, "random"], jobs=2)
    assert [r.summary["policy"] for r in other.results] == [own, "random"]
    assert set(other.results[0].fleet.replica.tolist()) == {0}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{own}s", "policies[0]: policy {own}s: unknown policy class of {module} 'Owns': did you mean Own?"),
        ("{module}.no:Own", "policies[0]: policy {module}.no:Own: no module named '{module}.no'"),
        (
            {"name": "{own}", "options": {"replicas": 1}},
            "policies[0].options.replicas: unknown option 'replicas': did you mean replica?",
        ),
        (
            {"name": "two_level", "options": {"replica": {"name": "{own}", "options": {"replica": "x"}}}},
            "policies[0].options.replica.options.replica: Input should be a valid integer, "
            "unable to parse string as an integer, got 'x'",
        ),
        (
            {"name": "two_level", "options": {"variant": {"name": "difficulty_treshold"}}},
            "policies[0].options.variant.name: unknown policy 'difficulty_treshold': did you mean "
            "difficulty_threshold?",
        ),
        (
            {"name": "cascade", "options": {"chain": ["onyl"]}},
            "policies[0].options: cascade: chain: unknown pool 'onyl': did you mean only?",
        ),
    ],
)
def test_what_is_wrong_with_a_policy_is_located(reading, data, own, spec, message):
    module = own.partition(":")[0]

    def filled(value):
        if isinstance(value, dict):
            return {key: filled(item) for key, item in value.items()}
        return value.format(own=own, module=module) if isinstance(value, str) else value

    with pytest.raises(ScenarioError) as caught:
        reading(data | {"policies": [filled(spec)]})
    (problem,) = caught.value.problems
    assert problem.endswith(message.format(own=own, module=module))


def test_a_name_that_is_neither_listed_nor_importable_is_refused(reading, data, own):
    scenario = reading(data).scenario
    with pytest.raises(UsageError, match="unknown policy 'cascde': did you mean cascade"):
        chosen(scenario, ["cascde"])
    with pytest.raises(UsageError, match="policy no_such_place:Own: no module named 'no_such_place'"):
        chosen(scenario, ["no_such_place:Own"])
