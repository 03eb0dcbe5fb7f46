"""What a month costs that is replayed in windows, and how far it is from the replay in one piece.

    python benchmarks/month.py [--requests N] [--days D] [--split N] [--jobs N] [--whole]

10,000,000 requests over 30 days on 32 replicas, a window a day, through the command line as a user would. Target on two
quiet cores: 6 minutes, 4 GB for all processes together, every percentile within 1% of the unsplit run (`--whole`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from simroute.rng import stream
from simroute.workload.formats import write_trace
from simroute.workload.trace import Trace

DAY_S = 86_400
SWING = 0.6
"""How far the rate swings around its mean over a day."""
_LOOK_S = 0.5


def month(folder: Path, requests: int, days: float, replicas: int) -> Path:
    """A rate that swings over the day, lengths from lognormal distributions, one pool; gives the scenario's path."""
    rng = stream(0, "month")
    t_s = np.arange(0.0, days * DAY_S + 60.0, 60.0)
    rate = 1 + SWING * np.sin(2 * np.pi * (t_s / DAY_S - 0.375))
    due = np.concatenate([[0.0], np.cumsum((rate[1:] + rate[:-1]) / 2 * 60.0)])
    arrival_s = np.interp(np.sort(rng.random(requests)) * due[-1], due, t_s)
    trace = Trace.build(
        arrival_s=arrival_s - arrival_s[0],
        input_tokens=np.clip(rng.lognormal(7.9, 0.7, requests), 8, 16_000).astype(int),
        output_tokens=np.clip(rng.lognormal(5.7, 0.7, requests), 1, 2_000).astype(int),
    )
    write_trace(trace, folder / "month.parquet")
    pool = {"name": "a", "model": "Llama-3.1-8B", "quantization": "fp8", "gpu": "L4", "replicas": replicas}
    data = {"name": "month", "traffic": {"traces": [{"path": "month.parquet"}]}, "pools": [pool]}
    data |= {"classes": {"default": {"slo": {"ttft_s": 2.0, "tpot_s": 0.1}}}, "policies": ["least_requests"]}
    (folder / "month.yaml").write_text(json.dumps(data))
    return folder / "month.yaml"


def run(what: str, scenario: Path, *options: str) -> dict[str, Any]:
    """`simroute run` with these options: prints what it took, gives its summary."""
    output = scenario.parent / what
    command = [sys.executable, "-m", "simroute", "run", str(scenario), "-o", str(output), "--quiet", *options]
    began_s, most_mb = time.perf_counter(), 0.0
    process = subprocess.Popen(command)
    while process.poll() is None:
        most_mb = max(most_mb, sum(map(megabytes, tree(process.pid))))
        time.sleep(_LOOK_S)
    if process.returncode:
        sys.exit(process.returncode)
    print(f"{what:<16} {time.perf_counter() - began_s:.0f} s, {most_mb:,.0f} MB at most in all processes together")
    summary: dict[str, Any] = json.loads((output / "summary.json").read_text())["policies"]["least_requests"]
    return summary


def tree(pid: int) -> Iterator[int]:
    """A process and all that descend from it."""
    yield pid
    with suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from tree(int(child))


def megabytes(pid: int) -> float:
    """The memory of a process, what it shares with others counted in equal parts to each (Linux)."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def largest_difference(split: dict[str, Any], whole: dict[str, Any]) -> str:
    """The percentile that differs most between the two, as a sentence."""
    changes = {
        f"{latency}.{point}": split[latency][point] / whole[latency][point] - 1
        for latency in ("ttft_s", "tpot_s", "e2e_s", "itl_s")
        for point in ("p50", "p90", "p95", "p99")
    }
    worst = max(changes, key=lambda name: abs(changes[name]))
    return f"largest difference of {len(changes)} percentiles {changes[worst]:+.4%} ({worst})"


def main() -> None:
    """Print a line a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000_000)
    parser.add_argument("--days", type=float, default=30)
    parser.add_argument("--replicas", type=int, default=32)
    parser.add_argument("--split", type=int, default=30, help="windows")
    parser.add_argument("--jobs", type=int, default=None, help="processes (default: one a CPU)")
    parser.add_argument("--whole", action="store_true", help="replay it in one piece, too, and compare")
    asked = parser.parse_args()
    jobs = [] if asked.jobs is None else ["--jobs", str(asked.jobs)]
    with tempfile.TemporaryDirectory() as folder:
        scenario = month(Path(folder), asked.requests, asked.days, asked.replicas)
        print(f"{asked.requests:,} requests over {asked.days:g} days on {asked.replicas} replicas", flush=True)
        split = run("split", scenario, "--split", str(asked.split), *jobs)
        print(f"                 {split['notes'][-1]}")
        kept = sum(path.stat().st_size for path in Path(folder).glob("split/.simroute-cache/*/*"))
        print(f"                 {kept / 1e6:,.0f} MB of windows kept")
        run("from the cache", scenario, "--split", str(asked.split), "--cache", f"{folder}/split/.simroute-cache")
        if asked.whole:
            whole = run("in one piece", scenario)
            print(f"                 {largest_difference(split, whole)}")
    used = os.times()
    print(f"CPU              {used.children_user + used.children_system:.0f} s in all runs")


if __name__ == "__main__":
    main()
