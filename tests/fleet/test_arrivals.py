"""From a trace's content ids to KV blocks: what is described, what can be shared, and sizes that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
from fleet.fleets import make_pool, replay
from fleet.invariants import check

from simroute.errors import UsageError
from simroute.workload.trace import Trace


def hits(block_size, id_tokens, rows, exact):
    """Prefix-hit tokens of (input_tokens, output_tokens, ids) requests that come one after the other."""
    prompts, answers, ids = zip(*rows, strict=True)
    trace = Trace.build(
        arrival_s=1000.0 * np.arange(len(rows)),
        input_tokens=prompts,
        output_tokens=answers,
        prefixes=ids,
        prefix_block_tokens=id_tokens,
    )
    pools = [make_pool(block_size=block_size, num_gpu_blocks=1001)]
    return check(replay(trace, pools, exact=exact), pools).cached_tokens.tolist()


@pytest.fixture(params=[True, False], ids=["exact", "fast"])
def exact(request):
    return request.param


def test_ids_as_long_as_a_block(exact):
    """Two of three ids agree, then the prompts part."""
    assert hits(4, 4, [(12, 1, [1, 2, 3]), (12, 1, [1, 2, 4])], exact) == [0, 8]


def test_ids_of_several_blocks(exact):
    """Ids of 16 tokens, blocks of 4. 36 tokens: the third id describes 4 of them, which end both prompts.

    All 9 blocks are equal; the last is computed again.
    """
    assert hits(4, 16, [(36, 1, [1, 2, 3]), (36, 1, [1, 2, 3])], exact) == [0, 32]


def test_ids_of_a_part_of_a_block(exact):
    """Ids of 4 tokens, blocks of 8: five common ids are two blocks and a half."""
    assert hits(8, 4, [(24, 1, [1, 2, 3, 4, 5, 6]), (24, 1, [1, 2, 3, 4, 5, 7])], exact) == [0, 16]


def test_ids_of_the_answer(exact):
    """4 prompt and 9 answer tokens, of which 12 are computed: the next turn finds its three blocks."""
    assert hits(4, 4, [(4, 9, [1, 2, 3]), (20, 1, [1, 2, 3, 4, 5])], exact) == [0, 12]


def test_the_last_id_ends_with_the_prompt(exact):
    """20 prompt tokens, ids of 16: the second describes 4 of its 16. What follows in the answer is the request's own.

    The next has 32 tokens that begin with the same ids, but shares only the 20: five blocks of 4.
    """
    assert hits(4, 16, [(20, 30, [1, 2]), (32, 1, [1, 2])], exact)[1] == 20


def test_no_ids_nothing_shared(exact):
    assert hits(4, 4, [(12, 1, []), (12, 1, []), (12, 1, [1])], exact) == [0, 0, 0]


def test_an_id_that_occurs_once_is_not_shared_but_those_before_it_are(exact):
    rows = [(16, 1, [1, 2, 3, 4]), (16, 1, [1, 2, 5, 6]), (16, 1, [1, 7])]
    assert hits(4, 4, rows, exact) == [0, 8, 4]


@pytest.mark.parametrize(("block_size", "id_tokens"), [(4, 6), (16, 24), (3, 4)])
def test_sizes_that_do_not_fit(block_size, id_tokens):
    rows = Trace.build(arrival_s=[0.0], input_tokens=50, output_tokens=1, prefixes=[[1]], prefix_block_tokens=id_tokens)
    message = f"block_size {block_size} does not fit the trace's prefix blocks of {id_tokens} tokens"
    with pytest.raises(UsageError, match=message):
        replay(rows, [make_pool(), make_pool(block_size=block_size)])


def test_sizes_do_not_matter_without_prefix_caching():
    rows = Trace.build(arrival_s=[0.0], input_tokens=50, output_tokens=1, prefixes=[[1]], prefix_block_tokens=6)
    pools = [make_pool(enable_prefix_caching=False)]
    assert check(replay(rows, pools), pools).cached_tokens.tolist() == [0]
