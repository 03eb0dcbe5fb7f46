"""Merging traces: order, names, and ids that never meet."""

from __future__ import annotations

import numpy as np
import pytest

from simroute.errors import UsageError
from simroute.workload.merge import merge
from simroute.workload.trace import Trace


def one(name: str, arrival_s, prefixes=None, block=0, tokens=1000, **more) -> Trace:
    return Trace.build(
        arrival_s=arrival_s,
        input_tokens=tokens,
        output_tokens=1,
        prefixes=prefixes,
        prefix_block_tokens=block,
        name=name,
        **more,
    )


def ids(trace: Trace, row: int) -> list[int]:
    return trace.prefix_ids[trace.prefix_offsets[row] : trace.prefix_offsets[row + 1]].tolist()


def test_requests_are_interleaved_and_ties_keep_the_order_of_traces():
    merged = merge(
        [
            one("a", [0, 2, 4], request_class="chat", tier="free", notes=["na"]),
            one("b", [1, 2], request_class=["code", "chat"], tier="gold", notes=["nb"]),
        ],
        name="m",
    )
    assert merged.arrival_s.tolist() == [0, 1, 2, 2, 4]
    assert [merged.class_names[code] for code in merged.class_code] == ["chat", "code", "chat", "chat", "chat"]
    assert [merged.tier_names[code] for code in merged.tier_code] == ["free", "gold", "free", "gold", "free"]
    assert (merged.name, merged.notes) == ("m", ("na", "nb"))


def test_equal_ids_of_different_traces_never_meet_and_those_of_one_still_do():
    left = one("a", [0, 2], [[7, -9], [7, 11]], 64)
    right = one("b", [1, 3], [[7], [7, -9]], 64)
    merged = merge([left, right])
    assert ids(merged, 0)[0] == ids(merged, 2)[0]
    assert ids(merged, 0)[1] != ids(merged, 2)[1]
    assert ids(merged, 1) == ids(merged, 3)[:1]
    assert set(ids(merged, 0) + ids(merged, 2)) & set(ids(merged, 1) + ids(merged, 3)) == set()


def test_sessions_of_different_traces_never_meet():
    merged = merge([one("a", [0, 2, 4], session=[3, -1, 3]), one("b", [1, 3], session=[3, 9])])
    session = merged.session.tolist()
    assert session[2] == -1
    assert session[0] == session[4]
    assert len({session[0], session[1], session[3]}) == 3


def test_block_sizes_are_brought_to_their_greatest_common_divisor():
    coarse = one("a", [0, 2], [[5, 6], [5, 8]], 96, tokens=192)
    fine = one("b", [1], [[5, 6, 7]], 64)
    plain = one("c", [3])
    merged = merge([coarse, fine, plain])
    assert merged.prefix_block_tokens == 32
    assert [len(ids(merged, row)) for row in range(4)] == [6, 6, 6, 0]
    assert ids(merged, 0)[:3] == ids(merged, 2)[:3]
    assert set(ids(merged, 0)[3:]) & set(ids(merged, 2)[3:]) == set()
    assert len(set(ids(merged, 0)) | set(ids(merged, 1)) | set(ids(merged, 2))) == 15


def test_splitting_a_partial_last_block_leaves_out_what_lies_beyond_the_prompt():
    partial = one("a", [0], [[1, 2]], 512, tokens=600)
    merged = merge([partial, one("b", [1], [[1]], 64)])
    # 600 tokens are 9 blocks of 64 and a tenth of 24 tokens.
    assert len(ids(merged, 0)) == 10


def test_splitting_keeps_equality_of_common_prefixes():
    """Brute force: the tokens that two requests share, before and after, on random trees of prefixes."""
    rng = np.random.default_rng(3)
    rows = [[0, 1 + rng.integers(2), 10 + rng.integers(3)][: rng.integers(0, 4)] for _ in range(30)]
    rows = [[hash(tuple(row[: k + 1])) % 10**9 for k in range(len(row))] for row in rows]
    trace = one("a", np.arange(30), rows, 96, tokens=288)
    merged = merge([trace, one("b", [99], [[1]], 36)])
    assert merged.prefix_block_tokens == 12
    for left in range(30):
        for right in range(30):
            before = 96 * common(ids(trace, left), ids(trace, right))
            assert 12 * common(ids(merged, left), ids(merged, right)) == before


def common(left: list[int], right: list[int]) -> int:
    return next((k for k, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def test_merging_one_trace_changes_nothing_but_labels():
    trace = one("a", [0, 1], [[0], [0, 1]], 64)
    assert merge([trace]).fingerprint() == trace.fingerprint()


def test_merging_nothing_is_refused():
    with pytest.raises(UsageError, match="at least one trace"):
        merge([])
