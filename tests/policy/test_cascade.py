"""The cascade: who is asked, what is accepted, what is passed over; accept rates within binomial bounds."""

from __future__ import annotations

import pytest
from policy.stage import Stage, ask_for, variant

from simroute.errors import UsageError
from simroute.policy.snapshot import Reviewer

N = 4000


def stage():
    """Replicas 0 is large, 1 and 2 small, 3 is of the middle."""
    return Stage(
        (1, variant("large", 3.0)),
        (2, variant("small", 1.0, {"chat": 0.7})),
        (1, variant("middle", 2.0, {"chat": 0.9})),
    )


def test_it_reviews_answers():
    assert isinstance(stage().policy("cascade"), Reviewer)
    assert not isinstance(stage().policy("least_requests"), Reviewer)


def test_the_cheapest_is_asked_first_and_each_refusal_leads_one_step_up():
    found = stage()
    policy = found.policy("cascade", accept_rate={"default": 0.0})
    found.seen[1].in_flight = 3
    request = ask_for()
    assert found.pick(policy, request) == 2
    assert policy.review(request, 2, found.seen) == (3, "")
    assert policy.review(request, 3, found.seen) == (0, "")
    assert policy.review(request, 0, found.seen) is None, "the last answer is always accepted"


def test_the_chain_may_be_named_and_shorter_than_the_fleet():
    found = stage()
    policy = found.policy("cascade", chain=["middle", "large"], accept_rate={"chat": 0.0})
    assert found.pick(policy) == 3
    assert policy.review(ask_for(), 3, found.seen) == (0, "")


def test_an_accepted_answer_is_passed_on():
    found = stage()
    policy = found.policy("cascade", accept_rate={"default": 1.0})
    assert all(policy.review(ask_for(index=i), 1, found.seen) is None for i in range(100))


@pytest.mark.parametrize(
    ("options", "request_class", "replica", "expected"),
    [
        ({"accept_rate": {"chat": 0.35}}, "chat", 1, 0.35),
        ({"accept_rate": {"chat": 0.35, "default": 0.8}}, "coding", 1, 0.8),
        ({}, "chat", 1, 0.7),
        ({}, "chat", 3, 0.9),
        ({}, "coding", 1, 1.0),
    ],
)
def test_accepted_as_often_as_measured_else_as_good_as_the_variant_is(options, request_class, replica, expected):
    found = stage()
    policy = found.policy("cascade", **options)
    accepted = sum(policy.review(ask_for(request_class, index=i), replica, found.seen) is None for i in range(N))
    assert abs(accepted / N - expected) <= 4 * (expected * (1 - expected) / N) ** 0.5


def test_what_is_accepted_is_common_to_instances_attempts_and_rates():
    found = stage()
    one, same = (found.policy("cascade", accept_rate={"chat": 0.5}) for _ in range(2))
    easy = found.policy("cascade", accept_rate={"chat": 0.8})
    steps = set()
    for i in reversed(range(300)):
        first, again = ask_for(index=i), ask_for(index=i, arrival_s=50.0)
        assert one.accepts(first, 0) == same.accepts(again, 0)
        assert easy.accepts(first, 0) or not one.accepts(first, 0)
        steps.add((one.accepts(first, 0), one.accepts(first, 1)))
    assert len(steps) == 4, "the two steps are drawn apart"


def test_pools_that_are_down_are_passed_over():
    found = stage()
    policy = found.policy("cascade", accept_rate={"default": 0.0})
    found.down(3)
    assert policy.review(ask_for(), 1, found.seen) == (0, "")
    found.down(0)
    assert policy.review(ask_for(), 1, found.seen) is None, "a doubtful answer is better than none"
    found.down(1, 2)
    assert found.ask(policy) == (-1, "no replica is ready")
    found.up(0)
    assert found.pick(policy) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chain": ["smal"]}, "cascade: chain: unknown pool 'smal': did you mean small"),
        ({"chain": ["small", "small"]}, "cascade: chain: pool 'small' is named twice; name each once"),
        ({"accept_rate": {"chat": 1.2}}, "accept_rate.chat: Input should be less than or equal to 1, got 1.2"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        stage().policy("cascade", **options)
