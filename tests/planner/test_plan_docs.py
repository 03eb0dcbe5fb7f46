"""docs/planning.md: its examples run, its command prints what is shown, it names every key and field."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from planner.spaces import planned, tiny

import simroute
from simroute.planner.execution.executor import InProcess
from simroute.planner.fleets.spec import PlanSpec

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "docs/planning.md"
PAGE = PATH.read_text(encoding="utf-8")


def test_the_examples_run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    failed, tried = doctest.testfile(str(PATH), module_relative=False)
    assert tried > 5
    assert failed == 0


@pytest.mark.skipif(not os.environ.get("SIMROUTE_SLOW"), reason="takes minutes: set SIMROUTE_SLOW=1, as .ci/run does")
def test_the_command_prints_what_is_shown():
    (shown,) = re.findall(r"^```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    command = [sys.executable, "-m", "simroute", "plan", "scenarios/plans/mixed_hour.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    wanted = [line.rstrip() for line in shown.splitlines()]
    printed = [line.rstrip() for line in done.stdout.splitlines()]
    assert wanted[-1] == "..."
    assert printed[: len(wanted) - 1] == wanted[:-1]


def test_every_key_and_field_is_documented(tmp_path: Path):
    document = simroute.plan(planned(tmp_path, tiny(tmp_path, requests=30)), executor=InProcess()).document
    keys = {*document, *document["best"], *document["search"], *document["headroom"], *PlanSpec.model_fields}
    keys -= {"name", "description"}
    assert [key for key in sorted(keys) if f"`{key}`" not in PAGE] == []
