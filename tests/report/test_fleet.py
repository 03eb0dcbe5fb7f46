"""What the report says of fleets that live, and that it says nothing of those that do not."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from report.browser import CHROMIUM, as_seen
from results.runs import make_replica, make_run, make_trace, reject

from simroute.report.cells import Header, comparison, pools
from simroute.report.fleet import MARKS, fleet_charts, lived
from simroute.report.html import render
from simroute.report.inputs import ReportInput
from simroute.report.series import arriving, held, load, ready, sending
from simroute.report.tables import print_results
from simroute.report.text import count, ends, lives, lost, resent
from simroute.results.metrics import summarise
from simroute.results.run import FleetEvent, Status, Timeline

SAMPLES = 100


def timeline(up, held=0, attempts_per_s=1.0):
    """100 samples, one a second, of two replicas of ours and one endpoint of others; `up` says how many of ours are."""
    t_s = np.arange(float(SAMPLES))
    ready_ones = np.array([[n > 0, n > 1, True] for n in up])
    counts = np.ones((SAMPLES, 3), dtype=np.int32)
    usage = np.tile(np.array([0.5, 0.1, 0.0], dtype=np.float32), (SAMPLES, 1))
    sent = np.cumsum(np.full(SAMPLES, attempts_per_s)).astype(np.int64)
    return Timeline(t_s, counts, counts, usage, ready_ones, np.full(SAMPLES, held, dtype=np.int32), sent)


def living_run(policy="living", **changes):
    """Requests one a second; the second of two replicas is gone from 40 s to 60 s, and an endpoint stands by."""
    replicas = [make_replica(0, "own"), make_replica(1, "own", crashes=1, starts=2)]
    replicas.append(make_replica(2, "api", gpu="external", gpus=0, usd_per_hour=0.0, token_usd=0.25))
    trace = make_trace(np.arange(float(SAMPLES)))
    run = make_run(trace, [0.1] * SAMPLES, [0.5] * SAMPLES, policy=policy, replicas=replicas, end_s=100.0)
    run.replicas[1].billed_s, run.replicas[1].ready_s = 100.0, 80.0
    run.timeline = timeline([2] * 40 + [1] * 20 + [2] * 40)
    run.attempts = np.ones(SAMPLES, dtype=np.int16)
    run.events = (FleetEvent(40.0, 1, "crash"), FleetEvent(60.0, 1, "ready"))
    for name, value in changes.items():
        setattr(run, name, value)
    return run


def end(run, request, status, reason):
    """Let a request of `run` end without an answer."""
    reject(run, request)
    run.status[request] = status
    if reason not in run.reasons:
        run.reasons = (*run.reasons, reason)
    run.reason_code[request] = run.reasons.index(reason)


def summary_of(run):
    return summarise(run, {}, lambda _pool, _class: None)


def given(*runs):
    return ReportInput("living", [(summary_of(run), run) for run in runs], {})


def printed(*runs):
    file = io.StringIO()
    print_results([summary_of(run) for run in runs], file)
    return file.getvalue()


def row(text, title, policy):
    """The cells of `policy` in the terminal's table of that title."""
    part = text[text.index(f"\n{title} ") :]
    return next(line.replace(" * ", " ").split() for line in part.splitlines() if line.startswith(policy))


@pytest.fixture
def plain():
    return make_run(make_trace([0.0, 1.0, 2.0]), [0.1] * 3, [1.0] * 3, policy="plain")


def test_a_fleet_in_which_nothing_happens_gets_no_more_than_before(plain):
    summary = summary_of(plain)
    assert not lives(summary)
    assert not resent(summary)
    assert lived([summary]) is None
    assert fleet_charts(given(plain)) == []
    text = printed(plain)
    assert not any(word in text for word in ("failed", "cancelled", "attempts", "Replicas", "starts"))
    page = render(given(plain))
    assert "Replicas and attempts over time" not in page
    assert "failed or were cancelled" not in page


