"""Curves reduced to the few hundred points a screen can show. Imports only results."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simroute.results.run import FleetRun

Floats = NDArray[np.float64]

POINTS = 400
_EVENTS_PER_INTERVAL = 50
_FEWEST_INTERVALS = 24
_BODY = 0.9
"""Half of a distribution's points lie below this quantile, the other half in the tail above it."""


class Curve(NamedTuple):
    """x and y of one line, equally long and at most `POINTS` points."""

    x: Floats
    y: Floats


NOTHING = Curve(np.zeros(0), np.zeros(0))


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
    """A fleet over time: `t_s`, requests `running` and `waiting` in all, `kv_usage` as the mean over ready replicas."""

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
    starts = _starts(len(timeline.t_s))

    def highest(samples: Floats) -> Floats:
        peaks: Floats = np.maximum.reduceat(samples, starts)
        return peaks

    return Load(
        timeline.t_s[starts],
        highest(timeline.running.sum(axis=1, dtype=np.float64)),
        highest(timeline.waiting.sum(axis=1, dtype=np.float64)),
        highest(_kv_usage(run)),
    )


def ready(run: FleetRun) -> Curve:
    """Replicas of ours that take requests, over time; each interval shows its lowest sample, so that gaps survive."""
    timeline = run.timeline
    if timeline.ready is None or not len(timeline.t_s):
        return NOTHING
    starts = _starts(len(timeline.t_s))
    up = timeline.ready[:, _ours(run)].sum(axis=1, dtype=np.float64)
    return Curve(timeline.t_s[starts], np.minimum.reduceat(up, starts))


def held(run: FleetRun) -> Curve:
    """Requests in the gateway's queue over time; each interval shows its highest sample."""
    timeline = run.timeline
    if timeline.held is None or not len(timeline.t_s):
        return NOTHING
    starts = _starts(len(timeline.t_s))
    return Curve(timeline.t_s[starts], np.maximum.reduceat(timeline.held.astype(np.float64), starts))


def sending(run: FleetRun) -> Curve:
    """Attempts that were sent to replicas each second, the mean of each interval."""
    timeline = run.timeline
    if timeline.attempts is None or len(timeline.t_s) < 2:
        return NOTHING
    edges = _edges(run)
    return _rate(timeline.t_s[edges], timeline.attempts[edges].astype(np.float64))


def arriving(run: FleetRun) -> Curve:
    """Requests that arrive each second, each counted once, over the intervals of `sending`."""
    if len(run.timeline.t_s) < 2:
        return NOTHING
    edges_s = run.timeline.t_s[_edges(run)]
    came = np.searchsorted(np.sort(run.arrival_s), edges_s, side="right")
    return _rate(edges_s, came.astype(np.float64))


def _rate(edges_s: Floats, counted: Floats) -> Curve:
    return Curve(edges_s[:-1], np.diff(counted) / np.diff(edges_s))


def _edges(run: FleetRun) -> NDArray[np.int64]:
    """Samples between which events are counted, far enough apart that chance does not drown the rate."""
    wanted = min(POINTS, max(len(run.trace) // _EVENTS_PER_INTERVAL, _FEWEST_INTERVALS))
    edges: NDArray[np.int64] = np.unique(np.linspace(0, len(run.timeline.t_s) - 1, wanted + 1).astype(np.int64))
    return edges


def _starts(samples: int) -> NDArray[np.int64]:
    """The first sample of each interval."""
    starts: NDArray[np.int64] = np.unique(np.linspace(0, samples, POINTS, endpoint=False).astype(np.int64))
    return starts


def _ours(run: FleetRun) -> list[int]:
    """The replicas that are not somebody else's endpoint."""
    return [number for number, totals in enumerate(run.replicas) if totals.gpus]


def _kv_usage(run: FleetRun) -> Floats:
    """The mean over the replicas that are ready at each sample, 0 where none is."""
    timeline = run.timeline
    if timeline.ready is None:
        fixed: Floats = timeline.kv_usage.mean(axis=1, dtype=np.float64)
        return fixed
    ours = _ours(run)
    up = timeline.ready[:, ours]
    summed = (timeline.kv_usage[:, ours] * up).sum(axis=1, dtype=np.float64)
    mean: Floats = summed / np.maximum(up.sum(axis=1), 1)
    return mean
