"""docs/calibration.md names every column, key and metric, and its commands are spelled as they are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from calibration import synthetic
from simroute.calibration.runs import ITERATION_COLUMNS, REQUEST_COLUMNS, Phase, RunMeta
from simroute.calibration.validate import chosen_phases, validate
from simroute.cli.calibrate import app

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "calibration.md").read_text("utf-8")
NAMED = set(re.findall(r"`(\w+)`", PAGE))
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if line.startswith("simroute calibrate")
]


def test_every_column_and_field_is_explained():
    fields = {name for model in (RunMeta, Phase) for name in model.model_json_schema()["properties"]}
    assert {*ITERATION_COLUMNS, *REQUEST_COLUMNS, *fields} <= NAMED


def test_every_key_of_validation_json_is_explained():
    run = synthetic.run(rates=(3.0,))
    document = validate(synthetic.calibration(), run, chosen_phases(run), replicates=1).document
    (phase,) = document["phases"].values()
    entry = phase["metrics"]["ttft_s"]["p99"]
    parts = (document, phase, phase["metrics"], phase["metrics"]["ttft_s"], entry, phase["requests"])
    assert {key for part in (*parts, phase["stability"], phase["intervals"]) for key in part} <= NAMED


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_have_the_options_that_the_page_gives_them(command):
    verb, *arguments = command[2:]
    known = {
        option for parameter in typer.main.get_command(app).commands[verb].params for option in parameter.opts
    }  # fmt: skip
    arguments = arguments[: arguments.index("--")] if "--" in arguments else arguments
    assert {argument for argument in arguments if argument.startswith("-")} <= known
