"""docs/compare.md: its examples run, its command prints what is shown, it explains every key."""

from __future__ import annotations

import doctest
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from simroute.results.regret import decision_table, regret_summary
from simroute.scenario.compare import compare

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / "docs/compare.md"
PAGE = PATH.read_text(encoding="utf-8")


def block(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0]


def test_the_examples_run(monkeypatch):
    monkeypatch.chdir(ROOT)
    failed, tried = doctest.testfile(str(PATH), module_relative=False)
    assert tried > 10
    assert failed == 0


def test_the_command_prints_what_is_shown(tmp_path):
    name, *arguments = shlex.split(block("sh").replace("scenarios/", f"{ROOT}/scenarios/"))
    assert name == "simroute"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "simroute", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    shown = block("text").splitlines()
    assert shown[-1] == "..."
    assert [line.rstrip() for line in done.stdout.splitlines()][: len(shown) - 1] == shown[:-1]


@pytest.fixture
def found(reading, data):
    data["policies"] = ["random", "least_requests"]
    return compare(reading(data).scenario, seeds=2, block_s=2.0, jobs=1, decisions=True)


def test_every_key_and_column_is_explained(found):
    named = set(re.findall(r"`([\w.]+)`", PAGE))
    document = found.document()
    entry = document["differences"]["least_requests"]
    keys = {*document, *document["ranking"]["random"], *entry, *entry["ttft_s.p99"]}
    (log, _) = found.decisions.values()
    keys |= regret_summary(log).keys() | set(decision_table("random", found.built.trace, log).column_names)
    assert keys <= named
    assert json.dumps(document)
