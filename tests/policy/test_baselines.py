"""Hand-worked choices of the policies that proxies have, and the laws their draws must follow."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from simroute.errors import UsageError

BALANCERS = ["round_robin", "random", "least_requests", "power_of_two", "least_kv"]


def one_pool(fleet, replicas):
    return fleet(bf16=(replicas, 1.0, {"chat": 0.9}))


def graded(fleet):
    """Replicas 0, 1 are int4; 2, 3 fp8; 4 is bf16. Coding needs fp8 or better."""
    return fleet(
        {"coding": 0.8, "proofs": 0.99},
        int4=(2, 1.0, {"chat": 0.8, "coding": 0.6, "proofs": 0.2}),
        fp8=(2, 2.0, {"chat": 0.9, "coding": 0.8, "proofs": 0.4}),
        bf16=(1, 3.0, {"chat": 0.9, "coding": 0.9, "proofs": 0.5}),
    )


def test_round_robin_takes_replicas_in_turn_whatever_their_load(fleet):
    f = one_pool(fleet, 3)
    f.seen[1].in_flight = 99
    policy = f.policy("round_robin")
    assert [f.pick(policy) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_round_robin_keeps_one_rotation_for_classes_that_share_replicas(fleet):
    f = graded(fleet)
    policy = f.policy("round_robin", respect_quality_floor=True)
    classes = ["chat", "coding", "chat", "coding", "default", "coding", "coding"]
    assert [f.pick(policy, c) for c in classes] == [0, 2, 1, 3, 2, 4, 2]


def test_least_requests_takes_the_fewest_in_flight_and_of_equals_the_first(fleet):
    f = one_pool(fleet, 4)
    for seen, n in zip(f.seen, [3, 2, 5, 2], strict=True):
        seen.in_flight = n
    policy = f.policy("least_requests")
    assert f.pick(policy) == 1
    f.seen[1].in_flight = 3
    assert f.pick(policy) == 3


@given(st.lists(st.integers(0, 5), min_size=5, max_size=5), st.sampled_from(["chat", "coding"]))
def test_least_requests_is_the_first_minimum_of_what_is_admissible(fleet, in_flight, request_class):
    f = graded(fleet)
    for seen, n in zip(f.seen, in_flight, strict=True):
        seen.in_flight = n
    first = {"chat": 0, "coding": 2}[request_class]
    policy = f.policy("least_requests", respect_quality_floor=True)
    assert f.pick(policy, request_class) == first + int(np.argmin(in_flight[first:]))


def test_least_kv_takes_the_emptiest_cache_and_of_equals_the_fewest_in_flight(fleet):
    f = one_pool(fleet, 3)
    policy = f.policy("least_kv")
    for seen, usage, n in zip(f.seen, [0.5, 0.2, 0.2], [0, 7, 6], strict=True):
        seen.kv_cache_usage, seen.in_flight = usage, n
    assert f.pick(policy) == 2
    f.seen[0].kv_cache_usage = 0.1
    assert f.pick(policy) == 0


def test_power_of_two_of_two_replicas_takes_the_less_loaded(fleet):
    f = one_pool(fleet, 2)
    policy = f.policy("power_of_two")
    f.seen[0].in_flight = 1
    assert {f.pick(policy) for _ in range(50)} == {1}


def test_power_of_two_with_one_replica_takes_it(fleet):
    f = one_pool(fleet, 1)
    policy = f.policy("power_of_two")
    assert {f.pick(policy) for _ in range(50)} == {0}


def test_power_of_two_follows_the_law_of_the_lesser_of_two(fleet):
    """Rank k of n (0 the least loaded) wins when the other draw ranks above it: (n-1-k) of the n(n-1)/2 pairs."""
    n, draws = 6, 30_000
    f = one_pool(fleet, n)
    for seen in f.seen:
        seen.in_flight = 10 * seen.replica
    policy = f.policy("power_of_two", seed=7)
    counts = Counter(f.pick(policy) for _ in range(draws))
    expected = [draws * (n - 1 - k) / (n * (n - 1) / 2) for k in range(n)]
    assert counts[n - 1] == 0
    assert stats.chisquare([counts[k] for k in range(n - 1)], expected[:-1]).pvalue > 0.01


@pytest.mark.parametrize("name", ["random", "power_of_two"])
def test_draws_among_equally_loaded_replicas_are_uniform(fleet, name):
    f = one_pool(fleet, 7)
    policy = f.policy(name, seed=11)
    counts = Counter(f.pick(policy) for _ in range(21_000))
    assert stats.chisquare([counts[r] for r in range(7)]).pvalue > 0.01


@pytest.mark.parametrize("name", ["random", "power_of_two"])
def test_same_seed_same_choices_and_another_seed_others(fleet, name):
    f = one_pool(fleet, 16)
    policies = [f.policy(name, seed=s) for s in (1, 1, 2)]
    first, again, other = ([f.pick(p) for _ in range(5000)] for p in policies)
    assert first == again
    assert first != other


@pytest.mark.parametrize("name", BALANCERS)
def test_floor_is_ignored_unless_asked_for(fleet, name):
    f = graded(fleet)
    for seen in f.seen:
        seen.in_flight = seen.replica
    free, bound = f.policy(name), f.policy(name, respect_quality_floor=True)
    assert {f.pick(free, "coding") for _ in range(200)} & {0, 1}
    assert not {f.pick(bound, "coding") for _ in range(200)} & {0, 1}


@pytest.mark.parametrize("name", BALANCERS)
def test_a_floor_that_nothing_meets_takes_the_best_or_rejects(fleet, name):
    f = graded(fleet)
    best = f.policy(name, respect_quality_floor=True)
    assert f.pick(best, "proofs") == 4
    reject = f.policy(name, respect_quality_floor=True, when_no_variant="reject")
    assert f.ask(reject, "proofs") == (-1, "no variant meets the quality floor")
    assert f.pick(reject, "chat") >= 0


def test_quality_bound_low_asks_the_low_end_to_reach_the_floor(fleet):
    f = graded(fleet)
    policy = f.policy("least_requests", respect_quality_floor=True, quality_bound="low")
    assert f.pick(policy, "coding") == 4


def test_a_class_without_a_figure_counts_as_zero(fleet):
    f = fleet({"vision": 0.1}, a=(1, 1.0, {}), b=(1, 2.0, {"vision": 0.2}))
    assert f.pick(f.policy("least_requests", respect_quality_floor=True), "vision") == 1


def test_static_tier_keeps_each_tier_in_its_pool(fleet):
    f = graded(fleet)
    policy = f.policy("static_tier", tiers={"gold": "bf16", "free": "int4"}, default="fp8")
    f.seen[0].in_flight = f.seen[2].in_flight = 5
    f.seen[4].in_flight = 500
    assert [f.pick(policy, tier=t) for t in ("gold", "free", "silver")] == [4, 1, 3]


def test_static_tier_without_options_uses_the_first_pool(fleet):
    f = graded(fleet)
    assert f.pick(f.policy("static_tier")) == 0


@pytest.mark.parametrize("options", [{"tiers": {"gold": "bf61"}}, {"default": "bf61"}])
def test_static_tier_refuses_an_unknown_pool(fleet, options):
    with pytest.raises(UsageError, match="static_tier: unknown pool 'bf61': did you mean bf16"):
        graded(fleet).policy("static_tier", **options)
