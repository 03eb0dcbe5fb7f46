"""All autoscalers: limits under any load, options that contradict, names, and the page that documents them."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simroute.errors import UsageError
from simroute.policy.autoscaling import (
    AUTOSCALERS,
    Limits,
    PoolLoad,
    autoscaler_schema,
    check_autoscaler,
    make_autoscaler,
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "fleet.md"

loads = st.builds(
    PoolLoad,
    now_s=st.just(0.0),
    ready=st.integers(0, 12),
    starting=st.integers(0, 4),
    in_flight=st.integers(0, 400),
    held=st.integers(0, 50),
    waiting=st.integers(0, 50),
    kv_usage=st.floats(0.0, 1.0),
    ttft_p90_s=st.none() | st.floats(0.0, 100.0),
    arrivals_per_s=st.floats(0.0, 100.0),
)
everything = {"targets": {"concurrency": 7, "waiting": 2, "kv_usage": 0.7, "ttft_p90_s": 0.5, "held": 3}}
of_name = {
    "hpa": everything,
    "scheduled": {"windows": [{"start": "00:10", "end": "00:20", "replicas": 5}], "hpa": everything},
    "predictive": everything | {"replica_requests_per_s": 2, "period_s": 240, "bucket_s": 60, "lead_s": 60} | {
        "level_window_s": 120
    },
}  # fmt: skip


@given(st.sampled_from(sorted(AUTOSCALERS)), st.integers(0, 5), st.lists(st.tuples(st.floats(1.0, 120.0), loads)))
def test_every_autoscaler_keeps_the_limits_and_gives_the_same_for_the_same(name, least, steps):
    options = of_name[name] | {"min_replicas": least, "max_replicas": 8}
    one, other = make_autoscaler(name, options), make_autoscaler(name, options)
    now_s = 0.0
    for gap_s, load in steps:
        now_s += gap_s
        shown = PoolLoad(**{field: getattr(load, field) for field in PoolLoad.__slots__} | {"now_s": now_s})
        wanted = one.desired(shown)
        assert least <= wanted <= 8
        assert wanted > 0 or shown.idle
        assert other.desired(shown) == wanted


BASE = {"max_replicas": 5}
TARGETS = {"targets": {"concurrency": 10}}
WINDOW = {"start": "08:00", "end": "20:00", "replicas": 3}


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("hpa", TARGETS, "max_replicas: Field required"),
        ("hpa", BASE, "targets: Field required"),
        (
            "hpa",
            BASE | {"targets": {}},
            "targets: names no metric: give at least one of concurrency, held, running, waiting, kv_usage, ttft_p90_s "
            "a target",
        ),
        ("hpa", BASE | TARGETS | {"min_replicas": 6}, "max_replicas: must not be below min_replicas 6, got 5"),
        (
            "hpa",
            BASE | TARGETS | {"min_replicas": -1},
            "min_replicas: Input should be greater than or equal to 0, got -1",
        ),
        ("hpa", BASE | {"targets": {"waiting": 0}}, "targets.waiting: Input should be greater than 0, got 0"),
        (
            "hpa",
            BASE | {"targets": {"kv_usage": 80}},
            "targets.kv_usage: Input should be less than or equal to 1, got 80",
        ),
        ("hpa", BASE | {"targets": {"qps": 1, "held": 1}}, "targets.qps: unknown option 'qps': known are "),
        ("hpa", BASE | TARGETS | {"tolerance": 1}, "tolerance: Input should be less than 1, got 1"),
        (
            "hpa",
            BASE | TARGETS | {"scale_up": {"policies": []}},
            "scale_up.policies: needs at least one policy; to keep the pool as it is, say select_policy: Disabled",
        ),
        (
            "hpa",
            BASE | TARGETS | {"scale_down": {"policies": [{"type": "Pods", "value": 0, "period_s": 60}]}},
            "scale_down.policies.0.value: Input should be greater than or equal to 1, got 0",
        ),
        ("scheduled", BASE | {"windows": []}, "windows: names no window: give at least one a start, an end and "),
        (
            "scheduled",
            BASE | {"windows": [WINDOW, WINDOW | {"replicas": 6}]},
            "windows: window 1: replicas must be in 1..5 (min_replicas..max_replicas), got 6",
        ),
        (
            "scheduled",
            BASE | {"min_replicas": 4, "windows": [WINDOW]},
            "windows: window 0: replicas must be in 4..5 (min_replicas..max_replicas), got 3",
        ),
        (
            "scheduled",
            BASE | {"windows": [WINDOW | {"end": "25:00"}]},
            "windows.0.end: must be a time of day from '00:00' to '24:00', in quotes, got '25:00'",
        ),
        (
            "scheduled",
            BASE | {"windows": [WINDOW | {"end": "08:00"}]},
            "windows.0.end: must differ from start, got 08:00",
        ),
        ("scheduled", BASE | {"windows": [WINDOW | {"days": []}]}, "windows.0.days: names no day; leave it out for "),
        ("scheduled", BASE | {"windows": [WINDOW | {"days": ["fry"]}]}, "windows.0.days.0: Input should be 'mon', "),
        (
            "scheduled",
            BASE | {"windows": [WINDOW], "hpa": TARGETS, "predictive": TARGETS | {"replica_requests_per_s": 1}},
            "predictive: give hpa or predictive, not both; predictive reacts as an hpa by itself",
        ),
        ("predictive", BASE | TARGETS, "replica_requests_per_s: Field required"),
        (
            "predictive",
            BASE | TARGETS | {"replica_requests_per_s": 1, "bucket_s": 7000},
            "bucket_s: must divide period_s 86400 into two or more equal parts, got 7000",
        ),
        (
            "predictive",
            BASE | TARGETS | {"replica_requests_per_s": 1, "lead_s": 86400},
            "lead_s: must be at most period_s less bucket_s, 86100, got 86400",
        ),
        (
            "predictive",
            BASE | TARGETS | {"replica_requests_per_s": 1, "period_s": 900, "lead_s": 60},
            "level_window_s: must be at most period_s less bucket_s, 600, got 1800",
        ),
    ],
)
def test_limits_and_options_that_contradict_are_located_and_explained(name, options, expected):
    (problem,) = check_autoscaler(name, options)
    assert str(problem).startswith(expected)
    with pytest.raises(UsageError, match=re.escape(f"autoscaler {name}: {expected}")):
        make_autoscaler(name, options)


def test_an_unknown_autoscaler_is_named_with_the_nearest():
    with pytest.raises(UsageError, match="unknown autoscaler 'schedule': did you mean scheduled"):
        make_autoscaler("schedule", {})


@pytest.mark.parametrize("name", AUTOSCALERS)
def test_every_autoscaler_and_each_of_its_options_is_documented(name):
    page = PAGE.read_text(encoding="utf-8")
    section = re.split(r"\n##+ ", page.partition(f"\n### {name}\n")[2])[0]
    assert section
    schema = autoscaler_schema(name)
    assert schema["additionalProperties"] is False
    assert AUTOSCALERS[name].Options.model_config["frozen"] is True
    shared = set(Limits.model_fields)
    assert all(f"`{option}`" in page for option in shared)
    inherited = set(autoscaler_schema("hpa")["properties"]) if name == "predictive" else shared
    assert all(f"`{option}`" in section for option in set(schema["properties"]) - inherited)


def test_examples_of_the_page_run(monkeypatch):
    monkeypatch.chdir(PAGE.parents[1])
    failed, tried = doctest.testfile(str(PAGE), module_relative=False)
    assert tried > 20
    assert failed == 0
