"""Distributions and arrival processes against their analytic moments."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from pydantic import TypeAdapter

from simroute.rng import stream
from simroute.workload.synth.draw import arrival_times, cumulative_arrivals, draw, draw_whole, zipf_choices
from simroute.workload.synth.spec import Arrivals, Distribution, MixSpec

SIZE = 200_000
DAY_S = 86_400.0


def distribution(**fields):
    return TypeAdapter(Distribution).validate_python(fields)


def arrivals(**fields):
    return TypeAdapter(Arrivals).validate_python(fields)


def mix(duration_s: float, **fields) -> MixSpec:
    lone = {
        "name": "s",
        "request_class": "chat",
        "arrivals": {"kind": "poisson", "rate_per_s": 1},
        "input_tokens": {"kind": "constant", "value": 1},
        "output_tokens": {"kind": "constant", "value": 1},
    }
    return MixSpec(name="m", duration_s=duration_s, streams=(lone,), **fields)


def clipped_lognormal_mean(mu: float, sigma: float, low: float, high: float) -> float:
    """By quadrature over the quantiles of the normal distribution."""
    z = [NormalDist().inv_cdf((k + 0.5) / 20_000) for k in range(20_000)]
    return float(np.clip(np.exp(mu + sigma * np.array(z)), low, high).mean())


@pytest.mark.parametrize(
    ("fields", "mean"),
    [
        ({"kind": "constant", "value": 12}, 12.0),
        ({"kind": "lognormal", "mean": 300, "sigma": 0.7}, 300.0),
        ({"kind": "lognormal", "median": 100, "sigma": 0.5}, 100 * math.exp(0.125)),
        (
            {"kind": "lognormal", "median": 100, "sigma": 1, "min": 50, "max": 400},
            clipped_lognormal_mean(math.log(100), 1.0, 50, 400),
        ),
        ({"kind": "geometric", "mean": 3.5}, 3.5),
        # A geometric capped at m has mean (1 - q^m) / p.
        ({"kind": "geometric", "mean": 4, "max": 5}, 4 * (1 - 0.75**5)),
        ({"kind": "empirical", "values": [1, 10, 100]}, 37.0),
        ({"kind": "empirical", "values": [1, 10, 100], "weights": [8, 0, 2]}, 20.8),
        ({"kind": "histogram", "edges": [0, 10, 30], "weights": [3, 1]}, 0.75 * 5 + 0.25 * 20),
    ],
)
def test_means(fields, mean):
    values = draw(distribution(**fields), stream(1, "means"), SIZE)
    assert values.mean() == pytest.approx(mean, abs=5 * values.std() / math.sqrt(SIZE) + 1e-9)


def test_median_bounds_and_whole_numbers():
    lognormal = distribution(kind="lognormal", median=40, sigma=1.5, min=3, max=900)
    values = draw(lognormal, stream(2), SIZE)
    assert np.median(values) == pytest.approx(40, rel=0.02)
    assert (values.min(), values.max()) == (3, 900)
    tiny = draw_whole(distribution(kind="lognormal", median=0.1, sigma=1), stream(3), 1000)
    assert tiny.dtype == np.int64
    assert tiny.min() == 1


def test_histogram_stays_inside_its_bins():
    values = draw(distribution(kind="histogram", edges=[5, 6, 100, 101], weights=[1, 0, 1]), stream(4), 10_000)
    assert ((values < 6) | (values >= 100)).all()
    assert (values >= 5).all()


def test_zipf_popularity():
    counts = np.bincount(zipf_choices(stream(5), 4, 1.0, SIZE), minlength=4) / SIZE
    expected = np.array([1, 1 / 2, 1 / 3, 1 / 4]) / (25 / 12)
    assert counts == pytest.approx(expected, abs=0.005)
    assert np.bincount(zipf_choices(stream(6), 4, 0.0, SIZE)) / SIZE == pytest.approx([0.25] * 4, abs=0.005)


@pytest.mark.parametrize(
    ("fields", "cv"),
    [
        ({"kind": "poisson"}, 1.0),
        ({"kind": "gamma", "cv": 2.5}, 2.5),
        ({"kind": "gamma", "cv": 0.3}, 0.3),
        ({"kind": "weibull", "shape": 0.7}, math.sqrt(math.gamma(1 + 2 / 0.7) / math.gamma(1 + 1 / 0.7) ** 2 - 1)),
        ({"kind": "weibull", "shape": 3.0}, math.sqrt(math.gamma(1 + 2 / 3) / math.gamma(1 + 1 / 3) ** 2 - 1)),
    ],
)
def test_renewal_arrivals_have_their_rate_and_burstiness(fields, cv):
    times = arrival_times(arrivals(rate_per_s=2.0, **fields), mix(DAY_S), stream(7, "arrivals"))
    expected = 2.0 * DAY_S
    # The count of a renewal process has variance n cv^2 in the long run.
    assert len(times) == pytest.approx(expected, abs=5 * cv * math.sqrt(expected))
    gaps = np.diff(times)
    assert (gaps >= 0).all()
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.04)
    assert times[-1] < DAY_S


@pytest.mark.parametrize("sharpness", [1, 2, 3])
def test_diurnal_arrivals_follow_the_hours(sharpness):
    process = arrivals(kind="diurnal", peak_per_s=4, trough_per_s=1, peak_hour=15, sharpness=sharpness)
    times = arrival_times(process, mix(DAY_S), stream(8, "arrivals"))
    # The mean of ((1 + cos) / 2)^p over a turn is binomial(2p, p) / 4^p.
    mean_per_s = 1 + 3 * math.comb(2 * sharpness, sharpness) / 4**sharpness
    assert len(times) == pytest.approx(mean_per_s * DAY_S, abs=5 * math.sqrt(mean_per_s * DAY_S))
    hours = np.histogram(times, bins=24, range=(0, DAY_S))[0]
    middle = (1 + np.cos((np.arange(24) + 0.5 - 15) * 2 * np.pi / 24)) / 2
    expected = 3600 * (1 + 3 * middle**sharpness)
    assert np.abs(hours - expected).max() < 5 * math.sqrt(expected.max()) + 0.01 * expected.max()


def test_a_diurnal_process_of_cv_1_is_poisson():
    """Rescaled by the expected arrivals, its gaps are exponential of mean 1."""
    process = arrivals(kind="diurnal", peak_per_s=2, trough_per_s=0.2)
    spec = mix(DAY_S)
    gaps = np.diff(np.interp(arrival_times(process, spec, stream(9)), *cumulative_arrivals(process, spec)))
    assert gaps.mean() == pytest.approx(1, abs=0.02)
    assert gaps.std() == pytest.approx(1, abs=0.03)
    assert np.quantile(gaps, [0.1, 0.5, 0.9]) == pytest.approx(-np.log([0.9, 0.5, 0.1]), abs=0.03)


def test_diurnal_burstiness():
    process = arrivals(kind="diurnal", peak_per_s=2, trough_per_s=1, cv=3)
    spec = mix(DAY_S)
    gaps = np.diff(np.interp(arrival_times(process, spec, stream(10)), *cumulative_arrivals(process, spec)))
    assert gaps.std() / gaps.mean() == pytest.approx(3, rel=0.05)


def test_weekdays_and_start():
    process = arrivals(kind="diurnal", peak_per_s=1, trough_per_s=1, weekday_factors=[1, 2, 0, 1, 1, 0.5, 0.5])
    spec = mix(3 * DAY_S, start_weekday=0, start_hour=12)
    times = arrival_times(process, spec, stream(11))
    halves = np.histogram(times, bins=6, range=(0, 3 * DAY_S))[0] / (DAY_S / 2)
    # Monday afternoon, Tuesday, Wednesday (nothing), Thursday morning.
    assert halves == pytest.approx([1, 2, 2, 0, 0, 1], abs=0.05)
    assert halves[3] == halves[4] == 0
