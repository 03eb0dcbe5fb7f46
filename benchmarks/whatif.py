"""What a what-if costs: some 70 cells on 50,000 requests, then the same again from the cache.

    python benchmarks/whatif.py [--requests N] [--jobs N]

Six changes beside the scenario as it is, at seven rates, and what to buy; one change breaks today's traffic. Target on
two quiet cores: 3 minutes for the first run.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from simroute.planner.execution.cache import Cache
from simroute.planner.execution.executor import ProcessPool
from simroute.planner.study.changes import Change, Loss
from simroute.planner.whatif import WhatIf, whatif
from simroute.rng import stream

RATES = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
CHANGES = (
    Change(input=1.5),
    Change(output=1.5),
    Change(input=2.0, output=6.0),
    Change(lose=(Loss(pool="large"),)),
    Change(price=0.7),
    Change(set={"pools[small].gpu": "H100"}),
)


def scenario(folder: Path, requests: int) -> Path:
    """Chat and coding at 20 requests a second on two pools, with lengths drawn from lognormal distributions."""
    rng = stream(0, "benchmark")
    arrival_s = np.cumsum(rng.exponential(1 / 20, requests))
    prompts = np.clip(rng.lognormal(6.3, 0.9, requests), 8, 8000).astype(int)
    answers = np.clip(rng.lognormal(4.8, 0.8, requests), 1, 2000).astype(int)
    classes = np.where(rng.random(requests) < 0.7, "chat", "coding")
    rows = zip(arrival_s, prompts, answers, classes, strict=True)
    lines = "".join(f"{at:.6f},{prompt},{answer},{name}\n" for at, prompt, answer, name in rows)
    (folder / "trace.csv").write_text("arrival_s,input_tokens,output_tokens,request_class\n" + lines)
    pools = [
        {"name": "small", "model": "Llama-3.1-8B", "quantization": "fp8", "gpu": "L40S", "replicas": 2},
        {"name": "large", "model": "Llama-3.1-8B", "quantization": "fp8", "gpu": "H100", "replicas": 2},
    ]
    slo = {"chat": {"slo": {"ttft_s": 1.0, "tpot_s": 0.05}}, "coding": {"slo": {"ttft_s": 2.0, "tpot_s": 0.05}}}
    data = {"name": "benchmark", "traffic": {"traces": [{"path": "trace.csv"}]}, "classes": slo, "pools": pools}
    (folder / "scenario.yaml").write_text(json.dumps(data))
    return folder / "scenario.yaml"


def timed(path: Path, jobs: int | None, cache: Cache) -> tuple[WhatIf, float]:
    """The study and the seconds it took."""
    start_s = time.perf_counter()
    found = whatif(path, CHANGES, rates=RATES, executor=ProcessPool(jobs), cache=cache)
    return found, time.perf_counter() - start_s


def main() -> None:
    """Print a line a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--jobs", type=int, default=None, help="processes (default: one a CPU)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = scenario(Path(folder), arguments.requests)
        for what in ("simulated", "from the cache"):
            found, seconds = timed(path, arguments.jobs, Cache(Path(folder) / "cache"))
            counts = found.cells.counts()
            print(f"{what:<15} {counts['cells']} cells of {arguments.requests:,} requests: {seconds:.1f} s")
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(
        f"CPU {own.ru_utime + children.ru_utime:.1f} s; most memory of a process {children.ru_maxrss / 2**20:.2f} GiB"
    )
    print(found.document()["answer"])


if __name__ == "__main__":
    main()
