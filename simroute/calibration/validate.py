"""How well a calibration predicts load it has not seen: measured against predicted, with intervals.

Owns the comparison and the layout of validation.json, which docs/calibration.md defines. May import calibration's
runs, replay and ingest, and everything below calibration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from simroute.calibration.ingest.described import NOT_RECORDED
from simroute.calibration.replay import POOL, TOKENS_PER_CHUNK, Measured, engine_config, measured, replayed
from simroute.calibration.runs import Phase, Run, RunMeta
from simroute.engine.config import EngineConfig
from simroute.errors import CalibrationError, CatalogueError, UsageError, unknown
from simroute.hardware import catalogue
from simroute.hardware.calibration import Calibration
from simroute.results.extrapolation import StepTimes, extrapolated
from simroute.results.intervals import ENOUGH, LEVEL, interval
from simroute.results.latency import generated_tokens, itl_statistics, latencies, statistics
from simroute.results.metrics import rounded
from simroute.results.run import FleetRun
from simroute.results.stability import stability
from simroute.rng import stream

LATENCIES = ("ttft_s", "tpot_s", "itl_s", "e2e_s")
POINTS = ("mean", "p50", "p90", "p99")
TOTALS = ("requests_per_s", "output_tokens_per_s", "duration_s", "preemptions")
NUMBERS = (*((latency, point) for latency in LATENCIES for point in POINTS), *((total,) for total in TOTALS))
"""Everything that is compared, by its place among a phase's metrics."""
REPLICATES = 20
FEW_REQUESTS = 100
"""Of fewer requests, the 99th percentile is close to the largest value, and chance decides it."""
_FRACTION_STEP = 0.005
_ROUNDING = 1e-9
"""Relative error of sums of floats: an interval without width still holds what it equals."""

