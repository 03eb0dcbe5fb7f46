"""What a client waits for outside the engine: HTTP, tokenizing the prompt, detokenizing, the way back.

Owns the matching of requests to the steps that served them: on the way in, requests that found the engine idle (the
next step holds their whole prompt or its first chunk); on the way out, every request whose first token left with the
last step that finished a prompt before it. Requests of load count where there are enough: a sweep sends its requests in
bursts, in which each waits for the others. Imports numpy, hardware's calibration and this room's runs, solve and steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

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


@dataclass(frozen=True, slots=True)
class Overhead:
    """The fitted terms, the requests that they rest on (in, out), and their error as a median of |relative| errors."""

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
    fixed_s, token_s = _line(tokens, in_s)
    terms = RequestTerms(overhead_ms=(fixed_s + float(np.median(out_s))) * 1e3, per_input_token_us=token_s * 1e6)
    return Overhead(terms, len(in_s), len(out_s))


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


def _line(tokens: Floats, seconds: Floats) -> tuple[float, float]:
    """(seconds, seconds a token) of the robust line through `seconds`, both at least 0."""
    matrix = np.column_stack([np.ones(len(tokens)), tokens])
    fixed_s, token_s = robust_relative(matrix, np.maximum(seconds, 1e-6), np.ones(len(tokens))).values.tolist()
    return fixed_s, token_s
