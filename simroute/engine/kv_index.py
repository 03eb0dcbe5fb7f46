"""What a router believes one replica caches, by the replica's KV events. Owns `KvIndex`; may import workload only.

The router of precise prefix routing: vLLM publishes which blocks it stores and evicts, and an index beside the router
takes the events in, some time later. Knows nothing of SimPy or wall time: the time comes with each call.
"""

from __future__ import annotations

from collections import deque

from simroute.workload.request import Request


class KvIndex:
    """Content ids with the blocks of each that are cached, as of `delay_s` ago.

    `block_size` is the replica's, in tokens; `id_tokens` are those of one content id (`Trace.prefix_block_tokens`). One
    must be a multiple of the other; where several ids make a block, the last of them stands for it.
    Times must not decrease from call to call.
    """

    __slots__ = ("_blocks_per_id", "_cached", "_delay_s", "_ids_per_block", "_on_their_way", "block_size")

    def __init__(self, block_size: int, id_tokens: int, delay_s: float = 0.0) -> None:
        self.block_size = block_size
        self._ids_per_block = max(block_size // max(id_tokens, 1), 1)
        self._blocks_per_id = max(id_tokens // block_size, 1)
        self._delay_s = delay_s
        self._cached: dict[int, int] = {}  # content id -> one bit for each of its blocks
        self._on_their_way: deque[tuple[float, int, int, bool]] = deque()  # when known, content, bits, stored

    def stored(self, content: int, lo: int, hi: int, now_s: float) -> None:
        """Blocks `lo` up to `hi` of `content` have become hittable."""
        self._take_in(content, lo, hi, True, now_s)

    def removed(self, content: int, lo: int, hi: int, now_s: float) -> None:
        """Blocks `lo` up to `hi` of `content` have been evicted."""
        self._take_in(content, lo, hi, False, now_s)

    def clear(self) -> None:
        """The replica has died, with all it cached: forget that, and the events that are on their way."""
        self._cached.clear()
        self._on_their_way.clear()

    def hit_tokens(self, request: Request, now_s: float) -> int:
        """Leading prompt tokens of `request` that the replica has cached, by the events that have come in by `now_s`.

        `request` has its ids as in the trace. As in the engine the hit is whole blocks and leaves a token to compute.
        """
        if self._on_their_way:
            self._catch_up(now_s)
        contents = request.prefix_ids
        if self._ids_per_block > 1:
            contents = contents[self._ids_per_block - 1 :: self._ids_per_block]
        cached, per_id = self._cached, self._blocks_per_id
        whole = (1 << per_id) - 1
        blocks = 0
        for content in contents:
            bits = cached.get(content, 0)
            if bits != whole:
                blocks += (~bits & (bits + 1)).bit_length() - 1  # as far as its first block that is missing
                break
            blocks += per_id
        return min(blocks, (request.input_tokens - 1) // self.block_size) * self.block_size

    def _take_in(self, content: int, lo: int, hi: int, stored: bool, now_s: float) -> None:
        bits = (1 << hi) - (1 << lo)
        if self._delay_s > 0:
            self._catch_up(now_s)
            self._on_their_way.append((now_s + self._delay_s, content, bits, stored))
        else:
            self._apply(content, bits, stored)

    def _catch_up(self, now_s: float) -> None:
        on_their_way = self._on_their_way
        while on_their_way and on_their_way[0][0] <= now_s:
            _, content, bits, stored = on_their_way.popleft()
            self._apply(content, bits, stored)

    def _apply(self, content: int, bits: int, stored: bool) -> None:
        before = self._cached.get(content, 0)
        after = before | bits if stored else before & ~bits
        if after:
            self._cached[content] = after
        elif before:
            del self._cached[content]
