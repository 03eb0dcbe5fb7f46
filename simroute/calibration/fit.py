"""From run directories to a calibration: what `simroute calibrate fit` does.

Owns what the file says of range, error and provenance. Imports errors, hardware's calibration and this room's
coverage, engines, overhead, runs, stepfit and steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from simroute.calibration.coverage import check_coverage, coverage_notes
from simroute.calibration.engines import check_same, graph_sizes_of, identity, memory_of
from simroute.calibration.overhead import Overhead, fit_overhead
from simroute.calibration.runs import Run
from simroute.calibration.stepfit import StepFit, fit_steps
from simroute.calibration.steps import Steps, steps_of
from simroute.errors import CalibrationError
from simroute.hardware.calibration import Calibration, FitError, MeasuredRange, Provenance, RequestTerms

LEAST_BIAS_SD = 0.01
"""Two runs of one engine on one machine differ by no less than this: clocks, temperature, placement in memory."""
LONE_BIAS_SD = 0.05
"""What a run shares in error when it has only a sweep or only one load to tell: steps under load have been seen to
run 4 to 8 % longer than in a sweep where client and engine share a machine."""
PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
"""Of the errors of single steps, what the file keeps of their distribution."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A calibration and how it came about: the fit of its steps and of its requests (None: too few to tell)."""

    calibration: Calibration
    steps: StepFit
    overhead: Overhead | None


def fit(runs: Sequence[Run], sha256: Sequence[str | None] = ()) -> Fit:
    """The calibration that `runs` of one engine support; all phases with iterations count, sweeps and load alike.

    `sha256` are fingerprints of the runs' iterations, in order, for the provenance.
    Raises CalibrationError when the runs are of different engines or too small to fit.
    """
    if not runs:
        raise CalibrationError("nothing to fit: give at least one run directory")
    check_same(runs)
    for run in runs:
        if not len(run.iterations):
            raise CalibrationError(
                f"{run.name}: has requests but no iterations: validate on it; fit needs a measured run"
            )
    metas = [run.meta for run in runs]
    steps = steps_of(runs)
    check_coverage(steps, metas)
    found = fit_steps(steps, graph_sizes_of(metas[0]))
    overhead = fit_overhead(runs)
    hashes = [*sha256, *[None] * len(runs)]
    calibration = Calibration(
        **identity(metas[0]),
        basis="measured",
        step=found.terms,
        request=overhead.terms if overhead else RequestTerms(),
        memory=memory_of(metas[0]),
        range=_range(steps),
        error=_error(found),
        covariance=found.covariance if found.covariance.parameters else None,
        provenance=tuple(_provenance(run, digest) for run, digest in zip(runs, hashes, strict=False)),
        notes=tuple(_notes(runs, found, overhead)),
    )
    return Fit(calibration, found, overhead)


def with_loads(run: Run, kept: Sequence[float]) -> Run:
    """`run` with the load phases at these fractions of capacity alone: the others are there to be predicted.

    Raises CalibrationError for a fraction that the run has no load phase of.
    """
    loads = {i: phase.fraction for i, phase in enumerate(run.meta.phases) if phase.kind == "load"}
    for fraction in kept:
        if fraction not in loads.values():
            known = ", ".join(f"{known:g}" for known in loads.values() if known is not None) or "none"
            raise CalibrationError(f"{run.name}: no load at {fraction:g} of capacity: has {known}")
    dropped = [i for i, fraction in loads.items() if fraction not in kept]
    tables = (table[~table["phase"].isin(dropped)].reset_index(drop=True) for table in (run.iterations, run.requests))
    iterations, requests = tables
    return replace(run, iterations=iterations, requests=requests)


def _range(steps: Steps) -> MeasuredRange:
    return MeasuredRange(
        tokens=steps.span(steps.tokens),
        decode_seqs=steps.span(steps["decode_seqs"]),
        decode_context_tokens=steps.span(steps["decode_context_tokens"]),
        prefill_pairs=steps.span(steps["prefill_pairs"]),
    )


def _error(found: StepFit) -> FitError:
    """Errors of single steps from the folds; of whole runs from how far sweeps and loads lie apart in level, or parts
    of one load in time, whichever is more.
    """
    signed = found.errors
    errors = np.abs(signed)
    logs = np.log(found.level[found.group_steps > 0])
    apart = float(np.std(logs, ddof=1)) if len(logs) > 1 else LONE_BIAS_SD
    return FitError(
        median=float(np.median(errors)),
        p90=float(np.quantile(errors, 0.9)),
        bias_sd=max(apart, found.drift_sd, LEAST_BIAS_SD),
        percentiles=dict(zip(PERCENTILES, np.percentile(signed, PERCENTILES).tolist(), strict=True)),
    )


def _provenance(run: Run, sha256: str | None) -> Provenance:
    meta = run.meta
    used = [meta.phases[i] for i in run.iterations["phase"].unique()]
    kinds = dict.fromkeys(phase.name if phase.kind == "load" else "sweep" for phase in used)
    weights = "dummy weights" if meta.dummy_weights else "real weights"
    measured = datetime.fromtimestamp(meta.started_unix_s, UTC).date().isoformat() if meta.started_unix_s else None
    return Provenance(
        what=f"measured run: {', '.join(kinds)}",
        source=f"vLLM {meta.vllm} on {meta.gpu}, {weights}, {meta.host.cores} cores of {meta.host.cpu}",
        rows=len(run.iterations),
        sha256=sha256,
        retrieved=measured,
    )


def _notes(runs: Sequence[Run], found: StepFit, overhead: Overhead | None) -> Iterator[str]:
    """What a reader of the file must know."""
    steps = found.steps
    yield from dict.fromkeys(note for run in runs for note in run.meta.notes)
    for number, group in enumerate(steps.groups):
        members = steps.group == number
        shift_s = float(np.median((found.as_load_s - steps.duration_s)[members])) if members.any() else 0.0
        if not group.is_load and shift_s:
            shift = f"{shift_s * 1e3:+.2f} ms"
            yield f"steps under load took {shift} against the sweep of {group.run}: the terms are of load"
    if not steps.load.any():
        yield "no load was measured: steps under load may take longer than these"
    stalls = int(found.stalls.sum())
    if stalls:
        share = steps.duration_s[found.stalls].sum() / steps.duration_s.sum()
        yield f"stalls: {stalls:,} of {len(steps):,} steps ({share:.1%} of the time), counted in means alone"
    if steps.unusable:
        yield f"left out: {steps.unusable:,} iterations without a duration above 0"
    if overhead is None:
        yield "no requests to tell the time outside the engine from: it is 0"
    yield from coverage_notes(steps, [run.meta for run in runs])
