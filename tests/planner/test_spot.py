"""A share of a pool on spot machines: the same fleet at another price that may be taken away, or a clear refusal."""

from __future__ import annotations

from pathlib import Path

import pytest

from simroute.errors import UnfitError
from simroute.planner.execution.executor import InProcess
from simroute.planner.study.changes import Change, Loss, applied, changes_in
from simroute.planner.study.spot import SpotShare
from simroute.planner.whatif import whatif
from simroute.scenario.build import Built, build
from simroute.scenario.loader import load

NEVER_S = 1e12
HALF = SpotShare(share=0.5, pool="two", price=0.25, mean_life_s=NEVER_S)


def loaded(path: Path, *overrides: str) -> Built:
    return build(load(path, overrides=overrides))


def test_a_pool_is_split_in_two_that_differ_in_price_and_in_being_taken_back(built):
    found = applied(built, Change(spot=HALF))
    assert [(pool.name, pool.replicas, pool.zones) for pool in found.pools] == [
        ("one", 2, ("a", "b")),
        ("two", 1, ("a", "b")),
        ("two-spot", 1, ("b", "a")),
    ]
    whole, part = found.pools[1].variant, found.pools[2].variant
    assert part.usd_per_hour == pytest.approx(0.25 * whole.usd_per_hour)
    assert [(each.pool, each.mean_life_s) for each in found.scenario.failures.spot] == [("two-spot", NEVER_S)]
    assert "1 of 2 replicas of two on spot machines at $1.72 an hour a GPU; assumed: taken" in found.notes[-1]


@pytest.mark.parametrize("policy", ["round_robin", "least_requests"])
def test_machines_that_are_never_taken_back_serve_as_before_for_less(built, policy):
    found = whatif(built, [Change(spot=HALF)], rates=(1, 30), policies=[policy], buy=False, executor=InProcess())
    base, split = found.document()["variations"]
    assert [cell["headlines"] for cell in split["cells"]] == [cell["headlines"] for cell in base["cells"]]
    hourly = [pool.variant.usd_per_hour for pool in built.pools]
    saved = 730 * 0.75 * hourly[1]
    costs = [row["cells"][0]["cost_usd_per_month"] for row in (base, split)]
    assert costs[0] - costs[1] == pytest.approx(saved)


def test_machines_that_are_taken_back_make_it_worse(built):
    brief = SpotShare(share=1.0, price=0.25, mean_life_s=2.0, notice_s=0.0, gap_s=600.0)
    found = whatif(built, [Change(spot=brief)], rates=(1,), buy=False, executor=InProcess()).document()
    base, spot = (row["cells"][0] for row in found["variations"])
    assert spot["headlines"]["slo_attainment"] < base["headlines"]["slo_attainment"]


def test_a_whole_pool_stays_one_at_the_catalogue_price_of_its_provider(path):
    nebius = loaded(path, "pools[two].price.provider=Nebius")
    found = applied(nebius, Change(spot=SpotShare(share=1.0, pool="two")))
    assert [pool.name for pool in found.pools] == ["one", "two"]
    assert found.pools[1].variant.usd_per_hour == 1.25
    assert "at $1.25 an hour a GPU (Nebius spot" in found.notes[-1]


def test_prices_and_losses_come_after_the_split(built):
    change = Change(spot=HALF, price=2.0, lose=(Loss(pool="two-spot"),))
    found = applied(built, change)
    assert found.pools[2].variant.usd_per_hour == pytest.approx(0.5 * built.pools[1].variant.usd_per_hour)
    assert found.scenario.failures.outages[-1].pool == "two-spot"
    assert change.shown == "prices x2, 1 of two-spot lost, 50% of two on spot"


@pytest.mark.parametrize(
    ("overrides", "spot", "said"),
    [
        ((), {"share": 0.5, "pool": "one"}, "Verda spot 0.941; or say what share of the pool's own price it is"),
        (("pools[two].price={usd_per_gpu_hour: 3}",), {"share": 0.5, "pool": "two"}, "has a price of its own"),
        ((), {"share": 0.2, "pool": "two", "price": 0.5}, "0.2 of the replicas of two is none"),
        (("failures.crashes=[{pool: two, mtbf_s: 60}]",), HALF, "failures.crashes names pool two"),
        (
            ("pools[two].autoscale={max_replicas: 4, options: {targets: {concurrency: 8}}}",),
            HALF,
            "pool two scales by itself",
        ),
        (("pools[two].price={provider: Nebius, term: spot}",), {"share": 0.5, "pool": "two"}, "of no pool is none"),
    ],
)
def test_what_cannot_be_split_honestly_is_refused(path, overrides, spot, said):
    wanted = spot if isinstance(spot, SpotShare) else SpotShare(**spot)
    base = loaded(path, "pools[one].price.provider=AWS", *overrides)
    with pytest.raises(UnfitError) as told:
        applied(base, Change(spot=wanted))
    assert said in str(told.value)


def test_a_policy_that_names_the_pool_would_not_know_its_other_part(path):
    tiers = "policies=[{name: static_tier, options: {tiers: {free: two}, default: one}}]"
    found = whatif(loaded(path, tiers), [Change(spot=HALF)], rates=(1,), buy=False, executor=InProcess()).document()
    (refused,) = found["impossible"]
    assert refused["reason"] == "spot: policy static_tier names pool two and would send nothing to two-spot"


def test_a_bare_number_is_a_share():
    (change,) = changes_in("{spot: 0.5}", "x")
    assert change.spot == SpotShare(share=0.5)
    assert change.shown == "50% of all replicas on spot"


def test_a_pool_of_which_nothing_moves_keeps_its_failures(path):
    own = "failures.spot=[{pool: two, mean_life_s: 60}]"
    found = applied(loaded(path, own, "pools[two].replicas=1"), Change(spot=SpotShare(share=0.3, price=0.5)))
    assert [pool.name for pool in found.pools] == ["one", "one-spot", "two"]
    assert [(each.pool, each.mean_life_s) for each in found.scenario.failures.spot] == [
        ("two", 60.0),
        ("one-spot", 86_400.0),
    ]
