"""The search against exhaustive simulation: the same optimum, to the last fleet."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from planner.spaces import evaluator, planned, spanned, tiny

from simroute.planner.fleets.bounds import Bounds
from simroute.planner.fleets.candidates import Fleet, Space, space_of
from simroute.planner.fleets.evaluate import Candidate, Verdict
from simroute.planner.fleets.search import Search


def every_fleet(space: Space) -> list[Fleet]:
    """All fleets of up to as many variants as the plan mixes, listed independently of the search."""
    found = []
    for size in range(1, space.spec.fleets.most_variants + 1):
        for options in itertools.combinations(range(len(space.options)), size):
            ranges = [space.options[o].replicas for o in options]
            for counts in itertools.product(*(range(r.min, r.max + 1) for r in ranges)):
                fleet = tuple(zip(options, counts, strict=True))
                if sum(counts) <= space.spec.fleets.most_replicas and space.refusal(fleet) is None:
                    found.append(fleet)
    return found


def exhaustive(space: Space) -> tuple[int, Verdict | None]:
    """How many fleets there are, and the best of them all by simulating each whole."""
    judge = evaluator(space)
    fleets = every_fleet(space)
    judge.ask([Candidate(f, p) for f in fleets for p in range(len(space.spec.policies))])
    return len(fleets), Search(judge, Bounds(space)).best


def searched(space: Space) -> Search:
    search = Search(evaluator(space), Bounds(space))
    search.run()
    return search


def test_the_optimum_of_240_fleets_is_that_of_simulating_them_all(tmp_path: Path):
    data = tiny(tmp_path) | {"fleets": {"most_variants": 2}}
    space = spanned(tmp_path, data)
    count, best = exhaustive(space)
    assert count >= 200
    search = searched(space)
    assert best is not None
    assert search.best is not None
    assert search.best.candidate == best.candidate
    assert search.exhaustive
    assert len(search.evaluator.verdicts) < count / 2, "bounds and order save most of the work"


@pytest.mark.parametrize(
    ("change", "feasible"),
    [
        ({"policies": ["round_robin", "least_requests"]}, True),
        ({"availability": {"lose_replicas": 1}}, True),
        ({"quotas": {"L4": 2, "L40S": 1}, "fleets": {"most_variants": 2}}, True),
        ({"budget_usd_per_month": 1000.0, "fleets": {"most_variants": 2}}, False),
        ({"classes": {"default": {"p99": {"ttft_s": 0.6, "e2e_s": 9.0}}}}, True),
    ],
)
def test_and_under_every_kind_of_constraint(tmp_path: Path, change: dict[str, Any], feasible: bool):
    data = tiny(tmp_path, requests=100, per_s=14.0, seed=3) | change
    data["candidates"][0]["replicas"] = {"max": 4}
    space = spanned(tmp_path, data)
    _, best = exhaustive(space)
    found = searched(space).best
    assert (best is not None) == feasible
    assert (found and found.candidate) == (best and best.candidate)


def floored(folder: Path, **traffic: Any) -> dict[str, Any]:
    """A small and a large model, of which only the large one is good enough for coding."""
    data = tiny(folder, per_s=10.0, **traffic)
    data["classes"]["coding"] = {"quality_floor": 0.8}
    data["candidates"] = [
        {"model": "Llama-3.1-8B", "quantization": "fp8", "gpu": "L40S", "replicas": {"max": 4}},
        {"model": "Llama-3.3-70B", "quantization": "fp8", "gpu": "H100", "tensor_parallel": 2, "replicas": {"max": 3}},
    ]
    data["quality"] = [
        {"model": m, "quantization": "fp8", "request_class": "default", "mean": q, "note": "for a test"}
        for m, q in (("Llama-3.1-8B", 0.73), ("Llama-3.3-70B", 0.86))
    ]
    return data


def test_classes_with_floors_need_a_mixed_fleet_and_get_one(tmp_path: Path):
    data = floored(tmp_path, requests=80)
    data["fleets"] = {"most_variants": 2, "most_replicas": 8}
    data["policies"] = ["quant_aware"]
    space = spanned(tmp_path, data)
    _, best = exhaustive(space)
    found = searched(space).best
    assert best is not None
    assert found is not None
    assert found.candidate == best.candidate


def test_the_best_count_has_a_neighbour_below_that_fails(tmp_path: Path):
    space = spanned(tmp_path, tiny(tmp_path))
    search = searched(space)
    assert search.best is not None
    ((option, count),), policy = search.best.candidate
    below = Candidate(((option, count - 1),), policy)
    asked = search.evaluator.verdicts.get((below, 1.0))
    assert count == 1 or search.bounds.refusal(below.fleet) or (asked is not None and not asked.meets)
    above = search.evaluator.verdicts.get((Candidate(((option, count + 1),), policy), 1.0))
    assert above is not None
    assert above.meets or any("not monotone" in note for note in search.notes)


def test_the_same_plan_gives_the_same_search_however_often(tmp_path: Path):
    spec = planned(tmp_path, tiny(tmp_path, requests=60))
    first, second = searched(space_of(spec)), searched(space_of(spec))
    assert list(first.evaluator.verdicts) == list(second.evaluator.verdicts)


def test_floors_kept_by_chance_come_last(tmp_path: Path):
    data = floored(tmp_path, requests=60)
    data["fleets"] = {"most_variants": 2, "most_replicas": 6}
    data["policies"] = ["round_robin", "quant_aware"]
    space = spanned(tmp_path, data)
    search = Search(evaluator(space), Bounds(space))
    mixed, good = ((0, 1), (1, 1)), ((1, 2),)
    assert [search.by_chance(Candidate(fleet, p)) for fleet in (mixed, good) for p in (0, 1)] == [
        True, False, False, False
    ]  # fmt: skip
    asked: list[Candidate] = []
    search.ask = lambda batch: [asked.append(each) for each in batch]  # type: ignore[assignment, func-returns-value]
    search._around(mixed)
    assert asked
    assert {candidate.policy for candidate in asked} == {1}
