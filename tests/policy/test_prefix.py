"""prefix_affinity and prefix_precise by hand: when the cache decides, when load does, and who is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simroute.policy.context import Membership
from simroute.policy.routing import POLICIES, check_options, make_policy
from simroute.workload.request import Request


def built(fleet, name="prefix_affinity", replicas=3, members=None, **options):
    f = fleet(bf16=(replicas, 1.0, {"chat": 0.9}))
    context = replace(f.context(), prefix_block_tokens=10)
    if members is not None:
        context = replace(context, members=members)
    return f, make_policy(name, options, context)


def ask(f, policy, ids, at_s=0.0, input_tokens=None, index=0, loads=None):
    for seen, load in zip(f.seen, loads or (), strict=False):
        seen.in_flight = load
    tokens = 10 * len(ids) if input_tokens is None else input_tokens
    return policy.choose(Request(index, at_s, tokens, 5, prefix_ids=ids), f.seen).replica


def test_a_prefix_goes_where_it_went_before_although_others_are_less_busy(fleet):
    f, policy = built(fleet)
    assert ask(f, policy, [1, 2, 3], loads=[1, 0, 1]) == 1
    assert ask(f, policy, [1, 2, 4], loads=[0, 9, 0]) == 1
    assert ask(f, policy, [5, 6], loads=[3, 9, 2]) == 2


def test_the_match_must_exceed_the_threshold(fleet):
    """Two blocks of ten are 20 tokens: 0.4 of 50, and 0.5 of 40, of which more than 0.4 is asked."""
    f, policy = built(fleet, match_threshold=0.4)
    assert ask(f, policy, [1, 2], loads=[1, 0, 1]) == 1
    assert ask(f, policy, [1, 2], input_tokens=50, loads=[0, 9, 9]) == 0
    assert ask(f, policy, [1, 2], loads=[9, 0, 9]) == 1
    assert ask(f, policy, [1, 2], input_tokens=40, loads=[9, 5, 0]) == 1


def test_of_replicas_that_match_as_far_the_least_busy_then_the_first(fleet):
    f, policy = built(fleet, balance_abs_threshold=5)
    for loads in ([0, 9, 9], [9, 0, 9], [9, 9, 0]):  # imbalance spreads it over all three
        ask(f, policy, [1, 2], loads=loads)
    assert ask(f, policy, [1, 2], loads=[3, 2, 4]) == 1
    assert ask(f, policy, [1, 2], loads=[3, 2, 2]) == 1


def test_a_longer_match_wins_over_a_less_busy_replica(fleet):
    f, policy = built(fleet)
    ask(f, policy, [1, 2], loads=[0, 1, 1])
    ask(f, policy, [1, 9], loads=[1, 0, 1])  # matches half on replica 0
    ask(f, policy, [7, 8], loads=[9, 0, 9])
    assert ask(f, policy, [1, 2, 3], loads=[5, 0, 0]) == 0


@pytest.mark.parametrize(
    ("loads", "imbalanced"),
    [
        ([10, 0, 0], False),  # 10 over the least, and 10 are allowed
        ([11, 0, 0], True),
        ([33, 22, 22], False),  # 11 over, but only 1.5 times as many
        ([34, 22, 22], True),
    ],
)
def test_load_decides_when_it_is_uneven_both_absolutely_and_relatively(fleet, loads, imbalanced):
    f, policy = built(fleet, balance_abs_threshold=10, balance_rel_threshold=1.5)
    assert ask(f, policy, [1, 2], loads=[0, 1, 1]) == 0
    assert ask(f, policy, [1, 2], loads=loads) == (1 if imbalanced else 0)


def test_what_load_decided_is_remembered_too(fleet):
    f, policy = built(fleet, balance_abs_threshold=10)
    assert ask(f, policy, [1, 2], loads=[50, 0, 1]) == 1
    assert ask(f, policy, [1, 2], loads=[0, 5, 0]) == 1


def test_old_blocks_and_replicas_that_went_down_are_forgotten(fleet):
    members = Membership([True] * 3)
    f, policy = built(fleet, members=members, ttl_s=60.0)
    assert ask(f, policy, [1, 2], at_s=0.0, loads=[1, 0, 1]) == 1
    assert ask(f, policy, [1, 2], at_s=59.0, loads=[0, 1, 1]) == 1
    assert ask(f, policy, [1, 2], at_s=119.0, loads=[0, 1, 1]) == 0
    members.set(0, ready=False)
    assert ask(f, policy, [1, 2], at_s=120.0, loads=[0, 2, 1]) == 2
    members.set(0, ready=True)
    assert ask(f, policy, [1, 2], at_s=121.0, loads=[0, 2, 1]) == 2


def test_room_may_be_given(fleet):
    f, policy = built(fleet, capacity_tokens=20, match_threshold=0.0)
    ask(f, policy, [1, 2], loads=[0, 1, 1])
    ask(f, policy, [7, 8], loads=[0, 1, 1])
    assert ask(f, policy, [1, 2], loads=[1, 1, 0]) == 2


def test_without_prefixes_it_is_least_requests(fleet):
    f, policy = built(fleet)
    assert [ask(f, policy, [], input_tokens=100, loads=loads) for loads in ([2, 1, 3], [2, 3, 1], [1, 1, 1])] == [
        1,
        2,
        0,
    ]


def test_a_match_below_the_quality_floor_does_not_count(fleet):
    f = fleet({"coding": 0.8}, a=(1, 1.0, {"coding": 0.6}), b=(2, 2.0, {"coding": 0.9}))
    context = replace(f.context(), prefix_block_tokens=10)
    policy = make_policy("prefix_affinity", {"respect_quality_floor": True}, context)

    def ask_as(request_class, ids):
        return policy.choose(Request(0, 0.0, 10 * len(ids), 5, request_class, prefix_ids=ids), f.seen).replica

    assert ask_as("coding", [1, 2]) == 1
    f.seen[1].in_flight, f.seen[2].in_flight = 99, 98
    assert ask_as("chat", [1, 2, 3]) == 0  # the load is uneven
    f.seen[1].in_flight, f.seen[2].in_flight = 5, 0
    assert ask_as("chat", [1, 2, 3]) == 0  # all of it is cached there, but for coding replica 0 is not good enough
    assert ask_as("coding", [1, 2, 3]) == 1


def test_precise_goes_by_the_hits_that_the_router_was_told_of(fleet):
    f, policy = built(fleet, "prefix_precise")
    f.seen[1].hits, f.seen[2].hits = {7: 40}, {7: 40, 8: 30}
    assert ask(f, policy, [], input_tokens=100, index=7, loads=[0, 5, 4]) == 2
    assert ask(f, policy, [], input_tokens=100, index=7, loads=[0, 4, 4]) == 1
    assert ask(f, policy, [], input_tokens=100, index=8, loads=[0, 4, 4]) == 0  # 0.3 does not exceed 0.3
    assert ask(f, policy, [], input_tokens=99, index=8, loads=[0, 4, 4]) == 2
    assert ask(f, policy, [], input_tokens=100, index=9, loads=[1, 0, 0]) == 1
    assert ask(f, policy, [], input_tokens=100, index=7, loads=[0, 99, 99]) == 0


def test_precise_with_threshold_zero_still_wants_a_hit(fleet):
    f, policy = built(fleet, "prefix_precise", match_threshold=0.0)
    assert ask(f, policy, [], input_tokens=100, loads=[2, 1, 3]) == 1
    f.seen[2].hits = {0: 1}
    assert ask(f, policy, [], input_tokens=100, loads=[2, 1, 3]) == 2


def test_only_precise_asks_the_router_for_kv_events():
    assert POLICIES["prefix_precise"].reads_kv_events is True
    assert not hasattr(POLICIES["prefix_affinity"], "reads_kv_events")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"match_threshold": 1.1}, "match_threshold: Input should be less than or equal to 1, got 1.1"),
        ({"balance_rel_threshold": 0.5}, "balance_rel_threshold: Input should be greater than or equal to 1, got 0.5"),
        ({"ttl_s": 0}, "ttl_s: Input should be greater than 0, got 0"),
        (
            {"capacity_token": 5},
            "capacity_token: unknown option 'capacity_token': did you mean capacity_tokens, quality_bound?",
        ),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    (problem,) = check_options("prefix_affinity", options)
    assert str(problem) == message
