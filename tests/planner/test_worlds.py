"""What could be otherwise: each factor changes what it names, for the search and for the cache, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planner.spaces import spanned, tiny

from simroute.hardware.steptime import Batch
from simroute.planner.answer.worlds import Factor, factors, restricted
from simroute.planner.execution.cache import replay_document
from simroute.planner.fleets.candidates import Space, fleet_built


@pytest.fixture
def space(tmp_path: Path) -> Space:
    data = tiny(tmp_path, requests=40)
    data["classes"]["coding"] = {"p99": {"e2e_s": 8.0}}
    return spanned(tmp_path, data | {"budget_usd_per_month": 5000.0})


def named(space: Space, name: str) -> tuple[Space, Space]:
    """The spaces at the two values of a factor."""
    factor: Factor = next(each for each in factors(space) if each.name == name)
    assert factor.low.space is not None
    assert factor.high.space is not None
    return factor.low.space(), factor.high.space()


def test_what_is_varied(space: Space):
    assert [(f.name, f.low.label, f.high.label) for f in factors(space)] == [
        ("traffic", "-20%", "+20%"),
        ("step times", "10% faster", "10% slower"),
        ("answer tokens", "-20%", "+20%"),
        ("prompt tokens", "-20%", "+20%"),
        ("latency targets", "20% looser", "20% tighter"),
        ("replicas that may be lost", "0", "1"),
    ]


def test_traffic_comes_faster_and_is_the_same(space: Space):
    low, high = named(space, "traffic")
    assert low.built.trace.duration_s == pytest.approx(space.built.trace.duration_s / 0.8)
    assert high.built.trace.duration_s == pytest.approx(space.built.trace.duration_s / 1.2)
    np.testing.assert_array_equal(high.built.trace.input_tokens, space.built.trace.input_tokens)


def test_step_times_are_off_by_the_calibration_or_by_a_tenth(tmp_path: Path, space: Space):
    batch = Batch(1, 100, 5050, 8, 4000, 9)
    before = space.built.pools[0].step_time.duration_s(batch)
    assert [s.built.pools[0].step_time.duration_s(batch) for s in named(space, "step times")] == [
        pytest.approx(0.9 * before),
        pytest.approx(1.1 * before),
    ]
    data = tiny(tmp_path, requests=40)
    del data["calibrations"]
    data["candidates"][0] |= {"gpu": "L40S", "quantization": "fp8"}
    calibrated = spanned(tmp_path, data)
    found = calibrated.built.variants[0].calibration
    assert found is not None
    low, _ = named(calibrated, "step times")
    ratio = low.built.pools[0].step_time.duration_s(batch) / calibrated.built.pools[0].step_time.duration_s(batch)
    assert ratio == pytest.approx(1 - found.calibration.error.bias_sd)


def test_scaled_step_times_are_other_replays_to_the_cache(space: Space):
    spaces = (space, *named(space, "step times"))
    keys = [replay_document(fleet_built(each, ((0, 1),), 0), each.spec.policies[0]) for each in spaces]
    assert len({str(key) for key in keys}) == 3


def test_targets_move_for_bounds_judges_and_policies_alike(space: Space):
    low, high = named(space, "latency targets")
    assert [s.wanted("chat").slo.ttft_s for s in (low, high)] == pytest.approx([1.2, 0.8])  # type: ignore[union-attr]
    assert [s.wanted("coding").p99.e2e_s for s in (low, high)] == pytest.approx([9.6, 6.4])  # type: ignore[union-attr]
    assert [s.built.slo["default"].ttft_s for s in (low, high)] == pytest.approx([1.2, 0.8])
    assert low.wanted("chat").slo.e2e_s is None  # type: ignore[union-attr]
    assert low.attainment("chat") == space.attainment("chat")


def test_losses_are_one_more_and_one_less(tmp_path: Path):
    one = spanned(tmp_path, tiny(tmp_path, requests=40) | {"availability": {"lose_replicas": 1}})
    low, high = named(one, "replicas that may be lost")
    fleet = ((0, 3),)
    assert (low.degraded(fleet), high.degraded(fleet)) == ([], [((0, 1),)])


def test_without_targets_none_are_varied(tmp_path: Path):
    data = tiny(tmp_path, requests=40)
    data["classes"] = {"default": {"attainment": 0.9}}
    assert "latency targets" not in [factor.name for factor in factors(spanned(tmp_path, data))]


def test_a_part_of_a_space_keeps_its_order_and_forgets_the_budget(space: Space):
    part = restricted(space, [3, 1], [0])
    assert [option.name for option in part.options] == [space.options[3].name, space.options[1].name]
    assert [pool.name for pool in part.built.pools] == [option.name for option in part.options]
    assert part.refusal(((0, 6),)) is None
    assert space.refusal(((3, 6),)) == "budget"


def test_lengths_are_the_traces_own_scaling(space: Space):
    trace = space.built.trace
    shorter, longer = named(space, "prompt tokens")
    np.testing.assert_array_equal(longer.built.trace.input_tokens, trace.scaled(input=1.2).input_tokens)
    np.testing.assert_array_equal(shorter.built.trace.output_tokens, trace.output_tokens)
    shorter, _ = named(space, "answer tokens")
    np.testing.assert_array_equal(shorter.built.trace.output_tokens, trace.scaled(output=0.8).output_tokens)
    np.testing.assert_array_equal(shorter.built.trace.input_tokens, trace.input_tokens)
