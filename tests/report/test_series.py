"""Curves for the charts: few points, true shares, peaks kept."""

import math

import numpy as np
from results.runs import make_run, make_trace

from simroute.report.series import POINTS, cdf, load
from simroute.results.run import Timeline


def test_a_cdf_has_few_points_and_reaches_the_largest_value():
    values = np.linspace(1.0, 2.0, 10_001)[::-1]
    curve = cdf(values, len(values))
    assert len(curve.x) <= POINTS
    assert (curve.x[0], curve.x[-1], curve.y[-1]) == (1.0, 2.0, 1.0)
    assert np.all(np.diff(curve.x) > 0)
    assert np.allclose(curve.y, [(values <= x).mean() for x in curve.x])


def test_a_cdf_stays_below_one_by_what_never_finished():
    curve = cdf(np.array([1.0, 2.0, math.nan, math.nan]), 4)
    assert (curve.x.tolist(), curve.y.tolist()) == ([1.0, 2.0], [0.25, 0.5])


def test_a_cdf_of_nothing_is_empty():
    assert len(cdf(np.array([math.nan]), 1).x) == 0


def test_load_adds_up_replicas_and_keeps_peaks():
    run = make_run(make_trace([0.0]), [0.1], [1.0])
    samples = np.zeros((5_000, 2), dtype=np.int32)
    samples[1_234] = [3, 4]
    run.timeline = Timeline(np.arange(5_000.0), samples, 2 * samples, (samples / 10).astype(np.float32))
    shown = load(run)
    assert len(shown.t_s) <= POINTS
    assert (shown.running.max(), shown.waiting.max()) == (7.0, 14.0)
    assert np.isclose(shown.kv_usage.max(), 0.35)
    peak_s = shown.t_s[shown.running.argmax()]
    assert peak_s <= 1_234 < peak_s + 5_000 / POINTS + 1


def test_a_run_without_samples_has_no_load():
    run = make_run(make_trace([0.0]), [0.1], [1.0])
    none = np.zeros((0, 1))
    run.timeline = Timeline(np.zeros(0), none.astype(np.int32), none.astype(np.int32), none.astype(np.float32))
    assert len(load(run).t_s) == 0