def test_endings_get_a_column_where_there_are_some(plain):
    run = living_run()
    end(run, 3, Status.FAILED, "its replica crashed")
    text = printed(run, plain)
    assert "failed" in text
    assert "cancelled" not in text
    assert row(text, "Service", "living")[5:8] == ["99", "0", "1"]
    assert row(text, "Service", "plain")[5:8] == ["3", "0", "0"]
    end(run, 4, Status.CANCELLED, "its client timed out")
    assert row(printed(run), "Service", "living")[5:9] == ["98", "0", "1", "1"]
    headers = comparison([summary_of(run)], 0.99).headers
    assert [h for h in headers if h.group == "of these"] == [
        Header("failed", "of these"),
        Header("cancelled", "of these"),
    ]


def test_attempts_are_shown_where_some_requests_were_sent_again():
    run = living_run()
    assert "attempts" not in printed(run)
    run.attempts[5] = 3
    assert resent(summary_of(run))
    assert row(printed(run), "Service", "living")[-1] == "102"
    assert any(h.name == "attempts" for h in comparison([summary_of(run)], 0.99).headers)


def test_what_was_never_sent_is_no_second_attempt():
    run = living_run()
    reject(run, 0)
    run.attempts[0] = 0
    assert not resent(summary_of(run))


def test_all_that_got_no_answer_are_counted_as_lost():
    run = living_run()
    end(run, 0, Status.FAILED, "its replica crashed")
    end(run, 1, Status.CANCELLED, "its client timed out")
    reject(run, 2)
    run.status[3] = Status.UNFINISHED
    assert lost(summary_of(run)) == 4


def test_reasons_are_told_with_their_numbers():
    run = living_run()
    for request in (0, 1):
        end(run, request, Status.FAILED, "its replica crashed")
    end(run, 2, Status.FAILED, "the router died")
    end(run, 3, Status.CANCELLED, "its client lost interest")
    assert ends(summary_of(run)) == [
        "failed: its replica crashed (2), the router died (1)",
        "cancelled: its client lost interest (1)",
    ]
    text = printed(run, living_run("other"))
    assert "living: failed: its replica crashed (2), the router died (1)" in text
    assert "failed: its replica crashed (2), the router died (1)" in render(given(run))


def test_what_happened_to_the_replicas_is_a_table_of_its_own(plain):
    text = printed(living_run(), plain)
    # 3 - 1 replicas of ours, started 1 + 2 times; one was up for 80 of its 100 s; one sample in a hundred is 1%.
    assert row(text, "Replicas", "living")[1:] == ["3", "1", "90.0%", "0.0%", "0", "$0.25"]
    assert row(text, "Replicas", "plain")[1:] == ["1", "0", "100.0%", "0.0%", "0", "$0.00"]
    grid = lived([summary_of(living_run())])
    assert [cell.text for cell in grid.rows[0]] == ["living", "3", "1", "90.0%", "0.0%", "0", "$0.25"]


def test_a_fleet_that_was_away_for_a_while_stands_out():
    run = living_run(timeline=timeline([2] * 75 + [0] * 25, held=7))
    cells = lived([summary_of(run)]).rows[0]
    assert (cells[4].text, cells[4].tone, cells[5].text) == ("25.0%", "bad", "7")


def test_means_are_rounded_and_whole_numbers_are_not():
    assert [count(value) for value in (None, 8, 8.0, 2.51, 12.345, 0.4)] == ["-", "8", "8", "2.51", "12.3", "0.400"]


def test_pools_of_others_have_no_gpus_to_be_busy():
    own, api = pools(summary_of(living_run())).rows
    assert [cell.text for cell in own[:4]] == ["own", "H100", "1.80", "2"]
    assert [cell.text for cell in api[:4]] == ["api", "external", "1", "0"]
    assert (api[5].text, api[5].bar) == ("-", None)
    assert "2 H100<" in render(given(living_run()))


