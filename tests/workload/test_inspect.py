"""Statistics of a trace, counted by hand on small ones."""

from __future__ import annotations

import json

import numpy as np
import pytest

from simroute.workload.inspect import arrival_rate, inspect, length_stats, seen_tokens
from simroute.workload.trace import Trace


def small() -> Trace:
    return Trace.build(
        arrival_s=[0, 10, 20, 30],
        input_tokens=[150, 150, 400, 120],
        output_tokens=[100, 10, 10, 10],
        request_class=["chat", "chat", "code", "chat"],
        session=[0, -1, 0, -1],
        # Blocks of 100 tokens: request 1 repeats request 0's prompt, request 2 goes on after its answer.
        prefixes=[[1, 2, 3], [1, 2], [1, 2, 3], [9]],
        prefix_block_tokens=100,
        name="small",
        notes=["a note"],
    )


def test_prompt_tokens_seen_before():
    # Request 1: the ids end with the prompt's last block, so they tell of 150 tokens. Request 2 holds the whole stream
    # of request 0: its third block was 50 tokens long then. Request 3 is new.
    assert seen_tokens(small()).tolist() == [0, 150, 250, 0]


def test_a_prompt_never_counts_more_than_its_own_tokens():
    trace = Trace.build(
        arrival_s=[0, 1],
        input_tokens=[300, 130],
        output_tokens=[1, 1],
        prefixes=[[1, 2, 3], [1, 2]],
        prefix_block_tokens=100,
    )
    assert seen_tokens(trace).tolist() == [0, 130]


def test_everything_about_a_small_trace():
    stats = inspect(small())
    assert (stats.name, stats.requests, stats.duration_s, stats.context_max) == ("small", 4, 30.0, 410)
    assert stats.fingerprint == small().fingerprint()
    assert stats.reuse is not None
    assert (stats.reuse.prompt_tokens, stats.reuse.seen_tokens, stats.reuse.share) == (820, 400, 400 / 820)
    assert (stats.sessions, stats.turns_mean) == (1, 2.0)
    assert [(group.name, group.requests, group.share) for group in stats.classes] == [
        ("chat", 3, 0.75),
        ("code", 1, 0.25),
    ]
    chat = stats.classes[0]
    assert (chat.input_mean, chat.output_mean, chat.reuse) == (140.0, 40.0, 150 / 420)
    assert stats.notes == ["a note"]
    assert json.loads(json.dumps(stats.to_dict()))["rate"]["counts"] == stats.rate.counts


def test_a_trace_without_prefixes_or_sessions():
    stats = inspect(Trace.build(arrival_s=[5], input_tokens=[1], output_tokens=[1]))
    assert stats.reuse is None
    assert stats.sessions == 0
    assert (stats.rate.mean_per_s, stats.rate.cv, stats.rate.counts) == (0.0, 0.0, [1])


def test_arrival_rate_is_counted_in_stretches_a_clock_shows():
    rate = arrival_rate(np.arange(0, 7200, 2.0) + 3600)
    assert rate.bin_s == 120.0
    assert rate.start_s == 3600.0
    assert rate.counts == [60] * 60
    assert rate.peak_per_s == 0.5
    assert rate.mean_per_s == pytest.approx(0.5, rel=1e-3)
    assert rate.cv == 0.0


@pytest.mark.parametrize("span", [0.5, 71.0, 72.0, 1e4, 86_400.0, 1e9])
def test_there_are_never_too_many_stretches(span):
    rate = arrival_rate(np.array([100.0, 100.0 + span]))
    assert len(rate.counts) <= 73
    assert sum(rate.counts) == 2


def test_lengths_are_counted_in_powers_of_two():
    lengths = length_stats(np.array([3, 4, 7, 8, 9, 100]))
    assert lengths.edges == [2, 4, 8, 16, 32, 64, 128]
    assert lengths.counts == [1, 2, 2, 0, 0, 1]
    assert (lengths.total, lengths.max, lengths.p50) == (131, 100, 7.5)
