"""Which replica has probably cached which prefix, by what the router sent where. Owns `PrefixIndex`, `whole_blocks`.

May import policy.routing.candidates and policy.context, and workload.request.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush

from simroute.policy.context import PolicyContext
from simroute.policy.routing.candidates import when_down
from simroute.workload.request import Request

ASSUMED_KV_TOKENS = 500_000
"""Capacity of a replica's KV cache where the context knows none: llm-d's 31,250 blocks of 16 tokens."""


def whole_blocks(request: Request, block_tokens: int) -> tuple[Sequence[int], int]:
    """The ids of the prompt's whole blocks, and how many whole blocks the prompt has (with an id or without).

    Ids may go on into the answer, which a router cannot know. No blocks where `block_tokens` is 0.
    """
    if not block_tokens:
        return (), 0
    blocks = request.input_tokens // block_tokens
    ids = request.prefix_ids
    return (ids if len(ids) <= blocks else ids[:blocks]), blocks


class _Shelf:
    """What one replica is thought to hold, the least recently used first.

    `used_s` maps a block's id, or the key of a request's tail, to when it was last used. A tail is the whole blocks
    of a prompt that have no id: nobody can hit them, but they take room. `tails` maps its key to its blocks; keys end
    in .5, so that they equal no id. `checked` says that a check for expired blocks is due.
    """

    __slots__ = ("blocks", "capacity", "checked", "tails", "used_s")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.checked = False
        self.clear()

    def clear(self) -> None:
        """Hold nothing."""
        self.used_s: OrderedDict[float, float] = OrderedDict()
        self.tails: dict[float, int] = {}
        self.blocks = 0


class PrefixIndex:
    """Blocks of prompts by replica, each until it is `ttl_s` old (None: for ever) or the replica's room is used up.

    `capacity_tokens` is what a replica is thought to hold (None: the KV cache of its variant). A prompt's last blocks
    go first, and are never younger than those before them. So a replica that holds a block holds all before it, and
    the holders of a block are among the holders of the block before.
    Looking up costs one step an id plus one for each group of replicas that match equally far.
    """

    def __init__(self, context: PolicyContext, ttl_s: float | None, capacity_tokens: int | None) -> None:
        self._block_tokens = context.prefix_block_tokens
        self._ttl_s = float("inf") if ttl_s is None else ttl_s
        self._shelves = []
        for pool in context.pool_of_replica:
            tokens = capacity_tokens or context.variants[pool].kv_tokens or ASSUMED_KV_TOKENS
            self._shelves.append(_Shelf(max(tokens // max(self._block_tokens, 1), 1)))
        self._holders: dict[float, int] = {}
        """The replicas that hold a block, as bits."""
        self._checks: list[tuple[float, int]] = []
        """When which replica's least recently used block may expire: at most one check a replica."""
        when_down(context, self.forget)

    def known(self, request: Request) -> tuple[Sequence[int], int]:
        """As `whole_blocks`, with the block size of the context."""
        return whole_blocks(request, self._block_tokens)

    def matches(self, request: Request) -> Iterator[tuple[int, int]]:
        """(leading blocks, the replicas that hold just those as bits), the longest match first.

        A replica that holds none of the prompt is in no group. Blocks that are too old at `request.arrival_s` count
        no longer.
        """
        self._expire(request.arrival_s)
        ids, _ = self.known(request)
        holders = self._holders
        held, beyond = 0, len(ids)  # bisected: blocks before `held` are held by somebody, from `beyond` on by nobody
        while held < beyond:
            middle = (held + beyond) // 2
            if ids[middle] in holders:
                held = middle + 1
            else:
                beyond = middle
        found = 0
        for blocks in range(held, 0, -1):
            mask = holders.get(ids[blocks - 1], 0)
            if mask != found:
                fresh = mask & ~found
                if fresh:
                    yield blocks, fresh
                    found |= fresh

    def record(self, request: Request, replica: int) -> None:
        """`request` goes to `replica`: its prompt will be cached there."""
        ids, blocks = self.known(request)
        if not blocks:
            return
        now_s = request.arrival_s
        self._expire(now_s)
        shelf = self._shelves[replica]
        if not shelf.checked:
            shelf.checked = True
            heappush(self._checks, (now_s + self._ttl_s, replica))
        if blocks > len(ids):
            self._shelve_tail(shelf, request.index + 0.5, blocks - len(ids), now_s)
        used_s, holders, bit = shelf.used_s, self._holders, 1 << replica
        for block in reversed(ids):
            if block in used_s:
                used_s.move_to_end(block)
            else:
                holders[block] = holders.get(block, 0) | bit
                shelf.blocks += 1
            used_s[block] = now_s
        self._shrink(shelf, bit)

    def forget(self, replica: int) -> None:
        """`replica` holds nothing any more."""
        shelf = self._shelves[replica]
        for block in shelf.used_s:
            if block not in shelf.tails:
                self._release(block, 1 << replica)
        shelf.clear()

    def _shelve_tail(self, shelf: _Shelf, tail: float, blocks: int, now_s: float) -> None:
        shelf.blocks += blocks - shelf.tails.get(tail, 0)
        shelf.tails[tail] = blocks
        shelf.used_s[tail] = now_s
        shelf.used_s.move_to_end(tail)

    def _shrink(self, shelf: _Shelf, bit: int) -> None:
        """Drop the least recently used blocks until the rest fits; of a tail only as many as need to go."""
        while shelf.blocks > shelf.capacity:
            excess = shelf.blocks - shelf.capacity
            oldest = next(iter(shelf.used_s))
            if shelf.tails.get(oldest, 0) > excess:
                shelf.tails[oldest] -= excess
                shelf.blocks -= excess
            else:
                self._drop_oldest(shelf, bit)

    def _expire(self, now_s: float) -> None:
        """Drop every block whose time is over, looking only at replicas whose check is due."""
        checks = self._checks
        while checks and checks[0][0] <= now_s:
            _, replica = heappop(checks)
            shelf = self._shelves[replica]
            shelf.checked = False
            while shelf.used_s:
                expiry_s = next(iter(shelf.used_s.values())) + self._ttl_s
                if expiry_s > now_s:
                    shelf.checked = True
                    heappush(checks, (expiry_s, replica))
                    break
                self._drop_oldest(shelf, 1 << replica)

    def _drop_oldest(self, shelf: _Shelf, bit: int) -> None:
        block, _ = shelf.used_s.popitem(last=False)
        tail = shelf.tails.pop(block, 0)
        if tail:
            shelf.blocks -= tail
        else:
            shelf.blocks -= 1
            self._release(block, bit)

    def _release(self, block: float, bit: int) -> None:
        rest = self._holders[block] & ~bit
        if rest:
            self._holders[block] = rest
        else:
            del self._holders[block]
