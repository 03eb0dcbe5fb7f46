"""The public `compare`: worlds that all policies share, the same result every time, verdicts that can be checked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import simroute
from simroute.errors import UsageError
from simroute.hardware.steptime import Batch
from simroute.scenario import compare as scenario_compare
from simroute.scenario.build import build
from simroute.scenario.compare import compare, world
from simroute.scenario.run import run

BATCH = Batch(1, 100, 5050, 4, 2000, 5)


@pytest.fixture
def data(data, tmp_path):
    """Two tenants send 120 requests within 40 s, in bursts, to two fast replicas and a slow one."""
    rng = np.random.default_rng(3)
    arrival_s = np.sort(rng.uniform(0, 40, 120) // 4 * 4 + rng.uniform(0, 1, 120))
    rows = "".join(
        f"{at_s:.4f},{rng.integers(50, 900)},{rng.integers(5, 200)},{'chat' if i % 2 else 'coding'},t{i % 2}\n"
        for i, at_s in enumerate(arrival_s)
    )
    (tmp_path / "trace.csv").write_text("arrival_s,input_tokens,output_tokens,request_class,tenant\n" + rows)
    slow = {"name": "slow", "model": "Qwen3-8B", "quantization": "bf16", "gpu": "L4", "engine": {"max_model_len": 4096}}
    return data | {
        "pools": [data["pools"][0] | {"replicas": 2}, slow],
        "classes": {"default": {"slo": {"ttft_s": 0.3}}},
        "policies": [
            {"name": "static_tier", "label": "all_slow", "options": {"default": "slow"}},
            "least_requests",
            {"name": "least_requests", "label": "twin"},
            "random",
        ],
    }


@pytest.fixture
def scenario(reading, data):
    return reading(data).scenario


def compared(scenario, policies=None, **options):
    return compare(scenario, policies, **({"seeds": 4, "block_s": 2.0, "jobs": 1} | options))


def test_identical_policies_differ_by_exactly_zero_everywhere(scenario):
    found = compared(scenario, ["least_requests", "twin"]).document()
    for entry in found["differences"]["twin"].values():
        if entry["mean"] is not None:  # (nothing is known of the quality)
            assert (entry["mean"], entry["low"], entry["high"]) == (0.0, 0.0, 0.0)
        assert entry["verdict"] == "noise"
    assert "alike" in found["answer"]


def test_a_dominated_policy_is_found(scenario):
    found = compared(scenario, ["all_slow", "least_requests"]).document()
    differences = found["differences"]["least_requests"]
    assert differences["ttft_s.p50"]["verdict"] == "better"
    assert differences["slo_attainment"]["verdict"] == "better"
    assert differences["cost_usd_per_month"]["verdict"] == "noise"  # the same fleet
    assert found["answer"].startswith("least_requests wins over all_slow, the next best, and that is not noise")
    other = compared(scenario, ["all_slow", "least_requests"], baseline="least_requests").document()
    assert other["differences"]["all_slow"]["ttft_s.p50"]["verdict"] == "worse"
    assert other["differences"]["all_slow"]["ttft_s.p50"]["mean"] == -differences["ttft_s.p50"]["mean"]


def test_world_zero_is_a_plain_run(scenario):
    names = ["least_requests", "random"]
    found, plain = compared(scenario, names), run(scenario, names, jobs=1)
    assert found.summaries == {r.summary["policy"]: r.summary for r in plain.results}
    assert found.document()["manifest"] == plain.manifest()


def test_all_policies_go_through_the_same_worlds_and_each_is_another(scenario):
    built = build(scenario)
    worlds = [world(built, number, 2.0) for number in (0, 1, 1, 2)]
    assert worlds[0] is built
    prints = [each.trace.fingerprint() for each in worlds]
    assert prints[1] == prints[2]
    assert len(set(prints)) == 3
    assert worlds[1].scenario.seed == worlds[2].scenario.seed != worlds[3].scenario.seed
    times = [each.pools[0].step_time.duration_s(BATCH) for each in worlds]
    assert times[1] == times[2]
    assert len(set(times)) == 3
    assert [pool.variant for pool in worlds[1].pools] == [pool.variant for pool in built.pools]
    other_seed = replace(built, scenario=scenario.model_copy(update={"seed": 9}))
    assert world(other_seed, 1, 2.0).trace.fingerprint() not in prints


def test_worlds_do_not_depend_on_which_policies_are_compared(scenario):
    two, three = compared(scenario, ["least_requests", "random"]), compared(scenario)
    for label in ("least_requests", "random"):
        assert two.outcomes[label] == three.outcomes[label]


def test_processes_change_nothing_and_the_same_arguments_give_the_same_document(scenario):
    alone, together = (compared(scenario, seeds=2, jobs=jobs).document() for jobs in (1, 2))
    assert alone == together
    assert alone != compared(scenario, seeds=2, seed=5).document()


def test_a_path_will_do_and_the_public_name_is_the_same(scenario, tmp_path):
    path = str(tmp_path / "scenario.yaml")
    assert simroute.compare(path, ["random", "twin"], seeds=2, block_s=2.0, jobs=1).baseline == "random"


def test_blocks_and_worlds_that_are_too_few_are_noted(scenario):
    notes = compared(scenario, ["random", "twin"], seeds=2, block_s=10.0).document()["notes"]
    assert any(note.startswith("the trace has 4 block(s) of 10 s") for note in notes)
    assert any(note.startswith("verdicts rest on 2 worlds") for note in notes)
    notes = compared(scenario, ["random", "twin"], seeds=2, block_s=1.0).document()["notes"]
    assert not any("block(s)" in note for note in notes)


def test_groups_are_told_with_their_part_of_the_bill(scenario):
    summary = compared(scenario, ["random", "twin"], seeds=2).document()["policies"]["random"]
    for kind in ("by_class", "by_tenant", "by_tier"):
        assert sum(part["cost_share"] for part in summary[kind].values()) == pytest.approx(1.0, abs=1e-7)
    assert set(summary["by_tenant"]) == {"t0", "t1"}
    assert 0.5 <= summary["fairness"]["goodput"] <= 1.0


class Steps:
    """What the router takes a replica's speed to be."""

    def prefill_s(self, tokens):
        return 1e-4 * tokens

    def decode_s(self, seqs, context_tokens):
        return 0.02 + 1e-4 * seqs


