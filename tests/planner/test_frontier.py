"""What binds a plan, by what its cheaper neighbours break and the room that is left."""

from __future__ import annotations

from simroute.planner.answer.frontier import binding
from simroute.planner.fleets.evaluate import Candidate, Verdict
from simroute.planner.fleets.judge import at_least, at_most


def verdict(count: int, *checks) -> Verdict:
    return Verdict(Candidate(((0, count),), 0), "whole", checks)


def test_what_a_cheaper_fleet_breaks_worst_comes_first_then_what_has_the_least_room():
    best = verdict(
        4,
        at_most("ttft_p99", "chat", 0.2, 1.0),
        at_least("attainment", "chat", 1.0, 0.99),
        at_least("attainment", "coding", 1.0, 0.99),
        at_most("ttft_p99", "coding", 0.9, 1.0),
    )
    less = verdict(3, at_least("attainment", "chat", 0.98, 0.99), at_least("attainment", "coding", 0.6, 0.99))
    found = [(check.constraint, check.request_class) for check in binding(best, [less])]
    assert found == [("attainment", "coding"), ("attainment", "chat"), ("ttft_p99", "coding"), ("ttft_p99", "chat")]
    assert [check.request_class for check in binding(best, [])][:2] == ["coding", "chat"]
