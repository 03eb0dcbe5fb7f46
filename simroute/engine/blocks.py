"""KV-cache blocks with their ids, one object a block: the literal form of vLLM's block pool.

Owns `KVPool` (what a scheduler asks of any pool), `ContentChange`, `Hit` and `BlockPool`. May import engine.sequence
only; knows nothing of SimPy or wall time. `engine.runs` holds the same behaviour without ids, for speed.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple, Protocol

from simroute.engine.sequence import EngineRequest

ContentChange = Callable[[int, int, int], None]
"""Told (content, lo, hi): blocks `lo` up to `hi` of a content id, counted within the id, have come or gone."""


class Hit(NamedTuple):
    """The longest run of cached blocks a request can start from; `free` of the `blocks` are unreferenced now."""

    blocks: int
    free: int
    pieces: tuple[Any, ...]


NO_HIT = Hit(0, 0, ())
UNIQUE_STRIDE = 1 << 32


class KVPool(Protocol):
    """The KV cache of one engine. Callers check `free` first, then act: nothing here fails or rolls back."""

    free: int
    usable: int

    def find(self, request: EngineRequest, max_blocks: int) -> Hit:
        """The longest cached prefix of the request, at most `max_blocks` blocks."""

    def attach(self, request: EngineRequest, hit: Hit) -> None:
        """Take a reference to every block of `hit`: the request starts with them."""

    def grow(self, request: EngineRequest, blocks: int) -> None:
        """Give the request `blocks` fresh blocks from the head of the free list, evicting what they cached."""

    def register(self, request: EngineRequest, full_blocks: int) -> None:
        """Make the request's first `full_blocks` blocks hittable."""

    def release(self, request: EngineRequest, comes_back: bool = False) -> None:
        """Drop the request's references; its last blocks are the first to be evicted.

        `comes_back`: it was preempted and may ask for what it computed, whether or not others can.
        """

    def listen(self, on_stored: ContentChange, on_removed: ContentChange) -> None:
        """Tell from now on which blocks of content ids become hittable, and which are no longer.

        A second copy of a block is not told, nor its eviction: there is one as long as there is any.
        """


class Block:
    """One KV block, linked into the free list while nobody references it."""

    __slots__ = ("block_id", "key", "next", "prev", "ref")

    def __init__(self, block_id: int) -> None:
        self.block_id = block_id
        self.ref = 0
        self.key: int | None = None
        self.prev: Block = self
        self.next: Block = self


class BlockPool:
    """vLLM's pool: block 0 is a null block, the free list is doubly linked and evicted from its head."""

    def __init__(self, num_gpu_blocks: int, enable_prefix_caching: bool) -> None:
        self.usable = num_gpu_blocks - 1
        self.enable_prefix_caching = enable_prefix_caching
        self.free = 0
        self._cached: dict[int, dict[int, Block]] = {}
        self._on_stored: ContentChange | None = None
        self._on_removed: ContentChange | None = None
        self._blocks_per_id = 1
        self._own: dict[EngineRequest, int] = {}  # numbers those in the engine that cache what has no id
        self._numbers = count(1)
        self._ends = Block(-1)  # sentinel of the circular free list: next is the head, prev the tail
        for block_id in range(1, num_gpu_blocks):
            self._insert(Block(block_id), self._ends.prev)

    def find(self, request: EngineRequest, max_blocks: int) -> Hit:
        """See KVPool: walks the chain of block keys until the first that is not cached."""
        if not self.enable_prefix_caching:
            return NO_HIT
        found: list[Block] = []
        if request not in self._own:
            max_blocks = min(max_blocks, request.content_blocks)
        for k in range(max_blocks):
            duplicates = self._cached.get(self._key(request, k))
            if duplicates is None:
                break
            found.append(next(iter(duplicates.values())))  # the oldest of equal blocks
        return Hit(len(found), sum(block.ref == 0 for block in found), tuple(found))

    def attach(self, request: EngineRequest, hit: Hit) -> None:
        """See KVPool."""
        for block in hit.pieces:
            if block.ref == 0:
                self._unlink(block)
            block.ref += 1
        request.blocks.extend(hit.pieces)
        request.num_blocks += hit.blocks
        request.num_cached_blocks = hit.blocks

    def grow(self, request: EngineRequest, blocks: int) -> None:
        """See KVPool."""
        for _ in range(blocks):
            block = self._ends.next
            self._unlink(block)
            block.ref = 1
            self._forget(block)
            request.blocks.append(block)
        request.num_blocks += blocks

    def register(self, request: EngineRequest, full_blocks: int) -> None:
        """See KVPool."""
        if not self.enable_prefix_caching:
            return
        if full_blocks > request.content_blocks and request not in self._own:
            self._own[request] = next(self._numbers)
        for k in range(request.num_cached_blocks, full_blocks):
            block = request.blocks[k]
            block.key = self._key(request, k)
            duplicates = self._cached.setdefault(block.key, {})
            duplicates[block.block_id] = block
            if self._on_stored is not None and block.key >= 0 and len(duplicates) == 1:
                self._blocks_per_id = request.blocks_per_id  # (the same for all requests of an engine)
                self._tell(self._on_stored, block.key)
        request.num_cached_blocks = max(request.num_cached_blocks, full_blocks)

    def release(self, request: EngineRequest, comes_back: bool = False) -> None:
        """See KVPool: from the last block on, blocks without a key to the head, the others to the tail."""
        unhashed: list[Block] = []
        for block in reversed(request.blocks):
            block.ref -= 1
            if block.ref:
                continue
            if block.key is None:
                unhashed.append(block)
            else:
                self._insert(block, self._ends.prev)
        for block in reversed(unhashed):
            self._insert(block, self._ends)
        if not comes_back:
            self._own.pop(request, None)
        request.blocks = []
        request.num_blocks = request.num_cached_blocks = 0

    def _key(self, request: EngineRequest, k: int) -> int:
        """What the request's k-th block goes by: equal keys mean equal tokens from the start up to the block's end.

        Content with an id has a key that is not negative. The rest is the request's own: another attempt of it, with
        the same index, does not find it.
        """
        if k < request.content_blocks:
            per_id = request.blocks_per_id
            return request.prefix_ids[k // per_id] * per_id + k % per_id
        return -1 - (self._own[request] * UNIQUE_STRIDE + k)

    def _insert(self, block: Block, after: Block) -> None:
        block.prev, block.next = after, after.next
        after.next.prev = block
        after.next = block
        self.free += 1

    def _unlink(self, block: Block) -> None:
        block.prev.next, block.next.prev = block.next, block.prev
        self.free -= 1

    def _forget(self, block: Block) -> None:
        if block.key is None:
            return
        duplicates = self._cached[block.key]
        del duplicates[block.block_id]
        if not duplicates:
            del self._cached[block.key]
            if self._on_removed is not None and block.key >= 0:
                self._tell(self._on_removed, block.key)
        block.key = None

    def listen(self, on_stored: ContentChange, on_removed: ContentChange) -> None:
        """See KVPool."""
        self._on_stored, self._on_removed = on_stored, on_removed

    def _tell(self, change: ContentChange, key: int) -> None:
        content, k = divmod(key, self._blocks_per_id)
        change(content, k, k + 1)
