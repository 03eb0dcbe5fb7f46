"""The HTML report: complete, self-contained, safe with any name, and drawn by a real browser where there is one."""

import json
import re

import numpy as np
import pytest
from report.browser import CHROMIUM, as_seen
from report.pages import Tags
from results.runs import make_replica, make_run, make_trace, reject

from simroute.report.cells import Cell, Grid, Header, comparison, quality_by_class, tenants
from simroute.report.charts import charts, log_axis
from simroute.report.html import render
from simroute.report.inputs import ReportInput
from simroute.results.metrics import summarise
from simroute.results.run import Timeline
from simroute.results.slo import Slo

SLO = {"chat": Slo(ttft_s=1.0, tpot_s=0.2), "default": Slo(e2e_s=5.0)}


def make_policy_run(policy, ttft_s):
    trace = make_trace(np.arange(50.0), classes=["chat", "code"] * 25)
    replicas = [make_replica(0, "big"), make_replica(1, "small", usd_per_hour=0.5, gpu="L4", estimated=True)]
    run = make_run(trace, [ttft_s] * 50, [ttft_s + 1.0] * 50, policy=policy, replicas=replicas, replica=[0, 1] * 25)
    reject(run, 0)
    samples = np.ones((600, 2))
    run.timeline = Timeline(
        np.linspace(0.0, 50.0, 600), samples.astype(np.int32), samples.astype(np.int32), samples.astype(np.float32) / 2
    )
    return run


def make_input(policies=("quick", "slow"), **changes):
    runs = [make_policy_run(policy, 0.1 + i) for i, policy in enumerate(policies)]
    results = [(summarise(run, SLO, lambda _pool, _class: (0.9, 0.8, 1.0)), run) for run in runs]
    given = {"assumptions": ["code on L4: 0.9 assumed"], "manifest": {"seed": 1}, "notes": ["two rows were skipped"]}
    return ReportInput("mixed", results, SLO, **(given | changes))


@pytest.fixture(scope="module")
def page():
    return render(make_input())


def without_plotly(text):
    """The page less the embedded library, which names addresses that it never visits here."""
    from plotly.offline import get_plotlyjs

    assert text.count(get_plotlyjs()) == 1
    return text.replace(get_plotlyjs(), "")


def test_the_page_is_well_formed_and_names_no_address(page):
    own = without_plotly(page)
    tags = Tags()
    tags.feed(own)
    assert tags.open == []
    assert tags.addresses == ["data:,"]
    assert not re.search(r"https?:|url\(|@import", own)


def test_the_answer_stands_before_every_table_and_chart(page):
    own = without_plotly(page)
    assert own.index("No policy meets the targets for 99% of requests: the nearest, quick") < own.index("<table>")
    assert own.index("50 requests over 49 s, seed 1") < own.index("<table>")
    for text in ("$1,825", "code on L4: 0.9 assumed", "two rows were skipped", "estimated:", "extrapolated", "seed"):
        assert text in own


def test_every_chart_has_its_figure(page):
    wanted = re.findall(r'data-figure="(\w+)"', page)
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    figures = json.loads(found.group(1))
    assert sorted(wanted) == sorted(figures)
    assert {"ttft", "tpot", "e2e", "running", "waiting", "kv_usage", "cost", "share"} == set(figures)


def test_the_same_input_gives_the_same_page(page):
    assert render(make_input()) == page


def test_names_cannot_break_the_page():
    hostile = "</script><script>alert(1)</script>"
    own = without_plotly(render(make_input(policies=(hostile,), description="<b>&", manifest={"x": hostile})))
    assert hostile not in own
    assert "&lt;b&gt;&amp;" in own


def test_the_header_names_the_traces():
    assert "a.csv + b.csv: 50 requests over 49 s, seed 1" in render(make_input(traces=("a.csv", "b.csv")))


