"""The terminal's tables: what they say, at every width, without colours."""

import io
import re

import pytest
from results.runs import make_run, make_trace, reject

from simroute.report.tables import PLAIN_WIDTH, print_results
from simroute.report.text import collected_notes, estimates, number, percent, ranged, span, traffic, usd
from simroute.results.metrics import summarise
from simroute.results.slo import Slo


class Terminal(io.StringIO):
    """Text that passes for a terminal."""

    def isatty(self):
        return True


def summaries():
    trace = make_trace([0.0, 1.0, 2.0])
    quick = make_run(trace, [0.1, 0.2, 0.3], [1.1, 1.2, 1.3], policy="quick")
    slow = make_run(trace, [3.0, 3.0, 3.0], [4.0, 4.0, 4.0], policy="slow")
    slow.replicas[0].estimated = True
    reject(slow, 0)
    slo = {"default": Slo(ttft_s=1.0)}
    return [summarise(run, slo, lambda _pool, _class: (0.9, 0.8, 1.0)) for run in (slow, quick)]


def printed(file):
    print_results(summaries(), file, notes=["two rows were skipped"])
    return file.getvalue()


def test_the_answer_comes_first_and_the_best_policy_leads_every_table():
    text = printed(io.StringIO())
    assert text.startswith("The policy that meets the targets: quick at $1,460/month")
    rows = [line.split()[0] for line in text.splitlines() if re.match(r"(quick|slow) ", line)]
    assert rows == ["quick", "slow"] * 3


def test_what_is_not_a_terminal_gets_plain_text_in_120_columns():
    text = printed(io.StringIO())
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= PLAIN_WIDTH


def test_the_numbers_are_those_of_the_summary():
    cells = next(line for line in printed(io.StringIO()).splitlines() if line.startswith("quick *")).split()
    assert cells[2:] == ["0.200", "0.280", "0.298", "1.20", "1.28", "1.30", *["100"] * 3, *["20.0"] * 3]


def test_a_policy_below_the_floor_has_no_star_and_shows_why():
    run = make_run(make_trace([0.0, 1.0]), [0.1, 0.2], [1.1, 1.2], policy="cheap")
    file = io.StringIO()
    print_results([summarise(run, {}, lambda _pool, _class: (0.6, 0.5, 0.7), {"default": 0.7})], file)
    text = file.getvalue()
    assert "meets the latency targets, but only 0.0% of its answers reach their quality floor" in " ".join(text.split())
    rows = [line.split() for line in text.splitlines() if line.startswith("cheap")]
    assert "*" not in text
    assert rows[2][4:6] == ["0.600", "0.0%"]


def test_traffic_counts_what_arrives_up_to_the_horizon():
    run = make_run(make_trace([0.0, 100.0, 300.0]), [0.1] * 3, [1.0] * 3)
    assert traffic(["a.csv"], run) == "a.csv: 3 requests over 5 min"
    run.horizon_s = 200.0
    assert traffic([], run) == "2 requests over 100 s"


def test_estimates_and_notes_are_explained():
    text = printed(io.StringIO())
    assert "≈ STABLE" in text
    assert "≈ step times are estimated" in text
    assert "two rows were skipped" in text


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
def test_no_cell_is_cut_on_a_terminal_of_any_width(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    text = re.sub(r"\x1b\[[0-9;]*m", "", printed(Terminal()))
    assert "…" not in text
    tables = text[: text.index("* meets the targets")]
    assert max(map(len, tables.splitlines())) <= columns
    for cell in ("0.298", "20.0", "STABLE", "$1,460", "unfinished"):
        assert cell in tables


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.0, "0"), (0.1234, "0.123"), (9.996, "10.0"), (99.96, "100"), (1234.5, "1,234"), (-0.5, "-0.500")],
)
def test_numbers_have_three_digits(value, text):
    assert number(value) == text


def test_shares_are_rounded_down():
    shares = (None, 0.9999, 1.0, 0.125, 0.9896, 0.29)
    assert [percent(share) for share in shares] == ["-", "99.9%", "100.0%", "12.5%", "98.9%", "29.0%"]


def test_money_and_durations():
    assert [usd(amount) for amount in (None, 6.237, 20497.6)] == ["-", "$6.24", "$20,498"]
    assert [span(seconds) for seconds in (45, 750, 11520, 172800)] == ["45 s", "12.5 min", "3.2 h", "2 days"]


def test_a_note_of_every_policy_is_said_once():
    both = [{"policy": "a", "notes": ["x", "y"]}, {"policy": "b", "notes": ["x"]}]
    assert collected_notes(both, ["first"]) == ["first", "x", "a: y"]


def test_only_the_pools_without_a_calibration_are_called_estimates():
    mixed = summaries()[0]
    mixed["by_pool"] |= {"other": mixed["by_pool"]["h100"] | {"estimated": False}}
    assert estimates([mixed]) == (
        "step times of pool h100 are estimated by a roofline model, not calibrated on this hardware"
    )
    assert estimates(summaries()).startswith("step times are estimated")
    assert estimates(summaries()[1:]) == ""


def test_intervals_stand_beside_their_numbers():
    summary = summaries()[1]
    summary["intervals"] = {"ttft_s.p99": [0.2, 0.4], "ttft_s.p90": [0.25, None], "ttft_s.p50": [None, None]}
    assert ranged(number, summary, "ttft_s.p99") == "0.298 [0.200, 0.400]"
    assert ranged(number, summary, "ttft_s.p90") == "0.280 [0.250, -]"
    assert ranged(number, summary, "ttft_s.p50") == "0.200"
    assert ranged(number, summary, "goodput_rps") == number(summary["goodput_rps"])


def two_tenants():
    trace = make_trace([0.0, 1.0, 2.0, 3.0], tenants=["shop", "bank", "bank", "bank"])
    run = make_run(trace, [0.1, 0.1, 0.1, 3.0], [1.0, 1.0, 1.0, 4.0], policy="uneven")
    return summarise(run, {"default": Slo(ttft_s=1.0)}, lambda _pool, _class: None)


def test_several_tenants_get_a_table_and_one_does_not():
    file = io.StringIO()
    print_results([two_tenants()], file)
    (row,) = (
        line.split() for line in file.getvalue().partition("Tenants")[2].splitlines() if line.startswith("uneven")
    )
    # x = 1 and 2/3: (5/3)² / (2 · 13/9) = 25/26.
    assert row[1:3] == ["2", "0.962"]
    assert row[4:] == ["bank", "66.6%", "bank", "75.0%"]
    assert "Tenants" not in printed(io.StringIO())