Numbers = dict[tuple[str, ...], float]
"""A value for each of `NUMBERS`; NaN where undefined."""
Progress = Callable[[Sequence[float]], None]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One load phase: as measured, as predicted, and what validation.json says about it."""

    measured: Measured
    predicted: FleetRun
    summary: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Validation:
    """All of validation.json, and the runs behind it, by the name of their phase."""

    document: dict[str, Any]
    phases: dict[str, Comparison]


def metrics() -> dict[str, tuple[tuple[str, ...], str]]:
    """What an assertion may name: where it stands in a phase's summary, and its dimension, always a share.

    `tpot_mean_ape` is the absolute error of the mean TPOT relative to the measured one, `tpot_mean_error` the same
    with its sign, `held_share` the share of measured values that lie in their interval.
    """
    named = {keys[0] if len(keys) == 1 else f"{keys[0].removesuffix('_s')}_{keys[1]}": keys for keys in NUMBERS}
    errors = {
        f"{name}_{kind}": (("metrics", *keys, kind), "share")
        for name, keys in named.items()
        for kind in ("ape", "error")
    }
    return errors | {"held_share": (("intervals", "share"), "share")}


def chosen_phases(run: Run, names: Sequence[str] = (), fractions: Sequence[float] = ()) -> tuple[Phase, ...]:
    """The load phases with these names or fractions of capacity; all of them when neither is given.

    Raises UsageError for one that the run does not have, CalibrationError for a run without load.
    """
    loads = run.loads()
    if not loads:
        raise CalibrationError(f"{run.name}: no load phase to validate on: measure with open-loop load")
    known = {phase.name: phase for phase in loads}
    wanted = []
    for name in names:
        if name not in known:
            raise UsageError(f"--phase: {unknown('load phase', name, known)}")
        wanted.append(known[name])
    for fraction in fractions:
        near = [p for p in loads if p.fraction is not None and abs(p.fraction - fraction) <= _FRACTION_STEP]
        if not near:
            has = ", ".join(f"{p.fraction:g}" for p in loads if p.fraction is not None) or "none with a known fraction"
            raise UsageError(f"--load {fraction:g}: the run has loads {has}")
        wanted += near
    return tuple(dict.fromkeys(wanted)) or loads


def validate(
    calibration: Calibration,
    run: Run,
    phases: Sequence[Phase],
    *,
    overrides: Mapping[str, Any] | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
    sha256: str | None = None,
    progress: Progress | None = None,
) -> Validation:
    """Replay each of `phases` of `run` by itself, on one replica with the run's settings, and compare.

    `overrides` replace settings of the engine (`replay.parsed_overrides`). `replicates` replays more, each with a
    calibration drawn anew within its errors, give the intervals. `sha256` is the fingerprint of the run's iterations:
    with it, a run that the calibration was fitted on is recognised. `progress` is called with the fraction done of
    each phase. Raises CalibrationError when the calibration is of something else than the run.
    """
    notes = [*_identity(calibration, run), *_seen(calibration, sha256)]
    engine = engine_config(run.meta, overrides or {})
    drawn = [calibration.drawn(stream(seed, "validate", number)) for number in range(replicates)]
    if 0 < replicates < ENOUGH:
        notes.append(f"intervals rest on {replicates} replicates: {ENOUGH} or more show the tails better")
    done = [0.0] * len(phases)
    compared = {}
    for number, phase in enumerate(phases):
        of = measured(run, phase)
        predicted = replayed(of, calibration, engine)
        others = []
        for count, draw in enumerate(drawn, start=2):
            done[number] = count / (replicates + 1)
            others.append(_numbers(of, replayed(of, draw, engine)))
            if progress is not None:
                progress(done)
        compared[phase.name] = Comparison(of, predicted, _summary(of, predicted, others, calibration, engine))
    summaries = {name: each.summary for name, each in compared.items()}
    document = {
        "calibration": _described(calibration),
        "run": run.name,
        "engine": asdict(engine),
        "replicates": replicates,
        "level": LEVEL,
        "phases": summaries,
        "intervals": _held([summary["intervals"] for summary in summaries.values()]),
        "notes": notes,
    }
    return Validation(rounded(document), compared)


def _identity(calibration: Calibration, run: Run) -> list[str]:
    """What differs between calibration and run and may still be compared. Raises CalibrationError for the rest."""
    meta = run.meta
    same: tuple[tuple[str, str, str, Callable[[str], Any]], ...] = (
        ("model", calibration.model, meta.model, catalogue.model),
        ("scheme", calibration.scheme, meta.scheme, catalogue.scheme),
        ("GPU", calibration.gpu, meta.gpu, catalogue.gpu),
    )
    for what, ours, theirs, known_as in same:
        if theirs != NOT_RECORDED and _name(known_as, ours) != _name(known_as, theirs):
            raise CalibrationError(f"{run.name}: measured on {what} '{theirs}', but the calibration is for '{ours}'")
    if calibration.tensor_parallel != meta.tensor_parallel:
        raise CalibrationError(
            f"{run.name}: measured on {meta.tensor_parallel} GPUs, but the calibration is for tensor_parallel "
            f"{calibration.tensor_parallel}"
        )
    return [
        *meta.notes,
        *_differences("vLLM", calibration.vllm, meta.vllm),
        *_differences("async scheduling", str(calibration.async_scheduling), str(meta.async_scheduling)),
        *_differences("KV cache type", calibration.kv_cache_dtype, _kv_cache_dtype(meta)),
    ]


def _seen(calibration: Calibration, sha256: str | None) -> list[str]:
    """Whether the calibration has seen the run that it is compared with."""
    return [
        f"the calibration was fitted on this run ({each.what}): loads that it saw say less than others"
        for each in calibration.provenance
        if sha256 is not None and each.sha256 == sha256
    ]


def _name(known_as: Callable[[str], Any], name: str) -> str:
    """The catalogue's name for `name` in lower case, or `name` itself where the catalogue has none."""
    try:
        return str(known_as(name).name).casefold()
    except CatalogueError:
        return name.casefold()


def _differences(what: str, ours: str, theirs: str) -> list[str]:
    if ours == theirs or NOT_RECORDED in (ours, theirs):
        return []
    return [f"the calibration is for {what} {ours}, the run had {theirs}: step times may differ"]


def _kv_cache_dtype(meta: RunMeta) -> str:
    given = meta.engine_args.get("kv_cache_dtype", meta.engine_args.get("kv-cache-dtype"))
    return str(given or "auto")


