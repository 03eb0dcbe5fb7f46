"""The requests of one engine that decode, advanced together. Owns `DecodeGroup`; may import engine.sequence and
the seam `KVPool`.

While nothing else happens, each step gives every member one token and, every block_size steps, one KV block. Counted
from a common step counter, a member's context is `steps + offset`, its last step is fixed when it joins, and the
steps at which it needs a block are those of its phase: so any number of steps is one addition.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush
from operator import mul

from simroute.engine.blocks import KVPool
from simroute.engine.sequence import EngineRequest

NEVER = 1 << 62


class DecodeGroup:
    """Members with their summed context, phases of block growth and a heap of last steps.

    `size` counts the members. Adding to `steps` gives each of them as many tokens; it must not pass the next stop.
    `writers` write content that others may hit, each with its ids; `writing` counts the writers of an id.
    `next_stop` is the value of `steps` at which the first member has computed all it needs. `context_tokens` is the
    summed number of computed tokens now.
    """

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self.steps = 0
        self.size = 0
        self.next_stop = NEVER
        self.members: dict[EngineRequest, int] = {}  # request -> num_computed_tokens - steps, constant
        self.offsets = 0
        self.phases = [0] * block_size
        self._room = [-filled % block_size for filled in range(2 * block_size)]  # left in a last block
        self._leaving: list[tuple[int, int, EngineRequest]] = []
        self.writers: dict[EngineRequest, Sequence[int]] = {}
        self.writing: dict[int, int] = {}

    @property
    def context_tokens(self) -> int:
        """Computed tokens summed over the members."""
        return self.offsets + self.size * self.steps

    def join(self, request: EngineRequest) -> None:
        """Add a request that owes one token a step until its stop."""
        offset = request.num_computed_tokens - self.steps
        self.members[request] = offset
        self.size += 1
        self.offsets += offset
        self.phases[offset % self.block_size] += 1
        last_step = request.stop_tokens - 1 - offset
        heappush(self._leaving, (last_step, request.admission, request))
        if last_step < self.next_stop:
            self.next_stop = last_step
        if request.content_blocks > request.num_cached_blocks:
            self.writers[request] = contents = request.prefix_ids[request.num_cached_blocks // request.blocks_per_id :]
            for content in contents:
                self.writing[content] = self.writing.get(content, 0) + 1

    def writes_for(self, request: EngineRequest) -> bool:
        """Whether members write content that `request` may hit."""
        return bool(self.writing) and not self.writing.keys().isdisjoint(request.prefix_ids)

    def register_written(self, pool: KVPool, lag: int, before_admission: int | None = None) -> None:
        """Register what members have written of content that others may hit, in the order written.

        A token counts as written `lag` steps after its own. That order tells which of two equal blocks is the older;
        where no two are equal it does not matter. With `before_admission`, what this step writes counts only for
        members admitted earlier: they precede that request in RUNNING.
        """
        size = self.block_size
        written: list[tuple[EngineRequest, int, int]] = []  # with its number of full blocks, and offset
        contents: list[int] = []
        for request in self.writers:
            offset = self.members[request]
            full = min((self.steps + offset - lag) // size, request.content_blocks)
            if full > request.num_cached_blocks:
                written.append((request, full, offset))
                per_id = request.blocks_per_id
                contents += request.prefix_ids[request.num_cached_blocks // per_id : (full - 1) // per_id + 1]
        if before_admission is None and len(set(contents)) == len(contents):
            for request, full, _ in written:
                pool.register(request, full)
            return
        filled = [
            ((k + 1) * size - offset + lag, request.admission, k, request)
            for request, full, offset in written
            for k in range(request.num_cached_blocks, full)
        ]
        for step, admission, k, request in sorted(filled, key=lambda item: item[:3]):
            if before_admission is None or step < self.steps or admission < before_admission:
                pool.register(request, k + 1)

    def blocks_for(self, steps: int) -> int:
        """KV blocks that the next `steps` steps take, all members together.

        A member takes a block at each step that finds its context a multiple of block_size.
        """
        size, phases = self.block_size, self.phases
        last = -self.steps % size
        if steps == 1:
            return phases[last]
        blocks = 0
        if steps >= size:
            cycles, steps = divmod(steps, size)
            blocks = cycles * self.size
        first = last - steps + 1
        if first >= 0:
            return blocks + sum(phases[first : last + 1])
        return blocks + sum(phases[first:]) + sum(phases[: last + 1])

    def held_blocks(self, steps: int) -> int:
        """KV blocks that the members hold after `steps` more steps: the sum of ceil(context / block_size)."""
        size, now = self.block_size, self.steps + steps
        start = now % size
        unfilled: int = sum(map(mul, self.phases, self._room[start : start + size]))
        return (self.offsets + self.size * now + unfilled) // size

    def blocks_beyond_stop(self) -> int:
        """Of `blocks_for` a step more than there are before the next stop: blocks for those who do not take it."""
        last, size = self.next_stop, self.block_size
        return sum(1 for stop, _, request in self._leaving if stop == last and not (request.stop_tokens - 1) % size)

    def steps_within(self, free_blocks: int, limit: int) -> int:
        """The most steps, at most `limit`, that `free_blocks` blocks allow."""
        if self.blocks_for(limit) <= free_blocks:
            return limit
        steps = min(limit, free_blocks // self.size * self.block_size)
        blocks = self.blocks_for(steps)
        while steps < limit:
            blocks += self.phases[-(self.steps + steps) % self.block_size]
            if blocks > free_blocks:
                break
            steps += 1
        return steps

    def steps_before_content(self, lag: int) -> int:
        """Steps before the one in which a writer's next block of content is full, and known (`lag` steps later)."""
        full = min(
            (
                (request.num_cached_blocks + 1) * self.block_size - self.members[request] + lag
                for request in self.writers
                if request.num_cached_blocks < request.content_blocks
            ),
            default=NEVER,
        )
        return max(full - 1 - self.steps, 0)

    def pop_leaving(self) -> list[EngineRequest]:
        """At a stop: remove and return the members whose last step was this one, in order of admission.

        How many blocks each holds is left to whoever counts them.
        """
        left: list[EngineRequest] = []
        heap, steps, size = self._leaving, self.steps, self.block_size
        while True:
            request = heappop(heap)[2]
            offset = self.members.pop(request)
            self.size -= 1
            self.offsets -= offset
            self.phases[offset % size] -= 1
            request.target_tokens = tokens = request.stop_tokens
            request.num_computed_tokens = tokens - 1
            left.append(request)
            if self.writers:
                self._write_no_more(request)
            self.next_stop = stop = heap[0][0] if heap else NEVER
            if stop != steps:
                return left

    def remove(self, request: EngineRequest) -> None:
        """A member leaves before its stop, with its progress."""
        offset = self.members.pop(request)
        self.size -= 1
        self.offsets -= offset
        self.phases[offset % self.block_size] -= 1
        self.settle(request, offset)
        self._leaving = [entry for entry in self._leaving if entry[2] is not request]
        heapify(self._leaving)
        self.next_stop = self._leaving[0][0] if self._leaving else NEVER
        self._write_no_more(request)

    def _write_no_more(self, request: EngineRequest) -> None:
        for content in self.writers.pop(request, ()):
            self.writing[content] -= 1
            if not self.writing[content]:
                del self.writing[content]

    def settle(self, request: EngineRequest, offset: int) -> None:
        """Write a member's progress into the request itself."""
        computed = request.num_computed_tokens = self.steps + offset
        request.target_tokens = computed + 1
        request.num_blocks = -(-computed // self.block_size)

    def dissolve(self) -> Iterable[EngineRequest]:
        """Empty the group; the former members carry their own progress again."""
        members = self.members
        for request, offset in members.items():
            self.settle(request, offset)
        self.members = {}
        self.size = 0
        self.offsets = 0
        self.phases = [0] * self.block_size
        self._leaving = []
        self.next_stop = NEVER
        self.writers = {}
        self.writing = {}
        return members
