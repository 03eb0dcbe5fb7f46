"""Pools by length of prompt: bounds, spilling upward with hysteresis, pools that are down."""

from __future__ import annotations

import pytest
from policy.stage import Stage, ask_for, variant

from simroute.errors import UsageError

SPLITS = [{"up_to_tokens": 1000, "pool": "short"}, {"up_to_tokens": 4000, "pool": "middle"}]


def stage():
    """Replicas 0 and 1 are of pool short, 2 of middle, 3 of long."""
    return Stage((2, variant("short")), (1, variant("middle")), (1, variant("long")))


def split(found, **options):
    return found.policy("length_split", **({"splits": SPLITS, "rest": "long"} | options))


@pytest.mark.parametrize(("tokens", "replica"), [(1, 0), (1000, 0), (1001, 2), (4000, 2), (4001, 3), (1_000_000, 3)])
def test_each_length_has_its_pool_bounds_included(tokens, replica):
    found = stage()
    assert found.pick(split(found), ask_for(tokens=tokens)) == replica


def test_inside_a_pool_the_fewest_in_flight_then_the_lowest_number():
    found = stage()
    policy = split(found)
    found.seen[0].in_flight = 2
    assert found.pick(policy) == 1
    found.seen[1].in_flight = 2
    assert found.pick(policy) == 0


def test_without_options_everything_goes_to_the_first_pool():
    found = stage()
    assert found.pick(found.policy("length_split"), ask_for(tokens=9000)) == 0


def test_under_pressure_prompts_spill_to_longer_ones_and_come_back_below_leave():
    found = stage()
    policy = split(found, spill=True, occupancy={"enter": 0.8, "leave": 0.5})
    went = []
    for in_flight in [7, 8, 6, 5, 4, 7]:
        found.seen[0].in_flight = found.seen[1].in_flight = in_flight
        went.append(found.pick(policy))
    assert went == [0, 2, 2, 2, 0, 0]


def test_a_long_prompt_never_spills_to_a_pool_for_shorter_ones():
    found = stage()
    policy = split(found, spill=True)
    found.seen[3].num_requests_waiting = 50
    assert found.pick(policy, ask_for(tokens=9000)) == 3


def test_when_no_longer_pool_has_room_either_a_prompt_stays():
    found = stage()
    policy = split(found, spill=True)
    for seen in found.seen:
        seen.num_requests_waiting = 50
    found.seen[0].in_flight = 20
    assert found.pick(policy) == 1
    assert found.pick(policy, ask_for(tokens=2000)) == 2


def test_a_pool_that_is_down_is_replaced_only_when_spilling_is_allowed():
    found = stage()
    keeps, spills = split(found), split(found, spill=True)
    found.down(0, 1)
    assert found.ask(keeps) == (-1, "no replica is ready")
    assert found.pick(spills) == 2
    found.down(2, 3)
    assert found.ask(spills) == (-1, "no replica is ready")
    found.up(1)
    assert found.pick(keeps) == found.pick(spills) == 1


@pytest.mark.parametrize("options", [{"rest": "lon"}, {"splits": [{"up_to_tokens": 5, "pool": "lon"}]}])
def test_an_unknown_pool_is_refused(options):
    with pytest.raises(UsageError, match="length_split: unknown pool 'lon': did you mean long"):
        split(stage(), **options)


@pytest.mark.parametrize("bounds", [(2000, 1000), (1000, 1000)])
def test_bounds_must_rise(bounds):
    splits = [{"up_to_tokens": bound, "pool": "short"} for bound in bounds]
    with pytest.raises(UsageError, match="splits must be of rising up_to_tokens, got "):
        split(stage(), splits=splits)
