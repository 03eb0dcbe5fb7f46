"""Admission by hand: buckets, limits, deadlines and tiers, the laws a bucket must keep, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simroute.errors import UsageError
from simroute.policy.admission import (
    ADMISSIONS,
    AdmissionChain,
    FleetLoad,
    admission_schema,
    check_admission,
    make_admission,
)
from simroute.policy.admission.rules import QUEUE_FULL, TIER_SHED, TOO_LATE
from simroute.policy.admission.token_bucket import RATE_LIMITED, TOO_LARGE
from simroute.policy.context import Targets
from simroute.workload.request import Request

PAGE = Path(__file__).resolve().parents[2] / "docs" / "fleet.md"
EMPTY = FleetLoad()


def request(tokens=100, request_class="chat", tier="free", tenant="a"):
    return Request(0, 0.0, tokens, 10, request_class, tier, tenant)


def ask(rule, now_s=0.0, load=EMPTY, **of_request):
    return rule.admit(request(**of_request), load, now_s)


def test_always_lets_everything_in():
    crowded = FleetLoad(ready_replicas=1, seats=1, in_flight=10_000, held=10_000, completions_per_s=1e-9)
    assert ask(make_admission("always", {}), load=crowded) is None


def test_a_bucket_by_hand():
    """Full with 3 at first, then 2 a second: half a token at 0.25 s, one at 0.5 s, never more than 3."""
    rule = make_admission("token_bucket", {"rate_per_s": 2, "burst": 3})
    asked = [0.0, 0.0, 0.0, 0.0, 0.25, 0.5, 0.5, 0.75, 1.0, 10.0, 10.0, 10.0, 10.0]
    assert "".join("x" if ask(rule, t) else "." for t in asked) == "...xx.xx....x"
    assert ask(rule, 10.0) == RATE_LIMITED


def test_refusals_do_not_add_up_rounding_errors():
    rule = make_admission("token_bucket", {"rate_per_s": 0.1, "burst": 1})
    assert ask(rule, 0.0) is None
    assert {ask(rule, k * 0.1) for k in range(1, 100)} == {RATE_LIMITED}
    assert ask(rule, 10.0) is None


def test_each_tenant_has_a_bucket_and_some_have_their_own():
    rule = make_admission(
        "token_bucket", {"rate_per_s": 1, "burst": 1, "overrides": {"big": {"rate_per_s": 10, "burst": 3}}}
    )
    tenants = ["a", "a", "b", "big", "big", "big", "big"]
    assert [ask(rule, tenant=t) is None for t in tenants] == [True, False, True, True, True, True, False]
    assert ask(rule, 0.1, tenant="a") == RATE_LIMITED
    assert ask(rule, 0.1, tenant="big") is None


def test_a_bucket_by_tier_and_one_for_the_fleet():
    by_tier = make_admission("token_bucket", {"rate_per_s": 1, "burst": 1, "per": "tier"})
    assert [ask(by_tier, tenant=t, tier=tier) for t, tier in (("a", "x"), ("b", "x"), ("b", "y"))] == [
        None,
        RATE_LIMITED,
        None,
    ]
    whole = make_admission("token_bucket", {"rate_per_s": 1, "burst": 1, "per": "fleet"})
    assert [ask(whole, tenant=t, tier=t) for t in "ab"] == [None, RATE_LIMITED]


def test_a_bucket_of_prompt_tokens():
    """1000 tokens: 600 leave 400, so that 500 must wait a second at 100 a second."""
    rule = make_admission("token_bucket", {"rate_per_s": 100, "burst": 1000, "unit": "prompt_tokens"})
    assert ask(rule, 0.0, tokens=600) is None
    assert ask(rule, 0.99, tokens=500) == RATE_LIMITED
    assert ask(rule, 1.0, tokens=500) is None
    assert ask(rule, 1e6, tokens=1001) == TOO_LARGE


@given(
    st.floats(0.01, 50.0),
    st.floats(100.0, 500.0),
    st.lists(st.tuples(st.floats(0.0, 30.0), st.integers(1, 100)), min_size=1, max_size=40),
)
def test_no_window_admits_more_than_burst_and_refill_and_nothing_is_refused_without_need(rate, burst, arrivals):
    """A token bucket by definition: what is let in keeps the bound of every window, what is refused would break one."""
    rule = make_admission("token_bucket", {"rate_per_s": rate, "burst": burst, "unit": "prompt_tokens"})
    now_s, admitted = 0.0, []
    for gap_s, tokens in arrivals:
        now_s += gap_s
        let_in = ask(rule, now_s, tokens=tokens) is None
        windows = [*admitted, (now_s, 0)]
        excess = max(
            sum(cost for _, cost in windows[i:]) + tokens - burst - rate * (now_s - windows[i][0])
            for i in range(len(windows))
        )
        assert excess <= 1e-6 if let_in else excess >= -1e-6
        if let_in:
            admitted.append((now_s, tokens))


@pytest.mark.parametrize("signal", ["in_flight", "waiting", "held"])
def test_a_queue_limit_refuses_when_the_count_reaches_it(signal):
    rule = make_admission("queue_limit", {"signal": signal, "per_replica": 4, "total": 10})
    counts = {(2, 7): None, (2, 8): QUEUE_FULL, (3, 9): None, (3, 10): QUEUE_FULL}
    for (replicas, count), expected in counts.items():
        assert ask(rule, load=FleetLoad(ready_replicas=replicas, **{signal: count})) == expected
    others = {"in_flight", "waiting", "held"} - {signal}
    assert ask(rule, load=FleetLoad(ready_replicas=3, **dict.fromkeys(others, 99))) is None


def test_a_queue_limit_by_replica_allows_for_one_while_none_is_ready():
    rule = make_admission("queue_limit", {"signal": "held", "per_replica": 4})
    assert [ask(rule, load=FleetLoad(held=held)) for held in (3, 4)] == [None, QUEUE_FULL]


def test_a_deadline_refuses_what_would_wait_longer():
    """6 + 4 ahead at 2 a second wait 5 s, which the deadline allows; 11 wait 5.5 s."""
    rule = make_admission("deadline", {"deadline_s": {"chat": 5}})
    load = FleetLoad(held=6, waiting=4, completions_per_s=2.0)
    assert ask(rule, load=load) is None
    load.held = 7
    assert ask(rule, load=load) == TOO_LATE
    assert ask(rule, load=load, request_class="batch") is None
    lenient = make_admission("deadline", {"deadline_s": {"chat": 5}, "factor": 1.1})
    assert ask(lenient, load=load) is None


def test_deadlines_come_from_the_targets_where_they_are_not_given():
    targets = {
        "chat": Targets(ttft_s=1.0, e2e_s=9.0),
        "default": Targets(ttft_s=2.0),
        "free": Targets(e2e_s=1.0),
        "coding": Targets(ttft_s=1.0),
    }
    load = FleetLoad(waiting=3, completions_per_s=2.0)  # 1.5 s
    rule = make_admission("deadline", {"deadline_s": {"coding": 1.6}}, targets)
    classes = ["chat", "coding", "unheard of", "free"]
    assert [ask(rule, load=load, request_class=c) for c in classes] == [TOO_LATE, None, None, None]
    load.waiting = 5  # 2.5 s: the class of no target of its own has that of default, one with another target has none
    assert [ask(rule, load=load, request_class=c) for c in classes] == [TOO_LATE, TOO_LATE, TOO_LATE, None]
    whole = make_admission("deadline", {"target": "e2e_s"}, targets)
    assert [ask(whole, load=load, request_class=c) for c in classes] == [None, None, None, TOO_LATE]


def test_a_deadline_lets_in_while_nothing_has_finished_yet():
    rule = make_admission("deadline", {"deadline_s": {"default": 0.1}})
    assert ask(rule, load=FleetLoad(held=1000)) is None


def test_a_deadline_that_nobody_has_is_refused():
    with pytest.raises(UsageError, match=r"deadline: no class has a deadline: give deadline_s, or .* for ttft_s"):
        make_admission("deadline", {}, {"chat": Targets(e2e_s=3.0)})


SHED = {"tiers": {"free": {"enter": 0.8, "leave": 0.6}, "silver": {"enter": 1.2, "leave": 1.0}}}


def test_tiers_are_shed_in_turn_and_let_in_again_with_hysteresis():
    """10 seats. Free goes at 8 and is back below 6, silver at 12 and below 10, gold never."""
    rule = make_admission("tier_shed", SHED)
    load = FleetLoad(ready_replicas=1, seats=10)
    seen = {}
    for count in (7, 8, 7, 6, 12, 11, 10, 9, 6, 5, 7):
        load.in_flight, load.held = min(count, 10), max(count - 10, 0)
        shed = [tier for tier in ("free", "silver", "gold") if ask(rule, load=load, tier=tier) == TIER_SHED]
        seen.setdefault(count, []).append(" ".join(shed))
    assert seen == {
        7: ["", "free", ""],
        8: ["free"],
        6: ["free", "free"],
        12: ["free silver"],
        11: ["free silver"],
        10: ["free silver"],
        9: ["free"],
        5: [""],
    }


def test_every_request_moves_the_hysteresis_of_every_tier():
    rule = make_admission("tier_shed", SHED)
    ask(rule, load=FleetLoad(1, 10, in_flight=9), tier="gold")
    assert ask(rule, load=FleetLoad(1, 10, in_flight=7)) == TIER_SHED
    ask(rule, load=FleetLoad(1, 10, in_flight=5), tier="gold")
    assert ask(rule, load=FleetLoad(1, 10, in_flight=7)) is None


def test_no_tier_is_shed_while_there_is_no_seat():
    assert ask(make_admission("tier_shed", SHED), load=FleetLoad(held=50)) is None


def test_of_several_rules_the_first_refusal_counts():
    limit = make_admission("queue_limit", {"total": 5})
    full = FleetLoad(1, 10, in_flight=9)
    shed = make_admission("tier_shed", SHED)
    assert ask(AdmissionChain([limit, shed]), load=full) == QUEUE_FULL
    assert ask(AdmissionChain([shed, limit]), load=full) == TIER_SHED
    assert ask(AdmissionChain([shed, limit]), load=full, tier="gold") == QUEUE_FULL
    assert ask(AdmissionChain([shed, limit]), load=EMPTY) is None
    assert ask(AdmissionChain([])) is None


def test_a_bucket_behind_other_rules_is_not_charged_for_what_they_refuse():
    bucket = make_admission("token_bucket", {"rate_per_s": 1, "burst": 1})
    chain = AdmissionChain([make_admission("queue_limit", {"total": 5}), bucket])
    assert ask(chain, load=FleetLoad(in_flight=5)) == QUEUE_FULL
    assert ask(chain) is None


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("always", {"rate": 1}, "rate: unknown option 'rate': known are none"),
        ("token_bucket", {"burst": 3}, "rate_per_s: Field required"),
        ("token_bucket", {"rate_per_s": 0, "burst": 3}, "rate_per_s: Input should be greater than 0, got 0"),
        (
            "token_bucket",
            {"rate_per_s": 1, "burst": 0.5},
            "burst: must be at least 1, or no request ever passes, got 0.5",
        ),
        (
            "token_bucket",
            {"rate_per_s": 1, "burst": 1, "overrides": {"a": {"rate_per_s": 1, "burst": 0.5}}},
            "overrides: a: burst must be at least 1, or no request ever passes, got 0.5",
        ),
        (
            "token_bucket",
            {"rate_per_s": 1, "burst": 1, "overrides": {"a": {"rate_per_s": 1, "brust": 5, "burst": 1}}},
            "overrides.a.brust: unknown option 'brust': did you mean burst?",
        ),
        (
            "token_bucket",
            {"rate_per_s": 1, "burst": 1, "per": "fleet", "overrides": {"a": {"rate_per_s": 1, "burst": 5}}},
            "overrides: there is one bucket with per: fleet; name tenants or tiers with per: tenant or per: tier",
        ),
        ("queue_limit", {}, "needs per_replica or total, got neither"),
        ("queue_limit", {"total": 0}, "total: Input should be greater than or equal to 1, got 0"),
        ("deadline", {"deadline_s": {"chat": 0}}, "deadline_s.chat: Input should be greater than 0, got 0"),
        ("deadline", {"factor": float("inf")}, "factor: Input should be a finite number, got inf"),
        ("tier_shed", {"tiers": {}}, "tiers: names no tier: give each tier that may be shed its enter and leave"),
        (
            "tier_shed",
            {"tiers": {"free": {"enter": 0.5, "leave": 0.6}}},
            "tiers.free: leave must not be above enter, got leave 0.6 and enter 0.5",
        ),
    ],
)
def test_a_wrong_option_is_located_and_explained(name, options, expected):
    (problem,) = check_admission(name, options)
    assert str(problem) == expected
    with pytest.raises(UsageError, match=re.escape(f"admission rule {name}: {expected}")):
        make_admission(name, options)


def test_an_unknown_rule_is_named_with_the_nearest():
    with pytest.raises(UsageError, match="unknown admission rule 'queue': did you mean queue_limit"):
        make_admission("queue", {})


@pytest.mark.parametrize("name", ADMISSIONS)
def test_every_rule_and_each_of_its_options_is_documented(name):
    section = re.split(r"\n##+ ", PAGE.read_text(encoding="utf-8").partition(f"\n### {name}\n")[2])[0]
    assert section
    schema = admission_schema(name)
    assert schema["additionalProperties"] is False
    assert ADMISSIONS[name].Options.model_config["frozen"] is True
    for option in schema.get("properties", {}):
        assert f"`{option}`" in section
