"""The designed sweep: within the engine's limits whatever they are, and wide enough to tell every term apart."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simroute.calibration.measure.sweep import (
    HOLD_STEPS,
    KV_SHARE,
    Limits,
    Staircase,
    contexts,
    decode_points,
    ladder,
    mixed_points,
    prefill_points,
    spread,
)

SERVER = Limits(256, 8192, 32_768, 400_000, 16, prefix_caching=True)
limits = st.builds(
    Limits,
    max_num_seqs=st.integers(1, 2048),
    max_num_batched_tokens=st.integers(16, 32_768),
    max_model_len=st.integers(64, 200_000),
    kv_tokens=st.integers(512, 4_000_000),
    block_size=st.sampled_from([16, 32, 128]),
    prefix_caching=st.booleans(),
)
prompt_tokens = st.floats(10, 1e7)


@given(limits)
def test_prefills_fit(limits):
    for point in prefill_points(limits):
        assert point.tokens >= 1
        assert point.context % limits.block_size == 0
        assert point.context + point.tokens + 1 <= limits.max_model_len
        assert point.seqs <= limits.max_num_seqs
        assert point.context + point.seqs * point.tokens <= limits.kv_tokens
        assert limits.prefix_caching or not point.context


@given(limits, prompt_tokens)
def test_staircases_fit(limits, prompt_tokens):
    for point in decode_points(limits, prompt_tokens):
        outputs = point.outputs()
        assert point.sizes[-1] == 1
        assert len(outputs) == point.sizes[0] <= limits.max_num_seqs
        assert point.context + max(outputs) <= limits.max_model_len
        assert point.sizes[0] * point.context <= max(prompt_tokens, point.context)
        assert point.sizes[0] * point.context <= max(KV_SHARE * limits.kv_tokens, point.context)


@given(limits, prompt_tokens)
def test_mixed_points_fit(limits, prompt_tokens):
    for point in mixed_points(limits, prompt_tokens):
        assert 1 <= point.decode_seqs < limits.max_num_seqs
        assert point.context + point.output_tokens <= limits.max_model_len
        for chunk in point.chunks:
            assert chunk + point.decode_seqs <= limits.max_num_batched_tokens
            assert chunk + 1 <= limits.max_model_len
        assert point.decode_seqs * point.context + max(point.chunks) <= 2 * KV_SHARE * limits.kv_tokens


def test_an_ordinary_server_is_swept_from_end_to_end():
    prefills = prefill_points(SERVER)
    assert {p.tokens for p in prefills if not p.context and p.seqs == 1} >= {16, 24, 32, 48, 1024, 8192, 16_384}
    assert {p.context for p in prefills} == {0, 256, 1024, 4096, 16_384}
    assert {p.seqs for p in prefills} >= {1, 2, 32}
    staircases = decode_points(SERVER, prompt_tokens=200_000)
    assert [p.context for p in staircases] == [16, 256, 1024, 4096, 16_384]
    assert {1, 2, 3, 4, 6, 8, 12, 192, 256} <= set(staircases[0].sizes)
    assert [p.sizes[0] for p in staircases] == [256, 256, 195, 48, 12]  # 200,000 tokens of prompts
    mixed = mixed_points(SERVER, prompt_tokens=200_000)
    assert {p.decode_seqs for p in mixed} >= {1, 255}
    assert {p.chunks[0] for p in mixed} == {16}
    assert max(p.chunks[-1] for p in mixed) > 4096


def test_without_prefix_caching_contexts_come_from_long_prompts():
    uncached = Limits(256, 8192, 40_000, 400_000, 16, prefix_caching=False)
    assert {p.tokens for p in prefill_points(uncached) if p.tokens > 8192} == {16_384, 32_768}


@given(st.lists(st.integers(1, 64), min_size=1, max_size=12, unique=True))
def test_a_staircase_holds_each_size_for_the_same_number_of_steps(sizes):
    """All requests start together and each decodes one token a step: count who is still there."""
    point = Staircase(tuple(sorted(sizes, reverse=True)), 16)
    decoded = [output - 1 for output in point.outputs()]
    alive = Counter(sum(steps > step for steps in decoded) for step in range(max(decoded)))
    assert alive == dict.fromkeys(sizes, HOLD_STEPS)


@given(st.integers(1, 100), st.integers(1, 5000))
def test_a_ladder_ends_at_both_ends_and_climbs_by_no_more_than_half(low, high):
    rungs = ladder(low, high)
    if high < low:
        assert rungs == []
        return
    assert (rungs[0], rungs[-1]) == (low, high)
    assert all(a < b <= max(a * 3 // 2 + 1, a + 1) for a, b in itertools.pairwise(rungs))


@given(st.integers(0, 200))
def test_spreading_loses_nothing(count):
    assert sorted(spread(range(count))) == list(range(count))


def test_every_beginning_of_a_spread_covers_the_range():
    order = spread(range(33))
    assert order[:2] == [32, 0]
    for length in (4, 8, 16):
        begun = sorted(order[:length])
        assert max(b - a for a, b in itertools.pairwise(begun)) <= 2 * 33 / (length - 1)


@pytest.mark.parametrize(("block_size", "found"), [(16, [0, 256, 1024]), (128, [0, 256, 1024]), (1000, [0, 1000])])
def test_contexts_are_whole_blocks(block_size, found):
    assert contexts(Limits(8, 512, 2048, 100_000, block_size, prefix_caching=True)) == found