def test_ready_replicas_are_those_of_ours_and_gaps_survive():
    up = [2] * 1000
    up[500] = 0
    run = living_run()
    run.timeline = Timeline(
        np.arange(1000.0),
        *(np.zeros((1000, 3), dtype=np.int32),) * 2,
        np.zeros((1000, 3), dtype=np.float32),
        np.array([[n > 0, n > 1, True] for n in up]),
    )
    curve = ready(run)
    assert len(curve.x) <= 400
    assert (curve.y.max(), curve.y.min(), np.count_nonzero(curve.y == 0)) == (2.0, 0.0, 1)


def test_kv_use_is_the_mean_over_replicas_of_ours_that_are_ready():
    usage = load(living_run(timeline=timeline([2] * 40 + [1] * 20 + [0] * 40))).kv_usage
    assert usage[[0, 50, 99]] == pytest.approx([0.3, 0.5, 0.0])


def test_a_fixed_fleet_has_no_such_curves(plain):
    assert all(len(curve(plain).x) == 0 for curve in (ready, held, sending))


def test_rates_are_counts_over_intervals():
    run = living_run(timeline=timeline([2] * SAMPLES, attempts_per_s=3.0))
    assert sending(run).y == pytest.approx(3.0)
    assert arriving(run).y == pytest.approx(1.0)
    assert len(sending(run).x) == len(arriving(run).x) == 24


def charts_of(*runs):
    return {chart.key: chart for chart in fleet_charts(given(*runs))}


def test_replicas_over_time_carry_marks_of_what_went_wrong():
    drawn = charts_of(living_run())
    assert set(drawn) == {"ready"}
    assert drawn["ready"].note == "✖ engine crashed"
    line, mark = drawn["ready"].figure["data"]
    assert (line["name"], line["line"]["shape"], line["mode"]) == ("living", "hv", "lines")
    assert (mark["name"], mark["mode"], mark["marker"]["symbol"]) == ("living", "markers", MARKS["crash"].symbol)
    assert mark["customdata"] == [1]


def test_events_at_one_time_are_one_mark_with_their_number():
    events = tuple(FleetEvent(at_s, 0, "lost") for at_s in (10.0, 10.01, 10.02, 90.0))
    (_, mark) = charts_of(living_run(events=events))["ready"].figure["data"]
    assert mark["customdata"] == [3, 1]


def test_a_router_that_restarts_is_marked_though_no_replica_changes():
    run = living_run(timeline=timeline([2] * SAMPLES), events=(FleetEvent(50.0, -1, "router"),))
    assert charts_of(run)["ready"].note == "★ router restarted"


def test_held_requests_are_drawn_where_any_were():
    assert charts_of(living_run(timeline=timeline([2] * SAMPLES, held=5)))["held"].figure["data"][0]["name"] == "living"


def test_a_retry_storm_is_drawn_beside_what_arrives():
    run = living_run(timeline=timeline([2] * SAMPLES, attempts_per_s=4.0), attempts=np.full(SAMPLES, 4, dtype=np.int16))
    other = replace(run, policy="other")
    chart = charts_of(run, other)["attempts"]
    assert chart.note == "dotted: requests that arrive"
    assert [trace["name"] for trace in chart.figure["data"]] == ["other", "living", "all policies"]
    closed = replace(run, policy="closed", sent_s=run.trace.arrival_s)
    assert [trace["name"] for trace in charts_of(run, closed)["attempts"].figure["data"][2:]] == ["living", "closed"]


def test_a_few_second_attempts_are_not_worth_a_chart():
    run = living_run()
    run.attempts[5] = 2
    assert resent(summary_of(run))
    assert "attempts" not in charts_of(run)


def test_the_page_has_a_section_for_a_fleet_that_lives():
    page = render(given(living_run()))
    assert "Replicas and attempts over time" in page
    assert 'data-figure="ready"' in page
    assert "ready of paid time" in page
    assert "failed or were cancelled" in page


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium to draw the page")
def test_a_browser_draws_a_fleet_that_lives(tmp_path):
    storm = timeline([2] * 40 + [0] * 60, held=3, attempts_per_s=4.0)
    run = living_run(timeline=storm, attempts=np.full(SAMPLES, 4, dtype=np.int16))
    page = render(given(run, living_run("other")))
    assert as_seen(page, "light", 800, tmp_path) == (800, True, 11)
