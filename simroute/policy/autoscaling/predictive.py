"""The autoscaler that looks ahead: what comes at this hour of other days, brought to today's level.

May import policy.autoscaling.hpa, policy.options, policy.autoscaling.behavior and policy.autoscaling.limits, and units.
"""

from __future__ import annotations

from collections import deque
from math import floor
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from simroute.policy.autoscaling.behavior import Behavior
from simroute.policy.autoscaling.hpa import HpaRules, Recommender, whole_replicas
from simroute.policy.autoscaling.limits import Limits, PoolLoad
from simroute.policy.options import NotNegative, Positive
from simroute.units import SECONDS_PER_HOUR


class PredictiveRules(HpaRules):
    """What a replica can take, how far to look ahead, and how the forecast is made.

    `replica_requests_per_s` is the load of a full replica, of which `headroom` (a share) stays free. The forecast is
    for the next `lead_s`: at least the time a replica takes to start. Arrivals are averaged in buckets of `bucket_s`
    and come again after `period_s`, at the level of the last `level_window_s`; each season has a share of
    `season_weight` in the profile expected of the next. Until a season has been seen the metrics of `targets` decide
    alone, and with `reactive` they go on deciding when they ask for more than the forecast.
    """

    model_config = ConfigDict(validate_default=True)  # a default must fit the period that is given

    replica_requests_per_s: Positive
    headroom: NotNegative = 0.1
    period_s: Positive = 24.0 * SECONDS_PER_HOUR
    bucket_s: Positive = 300.0
    lead_s: NotNegative = 600.0
    level_window_s: Positive = 1800.0
    season_weight: Annotated[float, Field(ge=0.0, le=1.0)] = 0.3
    reactive: bool = True

    @field_validator("bucket_s")
    @classmethod
    def _divides(cls, bucket_s: float, info: ValidationInfo) -> float:
        period_s = info.data.get("period_s", bucket_s)
        buckets = period_s / bucket_s
        if buckets < 2.0 - 1e-9 or abs(buckets - round(buckets)) > 1e-9 * buckets:
            raise ValueError(f"must divide period_s {period_s:g} into two or more equal parts, got {bucket_s:g}")
        return bucket_s

    @field_validator("lead_s", "level_window_s")
    @classmethod
    def _within_a_season(cls, span_s: float, info: ValidationInfo) -> float:
        longest_s = info.data.get("period_s", span_s) - info.data.get("bucket_s", 0.0)
        if span_s > longest_s:
            raise ValueError(f"must be at most period_s less bucket_s, {longest_s:g}, got {span_s:g}")
        return span_s


class PredictiveOptions(PredictiveRules, Limits):
    """Forecast, targets, behaviour and limits."""


class SeasonalForecast:
    """A rate's level times its profile over a season, as in Holt-Winters' multiplicative method without a trend.

    The profile is the first season, corrected by a share `weight` of every later one; the level is the sum of the
    last `recent` buckets over their sum in the profile. A rate that repeats itself is therefore forecast exactly, and
    one that repeats at another scale too once the scale has lasted that long. Buckets in which nothing was observed
    keep the rate seen last.
    """

    def __init__(self, bucket_s: float, season: int, recent: int, weight: float) -> None:
        self._bucket_s = bucket_s
        self._season = season
        self._weight = weight
        self._profile: list[float] = []
        self._recent: deque[tuple[float, float]] = deque(maxlen=recent)
        self._level = 1.0
        self._first = self._open = -1
        self._sum = 0.0
        self._observations = 0
        self._last = 0.0

    def observe(self, now_s: float, rate: float) -> None:
        """`rate` is seen at `now_s`."""
        number = self._number(now_s)
        if self._open < 0:
            self._first = self._open = number
        while self._open < number:
            self._close()
        self._sum += rate
        self._observations += 1
        self._last = rate

    def highest(self, now_s: float, until_s: float) -> float | None:
        """The highest rate of any bucket from `now_s` to `until_s`, None until a season has been seen."""
        if len(self._profile) < self._season:
            return None
        buckets = range(self._number(now_s), self._number(until_s) + 1)
        return self._level * max(self._profile[(number - self._first) % self._season] for number in buckets)

    def _number(self, time_s: float) -> int:
        return floor(time_s / self._bucket_s)

    def _close(self) -> None:
        rate = self._sum / self._observations if self._observations else self._last
        if len(self._profile) < self._season:
            self._profile.append(rate)
        else:
            self._compare((self._open - self._first) % self._season, rate)
        self._open += 1
        self._sum, self._observations = 0.0, 0

    def _compare(self, phase: int, rate: float) -> None:
        """Bring level and profile to `rate`; where either is 0 there is nothing to compare with.

        A place in the profile learns at most the double of what it was: while a level is new, as after an outage, what
        the level does not explain yet is not the hour's doing.
        """
        usual = self._profile[phase]
        self._recent.append((rate, usual))
        expected = sum(usual for _, usual in self._recent)
        if expected > 0.0:
            self._level = sum(rate for rate, _ in self._recent) / expected
        if self._level > 0.0:
            seen = rate / self._level
            self._profile[phase] = usual + self._weight * ((min(seen, 2.0 * usual) if usual else seen) - usual)


class Predictive:
    """Replicas for the load forecast until a replica ordered now is ready, so that it is there when the load comes.

    The most of the next `lead_s` counts: what is about to be needed is not taken away either.
    """

    Options: ClassVar[type[PredictiveOptions]] = PredictiveOptions

    def __init__(self, options: PredictiveOptions) -> None:
        season = round(options.period_s / options.bucket_s)
        recent = max(1, round(options.level_window_s / options.bucket_s))
        self._forecast = SeasonalForecast(options.bucket_s, season, recent, options.season_weight)
        self._recommender = Recommender(options)
        self._behavior = Behavior(options.scale_up, options.scale_down, options)
        self._lead_s = options.lead_s
        self._needed_per_rate = (1.0 + options.headroom) / options.replica_requests_per_s
        self._reactive = options.reactive

    def desired(self, load: PoolLoad) -> int:
        """What the forecast asks for, or the metrics, as far as behaviour and limits let the pool follow."""
        self._forecast.observe(load.now_s, load.arrivals_per_s)
        rate = self._forecast.highest(load.now_s, load.now_s + self._lead_s)
        recommended = self._recommender.recommend(load)
        if rate is None:
            return self._behavior.settle(load, recommended)
        foreseen = whole_replicas(rate * self._needed_per_rate)
        if self._reactive:
            seen = load.replicas if recommended is None else recommended
            return self._behavior.settle(load, max(foreseen, seen), active=foreseen > 0)
        return self._behavior.settle(load, foreseen, active=foreseen > 0)
