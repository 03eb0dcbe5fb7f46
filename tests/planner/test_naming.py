"""Policies whose options name pools: candidates have names for them, and fleets without what they name are left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from planner.spaces import evaluator, planned, spanned, tiny
from planner.test_search import every_fleet, searched

from simroute.errors import ScenarioError, UsageError
from simroute.planner.fleets import naming
from simroute.planner.fleets.candidates import fleet_built
from simroute.planner.fleets.evaluate import Candidate
from simroute.planner.fleets.loading import read_plan
from simroute.scenario.models import PolicySpec

TIERS = {"name": "static_tier", "options": {"tiers": {"gold": "large"}, "default": "small"}}


def families(folder: Path, **changes: Any) -> dict[str, Any]:
    """A plan of small variants and a large one, traffic of two tiers."""
    data = tiny(folder, requests=60, per_s=8.0)
    head, *rows = (folder / "trace.csv").read_text().splitlines()
    tiered = [f"{row},{'gold' if i % 3 == 0 else 'free'}" for i, row in enumerate(rows)]
    (folder / "trace.csv").write_text("\n".join([f"{head},tier", *tiered]) + "\n")
    small = {"name": "small", "model": "Llama-3.1-8B", "quantization": "fp8", "gpu": ["L4", "L40S"]}
    large = {"name": "large", "model": "Llama-3.3-70B", "quantization": "fp8", "gpu": "H100", "tensor_parallel": 2}
    data["candidates"] = [each | {"replicas": {"max": 3}, "engine": {"max_model_len": 4096}} for each in (small, large)]
    return data | {"fleets": {"most_variants": 2}, "policies": [TIERS, "least_requests"]} | changes


def test_a_fleet_is_routed_by_what_its_candidates_are_called(tmp_path: Path):
    space = spanned(tmp_path, families(tmp_path))
    fleet = ((1, 1), (2, 1))
    assert space.called(fleet, 0) == ["small", "large"]
    assert space.called(fleet, 1) == [space.options[1].name, space.options[2].name]
    assert space.policies_for(fleet) == (0, 1)
    built = fleet_built(space, fleet, 0)
    assert [pool.variant.pool for pool in built.pools] == ["small", "large"]
    assert [pool.name for pool in built.pools] == [space.options[1].name, space.options[2].name]
    (verdict,) = evaluator(space).ask([Candidate(fleet, 0)])
    assert verdict is not None
    assert verdict.summary is not None
    shares = [part["requests_share"] for part in verdict.summary["by_pool"].values()]
    assert shares == pytest.approx([2 / 3, 1 / 3]), "a third of the requests are gold"


def test_fleets_without_what_a_policy_names_are_left_out(tmp_path: Path):
    space = spanned(tmp_path, families(tmp_path))
    assert space.policies_for(((2, 2),)) == (1,)
    assert space.policies_for(((0, 1), (1, 1))) == (1,), "two small ones: which of them is meant?"
    assert {len(c.fleet) for c in searched(space).candidates(every_fleet(space)) if c.policy == 0} == {2}


def test_the_search_with_a_policy_that_names_pools_finds_the_optimum(tmp_path: Path):
    space = spanned(tmp_path, families(tmp_path, policies=[TIERS], availability={"lose_replicas": 1}))
    judge = evaluator(space)
    search = searched(space)
    verdicts = judge.ask(search.candidates(every_fleet(space)))
    best = min((v for v in verdicts if v is not None and v.meets), key=search.order)
    assert search.best is not None
    assert search.best.candidate == best.candidate
    assert not [note for note in search.notes if "not simulated" in note]


def test_a_pool_that_a_loss_leaves_empty_is_down_and_not_unknown(tmp_path: Path):
    space = spanned(tmp_path, families(tmp_path, policies=[TIERS], availability={"lose_replicas": 1}))
    (verdict,) = evaluator(space).ask([Candidate(((1, 3), (2, 1)), 0)])
    assert verdict is not None
    assert not verdict.error
    missed = {c.request_class: c.value for c in verdict.violations if c.constraint == "attainment"}
    assert set(missed) == {"chat", "coding"}, "nobody answers the gold tier"


def test_names_by_hand():
    policy = PolicySpec(name="cascade", options={"chain": ["a", "b"]})
    assert naming.said(policy) == {"a", "b"}
    deep = PolicySpec(name="x", options={"tiers": {"free": "a"}, "order": [{"b": 1}]})
    assert naming.said(deep) == {"free", "a", "b"}
    assert naming.called(policy, [("x", "a"), ("y", "c"), ("b", "z")]) == ["a", "y", "b"]
    assert naming.called(policy, [("x", "a"), ("y", "a")]) == ["x", "y"]
    assert naming.refusal(policy, ["a", "b", "x"]) is None
    assert "unknown pool 'b'" in str(naming.refusal(policy, ["a", "x"]))
    assert naming.needed(policy, ["a", "b", "x"]) == ["a", "b"]
    tier = PolicySpec(name="static_tier", options={"tiers": {"a": "b"}})
    assert naming.needed(tier, ["a", "b"]) == ["b"], "the tier has a pool's name and is none"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"policies": [{"name": "static_tier", "options": {"default": "smal"}}]},
            "policies[0].options: static_tier: unknown pool 'smal': did you mean small?; candidates are called",
        ),
        (
            {"fleets": {"most_variants": 1}},
            "policies[0].options: needs 2 variants at once, large, small, and no fleet here has more than 1",
        ),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_read(tmp_path: Path, changes: dict[str, Any], told: str):
    with pytest.raises(ScenarioError) as refused:
        planned(tmp_path, families(tmp_path, **changes))
    assert told in str(refused.value)


def test_a_name_that_a_variant_has_already(tmp_path: Path):
    data = families(tmp_path)
    data["candidates"][1]["name"] = "Llama-3.1-8B-fp8-L4"
    with pytest.raises(ScenarioError, match="is what one of the plan's variants is called"):
        planned(tmp_path, data)


def test_a_policy_for_variants_that_cannot_run_is_listed(tmp_path: Path):
    data = families(tmp_path)
    data["candidates"][1]["tensor_parallel"] = 1
    data["candidates"][1]["gpu"] = "L4"
    space = spanned(tmp_path, data)
    assert "policy static_tier" in [each.name for each in space.unfit]
    with pytest.raises(UsageError, match="it sends requests to 'large', of which no variant can run"):
        spanned(tmp_path, data | {"policies": [TIERS]})


def test_a_variant_listed_under_two_names(tmp_path: Path):
    data = families(tmp_path)
    data["candidates"].append(data["candidates"][0] | {"name": "tiny"})
    with pytest.raises(UsageError, match="is listed under 'small' and 'tiny': list it once"):
        spanned(tmp_path, data)


def test_variants_may_be_named_in_full(tmp_path: Path):
    data = families(tmp_path, policies=[{"name": "static_tier", "options": {"default": "Llama-3.1-8B-fp8-L40S"}}])
    space = spanned(tmp_path, data)
    assert read_plan(tmp_path / "plan.yaml").warnings == ()
    assert [space.policies_for(((o, 1),)) for o in range(3)] == [(), (0,), ()]


def test_a_fleet_that_a_loss_leaves_is_not_the_same_fleet_bought(tmp_path: Path):
    small = {"name": "static_tier", "options": {"default": "small"}}
    space = spanned(tmp_path, families(tmp_path, policies=[small], availability={"lose_replicas": 1}))
    judge, alone = evaluator(space), Candidate(((1, 2),), 0)
    judge.ask([Candidate(((1, 2), (2, 1)), 0)])
    assert judge.whole(alone) == {}, "only as what is left of another"
    (found,) = judge.whole(alone, [1.0]).values()
    assert list(found["summary"]["by_pool"]) == [space.options[1].name]
