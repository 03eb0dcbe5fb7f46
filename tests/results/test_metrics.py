"""Summaries against numbers worked out by hand and against np.percentile."""

import json
import math

import numpy as np
import pytest
from results.runs import make_replica, make_run, make_trace, reject

from simroute.results.metrics import summarise
from simroute.results.slo import Slo
from simroute.results.store import json_text

STATISTICS = ("mean", "p50", "p90", "p95", "p99")


def no_quality(_pool, _request_class):
    return None


def summary_of(run, slo=None, quality=no_quality):
    return summarise(run, slo or {}, quality)


def four_requests(**changes):
    """Four requests of 11, 11, 1 and 21 tokens; the third has no TPOT."""
    trace = make_trace([0.0, 1.0, 2.0, 3.0], output_tokens=[11, 11, 1, 21])
    return make_run(trace, [0.1, 0.2, 0.3, 0.4], [1.1, 2.2, 0.3, 4.4], end_s=10.0, **changes)


def test_latencies_are_those_of_vllm_bench_serve():
    summary = summary_of(four_requests())
    expected = {"ttft_s": [0.1, 0.2, 0.3, 0.4], "tpot_s": [0.1, 0.2, 0.2], "e2e_s": [1.1, 2.2, 0.3, 4.4]}
    for name, values in expected.items():
        points = [np.mean(values), *np.percentile(values, (50, 90, 95, 99))]
        assert [summary[name][key] for key in STATISTICS] == pytest.approx(points)
    assert [summary["itl_s"][key] for key in STATISTICS] == [0.02] * 5


def test_rates_count_completed_requests_over_the_whole_run():
    summary = summary_of(four_requests(), {"default": Slo(ttft_s=0.35, tpot_s=0.15)})
    assert summary["duration_s"] == 10.0
    assert summary["output_tokens_per_s"] == pytest.approx(4.4)
    # Request 0 meets both targets; request 2 has no TPOT and meets them too; 1 is too slow a token, 3 too late.
    assert summary["goodput_rps"] == pytest.approx(0.2)
    assert summary["slo_attainment"] == 0.5


def test_what_did_not_finish_is_in_the_denominator():
    run = four_requests()
    reject(run, 0)
    run.status[3] = 0
    run.finish_s[3] = math.nan
    summary = summary_of(run)
    assert summary["requests"] == {
        "arrived": 4,
        "completed": 2,
        "rejected": 1,
        "failed": 0,
        "cancelled": 0,
        "unfinished": 1,
    }
    assert summary["reject_reasons"] == {"too_long": 1}
    assert summary["slo_attainment"] == 0.5


def test_requests_after_the_horizon_never_arrived():
    run = four_requests()
    run.end_s = 2.5
    run.status[3] = 0
    run.finish_s[3] = run.first_token_s[3] = math.nan
    assert summary_of(run)["requests"] == {
        "arrived": 3,
        "completed": 3,
        "rejected": 0,
        "failed": 0,
        "cancelled": 0,
        "unfinished": 0,
    }


def test_each_class_has_its_own_targets_and_falls_back_on_default():
    trace = make_trace([0.0, 0.0, 0.0], classes=["chat", "code", "other"])
    run = make_run(trace, [0.5, 0.5, 0.5], [1.0, 1.0, 1.0])
    summary = summary_of(run, {"chat": Slo(ttft_s=1.0), "code": Slo(ttft_s=0.1), "default": Slo(e2e_s=0.9)})
    attained = {name: part["slo_attainment"] for name, part in summary["by_class"].items()}
    assert attained == {"chat": 1.0, "code": 0.0, "other": 0.0}
    assert summary["slo_attainment"] == pytest.approx(1 / 3)


