"""What a client waits for outside the engine: HTTP, tokenizing the prompt, detokenizing, the way back.

Owns the matching of requests to the steps that served them: on the way in, requests that found the engine idle (the
next step holds their whole prompt or its first chunk); on the way out, every request whose first token left with the
last step that finished a prompt before it. Requests of load count where there are enough: a sweep sends its requests in
bursts, in which each waits for the others. The error of the terms is that of their estimate: a jackknife over blocks of
consecutive requests, for neighbours share the machine's moods. Imports numpy, hardware's calibration and this room's
runs, solve and steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simroute.calibration.runs import Run
from simroute.calibration.solve import Floats, robust_relative
from simroute.calibration.steps import outputs_s
from simroute.hardware.calibration import RequestTerms

if TYPE_CHECKING:
    import pandas as pd

LEAST_REQUESTS = 8
"""Fewer matched requests than this say nothing."""
LONGEST_S = 1.0
"""A wait longer than this is no overhead but a mismatch of request and step."""
BLOCKS = 20
"""Blocks of consecutive requests, each of which is left out once to see how far the terms move."""


@dataclass(frozen=True, slots=True)
class Overhead:
    """The fitted terms with their errors, and the requests that they rest on: on the way in, on the way out."""

    terms: RequestTerms
    inbound: int
    outbound: int


def fit_overhead(runs: Sequence[Run]) -> Overhead | None:
    """The time that requests of `runs` spent outside the engine; None when too few can be matched to steps."""
    measured = [run for run in runs if len(run.requests) and len(run.iterations)]
    under_load = _joined([_ways(run, _load_phases(run)) for run in measured])
    tokens, in_s, out_s = under_load
    if min(len(in_s), len(out_s)) < LEAST_REQUESTS:
        tokens, in_s, out_s = _joined([_ways(run, range(len(run.meta.phases))) for run in measured])
    if min(len(in_s), len(out_s)) < LEAST_REQUESTS:
        return None
    return Overhead(_terms(tokens, in_s, out_s), len(in_s), len(out_s))


def _terms(tokens: Floats, in_s: Floats, out_s: Floats) -> RequestTerms:
    """A line over the prompt's tokens for the way in, the median for the way out, and how far both may be off.

    A term that comes out as 0 is taken as known, and the error of the other with it.
    """
    both = np.ones(2)
    line = _line(tokens, in_s, both)
    found = line > 0
    inward = _jackknifed(len(in_s), lambda rest: _line(tokens[rest], in_s[rest], found))
    outward = _jackknifed(len(out_s), lambda rest: np.array([np.median(out_s[rest])]))
    covariance = inward + np.diag([float(outward[0, 0]), 0.0])
    fixed_s, token_s = np.sqrt(np.diag(covariance)).tolist()
    terms = RequestTerms(
        overhead_ms=(float(line[0]) + float(np.median(out_s))) * 1e3,
        per_input_token_us=float(line[1]) * 1e6,
        overhead_error_ms=fixed_s * 1e3,
    )
    if not (fixed_s > 0 and token_s > 0):
        return terms
    together = float(np.clip(covariance[0, 1] / (fixed_s * token_s), -1.0, 1.0))
    return terms.model_copy(update={"per_input_token_error_us": token_s * 1e6, "error_correlation": together})


def _jackknifed(count: int, estimate: Callable[[NDArray[np.bool_]], Floats]) -> Floats:
    """The covariance of `estimate`, which is given the rows to use: all of `count` but one block after another."""
    block = np.arange(count) * min(BLOCKS, count) // count
    found = np.array([estimate(block != left_out) for left_out in range(int(block[-1]) + 1)])
    apart = found - found.mean(axis=0)
    return np.asarray((len(found) - 1) / len(found) * (apart.T @ apart))


@dataclass(frozen=True, slots=True)
class _Ways:
    """Seconds on the way in, with the prompt's tokens, and on the way out; one value a matched request."""

    tokens: Floats
    in_s: Floats
    out_s: Floats


def _joined(ways: Sequence[_Ways]) -> tuple[Floats, Floats, Floats]:
    """(tokens, seconds in, seconds out) of all `ways` together."""
    none = [np.zeros(0)]
    return (
        np.concatenate([way.tokens for way in ways] or none),
        np.concatenate([way.in_s for way in ways] or none),
        np.concatenate([way.out_s for way in ways] or none),
    )


def _load_phases(run: Run) -> list[int]:
    return [number for number, phase in enumerate(run.meta.phases) if phase.kind == "load"]


def _ways(run: Run, phases: Sequence[int]) -> _Ways:
    """The ways of the requests of these phases; what else happens at the same time does not matter."""
    steps = run.iterations
    requests = run.requests[run.requests["ok"] & run.requests["phase"].isin(list(phases))]
    outs_s = outputs_s(steps)
    tokens, in_s = _inbound(requests, steps, outs_s)
    return _Ways(tokens, in_s, _outbound(requests, steps, outs_s))


def _inbound(requests: pd.DataFrame, steps: pd.DataFrame, outs_s: Floats) -> tuple[Floats, Floats]:
    """(tokens of the prompt, seconds until its first step was scheduled) of requests that found the engine idle."""
    begun_s = steps["t_s"].to_numpy(np.float64)
    sent_s = requests["arrival_s"].to_numpy(np.float64)
    prompt = requests["input_tokens"].to_numpy(np.float64)
    number = np.searchsorted(begun_s, sent_s)
    inside = number < len(steps)
    number, sent_s, prompt = number[inside], sent_s[inside], prompt[inside]
    idle = (number == 0) | (outs_s[np.maximum(number - 1, 0)] < sent_s)
    alone = (steps["prefill_seqs"].to_numpy()[number] == 1) & (steps["decode_seqs"].to_numpy()[number] == 0)
    chunk = steps["prefill_tokens"].to_numpy(np.float64)[number]
    whole = (chunk == prompt) | ((chunk < prompt) & (steps["sampled_seqs"].to_numpy()[number] == 0))
    wait_s = begun_s[number] - sent_s
    found = idle & alone & whole & (wait_s < LONGEST_S)
    return prompt[found], wait_s[found]


def _outbound(requests: pd.DataFrame, steps: pd.DataFrame, outs_s: Floats) -> Floats:
    """Seconds from the step that sampled a first token until the client had it."""
    finishing = outs_s[(steps["sampled_seqs"] > steps["decode_seqs"]).to_numpy()]
    first_s = requests["first_token_s"].to_numpy(np.float64)
    first_s = first_s[np.isfinite(first_s)]
    number = np.searchsorted(finishing, first_s, side="right") - 1
    wait_s = first_s[number >= 0] - finishing[number[number >= 0]]
    return np.asarray(wait_s[wait_s < LONGEST_S])


def _line(tokens: Floats, seconds: Floats, wanted: ArrayLike) -> Floats:
    """[seconds, seconds a token] of the robust line through `seconds`, both at least 0; 0 where not `wanted`."""
    matrix = np.column_stack([np.ones(len(tokens)), tokens]) * np.asarray(wanted)
    return robust_relative(matrix, np.maximum(seconds, 1e-6), np.ones(len(tokens))).values
