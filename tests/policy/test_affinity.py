"""Bounded loads by hand and as a property; which keys move when a replica goes; requests without a key."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simroute.policy.context import Membership
from simroute.policy.routing import check_options, make_policy
from simroute.policy.routing.hashing import Points, stable_hash
from simroute.workload.request import Request


def built(fleet, replicas, members=None, **options):
    f = fleet(bf16=(replicas, 1.0, {"chat": 0.9}))
    context = replace(f.context(), prefix_block_tokens=10)
    if members is not None:
        context = replace(context, members=members)
    return f, make_policy("session_affinity", options, context)


def ask(f, policy, session=-1, tenant="acme", ids=(), input_tokens=100):
    request = Request(0, 0.0, input_tokens, 10, tenant=tenant, session=session, prefix_ids=ids)
    return policy.choose(request, f.seen).replica


def ring_order(replicas, session, virtual_nodes=128):
    """Each replica once, clockwise from the session's key."""
    ring = Points(replicas, virtual_nodes).ring(range(replicas))
    return list(dict.fromkeys(ring.walk(stable_hash(f"session {session}"))))


def test_a_session_stays_where_it_is(fleet):
    f, policy = built(fleet, 8)
    assert {ask(f, policy, session=3) for _ in range(20)} == {ring_order(8, 3)[0]}


def test_one_session_alone_fills_its_replica_up_to_the_bound_then_the_next(fleet):
    """With m in flight on 4 replicas and a factor of 1.25, room is ceil(1.25 (m + 1) / 4):
    1, 1, 1, 2, 2, 2, 3, 3, 3, 4 for m = 0 to 9."""
    f, policy = built(fleet, 4)
    a, b, c, _ = ring_order(4, 3)
    chosen = []
    for _ in range(10):
        chosen.append(ask(f, policy, session=3))
        f.seen[chosen[-1]].in_flight += 1
    assert chosen == [a, b, c, a, b, c, a, b, c, a]


def test_without_a_bound_a_session_never_moves(fleet):
    f, policy = built(fleet, 4, load_factor=None)
    home = ring_order(4, 3)[0]
    f.seen[home].in_flight = 1000
    assert ask(f, policy, session=3) == home


@given(
    st.lists(st.integers(0, 12), min_size=2, max_size=7),
    st.integers(0, 50),
    st.sampled_from([1.0, 1.1, 1.25, 2.0, 10.0]),
)
def test_the_first_on_the_ring_within_the_bound_and_there_always_is_one(fleet, loads, session, factor):
    f, policy = built(fleet, len(loads), load_factor=factor)
    for seen, load in zip(f.seen, loads, strict=True):
        seen.in_flight = load
    bound = ceil(Fraction(str(factor)) * (sum(loads) + 1) / len(loads))
    within = [r for r in ring_order(len(loads), session) if loads[r] + 1 <= bound]
    assert ask(f, policy, session=session) == within[0]


def test_the_bound_is_that_of_decimals(fleet):
    """2.2 x 25 / 11 is 5, though floating point makes it a little more. In flight: 5 + 10 + 9 x 1 = 24."""
    f, policy = built(fleet, 11, load_factor=2.2)
    order = ring_order(11, 3)
    for replica, load in zip(order, [5, 10, *[1] * 9], strict=True):
        f.seen[replica].in_flight = load
    assert ask(f, policy, session=3) == order[2]


def test_a_request_without_a_session_goes_to_the_least_loaded(fleet):
    f, policy = built(fleet, 3)
    for seen, load in zip(f.seen, [2, 1, 1], strict=True):
        seen.in_flight = load
    assert ask(f, policy) == 1


def test_tenants_may_be_the_key(fleet):
    f, policy = built(fleet, 16, key="tenant", load_factor=None)
    assert ask(f, policy, session=1) == ask(f, policy, session=2) == ask(f, policy)
    assert len({ask(f, policy, tenant=f"t{n}") for n in range(40)}) > 5


def test_the_beginning_of_the_prompt_may_be_the_key(fleet):
    f, policy = built(fleet, 16, key="prefix", prefix_blocks=2, load_factor=None)
    assert ask(f, policy, ids=[1, 2, 3]) == ask(f, policy, ids=[1, 2, 4]) == ask(f, policy, ids=[1, 2])
    assert len({ask(f, policy, ids=[1, n]) for n in range(40)}) > 5


def test_a_prompt_shorter_than_a_block_has_no_key(fleet):
    """Its only id goes on into the answer, which no router knows."""
    f, policy = built(fleet, 16, key="prefix", load_factor=None)
    f.seen[0].in_flight = 1
    assert {ask(f, policy, ids=[n], input_tokens=9) for n in range(20)} == {1}


def test_when_a_replica_goes_down_its_sessions_alone_move_and_come_back(fleet):
    members = Membership([True] * 6)
    f, policy = built(fleet, 6, members, load_factor=None)
    sessions = range(300)
    before = [ask(f, policy, session=s) for s in sessions]
    members.set(2, ready=False)
    during = [ask(f, policy, session=s) for s in sessions]
    members.set(2, ready=True)
    assert 2 in before
    assert 2 not in during
    assert [d for b, d in zip(before, during, strict=True) if b != 2] == [b for b in before if b != 2]
    assert [ask(f, policy, session=s) for s in sessions] == before


def test_replicas_below_the_floor_are_not_on_the_ring(fleet):
    f = fleet({"coding": 0.8}, a=(3, 1.0, {"coding": 0.6}), b=(2, 2.0, {"coding": 0.9}))
    policy = f.policy("session_affinity", respect_quality_floor=True)
    found = {policy.choose(Request(0, 0.0, 10, 10, "coding", session=s), f.seen).replica for s in range(100)}
    assert found == {3, 4}


@pytest.mark.parametrize(
    ("options", "path", "message"),
    [
        ({"load_factor": 0.9}, ("load_factor",), "greater than or equal to 1, got 0.9"),
        ({"load_factor": float("inf")}, ("load_factor",), "finite number, got inf"),
        ({"virtual_nodes": 0}, ("virtual_nodes",), "greater than or equal to 1, got 0"),
        ({"key": "user"}, ("key",), "'session', 'tenant' or 'prefix', got 'user'"),
    ],
)
def test_options_out_of_range_are_refused(options, path, message):
    (problem,) = check_options("session_affinity", options)
    assert problem.path == path
    assert message in problem.message