def test_the_bill_counts_every_replica_for_730_hours_busy_or_not():
    replicas = [make_replica(0, busy_s=5.0), make_replica(1, "l4", usd_per_hour=0.5, gpus=2, gpu="L4", busy_s=0.0)]
    summary = summary_of(four_requests(replicas=replicas))
    assert summary["cost_usd_per_month"] == pytest.approx(2.5 * 730)
    # 10 s cost 2.5 / 360 USD and gave 44 tokens.
    assert summary["cost_usd_per_1m_output_tokens"] == pytest.approx(2.5 * 10 / 3600 / 44 * 1e6)
    assert summary["gpus"] == 3
    assert summary["gpu_busy"] == pytest.approx(5 / 30)
    assert summary["by_pool"]["l4"]["cost_usd_per_month"] == pytest.approx(365.0)
    assert [pool["requests_share"] for pool in summary["by_pool"].values()] == [1.0, 0.0]


def test_tokens_of_a_pool_are_those_of_completed_requests_as_for_the_fleet():
    # Cut off at 10 s: the engine had also made 100 tokens for request 3, which nobody received in full.
    run = four_requests(replicas=[make_replica(output_tokens=11 + 11 + 1 + 100)])
    run.status[3] = 0
    run.finish_s[3] = math.nan
    summary = summary_of(run)
    pool = summary["by_pool"]["h100"]
    assert pool["output_tokens"] == 23
    assert pool["cost_usd_per_1m_output_tokens"] == summary["cost_usd_per_1m_output_tokens"]
    assert pool["cost_usd_per_1m_output_tokens"] == pytest.approx(2.0 * 10 / 3600 / 23 * 1e6)


def test_sums_over_replicas():
    replicas = [
        make_replica(0, preemptions=2, prefix_queried_tokens=100, prefix_hit_tokens=60),
        make_replica(1, preemptions=1, prefix_queried_tokens=100, estimated=True),
    ]
    run = four_requests(replicas=replicas)
    run.timeline.kv_usage[:, 0] = [0.0, 0.5, 1.0, 0.5]
    summary = summary_of(run)
    assert summary["preemptions"] == 3
    assert summary["prefix_hit_rate"] == pytest.approx(0.3)
    assert summary["estimated"] is True
    assert summary["kv_usage"]["mean"] == pytest.approx(0.25)
    assert summary["kv_usage"]["p99"] == pytest.approx(np.percentile([0, 0.5, 1, 0.5, 0, 0, 0, 0], 99))
    assert summary["by_pool"]["h100"]["replicas"] == 2


def test_quality_is_weighted_by_the_answers_each_pool_gave():
    scores = {("big", "chat"): (0.9, 0.8, 1.0), ("small", "chat"): (0.6, 0.5, 0.7), ("big", "code"): (0.5, 0.4, 0.6)}
    trace = make_trace([0.0] * 5, classes=["chat", "chat", "chat", "code", "code"])
    replicas = [make_replica(0, "big"), make_replica(1, "small")]
    run = make_run(trace, [0.1] * 5, [1.0] * 5, replicas=replicas, replica=[0, 1, 1, 0, 1])
    quality = summary_of(run, quality=lambda pool, request_class: scores.get((pool, request_class)))["quality"]
    assert quality["by_class"] == pytest.approx({"chat": 0.7, "code": 0.5})
    assert quality["mean"] == pytest.approx((0.9 + 0.6 + 0.6 + 0.5) / 4)
    assert (quality["low"], quality["high"]) == pytest.approx((2.2 / 4, 3.0 / 4))
    assert quality["known_share"] == pytest.approx(0.8)


def mixed_quality_run():
    """big answers chat, code; small answers chat twice, code (quality unknown there) and other."""
    trace = make_trace([0.0] * 6, classes=["chat", "chat", "chat", "code", "code", "other"])
    replicas = [make_replica(0, "big"), make_replica(1, "small")]
    return make_run(trace, [0.1] * 6, [1.0] * 6, replicas=replicas, replica=[0, 1, 1, 0, 1, 1])


