"""docs/traces.md: its examples run, its tables are complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from simroute.cli.trace import app
from simroute.workload.formats import FORMATS, read_trace
from simroute.workload.formats.native import COLUMNS
from simroute.workload.inspect import inspect, seen_tokens
from simroute.workload.synth import MixSpec, synthesize

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "traces.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_the_csv_example_means_what_the_text_says(tmp_path):
    (example,) = blocks("csv")
    (tmp_path / "t.csv").write_text(example)
    trace = read_trace(tmp_path / "t.csv")
    assert trace.notes == ()
    assert seen_tokens(trace).tolist() == [0, 0, 440]
    assert trace.input_tokens[2] == trace.input_tokens[0] + trace.output_tokens[0] + 80


def test_the_specification_makes_a_trace():
    from simroute.yamlfile import parse

    (example,) = blocks("yaml")
    trace = synthesize(MixSpec.model_validate(parse(example).value))
    assert trace.class_names == ("chat", "classification")
    assert trace.has_prefixes


def test_the_python_example_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    (example,) = blocks("python")
    exec(compile(example, "docs/traces.md", "exec"), {})
    assert len(capsys.readouterr().out.split()) == 3


COMMANDS = [line for block in blocks("console") for line in block.splitlines()]


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_exist_with_these_options(line):
    program, group, command, *arguments = line.split()
    assert (program, group) == ("simroute", "trace")
    shown = CliRunner().invoke(app, [command, "--help"]).stdout
    for option in (argument for argument in arguments if argument.startswith("-")):
        assert option in shown


def test_tables_and_numbers_are_complete():
    for name in (*FORMATS, *COLUMNS):
        assert f"| `{name}` |" in TEXT
    trace = read_trace(ROOT / "traces" / "mixed_day.parquet")
    rate = inspect(trace).rate
    assert f"{len(trace):,} requests in 24 hours" in TEXT
    assert f"{rate.mean_per_s:.2f} requests a second on average" in TEXT
