"""A plan as a page, as Markdown and as CSV: the answer first, every promise, self-contained, drawn by a browser."""

from __future__ import annotations

import copy
import csv
import io
import json
import re

import pytest
from planner.plans import big_pool, document, infeasible, plan, pool, violation
from report.browser import CHROMIUM, as_seen, on_paper
from report.pages import Tags

from simroute.report.plan import cells, words
from simroute.report.plan.charts import charts, load_marks
from simroute.report.plan.frontier import limits, qualities
from simroute.report.plan.page import render
from simroute.report.plan.table import print_plan
from simroute.report.plan.text import csv_text, markdown

ALL = ["frontier_ttft", "frontier_tpot", "frontier_e2e", "curve_ttft", "curve_tpot", "curve_e2e", "curve_shares"]
ALL += ["kv_usage", "busy", "arrivals", "tornado"]


def own(page):
    """The page less the embedded library."""
    from plotly.offline import get_plotlyjs

    assert page.count(get_plotlyjs()) == 1
    return page.replace(get_plotlyjs(), "")


@pytest.fixture(scope="module")
def page():
    return render(document())


def texts(grid):
    return [[cell.text for cell in row] for row in grid.rows]


def figures(page):
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    return json.loads(found.group(1))


@pytest.mark.parametrize("made", [document, infeasible])
def test_the_page_is_well_formed_and_names_no_address(made):
    text = own(render(made()))
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert tags.addresses == ["data:,"]
    assert not re.search(r"https?:|url\(|@import", text)


def test_the_answer_stands_first_and_a_managers_questions_are_answered(page):
    text = own(page)
    assert text.index("Buy 6 L40S and 4 H100") < text.index("<table>")
    for said in (
        "every target is met",
        "What to buy",
        "holds up to 1.4 times the traffic",
        "Why nothing cheaper",
        "What the answer hangs on",
        "How sure this is",
        "step times of large are not measured",
        "l40s/llama-3.1-8b/fp8.yaml",
        "quality 0.81 assumed",
        "2 rows without tokens were skipped",
        "Llama-3.3-70B bf16 L40S: does not fit",
        "2,304 fleets of 20 variants in 2.35 min: 1,602 ruled out by throughput, 240 ruled out",
        "seed 7",
    ):
        assert said in text, said


def test_every_chart_has_its_figure_and_only_what_there_is_is_drawn(page):
    assert re.findall(r'data-figure="(\w+)"', page) == ALL
    assert set(figures(page)) == set(ALL)
    bare = render(document(curve=None, timeline=None, sensitivity=None))
    assert re.findall(r'data-figure="(\w+)"', bare) == ALL[:3]
    for heading in ("If traffic grows", "How busy it is", "What the answer hangs on"):
        assert heading not in own(bare)


def test_the_same_document_gives_the_same_page_and_is_left_alone(page):
    made = document()
    before = copy.deepcopy(made)
    assert render(made) == page
    assert made == before


def test_what_made_it_is_told_where_that_is_known(page):
    assert "Manifest" not in page
    told = render(document(manifest={"versions": {"simroute": "9.8.7"}}))
    assert "9.8.7" in told[told.index("<summary>Manifest") :]


def test_names_cannot_break_the_page():
    hostile = "</script><script>alert(1)</script>"
    pools = [pool(name=hostile)]
    made = document(
        name=hostile,
        answer=hostile,
        best=plan(pools, policy=hostile),
        assumptions=[hostile],
        notes=[hostile],
        timeline={"t_s": [0.0, 60.0], "pools": {hostile: {"busy": [0.1, 0.2]}}, "arrivals_rps": [0.0, 0.0]},
    )
    assert hostile not in own(render(made))
    assert hostile not in markdown(made)


def test_an_infeasible_plan_says_what_would_have_to_give():
    text = own(render(infeasible()))
    assert "no plan meets every target" in text
    assert "What would have to give" in text
    assert text.index("raise the budget from $20,000 to $31,250") < text.index("<table>")
    assert "The nearest miss" in text
    assert "What to buy" not in text
    (row,) = cells.constraints(infeasible()).rows
    assert [cell.text for cell in row] == ["answers that reach the floor of code", "71.0%", "99.0%", "broken"]


def test_what_would_have_to_give_is_asked_for_all_together():
    made = infeasible()
    assert "All of these together" in own(render(made))
    assert "This, by as much" in own(render(made | {"relax": made["relax"][:1]}))
    assert "## To make it feasible, all of these" in markdown(made)


