"""Forecasts that can be worked out: a few buckets by hand, an exact sinusoid, a change of level, nights of nothing."""

from __future__ import annotations

from math import ceil, pi, sin

import pytest
from policy.scaling import AT_ONCE

from simroute.policy.autoscaling import PoolLoad, make_autoscaler
from simroute.policy.autoscaling.predictive import SeasonalForecast


def test_a_rate_that_repeats_is_forecast_exactly_at_any_scale():
    """Season 1 2 3 4; then 2 4: twice the level, so that 6 and 8 come next."""
    forecast = SeasonalForecast(bucket_s=1.0, season=4, recent=2, weight=0.5)
    for second, rate in enumerate([1.0, 2.0, 3.0, 4.0]):
        forecast.observe(second, rate)
        assert forecast.highest(second, second + 1) is None
    forecast.observe(4, 2.0)
    assert [forecast.highest(4, until) for until in (4, 5, 6, 7)] == [1.0, 2.0, 3.0, 4.0]
    forecast.observe(5, 4.0)
    assert forecast.highest(5, 6) == 2.0 * 3.0  # one bucket so far: 2 instead of 1
    forecast.observe(6, 0.0)
    assert [forecast.highest(6, until) for until in (6, 7, 8)] == [6.0, 8.0, 8.0]  # (2 + 4) / (1 + 2) = 2


def test_a_profile_takes_its_share_of_every_season():
    """Level over one bucket: 4 instead of 2 doubles it, so the profile keeps its shape; over two, it is 4 of 3, and
    4 at that level are 3 instead of 2, of which half is learnt: 2.5."""
    short = SeasonalForecast(bucket_s=1.0, season=2, recent=1, weight=0.5)
    long = SeasonalForecast(bucket_s=1.0, season=2, recent=2, weight=0.5)
    for forecast in (short, long):
        for second, rate in enumerate([1.0, 2.0, 0.0, 4.0, 0.0]):
            forecast.observe(second, rate)
    # short: at 2 s the level is 0 and nothing is learnt; at 3 s it is 2.
    assert [short.highest(4, 4), short.highest(5, 5)] == [2.0, 4.0]
    assert [long.highest(4, 4), long.highest(5, 5)] == pytest.approx([4 / 3 * 1.0, 4 / 3 * 2.5])


def test_an_outage_leaves_no_peak_behind():
    """Two hours of nothing, then 10 as ever while the level of three hours says a third: that is not learnt as 30.

    The hour learns 20 by a share of 0.3, so that the next day 13 are expected there, not 16.
    """
    forecast = SeasonalForecast(bucket_s=1.0, season=24, recent=3, weight=0.3)
    for hour in range(47):
        forecast.observe(hour, 0.0 if 30 <= hour < 32 else 10.0)
    assert forecast.highest(47, 47) == pytest.approx(10.0)
    assert forecast.highest(47, 24 + 47 - 1) == pytest.approx(13.0)
    steady = SeasonalForecast(bucket_s=1.0, season=2, recent=1, weight=0.5)
    for second, rate in enumerate([1.0, 0.0, 1.0, 8.0, 1.0]):
        steady.observe(second, rate)
    assert steady.highest(5, 5) == 4.0  # a place that had nothing learns freely


def test_a_bucket_is_the_mean_of_what_was_seen_and_a_gap_keeps_the_last():
    forecast = SeasonalForecast(bucket_s=10.0, season=3, recent=1, weight=0.5)
    for now_s, rate in ((0.0, 1.0), (5.0, 3.0), (9.0, 5.0), (31.0, 7.0)):
        forecast.observe(now_s, rate)
    assert forecast.highest(31.0, 31.0) == 3.0
    assert forecast.highest(31.0, 45.0) == 5.0  # seen last before the gap
    assert SeasonalForecast(10.0, 3, 1, 0.5).highest(0.0, 10.0) is None


