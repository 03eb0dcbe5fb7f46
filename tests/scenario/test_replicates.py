"""Replicates: the same draws for every policy, the same results every time, intervals that follow the draws."""

from __future__ import annotations

import re

import numpy as np
import pytest

from simroute.errors import UsageError
from simroute.hardware import catalogue
from simroute.hardware.calibration import Calibration, Covariance, FitError, MeasuredRange, StepTerms
from simroute.hardware.calibration_file import save_calibration
from simroute.hardware.roofline import ERROR_SD
from simroute.hardware.steptime import Batch
from simroute.results.intervals import HEADLINES
from simroute.rng import stream
from simroute.scenario.build import build
from simroute.scenario.run import run
from simroute.scenario.steptimes import basis_notes, drawn_pools, output_token_weight, step_times

BATCH = Batch(1, 100, 5050, 4, 2000, 5)
NAMES = ("Qwen3-8B", "fp8", "L40S", 1)


def factors(scenario, replicates):
    """What replicate 1, 2, ... multiplies the roofline's times with, by its definition."""
    draws = (stream(scenario.seed, "replicate", i, *NAMES).normal(0, ERROR_SD) for i in range(1, replicates + 1))
    return np.exp(list(draws))


@pytest.fixture
def scenario(reading, data):
    data["policies"] = ["round_robin", "random"]
    data["pools"][0]["replicas"] = 2
    return reading(data).scenario


def test_without_replicates_nothing_is_added(scenario):
    summary = run(scenario, jobs=1).results[0].summary
    assert {"replicates", "intervals"} & summary.keys() == set()


def test_intervals_follow_the_draws_of_the_step_times(reading, data, tmp_path):
    """A lone request's latencies are proportional to the factor that all its steps share."""
    (tmp_path / "trace.csv").write_text("arrival_s,input_tokens,output_tokens\n0,300,40\n")
    scenario = reading(data | {"seed": 5}).scenario
    summary = run(scenario, replicates=25, jobs=1).results[0].summary
    low, high = np.percentile(factors(scenario, 25), [5, 95])
    for name in ("ttft_s", "tpot_s", "e2e_s"):
        expected = summary[name]["p50"] * low, summary[name]["p50"] * high
        assert summary["intervals"][f"{name}.p50"] == pytest.approx(expected, rel=1e-6)
    assert summary["intervals"]["cost_usd_per_month"] == [summary["cost_usd_per_month"]] * 2


def test_point_estimates_are_those_of_a_run_without_replicates(scenario):
    plain = run(scenario, jobs=1).results
    for one, other in zip(plain, run(scenario, replicates=3, jobs=1).results, strict=True):
        assert {key: other.summary[key] for key in one.summary if key != "notes"} == {
            key: one.summary[key] for key in one.summary if key != "notes"
        }
        np.testing.assert_array_equal(one.fleet.finish_s, other.fleet.finish_s)


def test_processes_change_nothing_and_the_same_arguments_give_the_same_intervals(scenario):
    alone, together = (run(scenario, replicates=4, jobs=jobs).summary() for jobs in (1, 2))
    assert alone == together
    assert set(alone["policies"]["random"]["intervals"]) == set(HEADLINES)
    other_seed = run(scenario, replicates=4, seed=scenario.seed + 1, jobs=1).summary()
    assert alone["policies"]["random"]["intervals"] != other_seed["policies"]["random"]["intervals"]


def test_the_scenario_may_ask_for_replicates_and_the_manifest_tells(scenario):
    asked = scenario.model_copy(update={"replicates": 2})
    assert run(asked, ["random"], jobs=1).results[0].summary["replicates"]["count"] == 2
    assert run(asked, ["random"], replicates=0, jobs=1).manifest()["scenario"]["replicates"] == 0
    with pytest.raises(UsageError, match="replicates: must be at least 0, got -1"):
        run(scenario, replicates=-1)


def test_pools_of_one_variant_are_off_together_and_others_on_their_own(reading, data):
    first = data["pools"][0]
    data["pools"] += [first | {"name": "same", "engine": {"max_num_seqs": 8}}, first | {"name": "b", "gpu": "H100"}]
    built = build(reading(data).scenario)
    drawn = drawn_pools(built.pools, seed=3, replicate=1)
    ratio = [
        new.step_time.duration_s(BATCH) / pool.step_time.duration_s(BATCH)
        for new, pool in zip(drawn, built.pools, strict=True)
    ]
    assert ratio[0] == pytest.approx(ratio[1], rel=1e-12)
    assert ratio[0] != pytest.approx(ratio[2], rel=1e-3)
    assert [pool.variant for pool in drawn] == [pool.variant for pool in built.pools]
    again = drawn_pools(built.pools, seed=3, replicate=1)
    assert [p.step_time.duration_s(BATCH) for p in again] == [p.step_time.duration_s(BATCH) for p in drawn]
    other = drawn_pools(built.pools, seed=3, replicate=2)
    assert other[0].step_time.duration_s(BATCH) != drawn[0].step_time.duration_s(BATCH)


