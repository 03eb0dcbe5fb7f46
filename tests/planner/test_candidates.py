"""The fleets a plan spans: counted, named, priced, and what losses leave of them."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from planner.spaces import spanned, tiny

from simroute.errors import UsageError
from simroute.planner.fleets.candidates import differs, fleet_built, within
from simroute.units import HOURS_PER_MONTH


@pytest.mark.parametrize(("most_variants", "most_replicas"), [(1, 64), (2, 64), (2, 7), (3, 9)])
def test_the_size_is_that_of_a_list(tmp_path: Path, most_variants: int, most_replicas: int):
    fleets = {"most_variants": most_variants, "most_replicas": most_replicas}
    space = spanned(tmp_path, tiny(tmp_path, requests=5) | {"fleets": fleets, "policies": ["random", "round_robin"]})
    counted = sum(
        1
        for counts in itertools.product(range(7), repeat=4)
        if 0 < sum(counts) <= most_replicas and sum(map(bool, counts)) <= most_variants
    )
    assert space.size() == 2 * counted


def test_a_grid_of_settings_makes_variants_of_their_own(tmp_path: Path):
    data = tiny(tmp_path, requests=5)
    data["candidates"][0] |= {
        "gpu": "L4",
        "quantization": "fp8",
        "kv_cache_dtype": ["auto", "fp8"],
        "grid": {"max_num_seqs": [64, 256], "enable_prefix_caching": [True, False]},
    }
    space = spanned(tmp_path, data)
    names = [option.name for option in space.options]
    assert len(set(names)) == 8
    assert names[0] == "Llama-3.1-8B-fp8-L4-kv-auto-seqs64-cached"
    engine = space.built.pools[0].engine
    assert (engine.max_num_seqs, engine.enable_prefix_caching) == (64, True)


def test_candidates_that_differ_elsewhere_get_names_of_their_own(tmp_path: Path):
    data = tiny(tmp_path, requests=5)
    data["candidates"] = [
        {"model": "Llama-3.1-8B", "gpu": "L40S"},
        {"model": "Llama-3.1-8B", "gpu": "L40S"},
        {"model": "Llama-3.1-8B", "gpu": "L40S", "gpu_memory_utilization": 0.8},
    ]
    names = [option.name for option in spanned(tmp_path, data).options]
    assert names == ["Llama-3.1-8B-bf16-L40S", "Llama-3.1-8B-bf16-L40S-2"]


def test_what_the_loss_of_a_replica_leaves(tmp_path: Path):
    space = spanned(tmp_path, tiny(tmp_path, requests=5) | {"availability": {"lose_replicas": 1}})
    assert space.degraded(((0, 2), (1, 1))) == [((0, 1), (1, 1)), ((0, 2),)]
    assert space.degraded(((0, 1),)) == [()]


def test_what_the_loss_of_a_zone_leaves(tmp_path: Path):
    lost = {"zones": ["a", "b", "c"], "lose_zones": 1}
    space = spanned(tmp_path, tiny(tmp_path, requests=5) | {"availability": lost})
    # five replicas stand in a, b, c, a, b
    assert sorted(space.degraded(((0, 5),))) == [((0, 3),), ((0, 4),)]


def test_bill_gpus_and_limits(tmp_path: Path):
    data = tiny(tmp_path, requests=5)
    data["candidates"][0] |= {"gpu": "L4", "quantization": "fp8", "tensor_parallel": 2}
    data |= {"prices": {"L4": {"usd_per_gpu_hour": 1.5}}, "quotas": {"l4": 4}, "budget_usd_per_month": 5000.0}
    space = spanned(tmp_path, data)
    assert space.usd_per_month(((0, 2),)) == pytest.approx(2 * 2 * 1.5 * HOURS_PER_MONTH)
    assert space.gpus(((0, 2),)) == {"L4": 4}
    assert [space.refusal(((0, n),)) for n in (1, 2, 3)] == [None, None, "quota"]


def test_growth_multiplies_the_traffic(tmp_path: Path):
    data = tiny(tmp_path, requests=50)
    usual = spanned(tmp_path, data).built.trace.duration_s
    data["traffic"]["growth"] = 2.0
    assert spanned(tmp_path, data).built.trace.duration_s == pytest.approx(usual / 2)


def test_a_fleet_is_built_with_its_own_pools(tmp_path: Path):
    space = spanned(tmp_path, tiny(tmp_path, requests=5))
    built = fleet_built(space, ((1, 2), (3, 1)), 0)
    assert [(pool.name, pool.replicas, pool.places) for pool in built.pools] == [
        (space.options[1].name, 2, 2),
        (space.options[3].name, 1, 1),
    ]
    assert [v.spec.name for v in built.variants] == [pool.name for pool in built.scenario.pools]


def test_a_variant_that_cannot_run_hides_none_that_can(tmp_path: Path):
    data = tiny(tmp_path, requests=5)
    data["candidates"] = [
        {"model": "Llama-3.1-8B", "gpu": "L4", "engine": {"max_model_len": 131_072}},
        {"model": "Llama-3.1-8B", "gpu": "L4", "engine": {"max_model_len": 4096}},
    ]
    space = spanned(tmp_path, data)
    assert [option.spec.engine.max_model_len for option in space.options] == [4096]
    assert [unfit.name for unfit in space.unfit] == ["Llama-3.1-8B-bf16-L4"]
    assert space.options[0].name == "Llama-3.1-8B-bf16-L4-2"


def test_a_variant_with_two_ranges_of_replicas_is_refused(tmp_path: Path):
    data = tiny(tmp_path, requests=5)
    data["candidates"] = [{"model": "Llama-3.1-8B", "gpu": "L4", "replicas": {"max": most}} for most in (2, 9)]
    with pytest.raises(
        UsageError, match=r"Llama-3.1-8B-bf16-L4 is listed with 1 to 2 and 1 to 9 replicas: list it once"
    ):
        spanned(tmp_path, data)


def test_neighbours_keep_to_the_ranges(tmp_path: Path):
    data = tiny(tmp_path, requests=5) | {"fleets": {"most_variants": 2, "most_replicas": 8}}
    space = spanned(tmp_path, data)
    assert space.neighbours(((0, 1), (1, 6)), -1) == [((0, 1), (1, 5))]
    assert space.neighbours(((0, 1), (1, 6)), 1) == [((0, 2), (1, 6))]
    assert space.neighbours(((0, 2), (1, 6)), 1) == []


def test_fleets_compare_by_what_they_have():
    assert within(((0, 1),), ((0, 1), (1, 2)))
    assert not within(((0, 2),), ((0, 1), (1, 2)))
    assert not differs(((0, 1), (1, 2)), ((0, 1),)), "the best with something added"
    assert differs(((1, 2),), ((0, 1),))
