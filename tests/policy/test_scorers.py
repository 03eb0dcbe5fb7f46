"""Each formula by hand, its bounds and its direction as properties; what remembering scorers forget."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simroute.policy.context import Membership
from simroute.policy.routing.candidates import Candidates
from simroute.policy.routing.prefix_index import PrefixIndex
from simroute.policy.routing.scorers import (
    SIGNALS,
    LoraScorer,
    PrecisePrefixScorer,
    PrefixScorer,
    SessionScorer,
    SignalScorer,
)
from simroute.workload.request import Request

FIGURES = {name: figure for name, (figure, _) in SIGNALS.items()}


def rack(fleet, replicas, members=None):
    f = fleet(bf16=(replicas, 1.0, {}))
    context = replace(f.context(), prefix_block_tokens=10)
    return f, context if members is None else replace(context, members=members)


def scores(f, context, scorer, request=None):
    candidates = Candidates(context, (0,))
    found = scorer.score(request or Request(0, 0.0, 100, 5), candidates, candidates.seen(f.seen))
    return found.tolist()


def signal(fleet, name, values, queue_threshold=128):
    f, context = rack(fleet, len(values))
    for seen, value in zip(f.seen, values, strict=True):
        setattr(seen, FIGURES[name], value)
    return scores(f, context, SignalScorer(name, queue_threshold))


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("queue_depth", [2, 6, 4], [1.0, 0.0, 0.5]),
        ("queue_depth", [3, 3, 3], [1.0, 1.0, 1.0]),
        ("running", [10, 30, 20], [1.0, 0.0, 0.5]),
        ("running", [0, 0], [1.0, 1.0]),
        ("kv_usage", [0.25, 0.0, 1.0], [0.75, 1.0, 0.0]),
        ("active_requests", [0, 8, 2], [1.0, 0.0, 0.75]),
        ("active_requests", [4, 4], [0.0, 0.0]),
        ("active_requests", [0, 0], [1.0, 1.0]),
        ("load", [0, 32, 128, 500], [0.5, 0.375, 0.0, 0.0]),
    ],
)
def test_scores_of_a_figure_by_hand(fleet, name, values, expected):
    assert signal(fleet, name, values) == expected


def test_the_queue_at_which_load_is_zero_may_be_given(fleet):
    assert signal(fleet, "load", [0, 5, 10, 11], queue_threshold=10) == [0.5, 0.25, 0.0, 0.0]


@pytest.mark.parametrize("name", SIGNALS)
@given(values=st.lists(st.integers(0, 300), min_size=1, max_size=9))
def test_scores_lie_in_0_to_1_and_never_rise_with_the_figure(fleet, name, values):
    figures = [v / 300 for v in values] if name == "kv_usage" else values
    found = signal(fleet, name, figures)
    assert all(0.0 <= s <= 1.0 for s in found)
    by_figure = [s for _, s in sorted(zip(figures, found, strict=True))]
    assert by_figure == sorted(by_figure, reverse=True)


def test_a_figure_that_changes_is_scored_anew(fleet):
    f, context = rack(fleet, 2)
    scorer = SignalScorer("kv_usage", 1)
    assert scores(f, context, scorer) == [1.0, 1.0]
    f.seen[1].kv_cache_usage = 0.75
    assert scores(f, context, scorer) == [1.0, 0.25]
    f.seen[1].kv_cache_usage = 0.5
    assert scores(f, context, scorer) == [1.0, 0.5]


def test_prefix_is_the_share_of_the_prompts_whole_blocks(fleet):
    f, context = rack(fleet, 4)
    scorer = PrefixScorer(PrefixIndex(context, None, None))
    scorer.chosen(Request(0, 0.0, 39, 5, prefix_ids=[1, 2, 3]), 1)
    scorer.chosen(Request(1, 0.0, 10, 5, prefix_ids=[1]), 3)
    assert scores(f, context, scorer, Request(2, 0.0, 49, 5, prefix_ids=[1, 2, 3])) == [0.0, 0.75, 0.0, 0.25]
    assert scores(f, context, scorer, Request(3, 0.0, 9, 5, prefix_ids=[1])) == [0.0] * 4
    assert scores(f, context, scorer, Request(4, 0.0, 49, 5)) == [0.0] * 4


@given(st.lists(st.integers(0, 6), min_size=2, max_size=5))
def test_prefix_never_falls_with_what_is_cached(fleet, depths):
    f, context = rack(fleet, len(depths))
    scorer = PrefixScorer(PrefixIndex(context, None, None))
    ids = [11, 12, 13, 14, 15, 16]
    for replica, depth in enumerate(depths):
        scorer.chosen(Request(replica, 0.0, 10 * depth, 5, prefix_ids=ids[:depth]), replica)
    assert scores(f, context, scorer, Request(9, 0.0, 60, 5, prefix_ids=ids)) == [depth / 6 for depth in depths]


def test_prefix_precise_is_the_share_of_the_prompts_tokens(fleet):
    f, context = rack(fleet, 3)
    f.seen[0].hits, f.seen[2].hits = {7: 100}, {7: 25}
    assert scores(f, context, PrecisePrefixScorer(), Request(7, 0.0, 100, 5)) == [1.0, 0.0, 0.25]


def test_session_is_where_the_last_request_of_it_went(fleet):
    members = Membership([True] * 3)
    f, context = rack(fleet, 3, members)
    scorer = SessionScorer(context, ttl_s=10.0)

    def at(now_s, session=4):
        return scores(f, context, scorer, Request(0, now_s, 10, 5, session=session))

    assert at(0.0) == [0.0] * 3
    scorer.chosen(Request(0, 0.0, 10, 5, session=4), 2)
    scorer.chosen(Request(1, 1.0, 10, 5, session=-1), 1)
    assert at(9.9) == [0.0, 0.0, 1.0]
    assert at(9.9, session=-1) == at(9.9, session=5) == [0.0] * 3
    scorer.chosen(Request(2, 9.9, 10, 5, session=4), 1)
    assert at(19.8) == [0.0, 1.0, 0.0]
    members.set(1, ready=False)
    members.set(1, ready=True)
    assert at(19.8) == [0.0] * 3


def test_a_session_is_forgotten_ttl_s_after_its_last_request(fleet):
    f, context = rack(fleet, 1)
    scorer = SessionScorer(context, ttl_s=10.0)
    scorer.chosen(Request(0, 0.0, 10, 5, session=4), 0)
    assert scores(f, context, scorer, Request(0, 10.0, 10, 5, session=4)) == [0.0]
    assert len(scorer._bound) == 0


def test_a_session_that_goes_on_does_not_keep_others_alive(fleet):
    f, context = rack(fleet, 1)
    scorer = SessionScorer(context, ttl_s=10.0)
    for at_s, session in [(0.0, 4), (1.0, 5), (9.0, 4)]:
        scorer.chosen(Request(0, at_s, 10, 5, session=session), 0)
    assert scores(f, context, scorer, Request(0, 11.5, 10, 5, session=5)) == [0.0]
    assert scores(f, context, scorer, Request(0, 11.5, 10, 5, session=4)) == [1.0]


def test_lora_is_where_the_adapter_is_else_where_there_is_room(fleet):
    members = Membership([True] * 3)
    f, context = rack(fleet, 3, members)
    scorer = LoraScorer(context, max_loras=2)

    def of(tenant):
        return scores(f, context, scorer, Request(0, 0.0, 10, 5, tenant=tenant))

    def sent(tenant, replica):
        scorer.chosen(Request(0, 0.0, 10, 5, tenant=tenant), replica)

    assert of("a") == [0.8, 0.8, 0.8]
    sent("a", 0)
    sent("b", 0)
    sent("a", 1)
    assert of("a") == [1.0, 1.0, 0.8]
    assert of("b") == [1.0, 0.8, 0.8]
    assert of("c") == [0.0, 0.8, 0.8]
    sent("a", 0)
    sent("c", 0)  # b was asked for longest ago
    assert of("b") == [0.0, 0.8, 0.8]
    assert of("c") == [1.0, 0.8, 0.8]
    members.set(0, ready=False)
    members.set(0, ready=True)
    assert of("a") == [0.8, 1.0, 0.8]


@pytest.mark.parametrize("name", SIGNALS)
def test_one_candidate_alone_is_scored(fleet, name):
    assert len(signal(fleet, name, [3 if name != "kv_usage" else 0.5])) == 1


def test_scores_of_a_subset_are_by_position(fleet):
    f, context = rack(fleet, 4, Membership([True, False, True, True]))
    for seen, load in zip(f.seen, [4, 0, 2, 0], strict=True):
        seen.in_flight = load
    assert scores(f, context, SignalScorer("active_requests", 1)) == [0.0, 0.5, 1.0]
    lora = LoraScorer(context, 1)
    lora.chosen(Request(0, 0.0, 10, 5, tenant="a"), 3)
    assert np.allclose(scores(f, context, lora, Request(0, 0.0, 10, 5, tenant="a")), [0.8, 0.8, 1.0])