def test_tiles_say_what_is_known_and_how_much_more_traffic_the_fleet_bears():
    names = [name for name, _, _ in cells.tiles(document())]
    assert names[-2:] == ["expected quality", "holds up to"]
    unknown = document(best=plan([pool()], quality=None), headroom=None)
    assert [name for name, _, _ in cells.tiles(unknown)] == names[:-2]
    assert cells.tiles(infeasible() | {"nearest": None}) == []


def test_every_column_and_every_chart_has_a_name(page):
    text = own(page)
    assert '<th scope="col"></th>' not in text
    assert text.count('class="chart" role="img" aria-label="Chart: ') == len(ALL)


def test_the_label_of_todays_traffic_stays_within_the_chart():
    def placed(scales, knee):
        label = load_marks([{"rate_scale": scale} for scale in scales], knee)[0]["label"]
        return label["text"], label["xanchor"], label["yanchor"]

    assert placed([0.25, 1, 2], 1.5) == ("planned", "right", "top")
    assert placed([1, 1.5, 2], 1.5) == ("planned", "left", "top")
    assert placed([1, 1.1, 3], 1.1) == ("planned", "left", "bottom")
    assert placed([1, 2], None) == ("planned", "left", "top")


def test_a_search_that_found_nothing_at_all_still_gives_a_page():
    made = infeasible() | {"nearest": None, "evaluated": [], "relax": [], "notes": ["interrupted: nothing"]}
    text = own(render(made))
    assert '<li class="bad">interrupted: nothing</li>' in text
    assert markdown(made).startswith("# chat and code\n\n**No fleet here")
    assert csv_text(made).count("\n") == 1


def test_what_to_buy_adds_up():
    rows = texts(cells.buys(plan()))
    assert rows[0][:5] == ["small fp8", "6", "1 x L40S", "6", "$11.17"]
    assert rows[1][2:8] == ["2 x H100", "4", "$13.16", "$9,607", "Llama-3.3-70B", "awq-int4"]
    assert rows[2] == ["all", "8", "", "10", "$24.33", "$17,758", "", "", ""]
    assert len(cells.buys(plan([pool()])).rows) == 1


def test_promises_are_in_their_units_with_the_room_that_is_left():
    rows = cells.constraints(document()).rows
    assert [[cell.text for cell in row] for row in rows] == [
        ["p99 TTFT of chat", "0.810 s", "1.00 s", "19%", ""],
        ["requests within targets of chat", "99.3%", "99.0%", "34%", "1 x small fp8 gone"],
        ["p99 TPOT of chat", "41.2 ms", "50.0 ms", "18%", ""],
        ["answers that reach the floor of code", "99.3%", "99.0%", "32%", ""],
        ["USD a month", "$17,757", "$20,000", "11%", ""],
        ["quota H100", "4", "4", "0.0%", ""],
    ]
    room = [row[3] for row in rows]
    assert (room[0].tone, room[0].bar) == ("good", pytest.approx(0.81))
    assert (room[-1].tone, room[-1].bar) == ("warn", 1.0)


def test_in_the_busiest_stretch_a_p99_is_judged_by_what_is_in_time():
    peak = plan(violations=[violation("ttft_p99", "chat", 0.93, 0.99)], stage="peak")
    assert words.broken(peak) == "p99 TTFT of chat: 93.0% in time, limit 99.0%"
    whole = plan(violations=[violation("ttft_p99", "chat", 1.57, 1.0), violation("stability", None, None, 0.0)])
    assert words.broken(whole) == "p99 TTFT of chat: 1.57 s, limit 1.00 s; stability"
    assert words.broken(plan(error="worker died")) == "worker died"


def test_of_each_choice_of_variants_the_dearest_cheaper_fleet_is_told_why_it_is_not_bought():
    other = plan([pool(replicas=6), big_pool(replicas=1)], policy="random", name="again")
    other |= {"meets": False, "violations": [violation("ttft_p99", "chat", 9.0, 1.0)] * 3}
    made = document()
    rows = texts(cells.refused(made | {"evaluated": [other, *made["evaluated"]]}))
    assert rows == [
        [
            "9 x small fp8 + 1 x large",
            "quant_aware",
            "$17,030",
            "$728",
            "answers that reach the floor of code: 93.0%, limit 99.0%",
            "whole traffic",
        ],
        [
            "9 x small fp8",
            "quant_aware",
            "$12,227",
            "$5,531",
            "answers that reach the floor of code: 60.0%, limit 99.0%; p99 TTFT of chat: 2.66 s, limit 1.00 s",
            "whole traffic",
        ],
    ]
    assert cells.refused(infeasible()).rows == []


def test_alternatives_name_each_plan_once_best_first_then_by_cost():
    rows = texts(cells.alternatives(document()))
    assert [row[1] for row in rows[:3]] == ["best", "runner-up", "frontier"]
    assert len({row[0] for row in rows}) == len(rows)
    costs = [float(row[4].strip("$").replace(",", "")) for row in rows[2:]]
    assert costs == sorted(costs)


