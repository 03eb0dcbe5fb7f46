"""A tiny scenario on disk, and the command line called in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from simroute.cli.main import main

SCENARIO = """\
name: tiny
traffic:
  traces:
    - path: trace.csv
classes:
  default: {slo: {ttft_s: 5, tpot_s: 0.5}}
pools:
  - {name: only, model: Llama-3.1-8B, quantization: fp8, gpu: L40S, replicas: 2}
policies: [least_requests]
"""
REQUESTS = 60


class Outcome(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with the tiny scenario and its trace: `tiny.yaml`, `trace.csv`."""
    rows = "".join(f"{0.2 * i:.1f},{200 + i},{20 + i % 7}\n" for i in range(REQUESTS))
    (tmp_path / "trace.csv").write_text("arrival_s,input_tokens,output_tokens\n" + rows)
    (tmp_path / "tiny.yaml").write_text(SCENARIO)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def simroute(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`simroute(*arguments)` in that directory."""

    def call(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["simroute", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        code = stopped.value.code
        out, err = capsys.readouterr()
        return Outcome(0 if code is None else int(code), out, err)

    return call
