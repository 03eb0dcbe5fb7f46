"""What one replica can do, from its name alone: memory, seats, throughput at saturation, latency against load, cost.

Every request is as long as every other. Saturation is a closed loop in which as many requests are in flight as seats
and KV memory hold; the curve is the same replica under Poisson arrivals at fractions of that rate.
Imports scenario and everything below it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import ValidationError

from simroute.errors import UsageError
from simroute.fleet.cluster import simulate
from simroute.fleet.options import ClientOptions, FleetOptions
from simroute.fleet.pool import NOTHING, Pool
from simroute.hardware import catalogue
from simroute.policy.snapshot import Decision, Snapshot
from simroute.results.extrapolation import extrapolated
from simroute.results.latency import latencies, statistics
from simroute.results.metrics import rounded
from simroute.results.run import FleetRun
from simroute.results.stability import Stability, stability
from simroute.rng import stream
from simroute.scenario.matrix import first_problem
from simroute.scenario.models import PoolSpec, PriceSpec
from simroute.scenario.steptimes import basis_notes, step_times
from simroute.scenario.variants import Variant, pool_of, variant_of
from simroute.units import SECONDS_PER_HOUR
from simroute.workload.request import Request
from simroute.workload.trace import Trace

LOADS = (0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95)
"""Points of the curve, as shares of the rate at saturation."""
REQUESTS = 3000
"""Requests simulated at each point, or ten times the seats where that is more; the first third fills the replica."""
CYCLES = 6
"""Times that the closed loop replaces every request in flight."""
_FEWEST = 60
_POOL = "replica"
_MILLION = 1e6


@dataclass(frozen=True, slots=True)
class LoadPoint:
    """One replica at a share `load` of its saturation; seconds, None where a percentile cannot be stated."""

    load: float
    requests_per_s: float
    output_tokens_per_s: float
    running: float
    ttft_p50_s: float | None
    ttft_p99_s: float | None
    tpot_p50_s: float | None
    tpot_p99_s: float | None
    usd_per_1m_output_tokens: float | None
    stability: str
    extrapolated: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one replica can do with requests of these lengths; `usd_per_hour` is None where no price is known."""

    variant: Variant
    pool: Pool
    input_tokens: int
    output_tokens: int
    usd_per_hour: float | None
    requests_per_s: float
    loads: tuple[LoadPoint, ...]
    seed: int

    @property
    def max_concurrency(self) -> int:
        """Requests of these lengths that run at once when each holds all its tokens."""
        return _seats(self.pool, self.input_tokens + self.output_tokens)

    def document(self) -> dict[str, Any]:
        """All of it as plain JSON data; docs/capacity.md defines every key."""
        spec, hardware, engine = self.variant.spec, self.variant.hardware, self.pool.engine
        known = self.variant.calibration
        document = {
            "answer": self._answer(),
            "model": hardware.model.name,
            "quantization": hardware.scheme.name,
            "gpu": hardware.gpu.name,
            "tensor_parallel": spec.tensor_parallel,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "usd_per_hour": self.usd_per_hour,
            "price": hardware.price_source if self.usd_per_hour is not None else None,
            "memory": self._memory(),
            "kv_tokens": self.variant.capacity.usable_tokens,
            "max_model_len": engine.max_model_len,
            "max_num_seqs": engine.max_num_seqs,
            "max_num_batched_tokens": engine.max_num_batched_tokens,
            "max_concurrency": self.max_concurrency,
            "limited_by": "max_num_seqs" if self.max_concurrency == engine.max_num_seqs else "KV memory",
            "saturation": self._saturation(),
            "loads": [{name: getattr(point, name) for name in LoadPoint.__slots__} for point in self.loads],
            "basis": self.pool.step_time.basis,
            "calibration": known and {"path": known.name, "sha256": known.sha256, "vllm": known.calibration.vllm},
            "seed": self.seed,
            "notes": self._notes(),
        }
        return rounded(document)  # type: ignore[no-any-return]

    def _memory(self) -> dict[str, Any]:
        """Bytes on each GPU (its fullest, where they differ)."""
        of = self.variant.capacity
        parts = ("weight_bytes", "activation_bytes", "graph_bytes", "non_torch_bytes", "kv_bytes")
        total = {"gpu_bytes": self.variant.hardware.gpu.memory_bytes}
        return total | {part: getattr(of, part) for part in parts} | {"source": of.source}

    def _saturation(self) -> dict[str, Any]:
        rate, usd = self.requests_per_s, self.usd_per_hour
        tokens = self.input_tokens + self.output_tokens
        return {
            "requests_per_s": rate,
            "output_tokens_per_s": rate * self.output_tokens,
            "tokens_per_s": rate * tokens,
            "usd_per_1m_output_tokens": _usd_per_1m(usd, rate * self.output_tokens),
            "usd_per_1m_tokens": _usd_per_1m(usd, rate * tokens),
        }

    def _answer(self) -> str:
        """The whole in one sentence."""
        spec, hardware = self.variant.spec, self.variant.hardware
        gpus = f"{spec.tensor_parallel} x {hardware.gpu.name}" if spec.tensor_parallel > 1 else hardware.gpu.name
        tokens_per_s = self.requests_per_s * self.output_tokens
        usd = _usd_per_1m(self.usd_per_hour, tokens_per_s)
        cost = "" if usd is None else f", ${usd:,.2f} per 1M of them"
        at_half = next((p for p in self.loads if p.load == 0.5 and p.ttft_p99_s is not None), None)
        latency = "" if at_half is None else f"; at half that load p99 TTFT is {at_half.ttft_p99_s:.3g} s"
        return (
            f"{hardware.model.name} {hardware.scheme.name} on {gpus}, {self.input_tokens:,} tokens in and "
            f"{self.output_tokens:,} out: {self.requests_per_s:.3g} requests a second at saturation "
            f"({tokens_per_s:,.0f} output tokens a second{cost}), {self.max_concurrency:,} at once{latency}."
        )

    def _notes(self) -> list[str]:
        notes = [*self.variant.notes, *basis_notes([self.pool], [self.variant])]
        if self.pool.step_time.estimated:
            notes.append("step times are estimated by a roofline model, not calibrated on this hardware")
        beyond = dict.fromkeys(reason for point in self.loads for reason in point.extrapolated)
        notes += [f"extrapolated: {reason}" for reason in beyond]
        if self.usd_per_hour is None:
            notes.append(f"no on-demand price of {self.variant.hardware.gpu.name} is known: give one")
        return notes


