"""Intervals over replicates: numpy's percentiles, and no bound where overloaded replicates leave none."""

import math

import numpy as np
import pytest
from results.runs import make_run, make_trace

from simroute.results.compare import answer
from simroute.results.intervals import ENOUGH, HEADLINES, Replicate, kept, value_at, with_intervals
from simroute.results.metrics import summarise
from simroute.results.slo import Slo
from simroute.results.store import json_text, summary_document


def summary(ttft_s=0.5, policy="round_robin"):
    run = make_run(make_trace([0.0, 1.0, 2.0]), [ttft_s] * 3, [ttft_s + 1.0] * 3, policy=policy)
    return summarise(run, {"default": Slo(ttft_s=1.0)}, lambda _pool, _class: None)


def replicate(ttft_s):
    return kept(summary(ttft_s))


def without(name, stability="OVERLOADED"):
    """A replicate in which the number `name` cannot be stated."""
    known = kept(summary())
    return Replicate(
        tuple(None if n == name else v for n, v in zip(HEADLINES, known.numbers, strict=True)), stability, False
    )


@pytest.mark.parametrize("count", [20, 21, 57])
def test_an_interval_is_the_middle_90_percent_of_the_replicates(count):
    drawn_s = np.random.default_rng(count).uniform(0.3, 0.9, count)
    found = with_intervals(summary(), [replicate(ttft_s) for ttft_s in drawn_s])
    low_s, high_s = found["intervals"]["ttft_s.p50"]
    assert (low_s, high_s) == pytest.approx(tuple(np.percentile(drawn_s, [5, 95])), rel=1e-8)
    assert set(found["intervals"]) == set(HEADLINES)
    assert found["intervals"]["cost_usd_per_month"] == [1460.0, 1460.0]


def test_the_summary_itself_stays_as_it_was():
    plain = summary()
    found = with_intervals(plain, [replicate(0.4)] * ENOUGH)
    assert {key: found[key] for key in plain} == plain
    assert found.keys() - plain.keys() == {"replicates", "intervals"}


def test_an_interval_holds_its_number_and_few_replicates_are_pointed_out():
    found = with_intervals(summary(0.5), [replicate(0.7), replicate(0.8)])
    assert found["intervals"]["ttft_s.p50"][0] == 0.5
    assert found["notes"][-1].startswith("intervals rest on 2 replicates")


@pytest.mark.parametrize(("overloaded", "bounded"), [(0, True), (1, True), (2, False), (10, False)])
def test_where_more_than_one_in_twenty_cannot_state_a_number_there_is_no_upper_bound(overloaded, bounded):
    replicates = [without("ttft_s.p99") for _ in range(overloaded)] + [replicate(0.6)] * (21 - overloaded)
    low_s, high_s = with_intervals(summary(), replicates)["intervals"]["ttft_s.p99"]
    assert low_s == 0.5
    assert (high_s is not None) is bounded


def test_a_number_that_no_replicate_can_state_has_no_bounds_at_all():
    undefined = summary() | {"ttft_s": dict.fromkeys(summary()["ttft_s"])}
    found = with_intervals(undefined, [without("ttft_s.p99")] * ENOUGH)
    assert found["intervals"]["ttft_s.p99"] == [None, None]


def test_verdicts_of_the_replicates_are_counted():
    found = with_intervals(summary(), [*[replicate(0.5)] * 18, replicate(2.0), without("ttft_s.p99")])
    stability = {"STABLE": 19, "BACKLOGGED": 0, "OVERLOADED": 1}
    assert found["replicates"] == {"count": 20, "meets_targets": 18, "stability": stability}


def test_the_answer_and_the_files_carry_them():
    found = with_intervals(summary(), [*[replicate(0.4)] * 12, *[replicate(0.6)] * 12])
    assert "p99 TTFT 0.5 s [0.4, 0.6], 100.0% of requests" in answer([found])
    assert answer([found]).endswith("; targets met in 24 of 24 replicates.")
    unbounded = with_intervals(summary(), [without("ttft_s.p99")] * ENOUGH)
    assert "p99 TTFT 0.5 s [0.5 or more], " in answer([unbounded])
    assert math.inf not in unbounded["intervals"]["ttft_s.p99"]
    assert "NaN" not in json_text(summary_document("s", 1, {}, [unbounded]))


def test_headlines_are_numbers_of_every_summary():
    assert all(value_at(summary(), name) is not None for name in HEADLINES)
