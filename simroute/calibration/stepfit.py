"""Fits the terms of a step to measured steps: shape from everything, level from load, error and covariance with it.

The shape is a robust non-negative least squares on relative residuals. A sweep's steps do not take as long as the same
steps under load (client, server and engine share the machine, and a sweep's requests come in bursts): what they differ
by is work beside the step, so each sweep is shifted by a time of its own, and the terms are those under load. The last
touch sets the sum of the predicted steps to the sum of the measured ones: a fit that holds outliers down is near the
median, and a simulator adds up means.

Imports numpy, hardware's calibration and this room's form, solve and steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from simroute.calibration.form import FOLDS, Form, blocks_of, cell_weights, cells_of, chosen_form, fine_form, folds_of
from simroute.calibration.solve import MAD_SD, Floats, Robust, compressed, robust_relative, times, weighted_quantile
from simroute.calibration.steps import Steps
from simroute.hardware.calibration import SLOPES, Covariance, StepTerms, gemm_name

STALL_SDS = 8.0
STALL_RATIO = 2.0
"""A step so many robust standard deviations and at least so many times longer than predicted is a stall (or, shorter
by as much, a clock's fault): it is counted and says nothing of the shape."""
MOST_STALL = 5.0
"""In sums a stall counts as at most so many times its prediction: one hiccup of seconds must not move the level."""
MATCHED_STEPS = 30
"""Least number of alike steps under load and in a sweep from which their difference is taken."""
PARTS = 10
"""Parts of a load phase, one after another, between which the machine's speed is compared."""
LEAST_PART = 0.5
"""Of a sweep's step at least this part is the step itself, whatever its sweep adds."""
ROUNDS = 3
"""Turns of shape and level: the second moves nothing but the last digits."""
SMALL_SHARE = 0.25
"""The quarter of steps with fewest requests shows the time between steps that each costs, however small."""
_PER_SECOND = {"ms": 1e3, "us": 1e6, "ns": 1e9}


@dataclass(frozen=True, slots=True)
class StepFit:
    """The fitted terms, and what is known of their errors.

    `predicted_s` has, for every step, the prediction of a fit that did not see its fold, `as_load_s` its duration
    brought to load; `level` is, for every group, measured over predicted time; `stalls` marks the steps that were left
    out.
    """

    steps: Steps
    form: Form
    terms: StepTerms
    covariance: Covariance
    predicted_s: Floats
    as_load_s: Floats
    level: Floats
    stalls: NDArray[np.bool_]

    @property
    def group_steps(self) -> NDArray[np.int64]:
        """Steps of each group that were kept."""
        return np.bincount(self.steps.group[~self.stalls], minlength=len(self.steps.groups))

    @property
    def drift_sd(self) -> float:
        """How the machine's own speed moves within minutes: the standard deviation of (the logarithm of) measured over
        predicted time from one tenth of a load phase to another; 0 without load.
        """
        spread = []
        for number, group in enumerate(self.steps.groups):
            members = np.flatnonzero((self.steps.group == number) & ~self.stalls)
            if group.is_load and len(members) >= PARTS * MATCHED_STEPS:
                parts = np.array_split(members, PARTS)
                levels = [self.steps.duration_s[part].sum() / self.predicted_s[part].sum() for part in parts]
                spread.append(float(np.var(np.log(levels), ddof=1)))
        return float(np.sqrt(np.mean(spread))) if spread else 0.0

    @property
    def errors(self) -> Floats:
        """Relative error of every step that was kept, as predicted unseen, what its sweep adds set apart."""
        return np.asarray((self.predicted_s / self.as_load_s - 1)[~self.stalls])


def fit_steps(steps: Steps, paddings: Iterable[tuple[int, ...]] = ()) -> StepFit:
    """Fit `steps`; `paddings` are lists of CUDA-graph sizes that the engine may have used."""
    weights = cell_weights(cells_of(steps))
    first = _settled(steps, fine_form(steps), weights)
    form = chosen_form(first.used, first.weights, paddings)
    found = _settled(steps, form, weights)
    predicted_s = times(form.matrix(steps), found.solved.values)
    scale = _mean_scale(steps, predicted_s)
    values = found.solved.values * scale
    launch_s = min(_least_between_s(steps), values[0])
    terms, names, change = _terms(form, values, launch_s)
    covariance_s = _covariance(form.matrix(steps), found, change) * scale**2
    return StepFit(
        steps,
        form,
        terms,
        _relative(names, terms, covariance_s),
        _unseen(form, found) * scale,
        found.used.duration_s,
        _levels(steps, predicted_s * scale, found.stalls),
        found.stalls,
    )


@dataclass(frozen=True, slots=True)
class _Settled:
    """A solution in which shape, shifts and stalls agree: `used` has the sweeps shifted to load.

    In `weights`, with which it was `solved`, the stalls of the round before weigh 0; `stalls` are those found by it.
    """

    used: Steps
    weights: Floats
    stalls: NDArray[np.bool_]
    solved: Robust


def _settled(steps: Steps, form: Form, weights: Floats) -> _Settled:
    """Shape and shifts in turn: the shape from steps as under load, the shifts by that shape."""
    matrix = form.matrix(steps)
    stalls = np.zeros(len(steps), dtype=bool)
    as_load_s = steps.duration_s
    for _ in range(ROUNDS):
        used = replace(steps, duration_s=as_load_s)
        kept = weights * ~stalls
        solved = robust_relative(matrix, used.duration_s, kept)
        stalls = _stalls(solved.residuals, weights)
        as_load_s = _as_load(steps, times(matrix, solved.values), stalls)
    return _Settled(used, kept, stalls, solved)


def _as_load(steps: Steps, predicted_s: Floats, stalls: NDArray[np.bool_]) -> Floats:
    """Every step's duration as it would be under load: those of load as they are, those of each sweep brought there.

    A sweep is shifted by the time a step that leaves the least squares of relative differences over the cells in which
    sweep and load both have steps; with too few of them it stays as it is.
    """
    cells, kept = cells_of(steps), ~stalls
    ratio, load = steps.duration_s / predicted_s, steps.load & kept
    as_load_s = steps.duration_s.copy()
    for number, group in enumerate(steps.groups):
        ours = kept & (steps.group == number)
        shared, our_ratio, load_ratio = _matched(ratio, cells, ours, load)
        if group.is_load or shared.sum() < MATCHED_STEPS:
            continue
        counts = np.bincount(cells[ours], minlength=len(shared))
        usual_s = np.bincount(cells[ours], predicted_s[ours], minlength=len(shared)) / np.maximum(counts, 1)
        at = shared > 0
        per_s = 1 / usual_s[at]
        time_s = np.sum(shared[at] * per_s * (our_ratio - load_ratio)[at]) / np.sum(shared[at] * per_s**2)
        members = steps.group == number
        as_load_s[members] = np.maximum(steps.duration_s - time_s, LEAST_PART * steps.duration_s)[members]
    return as_load_s


def _stalls(residuals: Floats, weights: Floats) -> NDArray[np.bool_]:
    """Steps that are far from all others: `residuals` are predicted / measured - 1."""
    logs = np.log(np.maximum(residuals + 1, 1e-9))
    scale = weighted_quantile(np.abs(logs), 0.5, weights) * MAD_SD
    return np.asarray(np.abs(logs) > max(STALL_SDS * scale, np.log(STALL_RATIO)))


def _levels(steps: Steps, predicted_s: Floats, stalls: NDArray[np.bool_]) -> Floats:
    """Measured over predicted time of every group: of a load phase as it is, of a sweep relative to load.

    A sweep's steps are unlike those of load, so only those cells count in which both have steps; with too few of
    them, or without load, a sweep has level 1.
    """
    cells, kept = cells_of(steps), ~stalls
    load = steps.load & kept
    level = np.ones(len(steps.groups))
    for number, group in enumerate(steps.groups):
        members = kept & (steps.group == number)
        if group.is_load and members.any():
            level[number] = steps.duration_s[members].sum() / predicted_s[members].sum()
        elif not group.is_load:
            level[number] = _matched_level(steps.duration_s / predicted_s, cells, members, load)
    return level


def _matched_level(ratio: Floats, cells: NDArray[np.int64], ours: NDArray[np.bool_], load: NDArray[np.bool_]) -> float:
    """Geometric mean, over the cells that `ours` and `load` share, of our mean `ratio` over theirs."""
    shared, our_ratio, load_ratio = _matched(ratio, cells, ours, load)
    if shared.sum() < MATCHED_STEPS:
        return 1.0
    return float(np.exp(np.average(np.log(our_ratio / load_ratio), weights=shared)))


def _matched(
    ratio: Floats, cells: NDArray[np.int64], ours: NDArray[np.bool_], load: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], Floats, Floats]:
    """For every cell: how many steps `ours` and `load` have there alike, and each one's geometric mean of `ratio`."""
    size = int(cells.max()) + 1
    counts, means = [], []
    for members in (ours, load):
        count = np.bincount(cells[members], minlength=size)
        counts.append(count)
        logs = np.bincount(cells[members], np.log(ratio[members]), minlength=size)
        means.append(np.exp(logs / np.maximum(count, 1)))
    return np.minimum(*counts), means[0], means[1]