def capacity(
    model: str,
    gpu: str,
    *,
    quantization: str | None = None,
    tensor_parallel: int = 1,
    input_tokens: int = 1024,
    output_tokens: int = 256,
    usd_per_gpu_hour: float | None = None,
    calibrations: str | None = None,
    loads: Sequence[float] = LOADS,
    seed: int = 0,
) -> Capacity:
    """What one replica of `model` on `gpu` can do with requests of `input_tokens` and `output_tokens`.

    Left out, `quantization` is what the model was published in and the price the catalogue's first; `calibrations` is
    as in a scenario. `loads` are shares of the rate at saturation. The same arguments give the same numbers.
    Raises CatalogueError, CapacityError and CalibrationError as a scenario does, UsageError for impossible numbers
    and for requests longer than the replica takes.
    """
    _check(input_tokens, output_tokens, loads)
    priced = usd_per_gpu_hour is not None or any(offer.term == "on_demand" for offer in catalogue.prices(gpu))
    scheme = catalogue.model(model).native_scheme if quantization is None else quantization
    price = PriceSpec() if priced and usd_per_gpu_hour is None else None
    try:
        spec = PoolSpec(
            name=_POOL,
            model=model,
            quantization=scheme,
            gpu=gpu,
            tensor_parallel=tensor_parallel,
            price=price or PriceSpec(usd_per_gpu_hour=usd_per_gpu_hour or 0.0),
        )
    except ValidationError as error:
        raise UsageError(first_problem(error)) from None
    variant = variant_of(spec, calibrations)
    pool = pool_of(variant, {})
    _check_fits(pool, input_tokens, output_tokens)
    usd_per_hour = pool.variant.usd_per_hour if priced else None
    rate = saturation_rps(pool, input_tokens, output_tokens, seed)
    points = tuple(_point(pool, share, rate, (input_tokens, output_tokens), usd_per_hour, seed) for share in loads)
    return Capacity(variant, pool, input_tokens, output_tokens, usd_per_hour, rate, points, seed)


def saturation_rps(pool: Pool, input_tokens: int, output_tokens: int, seed: int = 0) -> float:
    """Requests a second that one replica of `pool` finishes when every seat is always taken.

    A closed loop with a user for each seat, who wait for nothing outside the engine. The first answer of each has a
    length drawn evenly from 1 to `output_tokens`, as if it had begun earlier, so that the seats do not march in step.
    Counted is what ends between the last of those and the last new request.
    """
    seats = _seats(pool, input_tokens + output_tokens)
    requests = max(CYCLES * seats, 2 * seats + _FEWEST)
    lengths = np.full(requests, output_tokens)
    lengths[:seats] = stream(seed, "capacity", "start").integers(1, output_tokens + 1, seats)
    trace = Trace.build(arrival_s=np.zeros(requests), input_tokens=input_tokens, output_tokens=lengths)
    run = _alone(replace(pool, request=NOTHING), trace, seed, FleetOptions(clients=ClientOptions(users=seats)))
    ended = np.sort(run.finish_s)[seats : requests - seats]
    return float((len(ended) - 1) / (ended[-1] - ended[0]))


