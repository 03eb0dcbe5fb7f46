"""Lists of fleets: everything that no bound rules out, and how far they are complete."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner.spaces import spanned, tiny

from simroute.planner.fleets import listing
from simroute.planner.fleets.bounds import Bounds
from simroute.planner.fleets.candidates import Fleet, Space


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Space:
    folder = tmp_path_factory.mktemp("listing")
    data = tiny(folder, requests=400, per_s=60.0) | {"availability": {"lose_replicas": 1}}
    data["fleets"] = {"most_variants": 3, "most_replicas": 6}
    data["candidates"][0]["replicas"] = {"max": 3}
    return spanned(folder, data)


def every(space: Space, bounds: Bounds, usd_per_month: float) -> set[Fleet]:
    counts = itertools.product(*(range(option.replicas.max + 1) for option in space.options))
    fleets = [tuple((o, n) for o, n in enumerate(each) if n) for each in counts]
    return {
        fleet
        for fleet in fleets
        if fleet
        and len(fleet) <= space.spec.fleets.most_variants
        and space.usd_per_month(fleet) <= usd_per_month
        and space.refusal(fleet) is None
        and bounds.refusal(fleet) is None
    }


@pytest.mark.parametrize("usd_per_month", [900.0, 2500.0, 4200.0, math.inf])
def test_all_that_no_bound_rules_out_is_listed_cheapest_first(space: Space, usd_per_month: float):
    bounds = Bounds(space)
    fleets, covered = listing.below(space, bounds, usd_per_month)
    assert set(fleets) == every(space, bounds, usd_per_month)
    assert len(set(fleets)) == len(fleets)
    costs = [space.usd_per_month(fleet) for fleet in fleets]
    assert costs == sorted(costs)
    assert covered == usd_per_month


@pytest.mark.parametrize(("name", "most"), [("MOST_LISTED", 50), ("MOST_LOOKED_AT", 60)])
def test_a_list_cut_short_is_complete_as_far_as_it_says(
    space: Space, monkeypatch: pytest.MonkeyPatch, name: str, most: int
):
    monkeypatch.setattr(listing, name, most)
    bounds = Bounds(space)
    fleets, covered = listing.below(space, bounds, math.inf)
    assert len(fleets) > 0
    assert covered < math.inf
    assert set(fleets) == every(space, bounds, covered)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=8))
@settings(max_examples=12, deadline=None)
def test_what_is_remembered_of_three_variants_is_what_would_be_found(space: Space, asked: list[tuple[int, int, int]]):
    remembering = Bounds(space)
    for counts in asked:
        tried = np.array(counts, dtype=np.float64)
        afresh = all(remembering._shares_out((0, 1, 2), tried, s) for s in remembering.stretches((0, 1, 2)))
        assert remembering._fits((0, 1, 2), counts) == afresh


def test_too_many_fleets_that_cost_nothing_come_to_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("simroute.planner.fleets.listing.MOST_LISTED", 3)
    free = {gpu: {"usd_per_gpu_hour": 0.0} for gpu in ("L4", "L40S")}
    made = spanned(tmp_path, tiny(tmp_path, requests=20) | {"prices": free})
    assert listing.below(made, Bounds(made), 1000.0) == ([], 0.0)
