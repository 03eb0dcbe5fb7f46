"""least_tokens by hand: prompts, expected answers, ties, and what is forgotten when requests finish."""

from __future__ import annotations

import pytest

from simroute.policy.routing import POLICIES, check_options
from simroute.workload.request import Request


def two(fleet, tokens, in_flight):
    f = fleet(bf16=(2, 1.0, {"chat": 0.9}))
    for seen, t, n in zip(f.seen, tokens, in_flight, strict=True):
        seen.in_flight_tokens, seen.in_flight = t, n
    return f


def test_one_long_prompt_weighs_more_than_many_short_ones(fleet):
    f = two(fleet, [9000, 600], [1, 6])
    assert f.pick(f.policy("least_tokens")) == 1
    assert f.pick(f.policy("least_requests")) == 0


def test_equal_tokens_go_to_the_fewest_requests_then_the_lowest_number(fleet):
    f = two(fleet, [600, 600], [6, 5])
    policy = f.policy("least_tokens")
    assert f.pick(policy) == 1
    f.seen[0].in_flight = 5
    assert f.pick(policy) == 0


def test_expected_answers_count_as_weighted(fleet):
    """A chat answer of 100 tokens at weight 4 is worth 400 prompt tokens, a summary of 10 only 40.

    Replica 0 then has 100 + 400, replica 1 300 + 40.
    """
    f = two(fleet, [0, 0], [0, 0])
    policy = f.policy("least_tokens", output_weight=4.0, mean_output_tokens={"chat": 100, "default": 10})
    assert f.pick(policy, "chat") == 0
    f.seen[0].in_flight, f.seen[0].in_flight_tokens = 1, 100
    assert f.pick(policy, "summary") == 1
    f.seen[1].in_flight, f.seen[1].in_flight_tokens = 1, 300
    assert f.pick(policy, "chat") == 1
    f.seen[1].in_flight, f.seen[1].in_flight_tokens = 2, 400
    assert f.pick(policy, "chat") == 0


def test_what_has_finished_is_expected_no_longer_the_oldest_first(fleet):
    f = two(fleet, [0, 0], [0, 9])
    f.seen[1].in_flight_tokens = 10**6
    policy = f.policy("least_tokens", output_weight=1.0, mean_output_tokens={"chat": 100, "summary": 10})
    for sent, request_class in enumerate(["chat", "summary", "summary"], start=1):
        assert f.pick(policy, request_class) == 0
        f.seen[0].in_flight = sent
    f.seen[1].in_flight_tokens = 119
    assert f.pick(policy, "idle") == 1
    f.seen[0].in_flight = 2
    f.seen[1].in_flight_tokens = 21
    assert f.pick(policy, "idle") == 0
    f.seen[0].in_flight = 0
    f.seen[1].in_flight_tokens = 0
    assert f.pick(policy, "idle") == 0


def test_the_true_length_of_an_answer_is_not_looked_at(fleet):
    for max_tokens in (1, 10**6):
        f = two(fleet, [50, 60], [1, 1])
        policy = f.policy("least_tokens", output_weight=2.0, mean_output_tokens={"default": 10})
        chosen = []
        for index in range(6):
            chosen.append(policy.choose(Request(index, 0.0, 10, max_tokens), f.seen).replica)
            f.seen[chosen[-1]].in_flight += 1
            f.seen[chosen[-1]].in_flight_tokens += 10
        assert chosen == [0, 1, 0, 1, 0, 1]


def test_it_asks_the_router_to_count_tokens():
    assert POLICIES["least_tokens"].counts_tokens is True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_weight": -1}, "output_weight: Input should be greater than or equal to 0, got -1"),
        ({"output_weight": 1}, "output_weight needs mean_output_tokens: give the mean answer"),
        ({"mean_output_tokens": {"chat": -5}}, "mean_output_tokens: class 'chat' must be 0 or more, got -5"),
        ({"mean_output_tokens": {"chat": float("nan")}}, "mean_output_tokens: class 'chat' must be 0 or more, got nan"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    (problem,) = check_options("least_tokens", options)
    assert str(problem).startswith(message)
