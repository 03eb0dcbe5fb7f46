"""Totals by hand, weights that switch scorers off, presets, ties and quality floors."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from simroute.policy.routing import check_options, make_policy
from simroute.policy.routing.scorers import SIGNALS
from simroute.policy.routing.weighted import PRESETS, ScorerWeights, WeightedOptions
from simroute.workload.request import Request

LLM_D = {"prefix": 3.0, "queue_depth": 2.0, "kv_usage": 2.0}


def built(fleet, seed=0, replicas=3, **options):
    f = fleet(bf16=(replicas, 1.0, {"chat": 0.9}))
    return f, make_policy("weighted", options, replace(f.context(seed), prefix_block_tokens=10))


def ask(f, policy, ids=(), blocks=4, **fields):
    return policy.choose(Request(0, 0.0, 10 * blocks, 5, prefix_ids=ids, **fields), f.seen).replica


def busy(f):
    """Queues of 4, 0 and 2; caches half full, nearly full and nearly empty."""
    for seen, waiting, kv in zip(f.seen, [4, 0, 2], [0.5, 0.9, 0.2], strict=True):
        seen.num_requests_waiting, seen.kv_cache_usage = waiting, kv


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({}, 0),  # 0 + 1.0 + 3 x 0.75 = 3.25, 2 + 0.2 = 2.2, 1 + 1.6 = 2.6
        ({"prefix": 0.0}, 2),  # 1.0, 2.2, 2.6
        ({"prefix": 0.0, "kv_usage": 0.0}, 1),  # 0, 2, 1
        ({"prefix": 2.0}, 2),  # 2.5, 2.2, 2.6
        ({"prefix": 2.2}, 0),  # 2.65, 2.2, 2.6
    ],
)
def test_llm_ds_weights_and_changes_to_them_by_hand(fleet, weights, expected):
    f, policy = built(fleet, preset="llm-d", weights=weights)
    assert ask(f, policy, [1, 2, 3], blocks=3) == 0
    busy(f)
    assert ask(f, policy, [1, 2, 3]) == expected


def test_without_a_word_it_is_llm_ds(fleet):
    assert WeightedOptions().effective() == WeightedOptions(preset="llm-d").effective() == LLM_D


def test_given_weights_are_all_there_is_unless_a_preset_is_named():
    assert WeightedOptions.model_validate({"weights": {"load": 1}}).effective() == {"load": 1.0}
    assert WeightedOptions.model_validate({"weights": {"load": 1}, "preset": "llm-d"}).effective() == {
        **LLM_D,
        "load": 1.0,
    }
    assert WeightedOptions.model_validate({"weights": {"load": 0}}).effective() == {}


def test_presets_name_scorers_that_exist():
    for weights in PRESETS.values():
        assert weights.keys() <= ScorerWeights.model_fields.keys()
    assert PRESETS["llm-d"] == LLM_D


@given(
    st.sampled_from(sorted(SIGNALS)),
    st.lists(st.integers(0, 9), min_size=5, max_size=5),
    st.lists(st.integers(0, 9), min_size=5, max_size=5),
)
def test_a_scorer_alone_picks_its_best_and_of_equals_the_least_busy_then_the_first(fleet, name, figures, loads):
    f, policy = built(fleet, replicas=5, weights={name: 0.7})
    figure, _ = SIGNALS[name]
    for seen, value, load in zip(f.seen, figures, loads, strict=True):
        seen.in_flight = load
        setattr(seen, figure, value / 10 if name == "kv_usage" else value)
    expected = min(range(5), key=lambda r: (getattr(f.seen[r], figure), f.seen[r].in_flight, r))
    assert ask(f, policy) == expected


@pytest.mark.parametrize("off", ["queue_depth", "kv_usage", "active_requests", "running", "load"])
@given(st.lists(st.integers(0, 9), min_size=3, max_size=3), st.lists(st.integers(0, 9), min_size=3, max_size=3))
def test_a_scorer_of_weight_zero_has_no_say(fleet, off, figures, kept):
    """Whatever its figure, the choice is that of the scorer that counts."""
    on = "running" if off in ("queue_depth", "load", "kv_usage", "active_requests") else "queue_depth"
    f, with_zero = built(fleet, weights={off: 0.0, on: 1.0})
    _, without = built(fleet, weights={on: 1.0})
    for seen, value, keep in zip(f.seen, figures, kept, strict=True):
        setattr(seen, SIGNALS[off][0], value / 10 if off == "kv_usage" else value)
        setattr(seen, SIGNALS[on][0], keep)
    assert ask(f, with_zero) == ask(f, without)


def test_no_weights_at_all_is_least_requests(fleet):
    f, policy = built(fleet, weights={"prefix": 0})
    for seen, load in zip(f.seen, [3, 1, 1], strict=True):
        seen.in_flight = load
    assert ask(f, policy) == 1


def test_sessions_and_adapters_are_remembered_together(fleet):
    """Session 4 of tenant a on replica 0; then replica 0 is busiest, and session outweighs load."""
    f, policy = built(fleet, weights={"session": 1.0, "lora": 0.5, "active_requests": 0.9})
    assert ask(f, policy, session=4, tenant="a") == 0
    f.seen[0].in_flight = 3
    assert ask(f, policy, session=4, tenant="a") == 0  # 1 + 0.5 + 0 against 0 + 0.4 + 0.9
    assert ask(f, policy, session=5, tenant="a") == 1  # 0.5 + 0 against 0.4 + 0.9
    assert ask(f, policy, session=5, tenant="b") == 1  # 1 + 0.9 there, 0.4 + 0.9 on replica 2


def test_precise_prefixes_are_read_only_where_they_count(fleet):
    f, policy = built(fleet, weights={"prefix_precise": 1.0})
    assert policy.reads_kv_events is True
    f.seen[2].hits = {0: 5}
    assert ask(f, policy) == 2
    for weights in ({}, {"prefix_precise": 0.0}):
        assert built(fleet, weights=weights)[1].reads_kv_events is False


def test_ties_may_be_drawn_evenly_and_by_the_seed(fleet):
    runs = []
    for seed in (3, 3, 4):
        f, policy = built(fleet, seed, ties="random", weights={"queue_depth": 1.0}, replicas=4)
        f.seen[1].num_requests_waiting = 1
        runs.append([ask(f, policy) for _ in range(3000)])
    assert runs[0] == runs[1] != runs[2]
    counts = Counter(runs[0])
    assert counts[1] == 0
    assert stats.chisquare([counts[r] for r in (0, 2, 3)]).pvalue > 0.01


def test_figures_of_inadmissible_replicas_do_not_stretch_the_scale(fleet):
    """Queues 0 and 4 among the admissible: the 8 of replica 0 would make them 1 and 0.5, and prefer replica 2."""
    f = fleet({"coding": 0.8}, a=(1, 1.0, {"coding": 0.6}), b=(2, 2.0, {"coding": 0.9}))
    weights = {"queue_depth": 1.0, "kv_usage": 1.0}
    policy = f.policy("weighted", respect_quality_floor=True, weights=weights)
    for seen, waiting, kv in zip(f.seen, [8, 0, 4], [0.0, 0.9, 0.2], strict=True):
        seen.num_requests_waiting, seen.kv_cache_usage = waiting, kv
    assert f.pick(policy, "coding") == 1  # 1 + 0.1 against 0 + 0.8


def test_an_unknown_scorer_is_named_with_the_nearest():
    (problem,) = check_options("weighted", {"weights": {"queue": 1}})
    assert problem.path == ("weights", "queue")
    assert problem.message == "unknown option 'queue': did you mean queue_depth?"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": {"prefix": -1}}, "weights.prefix: Input should be greater than or equal to 0, got -1"),
        ({"weights": {"load": float("inf")}}, "weights.load: Input should be a finite number, got inf"),
        ({"preset": "llmd"}, "preset: Input should be 'llm-d' or 'llm-d-payload-agnostic', got 'llmd'"),
        ({"max_loras": 0}, "max_loras: Input should be greater than or equal to 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    (problem,) = check_options("weighted", options)
    assert str(problem) == message


FORMULAS = {
    "queue_depth": lambda s, all_: spread([a.num_requests_waiting for a in all_], s.num_requests_waiting),
    "running": lambda s, all_: spread([a.num_requests_running for a in all_], s.num_requests_running),
    "kv_usage": lambda s, all_: 1 - s.kv_cache_usage,
    "active_requests": lambda s, all_: 1 - s.in_flight / (max(a.in_flight for a in all_) or 1),
    "load": lambda s, all_: 0.5 * max(1 - s.num_requests_waiting / 7, 0),
}


def spread(values, value):
    return (max(values) - value) / (max(values) - min(values)) if max(values) > min(values) else 1.0


figures = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.floats(0, 1), st.integers(0, 4)),
    min_size=2,
    max_size=6,
)
given_weights = st.dictionaries(
    st.sampled_from([*FORMULAS, "prefix"]), st.sampled_from([0.0, 0.3, 1.0, 2.5]), min_size=1
)


@given(figures, given_weights)
def test_the_choice_has_the_greatest_sum_of_weighted_scores(fleet, shown, weights):
    """Computed anew from the definitions, replica by replica; each has its own number of the prompt's four blocks."""
    f, policy = built(fleet, replicas=len(shown), weights=weights, queue_threshold=7)
    ids = [1, 2, 3, 4]
    index = policy._remembering[0]._index if weights.get("prefix") else None
    for seen, (in_flight, running, waiting, kv, depth) in zip(f.seen, shown, strict=True):
        seen.in_flight, seen.num_requests_running = in_flight, running
        seen.num_requests_waiting, seen.kv_cache_usage = waiting, kv
        if index is not None:
            index.record(Request(0, 0.0, 10 * depth, 5, prefix_ids=ids[:depth]), seen.replica)
    totals = [
        weights.get("prefix", 0.0) * shown[seen.replica][-1] / 4
        + sum(weight * FORMULAS[name](seen, f.seen) for name, weight in weights.items() if name in FORMULAS)
        for seen in f.seen
    ]
    assert totals[ask(f, policy, ids)] == pytest.approx(max(totals), abs=1e-12)
