"""The index by hand, and against a model that keeps plain lists and looks at everything."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simroute.policy.context import Membership
from simroute.policy.routing.prefix_index import ASSUMED_KV_TOKENS, PrefixIndex, whole_blocks
from simroute.workload.request import Request

BLOCK = 10


def built(fleet, replicas=3, ttl_s=100.0, capacity_tokens=1000, members=None, kv_tokens=0):
    context = replace(fleet(bf16=(replicas, 1.0, {})).context(), prefix_block_tokens=BLOCK)
    context = replace(context, variants=[replace(context.variants[0], kv_tokens=kv_tokens)])
    if members is not None:
        context = replace(context, members=members)
    return PrefixIndex(context, ttl_s, capacity_tokens)


def prompt(ids, at_s=0.0, blocks=None, index=0):
    """A prompt of whole blocks; those beyond `ids` have no id."""
    return Request(index, at_s, BLOCK * (len(ids) if blocks is None else blocks), 5, prefix_ids=ids)


def found(index, ids, at_s=0.0):
    return list(index.matches(prompt(ids, at_s)))


def test_whole_blocks_of_the_prompt_count_and_no_more():
    request = Request(0, 0.0, 39, 100, prefix_ids=[1, 2, 3, 4, 5])
    assert whole_blocks(request, 10) == ([1, 2, 3], 3)
    assert whole_blocks(request, 0) == ((), 0)
    assert whole_blocks(Request(0, 0.0, 39, 100, prefix_ids=[1]), 10) == ([1], 3)


def test_matches_are_grouped_by_how_far_they_go_the_longest_first(fleet):
    index = built(fleet)
    index.record(prompt([1, 2, 3, 4]), 0)
    index.record(prompt([1, 2, 5]), 1)
    index.record(prompt([1]), 2)
    assert found(index, [1, 2, 3, 9]) == [(3, 0b001), (2, 0b010), (1, 0b100)]
    assert found(index, [1, 2]) == [(2, 0b011), (1, 0b100)]
    assert found(index, [7, 8]) == []
    assert found(index, []) == []


def test_a_block_expires_ttl_s_after_its_last_use(fleet):
    index = built(fleet, ttl_s=10.0)
    index.record(prompt([1, 2, 3], at_s=0.0), 0)
    index.record(prompt([1, 2], at_s=6.0), 0)
    assert found(index, [1, 2, 3], at_s=9.9) == [(3, 0b1)]
    assert found(index, [1, 2, 3], at_s=10.0) == [(2, 0b1)]
    assert found(index, [1, 2, 3], at_s=15.9) == [(2, 0b1)]
    assert found(index, [1, 2, 3], at_s=16.0) == []


def test_without_a_ttl_nothing_expires(fleet):
    index = built(fleet, ttl_s=None)
    index.record(prompt([1, 2]), 0)
    assert found(index, [1, 2], at_s=1e12) == [(2, 0b1)]


def test_the_least_recently_used_blocks_make_room_the_last_of_a_prompt_first(fleet):
    index = built(fleet, capacity_tokens=5 * BLOCK)
    index.record(prompt([1, 2, 3]), 0)
    index.record(prompt([7, 8, 9]), 0)
    assert found(index, [1, 2, 3]) == [(2, 0b1)]
    assert found(index, [7, 8, 9]) == [(3, 0b1)]
    index.record(prompt([1]), 0)
    index.record(prompt([5]), 0)
    assert found(index, [1, 2, 3]) == [(1, 0b1)]
    assert found(index, [7, 8, 9]) == [(3, 0b1)]


def test_a_prompt_longer_than_a_replicas_room_leaves_its_beginning(fleet):
    index = built(fleet, capacity_tokens=2 * BLOCK)
    index.record(prompt([1, 2, 3, 4]), 0)
    assert found(index, [1, 2, 3, 4]) == [(2, 0b1)]


def test_blocks_without_an_id_take_room_too(fleet):
    """Room for five: three with an id and two without; two more push out those two, then one with an id."""
    index = built(fleet, capacity_tokens=5 * BLOCK)
    index.record(prompt([1, 2, 3], blocks=5, index=0), 0)
    index.record(prompt([7], index=1), 0)
    assert found(index, [1, 2, 3]) == [(3, 0b1)]
    index.record(prompt([8, 9], index=2), 0)
    assert found(index, [1, 2, 3]) == [(2, 0b1)]


def test_a_request_sent_again_takes_its_room_once(fleet):
    index = built(fleet, capacity_tokens=6 * BLOCK)
    for at_s in (0.0, 1.0, 2.0):
        index.record(prompt([1, 2], at_s=at_s, blocks=4, index=5), 0)
    index.record(prompt([7, 8], at_s=3.0, index=6), 0)
    assert found(index, [1, 2], at_s=3.0) == [(2, 0b1)]


def test_a_replica_that_goes_down_is_forgotten_and_the_others_not(fleet):
    members = Membership([True] * 3)
    index = built(fleet, members=members)
    for replica in range(3):
        index.record(prompt([1, 2], blocks=3, index=replica), replica)
    members.set(1, ready=False)
    assert found(index, [1, 2]) == [(2, 0b101)]
    members.set(1, ready=True)
    assert found(index, [1, 2]) == [(2, 0b101)]
    index.record(prompt([1]), 1)
    assert found(index, [1, 2]) == [(2, 0b101), (1, 0b010)]


@pytest.mark.parametrize(
    ("capacity_tokens", "kv_tokens", "tokens"), [(None, 0, ASSUMED_KV_TOKENS), (None, 70, 70), (30, 70, 30), (3, 0, 10)]
)
def test_room_is_what_was_given_else_the_kv_cache_else_assumed(fleet, capacity_tokens, kv_tokens, tokens):
    index = built(fleet, capacity_tokens=capacity_tokens, kv_tokens=kv_tokens)
    assert [shelf.capacity for shelf in index._shelves] == [tokens // BLOCK] * 3


def test_without_prefixes_in_the_trace_nothing_is_kept(fleet):
    index = PrefixIndex(fleet(bf16=(2, 1.0, {})).context(), 10.0, None)
    index.record(prompt([1, 2]), 0)
    assert found(index, [1, 2]) == []
    assert index._shelves[0].blocks == 0


class Plain:
    """The same index, slowly: for each replica a list of (block, last use), the least recently used first."""

    def __init__(self, replicas, ttl_s, capacity):
        self.ttl_s, self.capacity = ttl_s, capacity
        self.held = [[] for _ in range(replicas)]

    def record(self, blocks, at_s, replica):
        self.expire(at_s)
        held = [entry for entry in self.held[replica] if entry[0] not in blocks]
        held += [(block, at_s) for block in reversed(blocks)]
        self.held[replica] = held[max(len(held) - self.capacity, 0) :]

    def expire(self, at_s):
        self.held = [[entry for entry in held if entry[1] + self.ttl_s > at_s] for held in self.held]

    def matches(self, ids, at_s):
        self.expire(at_s)
        groups = {}
        for replica, held in enumerate(self.held):
            known = {block for block, _ in held}
            depth = next((k for k, block in enumerate(ids) if block not in known), len(ids))
            groups[depth] = groups.get(depth, 0) | 1 << replica
        return sorted(((depth, mask) for depth, mask in groups.items() if depth), reverse=True)


def chain(turns):
    """Ids of a path in a tree: equal ids mean equal paths from the root."""
    ids = [1]
    for turn in turns:
        ids.append(ids[-1] * 2 + turn)
    return ids


asked = st.tuples(
    st.sampled_from(["send", "send", "send", "look", "down"]),
    st.lists(st.integers(0, 1), max_size=5).map(chain),
    st.integers(0, 3),
    st.sampled_from([0.0, 0.5, 3.0]),
    st.integers(0, 2),
)


@given(st.lists(asked, max_size=40), st.sampled_from([1, 4, 9, 50]), st.sampled_from([2.0, 5.0, 1e9]))
def test_it_is_the_same_as_plain_lists(fleet, script, capacity, ttl_s):
    members = Membership([True] * 3)
    index = built(fleet, ttl_s=ttl_s, capacity_tokens=capacity * BLOCK, members=members)
    plain = Plain(3, ttl_s, capacity)
    now_s = 0.0
    for number, (what, ids, tail, wait_s, replica) in enumerate(script):
        now_s += wait_s
        if what == "look":
            assert found(index, ids, now_s) == plain.matches(ids, now_s)
        elif what == "send":
            index.record(prompt(ids, now_s, len(ids) + tail, number), replica)
            plain.record([*ids, *((number, k) for k in range(tail))], now_s, replica)
        else:
            members.set(replica, ready=False)
            members.set(replica, ready=True)
            plain.held[replica] = []
    for shelf, held in zip(index._shelves, plain.held, strict=True):
        assert shelf.blocks <= capacity
        assert len(index._checks) <= 3
        assert {b for b in shelf.used_s if b not in shelf.tails} >= {b for b, _ in held if isinstance(b, int)}
