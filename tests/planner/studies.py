"""A tiny scenario to ask what-if questions about, and an executor whose cells are made up."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from simroute.planner.study.cells import At

REQUESTS = 40


def tiny_scenario(folder: Path) -> Path:
    """Two classes on two pools in two zones, one promise: p99 TTFT of chat at most 2 s."""
    rows = "".join(f"{0.5 * i},{300 + i},{10 + i % 5},{'chat' if i % 4 else 'code'}\n" for i in range(REQUESTS))
    (folder / "trace.csv").write_text("arrival_s,input_tokens,output_tokens,request_class\n" + rows)
    pool = {"model": "Llama-3.1-8B", "quantization": "fp8", "gpu": "L40S", "zones": ["a", "b"], "replicas": 2}
    data = {
        "name": "tiny",
        "traffic": {"traces": [{"path": "trace.csv"}]},
        "classes": {"chat": {"slo": {"ttft_s": 2.0}}},
        "pools": [{"name": "one", **pool}, {"name": "two", **pool, "gpu": "H100"}],
        "policies": ["round_robin"],
    }
    (folder / "tiny.yaml").write_text(json.dumps(data))
    return folder / "tiny.yaml"


def bent(
    template: dict[str, Any],
    ttft_s: float,
    *,
    attained: float = 1.0,
    usd: float = 100.0,
    stability: str = "STABLE",
) -> dict[str, Any]:
    """The template with another p99 TTFT of chat (None where OVERLOADED), attainment and cost."""
    summary = copy.deepcopy(template)
    over = stability == "OVERLOADED"
    summary["stability"] = stability
    summary["by_class"]["chat"]["ttft_s"]["p99"] = None if over else ttft_s
    summary["by_class"]["chat"]["slo_attainment"] = attained
    summary["slo_attainment"] = attained
    summary["cost_usd_per_month"] = usd
    return summary


class Oracle:
    """An executor whose cells are given by a function; remembers what was asked. None: nothing comes any more."""

    def __init__(self, cell: Callable[[At], Any]) -> None:
        self.cell = cell
        self.asked: list[At] = []

    def map(self, fn: Any, items: Sequence[At], *, progress: Any = None, stop: Any = None) -> Iterator[Any]:
        """See Executor."""
        for number, at in enumerate(items):
            self.asked.append(at)
            found = self.cell(at)
            if found is None:
                return
            yield number, found
