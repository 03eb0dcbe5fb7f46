"""The plan document: an answer, its proof, what to relax when there is none, and what is left after a stop."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from planner.spaces import evaluator, planned, spanned, tiny

import simroute
from simroute.errors import UsageError
from simroute.planner.answer.frontier import frontier
from simroute.planner.execution.cache import Cache
from simroute.planner.execution.executor import InProcess
from simroute.planner.fleets.bounds import Bounds
from simroute.planner.fleets.evaluate import Candidate
from simroute.planner.fleets.search import Search
from simroute.planner.plan import PlanResult
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


def test_limits_that_no_answer_keeps_to_are_relaxed_to_what_the_nearest_fleet_reaches(tmp_path: Path):
    data = tiny(tmp_path, requests=60)
    data["classes"] = {"default": {"slo": {"ttft_s": 0.001, "e2e_s": 600.0}}}
    document = solved(tmp_path, data).document
    near = document["nearest"]
    for each in document["relax"]:
        reached = near["summary"]["by_class"][each["class"]]["ttft_s"]["p99"]
        assert each["constraint"] == "attainment"
        assert each["slo"] == {"ttft_s": pytest.approx(reached)}
        assert f"relax the TTFT limit of {each['class']} from 0.001 s to {reached:.3g} s" in each["text"]
    fastest = min(
        (plan for plan in document["evaluated"] if plan["stage"] == "whole"),
        key=lambda plan: (plan["headlines"]["ttft_p99_s"] or math.inf, plan["cost_usd_per_month"]),
    )
    assert near["headlines"]["ttft_p99_s"] == pytest.approx(fastest["headlines"]["ttft_p99_s"])


def test_an_overloaded_fleet_asks_for_replicas_and_for_nothing_else(tmp_path: Path):
    data = tiny(tmp_path, requests=400, per_s=60.0)
    data["candidates"][0]["replicas"] = {"max": 1}
    document = solved(tmp_path, data).document
    assert document["nearest"]["stability"] == "OVERLOADED"
    (relax,) = document["relax"]
    assert relax["constraint"] == "stability"
    assert re.search(r"allow more replicas.*at least [2-9]\d* are needed", relax["text"])


def test_a_floor_of_which_nothing_is_known_is_not_relaxed_to_nothing(tmp_path: Path):
    data = tiny(tmp_path, requests=40)
    data["classes"]["default"]["quality_floor"] = 0.7
    document = solved(tmp_path, data).document
    told = "no quality for chat is known of any variant: state it under `quality`, or drop the floor"
    assert told in document["answer"]
    assert [each["needed"] for each in document["relax"] if each["constraint"] == "quality_floor"] == [None, None]
    assert any(note.startswith("no quality for chat is known of Llama-3.1-8B-bf16-L4,") for note in document["notes"])


def test_a_budget_is_not_blamed_alone_where_more_is_wrong(tmp_path: Path):
    data = tiny(tmp_path, requests=40) | {"budget_usd_per_month": 5.0}
    data["classes"] = {"default": {"p99": {"ttft_s": 0.02}}}
    relax = solved(tmp_path, data).document["relax"]
    assert {"ttft_p99", "budget"} <= {each["constraint"] for each in relax}


def test_prompts_too_long_for_every_variant_are_counted(tmp_path: Path):
    data = tiny(tmp_path, requests=60)
    data["classes"]["default"]["attainment"] = 1.0
    data["candidates"][0]["engine"] = {"max_model_len": 2048}
    answer = solved(tmp_path, data).document["answer"]
    rows = [line.split(",") for line in (tmp_path / "trace.csv").read_text().splitlines()[1:]]
    coding = [int(row[1]) for row in rows if row[3] == "coding"]
    count = sum(prompt >= 2048 for prompt in coding)
    assert count
    assert f"{count} of {len(coding)} prompts of coding are longer than any variant takes (2,048 tokens)" in answer


def test_a_loss_that_leaves_no_fleet_is_named(tmp_path: Path):
    data = tiny(tmp_path, requests=20)
    data["candidates"][0]["replicas"] = {"max": 1}
    data["availability"] = {"zones": ["a", "b"], "lose_zones": 1}
    assert "every fleet here would be lost whole" in solved(tmp_path, data).document["answer"]


def test_targets_for_a_class_that_sends_nothing_are_noted(tmp_path: Path):
    data = tiny(tmp_path, requests=20)
    data["classes"]["codign"] = {"slo": {"ttft_s": 0.1}}
    notes = solved(tmp_path, data).document["notes"]
    assert any("classes.codign: no request of this class arrives" in note for note in notes)


def test_what_is_asked_above_a_quota_is_counted_once(tmp_path: Path):
    data = tiny(tmp_path, requests=60, per_s=2.0) | {"quotas": {"L4": 1, "L40S": 1}}
    search = solved(tmp_path, data).document["search"]
    assert search["asked"] + sum(search["pruned"].values()) == search["candidates"]
    assert search["gap"]["unsimulated"] == 0


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
    monkeypatch.setattr("simroute.planner.fleets.evaluate.FEWEST_PEAK", 20)
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


def test_what_a_stretch_breaks_of_a_percentile_is_said_as_a_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("simroute.planner.fleets.evaluate.FEWEST_PEAK", 20)
    data = tiny(tmp_path, requests=200, per_s=60.0) | {"search": {"peak_share": 0.5, "sensitivity": 0}}
    data["classes"] = {"default": {"p99": {"ttft_s": 0.4}, "attainment": 0.9}}
    data["candidates"][0] |= {"quantization": "fp8", "gpu": "L40S"}
    document = solved(tmp_path, data).document
    count = document["best"]["pools"][0]["replicas"]
    (below,) = [plan for plan in document["evaluated"] if plan["pools"][0]["replicas"] == count - 1]
    assert below["stage"] == "peak"
    (least,) = sorted(below["violations"], key=lambda check: check["value"])[:1]
    assert least["constraint"] == "ttft_p99"
    who = f"the p99 TTFT of {least['class']}"
    assert f"; with less, at best {least['value']:.2%} of requests keep to {who}, and 99% must." in document["answer"]


class Deaf:
    """An executor to which Ctrl-C comes before it listens, at its call number `at`."""

    def __init__(self, at: int) -> None:
        self.calls, self.at = 0, at

    def map(self, *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return InProcess().map(*arguments, **options)


@pytest.mark.parametrize("at", [2, 30])
def test_a_ctrl_c_between_two_rounds_keeps_what_is_finished(tmp_path: Path, at: int):
    deaf = Deaf(at)
    result = simroute.plan(planned(tmp_path, tiny(tmp_path, requests=40)), executor=deaf)
    assert deaf.calls == at, "nothing more is asked"
    assert result.interrupted
    assert result.document["evaluated"]
    assert any("interrupted" in note for note in result.document["notes"])
