"""The grammar of --assert and what a failure says."""

from __future__ import annotations

import pytest

from simroute.cli.assertions import METRICS, parse
from simroute.errors import UsageError

SUMMARY = {
    "ttft_s": {"mean": 0.5, "p50": 0.4, "p90": 0.9, "p95": 1.2, "p99": None},
    "slo_attainment": 0.97,
    "requests": {"arrived": 100, "completed": 98, "rejected": 2, "unfinished": 0},
    "kv_usage": {"mean": 0.4, "p99": 0.8},
    "quality": {"mean": 0.8, "below_floor_share": 0.02},
    "cost_usd_per_month": 12_345.6,
    "stability": "STABLE",
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("ttft_mean < 2s", True),
        ("ttft_mean < 499ms", False),
        ("ttft_mean<=500ms", True),
        ("ttft_p95 < 0.02min", False),
        ("ttft_p95 <= 1.2", True),
        ("slo_attainment >= 95%", True),
        ("slo_attainment >= 0.98", False),
        ("requests.rejected == 0", False),
        ("requests.rejected <= 2", True),
        ("kv_usage_p99 < 90%", True),
        ("below_floor_share <= 2%", True),
        ("below_floor_share == 0", False),
        ("cost_usd_per_month <= $12,345.60", True),
        ("cost_usd_per_month < 1e4", False),
        ("stability == STABLE", True),
        ("stability != STABLE", False),
        ("ttft_p99 < 100s", False),
        ("one: slo_attainment > 90%", True),
    ],
)
def test_assertions_hold_or_fail_as_written(text, holds):
    assert (parse(text, ["one"]).failures({"one": SUMMARY}) == []) is holds


def test_an_assertion_holds_for_every_policy_unless_it_names_one():
    summaries = {"good": {"slo_attainment": 0.99}, "bad: really": {"slo_attainment": 0.5}}
    labels = list(summaries)
    assert len(parse("slo_attainment > 90%", labels).failures(summaries)) == 1
    assert parse("good: slo_attainment > 90%", labels).failures(summaries) == []
    assert parse("slo_attainment > 90%", labels).failures(summaries) == [
        "assertion failed: slo_attainment > 90%: bad: really has slo_attainment = 50.00%"
    ]


def test_a_metric_without_value_fails_and_says_so():
    (line,) = parse("ttft_p99 < 2s", ["one"]).failures({"one": SUMMARY})
    assert "has ttft_p99 = no value" in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be METRIC OP VALUE"),
        ("ttft_p99", "must be METRIC OP VALUE"),
        ("ttft_p99 ~ 3", "unknown operator '~'"),
        ("ttft_p98 < 2s", "unknown metric 'ttft_p98': did you mean ttft_p90, ttft_p95, ttft_p99?"),
        ("two: ttft_p99 < 2s", "unknown policy 'two': known are one"),
        ("ttft_p99 < 2 apples", "unit 'apples' does not fit"),
        ("ttft_p99 < fast", "'fast' is not a number with a unit"),
        ("ttft_p99 < 2%", "unit '%' does not fit: units allowed here: ms, s, min, h"),
        ("goodput_rps > 2s", "unit 's' does not fit: units allowed here: none"),
        ("cost_usd_per_month < 5s", "units allowed here: $"),
        ("stability < STABLE", "stability takes == or !="),
        ("stability == FINE", "one of STABLE, BACKLOGGED, OVERLOADED"),
    ],
)
def test_what_is_no_assertion_is_refused_with_the_reason(text, message):
    with pytest.raises(UsageError) as error:
        parse(text, ["one"])
    assert message in str(error.value)


def test_every_metric_has_a_dimension_that_units_exist_for():
    assert {dimension for _, dimension in METRICS.values()} == {"seconds", "share", "usd", "number", "label"}
