"""Positions and bits by hand, and what every policy that remembers must do when replicas come and go."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simroute.policy.context import NO_REPLICA, Membership
from simroute.policy.routing import make_policy
from simroute.policy.routing.candidates import Candidates, bits, when_down
from simroute.workload.request import Request

POLICIES = [
    ("least_tokens", {"output_weight": 2.0, "mean_output_tokens": {"default": 50}}),
    ("session_affinity", {}),
    ("session_affinity", {"load_factor": None, "key": "prefix"}),
    ("prefix_affinity", {"match_threshold": 0.0, "ttl_s": 5.0, "capacity_tokens": 40}),
    ("prefix_precise", {"match_threshold": 0.0}),
    ("weighted", {}),
    ("weighted", {"ties": "random", "weights": {"prefix_precise": 1, "session": 2, "lora": 1, "prefix": 1, "load": 1}}),
]


def two_pools(fleet, members=None):
    """Replicas 0, 1 are int4; 2, 3 bf16. Coding needs bf16."""
    f = fleet({"coding": 0.8}, int4=(2, 1.0, {"chat": 0.8, "coding": 0.6}), bf16=(2, 3.0, {"chat": 0.9, "coding": 0.9}))
    context = replace(f.context(), prefix_block_tokens=10)
    return f, context if members is None else replace(context, members=members)


def test_positions_count_only_what_is_ready(fleet):
    f, context = two_pools(fleet, Membership([True, False, True, True]))
    candidates = Candidates(context, (0, 1))
    assert candidates.replicas == (0, 2, 3)
    assert candidates.mask == 0b1101
    assert candidates.positions(0b1110).tolist() == [1, 2]
    assert [seen.replica for seen in candidates.seen(f.seen)] == [0, 2, 3]
    assert [d.replica for d in candidates.choices] == [0, 2, 3]


def test_nobody_ready_leaves_the_rejection_alone(fleet):
    _, context = two_pools(fleet, Membership([False] * 4))
    candidates = Candidates(context, (0, 1))
    assert candidates.replicas == ()
    assert candidates.choices == ((-1, NO_REPLICA),)
    assert candidates.positions(0b1111).tolist() == []


@given(st.sets(st.integers(0, 200)))
def test_bits_are_those_that_are_set(numbers):
    assert bits(sum(1 << n for n in numbers)).tolist() == sorted(numbers)


def test_who_went_down_is_told_once():
    members = Membership([True, True, False])
    told = []

    class Context:
        pool_of_replica = (0, 0, 0)

    Context.members = members
    when_down(Context, told.append)
    for replica, ready in [(2, True), (0, False), (0, False), (2, False), (0, True), (0, False)]:
        members.set(replica, ready)
    assert told == [0, 2, 0]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), st.integers(0, 3)),
        st.tuples(st.just("ask"), st.integers(0, 5)),
        st.tuples(st.just("done"), st.integers(0, 3)),
    ),
    max_size=40,
)


def replay(f, policy, members, script):
    """Decisions of `policy`; sessions share two blocks of ten tokens, tenants are the sessions."""
    decisions = []
    for at, (what, n) in enumerate(script):
        if what == "flip":
            members.set(n, not members[n])
        elif what == "done":
            f.seen[n].in_flight = max(f.seen[n].in_flight - 1, 0)
        else:
            ids = [1, 2, 10 + n, 20 + n]
            request_class = "coding" if n == 5 else "chat"
            request = Request(at, float(at), 35 + n, 10, request_class, "free", f"t{n}", session=n, prefix_ids=ids)
            decision = policy.choose(request, f.seen)
            decisions.append((decision, list(map(members.__getitem__, range(4))), request_class))
            if decision.replica >= 0:
                f.seen[decision.replica].in_flight += 1
    return decisions


@pytest.mark.parametrize(("name", "options"), POLICIES)
@given(script=steps, floor=st.booleans())
def test_only_ready_and_admissible_replicas_are_chosen_and_again_the_same(fleet, name, options, script, floor):
    runs = []
    for _ in range(2):
        members = Membership([True, True, True, False])
        f, context = two_pools(fleet, members)
        policy = make_policy(name, {**options, "respect_quality_floor": floor}, context)
        runs.append(replay(f, policy, members, script))
    assert runs[0] == runs[1]
    for decision, ready, request_class in runs[0]:
        allowed = {r for r in range(4) if ready[r] and (r >= 2 or not floor or request_class == "chat")}
        if decision.replica < 0:
            assert not allowed
            assert decision.reason == NO_REPLICA
        else:
            assert decision.replica in allowed