def test_answers_below_their_floor_stand_out():
    run = make_policy_run("only", 0.1)
    scores = {"big": (0.9, 0.8, 1.0), "small": (0.6, 0.5, 0.7)}
    summary = summarise(run, SLO, lambda pool, _class: scores[pool], {"chat": 0.8, "code": 0.8})
    table = comparison([summary], 0.99)
    (kept,) = (cell for header, cell in zip(table.headers, table.rows[0], strict=True) if header.name == "floor kept")
    # The first chat request was rejected; big answers 24 of chat, small 25 of code.
    assert kept == Cell("48.9%", "bad", pytest.approx(24 / 49))
    assert quality_by_class([summary], 0.99).rows[0][1:] == [Cell("0.900"), Cell("0.600", "bad")]


def test_nothing_run_still_gives_a_page():
    own = without_plotly(render(ReportInput("empty", [], {})))
    assert "No policy was run to the end." in own


def test_the_bill_is_drawn_once_when_all_policies_share_it():
    shared, own = make_input(), make_input()
    own.results[1][0]["by_pool"]["big"]["cost_usd_per_month"] = 1.0
    bills = [next(c.figure for c in charts(data) if c.key == "cost") for data in (shared, own)]
    assert [bill["data"][0]["y"] for bill in bills] == [["all policies"], ["quick", "slow"]]


def test_a_policy_that_drains_for_long_does_not_squeeze_the_load_charts():
    data = make_input()
    data.results[1][1].timeline.t_s = np.linspace(0.0, 500.0, 600)
    drawn = next(chart for chart in charts(data) if chart.key == "waiting")
    assert drawn.figure["layout"]["xaxis"]["range"] == [0, 73.5]
    assert drawn.note == "first 73.5 of 500 s"


@pytest.mark.parametrize("ends", [(0.0059, 0.0089), (0.03, 40.0), (0.5, 0.5), (1.01, 1.02), (1e-3, 1e3)])
def test_a_logarithmic_axis_is_labelled_in_two_places_at_least(ends):
    axis = log_axis(ends)
    low, high = axis["range"]
    shown = [text for at, text in zip(axis["tickvals"], axis["ticktext"], strict=True) if low <= np.log10(at) <= high]
    assert 2 <= len(shown) == len(set(shown)) <= 12, shown


def test_neighbouring_columns_share_a_group():
    headers = [Header("policy"), Header("p50", "TTFT"), Header("p99", "TTFT"), Header("p50", "E2E")]
    assert Grid("", headers, []).groups == [("", 1), ("TTFT", 2), ("E2E", 1)]
    assert Grid("", headers[:1], []).groups == []


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium to draw the page")
@pytest.mark.parametrize("mode", ["light", "dark"])
def test_a_browser_draws_every_chart_without_an_error(page, mode, tmp_path):
    assert as_seen(page, mode, 390, tmp_path) == (390, True, 8)


def test_several_tenants_are_shown_with_what_they_get_and_pay():
    trace = make_trace([0.0, 1.0, 2.0, 3.0], tenants=["shop", "bank", "bank", "bank"])
    run = make_run(trace, [0.1, 0.1, 0.1, 3.0], [1.0, 1.0, 1.0, 4.0])
    summary = summarise(run, {"default": Slo(ttft_s=1.0)}, lambda _pool, _class: None)
    served, paid, fair = tenants([summary], 0.99)
    assert [header.name for header in served.headers] == ["policy", "shop", "bank"]
    assert [cell.text for cell in served.rows[0][1:]] == ["100.0%", "66.6%"]
    assert [cell.text for cell in paid.rows[0][1:]] == ["25.0%", "75.0%"]
    assert [cell.text for cell in fair.rows[0][1:3]] == ["2", "0.962"]
    assert "Share of the bill, by tenant" in render(ReportInput("two", [(summary, run)], SLO))


def test_one_tenant_is_not_compared_with_itself(page):
    assert "by tenant" not in without_plotly(page)
