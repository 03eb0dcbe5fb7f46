"""Timetables: over midnight, over the week's end, in another time zone, with an autoscaler inside, down to zero."""

from __future__ import annotations

import pytest

from simroute.policy.autoscaling import PoolLoad, make_autoscaler

HOUR, DAY = 3600.0, 86400.0


def scheduled(*windows, least=1, most=6, **options):
    given_windows = [dict(zip(("start", "end", "replicas", "days"), w, strict=False)) for w in windows]
    return make_autoscaler(
        "scheduled", {"windows": given_windows, "min_replicas": least, "max_replicas": most, **options}
    )


def at(scaler, day, clock, replicas=1, **load):
    hours, minutes = clock.split(":")
    return scaler.desired(PoolLoad(day * DAY + int(hours) * HOUR + int(minutes) * 60.0, replicas, **load))


def test_a_window_over_midnight_belongs_to_the_day_of_its_start():
    scaler = scheduled(("22:00", "02:00", 5, ["fri"]))
    clocks = [(3, "23:00"), (4, "01:00"), (4, "21:59"), (4, "22:00"), (5, "01:59"), (5, "02:00"), (5, "23:00")]
    assert [at(scaler, *c) for c in clocks] == [1, 1, 1, 5, 5, 1, 1]
    assert at(scaler, 7 + 5, "00:30") == 5


def test_a_window_over_the_end_of_the_week():
    scaler = scheduled(("23:00", "01:00", 4, ["sun"]))
    assert [at(scaler, 0, "00:30"), at(scaler, 0, "01:00"), at(scaler, 6, "23:30"), at(scaler, 7, "00:59")] == [
        4,
        1,
        4,
        4,
    ]


def test_every_day_whole_days_and_the_most_of_windows_that_overlap():
    scaler = scheduled(("08:00", "20:00", 3), ("12:00", "13:00", 6), ("00:00", "24:00", 2, ["sat"]))
    assert [at(scaler, 2, c) for c in ("07:59", "08:00", "12:00", "13:00", "20:00")] == [1, 3, 6, 3, 1]
    assert [at(scaler, 5, c) for c in ("00:00", "08:00", "23:59")] == [2, 3, 2]
    assert at(scaler, 6, "00:00") == 1


@pytest.mark.parametrize(
    ("clock", "offset", "open_from_s"),
    [
        ({}, 0, 4 * DAY + 8 * HOUR),
        ({"start_weekday": 4}, 0, 8 * HOUR),
        ({"start_weekday": 4, "start_hour": 7.5}, 0, 0.5 * HOUR),
        ({"start_weekday": 4}, 2, 6 * HOUR),
        ({"start_weekday": 4}, -3.5, 11.5 * HOUR),
    ],
)
def test_the_clock_at_the_start_of_the_run_and_the_time_zone(clock, offset, open_from_s):
    scaler = scheduled(("08:00", "09:00", 4, ["fri"]), utc_offset_hours=offset, **clock)
    times = (open_from_s - 1.0, open_from_s, open_from_s + HOUR - 1.0, open_from_s + HOUR)
    assert [scaler.desired(PoolLoad(t, 1)) for t in times] == [1, 4, 4, 1]


def test_an_autoscaler_inside_decides_and_a_window_sets_the_least():
    scaler = scheduled(
        ("01:00", "02:00", 4), hpa={"targets": {"concurrency": 10}, "scale_down": {"stabilization_window_s": 0}}
    )
    assert at(scaler, 0, "00:30", replicas=1, in_flight=30) == 3
    assert at(scaler, 0, "01:00", replicas=3, in_flight=30) == 4
    assert at(scaler, 0, "01:30", replicas=4, in_flight=55) == 6
    assert at(scaler, 0, "02:30", replicas=6, in_flight=20) == 2


def test_a_timetable_takes_a_pool_to_zero_at_night():
    """The window keeps it up, the cooldown counts from its end, and a request at night is served."""
    scaler = scheduled(("08:00", "20:00", 2), least=0, cooldown_s=600)
    clocks = ["08:00", "14:00", "19:59", "20:00", "20:08", "20:09", "23:00"]
    assert [at(scaler, 0, c, replicas=2) for c in clocks] == [2, 2, 2, 1, 1, 0, 0]
    assert at(scaler, 0, "23:30", replicas=0, held=1) == 1
    assert at(scaler, 1, "08:00", replicas=0) == 2