def test_accuracy_tells_measured_from_guessed_and_extrapolated_from_known():
    made = plan([pool(), big_pool(), pool(name="far", basis="measured", calibration="h100/x.yaml")])
    made["summary"] = {"by_pool": {"far": {"extrapolated": ["tokens=20000"]}}}
    rows = texts(cells.accuracy(made))
    assert rows[0][1:] == [
        "composed",
        "l40s/llama-3.1-8b/fp8.yaml",
        "3.1%",
        "8.4%",
        "up to 8,192 tokens a step, 256 requests decoding, 229,376 tokens of their context",
        "0.19.0",
        "within what was measured",
    ]
    assert rows[1][1:] == ["≈ estimated", "none", "-", "-", "-", "-", "-"]
    assert rows[2][1:3] == ["measured", "h100/x.yaml"]
    assert rows[2][-1] == "extrapolated: tokens=20000"
    tones = [badge.tone for badge in cells.badges(document(best=made))]
    assert tones == ["good", "warn", "warn"]
    sound = plan([pool()])
    assert [badge.text for badge in cells.badges(document(best=sound))] == [
        "every target is met",
        "step times composed",
    ]


def test_limits_are_those_of_the_p99_or_else_of_requests():
    assert limits(document(), "ttft") == [1.0]
    assert limits(document(), "e2e") == [20.0]
    assert limits({"slo": {}}, "tpot") == []


def test_the_frontier_shows_every_fleet_by_cost_and_p99(page):
    misses, steps, meets, star = figures(page)["frontier_ttft"]["data"]
    made = document()
    known = [p for p in made["evaluated"] if p["headlines"]["ttft_p99_s"] is not None]
    assert len(misses["x"]) + len(meets["x"]) == len(known)
    assert (star["x"], star["y"]) == ([pytest.approx(17757.98)], [0.81])
    assert (meets["marker"]["cmin"], meets["marker"]["cmax"]) == qualities(made)
    assert sorted(meets["marker"]["color"])[0] == pytest.approx(meets["marker"]["cmin"])
    assert steps["y"] == sorted(steps["y"], reverse=True)
    assert steps["x"] == sorted(steps["x"])
    milliseconds = figures(page)["frontier_tpot"]
    assert set(milliseconds["data"][2]["y"]) == {41.2}
    assert milliseconds["layout"]["shapes"][0]["y0"] == 50.0


def test_fleets_that_cost_the_same_do_not_stretch_the_axis_to_cents():
    lone = plan([pool()])
    for evaluated, asked in (([lone], [0.8, 1.2]), ([lone, plan([pool(replicas=9)])], None)):
        made = document(best=lone, runner_up=None, frontier=[], evaluated=evaluated)
        drawn = next(chart for chart in charts(made) if chart.key == "frontier_ttft").figure["layout"]["xaxis"]
        assert drawn.get("range") == (asked and [each * lone["cost_usd_per_month"] for each in asked])


def test_the_nearest_miss_is_no_other_choice():
    assert "Other choices" not in own(render(infeasible()))


def test_quality_that_tells_nothing_apart_has_no_scale():
    same = [plan([pool(replicas=n)], quality=0.8) for n in (2, 3)]
    made = document(best=same[0], runner_up=None, frontier=[], evaluated=same)
    assert qualities(made) is None
    assert 'class="scale"' not in own(render(made))


def test_the_curve_marks_the_knee_and_where_the_fleet_is_overloaded(page):
    drawn = figures(page)["curve_ttft"]
    assert drawn["data"][0]["y"][-1] is None
    labels = {shape["label"]["text"]: shape["x0"] for shape in drawn["layout"]["shapes"] if "label" in shape}
    assert labels == {"planned": 1.0, "holds": 1.4}
    (shaded,) = [shape for shape in drawn["layout"]["shapes"] if shape["type"] == "rect"]
    assert shaded["x0"] == pytest.approx(1.7)


def test_where_limits_differ_by_class_each_class_has_its_line_and_its_limit(page):
    drawn = figures(page)["curve_ttft"]
    assert [trace["name"] for trace in drawn["data"]] == ["chat", "code"]
    limits_s = {s["line"]["color"]: s["y0"] for s in drawn["layout"]["shapes"] if s["type"] == "line" and s["y0"] > 0}
    assert [limits_s[trace["line"]["color"]] for trace in drawn["data"]] == [1.0, 2.0]
    same = {name: each | {"p99": {"ttft_s": 1.5}} for name, each in document()["slo"].items()}
    (chart,) = [chart for chart in charts(document(slo=same)) if chart.key == "curve_ttft"]
    assert [trace["name"] for trace in chart.figure["data"]] == ["p99 TTFT"]


