"""The bars: what is left by the pace so far, and that a terminal shows it."""

from __future__ import annotations

import math
import re
import sys
from types import SimpleNamespace

import pytest

from simroute.cli import progress
from simroute.cli.progress import Pace, clock, shown_progress, shown_share, shown_stages


def test_the_time_left_follows_from_the_pace():
    pace = Pace()
    assert math.isnan(pace.left_s(0.0, 0.0))
    assert math.isnan(pace.left_s(0.0, 5.0))
    assert pace.left_s(0.25, 10.0) == pytest.approx(30.0)
    assert pace.left_s(0.25, 14.0) == pytest.approx(26.0)  # the clock goes on while nothing new is told
    assert pace.left_s(0.25, 99.0) == 0.0
    assert pace.left_s(1.0, 100.0) == 0.0


def test_what_was_found_finished_says_nothing_of_the_pace():
    pace = Pace()
    pace.left_s(0.5, 0.0)
    assert pace.left_s(0.75, 10.0) == pytest.approx(10.0)


def test_a_share_that_shrinks_because_more_is_to_do_is_no_pace():
    pace = Pace()
    pace.left_s(0.5, 0.0)
    assert math.isnan(pace.left_s(0.4, 10.0))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0:00:00"), (59.2, "0:01:00"), (3723.0, "1:02:03"), (math.nan, "-:--:--")]
)
def test_a_clock(seconds, text):
    assert clock(seconds) == text


def test_without_a_terminal_there_is_no_bar():
    with shown_progress(["a"]) as tell, shown_share("b") as share, shown_stages("c") as stage:
        assert (tell, share, stage) == (None, None, None)


def test_a_terminal_shows_share_stage_and_time_left(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(progress, "REDRAWN_S", 0.0)
    now = iter(float(second) for second in range(100))
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(now)))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with shown_stages("search") as tell:
        assert tell is not None
        for step in range(5):
            tell(0.25 * step, f"stage {step}")
    lines = re.findall(r"(search|stage \d) .*?(\d+%).*?(\S+) left", capsys.readouterr().err)
    assert ("search", "0%", "-:--:--") in lines
    assert ("stage 1", "25%", "0:00:03") in lines
    assert ("stage 3", "75%", "0:00:01") in lines
