"""Rows of a capability matrix: each variant alone, one replica under Poisson arrivals of equal requests.

A load is a share of the most requests a second that the replica keeps up with, which a closed loop finds: as many
requests in flight as its KV memory and limits allow, each answer starting the next.
May import scenario and everything below it, and of this room candidates and closed_loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simroute.calibration.capability.candidates import Candidate
from simroute.calibration.closed_loop import closed_loop
from simroute.errors import UsageError
from simroute.fleet.cluster import simulate
from simroute.policy.capability import QualityRow
from simroute.policy.snapshot import Decision, Snapshot
from simroute.results.extrapolation import extrapolated
from simroute.results.latency import latencies, statistics
from simroute.results.run import FleetRun
from simroute.results.stability import Stability, stability
from simroute.rng import stream
from simroute.scenario.matrix import Accuracy, Matrix, MatrixRow
from simroute.scenario.quality import Named, quality_table
from simroute.scenario.replay import Progress, replay
from simroute.scenario.steptimes import step_times
from simroute.units import SECONDS_PER_HOUR
from simroute.workload.request import Request
from simroute.workload.trace import Trace

DIGITS = 5
"""Significant digits of a written number."""
CYCLES = 4
"""Times that a closed loop replaces every request in flight; its rate is read in the middle half."""
_TOP_UNSTABLE = ("p99",)
_MILLION = 1e6
_GB = 1e9
_MS = 1e3


@dataclass(frozen=True, slots=True)
class Load:
    """What a row is simulated under: a share of the capacity for requests of these lengths."""

    share: float
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of answer quality besides publications: `given` rows and a scenario's assumptions."""

    given: Sequence[QualityRow] = ()
    assumptions: Sequence[Any] = ()


