"""A what-if as a page, Markdown, CSV and in the terminal: the answer first, one source of cells, self-contained."""

from __future__ import annotations

import copy
import csv
import io
import json
import re

import pytest
from planner.studies import Oracle, bent, tiny_scenario
from report.browser import CHROMIUM, as_seen
from report.pages import Tags

import simroute
from simroute.planner.execution.executor import Failure
from simroute.planner.study.changes import Change
from simroute.planner.whatif import whatif
from simroute.report.whatif import cells
from simroute.report.whatif.charts import charts
from simroute.report.whatif.page import render
from simroute.report.whatif.text import csv_text, markdown, terminal
from simroute.scenario.build import build
from simroute.scenario.loader import load

ALL = ["reach", "costs", "curve_ttft", "curve_shares"]
HOSTILE = "</script><script>alert(1)</script>"
CHANGES = [
    Change(input=2.0),
    Change(price=2.0),
    Change(name=f"odd | {HOSTILE}", output=2.0),
    Change(set={"pools[one].model": "Llama-3.3-70B"}),
]


def oracle(template):
    """p99 TTFT of 1 s a unit of traffic, and 3 s with longer prompts; a replica more takes a third off it.

    The target is 2 s. Four times the traffic is too much, whatever is bought; the odd change fails at three times.
    """

    def cell(at):
        if (at.variation, at.rate) == (3, 3.0):
            return Failure("out of memory", 2)
        ttft_s = at.rate * (3.0 if at.variation == 1 else 1.0) * (2 / 3) ** len(at.bought)
        usd = 100.0 * (2 if at.variation == 2 else 1) + 30 * at.bought.count("one") + 50 * at.bought.count("two")
        over = at.rate >= 4
        attained = 1.0 if ttft_s <= 2 else 0.97 if ttft_s < 3 else 0.5
        return bent(template, ttft_s, attained=attained, usd=usd, stability="OVERLOADED" if over else "STABLE")

    return Oracle(cell)


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    path = tiny_scenario(tmp_path_factory.mktemp("scenario"))
    template = dict(simroute.run(path, jobs=1).results[0].summary)
    built = build(load(path))
    return whatif(built, CHANGES, rates=(1, 2.5, 3, 4, 5), precision=1.0, executor=oracle(template)).document()


@pytest.fixture(scope="module")
def page(document):
    return render(document)


def own(page):
    """The page less the embedded library."""
    from plotly.offline import get_plotlyjs

    assert page.count(get_plotlyjs()) == 1
    return page.replace(get_plotlyjs(), "")


def figures(page):
    return json.loads(
        re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL).group(1)
    )


def texts(grid):
    return [[cell.text.strip() for cell in row] for row in grid.rows]


def test_the_page_is_well_formed_and_names_no_address(page):
    text = own(page)
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert tags.addresses == ["data:,"]
    assert not re.search(r"https?:|url\(|@import", text)


def test_the_answer_comes_first_and_what_to_buy_before_what_it_rests_on(page, document):
    text = own(page)
    order = [
        document["sentences"][0][:40],
        "holds to",
        "Changes and rates",
        "What each change costs",
        "What to buy next",
    ]
    order += ["If traffic grows", "When each target breaks", "Impossible changes", "How sure this is", "Manifest"]
    places = [text.index(each) for each in order]
    assert places == sorted(places)
    assert document["answer"] == " ".join(document["sentences"])


def test_the_same_document_gives_the_same_page_and_is_left_alone(page, document):
    before = copy.deepcopy(document)
    assert render(document) == page
    assert document == before


