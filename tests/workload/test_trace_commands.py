"""`simroute trace`: what the commands print, write and refuse; and the drawing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from simroute.cli.trace import app
from simroute.errors import ScenarioError, SimrouteError, UsageError
from simroute.report.trace_view import bar, columns_chart, duration
from simroute.workload.formats import read_trace

SPEC = """\
name: tiny
duration_s: 600
streams:
  - name: talk
    request_class: chat
    arrivals: {kind: gamma, rate_per_s: 0.5, cv: 2}
    input_tokens: {kind: lognormal, median: 100, sigma: 1}
    output_tokens: {kind: constant, value: 20}
    sessions: {turns: {kind: constant, value: 2}, think_time_s: {kind: constant, value: 5}}
"""


def run(*arguments: str | Path):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture
def tiny(tmp_path) -> Path:
    (tmp_path / "tiny.yaml").write_text(SPEC)
    result = run("synth", tmp_path / "tiny.yaml", "-o", tmp_path / "tiny.csv")
    assert result.exit_code == 0
    return tmp_path / "tiny.csv"


def test_synth_says_what_it_wrote_and_obeys_the_seed(tiny, tmp_path):
    trace = read_trace(tiny)
    result = run("synth", tmp_path / "tiny.yaml", "-o", tmp_path / "again.parquet")
    assert f"{len(trace):,} requests" in result.stdout
    assert trace.fingerprint()[:16] in result.stdout
    assert run("synth", tmp_path / "tiny.yaml", "-o", tmp_path / "x.csv", "--seed", "9").exit_code == 0
    assert read_trace(tmp_path / "x.csv").fingerprint() != trace.fingerprint()


def test_inspect_draws_and_inspect_json_is_json(tiny):
    drawn = run("inspect", tiny).stdout
    for part in ("tiny: ", "Arrivals a second: mean", "Input tokens: mean", "Output tokens: mean", "Prefix reuse: "):
        assert part in drawn
    assert "chat" in drawn
    stats = json.loads(run("inspect", tiny, "--json").stdout)
    assert stats["requests"] == len(read_trace(tiny))
    assert stats["reuse"]["block_tokens"] == 128


def test_notes_are_shown(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n1,1,1\n2,x,1\n")
    assert "skipped 1 bad row" in run("inspect", path).stdout
    converted = run("convert", path, tmp_path / "o.jsonl", "--format", "native")
    assert "note: " in converted.stderr
    assert "note:" not in converted.stdout


def test_convert_keeps_the_fingerprint(tiny, tmp_path):
    assert run("convert", tiny, tmp_path / "o.parquet").exit_code == 0
    assert read_trace(tmp_path / "o.parquet").fingerprint() == read_trace(tiny).fingerprint()


def test_scale_cuts_first_and_scales_then(tiny, tmp_path):
    out = tmp_path / "o.csv"
    assert run("scale", tiny, out, "--rate", "2", "--window", "60:300", "--head", "10", "--output", "3").exit_code == 0
    cut = read_trace(tiny).window(60, 300).head(10)
    trace = read_trace(out)
    assert trace.arrival_s.tolist() == (cut.arrival_s / 2).tolist()
    assert set(trace.output_tokens.tolist()) == {60}
    assert run("scale", tiny, out, "--window", "300:").exit_code == 0
    assert len(read_trace(out)) == (read_trace(tiny).arrival_s >= 300).sum()


@pytest.mark.parametrize("window", ["5", "a:b", "1:2:3"])
def test_a_window_that_is_none(tiny, tmp_path, window):
    with pytest.raises(UsageError, match="must be START:STOP in seconds"):
        run("scale", tiny, tmp_path / "o.csv", "--window", window)


def test_problems_of_a_spec_come_with_their_places(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(
        SPEC.replace("cv: 2", "cv: -2").replace("median", "medium").replace("name: tiny", "name: tiny\nsed: 1")
    )
    with pytest.raises(ScenarioError) as caught:
        run("synth", path, "-o", tmp_path / "o.csv")
    lines = "\n".join(sorted(caught.value.problems))
    assert f"{path}:7:50 streams[0].arrivals.cv: Input should be greater than 0" in lines
    assert "streams[0].input_tokens.medium: Extra inputs are not permitted" in lines
    assert " sed: Extra inputs are not permitted" in lines


def test_errors_are_one_line_each(tmp_path):
    with pytest.raises(SimrouteError, match="no such trace file"):
        run("inspect", tmp_path / "nothing.csv")


@pytest.mark.parametrize("command", ["inspect", "convert", "synth", "scale"])
def test_every_command_has_help(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) > 5


def test_drawing():
    assert columns_chart([0, 4, 8], rows=2) == ["  █", " ██"]
    assert columns_chart([1, 16], rows=2) == [" █", "▁█"]
    assert columns_chart([0, 0], rows=1) == ["  "]
    assert (bar(0.5, 4), bar(0.001, 4), bar(0.0, 4), bar(1.0, 4)) == ("██", "▏", "", "████")
    assert [duration(s) for s in (0, 59, 600, 86_390, 7 * 86_400)] == ["0 s", "59 s", "10 min", "24 h", "7 days"]
