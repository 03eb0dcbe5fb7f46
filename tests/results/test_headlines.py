"""The numbers that every table of fleets shows, by name."""

from __future__ import annotations

from simroute.results.headlines import HEADLINES, headlines

SUMMARY = {
    "ttft_s": {"p50": 0.1, "p99": 0.9},
    "tpot_s": {"p50": 0.01, "p99": None},
    "e2e_s": {"p50": 1.0, "p99": 7.0},
    "slo_attainment": 0.98,
    "quality": {"mean": 0.7, "below_floor_share": 0.25},
    "gpu_busy": 0.5,
    "goodput_rps": 3.0,
}


def test_each_is_where_the_summary_has_it():
    assert headlines(SUMMARY) == {
        "ttft_p99_s": 0.9,
        "tpot_p99_s": None,
        "e2e_p99_s": 7.0,
        "slo_attainment": 0.98,
        "quality_mean": 0.7,
        "below_floor_share": 0.25,
        "gpu_busy": 0.5,
        "goodput_rps": 3.0,
    }


def test_without_a_summary_none_is_known():
    assert headlines(None) == dict.fromkeys(HEADLINES)
