"""Prints how fast simroute replays: requests a second, wall time and peak memory, case by case, on one core.

Usage: python benchmarks/throughput.py [--case NAME]... [--repeat N] [--traces DIR]. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from simroute.engine.config import EngineConfig
from simroute.fleet.cluster import simulate
from simroute.fleet.options import FleetOptions
from simroute.fleet.pool import Pool
from simroute.fleet.scrape import Signal, same_signal
from simroute.hardware import catalogue
from simroute.hardware.memory import engine_defaults, kv_blocks
from simroute.hardware.select import step_time_model
from simroute.policy.routing import PolicyContext, make_policy
from simroute.policy.snapshot import VariantInfo
from simroute.results.run import Status
from simroute.rng import stream
from simroute.workload.formats import read_trace
from simroute.workload.prefixes import Ragged
from simroute.workload.trace import Trace

ROOT = Path(__file__).resolve().parents[1]
TRACES = ROOT.parent / "shared/data/traces"
REPLICAS = 8
TEXTS, TEXT_IDS = 5_000, 8
"""System prompts, and prefix ids of each."""
CALLS = 300_000


class Measured(NamedTuple):
    """One replay: requests replayed (all policies together), seconds it took, a word on what was simulated."""

    requests: int
    wall_s: float
    what: str


def poisson_trace(requests: int) -> Trace:
    """80 requests a second, 1,024 +- 256 tokens in and 256 +- 128 out (uniform), no prefixes."""
    rng = stream(0, "benchmark")
    return Trace.build(
        arrival_s=np.cumsum(rng.exponential(1 / 80, requests)),
        input_tokens=rng.integers(768, 1281, requests),
        output_tokens=rng.integers(128, 385, requests),
    )


def llama_on_h100(max_model_len: int) -> Pool:
    """Eight replicas of Llama-3.1-8B in bf16, one H100 each: vLLM's defaults, KV memory and step time as estimated."""
    model, scheme, gpu = catalogue.model("Llama-3.1-8B"), catalogue.scheme("bf16"), catalogue.gpu("H100")
    tokens, seqs = engine_defaults(gpu)
    limits: dict[str, Any] = {"max_model_len": max_model_len, "max_num_batched_tokens": tokens, "max_num_seqs": seqs}
    capacity = kv_blocks(model, scheme, gpu, **limits)
    variant = VariantInfo("h100", model.name, scheme.name, gpu.name, 1, 0.0, 0.0, seqs, {})
    engine = EngineConfig(num_gpu_blocks=capacity.num_gpu_blocks, **limits)
    return Pool("h100", REPLICAS, variant, engine, step_time_model(model, scheme, gpu), 1)


def prompted_trace(requests: int, rate_per_s: float) -> Trace:
    """As `poisson_trace`, each prompt opening with one of 5,000 texts of 512 tokens, the k-th as popular as 1/k."""
    rng = stream(0, "benchmark")
    weights = 1 / np.arange(1, TEXTS + 1)
    text = rng.choice(TEXTS, requests, p=weights / weights.sum())
    ids = (text[:, None] * TEXT_IDS + np.arange(TEXT_IDS)).ravel()
    return Trace.build(
        arrival_s=np.cumsum(rng.exponential(1 / rate_per_s, requests)),
        input_tokens=rng.integers(768, 1281, requests),
        output_tokens=rng.integers(128, 385, requests),
        prefixes=Ragged(np.arange(requests + 1) * TEXT_IDS, ids),
        prefix_block_tokens=64,
    )


def replay(
    trace: Trace, pool: Pool, name: str = "least_requests", options: FleetOptions | None = None, **more: Any
) -> Measured:
    """Replay under one policy, reading nothing and writing nothing: the simulator alone."""
    context = PolicyContext(
        [pool.variant], [0] * pool.replicas, stream(0, "policy"), prefix_block_tokens=trace.prefix_block_tokens
    )
    policy = make_policy(name, more, context)
    start_s = time.perf_counter()
    run = simulate(trace, [pool], policy, policy_name=name, seed=0, options=options)
    wall_s = time.perf_counter() - start_s
    done = run.status == Status.COMPLETED
    p99_s = float(np.percentile((run.first_token_s - trace.arrival_s)[done], 99))
    hit = sum(totals.prefix_hit_tokens for totals in run.replicas) / trace.input_tokens.sum()
    steps = sum(totals.steps for totals in run.replicas)
    return Measured(len(trace), wall_s, f"{steps:,} engine steps, p99 TTFT {p99_s:.3f} s, {hit:.0%} of tokens hit")


def poisson(requests: int) -> Callable[[Path], Measured]:
    """The case of `requests` synthetic requests."""
    return lambda traces: replay(poisson_trace(requests), llama_on_h100(max_model_len=8192))


