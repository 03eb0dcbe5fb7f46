"""docs/engine.md: its examples run, its counts are those of the logs, its table names every file."""

from __future__ import annotations

import doctest
from pathlib import Path

from engine.cases import GOLDEN, read

ROOT = Path(__file__).resolve().parents[2]
DOC = ROOT / "docs" / "engine.md"


def test_examples_of_the_engine_page():
    results = doctest.testfile(str(DOC), module_relative=False)
    assert results.attempted > 15
    assert results.failed == 0


def test_counts_and_files_are_complete():
    text = DOC.read_text(encoding="utf-8")
    steps = sum(len(read(path)["steps"]) for path in GOLDEN)
    assert f"| {len(GOLDEN)} | {steps:,} |" in text
    for module in (ROOT / "simroute" / "engine").glob("[a-z]*.py"):
        assert f"`{module.name}`" in text
