"""The oracle and the log of regrets: predictions worked out by hand, regrets never below zero, none for the oracle."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simroute.policy.routing import make_policy
from simroute.policy.routing.oracle import DecisionLog, watched
from simroute.policy.snapshot import Decision, Reviewer
from simroute.workload.request import Request


class Steps:
    """A prompt token takes 1 ms; a decode step 10 ms and 1 ms for each request in it."""

    def prefill_s(self, tokens):
        return 1e-3 * tokens

    def decode_s(self, seqs, context_tokens):
        return 10e-3 + 1e-3 * seqs


def timed(f, speeds=None, **changes):
    """The fleet with a speed for each pool (left out: `Steps` for all)."""
    f.variants = [
        replace(v, speed=(speeds or {}).get(v.pool, Steps() if speeds is None else None), **changes) for v in f.variants
    ]
    for seen in f.seen:
        seen.variant = f.variants[f.pool_of_replica[seen.replica]]
    return f


def one_pool(fleet, replicas, **changes):
    return timed(fleet(bf16=(replicas, 1.0, {"chat": 0.9})), **changes)


def ask(f, policy, max_tokens, input_tokens=100, at_s=0.0, index=0, request_class="chat"):
    """The policy's choice, which then is in flight there."""
    request = Request(index, at_s, input_tokens, max_tokens, request_class)
    decision = policy.choose(request, f.seen)
    if decision.replica >= 0:
        f.seen[decision.replica].in_flight += 1
    return decision.replica


def logged(f, name, **options):
    context = f.context()
    return watched(make_policy(name, options, context), context)


def test_an_empty_replica_takes_prefill_and_its_own_steps(fleet):
    f = one_pool(fleet, 1)
    log = logged(f, "round_robin")
    ask(f, log, max_tokens=51, input_tokens=200)
    # 200 prompt tokens, then 50 steps of one request: 0.2 s + 50 * 11 ms.
    assert log.columns()["chosen_s"] == pytest.approx([0.2 + 50 * 11e-3])


def test_one_in_flight_shares_the_steps_until_it_ends(fleet):
    f = one_pool(fleet, 1)
    log = logged(f, "round_robin")
    ask(f, log, max_tokens=21, input_tokens=0)
    f.seen[0].queued_tokens = 30
    ask(f, log, max_tokens=51, input_tokens=100)
    # The first: 1 token of prompt at least, 20 steps; 1 ms of prefill delay it by 1/11 of a step.
    assert log.columns()["chosen_s"][0] == pytest.approx(1e-3 + 20 * 11e-3)
    together = 20 + 1 / 11
    expected_s = 0.130 + together * 12e-3 + (50 - together) * 11e-3
    assert log.columns()["chosen_s"][1] == pytest.approx(expected_s)


def test_what_is_cached_need_not_be_computed(fleet):
    f = one_pool(fleet, 2)
    f.seen[1].hits = {0: 80}
    log = logged(f, "round_robin")
    ask(f, log, max_tokens=1, input_tokens=100)
    columns = log.columns()
    assert (columns["chosen"].tolist(), columns["best"].tolist()) == ([0], [1])
    assert columns["regret_s"] == pytest.approx([0.080])


def test_without_a_seat_a_request_waits_for_the_shortest(fleet):
    f = one_pool(fleet, 1, max_num_seqs=2)
    log = logged(f, "round_robin")
    for tokens in (11, 101):
        ask(f, log, max_tokens=tokens, input_tokens=1)
    ask(f, log, max_tokens=1, input_tokens=1)
    # Both prompts took 1 ms: ends at 10 + 1/11 and 100 + 1/12 steps. Two decode until the shorter ends.
    assert log.columns()["chosen_s"][2] == pytest.approx((10 + 1 / 11) * 12e-3 + 1e-3)


def test_without_kv_memory_a_request_waits_as_well(fleet):
    f = one_pool(fleet, 1, kv_tokens=1000)
    log = logged(f, "round_robin")
    ask(f, log, max_tokens=100, input_tokens=850)
    ask(f, log, max_tokens=2, input_tokens=100)
    alone_s = 0.850 + 99 * 11e-3
    waited = 99 + 0.850 / 11e-3  # steps until the first ends, its prefill counted in steps
    assert log.columns()["chosen_s"] == pytest.approx([alone_s, waited * 11e-3 + 0.1 + 11e-3])