def test_what_the_bill_hangs_on_is_told_in_lines_and_in_a_table():
    assert words.sensitivities(document()) == [
        "latency targets 20% looser: $12,954 a month, 20% tighter: no fleet will do",
        "answer tokens -20%: $15,900 a month, +20%: $22,700 a month",
        "traffic -20%: $15,100 a month, +20%: $21,400 a month",
        "price of L40S -20%: $16,127 a month, +20%: $19,388 a month",
        "step times 6% faster: $17,757 a month, 6% slower: $19,116 a month",
    ]
    assert words.sensitivities(infeasible()) == []
    rows = texts(cells.hangs_on(document()))
    assert rows[1] == ["latency targets 20% tighter", "-", "", "no fleet looked at will do"]
    assert rows[3] == ["answer tokens +20%", "$22,700", "+4,942", "a fleet for $22,700"]
    assert "| answer tokens +20% | $22,700 | +4,942 | a fleet for $22,700 |" in markdown(document())


def test_the_tornado_has_the_widest_bar_on_top_and_says_where_no_fleet_is_left(page):
    low, high = figures(page)["tornado"]["data"]
    assert [name.split("<br>")[0] for name in low["y"]] == [
        "step times",
        "price of L40S",
        "traffic",
        "answer tokens",
        "latency targets",
    ]
    assert low["y"][4].endswith("20% looser … 20% tighter: no fleet")
    assert high["x"][4] is None
    assert low["base"][0] + low["x"][3] == pytest.approx(15_900)


def test_replicas_are_drawn_over_the_day_only_where_they_change():
    made = document()
    assert "replicas" not in {chart.key for chart in charts(made)}
    made["timeline"]["pools"]["large"]["replicas"] = [1] * 24 + [2] * 24
    assert "replicas" in {chart.key for chart in charts(made)}


def test_markdown_has_the_answer_first_and_tables_that_hold():
    text = markdown(document())
    assert text.splitlines()[2].startswith("**Buy 6 L40S and 4 H100")
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(columns) == 1
    assert "| large | 2 | 2 x H100 | 4 | $13.16 | $9,607 | Llama-3.3-70B | awq-int4 |" in text
    assert "a \\| b" in markdown(document(best=plan([pool(name="a | b")])))


def test_what_the_search_did_tells_replays_from_what_was_kept():
    said = words.searched(document())
    assert said.endswith("391 not needed; 71 asked about in 63 replays and 8 from earlier runs"), said
    assert words.searched({"search": {"candidates": 2}}) == "2 fleets: none ruled out; 0 replays"


def test_the_terminal_shows_the_tables_of_the_page():
    file = io.StringIO()
    print_plan(infeasible(), file)
    text = file.getvalue()
    assert text.startswith("No fleet here")
    for grid in (cells.alternatives(infeasible()), cells.constraints(infeasible())):
        assert grid.caption in text
        assert all(word in text for row in grid.rows for cell in row for word in cell.text.split())
    assert "\nTo make it feasible, all of these\n  " in text
    file = io.StringIO()
    print_plan(document(), file)
    assert max(map(len, file.getvalue().split(" headroom:")[0].splitlines())) <= 120


def test_csv_has_every_candidate_once_with_its_role():
    made = document()
    rows = list(csv.DictReader(io.StringIO(csv_text(made))))
    assert len(rows) == len({row["id"] for row in rows}) == len(made["evaluated"])
    best = next(row for row in rows if row["role"] == "best")
    assert (best["gpus"], best["ttft_p99_s"], best["meets"]) == ("10", "0.81", "True")
    assert [row["role"] for row in rows].count("runner-up") == 1
    costs = [float(row["cost_usd_per_month"]) for row in rows]
    assert costs == sorted(costs)
    lost = next(row for row in rows if row["stability"] == "OVERLOADED")
    assert lost["ttft_p99_s"] == ""


def test_csv_cannot_become_a_formula():
    rows = list(csv.reader(io.StringIO(csv_text(document(evaluated=[plan([pool()], name="=1+1")], frontier=[])))))
    assert "'=1+1" in {row[0] for row in rows}


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium to draw the page")
@pytest.mark.parametrize(("mode", "width"), [("light", 1280), ("dark", 390)])
def test_a_browser_draws_every_chart_without_an_error_or_a_scroll_bar(page, mode, width, tmp_path):
    assert as_seen(page, mode, width, tmp_path) == (width, True, len(ALL))


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium to draw the page")
def test_on_paper_no_table_and_no_chart_is_cut_off(page, tmp_path):
    assert on_paper(page, 1047, tmp_path) == (True, 0)
