"""Promises against results: margins by hand, and what a stretch of the trace proves for the whole."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from planner.spaces import evaluator, spanned, tiny

import simroute
from simroute.planner.fleets.candidates import fleet_built
from simroute.planner.fleets.evaluate import Candidate, peak_of
from simroute.planner.fleets.judge import at_least, at_most, hopeless, named_loss, worst


def test_margins_by_hand():
    assert at_most("ttft_p99", "chat", 1.5, 2.0).margin == pytest.approx(0.25)
    assert not at_most("ttft_p99", "chat", 2.1, 2.0).kept
    assert at_most("ttft_p99", "chat", 2.0, 2.0).kept
    assert at_least("attainment", "chat", 0.995, 0.99).margin == pytest.approx(0.5)
    assert at_least("attainment", "chat", 0.98, 0.99).margin == pytest.approx(-1.0)
    unknown = at_most("ttft_p99", "chat", None, 2.0)
    assert unknown.margin == -math.inf
    assert worst([unknown, at_most("budget", None, 3.0, 2.0)]) > 1e5
    assert worst([at_most("budget", None, 1.0, 2.0)]) == 0


def test_a_stretch_proves_only_what_its_misses_alone_break(tmp_path: Path):
    space = spanned(tmp_path, tiny(tmp_path, requests=200))
    total = space.requests("chat")
    allowed = 0.05 * total
    assert hopeless(space, {"chat": {"attainment": int(allowed)}}) == []
    assert hopeless(space, {"chat": {"attainment": int(1.1 * allowed + 2)}}) == [], "the whole trace may be luckier"
    (check,) = hopeless(space, {"chat": {"attainment": int(1.1 * allowed + 2) + 1}})
    assert not check.kept


def test_a_verdict_says_what_simroute_run_says(tmp_path: Path):
    space = spanned(tmp_path, tiny(tmp_path, requests=80))
    fleet = ((0, 2),)
    (verdict,) = evaluator(space).ask([Candidate(fleet, 0)])
    assert verdict is not None
    (result,) = simroute.run(fleet_built(space, fleet, 0), jobs=1).results
    assert verdict.summary == result.summary
    attained = {c.request_class: c.value for c in verdict.checks if c.constraint == "attainment"}
    assert attained == {name: group["slo_attainment"] for name, group in result.summary["by_class"].items()}


def test_availability_is_judged_with_the_replica_gone(tmp_path: Path):
    data = tiny(tmp_path, requests=150, per_s=25.0)
    alone = evaluator(spanned(tmp_path, data))
    losing = evaluator(spanned(tmp_path, data | {"availability": {"lose_replicas": 1}}))
    for count in range(2, 6):
        (kept,) = losing.ask([Candidate(((0, count),), 0)])
        full, left = alone.ask([Candidate(((0, n),), 0) for n in (count, count - 1)])
        assert kept is not None
        assert full is not None
        assert left is not None
        assert kept.meets == (full.meets and left.meets)
        assert all(check.loss for check in kept.violations) or not full.meets


def test_losses_are_named(tmp_path: Path):
    space = spanned(tmp_path, tiny(tmp_path, requests=5))
    assert named_loss(space, ((0, 3), (1, 1)), ((0, 2), (1, 1))) == f"1 x {space.options[0].name} gone"


def test_the_peak_is_where_most_tokens_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("simroute.planner.fleets.evaluate.FEWEST_PEAK", 1)
    data = tiny(tmp_path, requests=5)
    calm = [f"{i},100,10" for i in range(100)]
    rush = [f"{60 + i / 50:.3f},1000,10" for i in range(50)]
    lines = ["arrival_s,input_tokens,output_tokens", *sorted([*calm, *rush], key=lambda r: float(r.split(",")[0]))]
    (tmp_path / "trace.csv").write_text("\n".join(lines) + "\n")
    found = peak_of(spanned(tmp_path, data))
    assert found is not None
    assert found[0] <= 60
    assert found[1] >= 61