def thousand(_: Path) -> Measured:
    """A thousand replicas, scored by cached prefix, own count and KV use; metrics a second old."""
    pool = dataclasses.replace(llama_on_h100(max_model_len=8192), replicas=1000, places=1000)
    options = FleetOptions(signals=same_signal(Signal(1.0)))
    weights = {"prefix": 3, "active_requests": 2, "kv_usage": 2}
    return replay(prompted_trace(1_000_000, 10_000.0), pool, "weighted", options, weights=weights)


def mooncake(traces: Path) -> Measured:
    """The Mooncake conversation trace: prompts of 12,000 tokens on average, much reuse."""
    return replay(read_trace(traces / "conversation_trace.jsonl"), llama_on_h100(max_model_len=131_072))


def azure(traces: Path) -> Measured:
    """Both Azure traces merged, seven policies, as a user runs them: start-up, reading and summaries included."""
    files = [str(traces / f"AzureLLMInferenceTrace_{name}.csv") for name in ("conv", "code")]
    command = [sys.executable, "-m", "simroute", "run", str(ROOT / "scenarios/mixed_traffic.yaml"), "--json"]
    command += [argument for file in files for argument in ("--trace", file)]
    start_s = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    wall_s = time.perf_counter() - start_s
    policies = json.loads(done.stdout)["policies"]
    arrived = sum(summary["requests"]["arrived"] for summary in policies.values())
    return Measured(arrived, wall_s, f"{len(policies)} policies, whole command")


CASES: dict[str, tuple[str, Callable[[Path], Measured]]] = {
    "poisson-40k": ("40,000 requests, 8 x Llama-3.1-8B on H100", poisson(40_000)),
    "poisson-1m": ("1,000,000 such requests", poisson(1_000_000)),
    "thousand": ("1,000,000 requests, 1,000 replicas, prefix scoring", thousand),
    "mooncake": ("Mooncake conversations, 8 replicas, prefix caching", mooncake),
    "azure": ("Azure conv + code, seven policies", azure),
}


ON_TRACES = {"mooncake", "azure"}
"""Cases that need the public traces."""


def call_us() -> float:
    """Microseconds one Python method call takes now: the yardstick for machines that differ or are shared."""

    class Counter:
        __slots__ = ("count",)

        def __init__(self) -> None:
            self.count = 0

        def add(self, step: int) -> None:
            self.count += step

    counter = Counter()
    start_s = time.perf_counter()
    for _ in range(CALLS):
        counter.add(1)
    return (time.perf_counter() - start_s) * 1e6 / CALLS


def child(case: str, repeat: int, traces: Path) -> None:
    """Measure one case in this process, pinned to one core where the system can, and print the best as JSON."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    reference_us, best = call_us(), CASES[case][1](traces)
    for _ in range(repeat - 1):
        reference_us = min(reference_us, call_us())
        best = min(best, CASES[case][1](traces), key=lambda measured: measured.wall_s)
    print(json.dumps(best._asdict() | {"call_us": min(reference_us, call_us()), "peak_mb": peak_mb()}))


def peak_mb() -> float:
    """Peak resident memory of this process or, if larger, of a process it started; in 10^6 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    peaks = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return max(peaks) * unit / 1e6


def measure(case: str, repeat: int, traces: Path) -> dict[str, Any]:
    """Measure a case in a process of its own, so that the peak is its own too."""
    command = [sys.executable, __file__, "--child", case, "--repeat", str(repeat), "--traces", str(traces)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def cpu_model() -> str:
    """The processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())


def main(arguments: Sequence[str]) -> None:
    """Print the machine, then a line a case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", choices=list(CASES), help="only this case (repeatable)")
    parser.add_argument("--repeat", type=int, default=3, help="runs a case, of which the fastest counts (default 3)")
    parser.add_argument("--traces", type=Path, default=TRACES, help="directory of the public traces")
    parser.add_argument("--child", choices=list(CASES), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        child(options.child, options.repeat, options.traces)
        return
    print(f"{cpu_model()}, Python {platform.python_version()}, one core, best of {options.repeat}")
    print(f"{'case':<52}{'requests/s':>11}{'wall s':>9}{'peak MB':>9}{'call us':>9}{'calls/request':>15}")
    for case in options.case or CASES:
        if case in ON_TRACES and not options.traces.is_dir():
            print(f"{CASES[case][0]:<52}left out: the public traces are not at {options.traces} (--traces DIR)")
            continue
        row = measure(case, options.repeat, options.traces)
        per_request_us = row["wall_s"] * 1e6 / row["requests"]
        print(
            f"{CASES[case][0]:<52}{1e6 / per_request_us:>11,.0f}{row['wall_s']:>9.2f}{row['peak_mb']:>9.0f}"
            f"{row['call_us']:>9.3f}{per_request_us / row['call_us']:>15,.0f}   {row['what']}",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
