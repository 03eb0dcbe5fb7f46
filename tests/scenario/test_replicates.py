"""Replicates: the same draws for every policy, the same results every time, intervals that follow the draws."""

from __future__ import annotations

import numpy as np
import pytest

from simroute.errors import UsageError
from simroute.hardware.roofline import ERROR_SD
from simroute.hardware.steptime import Batch
from simroute.results.intervals import HEADLINES
from simroute.rng import stream
from simroute.scenario.build import build
from simroute.scenario.run import run
from simroute.scenario.steptimes import basis_notes, drawn_pools, step_times

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
    assert basis_notes(built.pools) == []
    assert step_times(built.pools)["only"].measured is None


def test_progress_is_told_by_policy(scenario):
    seen = []
    run(scenario, replicates=2, jobs=1, progress=lambda fractions: seen.append(tuple(fractions)))
    assert seen[-1] == (1.0, 1.0)
    assert {len(fractions) for fractions in seen} == {2}
    assert np.all(np.diff(seen, axis=0) >= 0)
