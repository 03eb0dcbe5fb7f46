"""Numbers from the distributions and arrival processes of a spec. Imports only the spec and the workload's columns."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from simroute.units import SECONDS_PER_HOUR
from simroute.workload.columns import Floats, Ints
from simroute.workload.synth.spec import (
    Arrivals,
    Bounded,
    Constant,
    Distribution,
    Diurnal,
    Empirical,
    Gamma,
    Geometric,
    Histogram,
    Lognormal,
    MixSpec,
    Weibull,
)

RATE_STEP_S = 60.0
"""A diurnal rate is taken as constant for so long."""


def draw(distribution: Distribution, rng: np.random.Generator, size: int) -> Floats:
    """`size` draws, shape (size,)."""
    match distribution:
        case Constant(value=value):
            return np.full(size, value)
        case Lognormal(mu=mu, sigma=sigma):
            return _clipped(distribution, rng.lognormal(mu, sigma, size))
        case Geometric(mean=mean):
            return _clipped(distribution, rng.geometric(1.0 / mean, size).astype(np.float64))
        case Empirical(values=values, weights=weights):
            return np.asarray(values, dtype=np.float64)[_choices(rng, weights or (1.0,) * len(values), size)]
        case Histogram(edges=edges, weights=weights):
            low = np.asarray(edges)
            bins = _choices(rng, weights, size)
            return low[bins] + rng.random(size) * np.diff(low)[bins]


def draw_whole(distribution: Distribution, rng: np.random.Generator, size: int) -> Ints:
    """Draws rounded to whole numbers of at least 1, int64 of shape (size,)."""
    whole: Ints = np.maximum(np.rint(draw(distribution, rng, size)), 1).astype(np.int64)
    return whole


def zipf_choices(rng: np.random.Generator, count: int, exponent: float, size: int) -> Ints:
    """`size` draws of 0..count - 1, k in proportion to (k + 1)^-exponent."""
    return _choices(rng, tuple(np.arange(1, count + 1, dtype=np.float64) ** -exponent), size)


def arrival_times(arrivals: Arrivals, spec: MixSpec, rng: np.random.Generator) -> Floats:
    """Sorted arrivals in [0, duration_s).

    A diurnal process is a renewal process of rate 1 on the axis of expected arrivals, mapped back to time: with
    `cv` 1 exactly a non-homogeneous Poisson process, otherwise a gamma process under the same clock.
    """
    if isinstance(arrivals, Diurnal):
        time_s, expected = cumulative_arrivals(arrivals, spec)
        position = _renewal(_gamma_gaps(rng, 1.0, arrivals.cv), expected[-1], arrivals.cv)
        # The step in which each position falls; one without arrivals (trough 0, a weekday of 0) is never chosen.
        step = np.searchsorted(expected, position, side="right") - 1
        inside = (position - expected[step]) / (expected[step + 1] - expected[step])
        times: Floats = time_s[step] + inside * (time_s[step + 1] - time_s[step])
        return times
    if isinstance(arrivals, Weibull):
        # A Weibull gap of scale 1 has mean gamma(1 + 1/k).
        scale = 1.0 / (arrivals.rate_per_s * math.gamma(1.0 + 1.0 / arrivals.shape))
        shape = arrivals.shape
        return _renewal(
            lambda size: scale * rng.weibull(shape, size), spec.duration_s, 1.0 / shape, arrivals.rate_per_s
        )
    cv = arrivals.cv if isinstance(arrivals, Gamma) else 1.0
    return _renewal(_gamma_gaps(rng, arrivals.rate_per_s, cv), spec.duration_s, cv, arrivals.rate_per_s)


def cumulative_arrivals(arrivals: Diurnal, spec: MixSpec) -> tuple[Floats, Floats]:
    """(time_s, expected arrivals up to then), both of shape (m,), from 0 to the end of the trace."""
    time_s = np.append(np.arange(0.0, spec.duration_s, RATE_STEP_S), spec.duration_s)
    expected = np.zeros(len(time_s))
    np.cumsum(diurnal_rate(arrivals, spec, (time_s[1:] + time_s[:-1]) / 2) * np.diff(time_s), out=expected[1:])
    return time_s, expected


def diurnal_rate(arrivals: Diurnal, spec: MixSpec, time_s: Floats) -> Floats:
    """Arrivals a second at `time_s` after the start, shape (n,)."""
    hours = spec.start_hour + time_s / SECONDS_PER_HOUR
    height = ((1.0 + np.cos((hours - arrivals.peak_hour) * (2.0 * np.pi / 24.0))) / 2.0) ** arrivals.sharpness
    rate: Floats = arrivals.trough_per_s + (arrivals.peak_per_s - arrivals.trough_per_s) * height
    if arrivals.weekday_factors is None:
        return rate
    weekday = (spec.start_weekday + (hours // 24.0).astype(np.int64)) % 7
    factors: Floats = np.asarray(arrivals.weekday_factors, dtype=np.float64)
    return rate * factors[weekday]


def _gamma_gaps(rng: np.random.Generator, rate_per_s: float, cv: float) -> Callable[[int], Floats]:
    """Gaps of mean 1 / rate: gamma of shape 1 / cv^2 has this coefficient of variation."""
    shape = 1.0 / cv**2
    return lambda size: rng.gamma(shape, 1.0 / (rate_per_s * shape), size)


def _renewal(gaps: Callable[[int], Floats], length: float, cv: float, rate: float = 1.0) -> Floats:
    """Sums of gaps below `length`: gaps are drawn in lots that most often suffice at once."""
    expected = rate * length
    lot = int(expected + 6.0 * max(cv, 1.0) * math.sqrt(expected)) + 16
    times = np.cumsum(gaps(lot))
    while times[-1] < length:
        times = np.concatenate([times, times[-1] + np.cumsum(gaps(lot))])
    return times[times < length]


def _choices(rng: np.random.Generator, weights: tuple[float, ...], size: int) -> Ints:
    bounds = np.cumsum(weights)
    choices: Ints = np.searchsorted(bounds, rng.random(size) * bounds[-1], side="right").astype(np.int64)
    return choices


def _clipped(bounded: Bounded, values: Floats) -> Floats:
    return np.clip(values, bounded.min, bounded.max)