def capability_matrix(
    candidates: Sequence[Candidate],
    loads: Sequence[Load],
    known: Known,
    *,
    requests: int = 4000,
    seed: int = 0,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Matrix:
    """The matrix of these variants at these loads, simulated in parallel processes (`jobs`: at most so many).

    `progress` is told the fraction done of every row. The same arguments give the same matrix. Raises UsageError for
    a load that a variant cannot serve at all, KeyboardInterrupt on Ctrl-C.
    """
    pairs = [(candidate, load) for candidate in candidates for load in loads]
    for candidate, load in pairs:
        _check_fits(candidate, load)
    found = replay(_Task(pairs, requests, seed), len(pairs), jobs=jobs, progress=progress)
    if any(row is None for row in found):
        raise KeyboardInterrupt
    accuracies = _accuracies([Named(c.pool.variant.model, c.pool.variant.quantization) for c in candidates], known)
    rows = []
    for (candidate, _), numbers in zip(pairs, found, strict=True):
        named = Named(candidate.pool.variant.model, candidate.pool.variant.quantization)
        rows.append(MatrixRow(**_identity(candidate), **(numbers or {}), accuracy=accuracies[named]))
    return Matrix(requests=requests, seed=seed, rows=tuple(rows))


@dataclass(frozen=True, slots=True)
class _Task:
    """Row number i: the numbers of one simulation."""

    pairs: Sequence[tuple[Candidate, Load]]
    requests: int
    seed: int

    def __call__(self, item: int, progress: Callable[[float], None], stop: Callable[[], bool]) -> dict[str, Any] | None:
        candidate, load = self.pairs[item]
        pool = candidate.pool
        rate = load.share * capacity_rps(candidate, load)
        gaps = stream(self.seed, "capability").exponential(size=self.requests)
        trace = Trace.build(
            arrival_s=np.cumsum(gaps) / rate,
            input_tokens=np.full(self.requests, load.input_tokens),
            output_tokens=np.full(self.requests, load.output_tokens),
        )
        run = simulate(trace, [pool], _TheOne(), policy_name="alone", seed=self.seed, progress=progress, stop=stop)
        progress(1.0)
        return None if run.interrupted else _numbers(candidate, load, rate, run)


class _TheOne:
    """The policy of a fleet of one replica."""

    def choose(self, request: Request, snapshots: Sequence[Snapshot]) -> Decision:
        """Always replica 0."""
        return Decision(0)


def capacity_rps(candidate: Candidate, load: Load) -> float:
    """The most requests a second, of these lengths, that one replica keeps up with."""
    engine = candidate.pool.engine
    fitting = candidate.kv_cache_tokens // (load.input_tokens + load.output_tokens)
    concurrency = max(1, min(engine.max_num_seqs, fitting))
    lengths = [(load.input_tokens, load.output_tokens)] * (CYCLES * concurrency)
    return _middle_rate(closed_loop(engine, candidate.pool.step_time, lengths, concurrency).finish_s)


def _middle_rate(finish_s: NDArray[np.float64]) -> float:
    """Requests finished a second between a quarter and three quarters of them: no start, no end."""
    ordered = np.sort(finish_s)
    first, last = len(ordered) // 4, 3 * len(ordered) // 4
    return float((last - first) / (ordered[last] - ordered[first]))


def _check_fits(candidate: Candidate, load: Load) -> None:
    engine = candidate.pool.engine
    needed = load.input_tokens + load.output_tokens
    if needed > min(engine.max_model_len, candidate.kv_cache_tokens):
        raise UsageError(
            f"--shape {load.input_tokens}x{load.output_tokens}: {candidate.variant_id} takes requests of at most "
            f"{min(engine.max_model_len, candidate.kv_cache_tokens):,} tokens: choose a shorter one"
        )


def _identity(candidate: Candidate) -> dict[str, Any]:
    info, memory_bytes = candidate.pool.variant, candidate.gpu_memory_bytes
    return {
        "variant_id": candidate.variant_id,
        "model_id": info.model,
        "quantization": info.quantization,
        "gpu": info.gpu,
        "tensor_parallel": info.tensor_parallel,
        "kv_cache_dtype": candidate.kv_cache_dtype,
        "gpu_memory_gb": None if memory_bytes is None else _short(memory_bytes / _GB),
        "kv_cache_tokens": candidate.kv_cache_tokens,
        "usd_per_hour": candidate.usd_per_hour,
        "basis": candidate.pool.step_time.basis,
    }


def _numbers(candidate: Candidate, load: Load, rate: float, run: FleetRun) -> dict[str, Any]:
    """The part of a row that the simulation gives."""
    label = stability(run)
    times = latencies(run)
    ttft, tpot = (
        {name: None if value is None else _short(value * _MS) for name, value in _sound(values, label).items()}
        for values in (times.ttft_s, times.tpot_s)
    )
    tokens_per_s = _middle_rate(run.finish_s) * load.output_tokens
    usd = candidate.usd_per_hour
    name = candidate.pool.name
    return {
        "extrapolated": tuple(extrapolated(run, step_times([candidate.pool]))[name]),
        "load": load.share,
        "requests_per_s": _short(rate),
        "input_tokens": load.input_tokens,
        "output_tokens": load.output_tokens,
        "ttft_p50_ms": ttft["p50"],
        "ttft_p99_ms": ttft["p99"],
        "tpot_p50_ms": tpot["p50"],
        "tpot_p99_ms": tpot["p99"],
        "throughput_tok_s": _short(tokens_per_s),
        "cost_per_1m_tokens": None if usd is None else _short(usd / SECONDS_PER_HOUR / tokens_per_s * _MILLION),
        "is_stable": label is Stability.STABLE,
    }


def _sound(values: NDArray[np.float64], label: Stability) -> Mapping[str, float | None]:
    """Percentiles, None for those that do not exist or that only the trace's length decides."""
    hidden = _TOP_UNSTABLE if label is Stability.OVERLOADED else ()
    known = statistics(values)
    return {name: None if name in hidden or np.isnan(value) else value for name, value in known.items()}


def _accuracies(variants: Iterable[Named], known: Known) -> dict[Named, dict[str, Accuracy]]:
    """Of each variant, the quality of every class that something is known of, `default` among them."""
    variants = tuple(dict.fromkeys(variants))
    table = quality_table(variants, known.assumptions, known.given)
    return {variant: {row.request_class: _accuracy(row) for row in table.rows_of(variant)} for variant in variants}


def _accuracy(row: QualityRow) -> Accuracy:
    mean, low, high = map(_short, (row.mean, row.low, row.high))
    return Accuracy(mean=mean, low=low, high=high, source=row.source, assumed=row.assumed)


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