def test_time_and_the_routers_count_move_the_book_on(fleet):
    f = one_pool(fleet, 1)
    log = logged(f, "round_robin")
    ask(f, log, max_tokens=101, input_tokens=1)
    ask(f, log, max_tokens=11, input_tokens=1, at_s=0.55)  # 50 steps of 11 ms later: 50 + 1/11 are left
    left = 50 + 1 / 11
    assert log.columns()["chosen_s"][1] == pytest.approx(1e-3 + 10 * 12e-3)
    f.seen[0].in_flight = 1  # the short one is gone, whatever the clock says
    ask(f, log, max_tokens=101, input_tokens=1, at_s=0.55)
    gone = 10 + 1 / 12
    together = left - gone
    assert log.columns()["chosen_s"][2] == pytest.approx(1e-3 + together * 12e-3 + (100 - together) * 11e-3)


def test_the_oracle_looks_at_lengths_and_not_at_counts(fleet):
    f = one_pool(fleet, 2)
    policy = f.policy("oracle")
    # With one request in flight on each, the batch to join is the one that is soon alone again.
    assert [ask(f, policy, max_tokens=n) for n in (1000, 40, 400)] == [0, 1, 1]
    f.seen[0].in_flight = f.seen[1].in_flight = 1
    assert f.pick(f.policy("least_requests")) == 0


def test_among_equals_the_oracle_takes_the_lowest_number(fleet):
    f = one_pool(fleet, 3)
    assert f.pick(f.policy("oracle")) == 0


def test_a_faster_variant_is_worth_a_queue(fleet):
    class Slow(Steps):
        def decode_s(self, seqs, context_tokens):
            return 0.1

    f = timed(fleet(a=(1, 1.0, {}), b=(1, 2.0, {})), {"a": Slow(), "b": Steps()})
    policy = f.policy("oracle")
    assert [ask(f, policy, max_tokens=100) for _ in range(4)] == [1, 1, 1, 1]


def test_the_oracle_keeps_the_floor_and_rejects_when_told_to(fleet):
    f = timed(fleet({"chat": 0.8}, small=(1, 1.0, {"chat": 0.5}), large=(1, 2.0, {"chat": 0.9})))
    assert {ask(f, f.policy("oracle"), max_tokens=50) for _ in range(3)} == {1}
    f.floor = {"chat": 0.95}
    assert ask(f, f.policy("oracle"), max_tokens=50) == 1
    assert f.ask(f.policy("oracle", when_no_variant="reject")) == (-1, "no variant meets the quality floor")


def test_only_replicas_that_are_up_are_considered(fleet):
    f = one_pool(fleet, 3)
    context = f.context()
    policy = make_policy("oracle", {}, context)
    context.members.set(0, False)
    assert ask(f, policy, max_tokens=10) == 1
    for replica in (1, 2):
        context.members.set(replica, False)
    assert f.ask(policy) == (-1, "no replica is ready")
    context.members.set(2, True)
    assert ask(f, policy, max_tokens=10) == 2


def test_without_speeds_the_fewest_tokens_to_come_decide_and_no_regret_is_stated(fleet):
    f = fleet(a=(2, 1.0, {}))
    policy = f.policy("oracle")
    assert [ask(f, policy, max_tokens=n) for n in (50, 10, 10, 10)] == [0, 1, 1, 1]
    g = fleet(a=(2, 1.0, {}))
    log = logged(g, "round_robin")
    for n in (50, 10, 10, 10):
        ask(g, log, max_tokens=n)
    columns = log.columns()
    assert columns["best"].tolist() == [0, 1, 1, 1]
    assert all(math.isnan(value) for name in ("chosen_s", "best_s", "regret_s") for value in columns[name])


def test_a_variant_of_unknown_speed_is_left_out_where_others_are_known(fleet):
    f = timed(fleet(a=(1, 1.0, {}), b=(1, 2.0, {})), {"b": Steps()})
    log = logged(f, "round_robin")
    for _ in range(2):
        ask(f, log, max_tokens=10)
    columns = log.columns()
    assert columns["best"].tolist() == [1, 1]
    assert math.isnan(columns["regret_s"][0])
    assert columns["regret_s"][1] == 0.0


def test_a_choice_below_the_floor_is_among_those_compared(fleet):
    f = timed(fleet({"chat": 0.8}, small=(1, 1.0, {"chat": 0.5}), large=(1, 2.0, {"chat": 0.9})))
    log = logged(f, "static_tier")  # the first pool, below the floor
    f.seen[1].queued_tokens = 1000
    assert ask(f, log, max_tokens=10) == 0
    assert log.columns()["best"].tolist() == [0]


