"""What to buy for a change that breaks today's traffic: what mends it, the cheapest, within a number of replays."""

from __future__ import annotations

from typing import Any

from planner.studies import Oracle, bent

from simroute.planner.study import purchase
from simroute.planner.study.cells import At
from simroute.planner.study.changes import Change
from simroute.planner.whatif import whatif

LONGER = [Change(input=2.0), Change(input=3.0)]


def fleet(template: dict[str, Any]) -> Oracle:
    """Prompts x2 want one more replica of any pool at today's traffic, prompts x3 two; a `two` costs 50 USD more."""

    def cell(at: At) -> dict[str, Any]:
        usd = 100 + 30 * at.bought.count("one") + 50 * at.bought.count("two")
        missing = max(at.variation - len(at.bought), 0) if at.rate >= 1 else 0
        return bent(template, 9.0 if missing else 1.0, attained=1.0 - 0.2 * missing, usd=usd)

    return Oracle(cell)


def test_every_change_that_breaks_today_gets_its_own_advice(built, template):
    found = whatif(built, LONGER, rates=(0.5, 1), executor=fleet(template)).document()
    base, twice, thrice = found["variations"]
    assert base["buy"] is None
    assert found["buy"]["steps"] == []
    assert (twice["buy"]["replicas"], twice["buy"]["usd_per_month"], twice["buy"]["rate"]) == ({"one": 1}, 30.0, 1.0)
    assert (thrice["buy"]["replicas"], thrice["buy"]["meets"]) == ({"one": 2}, True)
    assert twice["buy"]["text"] == "for today's traffic buy 1 more of one ($30 a month)"
    assert found["sentences"][-1] == (
        "Changes that break today's traffic: prompts x2 (buy 1 more of one, $30 a month); "
        "prompts x3 (buy 2 more of one, $60 a month)."
    )


def test_a_change_that_nothing_mends_is_said(built, template):
    def cell(at: At) -> dict[str, Any]:
        usd = 100.0 + 30 * len(at.bought)
        return bent(template, 9.0 if at.variation else 1.0, attained=0.5 if at.variation else 1.0, usd=usd)

    found = whatif(built, LONGER[:1], rates=(1,), executor=Oracle(cell)).document()
    buy = found["variations"][1]["buy"]
    assert len(buy["steps"]) == purchase.MOST
    assert buy["meets"] is False
    assert buy["text"] == "4 more of one ($120 a month) would still miss the targets at today's traffic"
    assert "(not borne even with 4 more of one, $120 a month)" in found["answer"]


def test_no_more_replays_are_asked_for_than_the_stated_maximum(built, template, monkeypatch):
    for module in ("purchase", "document"):
        monkeypatch.setattr(f"simroute.planner.study.{module}.MOST_REPLAYS", 5)
    oracle = fleet(template)
    found = whatif(built, LONGER, rates=(1,), executor=oracle).document()
    assert sum(bool(at.bought) for at in oracle.asked) == 4  # two pools for two changes; a fifth and sixth are too many
    assert [row["buy"] and row["buy"]["meets"] for row in found["variations"]] == [None, True, False]
    assert [note for note in found["notes"] if note.startswith("what to buy was not looked for to the end")] == [
        "what to buy was not looked for to the end, for want of replays (5 at most): prompts x3"
    ]


def test_the_scenario_as_it_is_is_not_bound_by_the_maximum(built, template, monkeypatch):
    monkeypatch.setattr(purchase, "MOST_REPLAYS", 0)
    oracle = Oracle(lambda at: bent(template, 9.0 if at.rate > 1 and not at.bought else 1.0))
    found = whatif(built, rates=(1, 2), executor=oracle).document()
    assert found["buy"]["meets"] is True
    assert not [note for note in found["notes"] if "for want of replays" in note]


def test_nothing_is_bought_when_nobody_asks(built, template):
    found = whatif(built, LONGER, rates=(1,), buy=False, executor=fleet(template)).document()
    assert found["buy"] is None
    assert [row["buy"] for row in found["variations"]] == [None, None, None]


def test_ctrl_c_while_buying_keeps_what_was_bought(built, template):
    inner = fleet(template)
    oracle = Oracle(lambda at: None if len(at.bought) > 1 else inner.cell(at))
    found = whatif(built, LONGER, rates=(1,), executor=oracle)
    assert found.interrupted
    assert [len(row["buy"]["steps"]) for row in found.document()["variations"][1:]] == [1, 1]
