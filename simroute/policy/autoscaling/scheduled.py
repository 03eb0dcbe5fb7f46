"""The autoscaler that follows a timetable, as KEDA's cron scaler does (https://keda.sh/docs/latest/scalers/cron/).

May import policy.autoscaling.hpa, policy.autoscaling.predictive and policy.autoscaling.limits, and units.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from simroute.policy.autoscaling.hpa import Hpa, HpaOptions, HpaRules
from simroute.policy.autoscaling.limits import Autoscaler, Limits, PoolLoad, ZeroGate
from simroute.policy.autoscaling.predictive import Predictive, PredictiveOptions, PredictiveRules
from simroute.units import SECONDS_PER_HOUR, SECONDS_PER_WEEK

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_DAYS: tuple[Day, ...] = get_args(Day)
_DAY_S = 24.0 * SECONDS_PER_HOUR


def _seconds(clock: str) -> float:
    """Seconds from midnight to `clock` (HH:MM). Raises ValueError for anything but a time from 00:00 to 24:00."""
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d|24:00", clock):
        raise ValueError(f"must be a time of day from '00:00' to '24:00', in quotes, got '{clock}'")
    hours, minutes = clock.split(":")
    return int(hours) * SECONDS_PER_HOUR + int(minutes) * 60.0


class Window(BaseModel):
    """From `start` to `end` there are at least `replicas`, on each of `days`.

    An end before the start is on the next day; the day is that of the start.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: str
    end: str
    replicas: int = Field(ge=1)
    days: tuple[Day, ...] = _DAYS

    @field_validator("start", "end")
    @classmethod
    def _clock(cls, clock: str) -> str:
        _seconds(clock)
        return clock

    @field_validator("end")
    @classmethod
    def _later(cls, end: str, info: ValidationInfo) -> str:
        if end == info.data.get("start"):
            raise ValueError(f"must differ from start, got {end} twice; a whole day is from 00:00 to 24:00")
        return end

    @field_validator("days")
    @classmethod
    def _any(cls, days: tuple[Day, ...]) -> tuple[Day, ...]:
        if not days:
            raise ValueError("names no day; leave it out for every day")
        return days

    @property
    def length_s(self) -> float:
        """How long the window is open, at most a day."""
        return (_seconds(self.end) - _seconds(self.start)) % _DAY_S or _DAY_S

    @property
    def openings_s(self) -> list[float]:
        """When it opens, in seconds from the midnight before Monday."""
        return [_DAYS.index(day) * _DAY_S + _seconds(self.start) for day in self.days]


class ScheduledOptions(Limits):
    """Windows of the week, and what decides besides them: `hpa`, `predictive`, or nothing (the minimum).

    `start_weekday` (0 for Monday) and `start_hour` are what the clock shows at 0 s of the run, as in a synthetic
    trace; `utc_offset_hours` is added when the windows are in another time zone than that clock.
    """

    windows: tuple[Window, ...]
    start_weekday: Annotated[int, Field(ge=0, le=6)] = 0
    start_hour: Annotated[float, Field(ge=0.0, lt=24.0)] = 0.0
    utc_offset_hours: Annotated[float, Field(ge=-12.0, le=14.0)] = 0.0
    hpa: HpaRules | None = None
    predictive: PredictiveRules | None = None

    @field_validator("windows")
    @classmethod
    def _within_limits(cls, windows: tuple[Window, ...], info: ValidationInfo) -> tuple[Window, ...]:
        if not windows:
            raise ValueError("names no window: give at least one a start, an end and its replicas")
        fewest, most = info.data.get("min_replicas", 0), info.data.get("max_replicas")
        for i, window in enumerate(windows):
            if most is not None and not fewest <= window.replicas <= most:
                raise ValueError(
                    f"window {i}: replicas must be in {fewest}..{most} (min_replicas..max_replicas), "
                    f"got {window.replicas}"
                )
        return windows

    @field_validator("predictive")
    @classmethod
    def _one(cls, predictive: PredictiveRules | None, info: ValidationInfo) -> PredictiveRules | None:
        if predictive is not None and info.data.get("hpa") is not None:
            raise ValueError("give hpa or predictive, not both; predictive reacts as an hpa by itself")
        return predictive


class Scheduled:
    """At least the replicas of the windows that are open, the most of them if several are.

    With `hpa` or `predictive` that one decides at all times, and the windows set the least, as KEDA takes the largest
    of its triggers. Without, the pool has `min_replicas` between windows. A window closes at once.
    """

    Options: ClassVar[type[ScheduledOptions]] = ScheduledOptions

    def __init__(self, options: ScheduledOptions) -> None:
        self._spans = [(at_s, w.length_s, w.replicas) for w in options.windows for at_s in w.openings_s]
        clock_hours = options.start_hour + options.utc_offset_hours
        self._clock_s = options.start_weekday * _DAY_S + clock_hours * SECONDS_PER_HOUR
        self._fewest = options.min_replicas
        self._inner = _inner(options)
        self._gate = ZeroGate(options)

    def desired(self, load: PoolLoad) -> int:
        """The most of what the open windows and the autoscaler inside ask for."""
        scheduled = self._scheduled(load.now_s)
        inner = self._inner.desired(load) if self._inner is not None else self._fewest
        return self._gate.apply(load, max(scheduled, inner), active=scheduled > 0)

    def _scheduled(self, now_s: float) -> int:
        clock_s = self._clock_s + now_s
        open_now = (n for at_s, length_s, n in self._spans if (clock_s - at_s) % SECONDS_PER_WEEK < length_s)
        return max(open_now, default=0)


def _inner(options: ScheduledOptions) -> Autoscaler | None:
    limits = {name: getattr(options, name) for name in Limits.model_fields}
    if options.hpa is not None:
        return Hpa(HpaOptions(**limits, **dict(options.hpa)))
    if options.predictive is not None:
        return Predictive(PredictiveOptions(**limits, **dict(options.predictive)))
    return None
