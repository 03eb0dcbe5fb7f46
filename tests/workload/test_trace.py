"""Building, cutting, scaling and fingerprinting a trace."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simroute.errors import TraceError, UsageError
from simroute.workload.trace import Trace


def make(**changes) -> Trace:
    columns = {
        "arrival_s": [0.0, 1.0, 4.0],
        "input_tokens": [100, 200, 300],
        "output_tokens": [10, 20, 30],
        "request_class": ["chat", "coding", "chat"],
        "prefixes": [[1, 2], [], [1]],
        "prefix_block_tokens": 64,
        "name": "t",
    }
    return Trace.build(**{**columns, **changes})


def test_columns_of_a_built_trace():
    trace = make(tier="gold", tenant=["b", "a", "b"], session=[5, -1, 5], priority=2)
    assert len(trace) == 3
    assert [trace.class_names[code] for code in trace.class_code] == ["chat", "coding", "chat"]
    assert [trace.tenant_names[code] for code in trace.tenant_code] == ["b", "a", "b"]
    assert trace.tier_names == ("gold",)
    assert trace.session.tolist() == [5, -1, 5]
    assert trace.priority.tolist() == [2, 2, 2]
    assert trace.prefix_offsets.tolist() == [0, 2, 2, 3]
    assert trace.duration_s == 4.0
    assert trace.has_prefixes
    assert trace.notes == ()


def test_what_is_left_out_has_a_default():
    trace = Trace.build(arrival_s=[0.5], input_tokens=[1], output_tokens=1)
    assert (trace.class_names, trace.tenant_names, trace.tier_names) == (("default",),) * 3
    assert (trace.priority[0], trace.session[0], trace.prefix_block_tokens) == (0, -1, 0)
    assert not trace.has_prefixes
    assert trace.duration_s == 0.0


def test_unsorted_arrivals_are_sorted_stably_with_everything_they_carry():
    trace = make(arrival_s=[3.0, 1.0, 1.0], session=[0, 1, 2])
    assert trace.arrival_s.tolist() == [1.0, 1.0, 3.0]
    assert trace.input_tokens.tolist() == [200, 300, 100]
    assert trace.session.tolist() == [1, 2, 0]
    assert trace.prefix_ids.tolist() == [1, 1, 2]
    assert trace.prefix_offsets.tolist() == [0, 0, 1, 3]
    assert trace.notes == ("t: 2 arrivals out of order: sorted",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"arrival_s": [0.0, float("nan"), 1.0]},
            "arrival_s: must be finite numbers from 0 to 2.53, request 1 has nan",
        ),
        ({"arrival_s": [-1.0, 0.0, 1.0]}, "arrival_s: .* request 0 has -1"),
        ({"input_tokens": [1, 0, 1]}, "input_tokens: must be whole numbers from 1 to 2.53, request 1 has 0"),
        ({"output_tokens": [1, 2, 2.5]}, "output_tokens: .* request 2 has 2.5"),
        ({"output_tokens": [1, 2, 1e300]}, "output_tokens: .* request 2 has 1e"),
        ({"output_tokens": ["a", 1, 2]}, "output_tokens: must be numbers"),
        ({"output_tokens": [[1], [2], [3]]}, "output_tokens: must have one dimension, has 2"),
        ({"input_tokens": [1, 2]}, "input_tokens: has 2 values for 3 requests"),
        ({"request_class": ["a", "b"]}, "request_class: has 2 values for 3 requests"),
        ({"session": [0.5, 1, 2]}, "session: .* request 0 has 0.5"),
        ({"prefixes": [[1], [2]]}, "prefix_offsets: must rise"),
        ({"prefix_block_tokens": 0}, "prefix_block_tokens: must be at least 1"),
        ({"prefixes": [[], [], [1] * 7]}, "request 2 has 7 blocks of 64 tokens, but .* only 330 tokens"),
        ({"prefixes": [["x"], [], []]}, "every id must be a 64-bit integer"),
        ({"prefixes": [[2**64], [], []]}, "every id must be a 64-bit integer"),
    ],
)
def test_impossible_columns_are_refused(changes, message):
    with pytest.raises(TraceError, match=message):
        make(**changes)


def test_an_empty_trace_is_refused():
    with pytest.raises(TraceError, match="empty: the trace has no requests"):
        Trace.build(arrival_s=[], input_tokens=[], output_tokens=[], name="empty")


def test_select_by_index_and_mask():
    trace = make()
    by_mask = trace.select(trace.input_tokens != 200)
    by_index = trace.select([0, 2])
    assert by_mask.fingerprint() == by_index.fingerprint()
    assert by_index.prefix_ids.tolist() == [1, 2, 1]
    assert by_index.prefix_offsets.tolist() == [0, 2, 3]


@pytest.mark.parametrize(
    ("index", "message"),
    [([2, 0], "in order of arrival"), ([0, 3], r"within 0\.\.2"), ([True, False], "mask has 2 values for 3")],
)
def test_select_refuses_what_it_cannot_do(index, message):
    with pytest.raises(UsageError, match=message):
        make().select(index)


def test_head_and_window():
    trace = make()
    assert trace.head(2).arrival_s.tolist() == [0.0, 1.0]
    assert trace.head(99).fingerprint() == trace.fingerprint()
    cut = trace.window(1.0, 4.0)
    assert cut.arrival_s.tolist() == [0.0]
    assert cut.input_tokens.tolist() == [200]
    assert trace.window(0.5, np.inf).arrival_s.tolist() == [0.5, 3.5]
    with pytest.raises(TraceError, match=r"t: nothing arrives in 2\.\.3 s \(arrivals span 0\.\.4 s\)"):
        trace.window(2, 3)
    with pytest.raises(UsageError, match="0 <= start < stop"):
        trace.window(3, 3)
    with pytest.raises(UsageError, match="at least 1 request, got 0"):
        trace.head(0)


def test_tagged_replaces_only_what_is_given():
    trace = make(tier="gold").tagged(request_class="chat", tenant=["x", "y", "x"], priority=3)
    assert trace.class_names == ("chat",)
    assert trace.tenant_names == ("x", "y")
    assert trace.tier_names == ("gold",)
    assert trace.priority.tolist() == [3, 3, 3]


def test_scaling_rate_and_lengths():
    faster = make().scaled(rate=2)
    assert faster.arrival_s.tolist() == [0.0, 0.5, 2.0]
    assert faster.has_prefixes
    longer = make().scaled(input=1.5, output=0.01)
    assert longer.input_tokens.tolist() == [150, 300, 450]
    assert longer.output_tokens.tolist() == [1, 1, 1]


def conversations(seed: int, block: int = 16) -> Trace:
    """Turns that go on from earlier ones, each prompt the whole talk so far: sharing that is known token by token."""
    rng = np.random.default_rng(seed)
    rows, lengths, known = [], [], [()]
    for _ in range(12):
        start = known[rng.integers(len(known))]
        prompt = (*start, *rng.integers(1 << 40, size=rng.integers(1, 90)).tolist())
        stream = (*prompt, *rng.integers(1 << 40, size=rng.integers(1, 60)).tolist())
        known.append(stream)
        rows.append(stream)
        lengths.append((len(prompt), len(stream) - len(prompt)))
    ids = [[hash(row[: end + block]) for end in range(0, len(row), block)] for row in rows]
    inputs, outputs = zip(*lengths, strict=True)
    return Trace.build(
        arrival_s=np.arange(12.0), input_tokens=inputs, output_tokens=outputs, prefixes=ids, prefix_block_tokens=block
    )


def shared(trace: Trace, i: int, j: int) -> int:
    """Tokens in whole blocks that two requests have in common."""
    mine, theirs = (trace.prefix_ids[trace.prefix_offsets[k] : trace.prefix_offsets[k + 1]] for k in (i, j))
    most = min(len(mine), len(theirs))
    differ = np.flatnonzero(mine[:most] != theirs[:most])
    return int(differ[0] if len(differ) else most) * trace.prefix_block_tokens


@given(st.integers(0, 50), st.floats(0.3, 4), st.booleans())
def test_what_was_shared_is_shared_when_all_of_it_is_longer(seed, factor, alike):
    trace = conversations(seed)
    scaled = trace.scaled(input=factor, output=factor if alike else 1.0)
    block = trace.prefix_block_tokens
    whole = trace.input_tokens // block * block
    for i, j in itertools.combinations(range(len(trace)), 2):
        before, after = shared(trace, i, j), shared(scaled, i, j)
        assert after <= before * factor + 1e-6
        kept = before if alike or factor == 1.0 else min(before, whole[i], whole[j])  # of answers, nothing
        assert after > kept * factor - block - 1e-6
    rows = np.split(scaled.prefix_ids, scaled.prefix_offsets[1:-1])
    assert all(len(set(row.tolist())) == len(row) for row in rows)


def test_other_lengths_of_answers_leave_what_prompts_share():
    prompts = [[1, 2], [1, 2, 3, 4], [1, 2, 3, 5]]
    trace = Trace.build(
        arrival_s=[0, 1, 2], input_tokens=[32, 50, 64], output_tokens=[20, 20, 20], prefixes=prompts,
        prefix_block_tokens=16,
    )  # fmt: skip
    longer = trace.scaled(output=2)
    assert [shared(longer, 0, 1), shared(longer, 1, 2)] == [32, 48]
    assert longer.notes == ()
    answered = Trace.build(
        arrival_s=[0, 1], input_tokens=[40, 80], output_tokens=[40, 9], prefixes=[[1, 2, 3, 4], [1, 2, 3, 4, 5]],
        prefix_block_tokens=16,
    )  # fmt: skip
    assert shared(answered, 0, 1) == 64
    assert shared(answered.scaled(output=2), 0, 1) == 32
    assert "share nothing with answers" in answered.scaled(output=2).notes[0]
    assert shared(answered.scaled(input=2, output=2), 0, 1) == 128
    assert shared(answered.scaled(input=0.5), 0, 1) == 16


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_scaling_refuses_factors_that_are_no_positive_number(factor):
    with pytest.raises(UsageError, match="scale rate: must be a number above 0"):
        make().scaled(rate=factor)


def test_fingerprint_knows_content_not_labels():
    trace = make()
    assert make(name="other", notes=["n"]).fingerprint() == trace.fingerprint()
    assert len(trace.fingerprint()) == 64
    changes = [
        {"arrival_s": [0.0, 1.0, 4.5]},
        {"input_tokens": [100, 200, 301]},
        {"output_tokens": [10, 20, 31]},
        {"request_class": ["chat", "coding", "coding"]},
        {"tenant": "x"},
        {"tier": "x"},
        {"priority": 1},
        {"session": 1},
        {"prefixes": [[1, 2], [], [3]]},
        {"prefix_block_tokens": 100},
    ]
    assert len({trace.fingerprint(), *(make(**change).fingerprint() for change in changes)}) == len(changes) + 1


def test_fingerprint_does_not_depend_on_unused_names():
    only_chat = make().select([0, 2])
    assert only_chat.class_names == ("chat", "coding")
    built = make(
        arrival_s=[0, 4], input_tokens=[100, 300], output_tokens=[10, 30], request_class="chat", prefixes=[[1, 2], [1]]
    )
    assert built.fingerprint() == only_chat.fingerprint()