def test_names_cannot_break_the_page_or_a_table(page, document):
    assert HOSTILE not in own(page)
    text = markdown(document)
    assert HOSTILE not in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_the_matrix_marks_where_every_target_is_met(document):
    grid = cells.matrix(document, "★")
    assert [header.name for header in grid.headers[1:]] == ["x1", "x2.5", "x3", "x4", "x5", "holds to", "breaks at"]
    assert texts(grid)[:3] == [
        ["as it is", "100.0%★", "97.0%", "50.0%", "50.0%", "...", "x1.58", "x2.5"],
        ["prompts x2", "50.0%", "50.0%", "50.0%", "50.0%", "...", "-", "x1"],
        ["prices x2", "100.0%★", "97.0%", "50.0%", "50.0%", "...", "x1.58", "x2.5"],
    ]
    assert texts(grid)[3][3] == "failed"
    assert [cell.tone for cell in grid.rows[0][1:7]] == ["good", "warn", "bad", "bad", "", "good"]
    assert grid.rows[1][6].tone == "bad"
    assert grid.rows[0][2].bar == pytest.approx(0.97)


def test_costs_say_what_is_more_than_now_and_what_bearing_it_takes(document):
    rows = texts(cells.costs(document))
    assert rows[0][1:3] == ["$100", ""]
    assert rows[1][1:3] + rows[1][4:] == ["$100", "the same", "1 more of one", "$130"]
    assert rows[2][1:3] == ["$200", "+$100"]
    assert (
        cells.costs({**document, "variations": document["variations"][:1]}).headers[-1].name == "USD per 1M tokens out"
    )


def test_targets_are_listed_as_they_break(document):
    held = {"text": "code: all well", "holds_to": 3.0, "breaks_at": None, "holds_again_at": []}
    made = copy.deepcopy(document)
    made["variations"][0]["breaks"].append(held)
    made["variations"][0]["breaks"][0]["holds_again_at"] = [3.0]
    short, long = texts(cells.breaks(made)), texts(cells.breaks(made, every=True))
    assert short[0] == ["chat: p99 TTFT at most 2 s", "x1.58", "x2.5, holds again at x3"]
    assert short[-1] == ["1 others", "x3", "-"]
    assert long[-1] == ["code: all well", "x3", "-"]


def test_purchases_are_told_step_by_step_and_change_by_change(document):
    rows = texts(cells.bought(document))
    assert rows[0] == ["1: one more of one", "$30.00", "100.0%", "yes <- taken"]
    assert texts(cells.mended(document)) == [["prompts x2", "1 more of one", "$30.00", "50.0%", "100.0%", "yes"]]
    assert cells.tiles(document)[-1] == ("buy next, USD a month", "$30.00", "1 more of one for x2.5")


def test_badges_say_what_qualifies_the_numbers(document):
    made = copy.deepcopy(document)
    found = [badge.text for badge in cells.badges(made)]
    assert found[:2] == ["every target is met today", "routed by round_robin"]
    assert "1 cells failed" in found
    base, other = made["variations"][0]["cells"], made["variations"][1]["cells"]
    other[0]["by_pool"]["two"]["basis"] = "proxy"
    assert "some changes rest on step times that are not measured: see the notes" in [
        b.text for b in cells.badges(made)
    ]
    for cell in base:
        for pool in cell.get("by_pool", {}).values():
            pool |= {"basis": "estimated", "extrapolated": ["tokens"]}
    made |= {"interrupted": True, "policies_tried": ["a", "b"]}
    base[0]["meets"] = False
    assert [(badge.text, badge.tone) for badge in cells.badges(made)][:4] == [
        ("targets are missed today", "bad"),
        ("routed by round_robin, the best of 2", ""),
        ("step times of one, two are not measured", "warn"),
        ("some changes rest on step times that are not measured: see the notes", "warn"),
    ]
    assert cells.badges(made)[-1].text == "interrupted: cells are missing"


