"""Ranking and the answer, on summaries of a few keys."""

import pytest

from simroute.results.compare import answer, difference, meets, rank


def summary(policy, slo_attainment=1.0, cost=100.0, p99=0.5, stability="STABLE", below_floor=0.0):
    stats = {"p50": 0.1, "p99": p99}
    return {
        "policy": policy,
        "slo_attainment": slo_attainment,
        "cost_usd_per_month": cost,
        "goodput_rps": 2.0,
        "ttft_s": stats,
        "tpot_s": stats,
        "e2e_s": stats,
        "stability": stability,
        "quality": {"below_floor_share": below_floor},
    }


def names(summaries):
    return [s["policy"] for s in summaries]


def test_targets_come_first_then_cost_then_p99():
    late, dear = summary("late", 0.5, cost=1.0), summary("dear", cost=200.0)
    slow, quick = summary("slow", p99=0.9), summary("quick", p99=0.4)
    assert names(rank([late, dear, slow, quick])) == ["quick", "slow", "dear", "late"]


def test_those_that_miss_are_ordered_by_how_near_they_come():
    assert names(rank([summary("far", 0.5), summary("near", 0.9), summary("none", None)])) == ["near", "far", "none"]


def test_an_overloaded_run_meets_nothing():
    assert meets(summary("a", 0.995))
    assert not meets(summary("a", 1.0, stability="OVERLOADED"))
    assert not meets(summary("a", None))


def test_a_policy_whose_answers_miss_their_floor_does_not_win():
    cheap, good = summary("cheap", cost=1.0, below_floor=0.3), summary("good")
    assert names(rank([cheap, good])) == ["good", "cheap"]
    assert answer([cheap, good]).startswith("The policy that meets the targets: good")


@pytest.mark.parametrize(("below_floor", "enough"), [(0.0, True), (0.01, True), (0.0101, False), (None, True)])
def test_one_answer_in_a_hundred_may_be_below_its_floor(below_floor, enough):
    assert meets(summary("a", below_floor=below_floor)) is enough


def test_the_lesser_share_says_how_near_a_policy_comes():
    quick, careful = summary("quick", 0.999, below_floor=0.4), summary("careful", 0.7)
    assert names(rank([quick, careful])) == ["careful", "quick"]


def test_differences_are_relative_and_shares_absolute():
    change = difference(summary("a", 0.97, cost=150.0, p99=None), summary("b", 0.99, cost=100.0))
    assert change["cost_usd_per_month"] == pytest.approx(0.5)
    assert change["slo_attainment"] == pytest.approx(-0.02)
    assert change["ttft_s.p99"] is None


@pytest.mark.parametrize(
    ("summaries", "expected"),
    [
        ([], "No policy was run to the end."),
        (
            [summary("a", cost=12345.0)],
            "The policy that meets the targets: a at $12,345/month; p99 TTFT 0.5 s, "
            "100.0% of requests within their targets.",
        ),
        ([summary("a", cost=9.0), summary("b")], "Cheapest policy that meets the targets: a at $9/month;"),
        ([summary("a"), summary("b", p99=0.2)], "Best of the 2 policies that meet the targets: b at $100/month;"),
        (
            [summary("a", 0.871, stability="OVERLOADED")],
            "No policy meets the targets for 99% of requests: the nearest, a at $100/month, "
            "meets the latency targets for 87.1% of requests and is OVERLOADED.",
        ),
        (
            [summary("a", below_floor=0.1275)],
            "No policy meets the targets for 99% of requests: the nearest, a at $100/month, "
            "meets the latency targets, but only 87.2% of its answers reach their quality floor.",
        ),
        (
            [summary("a", 0.5, below_floor=0.25)],
            "No policy meets the targets for 99% of requests: the nearest, a at $100/month, "
            "meets the latency targets for 50.0% of requests, and only 75.0% of its answers reach their quality floor.",
        ),
    ],
)
def test_the_answer_is_one_sentence(summaries, expected):
    assert answer(summaries).startswith(expected)