def _mean_scale(steps: Steps, predicted_s: Floats) -> float:
    """What makes the predicted time of the steps under load (without any: of all steps) the measured one.

    Stalls are part of that time, up to a limit: they happen to every load.
    """
    members = steps.load if steps.load.any() else np.ones(len(steps), dtype=bool)
    counted_s = np.minimum(steps.duration_s, MOST_STALL * predicted_s)
    return float(counted_s[members].sum() / predicted_s[members].sum())


def _unseen(form: Form, found: _Settled) -> Floats:
    """Every step as predicted by a fit to the other folds."""
    steps = found.used
    matrix, folds = form.matrix(steps), folds_of(steps)
    predicted_s = np.empty(len(steps))
    for fold in range(FOLDS):
        inside = folds == fold
        if inside.any():
            rest = ~inside if (~inside).any() else inside
            solved = robust_relative(matrix[rest], steps.duration_s[rest], found.weights[rest])
            predicted_s[inside] = times(matrix[inside], solved.values)
    return predicted_s


def _least_between_s(steps: Steps) -> float:
    """The time between steps with few requests: what each step costs before it begins."""
    requests = steps["decode_seqs"] + steps["prefill_seqs"]
    return float(np.median(steps.between_s[requests <= np.quantile(requests, SMALL_SHARE)]))