def test_bars_say_how_far_each_change_carries_and_curves_where_it_ends(page, document):
    drawn = figures(page)
    assert re.findall(r'data-figure="(\w+)"', own(page)) == ALL == [chart.key for chart in charts(document)]
    (bars,) = drawn["reach"]["data"]
    assert bars["x"] == [1.58, 0.0, 1.58, 1.58]
    assert bars["text"][:2] == ["x1.58", "misses them at x1"]
    fleet, more = drawn["costs"]["data"]
    assert (fleet["x"], more["x"]) == ([100.0, 100.0, 200.0, 100.0], [0.0, 30.0, 0.0, 0.0])
    (chat,) = drawn["curve_ttft"]["data"]
    assert (chat["name"], chat["x"], chat["y"]) == ("chat", [1.0, 1.58, 2.5, 3.0, 4.0], [1.0, 1.58, 2.5, 3.0, None])
    shapes = drawn["curve_ttft"]["layout"]["shapes"]
    assert {s["label"]["text"]: s["x0"] for s in shapes if "label" in s} == {"today": 1.0, "holds": 1.58}
    assert [s["y0"] for s in shapes if s["type"] == "line" and "x1" in s and s["x0"] == 0] == [2.0]
    assert [s["type"] for s in shapes].count("rect") == 1


def test_long_names_are_broken_for_narrow_screens(document):
    made = copy.deepcopy(document)
    made["variations"][1]["name"] = "pools[small-fp8].quantization=w4a16, " + "and much more of it " * 9
    drawn = next(chart for chart in charts(made) if chart.key == "reach").figure
    label = drawn["layout"]["yaxis"]["ticktext"][1].split("<br>")
    assert label[:2] == ["pools[small-fp8].", "quantization=w4a16, and"]
    assert len(label) == 3
    assert label[-1].endswith(" …")


def test_one_rate_alone_draws_no_curve(document):
    made = copy.deepcopy(document)
    made["variations"][0]["cells"] = made["variations"][0]["cells"][:1]
    assert [chart.key for chart in charts(made)] == ["reach", "costs"]
    assert "If traffic grows" in own(render(made))


def test_a_study_that_was_cut_off_at_once_still_gives_a_page(document):
    made = copy.deepcopy(document)
    for row in made["variations"]:
        row |= {"cells": [], "holds_to": None, "breaks_at": None, "breaks": [], "buy": None}
    made |= {"interrupted": True, "buy": None, "sentences": ["Nothing was replayed to the end."]}
    assert "interrupted: cells are missing" in own(render(made))
    assert charts(made) == []
    assert csv_text(made).count("\n") == 1
    assert "as it is" in terminal(made, {"cells": 0, "simulated": 0, "reused": 0, "failed": 0})


def test_csv_has_a_row_a_cell(document):
    rows = list(csv.DictReader(io.StringIO(csv_text(document))))
    assert len(rows) == sum(len(row["cells"]) for row in document["variations"])
    first = rows[0]
    assert (first["variation"], first["rate"], first["meets"], first["slo_attainment"]) == (
        "as it is",
        "1.0",
        "True",
        "1.0",
    )
    assert {row["not_replayed"] for row in rows} == {"", "OVERLOADED at 4", "out of memory"}
    assert next(row for row in rows if row["meets"] == "False")["violations"].startswith("chat: p99 TTFT at most 2 s")


def test_terminal_and_markdown_say_what_the_page_says(document):
    counts = {"cells": 9, "simulated": 7, "reused": 2, "failed": 1}
    plain, marked = terminal(document, counts), markdown(document)
    assert plain.startswith(document["answer"])
    assert plain.endswith("9 cells: 7 simulated, 2 reused, 1 failed")
    assert "impossible: pools[one].model=Llama-3.3-70B: pools[0]: " in plain
    assert marked.splitlines()[0] == "# tiny: what if"
    for heading in ("Changes and rates", "What each change costs", "What to buy next", "When each target breaks"):
        assert f"## {heading}" in marked


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium to draw the page")
@pytest.mark.parametrize(("mode", "width"), [("light", 1280), ("dark", 390)])
def test_a_browser_draws_every_chart_without_an_error_or_a_scroll_bar(page, mode, width, tmp_path):
    assert as_seen(page, mode, width, tmp_path) == (width, True, len(ALL))
