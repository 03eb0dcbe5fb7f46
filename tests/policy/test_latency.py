"""Policies that predict: hand-worked choices, brute-force references, floors and readiness as laws."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy.stage import LinearSpeed, Stage, ask_for, variant

from simroute.policy.context import Targets
from simroute.policy.routing.predict import predict

FAST, SLOW = LinearSpeed(token_s=1e-3), LinearSpeed(token_s=4e-3)
ONE_SECOND = {"default": Targets(ttft_s=1.0)}


def two_speeds(**options):
    """Replicas 0, 1 prefill a token in 1 ms and decode slowly; 2 takes 4 ms and decodes fast."""
    quick = LinearSpeed(token_s=4e-3, step_s=1e-3)
    return Stage((2, variant("prefills", speed=FAST)), (1, variant("decodes", speed=quick)), **options)


def test_shortest_wait_counts_tokens_ahead_not_requests():
    stage = Stage((2, variant("only")))
    policy = stage.policy("join_shortest_expected_wait")
    assert stage.pick(policy) == 0, "equal waits go to the lowest number"
    stage.seen[0].load(1, 5000, 5000)
    stage.seen[1].load(8, 800, 800)
    assert stage.pick(policy) == 1, "5 s against 0.8 s"
    assert stage.pick(stage.policy("least_requests")) == 0


def test_shortest_wait_knows_that_variants_differ_in_speed():
    stage = Stage((1, variant("slow", speed=SLOW)), (1, variant("fast", speed=FAST)))
    policy = stage.policy("join_shortest_expected_wait")
    assert stage.pick(policy) == 1
    stage.seen[1].load(1, 250, 250)
    assert stage.pick(policy, ask_for(tokens=100)) == 1, "0.25 + 0.1 s against 0.4 s"
    stage.seen[1].load(1, 350, 350)
    assert stage.pick(policy, ask_for(tokens=100)) == 0, "0.35 + 0.1 s against 0.4 s"


def test_the_first_token_and_the_answer_may_come_soonest_from_different_replicas():
    stage = two_speeds()
    expected = {"chat": 101}
    ttft = stage.policy("join_shortest_expected_wait", expected_output_tokens=expected)
    e2e = stage.policy("join_shortest_expected_wait", expected_output_tokens=expected, objective="e2e")
    assert (stage.pick(ttft), stage.pick(e2e)) == (0, 2), "0.1 + 1.0 s against 0.4 + 0.1 s"
    assert stage.pick(e2e, ask_for("short", tokens=2000)) == 0, "2 + 2.55 s against 8 + 0.255 s"


def test_where_speed_is_not_known_the_fewest_tokens_in_flight_decide():
    stage = Stage((1, variant("known")), (1, variant("unknown", speed=None)))
    policy = stage.policy("join_shortest_expected_wait")
    stage.seen[0].load(1, 500)
    stage.seen[1].load(9, 400)
    assert stage.pick(policy) == 1
    stage.seen[1].load(9, 600)
    assert stage.pick(policy) == 0


@pytest.mark.parametrize("request_class", ["chat", "untargeted"])
def test_the_true_length_of_the_answer_is_never_read(request_class):
    stage = Stage((3, variant("only")), targets={"chat": Targets(e2e_s=5.0)})
    stage.seen[0].load(3, 900, 300)
    stage.seen[1].load(9, 300, 0)
    for name in ("join_shortest_expected_wait", "latency_target", "cost_aware"):
        policy = stage.policy(name)
        short, long = ask_for(request_class), ask_for(request_class)
        short.max_tokens, long.max_tokens = 1, 100_000
        assert stage.ask(policy, short) == stage.ask(policy, long)


def test_packed_takes_the_replica_nearest_to_its_target_and_spread_the_farthest():
    stage = Stage((4, variant("only")), targets=ONE_SECOND)
    for replica, queued in enumerate([200, 800, 950, 0]):
        stage.seen[replica].load(1, queued, queued)
    request = ask_for(tokens=100)
    assert stage.pick(stage.policy("latency_target"), request) == 1, "0.9 of 1 s; replica 2 would take 1.05 s"
    assert stage.pick(stage.policy("latency_target", prefer="spread"), request) == 3
    assert stage.pick(stage.policy("latency_target", slack=0.8), request) == 0, (
        "replica 1 would leave less than a fifth"
    )


def test_when_none_meets_its_target_the_smallest_miss_serves_or_the_request_is_rejected():
    stage = Stage((2, variant("only")), targets=ONE_SECOND)
    stage.seen[0].load(1, 3000, 3000)
    stage.seen[1].load(1, 2000, 2000)
    assert stage.pick(stage.policy("latency_target")) == 1
    strict = stage.policy("latency_target", when_none_meets="reject")
    assert stage.ask(strict) == (-1, "no replica is predicted to meet the latency targets")
    stage.seen[0].load(0, 0)
    assert stage.pick(strict) == 0


def test_a_replica_of_unknown_speed_comes_after_those_that_meet_and_before_those_that_miss():
    stage = Stage((1, variant("known")), (2, variant("unknown", speed=None)), targets=ONE_SECOND)
    stage.seen[1].load(2, 700)
    stage.seen[2].load(3, 600)
    policy = stage.policy("latency_target", when_none_meets="reject")
    assert stage.pick(policy) == 0
    stage.seen[0].load(1, 5000, 5000)
    assert stage.pick(policy) == 2, "the fewer tokens in flight of the two"


def test_a_class_without_targets_is_answered_soonest():
    stage = Stage((2, variant("only")), targets={"chat": Targets(ttft_s=1.0)})
    stage.seen[0].load(1, 500, 500)
    policy = stage.policy("latency_target", when_none_meets="reject")
    assert stage.pick(policy, ask_for("batch")) == 1
    assert stage.pick(policy, ask_for("chat")) == 0, "packed"


def price_ladder(**options):
    """Replicas 0, 1 are cheap and slow, 2 and 3 dear and fast; coding needs the dear ones."""
    return Stage(
        (2, variant("dear", 3.0, {"chat": 0.9, "coding": 0.9}, speed=FAST)),
        (2, variant("cheap", 1.0, {"chat": 0.8, "coding": 0.5}, speed=SLOW)),
        floor={"coding": 0.8},
        **options,
    )


def test_the_cheapest_pool_that_is_fast_enough_serves():
    stage = price_ladder(targets=ONE_SECOND)
    policy = stage.policy("cost_aware")
    assert stage.pick(policy, ask_for(tokens=200)) == 2, "0.8 s"
    assert stage.pick(policy, ask_for(tokens=300)) == 0, "1.2 s on the cheap one"
    assert stage.pick(policy, ask_for("coding", tokens=200)) == 0, "cheap is below the floor"
    assert stage.pick(stage.policy("cost_aware", slack=0.7), ask_for(tokens=200)) == 0


def test_inside_a_pool_the_replica_with_the_most_headroom_serves():
    stage = price_ladder(targets=ONE_SECOND)
    policy = stage.policy("cost_aware")
    stage.seen[2].load(1, 50, 50)
    assert stage.pick(policy, ask_for(tokens=150)) == 3


def test_when_no_pool_is_fast_enough_the_best_prediction_decides():
    stage = price_ladder(targets=ONE_SECOND)
    policy = stage.policy("cost_aware")
    for replica, queued in enumerate([9000, 8000, 3000, 1900]):
        stage.seen[replica].load(1, queued, queued)
    assert stage.pick(policy) == 3, "7.6 + 0.4 s against 8 + 0.1 s"
    assert stage.pick(policy, ask_for("coding")) == 1, "however late, not below the floor"


def test_without_targets_the_cheapest_pool_serves_everything():
    stage = price_ladder()
    stage.seen[2].load(1, 90_000, 90_000)
    stage.seen[3].load(1, 80_000, 80_000)
    assert stage.pick(stage.policy("cost_aware")) == 3


def test_cost_aware_rejects_what_nothing_is_good_enough_for():
    stage = price_ladder(targets=ONE_SECOND)
    stage._floor = {"proofs": 0.99}
    assert stage.ask(stage.policy("cost_aware", when_no_variant="reject"), ask_for("proofs")) == (
        -1,
        "no variant meets the quality floor",
    )


loads = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 500), st.floats(0, 1)), min_size=4, max_size=4)
ups = st.lists(st.booleans(), min_size=4, max_size=4)
NAMES = ["join_shortest_expected_wait", "latency_target", "cost_aware"]


def show(stage, loads, ups):
    for found, (requests, each, share) in zip(stage.seen, loads, strict=True):
        found.load(requests, requests * each, int(share * requests * each))
    for replica, up in enumerate(ups):
        stage.members.set(replica, up)


@given(st.lists(st.tuples(loads, ups, st.sampled_from(["chat", "coding"])), max_size=8))
def test_never_a_replica_that_is_not_ready_and_never_below_the_floor(steps):
    stage = price_ladder(targets=ONE_SECOND)
    policies = [stage.policy(name) for name in NAMES]
    for load, up, request_class in steps:
        show(stage, load, up)
        for name, policy in zip(NAMES, policies, strict=True):
            chosen = stage.ask(policy, ask_for(request_class, tokens=200))
            allowed = [
                r for r in range(4) if up[r] and not (name == "cost_aware" and request_class == "coding" and r > 1)
            ]
            if allowed:
                assert chosen.replica in allowed, name
            else:
                assert chosen == (-1, "no replica is ready")


@given(loads, st.sampled_from(["packed", "spread"]), st.floats(0.3, 1.5))
def test_latency_target_is_what_its_description_says(load, prefer, slack):
    stage = price_ladder(targets=ONE_SECOND)
    show(stage, load, [True] * 4)
    used = [predict(found, 200, 256).ttft_s for found in stage.seen]
    meeting = [r for r in range(4) if used[r] <= slack]
    key = (lambda r: (-used[r], r)) if prefer == "packed" and meeting else (lambda r: (used[r], r))
    policy = stage.policy("latency_target", prefer=prefer, slack=slack)
    assert stage.pick(policy, ask_for(tokens=200)) == min(meeting or range(4), key=key)
