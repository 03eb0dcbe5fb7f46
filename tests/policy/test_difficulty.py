"""Difficulty scores: their distribution, the calibrated threshold against quantiles, common luck, pools."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy.stage import Stage, ask_for, variant
from scipy import stats

from simroute.errors import UsageError
from simroute.policy.routing.difficulty import Difficulty, DifficultyOptions


def stage():
    """Replicas 0, 1 are dear, 2 and 3 cheap."""
    return Stage((2, variant("large", 3.0)), (2, variant("small", 1.0)))


def strong_share(policy, found, n=4000, request_class="chat"):
    return sum(found.pick(policy, ask_for(request_class, index=i)) < 2 for i in range(n)) / n


def within(share, expected, n=4000):
    """Four standard deviations of a binomial share."""
    return abs(share - expected) <= 4 * (expected * (1 - expected) / n) ** 0.5


def test_the_default_sends_the_harder_half_to_the_dearest_pool():
    found = stage()
    policy = found.policy("difficulty_threshold")
    assert policy.threshold == pytest.approx(0.5)
    assert within(strong_share(policy, found), 0.5)


def test_a_request_is_strong_just_when_its_score_reaches_the_threshold():
    found = stage()
    policy = found.policy("difficulty_threshold", threshold=0.3, difficulty={"chat": {"mean": 0.2, "concentration": 5}})
    scores = []
    for i in range(500):
        request = ask_for(index=i)
        scores.append(policy.score(request))
        assert (found.pick(policy, request) < 2) == (scores[-1] >= 0.3)
    assert stats.kstest(scores, stats.beta(1.0, 4.0).cdf).pvalue > 1e-3


@pytest.mark.parametrize("concentration", [0.5, 2.0, 50.0])
def test_the_calibrated_threshold_of_one_class_is_a_quantile(concentration):
    scores = {"mean": 0.3, "concentration": concentration}
    options = DifficultyOptions(difficulty={"chat": scores}, strong_share=0.2)
    expected = stats.beta(0.3 * concentration, 0.7 * concentration).ppf(0.8)
    assert options.calibrated() == pytest.approx(expected, rel=1e-6)


def test_the_calibrated_threshold_of_a_mixture_gives_the_share_over_all_requests():
    easy, hard = {"mean": 0.2, "concentration": 10}, {"mean": 0.7, "concentration": 10}
    found = stage()
    policy = found.policy(
        "difficulty_threshold",
        difficulty={"chat": easy, "coding": hard},
        class_shares={"chat": 3, "coding": 1},
        strong_share=0.25,
    )
    chat, coding = (1 - stats.beta(m * 10, (1 - m) * 10).cdf(policy.threshold) for m in (0.2, 0.7))
    assert 0.75 * chat + 0.25 * coding == pytest.approx(0.25)
    assert coding > 0.8 > 0.1 > chat
    assert within(strong_share(policy, found, request_class="coding"), coding)
    assert within(strong_share(policy, found, request_class="chat"), chat)


@given(st.floats(0.01, 0.99), st.floats(0.05, 100), st.floats(0.02, 0.98))
def test_calibration_inverts_the_distribution(mean, concentration, share):
    options = DifficultyOptions(
        difficulty={"x": Difficulty(mean=mean, concentration=concentration)}, strong_share=share
    )
    threshold = options.calibrated()
    # The distribution may jump within the tolerance of the threshold, where nearly all mass is at one end.
    above = 1 - options.of_class("x").share_below(max(threshold - 1e-9, 0.0))
    below = 1 - options.of_class("x").share_below(min(threshold + 1e-9, 1.0))
    assert below - 1e-6 <= share <= above + 1e-6


@pytest.mark.parametrize(("share", "replicas"), [(0.0, {2}), (1.0, {0})])
def test_all_or_nothing(share, replicas):
    found = stage()
    policy = found.policy("difficulty_threshold", strong_share=share)
    assert {found.pick(policy, ask_for(index=i)) for i in range(300)} == replicas


def test_scores_are_common_to_thresholds_attempts_and_instances():
    found = stage()
    lax, strict = (found.policy("difficulty_threshold", threshold=t) for t in (0.3, 0.6))
    for i in reversed(range(200)):
        request, again = ask_for(index=i), ask_for(index=i, arrival_s=99.0)
        assert lax.score(request) == strict.score(again)
        assert found.pick(strict, request) >= 2 or found.pick(lax, request) < 2, "whoever is hard at 0.6 is at 0.3"
    other_seed = found.policy("difficulty_threshold", seed=1)
    assert lax.score(ask_for()) != other_seed.score(ask_for())


def test_pools_may_be_named_and_a_pool_that_is_down_is_not_replaced():
    found = stage()
    policy = found.policy("difficulty_threshold", weak="large", strong="small", strong_share=1.0)
    assert found.pick(policy) == 2
    found.seen[2].in_flight = 1
    assert found.pick(policy) == 3
    found.down(3)
    assert found.pick(policy) == 2
    found.down(2)
    assert found.ask(policy) == (-1, "no replica is ready")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strong": "larg"}, "difficulty_threshold: unknown pool 'larg': did you mean large"),
        ({"threshold": 0.5, "strong_share": 0.5}, "give threshold or strong_share, not both"),
        ({"class_shares": {"chat": 0}}, "class_shares must not all be 0"),
        ({"difficulty": {"chat": {"mean": 1.0}}}, "difficulty.chat.mean: Input should be less than 1, got 1.0"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        stage().policy("difficulty_threshold", **options)


def test_scores_do_not_depend_on_what_else_draws():
    found = stage()
    alone = found.policy("difficulty_threshold")
    inside = found.policy("two_level", variant="difficulty_threshold", replica="random")
    for i in range(100):
        pool = {found.pool_of_replica[found.pick(policy, ask_for(index=i))] for policy in (alone, inside)}
        assert len(pool) == 1
    assert np.isfinite(alone.threshold)
