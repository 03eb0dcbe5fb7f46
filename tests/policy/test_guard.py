"""What is said of a policy that goes wrong."""

from __future__ import annotations

import pytest
from policy.stage import ask_for

from simroute.errors import SimulationError
from simroute.policy.guard import policy_fault
from simroute.policy.snapshot import Decision

REQUEST = ask_for("coding", index=17, arrival_s=3.25)
READY = [0, 1, 2, 4, 9]


@pytest.mark.parametrize(
    ("got", "said"),
    [
        (Decision(3), "returned replica 3, which takes no requests now; ready are replicas 0-2, 4, 9"),
        (Decision(12), "returned replica 12, which takes no requests now; ready are replicas 0-2, 4, 9"),
        (("one", ""), "returned replica 'one', which takes no requests now; ready are replicas 0-2, 4, 9"),
        (None, "returned None, which is no Decision(replica, reason)"),
        (4, "returned 4, which is no Decision(replica, reason)"),
        (KeyError("chat"), "raised KeyError: 'chat'; ready are replicas 0-2, 4, 9"),
        (ValueError("two\n  lines"), "raised ValueError: two lines; ready are replicas 0-2, 4, 9"),
        (StopIteration(), "raised StopIteration; ready are replicas 0-2, 4, 9"),
    ],
)
def test_one_line_with_policy_request_result_and_what_is_ready(got, said):
    error = policy_fault("mine", REQUEST, got, READY)
    assert isinstance(error, SimulationError)
    assert str(error) == f"policy mine: choose of request 17 (class coding, 3.25 s) {said}"


def test_an_exception_is_told_with_its_place():
    try:
        [].pop()
    except IndexError as error:
        said = str(policy_fault("mine", REQUEST, error, [], method="review"))
    assert said.startswith("policy mine: review of request 17")
    assert "raised IndexError: pop from empty list (test_guard.py:" in said
    assert said.endswith("ready are replicas none")


def test_a_torn_fleet_is_not_listed_whole():
    said = str(policy_fault("mine", REQUEST, Decision(1), range(0, 100, 2)))
    assert said.endswith("ready are replicas 0, 2, 4, 6, 8, 10, 12, 14, and 42 more ranges")
