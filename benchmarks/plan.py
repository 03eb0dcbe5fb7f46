"""Prints how long `simroute plan` takes on the Azure hour, its peak memory, and whether the answer is the true optimum.

Usage: python benchmarks/plan.py --traces DIR [--jobs N] [--reduced-only]. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path
from typing import Any

from simroute.planner.execution.cache import Cache
from simroute.planner.execution.executor import ProcessPool
from simroute.planner.fleets.bounds import Bounds
from simroute.planner.fleets.candidates import space_of
from simroute.planner.fleets.evaluate import Candidate, Evaluator
from simroute.planner.fleets.loading import load_plan
from simroute.planner.fleets.search import Search
from simroute.planner.fleets.spec import PlanSpec
from simroute.planner.plan import plan

PLAN = Path(__file__).resolve().parents[1] / "scenarios/plans/azure_hour.yaml"
TRACES = ("AzureLLMInferenceTrace_conv.csv", "AzureLLMInferenceTrace_code.csv")
CLASSES = ("chat", "coding")
REDUCED = {
    "head": 600,
    "candidates": [
        {"model": ["Llama-3.1-8B"], "quantization": ["bf16", "fp8"], "gpu": ["L4", "L40S"], "replicas": {"max": 6}}
    ],
    "fleets": {"most_variants": 2},
}
"""The space of 240 fleets that exhaustive simulation still gets through."""


def main() -> None:
    """Run both cases and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--traces", type=Path, required=True, help="folder with the Azure traces")
    parser.add_argument("--jobs", type=int, default=None, help="processes (default: one a CPU)")
    parser.add_argument("--reduced-only", action="store_true", help="compare with exhaustive simulation alone")
    asked = parser.parse_args()
    spec = azure(asked.traces)
    if not asked.reduced_only:
        whole(spec, asked.jobs)
    reduced(spec, asked.jobs)


def azure(folder: Path) -> PlanSpec:
    """The plan that ships, on the traces in `folder`."""
    classes = [f"traffic.traces[{i}].request_class={name}" for i, name in enumerate(CLASSES)]
    return load_plan(PLAN, traces=[folder / name for name in TRACES], overrides=classes)


def whole(spec: PlanSpec, jobs: int | None) -> None:
    """Time, memory and answer of the whole search."""
    began, cpu = time.perf_counter(), cpu_s()
    result = plan(spec, executor=ProcessPool(jobs))
    search = result.document["search"]
    print(f"azure-hour  {search['candidates']:,} candidates, {search['simulated']:,} replays: ", end="")
    print(
        f"{time.perf_counter() - began:.0f} s, {cpu_s() - cpu:.0f} s of CPU, {peak_mb():.0f} MB in the largest process"
    )
    print(f"            {result.document['answer']}")


def reduced(spec: PlanSpec, jobs: int | None) -> None:
    """The search beside exhaustive simulation on a space of 240 fleets."""
    data: dict[str, Any] = spec.model_dump(exclude_defaults=True)
    data |= {key: value for key, value in REDUCED.items() if key != "head"} | {"policies": [{"name": "least_requests"}]}
    for trace in data["traffic"]["traces"]:
        trace["head"] = REDUCED["head"]
    space = space_of(PlanSpec.model_validate(data))
    everything = Evaluator(space, ProcessPool(jobs), Cache(None))
    fleets = [((o, n),) for o in range(4) for n in range(1, 7)]
    pairs = [((a, n), (b, m)) for a in range(4) for b in range(a + 1, 4) for n in range(1, 7) for m in range(1, 7)]
    everything.ask([Candidate(fleet, 0) for fleet in (*fleets, *pairs)])
    best = Search(everything, Bounds(space)).best
    found = Search(Evaluator(space, ProcessPool(jobs), Cache(None)), Bounds(space))
    found.run()
    same = (best and best.candidate) == (found.best and found.best.candidate)
    named = "none" if best is None else space.key(*best.candidate)
    asked = len(found.evaluator.verdicts)
    print(f"reduced     {len(fleets) + len(pairs)} fleets, {asked} asked about: optimum {named}: ", end="")
    print("the same" if same else "NOT the same")


def cpu_s() -> float:
    """CPU seconds of this process and the ones that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def peak_mb() -> float:
    """The largest resident size of any of them so far."""
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024


if __name__ == "__main__":
    main()
