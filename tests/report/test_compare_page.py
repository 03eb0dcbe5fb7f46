"""A comparison in the terminal and as a page: complete, self-contained, drawn as ratios, noise and collapse shown."""

import io
import json
import re

import pytest
from report.pages import Tags
from results.runs import make_run, make_trace

from simroute.report.compare import HEADLINES, differences, groups, places, print_comparison
from simroute.report.compare_page import render
from simroute.results.comparison import document, kept
from simroute.results.metrics import summarise
from simroute.results.paired import HEADLINES as COMPARED
from simroute.results.slo import Slo


def summary(policy, ttft_s):
    tenants = ["shop", "bank"] * 10
    run = make_run(make_trace(range(20), tenants=tenants), [ttft_s] * 20, [ttft_s + 1.0] * 20, policy=policy)
    return summarise(run, {"default": Slo(ttft_s=1.0)}, lambda _pool, _class: (0.9, 0.8, 1.0))


def collapsed(outcome):
    return outcome._replace(
        numbers=tuple(None if h.name.endswith("p99") else v for h, v in zip(COMPARED, outcome.numbers, strict=True)),
        stability="OVERLOADED",
        standing=(True, *outcome.standing[1:]),
    )


def make_document(names=("base", "quick", "twin"), decisions=None):
    worlds = [0.5, 0.6, 0.7, 0.65]
    outcomes = {name: [kept(summary(name, t * (0.5 if name == "quick" else 1.0))) for t in worlds] for name in names}
    outcomes[names[-1]][3] = collapsed(outcomes[names[-1]][3])
    return document(
        scenario="mixed",
        seed=1,
        baseline=names[0],
        block_s=60.0,
        level=0.95,
        summaries={name: summary(name, 0.5) for name in names},
        outcomes=outcomes,
        decisions=decisions or {},
        notes=["two rows were skipped"],
        manifest={"seed": 1},
    )


REGRETS = {"decisions": 20, "rejected": 0, "predicted": 20, "mean_regret_s": 0.5, "p99_regret_s": 2.0}


def texts(grid):
    return {row[0].text: [cell.text for cell in row[1:]] for row in grid.rows}


def test_every_headline_is_shown_under_its_own_label():
    assert list(HEADLINES) == [headline.name for headline in COMPARED]
    assert len({shown.label for shown in HEADLINES.values()}) == len(HEADLINES)


def test_differences_are_shown_with_sign_interval_and_verdict():
    quick, twin = differences(make_document())
    row = texts(quick)["TTFT p99, s"]
    assert row[:3] == ["0.613", "0.306", "-0.306"]
    assert row[4:] == ["better", "4", "0"]
    assert texts(quick)["within targets, %"][:5] == ["100", "100", "0", "[0, 0]", "noise"]
    assert len(quick.headers) == 8
    assert [header.name for header in twin.headers][-2:] == ["base", "twin"]
    assert texts(twin)["TTFT p99, s"][-2:] == ["0", "1"]
    tones = {row[0].text: row[5].tone for row in quick.rows}
    assert (tones["TTFT p99, s"], tones["quality"]) == ("good", "")


def test_places_tell_of_overload_and_of_fairness_between_tenants():
    found = texts(places(make_document()))
    assert list(found) == ["quick", "base", "twin"]
    assert found["quick"] == ["1.00", "4 of 4", "4 of 4", "0 of 4", "1.00", "1.00"]
    assert found["twin"][2:4] == ["3 of 4", "1 of 4"]


def test_groups_show_what_each_gets_and_pays():
    grid = next(iter(groups(make_document())))
    assert texts(grid)["tenant bank"][:4] == ["10", "100.0%", "0.488", "50.0%"]
    assert [row[0].text for row in grid.rows] == ["class default", "tenant shop", "tenant bank", "tier default"]


def test_the_terminal_says_the_answer_first_and_explains_the_rest():
    file = io.StringIO()
    print_comparison(make_document(decisions={"base": REGRETS | {"notable_share": 0.25}}), file)
    text = file.getvalue()
    assert text.startswith("quick wins over base, the next best, and that is not noise")
    for said in (
        "twin is OVERLOADED in 1 of 4 worlds",
        "two rows were skipped",
        "0.500",
        "25.0%",
        "interval: Student's 95%",
    ):
        assert said in text
    assert "\x1b" not in text
    tables = [line for line in text.splitlines() if not line.startswith(" ")]
    assert max(map(len, tables)) <= 120


@pytest.fixture(scope="module")
def page():
    return render(make_document(decisions={"base": REGRETS | {"notable_share": 0.25}}))


def own(page):
    from plotly.offline import get_plotlyjs

    assert page.count(get_plotlyjs()) == 1
    return page.replace(get_plotlyjs(), "")


def test_the_page_is_well_formed_and_names_no_address(page):
    tags = Tags()
    tags.feed(own(page))
    assert tags.open == []
    assert tags.addresses == ["data:,"]
    assert not re.search(r"https?:|url\(|@import", own(page))
    assert own(page).index("quick wins over base") < own(page).index("<table>")


def test_the_figure_holds_ratios_with_their_intervals_and_hollow_marks_for_noise(page):
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    figure = json.loads(found.group(1))["differences"]
    assert 'data-figure="differences"' in page
    quick, twin = figure["data"]
    assert (quick["name"], twin["name"]) == ("quick", "twin")
    place = [text.split(":")[0] for text in quick["text"]].index("TTFT p50, s")
    assert quick["x"][place] == pytest.approx(0.5)
    low = quick["x"][place] - quick["error_x"]["arrayminus"][place]
    entry = make_document()["differences"]["quick"]["ttft_s.p50"]
    assert low == pytest.approx(1 + entry["low"] / entry["baseline_mean"])
    assert quick["marker"]["symbol"][place] == "circle"
    assert set(twin["marker"]["symbol"]) == {"circle-open"}


def test_the_same_document_gives_the_same_page_and_names_cannot_break_it(page):
    assert render(make_document(decisions={"base": REGRETS | {"notable_share": 0.25}})) == page
    hostile = "</script><script>alert(1)</script>"
    assert hostile not in own(render(make_document(names=("base", hostile))))


@pytest.mark.parametrize(("mean", "labelled"), [(-0.25, "0.5x"), (99.0, "10x")])
def test_ratios_far_apart_are_labelled_at_decades_alone(mean, labelled):
    made = make_document()
    made["differences"]["quick"]["ttft_s.p99"] |= {"mean": mean * 0.6, "low": mean * 0.6, "high": mean * 0.6}
    found = re.search(r'id="figures">(.*?)</script>', render(made), re.DOTALL)
    axis = json.loads(found.group(1))["differences"]["layout"]["xaxis"]
    assert labelled in axis["ticktext"]
    assert ("0.5x" in axis["ticktext"]) == (mean < 0)
