"""Curves reduced to the few hundred points a screen can show. Imports only results."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simroute.results.run import FleetRun

Floats = NDArray[np.float64]

POINTS = 400
_BODY = 0.9
"""Half of a distribution's points lie below this quantile, the other half in the tail above it."""


class Curve(NamedTuple):
    """x and y of one line, equally long and at most `POINTS` points."""

    x: Floats
    y: Floats


def cdf(values: Floats, arrived: int) -> Curve:
    """x: `values` (seconds, NaN left out) in ascending order; y: the share of all `arrived` requests up to there.

    The curve ends below 1 by what has no value, such as requests that were rejected or not finished.
    """
    known = np.sort(values[~np.isnan(values)])
    if not len(known):
        return Curve(known, known)
    half = POINTS // 2
    shares = np.concatenate([np.linspace(0.0, _BODY, half, endpoint=False), np.linspace(_BODY, 1.0, POINTS - half)])
    ranks = np.unique(np.rint(shares * (len(known) - 1)).astype(np.int64))
    return Curve(known[ranks], (ranks + 1) / arrived)


class Load(NamedTuple):
    """A fleet over time: `t_s`, requests `running` and `waiting` in all, `kv_usage` as the mean over replicas."""

    t_s: Floats
    running: Floats
    waiting: Floats
    kv_usage: Floats


def load(run: FleetRun) -> Load:
    """The timeline of `run` in at most `POINTS` intervals, each shown by its highest sample so that peaks survive."""
    timeline = run.timeline
    if not len(timeline.t_s):
        nothing = np.zeros(0)
        return Load(nothing, nothing, nothing, nothing)
    starts = np.unique(np.linspace(0, len(timeline.t_s), POINTS, endpoint=False).astype(np.int64))

    def highest(samples: Floats) -> Floats:
        peaks: Floats = np.maximum.reduceat(samples, starts)
        return peaks

    return Load(
        timeline.t_s[starts],
        highest(timeline.running.sum(axis=1, dtype=np.float64)),
        highest(timeline.waiting.sum(axis=1, dtype=np.float64)),
        highest(timeline.kv_usage.mean(axis=1, dtype=np.float64)),
    )
