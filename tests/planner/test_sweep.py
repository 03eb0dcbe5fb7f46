"""What is left after bisection and the linear model: the runner-up, what is proved of the bill, what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from planner.spaces import evaluator, spanned, tiny
from planner.test_search import every_fleet, exhaustive, searched

from simroute.planner.answer.frontier import runner_up
from simroute.planner.fleets.bounds import Bounds
from simroute.planner.fleets.candidates import Space, differs
from simroute.planner.fleets.evaluate import Candidate
from simroute.planner.fleets.search import Search
from simroute.planner.fleets.sweep import Gap


def mixed(folder: Path, **search: Any) -> Space:
    data = tiny(folder, requests=100, per_s=14.0) | {"fleets": {"most_variants": 2}, "search": search}
    data["candidates"][0]["replicas"] = {"max": 4}
    return spanned(folder, data)


def test_where_all_was_simulated_the_bill_is_proved(tmp_path: Path):
    search = searched(mixed(tmp_path))
    assert search.exhaustive
    assert search.best is not None
    assert search.gap is not None
    assert search.gap.unsimulated == 0
    assert search.gap.share == 0
    assert search.gap.proved_usd_per_month == search.space.usd_per_month(search.best.candidate.fleet)
    assert search.gap.text.startswith("no cheaper fleet can do it")


def test_where_it_was_not_the_proof_ends_below_the_optimum(tmp_path: Path):
    space = mixed(tmp_path, exhaustive=0)
    search = searched(space)
    _, best = exhaustive(space)
    assert best is not None
    assert search.best is not None
    assert search.gap is not None
    assert search.gap.proved_usd_per_month is not None
    assert search.gap.proved_usd_per_month <= space.usd_per_month(best.candidate.fleet)
    known = {verdict.candidate for verdict in search.verdicts()}
    cost, bounds = space.usd_per_month(search.best.candidate.fleet), Bounds(space)
    open_ = [
        space.usd_per_month(fleet)
        for fleet in every_fleet(space)
        if Candidate(fleet, 0) not in known and bounds.refusal(fleet) is None and space.usd_per_month(fleet) < cost
    ]
    assert search.gap.unsimulated == len(open_) > 0
    assert search.gap.proved_usd_per_month == min(open_)
    assert not search.exhaustive


def test_a_search_that_was_stopped_proves_little(tmp_path: Path):
    space = mixed(tmp_path)
    judge = evaluator(space)
    judge.stop = lambda: judge.tally.simulated >= 2
    search = Search(judge, Bounds(space))
    search.run()
    assert search.gap is not None
    assert search.gap.unsimulated > 0
    assert not search.exhaustive


def test_the_runner_up_is_the_cheapest_of_other_variants(tmp_path: Path):
    space = mixed(tmp_path, frontier_cost=3.0)
    search = searched(space)
    judge = evaluator(space)
    judge.ask([Candidate(fleet, 0) for fleet in every_fleet(space)])
    ranked = sorted((v for v in judge.verdicts.values() if v.meets), key=search.order)
    mine = sorted((v for v in search.verdicts() if v.meets), key=search.order)
    true, found = runner_up(ranked[0], ranked[1:]), runner_up(mine[0], mine[1:])
    assert true is not None
    assert found is not None
    assert space.usd_per_month(found.candidate.fleet) == space.usd_per_month(true.candidate.fleet)


def test_adding_to_the_best_is_no_other_choice():
    assert differs(((0, 2),), ((1, 1),))
    assert differs(((0, 1), (1, 1)), ((0, 2),))
    assert not differs(((0, 2), (1, 1)), ((0, 2),))
    assert not differs(((0, 3),), ((0, 2),))


@pytest.mark.parametrize(
    ("gap", "text"),
    [
        (Gap(90.0, 90.0, 0, True, True), "no cheaper fleet can do it: each was simulated, or ruled out"),
        (Gap(90.0, 120.0, 7, True, False), "no fleet below $90 a month can do it (proved); between that and $120, 7 "),
        (Gap(90.0, 120.0, 7, True, False), "25.0% of the bill might be saved at most"),
        (Gap(90.0, 120.0, 7, False, False), "at least 7 candidates were not simulated"),
        (Gap(None, None, 0, True, True), "no fleet here can do it: each was simulated, or ruled out"),
        (Gap(90.0, None, 7, True, False), "of the dearer ones, 7 candidates were not simulated"),
    ],
)
def test_a_gap_in_words(gap: Gap, text: str):
    assert text in gap.text


def test_every_count_of_the_best_variant_is_simulated_that_no_bound_rules_out(tmp_path: Path):
    data = tiny(tmp_path, requests=150, per_s=25.0) | {"policies": ["random", "least_requests"]}
    data["search"] = {"exhaustive": 0}
    space = spanned(tmp_path, data)
    search = searched(space)
    assert search.best is not None
    ((option, count),) = search.best.candidate.fleet
    for fewer in range(1, count):
        if search.bounds.refusal(((option, fewer),)) is None:
            known = [search.evaluator.verdicts.get((Candidate(((option, fewer),), p), 1.0)) for p in (0, 1)]
            assert [v is not None and not v.meets for v in known] == [True, True]


def test_requests_that_may_all_miss_leave_the_linear_model_nothing_to_share_out(tmp_path: Path):
    data = tiny(tmp_path, requests=30, per_s=4.0) | {"fleets": {"most_variants": 2}, "search": {"exhaustive": 0}}
    data["classes"] = {"default": {"slo": {"ttft_s": 5.0}, "p99": {"e2e_s": 90.0}, "attainment": 0.01}}
    assert searched(spanned(tmp_path, data)).best is not None
