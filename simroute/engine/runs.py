"""KV-cache blocks counted in runs instead of one by one: the fast form of `engine.blocks.BlockPool`.

No decision of the scheduler depends on a block's id, only on what it caches and on its place in the free list.
A *run* is a stretch of consecutive blocks of one content that share both. The free list is then a count of blocks
that cache nothing (always at the head) followed by runs in order of release, each evicted from its end.
A thousand blocks are allocated, released or hit in a handful of operations.
May import engine.blocks and engine.sequence; knows nothing of SimPy or wall time.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from simroute.engine.blocks import NO_HIT, ContentChange, Hit
from simroute.engine.sequence import EngineRequest

ANONYMOUS = -1 << 62
"""The key of what finished requests leave behind and nobody else has."""


class Run:
    """Blocks `lo`..`hi` of the content `key`: of one id, or (negative key) of one request's own tail.

    `parts` is set when the run had to be divided: those who hold it then hold the parts.
    """

    __slots__ = ("hi", "key", "lo", "next", "parts", "prev", "ref")

    def __init__(self, key: int, lo: int, hi: int, ref: int) -> None:
        self.key = key
        self.lo = lo
        self.hi = hi
        self.ref = ref
        self.parts: tuple[Run, Run] | None = None
        self.prev: Run = self
        self.next: Run = self

    def leaves(self) -> Iterator[Run]:
        """The undivided runs this one stands for, in order of content."""
        if self.parts is None:
            yield self
        else:
            for part in self.parts:
                yield from part.leaves()


class RunPool:
    """The KV cache of one engine; see KVPool for the methods and BlockPool for the behaviour."""

    def __init__(self, num_gpu_blocks: int, enable_prefix_caching: bool) -> None:
        self.usable = num_gpu_blocks - 1
        self.enable_prefix_caching = enable_prefix_caching
        self.free = self.usable
        self._unhashed = self.usable
        self._cached: dict[int, list[Run]] = {}  # oldest first: vLLM hits the oldest of equal blocks
        self._ends = Run(ANONYMOUS, 0, 0, 0)
        self._own: dict[EngineRequest, int] = {}  # the keys of those who come back for what has no id
        self._numbers = count()
        self._on_stored: ContentChange | None = None
        self._on_removed: ContentChange | None = None

    @property
    def lists_content(self) -> bool:
        """Whether anything is cached that a request may still ask for."""
        return bool(self._cached)

    def restart(self, held_blocks: int) -> None:
        """Forget what is cached and count anew, `held_blocks` being held by requests."""
        self.free = self._unhashed = self.usable - held_blocks
        self._cached.clear()
        self._own.clear()
        self._ends.next = self._ends.prev = self._ends

    def find(self, request: EngineRequest, max_blocks: int) -> Hit:
        """See KVPool: walks the request's content ids, then its own tail, until the first gap."""
        if not self.enable_prefix_caching or not self._cached:
            return NO_HIT
        cached, per_id = self._cached, request.blocks_per_id
        shared = min(max_blocks, request.content_blocks)
        pieces: list[tuple[Run, int, int]] = []
        found = 0
        for content in request.prefix_ids:
            wanted = shared - found if shared - found < per_id else per_id
            if not wanted or content not in cached:
                break
            oldest = cached[content][0]
            if not oldest.lo and oldest.hi >= wanted:
                pieces.append((oldest, 0, wanted))
                got = wanted
            else:
                got = self._cover(content, 0, wanted, pieces)
            found += got
            if got < wanted:
                break
        if found == request.content_blocks and max_blocks > found and request in self._own:
            found = self._cover(self._own[request], found, max_blocks, pieces)
        if not found:
            return NO_HIT
        return Hit(found, sum(b - a for run, a, b in pieces if not run.ref), tuple(pieces))

    def attach(self, request: EngineRequest, hit: Hit) -> None:
        """See KVPool."""
        held = request.blocks
        for run, lo, hi in hit.pieces:
            piece = run if lo == run.lo and hi == run.hi and run.parts is None else self._isolate(run, lo, hi)
            if not piece.ref:
                self._unlink(piece)
            piece.ref += 1
            held.append(piece)
        request.num_blocks += hit.blocks
        request.num_cached_blocks = hit.blocks

    def grow(self, request: EngineRequest, blocks: int) -> None:
        """See KVPool."""
        request.num_blocks += blocks
        self.take(blocks)

    def take(self, blocks: int) -> None:
        """Remove `blocks` blocks from the head of the free list for whoever keeps count of them."""
        self.free -= blocks
        if blocks <= self._unhashed:
            self._unhashed -= blocks
            return
        blocks -= self._unhashed
        self._unhashed = 0
        ends, told = self._ends, self._on_removed
        while blocks:
            run = ends.next
            size = run.hi - run.lo
            if size > blocks:
                run.hi -= blocks
                if told is not None:
                    self._tell(told, run.key, run.hi, run.hi + blocks)
                return
            blocks -= size
            run.prev.next, run.next.prev = run.next, run.prev
            self._forget(run)
            if told is not None:
                self._tell(told, run.key, run.lo, run.hi)

    def register(self, request: EngineRequest, full_blocks: int) -> None:
        """See KVPool: content that others may hit becomes runs now, the request's own tail when it is released."""
        if not self.enable_prefix_caching:
            return
        if full_blocks <= request.num_cached_blocks:
            return
        done, end = request.num_cached_blocks, request.content_blocks
        request.num_cached_blocks = full_blocks
        if end > full_blocks:
            end = full_blocks
        per_id, held, told = request.blocks_per_id, request.blocks, self._on_stored
        while done < end:
            k, lo = divmod(done, per_id)
            content = request.prefix_ids[k]
            hi = min(per_id, end - k * per_id)
            runs = self._cached.setdefault(content, [])
            if told is not None:
                self._tell(told, content, lo, hi)
            if lo and held and len(runs) == 1 and runs[0] is held[-1] and runs[0].ref == 1 and runs[0].hi == lo:
                runs[0].hi = hi  # it goes on writing what nobody else holds or has
            else:
                run = Run(content, lo, hi, 1)
                runs.append(run)
                held.append(run)
            done = k * per_id + hi

    def release(self, request: EngineRequest, comes_back: bool = False) -> None:
        """See KVPool."""
        cached, held = request.num_cached_blocks, request.blocks
        unhashed = request.num_blocks - cached
        self._unhashed += unhashed
        self.free += unhashed
        own_lo = request.content_blocks
        if request.preemptions:
            if held and held[-1].key == self._own.get(request):  # it came back to a part of its own tail
                own_lo = held[-1].hi
            if not comes_back:
                self._own.pop(request, None)
        if cached > own_lo:
            if not comes_back:
                self._append_anonymous(cached - own_lo)
            else:
                own = Run(self._own.setdefault(request, -1 - next(self._numbers)), own_lo, cached, 0)
                self._cached.setdefault(own.key, []).append(own)
                self._append(own)
        for run in reversed(held):
            for leaf in (run,) if run.parts is None else reversed(tuple(run.leaves())):
                leaf.ref -= 1
                if not leaf.ref:
                    self._append(leaf)
        if held:
            request.blocks = []
        request.num_blocks = request.num_cached_blocks = 0

    def _cover(self, key: int, start: int, stop: int, pieces: list[tuple[Run, int, int]]) -> int:
        """Add to `pieces` the oldest cached runs covering `start`..`stop` of `key`; return where the cover ends."""
        runs = self._cached.get(key, ())
        at = start
        while at < stop:
            end = stop
            for run in runs:
                if run.lo <= at < run.hi:
                    break
                if at < run.lo:  # an older run begins further on: it is hit from there
                    end = min(end, run.lo)
            else:
                return at
            end = min(end, run.hi)
            pieces.append((run, at, end))
            at = end
        return at

    def _isolate(self, run: Run, lo: int, hi: int) -> Run:
        """The part `lo`..`hi` of a run as a run of its own."""
        while run.parts is not None:  # divided since it was found
            run = run.parts[lo >= run.parts[1].lo]
        if lo > run.lo:
            run = self._divide(run, lo)[1]
        if hi < run.hi:
            run = self._divide(run, hi)[0]
        return run

    def _divide(self, run: Run, at: int) -> tuple[Run, Run]:
        parts = left, right = Run(run.key, run.lo, at, run.ref), Run(run.key, at, run.hi, run.ref)
        runs = self._cached[run.key]
        where = runs.index(run)
        runs[where : where + 1] = parts
        run.parts = parts
        if not run.ref:  # in the free list the end of the content is evicted first
            left.next, right.prev = run.next, run.prev
            left.prev, right.next = right, left
            run.next.prev, run.prev.next = left, right
        return parts

    def _append_anonymous(self, blocks: int) -> None:
        """Free blocks whose content nobody will ask for again: they join such a run at the tail, if there is one."""
        tail = self._ends.prev
        if tail.key == ANONYMOUS and tail is not self._ends:
            tail.hi += blocks
            self.free += blocks
        else:
            self._append(Run(ANONYMOUS, 0, blocks, 0))

    def _append(self, run: Run) -> None:
        tail = self._ends.prev
        run.prev, run.next = tail, self._ends
        tail.next = self._ends.prev = run
        self.free += run.hi - run.lo

    def _unlink(self, run: Run) -> None:
        run.prev.next, run.next.prev = run.next, run.prev
        self.free -= run.hi - run.lo

    def _forget(self, run: Run) -> None:
        runs = self._cached.get(run.key)
        if runs is None:  # anonymous
            return
        runs.remove(run)
        if not runs:
            del self._cached[run.key]

    def listen(self, on_stored: ContentChange, on_removed: ContentChange) -> None:
        """See KVPool. What decoding writes is told when it is registered, see `DecodeGroup.register_written`."""
        self._on_stored, self._on_removed = on_stored, on_removed

    def _tell(self, change: ContentChange, key: int, lo: int, hi: int) -> None:
        """Tell of the blocks `lo`..`hi` of `key`, except those of which there is another copy."""
        if key < 0:  # one request's own
            return
        parts = [(lo, hi)]
        for run in self._cached.get(key, ()):
            parts = [(a, b) for x, y in parts for a, b in ((x, min(y, run.lo)), (max(x, run.hi), y)) if a < b]
        for a, b in parts:
            change(key, a, b)
