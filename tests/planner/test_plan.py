"""The plan document: an answer, its proof, what to relax when there is none, and what is left after a stop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from planner.spaces import evaluator, planned, spanned, tiny

import simroute
from simroute.errors import UsageError
from simroute.planner.bounds import Bounds
from simroute.planner.cache import Cache
from simroute.planner.evaluate import Candidate
from simroute.planner.executor import InProcess
from simroute.planner.frontier import frontier
from simroute.planner.plan import PlanResult
from simroute.planner.search import Search
from simroute.units import HOURS_PER_MONTH


def solved(folder: Path, data: dict[str, Any], **options: Any) -> PlanResult:
    return simroute.plan(planned(folder, data), executor=InProcess(), **options)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> PlanResult:
    folder = tmp_path_factory.mktemp("plan")
    return solved(folder, tiny(folder, requests=100))


def test_the_best_plan_and_its_bill(found: PlanResult):
    best = found.best
    assert best is not None
    assert found.feasible
    assert best["meets"]
    assert best["stage"] == "whole"
    bill = sum(pool["replicas"] * pool["usd_per_hour"] for pool in best["pools"]) * HOURS_PER_MONTH
    assert best["cost_usd_per_month"] == pytest.approx(bill)
    assert best["summary"]["cost_usd_per_month"] == pytest.approx(bill)
    assert found.document["answer"].startswith("Buy ")
    assert best["pools"][0]["engine"]["max_num_seqs"] >= 1


def test_it_is_plain_json_and_whole(found: PlanResult):
    document = json.loads(json.dumps(found.document, allow_nan=False))
    assert {"binding", "headroom", "search", "slo", "traffic", "assumptions", "notes", "unfit"} <= document.keys()
    search = document["search"]
    assert search["asked"] + sum(search["pruned"].values()) == search["candidates"]


def test_the_frontier_holds_the_best_and_nothing_that_another_beats(found: PlanResult):
    table = found.frontier
    assert table.iloc[0]["id"] == found.best["id"]  # type: ignore[index]
    for _, one in table.iterrows():
        for _, other in table.iterrows():
            better = (
                other["cost_usd_per_month"] < one["cost_usd_per_month"]
                and other["ttft_p99_s"] < one["ttft_p99_s"]
                and other["e2e_p99_s"] < one["e2e_p99_s"]
            )
            assert not better


def test_headroom_brackets_the_break(found: PlanResult):
    room = found.document["headroom"]
    assert room["rate_scale"] >= 1
    assert room["breaks_at"] is None or room["rate_scale"] < room["breaks_at"] <= room["rate_scale"] * 1.03


def test_a_frontier_by_hand(tmp_path: Path):
    space = spanned(tmp_path, tiny(tmp_path, requests=40, per_s=2.0))
    judge = evaluator(space)
    verdicts = [v for v in judge.ask([Candidate(((0, n),), 0) for n in (3, 4, 5)]) if v is not None and v.meets]
    kept = frontier(space, verdicts)
    costs = [space.usd_per_month(v.candidate.fleet) for v in kept]
    assert costs == sorted(costs)
    assert kept[0] == verdicts[0]


def test_a_budget_too_small_names_what_it_would_take(tmp_path: Path):
    data = tiny(tmp_path, requests=100) | {"budget_usd_per_month": 600.0}
    result = solved(tmp_path, data)
    free = solved(tmp_path, {k: v for k, v in data.items() if k != "budget_usd_per_month"})
    assert not result.feasible
    assert result.best is None
    (relax,) = result.document["relax"]
    assert (relax["constraint"], relax["limit"]) == ("budget", 600.0)
    assert relax["needed"] == pytest.approx(free.best["cost_usd_per_month"])  # type: ignore[index]
    assert "raise the budget from $600" in result.document["answer"]


def test_a_target_that_no_fleet_meets_names_how_near_it_comes(tmp_path: Path):
    data = tiny(tmp_path, requests=60)
    data["classes"] = {"default": {"p99": {"ttft_s": 0.02}}}
    result = solved(tmp_path, data)
    assert not result.feasible
    near = result.document["nearest"]
    relax = [each for each in result.document["relax"] if each["constraint"] == "ttft_p99"]
    assert near is not None
    assert relax
    assert all(each["needed"] > 0.02 for each in relax)


def test_a_floor_that_nothing_reaches_names_the_best_there_is(tmp_path: Path):
    data = tiny(tmp_path, requests=40)
    data["classes"]["default"]["quality_floor"] = 0.9
    data["quality"] = [
        {"model": "Llama-3.1-8B", "quantization": q, "request_class": c, "mean": m, "note": "for a test"}
        for q, m in (("bf16", 0.7), ("fp8", 0.6))
        for c in ("chat", "coding")
    ]
    relax = solved(tmp_path, data).document["relax"]
    floors = [each for each in relax if each["constraint"] == "quality_floor" and each["limit"] == 0.9]
    assert {(each["class"], each["needed"]) for each in floors} == {("chat", 0.7), ("coding", 0.7)}


def test_candidates_that_cannot_run_are_listed(tmp_path: Path):
    data = tiny(tmp_path, requests=40)
    data["candidates"].append({"model": "Llama-3.3-70B", "gpu": "L4"})
    unfit = solved(tmp_path, data).document["unfit"]
    assert [each["name"] for each in unfit] == ["Llama-3.3-70B-bf16-L4"]
    assert "does not fit" in unfit[0]["reason"]


def test_nothing_to_search_is_one_clear_line(tmp_path: Path):
    data = tiny(tmp_path, requests=40)
    data["candidates"] = [{"model": "Llama-3.3-70B", "gpu": "L4"}]
    with pytest.raises(UsageError, match=r"none of 1 can run, so there is nothing to search: Llama-3\.3-70B-bf16-L4"):
        solved(tmp_path, data)


def test_an_unknown_price_is_listed_and_ones_own_taken(tmp_path: Path):
    data = tiny(tmp_path, requests=40)
    data["prices"] = {"L4": {"provider": "nobody"}, "L40S": {"usd_per_gpu_hour": 0.5}}
    result = solved(tmp_path, data)
    assert {each["name"] for each in result.document["unfit"]} == {"Llama-3.1-8B-bf16-L4", "Llama-3.1-8B-fp8-L4"}
    best = result.best
    assert best is not None
    assert best["pools"][0]["usd_per_hour"] == 0.5


def test_what_was_simulated_is_reused(tmp_path: Path):
    data = tiny(tmp_path, requests=40)
    first = solved(tmp_path, data, cache=Cache(tmp_path / "cache")).document
    again = solved(tmp_path, data, cache=Cache(tmp_path / "cache")).document
    assert first["search"]["simulated"] > 0
    assert first["search"]["simulated"] + first["search"]["reused"] == again["search"]["reused"]
    assert again["search"]["simulated"] == 0
    different = ("search",)
    assert {k: v for k, v in first.items() if k not in different} == {
        k: v for k, v in again.items() if k not in different
    }


def test_a_stop_keeps_what_is_finished(tmp_path: Path):
    calls = iter(range(1000))
    result = solved(tmp_path, tiny(tmp_path, requests=40), stop=lambda: next(calls) > 6)
    assert result.interrupted
    assert result.document["evaluated"]
    assert any("interrupted" in note for note in result.document["notes"])


def test_the_peak_alone_can_settle_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("simroute.planner.evaluate.FEWEST_PEAK", 20)
    data = tiny(tmp_path, requests=200, per_s=60.0) | {"search": {"peak_share": 0.5}}
    space = spanned(tmp_path, data)
    judge = evaluator(space)
    (verdict,) = judge.ask([Candidate(((0, 1),), 0)])
    assert verdict is not None
    assert (verdict.stage, verdict.meets) == ("peak", False)
    monkeypatch.undo()
    whole = Search(evaluator(space), Bounds(space))
    whole.run()
    assert whole.best is not None
    staged = Search(judge, Bounds(space))
    staged.run()
    assert staged.best is not None
    assert staged.best.candidate == whole.best.candidate
