"""Shares of the bill and Jain's index: by hand, and that every bill is paid in full."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from results.runs import make_replica, make_run, make_trace, reject

from simroute.results.extrapolation import StepTimes
from simroute.results.metrics import summarise
from simroute.results.shares import MOST_TENANTS, cost_shares, jain
from simroute.results.slo import Slo


def weighing(**weights):
    return {pool: StepTimes("estimated", None, 16, 2048, weight) for pool, weight in weights.items()}


def nothing_known(_pool, _class):
    return None


@pytest.mark.parametrize("n", [1, 2, 7])
def test_jain_is_one_for_equals_and_one_in_n_when_one_has_all(n):
    assert jain(np.full(n, 0.3)) == pytest.approx(1.0)
    assert jain(np.eye(n)[0]) == pytest.approx(1 / n)


def test_jain_by_hand_and_where_it_says_nothing():
    assert jain(np.array([1.0, 2.0, 3.0])) == pytest.approx(36 / (3 * 14))
    assert math.isnan(jain(np.zeros(3)))
    assert math.isnan(jain(np.zeros(0)))


@given(st.lists(st.floats(0.001, 1e3), min_size=1, max_size=30))
def test_jain_lies_between_one_in_n_and_one_whatever_the_scale(values):
    index = jain(np.array(values))
    assert 1 / len(values) - 1e-9 <= index <= 1 + 1e-9
    assert jain(17 * np.array(values)) == pytest.approx(index)


def test_a_replicas_price_is_split_by_work():
    # Prompts of 100 tokens, 60 of the second cached; an output token weighs 4: work 100 + 44, 40 + 44, 100 + 84.
    trace = make_trace([0.0, 0.0, 0.0], output_tokens=[11, 11, 21])
    run = make_run(trace, [0.1] * 3, [1.0] * 3)
    run.cached_tokens[1] = 60
    assert cost_shares(run, weighing(h100=4.0)) == pytest.approx(np.array([144, 84, 184]) / 412)
    assert cost_shares(run, {}) == pytest.approx(np.array([111, 51, 121]) / 283)


def test_a_dear_replica_is_paid_by_those_that_it_served_and_an_idle_one_by_all():
    replicas = [make_replica(0, "dear", usd_per_hour=6.0), make_replica(1, "cheap", usd_per_hour=2.0), make_replica(2)]
    run = make_run(make_trace([0.0] * 3), [0.1] * 3, [1.0] * 3, replicas=replicas, replica=[0, 1, 1])
    assert cost_shares(run, {}) == pytest.approx([0.75, 0.125, 0.125])


def test_who_got_nothing_pays_nothing():
    run = make_run(make_trace([0.0] * 3), [0.1] * 3, [1.0, math.nan, 1.0], end_s=5.0)
    reject(run, 0)
    assert cost_shares(run, {}).tolist() == [0.0, 0.0, 1.0]


def test_a_free_fleet_and_an_empty_run_have_no_shares():
    run = make_run(make_trace([0.0]), [0.1], [1.0], replicas=[make_replica(usd_per_hour=0.0)])
    assert summarise(run, {}, nothing_known)["by_class"]["default"]["cost_share"] is None
    run = make_run(make_trace([0.0]), [math.nan], [math.nan], end_s=5.0)
    found = summarise(run, {}, nothing_known)
    assert found["by_class"]["default"]["cost_share"] is None
    assert found["fairness"] == {"tenants": 1, "goodput": None, "e2e_per_token": None}


@given(st.data())
def test_shares_of_all_groups_add_up_to_one(data):
    n = data.draw(st.integers(1, 40))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))

    def names(kind):
        return [f"{kind}{i}" for i in rng.integers(0, 4, n)]

    replicas = [make_replica(i, f"p{i % 2}", usd_per_hour=float(rng.uniform(0.1, 9))) for i in range(3)]
    trace = make_trace(np.sort(rng.uniform(0, 9, n)), rng.integers(1, 500, n), names("c"), names("r"), names("t"))
    e2e_s = np.where(rng.random(n) < 0.2, math.nan, 1.0)
    run = make_run(trace, e2e_s, e2e_s, replicas=replicas, replica=rng.integers(0, 3, n), end_s=20.0)
    found = summarise(run, {}, nothing_known, step_times=weighing(p0=3.0, p1=9.0))
    for kind in ("by_class", "by_tier", "by_tenant"):
        shares = [part["cost_share"] for part in found[kind].values()]
        if found["requests"]["completed"]:
            assert sum(shares) == pytest.approx(1.0, abs=1e-7)
        else:
            assert set(shares) == {None}


def test_tenants_get_rows_of_their_own_and_an_index():
    # Tenant a: 2 of 2 in time, b: 1 of 2. E2E per token: a 0.1, b 0.3 in the mean.
    trace = make_trace([0.0] * 4, output_tokens=[10] * 4, tenants=["a", "a", "b", "b"])
    run = make_run(trace, [0.1] * 4, [1.0, 1.0, 1.0, 5.0], end_s=10.0)
    found = summarise(run, {"default": Slo(e2e_s=2.0)}, nothing_known)
    assert {name: part["slo_attainment"] for name, part in found["by_tenant"].items()} == {"a": 1.0, "b": 0.5}
    assert found["by_tenant"]["a"]["goodput_rps"] == pytest.approx(0.2)
    assert found["fairness"]["tenants"] == 2
    assert found["fairness"]["goodput"] == pytest.approx(1.5**2 / (2 * 1.25))
    assert found["fairness"]["e2e_per_token"] == pytest.approx(0.4**2 / (2 * (0.01 + 0.09)))


def test_a_tenant_that_is_shut_out_lowers_the_fairness_of_goodput():
    trace = make_trace([0.0] * 4, tenants=["a", "b", "c", "d"])
    run = make_run(trace, [0.1] * 4, [1.0] * 4)
    for request in (1, 2, 3):
        reject(run, request)
    assert summarise(run, {}, nothing_known)["fairness"]["goodput"] == pytest.approx(0.25)


def test_of_many_tenants_the_busiest_are_listed_and_all_are_counted():
    names = [f"t{i:03}" for i in range(MOST_TENANTS + 10)]
    tenants = [*names, *names[5:]]
    run = make_run(make_trace([0.0] * len(tenants), tenants=tenants), [0.1] * len(tenants), [1.0] * len(tenants))
    found = summarise(run, {}, nothing_known)
    assert list(found["by_tenant"]) == names[5 : MOST_TENANTS + 5]
    assert found["fairness"]["tenants"] == MOST_TENANTS + 10
    assert any(note.startswith(f"by_tenant lists the {MOST_TENANTS} tenants") for note in found["notes"])
