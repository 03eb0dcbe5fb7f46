"""Spilling to somebody else's endpoint: pressure, the rate limit worked by hand, who may, what is down."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy.stage import Stage, ask_for, variant

from simroute.errors import UsageError

BURST = {"occupancy": {"enter": 0.8, "leave": 0.5}}


def stage(**options):
    """Replica 0 is of pool one (10 seats), 1 of pool two (20 seats), 2 is an API."""
    return Stage(
        (1, variant("one", quality={"chat": 0.9})),
        (1, variant("two", seats=20, quality={"chat": 0.7})),
        (1, variant("api", 9.0, {"chat": 0.95}, external=True)),
        **options,
    )


def fill(found, one, two):
    found.seen[0].in_flight, found.seen[1].in_flight = one, two


def test_own_replicas_serve_while_any_pool_has_room():
    found = stage()
    policy = found.policy("spillover", **BURST)
    went = []
    for load in [(0, 0), (3, 4), (8, 15), (8, 16), (5, 10), (4, 10), (7, 9)]:
        fill(found, *load)
        went.append(found.pick(policy))
    # Fewest for the seats; one full; both full; both still above leave; one has room again; both have.
    assert went == [0, 1, 1, 2, 2, 0, 1]


def limited(per_minute):
    """When a request that comes at each of these times may spill, from a fleet that is full."""
    found = stage()
    policy = found.policy("spillover", requests_per_minute=per_minute)
    fill(found, 30, 50)
    return lambda *times_s: [found.pick(policy, ask_for(arrival_s=time_s)) == 2 for time_s in times_s]


def test_the_rate_limit_is_a_bucket_of_one_minute_that_fills_evenly():
    spills = limited(6)
    assert spills(*[0.0] * 7) == [True] * 6 + [False]
    assert spills(9.9, 10.0, 10.2) == [False, True, False], "one every 10 s"
    assert spills(*[35.0] * 3) == [True, True, False], "2.5 since"
    assert spills(*[1000.0] * 7) == [True] * 6 + [False], "never more than a minute's worth"


def test_less_than_one_request_a_minute_is_still_one_at_a_time():
    assert limited(0.5)(0.0, 60.0, 120.0, 130.0) == [True, False, True, False]


@given(st.lists(st.floats(0, 30), max_size=60), st.floats(0.5, 120))
def test_no_window_of_time_sees_more_than_the_bucket_and_what_flowed_in(gaps_s, per_minute):
    times_s = [sum(gaps_s[: i + 1]) for i in range(len(gaps_s))]
    went = limited(per_minute)(*times_s)
    taken_s = [time_s for time_s, gone in zip(times_s, went, strict=True) if gone]
    for i, start_s in enumerate(taken_s):
        for count, end_s in enumerate(taken_s[i:], start=1):
            assert count <= max(per_minute, 1.0) + (end_s - start_s) * per_minute / 60 + 1e-6


def test_what_the_limit_does_not_allow_stays_on_the_emptiest_own_replica():
    found = stage()
    policy = found.policy("spillover", requests_per_minute=2)
    fill(found, 30, 50)
    went = [found.pick(policy, ask_for(arrival_s=t)) for t in (0.0, 1.0, 2.0, 3.0, 31.0)]
    assert went == [2, 2, 1, 1, 2], "50 in 20 seats is less than 30 in 10"


def test_the_limit_counts_only_what_spills():
    found = stage()
    policy = found.policy("spillover", requests_per_minute=1)
    assert [found.pick(policy) for _ in range(5)] == [0] * 5
    fill(found, 30, 50)
    assert [found.pick(policy) for _ in range(2)] == [2, 1]


def test_only_some_classes_and_tiers_may_spill():
    found = stage()
    fill(found, 30, 60)
    policy = found.policy("spillover", classes=["chat"], tiers=["gold", "silver"])
    assert found.pick(policy, ask_for("chat", tier="gold")) == 2
    assert found.pick(policy, ask_for("chat", tier="free")) == 0
    assert found.pick(policy, ask_for("batch", tier="gold")) == 0


def test_with_no_own_replica_up_requests_spill_and_with_no_api_up_they_stay():
    found = stage()
    policy = found.policy("spillover", classes=["chat"])
    found.down(0, 1)
    assert found.pick(policy) == 2
    assert found.ask(policy, ask_for("batch")) == (-1, "no replica is ready")
    found.up(0)
    found.down(2)
    fill(found, 30, 0)
    assert found.pick(policy) == 0


def test_the_pool_that_takes_what_spills_may_be_named():
    found = stage()
    policy = found.policy("spillover", to="two", **BURST)
    fill(found, 9, 0)
    assert found.pick(policy) == 2, "the API is an own pool then"
    found.seen[2].in_flight = 9
    assert found.pick(policy) == 1
    with pytest.raises(UsageError, match="spillover: to: unknown pool 'apj': did you mean api"):
        found.policy("spillover", to="apj")


def test_without_an_external_pool_nothing_spills():
    found = Stage((2, variant("own")))
    found.seen[0].in_flight, found.seen[1].in_flight = 99, 98
    assert found.pick(found.policy("spillover")) == 1


def test_the_floor_holds_where_it_is_respected():
    found = stage(floor={"chat": 0.8, "proofs": 0.99})
    policy = found.policy("spillover", respect_quality_floor=True, when_no_variant="reject")
    assert found.pick(policy) == 0
    fill(found, 30, 0)
    assert found.pick(policy) == 2, "pool two has room but is below the floor"
    assert found.ask(policy, ask_for("proofs")) == (-1, "no variant meets the quality floor")