ARRIVALS = st.lists(
    st.tuples(st.integers(1, 400), st.integers(1, 300), st.floats(0, 2), st.sampled_from(["chat", "coding"])),
    max_size=60,
)


def replayed(f, log, arrivals, endings):
    """Requests arrive; between them some that are in flight end."""
    at_s = 0.0
    for index, (input_tokens, max_tokens, gap_s, request_class) in enumerate(arrivals):
        at_s += gap_s
        ask(f, log, max_tokens, input_tokens, at_s, index, request_class)
        seen = f.seen[endings[index % len(endings)] % len(f.seen)]
        seen.in_flight = max(seen.in_flight - 1, 0)


def graded(fleet, seats=4):
    pools = {"small": (2, 1.0, {"chat": 0.9, "coding": 0.5}), "large": (2, 2.0, {"chat": 0.9, "coding": 0.9})}
    return timed(fleet({"coding": 0.8}, **pools), max_num_seqs=seats, kv_tokens=2000)


@settings(max_examples=40)
@given(ARRIVALS, st.lists(st.integers(0, 9), min_size=1), st.sampled_from(["random", "least_requests", "quant_aware"]))
def test_regret_is_never_below_zero(fleet, arrivals, endings, name):
    f = graded(fleet)
    log = logged(f, name)
    replayed(f, log, arrivals, endings)
    columns = log.columns()
    assert (columns["regret_s"] >= 0).all()
    assert (columns["best_s"] > 0).all()
    assert columns["request"].tolist() == list(range(len(arrivals)))


@settings(max_examples=40)
@given(ARRIVALS, st.lists(st.integers(0, 9), min_size=1))
def test_the_oracle_regrets_nothing(fleet, arrivals, endings):
    f = graded(fleet)
    log = logged(f, "oracle")
    replayed(f, log, arrivals, endings)
    columns = log.columns()
    assert (columns["regret_s"] == 0).all()
    assert (columns["chosen"] == columns["best"]).all()


@pytest.mark.parametrize("name", ["random", "least_requests", "quant_aware"])
def test_watching_changes_no_choice(fleet, name):
    plain, spied = graded(fleet), graded(fleet)
    policy, log = plain.policy(name), logged(spied, name)
    lengths = [(37 * i) % 211 + 1 for i in range(80)]
    assert [ask(plain, policy, n) for n in lengths] == [ask(spied, log, n) for n in lengths]


def test_a_rejection_is_logged_without_a_regret(fleet):
    f = timed(fleet({"chat": 0.99}, a=(1, 1.0, {"chat": 0.9})))
    log = logged(f, "quant_aware", when_no_variant="reject")
    assert ask(f, log, max_tokens=10) == -1
    columns = log.columns()
    assert (columns["chosen"].tolist(), columns["best"].tolist()) == ([-1], [0])
    assert math.isnan(columns["regret_s"][0])


class Escalating:
    """Sends everything to replica 0 first, and each answer on to replica 1."""

    own = "kept"

    def choose(self, request, snapshots):
        return Decision(0)

    def review(self, request, replica, snapshots):
        return Decision(1) if replica == 0 else None


def test_a_policy_that_reviews_answers_still_does_and_what_it_sends_on_is_in_the_book(fleet):
    f = one_pool(fleet, 2)
    log = watched(Escalating(), f.context())
    assert isinstance(log, Reviewer)
    assert log.own == "kept"
    request = Request(0, 0.0, 100, 500, "chat")
    assert log.choose(request, f.seen) == (0, "")
    assert log.review(request, 0, f.seen) == (1, "")
    assert log.review(request, 1, f.seen) is None
    f.seen[1].in_flight = 1
    log.choose(Request(1, 0.0, 100, 10, "chat"), f.seen)  # nothing is in flight on 0 any more
    assert len(log.columns()["best"]) == 2
    assert log.columns()["best"].tolist()[1] == 0


def test_the_log_of_one_that_does_not_review_is_no_reviewer(fleet):
    assert not isinstance(logged(one_pool(fleet, 1), "random"), Reviewer)


def test_a_replica_that_does_not_exist_is_left_to_the_router(fleet):
    class Lost:
        def choose(self, request, snapshots):
            return Decision(99)

    f = one_pool(fleet, 2)
    log = DecisionLog(Lost(), f.context())
    assert log.choose(Request(0, 0.0, 10, 10), f.seen).replica == 99
    assert len(log.columns()["chosen"]) == 0