def _terms(form: Form, values: Floats, launch_s: float) -> tuple[StepTerms, list[str], Floats]:
    """The terms in their units, the names of those fitted, and the matrix from `values` to them in seconds.

    What an arrival costs the step that it falls into counts as part of the request's prefill: that way it grows with
    the rate of requests, as it does on a machine that server and engine share.
    """
    knots = len(form.knots)
    change = np.eye(knots + len(SLOPES), len(values))
    change[:knots, :knots] = np.tri(knots)
    change[knots, -1] = 1.0
    found = change @ values
    gemm_ms = {tokens: max(value - launch_s, 0.0) * 1e3 for tokens, value in zip(form.knots, found, strict=False)}
    slopes = {name: float(v) * _PER_SECOND[name[-2:]] for name, v in zip(SLOPES, found[knots:], strict=True)}
    terms = StepTerms(launch_ms=launch_s * 1e3, gemm_ms=gemm_ms, graph_sizes=form.graph_sizes, **slopes)
    return terms, [*map(gemm_name, form.knots), *SLOPES], change


def _covariance(matrix: Floats, found: _Settled, change: Floats) -> Floats:
    """Covariance of the fitted terms in seconds, robust to what neighbouring steps have in common.

    The sandwich H⁻¹ M H⁻¹ over the terms above 0, with the scores of a block of consecutive steps summed before they
    are multiplied (clusters).
    """
    steps, solved = found.used, found.solved
    active = solved.values > 0
    relative = matrix[:, active] / steps.duration_s[:, None]
    size = np.sqrt(np.einsum("ij,ij->j", relative, relative))
    relative = relative / size  # (pairs of tokens and requests differ by more than the digits of a float)
    weights = found.weights * solved.weights
    half, _ = compressed(relative * np.sqrt(weights)[:, None], weights)
    bread = np.linalg.pinv(half.T @ half)
    scores = relative * (weights * solved.residuals)[:, None]
    blocks = blocks_of(steps)
    summed = np.column_stack([np.bincount(blocks, column) for column in scores.T])
    few = len(summed) / max(len(summed) - int(active.sum()), 1)
    whole = np.zeros((len(active), len(active)))
    whole[np.ix_(active, active)] = bread @ (summed.T @ summed) @ bread * few / np.outer(size, size)
    return np.asarray(change @ whole @ change.T)


def _relative(names: list[str], terms: StepTerms, covariance_s: Floats) -> Covariance:
    """The covariance of the terms above 0, each relative to its value."""
    values = terms.values()
    seconds = np.array([values[name] / _PER_SECOND["ms" if "[" in name else name[-2:]] for name in names])
    known = np.flatnonzero((seconds > 0) & (np.diag(covariance_s) > 0))
    relative = covariance_s[np.ix_(known, known)] / np.outer(seconds[known], seconds[known])
    rows = tuple(tuple(row) for row in relative.tolist())
    return Covariance(parameters=tuple(names[i] for i in known), relative=rows)