@pytest.mark.parametrize(
    ("floors", "by_class"),
    [
        ({}, {"chat": 0, "code": 0, "other": 0}),
        ({"chat": 0.6}, {"chat": 0, "code": 0, "other": 0}),
        ({"chat": 0.61}, {"chat": 2 / 3, "code": 0, "other": 0}),
        ({"chat": 0.95, "code": 0.5}, {"chat": 1, "code": 1 / 2, "other": 0}),
        ({"other": 0.0}, {"chat": 0, "code": 0, "other": 1}),
    ],
)
def test_answers_below_their_floor_are_counted_by_the_mean_and_unknown_counts_as_below(floors, by_class):
    scores = {("big", "chat"): (0.9, 0.8, 1.0), ("small", "chat"): (0.6, 0.5, 0.7), ("big", "code"): (0.5, 0.4, 0.6)}
    quality = summarise(mixed_quality_run(), {}, lambda *of: scores.get(of), floors)["quality"]
    assert quality["below_floor_by_class"] == pytest.approx(by_class)
    answers = {"chat": 3, "code": 2, "other": 1}
    assert quality["below_floor_share"] == pytest.approx(sum(n * by_class[name] for name, n in answers.items()) / 6)


def test_rejected_requests_are_below_no_floor():
    run = mixed_quality_run()
    for request in (1, 2):
        reject(run, request)
    quality = summarise(run, {}, lambda pool, _class: (0.9,) * 3 if pool == "big" else (0.6,) * 3, {"chat": 0.8})
    assert quality["quality"]["below_floor_share"] == 0.0


def test_nothing_completed_gives_nulls_and_never_nan():
    run = make_run(make_trace([0.0, 1.0]), [math.nan] * 2, [math.nan] * 2, end_s=5.0)
    run.timeline.kv_usage = np.zeros((0, 1), dtype=np.float32)
    summary = summary_of(run)
    assert summary["ttft_s"] == dict.fromkeys(STATISTICS)
    assert summary["cost_usd_per_1m_output_tokens"] is None
    assert summary["quality"]["mean"] is None
    assert summary["quality"]["below_floor_share"] is None
    assert "NaN" not in json_text(summary)


def test_a_run_with_nothing_in_it_is_summarised():
    run = make_run(make_trace([]), [], [], end_s=0.0)
    summary = summary_of(run)
    assert summary["slo_attainment"] is None
    assert summary["goodput_rps"] is None
    assert summary["stability"] == "STABLE"


def test_overdue_requests_hide_the_percentiles_above_them():
    # 90 answers within 1 s; 10 requests have had no answer for 50 s: p95 and p99 lie among those.
    trace = make_trace(np.linspace(0.0, 50.0, 100))
    e2e_s = np.where(np.arange(100) < 10, math.nan, 1.0)
    summary = summary_of(make_run(trace, e2e_s, e2e_s, end_s=100.0))
    assert summary["e2e_s"]["p90"] == 1.0
    assert summary["e2e_s"]["p95"] is None
    assert summary["e2e_s"]["p99"] is None
    assert any("cut off" in note for note in summary["notes"])


def test_requests_cut_off_young_hide_nothing():
    trace = make_trace(np.linspace(0.0, 99.0, 100))
    e2e_s = np.where(np.arange(100) >= 95, math.nan, 10.0)
    assert summary_of(make_run(trace, e2e_s, e2e_s, end_s=100.0))["e2e_s"]["p99"] == 10.0


def test_a_trace_of_a_week_is_not_extrapolated():
    week_s = 7 * 24 * 3600.0
    assert summary_of(four_requests())["extrapolated_month"] is True
    run = make_run(make_trace([0.0, week_s]), [0.1, 0.1], [1.0, 1.0])
    assert summary_of(run)["extrapolated_month"] is False


def test_clipped_answers_count_what_was_generated():
    run = four_requests()
    run.generated_tokens = np.array([6, 11, 1, 21])
    summary = summary_of(run)
    assert summary["output_tokens_per_s"] == pytest.approx(3.9)
    assert summary["tpot_s"]["mean"] == pytest.approx((0.2 + 0.2 + 0.2) / 3)
    assert "max_model_len cut 1 answers short, as vLLM does" in summary_of(run)["notes"]


def test_the_same_run_gives_the_same_bytes():
    texts = {json_text(summary_of(four_requests(), {"default": Slo(ttft_s=0.25)})) for _ in range(3)}
    assert len(texts) == 1
    assert json.loads(texts.pop())["policy"] == "round_robin"