def _point(
    pool: Pool, load: float, rate: float, lengths: tuple[int, int], usd_per_hour: float | None, seed: int
) -> LoadPoint:
    """The replica at a share of its rate at saturation, measured after the first third of the requests."""
    input_tokens, output_tokens = lengths
    requests = max(REQUESTS, 10 * _seats(pool, sum(lengths)))
    gaps = stream(seed, "capacity", "arrivals").exponential(size=requests)
    arrival_s = np.cumsum(gaps) / (load * rate)
    trace = Trace.build(arrival_s=arrival_s, input_tokens=input_tokens, output_tokens=output_tokens)
    run = _alone(pool, trace, seed, FleetOptions())
    label, times = stability(run), latencies(run)
    warm = slice(requests // 3, None)
    ttft, tpot = (_sound(statistics(column[warm]), label) for column in (times.ttft_s, times.tpot_s))
    settled = (run.timeline.t_s >= arrival_s[requests // 3]) & (run.timeline.t_s <= arrival_s[-1])
    ended = np.sort(run.finish_s)[requests // 3 : 2 * requests // 3]
    tokens_per_s = (len(ended) - 1) / float(ended[-1] - ended[0]) * output_tokens
    return LoadPoint(
        load=load,
        requests_per_s=load * rate,
        output_tokens_per_s=tokens_per_s,
        running=float(run.timeline.running[settled].mean()) if settled.any() else 0.0,
        ttft_p50_s=ttft("p50"),
        ttft_p99_s=ttft("p99"),
        tpot_p50_s=tpot("p50"),
        tpot_p99_s=tpot("p99"),
        usd_per_1m_output_tokens=_usd_per_1m(usd_per_hour, tokens_per_s),
        stability=str(label),
        extrapolated=tuple(extrapolated(run, step_times([pool]))[pool.name]),
    )


class _TheOne:
    """The policy of a fleet of one replica."""

    def choose(self, request: Request, snapshots: Sequence[Snapshot]) -> Decision:
        """Always replica 0."""
        return Decision(0)


def _alone(pool: Pool, trace: Trace, seed: int, options: FleetOptions) -> FleetRun:
    return simulate(trace, [pool], _TheOne(), policy_name="alone", seed=seed, options=options)


def _sound(known: dict[str, float], label: Stability) -> Callable[[str], float | None]:
    """Looks a percentile up: None where there is none, or where only the length of the run decides on it."""

    def value(name: str) -> float | None:
        hidden = label is Stability.OVERLOADED and name == "p99"
        return None if hidden or np.isnan(known[name]) else known[name]

    return value


def _seats(pool: Pool, tokens: int) -> int:
    """Requests of so many tokens that run at once: as KV memory holds, and no more than max_num_seqs."""
    engine = pool.engine
    blocks = -(-tokens // engine.block_size)
    return max(1, min(engine.max_num_seqs, (engine.num_gpu_blocks - 1) // blocks))


def _usd_per_1m(usd_per_hour: float | None, tokens_per_s: float) -> float | None:
    return None if usd_per_hour is None else usd_per_hour / SECONDS_PER_HOUR / tokens_per_s * _MILLION


def _check(input_tokens: int, output_tokens: int, loads: Sequence[float]) -> None:
    for what, tokens in (("input", input_tokens), ("output", output_tokens)):
        if tokens < 1:
            raise UsageError(f"{what} tokens: must be at least 1, got {tokens}")
    for load in loads:
        if not 0 < load < 1:
            raise UsageError(f"load: must be above 0 and below 1 (1 is saturation), got {load:g}")


def _check_fits(pool: Pool, input_tokens: int, output_tokens: int) -> None:
    """Refuse a request that the replica would reject."""
    engine = pool.engine
    most = min(engine.max_model_len, (engine.num_gpu_blocks - 1) * engine.block_size)
    if input_tokens + output_tokens > most:
        raise UsageError(
            f"requests of {input_tokens:,} tokens in and {output_tokens:,} out do not fit: this replica takes "
            f"{most:,} in all (max_model_len, KV cache): give shorter ones, more GPUs or a smaller model"
        )
