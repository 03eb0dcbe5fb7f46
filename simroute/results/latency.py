"""Latencies of every request and their statistics, defined as in `vllm bench serve`. Imports only `results.run`.

TTFT = first token - arrival, E2E = last token - arrival, TPOT = (E2E - TTFT) / (output tokens - 1). Answers of one
token have no TPOT, nor have those that reach their client in one piece (a cascade's). Percentiles are
`np.percentile`'s, linear between ranks. All over completed requests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simroute.results.itl import ItlHistogram
from simroute.results.run import FleetRun, Status

Floats = NDArray[np.float64]

PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True, slots=True)
class Latencies:
    """Seconds for each request of a run, shape (requests,) each; NaN where undefined or not completed."""

    ttft_s: Floats
    tpot_s: Floats
    e2e_s: Floats


def latencies(run: FleetRun) -> Latencies:
    """TTFT, TPOT and E2E of every request of `run`."""
    completed = run.status == Status.COMPLETED
    ttft_s = np.where(completed, run.first_token_s - run.arrival_s, math.nan)
    e2e_s = np.where(completed, run.finish_s - run.arrival_s, math.nan)
    gaps = (generated_tokens(run) - 1).astype(np.float64)
    gaps[(gaps < 1) | (run.finish_s <= run.first_token_s)] = math.nan
    return Latencies(ttft_s, (e2e_s - ttft_s) / gaps, e2e_s)


def generated_tokens(run: FleetRun) -> NDArray[np.int64]:
    """Output tokens of each request if it completed, shape (requests,)."""
    return run.trace.output_tokens if run.generated_tokens is None else run.generated_tokens


def statistics(values: Floats) -> dict[str, float]:
    """`mean`, `p50`, `p90`, `p95`, `p99` of the values that are not NaN; all NaN when there are none."""
    known = values[~np.isnan(values)]
    if not len(known):
        return dict.fromkeys(("mean", *(f"p{p}" for p in PERCENTILES)), math.nan)
    mean = float(known.mean())
    points = np.percentile(known, PERCENTILES, overwrite_input=True)
    return {"mean": mean} | {f"p{p}": float(point) for p, point in zip(PERCENTILES, points, strict=True)}


def itl_statistics(itl: ItlHistogram) -> dict[str, float]:
    """The same statistics of the pooled inter-token gaps."""
    return {"mean": itl.mean} | {f"p{p}": itl.quantile(p / 100) for p in PERCENTILES}
