"""Whole lives of fleets, drawn at random: nothing is lost in any of them, and fast and exact mode tell the same story.

`test_fault_injection` draws one pool with the help of hypothesis, which makes failures small; here are several pools,
prefixes, admission, signals, other people's endpoints and every policy.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from fleet.drawn_life import KV_EVENTS, POLICIES, Life, drawn_life
from fleet.living import live

from simroute.policy.routing import POLICIES as ALL_POLICIES
from simroute.results.run import FleetRun, Status

COLUMNS = (
    *("status", "replica", "finish_s", "first_token_s", "tries", "attempts", "left_s", "sent_s"),
    *("preemptions", "cached_tokens", "reason_code"),
)
HORIZON_S = 1000.0
"""Long enough for everything to end."""


def lived(life: Life, seed: int, *, exact: bool = False) -> FleetRun:
    """One run of it, which `live` checks; everything has ended, and caches give no more than was asked for."""
    run = live(
        life.trace,
        life.pools,
        life.options(),
        policy=life.policy,
        policy_options=life.policy_options,
        seed=seed,
        horizon_s=HORIZON_S,
        exact=exact,
    )
    assert (run.status != Status.UNFINISHED).all()
    assert (run.cached_tokens <= run.trace.input_tokens).all()
    for totals in run.replicas:
        assert 0 <= totals.prefix_hit_tokens <= totals.prefix_queried_tokens
    timeline = run.timeline
    assert (np.diff(timeline.t_s) > 0).all()
    assert ((timeline.kv_usage >= 0) & (timeline.kv_usage <= 1)).all()
    assert timeline.attempts is not None
    assert run.attempts is not None
    assert timeline.attempts[-1] <= run.attempts.sum()
    assert run.tries is not None
    assert ((run.tries >= 1) == (run.arrival_s <= run.end_s)).all()
    assert timeline.busy_s is not None
    busy_s = np.diff(timeline.busy_s, axis=0)
    assert ((busy_s >= -1e-9) & (busy_s <= np.diff(timeline.t_s)[:, None] + 1e-9)).all()
    return run


def same(fast: FleetRun, exact: FleetRun) -> None:
    for name in COLUMNS:
        one, other = getattr(fast, name), getattr(exact, name)
        if one is not None:
            np.testing.assert_allclose(one.astype(float), other.astype(float), rtol=1e-9, err_msg=name)
    assert [event[1:] for event in fast.events] == [event[1:] for event in exact.events]
    for one, other in zip(fast.replicas, exact.replicas, strict=True):
        assert (one.output_tokens, one.prefill_tokens, one.steps) == (
            other.output_tokens,
            other.prefill_tokens,
            other.steps,
        )
        assert one.token_usd == pytest.approx(other.token_usd)
    np.testing.assert_array_equal(fast.timeline.running, exact.timeline.running)
    np.testing.assert_allclose(fast.timeline.busy_s, exact.timeline.busy_s, rtol=1e-9, atol=1e-9)
    assert fast.itl.count == exact.itl.count
    assert fast.itl.mean == pytest.approx(exact.itl.mean, rel=1e-9, nan_ok=True)
    assert fast.itl.quantile(1.0) == pytest.approx(exact.itl.quantile(1.0), rel=1e-9, nan_ok=True)


@pytest.mark.parametrize("seed", range(40))
def test_nothing_is_lost_and_both_modes_agree(seed):
    life = drawn_life(seed)
    fast, exact = (lived(life, seed, exact=e) for e in (False, True))
    if life.policy not in KV_EVENTS:
        same(fast, exact)


def test_a_life_can_be_lived_again():
    """The same seed, bit for bit, with fresh rules and policies."""
    for seed in range(3):
        life = drawn_life(seed)
        one, other = (lived(life, seed) for _ in range(2))
        assert one.events == other.events
        np.testing.assert_array_equal(one.finish_s, other.finish_s)
        assert one.replicas == other.replicas


def test_what_was_drawn_is_worth_drawing():
    """Over these seeds everything that can happen does."""
    met: Counter[str] = Counter()
    for seed in range(40):
        life = drawn_life(seed)
        run = lived(life, seed)
        met.update(event.what for event in run.events)
        met.update(Status(status).name for status in run.status)
        met.update(run.reasons)
        met[life.policy] += 1
        met["several pools"] += len(life.pools) > 1
        met["found in a cache"] += int((run.cached_tokens > 0).sum())
        met["preempted"] += int(run.preemptions.sum())
        met["sent again"] += int((run.attempts > 1).sum())
        met["paid by the token"] += any(totals.token_usd for totals in run.replicas)
    for what in ("order", "ready", "drain", "stop", "crash", "lost", "notice", "slow", "router"):
        assert met[what] > 5, what
    for what in ("COMPLETED", "REJECTED", "FAILED", "CANCELLED", "found in a cache", "sent again"):
        assert met[what] > 100, what
    assert met["preempted"] > 20
    assert min(met["several pools"], met["paid by the token"]) > 5
    assert len({reason for reason in met if " " in reason}) > 12


def test_every_policy_may_be_drawn():
    """But the oracle, which is for comparisons alone."""
    assert set(ALL_POLICIES) - set(POLICIES) <= {"oracle"}
