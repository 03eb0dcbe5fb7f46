"""What the answer hangs on: the same cheapest fleets as by trying all, prices by hand, and an honest end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from planner.spaces import evaluator, planned, spanned, tiny

import simroute
from simroute.planner.answer.sensitivity import sensitivity
from simroute.planner.answer.worlds import End, factors
from simroute.planner.execution.executor import InProcess
from simroute.planner.fleets.bounds import Bounds
from simroute.planner.fleets.candidates import Space
from simroute.planner.fleets.evaluate import Candidate
from simroute.planner.fleets.search import Search


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Search:
    folder = tmp_path_factory.mktemp("sensitivity")
    data = tiny(folder, requests=120)
    data["candidates"][0] |= {"gpu": "L40S", "replicas": {"max": 4}}
    data["fleets"] = {"most_variants": 2}
    space = spanned(folder, data)
    found = Search(evaluator(space), Bounds(space))
    found.run()
    return found


def by_all(space: Space, end: End) -> float | None:
    """The cheapest of all fleets at one value of a factor."""
    if end.space is None:
        return None
    world = end.space()
    asked = evaluator(world)
    counts = range(5)
    fleets = [tuple((o, n) for o, n in enumerate((a, b)) if n) for a in counts for b in counts if a + b]
    verdicts = asked.ask([Candidate(fleet, 0) for fleet in fleets])
    return min((world.usd_per_month(v.candidate.fleet) for v in verdicts if v is not None and v.meets), default=None)


def test_the_fleets_around_the_answer_hold_the_cheapest_of_all(search: Search):
    assert search.best is not None
    good = [verdict for verdict in search.verdicts() if verdict.meets]
    entries, notes = sensitivity(search, search.best, good)
    found = {entry["factor"]: entry for entry in entries}
    assert notes == []
    base = search.space.usd_per_month(search.best.candidate.fleet)
    for factor in factors(search.space):
        for end, place in ((factor.low, "low"), (factor.high, "high")):
            best = base if end.space is None else by_all(search.space, end)
            assert found[factor.name][place]["label"] == end.label
            assert found[factor.name][place]["cost_usd_per_month"] == pytest.approx(best), (factor.name, end.label)


def test_more_traffic_never_costs_less(search: Search):
    assert search.best is not None
    entries, _ = sensitivity(search, search.best, [])
    base = search.space.usd_per_month(search.best.candidate.fleet)
    for entry in entries:
        assert entry["low"]["cost_usd_per_month"] <= base * (1 + 1e-9), entry
        assert entry["high"]["cost_usd_per_month"] is None or entry["high"]["cost_usd_per_month"] >= base * (1 - 1e-9)


def test_prices_move_the_bill_until_another_kind_of_gpu_is_cheaper(tmp_path: Path):
    data = tiny(tmp_path, requests=60)
    data["prices"] = {"L4": {"usd_per_gpu_hour": 10.0}, "L40S": {"usd_per_gpu_hour": 1.0}}
    document = solved(tmp_path, data)
    (entry,) = [each for each in document["sensitivity"] if each["factor"] == "price of L40S"]
    base = document["best"]["cost_usd_per_month"]
    assert entry["low"]["cost_usd_per_month"] == pytest.approx(0.8 * base)
    assert entry["high"]["cost_usd_per_month"] == pytest.approx(1.2 * base)
    assert entry["low"]["fleet"] == document["best"]["id"]


def solved(folder: Path, data: dict[str, Any], **options: Any) -> dict[str, Any]:
    return dict(simroute.plan(planned(folder, data), executor=InProcess(), **options).document)


def test_it_can_be_left_out(tmp_path: Path):
    document = solved(tmp_path, tiny(tmp_path, requests=40) | {"search": {"sensitivity": 0}})
    assert document["sensitivity"] == []
    assert document["curve"]


def test_what_the_replays_do_not_suffice_for_is_said(tmp_path: Path):
    document = solved(tmp_path, tiny(tmp_path, requests=40) | {"search": {"sensitivity": 3}})
    names = [entry["factor"] for entry in document["sensitivity"]]
    assert "price of L4" in names or "price of L40S" in names
    (note,) = [note for note in document["notes"] if note.startswith("sensitivity to")]
    assert "latency targets" in note
    assert note.endswith("not found within search.sensitivity: 3 replays")


def test_an_impossible_target_leaves_no_fleet(tmp_path: Path):
    data = tiny(tmp_path, requests=40, per_s=2.0)
    space = spanned(tmp_path, data)
    alone = space.built.pools[3].step_time.decode_line(1)[0]
    data["classes"] = {"default": {"slo": {"tpot_s": alone * 1.15}, "attainment": 0.9}}
    data["candidates"][0] |= {"gpu": "L40S", "quantization": "fp8"}
    document = solved(tmp_path, data)
    (entry,) = [each for each in document["sensitivity"] if each["factor"] == "latency targets"]
    assert document["feasible"]
    assert entry["high"] == {"label": "20% tighter", "cost_usd_per_month": None, "fleet": None}


def test_an_infeasible_plan_has_none_of_it(tmp_path: Path):
    document = solved(tmp_path, tiny(tmp_path, requests=40) | {"budget_usd_per_month": 1.0})
    assert [document[part] for part in ("curve", "timeline", "sensitivity", "headroom")] == [None] * 4


def test_a_stop_after_the_search_keeps_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from simroute.planner.answer import proof

    stopped: list[bool] = []
    usual = proof.curve

    def stops(*arguments: Any) -> Any:
        found = usual(*arguments)
        stopped.append(True)
        return found

    monkeypatch.setattr(proof, "curve", stops)
    result = simroute.plan(
        planned(tmp_path, tiny(tmp_path, requests=40)), executor=InProcess(), stop=lambda: bool(stopped)
    )
    assert result.interrupted
    assert result.feasible
    assert [entry["factor"] for entry in result.document["sensitivity"]] == [
        entry["factor"] for entry in result.document["sensitivity"] if entry["factor"].startswith("price")
    ]
    assert "interrupted: the answer is complete, what would change it is not" in result.document["notes"]
