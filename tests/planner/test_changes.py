"""Changes do to a scenario what they say, are named after it, and are read from YAML."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simroute.errors import UsageError
from simroute.planner.study.changes import Change, Loss, applied, changes_in, mixed
from simroute.workload.trace import Trace


def test_prices_change_costs_and_nothing_else(built):
    twice = applied(built, Change(price=2.0))
    assert [p.variant.usd_per_hour for p in twice.pools] == [2 * p.variant.usd_per_hour for p in built.pools]
    assert [p.engine for p in twice.pools] == [p.engine for p in built.pools]


def test_lengths_change_and_the_scenario_is_the_same(built):
    longer = applied(built, Change(input=2.0, output=0.5))
    assert (longer.trace.input_tokens == 2 * built.trace.input_tokens).all()
    assert (longer.trace.output_tokens == np.rint(built.trace.output_tokens / 2)).all()
    assert longer.scenario == built.scenario


def test_losses_become_outages_from_the_first_second(built):
    lost = applied(built, Change(lose=(Loss(zone="a"), Loss(pool="two"), Loss(pool="one", replicas=2))))
    seen = [(each.at_s, each.zone, each.pool, each.replicas) for each in lost.scenario.failures.outages]
    assert seen == [(0.0, "a", None, None), (0.0, None, "two", 1), (0.0, None, "one", 2)]


def test_other_traffic_is_read_anew(built):
    assert len(applied(built, Change(set={"traffic.traces[0].head": 7})).trace) == 7


@settings(deadline=None)
@given(chat=st.floats(0, 5), code=st.floats(0, 5), seed=st.integers(0, 3))
def test_mixed_traffic_keeps_its_rate_and_invents_nothing(chat, code, seed):
    names = ["chat", "code"] * 500
    trace = Trace.build(
        arrival_s=np.arange(1000.0), input_tokens=np.arange(1, 1001), output_tokens=1, request_class=names
    )
    try:
        found = mixed(trace, {"chat": chat, "code": code}, seed)
    except UsageError:
        assert max(chat, code) == 0
        return
    assert set(found.input_tokens) <= set(trace.input_tokens)
    assert len(set(found.input_tokens)) == len(found)
    share = (found.class_code == found.class_names.index("chat")).mean()
    assert abs(share - chat / (chat + code)) < 0.06
    assert len(found) / 1000 == pytest.approx(len(found) / len(trace))
    assert found.arrival_s[-1] <= 999 * len(found) / 1000 + 1e-9


def test_a_change_is_named_after_what_it_says():
    change = Change(
        set={"pools[one].gpu": "L4", "router.scrape_interval_s": 5}, input=2, mix={"chat": 0.5}, policy="random"
    )
    assert change.shown == "pools[one].gpu=L4, router.scrape_interval_s=5, prompts x2, chat x0.5, policy random"
    assert Change(lose=(Loss(zone="a"), Loss(pool="one"))).shown == "zone a lost, 1 of one lost"
    assert Change(name="mine", input=2).shown == "mine"


def test_changes_in_yaml():
    found = changes_in("- {name: a, input: 2}\n- lose: {zone: z}\n- set: {'pools[0].gpu': H100}", "x.yaml")
    assert [each.shown for each in found] == ["a", "zone z lost", "pools[0].gpu=H100"]
    assert changes_in("{price: 2}", "--change")[0].price == 2.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- {inputs: 2}", "x: 0.inputs: there is no such field; a change has name, set, input,"),
        ("- {input: -1}", "x: 0.input: input should be greater than 0"),
        ("- {lose: {zone: a, pool: b}}", "give a zone, or a pool"),
        ("[", "x: not YAML"),
        ("3", "x: 0"),
    ],
)
def test_wrong_changes_are_told_with_their_place(text, said):
    with pytest.raises(UsageError) as told:
        changes_in(text, "x")
    assert said in str(told.value)
    assert "\n" not in str(told.value)
