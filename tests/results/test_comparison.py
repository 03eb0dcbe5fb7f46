"""Places, the winner and its sentence, on outcomes made by hand."""

from __future__ import annotations

import pytest
from results.runs import make_run, make_trace

from simroute.results.compare import rank, standing
from simroute.results.comparison import Outcome, answer, differences, document, kept, ranking
from simroute.results.metrics import summarise
from simroute.results.paired import HEADLINES
from simroute.results.slo import Slo
from simroute.results.store import json_text

NAMES = [headline.name for headline in HEADLINES]


def summary(ttft_s=0.5, policy="round_robin"):
    run = make_run(make_trace([0.0, 1.0, 2.0]), [ttft_s] * 3, [ttft_s + 1.0] * 3, policy=policy)
    return summarise(run, {"default": Slo(ttft_s=1.0)}, lambda _pool, _class: (0.9, 0.8, 1.0))


def outcome(p99_s=0.5, cost=100.0, within=0.99, stability="STABLE"):
    numbers = dict.fromkeys(NAMES, 1.0) | {"ttft_s.p99": p99_s, "cost_usd_per_month": cost}
    good = within >= 0.99 and stability != "OVERLOADED"
    order = (not good, 0.0 if good else -within, cost, float("inf") if p99_s is None else p99_s)
    return Outcome(tuple(numbers.values()), order, within, stability)


def test_what_is_kept_of_a_summary():
    found = kept(summary())
    assert dict(zip(NAMES, found.numbers, strict=True)) == pytest.approx(
        {
            "ttft_s.p50": 0.5,
            "ttft_s.p99": 0.5,
            "tpot_s.p99": 0.1,
            "e2e_s.p99": 1.5,
            "slo_attainment": 1.0,
            "goodput_rps": 3 / 3.5,
            "cost_usd_per_month": 1460.0,
            "cost_usd_per_1m_output_tokens": 2.0 * 3.5 / 3600 / 33 * 1e6,
            "quality.mean": 0.9,
        }
    )
    assert found.within_targets == 0.99  # more than the target does not rank higher
    assert kept(summary(2.0)).within_targets == 0.0


def test_standing_is_what_policies_are_ranked_by():
    quick, slow, late = summary(0.2, "quick"), summary(0.4, "slow"), summary(2.0, "late")
    assert [s["policy"] for s in rank([late, slow, quick])] == ["quick", "slow", "late"]
    assert standing(quick) < standing(slow) < standing(late)
    assert standing(quick) == standing(summary(0.2, "another"))


def test_places_are_shared_by_equals():
    found = ranking({"a": [outcome(0.5), outcome(0.4)], "b": [outcome(0.5), outcome(0.6)], "c": [outcome(0.9)] * 2})
    assert list(found) == ["a", "b", "c"]
    assert [found[label]["mean_place"] for label in "abc"] == [1.0, 1.5, 3.0]
    assert [found[label]["first_in"] for label in "abc"] == [2, 1, 0]
    assert found["a"]["stability"] == {"STABLE": 2, "BACKLOGGED": 0, "OVERLOADED": 0}


def test_the_sentence_names_the_winner_the_next_best_and_the_number_that_decides():
    late = [outcome(0.2, within=0.8 + 0.01 * k) for k in range(6)]
    good = [outcome(0.9 + 0.01 * k) for k in range(6)]
    text = answer({"late": late, "good": good, "worst": [outcome(within=0.1)] * 6}, 0.95)
    assert text.startswith(
        "good wins over late, the next best, and that is not noise: it ranks above it in 6 of 6 worlds"
    )
    assert "nearness to its targets +16.5 points, 95% interval [+14.5, +18.5]" in text


def test_equal_nearness_leaves_it_to_cost_and_then_to_p99():
    cheap, dear = [outcome(0.5, cost=90.0)] * 4, [outcome(0.1, cost=100.0)] * 4
    assert "cost -10 USD a month, 95% interval [-10, -10]" in answer({"dear": dear, "cheap": cheap}, 0.95)
    quick, slow = [outcome(0.5 + 0.01 * k) for k in range(4)], [outcome(0.8 + 0.01 * k) for k in range(4)]
    assert "p99 TTFT -0.3 s" in answer({"slow": slow, "quick": quick}, 0.95)


def test_chance_is_called_noise():
    ours, theirs = [0.5, 0.6, 0.4, 0.55], [0.51, 0.59, 0.45, 0.5]
    text = answer({"a": [outcome(x) for x in ours], "b": [outcome(x) for x in theirs]}, 0.95)
    assert text.startswith("Noise decides between a and b, the two best: the first ranks above the second in 2 of 4")
    assert "below it in 2; p99 TTFT" in text


def test_policies_that_never_differ_are_alike():
    same = [outcome(0.5), outcome(0.7)]
    assert answer({"a": same, "b": list(same)}, 0.95) == (
        "a and b are the best and alike: neither ranks above the other in any of 2 worlds."
    )
    assert answer({"a": [], "b": []}, 0.95).startswith("Nothing was compared")


def test_a_tail_that_one_policy_lacks_is_said_in_the_sentence():
    weak = [outcome(None, within=0.99, stability="OVERLOADED")] * 6 + [outcome(0.9)] * 2
    text = answer({"weak": weak, "firm": [outcome(0.5)] * 8}, 0.95)
    assert "p99 TTFT -0.4 s" in text
    assert "over the 2 worlds in which both have one" in text


def test_the_baseline_is_not_compared_with_itself_and_every_other_policy_is():
    outcomes = {"a": [outcome(0.5)] * 3, "b": [outcome(0.6)] * 3, "c": [outcome(0.4)] * 3}
    found = differences(outcomes, "b", 0.95)
    assert list(found) == ["a", "c"]
    assert list(found["a"]) == NAMES
    assert found["c"]["ttft_s.p99"]["mean"] == pytest.approx(-0.2)
    assert found["a"]["slo_attainment"]["verdict"] == "noise"


def whole(outcomes, **changes):
    summaries = {label: summary(policy=label) for label in outcomes}
    given = {"scenario": "s", "seed": 1, "baseline": "a", "block_s": 60.0, "level": 0.95, "summaries": summaries}
    given |= {"decisions": {}, "notes": ["first"], "manifest": {}}
    return document(outcomes=outcomes, **(given | changes))


def test_the_document_holds_every_value_and_is_json():
    found = whole({"a": [outcome(0.5), outcome(None)], "b": [outcome(0.6)] * 2})
    assert found["worlds"] == 2
    assert found["values"]["a"]["ttft_s.p99"] == [0.5, None]
    assert list(found["policies"]) == ["a", "b"]
    assert json_text(found) == json_text(whole({"a": [outcome(0.5), outcome(None)], "b": [outcome(0.6)] * 2}))


def test_overloaded_worlds_and_few_worlds_are_noted():
    found = whole({"a": [outcome(None, stability="OVERLOADED"), outcome()], "b": [outcome()] * 2})
    assert found["notes"][0] == "first"
    assert found["notes"][1].startswith("a is OVERLOADED in 1 of 2 worlds: it has no p99 there")
    assert found["notes"][2].startswith("verdicts rest on 2 worlds")


def test_nothing_replayed_still_makes_a_document():
    found = whole({"a": [], "b": []})
    assert found["differences"]["b"]["ttft_s.p99"]["verdict"] == "noise"
    assert found["ranking"]["a"]["mean_place"] is None