SEASON = {"period_s": 3600, "bucket_s": 60, "lead_s": 300, "level_window_s": 600, "replica_requests_per_s": 2}


def sinusoid(now_s):
    return 20.0 + 15.0 * sin(2.0 * pi * now_s / 3600.0)


def run_predictive(until_s, in_flight=lambda rate: ceil(5.0 * rate), rate_at=sinusoid, **options):
    """Sizes at every 15 s; a request takes 5 s, and 10 in flight are the target, so that reacting means rate / 2."""
    rules = {"targets": {"concurrency": 10}, "tolerance": 0, "scale_down": AT_ONCE, "max_replicas": 100}
    scaler = make_autoscaler("predictive", rules | SEASON | options)
    sizes, replicas = {}, 10
    for now_s in range(0, until_s, 15):
        rate = rate_at(now_s)
        load = PoolLoad(float(now_s), replicas, in_flight=in_flight(rate), arrivals_per_s=rate)
        replicas = sizes[now_s] = scaler.desired(load)
    return sizes


def test_an_exact_sinusoid_is_met_ahead_of_time():
    """After a season the pool has what the highest minute of the next 300 s needs, with 10% to spare."""
    sizes = run_predictive(3 * 3600, reactive=False)

    def minute(number):
        return sum(sinusoid(60 * number + offset) for offset in (0, 15, 30, 45)) / 4

    for now_s, size in sizes.items():
        if now_s < 3600:
            assert size == ceil(ceil(5.0 * sinusoid(now_s)) / 10 - 1e-9)
        else:
            highest = max(minute(number) for number in range(now_s // 60, (now_s + 300) // 60 + 1))
            assert size == ceil(highest * 1.1 / 2 - 1e-9)
    ahead = [now_s for now_s in range(3600, 10800 - 300, 15) if 2 * sizes[now_s] >= sinusoid(now_s + 300)]
    assert len(ahead) == len(range(3600, 10800 - 300, 15))
    behind = [now_s for now_s in range(0, 900, 15) if 2 * sizes[now_s] < sinusoid(now_s + 300)]
    assert behind, "reacting alone is late when the load rises: the example would show nothing"


def test_a_forecast_follows_the_level_of_today():
    """The second hour has twice the load: after ten minutes of it, the forecast is for twice as much.

    The ten minutes themselves are taken for a change of the profile, by 0.3 of what the level did not explain.
    """
    sizes = run_predictive(7200, rate_at=lambda t: sinusoid(t) * (2 if t >= 3600 else 1), reactive=False)
    usual = run_predictive(7200, reactive=False)
    assert all(2 * usual[t] - 1 <= sizes[t] <= 2 * usual[t] for t in range(4320, 6900, 15))
    assert all(2 * usual[t] - 1 <= sizes[t] <= 2 * usual[t] * 1.3 for t in range(6900, 7200, 15))


def test_metrics_that_ask_for_more_than_the_forecast_are_followed_unless_told_not_to():
    def crowd(rate):
        return 600

    assert run_predictive(3700, crowd)[3690] == 60
    assert run_predictive(3700, crowd, reactive=False)[3690] == run_predictive(3700, reactive=False)[3690] < 20


def test_a_forecast_of_nothing_lets_a_pool_go_to_zero():
    """No load in the second half of the hour: idle from 1800 s, gone 120 s later; back 300 s before the next hour."""

    def office(now_s):
        return 10.0 if now_s % 3600 < 1800 else 0.0

    sizes = run_predictive(3 * 3600, rate_at=office, min_replicas=0, cooldown_s=120)
    assert (sizes[1785], sizes[1800], sizes[1890], sizes[1905], sizes[3585]) == (5, 1, 1, 0, 0)
    assert (sizes[3600 + 1785], sizes[3600 + 1905], sizes[7200 - 315]) == (6, 0, 0)
    assert (sizes[7200 - 300], sizes[7200 - 285]) == (1, 5)  # from zero one at first, then by 4