def test_decisions_are_logged_beside_the_oracles(scenario):
    built = build(scenario)
    pools = [replace(pool, variant=replace(pool.variant, speed=Steps())) for pool in built.pools]
    found = compared(replace(built, pools=tuple(pools)), ["oracle", "random"], seeds=2, decisions=True)
    document = found.document()["decisions"]
    assert document["oracle"] == {
        "decisions": 120,
        "rejected": 0,
        "predicted": 120,
        "mean_regret_s": 0.0,
        "p99_regret_s": 0.0,
        "notable_share": 0.0,
    }
    assert document["random"]["mean_regret_s"] > 0
    (oracle, chance) = found.decision_tables()
    assert oracle.num_rows == chance.num_rows == 120
    assert min(chance["regret_s"].to_pylist()) >= 0
    assert set(chance["tenant"].to_pylist()) == {"t0", "t1"}


def test_logging_decisions_changes_no_number(scenario):
    names = ["least_requests", "random"]
    plain, logged = (compared(scenario, names, seeds=2, decisions=wanted).document() for wanted in (False, True))
    assert (plain.pop("decisions"), set(logged.pop("decisions"))) == ({}, set(names))
    assert plain == logged


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policies": ["random"]}, "compare: needs two policies or more, got random: name others with --policy"),
        ({"policies": ["random", "rondom"]}, "unknown policy 'rondom': did you mean random"),
        ({"baseline": "tvin"}, "baseline: unknown policy 'tvin': did you mean twin"),
        ({"seeds": 1}, "seeds: must be 2 to 10,000, got 1"),
        ({"seeds": 10_001}, "seeds: must be 2 to 10,000, got 10001"),
        ({"level": 1.0}, "level: must be above 0 and below 1, such as 0.95, got 1"),
        ({"level": float("nan")}, "level: must be above 0 and below 1"),
        ({"block_s": 0.0}, "block: must be a number of seconds above 0, got 0"),
        ({"block_s": 1e-9}, "blocks: at most 1,000,000; give a longer block"),
    ],
)
def test_what_makes_no_comparison_is_refused_before_anything_runs(scenario, monkeypatch, options, message):
    monkeypatch.setattr(scenario_compare, "replay", None)
    with pytest.raises(UsageError, match=message):
        compared(scenario, options.pop("policies", None), **options)


def test_progress_is_told_by_policy(scenario):
    seen = []
    compared(scenario, ["random", "twin"], seeds=2, progress=lambda fractions: seen.append(tuple(fractions)))
    assert seen[-1] == (1.0, 1.0)
    assert {len(fractions) for fractions in seen} == {2}


def test_only_worlds_that_every_policy_finished_count(scenario, monkeypatch):
    whole = compared(scenario, ["random", "twin"], seeds=3)

    def cut_off(task, items, **_named):
        found = [task(item, lambda _done: None, lambda: False) for item in range(items)]
        return [*found[:5], None, *found[6:]]  # world 2 under the second policy

    monkeypatch.setattr(scenario_compare, "replay", cut_off)
    partial = compared(scenario, ["random", "twin"], seeds=3)
    assert partial.interrupted
    assert not whole.interrupted
    assert partial.worlds == 2
    assert partial.outcomes["random"] == [whole.outcomes["random"][0], whole.outcomes["random"][2]]
    assert "interrupted: 2 worlds were replayed under every policy" in partial.document()["notes"]
