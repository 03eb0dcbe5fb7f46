"""A scenario's plain data to vary, and a way to write and load it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simroute.scenario.loader import Loaded, read


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Any]:
    """A valid scenario beside a trace of 20 requests, one second apart, as `trace.csv`."""
    rows = "".join(f"{i},{100 + i},{10 + i},{'chat' if i % 2 else 'coding'}\n" for i in range(20))
    (tmp_path / "trace.csv").write_text("arrival_s,input_tokens,output_tokens,request_class\n" + rows)
    return {
        "name": "tiny",
        "traffic": {"traces": [{"path": "trace.csv"}]},
        "pools": [{"name": "only", "model": "Qwen3-8B", "quantization": "fp8", "gpu": "L40S"}],
    }


@pytest.fixture
def reading(tmp_path: Path) -> Callable[[dict[str, Any]], Loaded]:
    """`reading(data)`: written to a file (JSON is YAML) and loaded from it."""

    def read_back(data: dict[str, Any]) -> Loaded:
        path = tmp_path / "scenario.yaml"
        path.write_text(json.dumps(data))
        return read(path)

    return read_back