def test_estimates_alone_need_no_note(scenario):
    built = build(scenario)
    assert basis_notes(built.pools, built.variants) == []
    assert step_times(built.pools)["only"].measured is None


@pytest.fixture
def calibrated(tmp_path, data):
    """The scenario with a calibration that decodes one sequence in 10 ms, measured on small batches only."""
    calibration = Calibration(
        model="Qwen3-8B",
        scheme="fp8",
        gpu="L40S",
        kv_cache_dtype=catalogue.scheme("fp8").kv_cache_dtype,
        vllm="0.19.0",
        basis="measured",
        step=StepTerms(launch_ms=2, gemm_ms={1: 8, 100: 8, 200: 16}),
        range=MeasuredRange(
            tokens=(1, 64), decode_seqs=(1, 64), decode_context_tokens=(1, 9999), prefill_pairs=(1, 9999)
        ),
        error=FitError(median=0.021, p90=0.05, bias_sd=0.0),
        covariance=Covariance(parameters=("launch_ms",), relative=((0.25,),)),
    )
    save_calibration(calibration, tmp_path / "own.yaml")
    data["pools"][0]["calibration"] = "own.yaml"
    return data


def test_intervals_follow_the_covariance_of_a_calibration(reading, calibrated, tmp_path):
    """Only the launch is uncertain: 2 ms of the 10 that a step takes, and never less than none."""
    (tmp_path / "trace.csv").write_text("arrival_s,input_tokens,output_tokens\n0,64,101\n")
    summary = run(reading(calibrated).scenario, replicates=200, jobs=1).results[0].summary
    assert summary["tpot_s"]["p50"] == pytest.approx(0.010, rel=1e-6)
    low_s, high_s = summary["intervals"]["tpot_s.p50"]
    assert low_s == pytest.approx(0.008 + 0.002 * (1 - 1.645 * 0.5), abs=3e-4)
    assert high_s == pytest.approx(0.008 + 0.002 * (1 + 1.645 * 0.5), abs=3e-4)


def test_intervals_follow_the_error_of_what_a_request_costs(reading, calibrated, tmp_path):
    """TTFT of a lone request: a step of 10 ms, and 20 ms ± 5 outside the engine, which no TPOT sees."""
    text = (tmp_path / "own.yaml").read_text()
    request = "  overhead_ms: 20.0\n  per_input_token_us: 0.0\n  overhead_error_ms: 5.0\n"
    text = re.sub(r"(?m)^request:\n(  .*\n)+", f"request:\n{request}", text)
    text = re.sub(r"(?m)^covariance:\n(  .*\n)+", "", text)
    (tmp_path / "own.yaml").write_text(text)
    (tmp_path / "trace.csv").write_text("arrival_s,input_tokens,output_tokens\n0,64,101\n")
    summary = run(reading(calibrated).scenario, replicates=200, jobs=1).results[0].summary
    assert summary["ttft_s"]["p50"] == pytest.approx(0.030, rel=1e-6)
    assert summary["intervals"]["ttft_s.p50"] == pytest.approx([0.030 - 1.645 * 0.005, 0.030 + 1.645 * 0.005], abs=2e-3)
    assert summary["intervals"]["tpot_s.p50"] == pytest.approx([0.010, 0.010], rel=1e-6)


def test_what_step_times_rest_on_and_where_they_are_extrapolated_is_said(reading, calibrated):
    result = run(reading(calibrated).scenario, jobs=1)
    summary = result.results[0].summary
    (note,) = (note for note in result.built.notes if note.startswith("step times of pool only: "))
    assert "measured on a real vLLM (" in note
    assert note.endswith("own.yaml, vLLM 0.19.0, median error of a step 2.1%)")
    assert summary["by_pool"]["only"]["basis"] == "measured"
    assert summary["extrapolated"] == ["pool only: 119 tokens in a batch, measured up to 64"]
    assert not summary["estimated"]


def test_progress_is_told_by_policy(scenario):
    seen = []
    run(scenario, replicates=2, jobs=1, progress=lambda fractions: seen.append(tuple(fractions)))
    assert seen[-1] == (1.0, 1.0)
    assert {len(fractions) for fractions in seen} == {2}
    assert np.all(np.diff(seen, axis=0) >= 0)


def test_an_output_token_weighs_what_it_takes_of_a_full_replica(reading, calibrated):
    """10 ms a step at any batch of up to 100 tokens; 1,024 prompt tokens take the last knots' slope further."""
    calibrated["pools"][0]["engine"] = {"max_num_seqs": 64}
    (pool,) = build(reading(calibrated).scenario).pools
    output_token_s = 0.010 / 64
    prompt_token_s = pool.step_time.duration_s(Batch(1, 1024, 1024 * 1025 // 2, 0, 0, 1)) / 1024
    assert output_token_weight(pool) == pytest.approx(output_token_s / prompt_token_s)
    assert step_times([pool])["only"].output_token_weight == output_token_weight(pool)
