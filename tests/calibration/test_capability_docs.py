"""docs/capability.md: its commands run, its files are read, it explains every key."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from simroute.calibration.capability.tasks import Task, read_tasks
from simroute.scenario.matrix import Accuracy, Matrix, MatrixRow, read_quality

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/capability.md").read_text(encoding="utf-8")


def block(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0]


@pytest.mark.parametrize("line", block("sh").splitlines())
def test_the_commands_run(tmp_path, line):
    name, *arguments = shlex.split(line.replace("scenarios/", f"{ROOT}/scenarios/"))
    assert name == "simroute"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "simroute", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    if "--json" not in arguments:
        printed = "\n".join(line.rstrip() for line in done.stdout.splitlines()).strip("\n")
        assert printed == block("text").strip("\n")


def test_the_tasks_and_the_table_are_read(tmp_path):
    (tmp_path / "own.jsonl").write_text(block("json"))
    (tmp_path / "own.csv").write_text(block("csv"))
    first, second, third = read_tasks(tmp_path / "own.jsonl")
    assert first.is_right("Refund.")
    assert second.is_right("12 * 64 is 768.\n#### 768")
    assert third.is_right('{"capital": "Paris"}')
    assert len(read_quality(tmp_path / "own.csv")) == 2


def test_every_key_is_explained():
    named = set(re.findall(r"`(\w+)`", PAGE))
    assert {*MatrixRow.model_fields, *Accuracy.model_fields, *Matrix.model_fields, *Task.model_fields} <= named
