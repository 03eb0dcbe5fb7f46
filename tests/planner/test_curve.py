"""The curve and the day of a plan: the whole fleet on the whole trace, whatever headroom was judged by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planner.spaces import evaluator, spanned, tiny

from simroute.planner.answer.curve import BELOW, curve
from simroute.planner.answer.headroom import headroom
from simroute.planner.fleets.candidates import Space, fleet_built
from simroute.planner.fleets.evaluate import Candidate
from simroute.planner.fleets.utilisation import utilisation
from simroute.results.run import FleetRun
from simroute.scenario.run import replayed

FLEET = Candidate(((3, 3),), 0)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Space:
    folder = tmp_path_factory.mktemp("curve")
    data = tiny(folder, requests=300) | {"availability": {"lose_replicas": 1}}
    return spanned(folder, data)


@pytest.fixture(scope="module")
def points(space: Space) -> list[dict[str, Any]]:
    asked = evaluator(space)
    room = headroom(asked, FLEET)
    assert room is not None
    assert room["breaks_at"] is not None
    return curve(asked, FLEET, room["breaks_at"])


def run_of(space: Space, rate: float = 1.0) -> tuple[FleetRun, dict[str, Any]]:
    from dataclasses import replace

    built = fleet_built(space, *FLEET)
    built = replace(built, trace=built.trace.scaled(rate=rate))
    policy = built.scenario.policies[0]
    return replayed(built, policy, exact=False, progress=lambda done: None, stop=lambda: False)


def test_it_rises_from_a_quarter_of_the_traffic_to_beyond_the_break(space: Space, points: list[dict[str, Any]]):
    rates = [point["rate_scale"] for point in points]
    assert rates == sorted(set(rates))
    assert set(BELOW) <= set(rates)
    breaks = headroom(evaluator(space), FLEET)["breaks_at"]  # type: ignore[index]
    assert rates[-1] > breaks
    assert points[0]["rate_rps"] == pytest.approx(0.25 * 300 / space.built.trace.duration_s)


def test_every_point_is_of_the_whole_fleet_and_trace(space: Space, points: list[dict[str, Any]]):
    for point in points:
        _, summary = run_of(space, point["rate_scale"])
        assert point["ttft_p99_s"] == summary["ttft_s"]["p99"]
        assert point["stability"] == summary["stability"]
        assert point["by_class"]["chat"]["tpot_p99_s"] == summary["by_class"]["chat"]["tpot_s"]["p99"]


def test_overload_ends_it(tmp_path: Path):
    space = spanned(tmp_path, tiny(tmp_path, requests=1500, per_s=20.0))
    points = curve(evaluator(space), Candidate(((3, 2),), 0), 2.0)
    over = [point["rate_scale"] for point in points if point["stability"] == "OVERLOADED"]
    sound = [point["rate_scale"] for point in points if point["stability"] != "OVERLOADED"]
    assert over
    assert max(sound) < min(over)
    assert all(point["ttft_p99_s"] is None for point in points if point["rate_scale"] in over)


def test_without_a_break_nothing_beyond_it_is_asked(space: Space):
    points = curve(evaluator(space), FLEET, None)
    assert [point["rate_scale"] for point in points] == list(BELOW)


def test_a_day_adds_up_to_its_run(space: Space):
    run, _ = run_of(space)
    day = utilisation(run)
    (pool,) = day["pools"].values()
    middle_s = np.array(day["t_s"])
    length_s = np.full(len(middle_s), middle_s[1] - middle_s[0])
    assert all(len(series) == len(middle_s) for series in (day["arrivals_rps"], *pool.values()))
    assert pool["replicas"] == [3] * len(middle_s)
    assert min(pool["busy"]) >= 0
    assert max(pool["busy"]) <= 1
    assert run.timeline.busy_s is not None
    covered = float((np.array(pool["busy"]) * 3 * length_s).sum())
    assert covered == pytest.approx(float(run.timeline.busy_s[-1].sum()), rel=0.05)
    assert float((np.array(day["arrivals_rps"]) * length_s).sum()) == pytest.approx(300, rel=0.05)