def _numbers(of: Measured, run: FleetRun) -> Numbers:
    """Every number of `run`, over the requests compared."""
    times = latencies(run)
    stats = {name: statistics(getattr(times, name)) for name in LATENCIES if name != "itl_s"}
    stats["itl_s"] = itl_statistics(run.itl)
    totals = {
        "requests_per_s": float(of.compared.sum()) / run.end_s,
        "output_tokens_per_s": float(generated_tokens(run)[of.compared].sum()) / run.end_s,
        "duration_s": run.end_s,
        "preemptions": float(run.replicas[0].preemptions),
    }
    return {keys: stats[keys[0]][keys[1]] if len(keys) == 2 else totals[keys[0]] for keys in NUMBERS}


def _measured_numbers(of: Measured) -> Numbers:
    """As `_numbers`, without what was not measured: NaN."""
    numbers = _numbers(of, of.run)
    if not of.tokens_per_chunk <= TOKENS_PER_CHUNK:
        numbers |= {keys: np.nan for keys in NUMBERS if keys[0] == "itl_s"}
    if not of.has_iterations:
        numbers[("preemptions",)] = np.nan
    return numbers


def _summary(
    of: Measured, predicted: FleetRun, others: Sequence[Numbers], calibration: Calibration, engine: EngineConfig
) -> dict[str, Any]:
    """What validation.json says about one phase."""
    truth, ours = _measured_numbers(of), _numbers(of, predicted)
    entries = {keys: _entry(truth[keys], ours[keys], [each[keys] for each in others]) for keys in NUMBERS}
    table: dict[str, Any] = {latency: {point: entries[latency, point] for point in POINTS} for latency in LATENCIES}
    table |= {total: entries[(total,)] for total in TOTALS}
    known = [entry["held"] for entry in entries.values() if entry["held"] is not None]
    rests_on = StepTimes(calibration.basis, calibration.range, engine.block_size, engine.max_num_batched_tokens)
    return {
        "fraction": of.phase.fraction,
        "offered_rps": of.phase.offered_rps,
        "requests": {"sent": len(of.compared) + of.refused, "compared": int(of.compared.sum())},
        "stability": {"measured": str(stability(of.run)), "predicted": str(stability(predicted))},
        "metrics": table,
        "intervals": _held([{"held": sum(known), "of": len(known)}]),
        "extrapolated": extrapolated(predicted, {POOL: rests_on})[POOL],
        "notes": _phase_notes(of),
    }


def _entry(truth: float, ours: float, others: Sequence[float]) -> dict[str, Any]:
    """Measured, predicted, error and interval of one number; None where undefined."""
    error = np.nan
    if truth:
        error = ours / truth - 1.0
    elif ours == truth:
        error = 0.0
    low, high = interval(others, ours) if others else (np.nan, np.nan)
    slack = _ROUNDING * abs(truth)
    stated = not np.isnan(truth) and not np.isnan(low)
    return {
        "measured": truth,
        "predicted": ours,
        "error": error,
        "ape": abs(error),
        "low": low,
        "high": high,
        "held": bool(low - slack <= truth <= high + slack) if stated else None,
    }


def _held(counts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many measured values lie in their intervals, over all of `counts`."""
    held, of = (sum(each[key] for each in counts) for key in ("held", "of"))
    return {"held": held, "of": of, "share": held / of if of else np.nan}


def _phase_notes(of: Measured) -> list[str]:
    notes = []
    left_out = int((~of.compared).sum())
    if left_out:
        notes.append(
            f"{left_out} of {len(of.compared)} requests were cut off: they are replayed, with the answers that they "
            "asked for, and left out of both sides"
        )
    if of.refused:
        notes.append(f"{of.refused} requests failed without a token: they are not replayed")
    finished = int(of.compared.sum())
    if finished < FEW_REQUESTS:
        notes.append(f"only {finished} requests: p99 is nearly the largest of them, and p90 rests on few")
    if np.isnan(of.tokens_per_chunk):
        notes.append("times of single tokens were not recorded: ITL is not compared")
    elif of.tokens_per_chunk > TOKENS_PER_CHUNK:
        notes.append(f"a chunk carries {of.tokens_per_chunk:.2g} tokens on average: ITL is not compared")
    if not of.has_iterations:
        notes.append("steps were not recorded: preemptions are not compared")
    return notes


def _described(calibration: Calibration) -> dict[str, Any]:
    names = ("model", "scheme", "gpu", "tensor_parallel", "vllm", "basis")
    return {name: getattr(calibration, name) for name in names}
