"""Two levels: the pool by one policy, the replica by another; membership, floors, reviews and options inside."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy.stage import Stage, ask_for, variant

from simroute.errors import UsageError
from simroute.policy.routing import built_in, check_options, ignores_floors, reviews_answers
from simroute.policy.snapshot import Reviewer


def stage(**options):
    """Replicas 0-2 are cheap, 3-5 dear; coding needs the dear ones."""
    return Stage(
        (3, variant("cheap", 1.0, {"chat": 0.8, "coding": 0.5})),
        (3, variant("dear", 2.0, {"chat": 0.9, "coding": 0.9})),
        floor={"coding": 0.8},
        **options,
    )


def test_the_variant_by_one_policy_the_replica_by_the_other():
    found = stage()
    policy = found.policy("two_level", variant="quant_aware", replica="round_robin")
    classes = ["chat", "chat", "coding", "chat", "coding", "chat"]
    assert [found.pick(policy, ask_for(c)) for c in classes] == [0, 1, 3, 2, 4, 0], "a rotation for each pool"


def test_by_default_quantization_first_then_the_fewest_requests():
    found = stage()
    policy = found.policy("two_level")
    found.seen[0].in_flight = 1
    assert (found.pick(policy), found.pick(policy, ask_for("coding"))) == (1, 3)


def test_the_pool_of_whatever_replica_the_variant_policy_names():
    found = stage()
    policy = found.policy("two_level", variant="least_requests", replica="least_kv")
    for seen in found.seen:
        seen.in_flight, seen.kv_cache_usage = 5, 0.5
    found.seen[4].in_flight = 1
    found.seen[5].kv_cache_usage = 0.1
    assert found.pick(policy) == 5


def test_options_reach_both_levels():
    found = stage()
    policy = found.policy(
        "two_level",
        variant={"name": "static_tier", "options": {"tiers": {"gold": "dear"}}},
        replica={"name": "join_shortest_expected_wait", "options": {"objective": "e2e"}},
    )
    found.seen[3].load(1, 5000, 5000)
    assert (found.pick(policy), found.pick(policy, ask_for(tier="gold"))) == (0, 4)


def test_inside_a_pool_only_its_own_ready_replicas_are_seen():
    found = stage()
    policy = found.policy("two_level", replica="random")
    found.down(1)
    seen = Counter(found.pick(policy, ask_for(c)) for c in ("chat", "coding") for _ in range(100))
    assert set(seen) == {0, 2, 3, 4, 5}
    found.down(0, 2)
    found.up(1)
    assert {found.pick(policy) for _ in range(50)} == {1}
    found.down(1)
    assert {found.pick(policy) for _ in range(50)} <= {3, 4, 5}
    found.down(3, 4, 5)
    assert found.ask(policy) == (-1, "no replica is ready")


def test_a_rejection_by_the_variant_policy_stands():
    found = stage()
    policy = found.policy(
        "two_level", variant={"name": "quant_aware", "options": {"when_no_variant": "reject"}}, replica="random"
    )
    found._floor["proofs"] = 0.99
    assert found.ask(policy, ask_for("proofs")) == (-1, "no variant meets the quality floor")


def test_answers_are_reviewed_only_where_the_variant_policy_does():
    found = stage()
    plain = found.policy("two_level")
    assert not isinstance(plain, Reviewer)
    cascade = {"name": "cascade", "options": {"accept_rate": {"default": 0.0, "easy": 1.0}}}
    policy = found.policy("two_level", variant=cascade, replica="least_kv")
    assert isinstance(policy, Reviewer)
    for replica, usage in enumerate([0.5, 0.2, 0.5, 0.5, 0.5, 0.1]):
        found.seen[replica].kv_cache_usage = usage
    assert found.pick(policy) == 1
    assert policy.review(ask_for(), 1, found.seen) == (5, "")
    assert policy.review(ask_for(), 5, found.seen) is None
    assert policy.review(ask_for("easy"), 1, found.seen) is None


def test_it_may_stand_inside_itself():
    found = stage()
    inner = {"name": "two_level", "options": {"variant": "cost_aware", "replica": "least_kv"}}
    found.seen[0].kv_cache_usage = 0.5
    assert found.pick(found.policy("two_level", variant=inner, replica="round_robin")) == 0
    assert found.pick(found.policy("two_level", variant="cost_aware", replica=inner)) == 1


@pytest.mark.parametrize(
    ("levels", "counts", "events"),
    [
        ({"variant": "quant_aware", "replica": "least_requests"}, False, False),
        ({"variant": "cost_aware", "replica": "random"}, True, False),
        ({"variant": {"name": "quant_aware", "options": {"predict_slo": True}}, "replica": "random"}, True, False),
        ({"variant": "random", "replica": "join_shortest_expected_wait"}, True, False),
    ],
)
def test_it_asks_for_the_signals_that_its_policies_read(levels, counts, events):
    policy = stage().policy("two_level", **levels)
    assert (policy.counts_tokens, policy.reads_kv_events) == (counts, events)


@pytest.mark.parametrize(
    ("options", "path", "message"),
    [
        ({"replica": "least_request"}, ("replica", "name"), "unknown policy 'least_request': did you mean"),
        (
            {"replica": {"name": "random", "options": {"seed": 1}}},
            ("replica", "options", "seed"),
            "unknown option 'seed'",
        ),
        (
            {"variant": {"name": "quant_aware", "options": {"waiting": {"enter": 2, "leave": 3}}}},
            ("variant", "options", "waiting"),
            "leave must not be above enter",
        ),
        ({"variant": {"nam": "random"}}, ("variant", "name"), "Field required"),
        ({"inside": "random"}, ("inside",), "unknown option 'inside'"),
        (
            {"variant": {"name": "two_level", "options": {"replica": "rand0m"}}},
            ("variant", "options", "replica", "name"),
            "unknown policy 'rand0m': did you mean random",
        ),
    ],
)
def test_what_is_wrong_inside_is_located(options, path, message):
    problem = check_options("two_level", options)[0]
    assert problem.path == path
    assert message in problem.message
    with pytest.raises(UsageError) as caught:
        stage().policy("two_level", **options)
    assert str(caught.value).startswith(f"policy two_level: {problem}")


def test_pools_that_do_not_exist_are_refused_at_either_level():
    with pytest.raises(UsageError, match="static_tier: unknown pool 'der': did you mean dear"):
        stage().policy("two_level", variant={"name": "static_tier", "options": {"default": "der"}})


@given(
    st.sampled_from(["quant_aware", "cost_aware", "static_tier", "random"]),
    st.sampled_from(["round_robin", "power_of_two", "least_kv", "latency_target"]),
    st.lists(st.lists(st.booleans(), min_size=6, max_size=6), max_size=10),
)
def test_never_a_replica_that_is_not_ready(variant_policy, replica_policy, steps):
    found = stage()
    policy = found.policy("two_level", variant=variant_policy, replica=replica_policy)
    for ups in steps:
        for replica, up in enumerate(ups):
            found.members.set(replica, up)
        chosen = found.ask(policy)
        possible = ups[:3] if variant_policy == "static_tier" else ups
        assert ups[chosen.replica] if any(possible) else chosen == (-1, "no replica is ready")


@pytest.mark.parametrize(
    ("name", "options", "own", "blind", "whole"),
    [
        ("least_requests", {}, True, True, False),
        ("least_requests", {"respect_quality_floor": True}, True, False, False),
        ("quant_aware", {}, True, False, False),
        ("static_tier", {}, True, False, False),
        ("cascade", {}, True, False, True),
        ("two_level", {}, True, False, False),
        ("two_level", {"variant": "round_robin"}, True, True, False),
        ("two_level", {"variant": "cascade"}, True, False, True),
        ("two_level", {"replica": "nobody.has:This"}, False, False, False),
    ],
)
def test_what_is_asked_of_a_policy_is_asked_of_those_inside_it(name, options, own, blind, whole):
    assert built_in(name, options) == own
    if own:
        assert ignores_floors(name, options) == blind
        assert reviews_answers(name, options) == whole
