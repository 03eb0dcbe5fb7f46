"""Options by name: unknown names, and every mistake with the keys that lead to it."""

from __future__ import annotations

from typing import ClassVar

import pytest
from pydantic import BaseModel, ConfigDict

from simroute.errors import UsageError
from simroute.policy.options import Positive, options_of, parse_options, problems_in


class Inner(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    depth_m: Positive


class WellOptions(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    wells: tuple[Inner, ...] = ()
    rope_m: Positive = 1.0


class Well:
    Options: ClassVar[type[BaseModel]] = WellOptions


def test_a_name_is_looked_up_and_an_unknown_one_is_met_with_the_nearest():
    assert options_of("thing", "well", {"well": Well}) is WellOptions
    with pytest.raises(UsageError, match="unknown thing 'wel': did you mean well"):
        options_of("thing", "wel", {"well": Well})


def test_problems_carry_the_keys_that_lead_to_them():
    problems = problems_in(WellOptions, {"wells": [{"depth_m": 2}, {"depht_m": 3}], "rope_m": 0})
    assert [str(problem) for problem in problems] == [
        "wells.1.depth_m: Field required",
        "wells.1.depht_m: unknown option 'depht_m': did you mean depth_m?",
        "rope_m: Input should be greater than 0, got 0",
    ]


def test_options_are_parsed_or_refused_with_a_line_for_each_mistake():
    assert parse_options("well", WellOptions, {"rope_m": 2}) == WellOptions(rope_m=2.0)
    with pytest.raises(UsageError) as caught:
        parse_options("thing well", WellOptions, {"rope_m": -1, "bucket": 1})
    assert str(caught.value).splitlines() == [
        "thing well: rope_m: Input should be greater than 0, got -1",
        "thing well: bucket: unknown option 'bucket': known are rope_m, wells",
    ]
