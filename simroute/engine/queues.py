"""The requests of one engine between two steps: they arrive, get their last token, are aborted. Owns `Queues`.

May import the engine's other parts (not the scheduler, nor what knows the clock); knows nothing of SimPy or wall time.
"""

from __future__ import annotations

from simroute.engine.blocks import KVPool
from simroute.engine.config import EngineConfig
from simroute.engine.decode_group import DecodeGroup
from simroute.engine.request_queue import FCFSQueue, PriorityQueue
from simroute.engine.runs import RunPool
from simroute.engine.sequence import EngineRequest


class Queues:
    """RUNNING, WAITING and the KV cache of one engine.

    `roomy`: every unfinished request could run to its end with the blocks there are, and none has content that another
    may hit. Then no block can be short, nothing can be evicted that matters, and no block is counted.

    `preemptions` counts them over its life.
    """

    def __init__(self, config: EngineConfig, pool: KVPool) -> None:
        self.config = config
        self.pool = pool
        self._counting_pool = pool if isinstance(pool, RunPool) else None
        self.waiting: FCFSQueue | PriorityQueue = FCFSQueue() if config.policy == "fcfs" else PriorityQueue()
        self.running: dict[EngineRequest, None] = {}  # in order of admission
        self.prefilling: list[EngineRequest] = []  # those of RUNNING that have not sampled since admission
        self.group = DecodeGroup(config.block_size)
        self.blocked = False  # the head of WAITING cannot be admitted until a request leaves RUNNING
        self.preemptions = 0
        self._block_size = config.block_size
        self._caching = config.enable_prefix_caching
        self._in_order = config.policy == "fcfs"
        self._threshold = config.long_prefill_token_threshold
        self._reconsiders = not self._in_order or self._threshold > 0  # an arrival: a new head, or smaller first chunks
        self._max_model_len = config.max_model_len
        self._watermark_blocks = int(config.watermark * config.num_gpu_blocks)
        self._lag = 1 if config.async_scheduling else 0  # tokens whose values are not yet known
        self.roomy = self._counting_pool is not None
        self._room_tokens = (pool.usable - self._watermark_blocks) * config.block_size
        self._demand_tokens = 0  # of all unfinished requests, each at its end and with its last block full
        self._content_seen = False

    @property
    def has_requests(self) -> bool:
        """True while any request is unfinished."""
        return bool(self.running or self.waiting)

    def holds(self, request: EngineRequest) -> bool:
        """Whether `request` is here, unfinished."""
        return request in self.running or request in self.waiting

    def sampled_tokens(self, request: EngineRequest) -> int:
        """Tokens of its answer whose steps are scheduled."""
        offset = self.group.members.get(request)
        target_tokens = request.target_tokens if offset is None else self.group.steps + offset + 1
        return target_tokens - request.input_tokens

    @property
    def used_blocks(self) -> int:
        """KV blocks referenced by requests now (cached but unreferenced blocks count as free)."""
        return self.used_blocks_after(0)

    def used_blocks_after(self, steps: int) -> int:
        """KV blocks referenced when the group has taken `steps` more steps."""
        group = self.group
        if not self.roomy:
            used = self.pool.usable - self.pool.free
            return used + group.blocks_for(steps) if steps else used
        used = group.held_blocks(steps)
        if len(self.running) > group.size:
            used += sum(self._blocks_of(request) for request in self.running if request not in group.members)
        return used

    def _blocks_of(self, request: EngineRequest) -> int:
        return -(-request.num_computed_tokens // self._block_size)

    def add(self, request: EngineRequest) -> None:
        """A request arrives: into WAITING."""
        if request.stop_tokens > self._max_model_len:
            request.stop_tokens = self._max_model_len
        self._demand_tokens += request.stop_tokens + self._block_size
        if request.content_blocks:
            self._content_seen = True
        if self.roomy and (self._content_seen or self._demand_tokens > self._room_tokens):
            self._count_blocks()
        if self._reconsiders:
            self.blocked = False
        self.waiting.push(request)

    def update(self, finishing: list[EngineRequest]) -> None:
        """A step's tokens have arrived: the requests that got their last one leave and free their blocks."""
        running = self.running
        for request in finishing:
            self._demand_tokens -= request.stop_tokens + self._block_size
            try:
                del running[request]
            except KeyError:  # preempted while its last token was in flight
                self.waiting.remove(request)
                continue
            if not self.roomy:
                self.pool.register(request, (request.stop_tokens - 1) // self._block_size)
                self.pool.release(request)
        if finishing:
            self.blocked = False
            if not self.roomy and 2 * self._demand_tokens < self._room_tokens:
                self._count_no_blocks()

    def abort(self, request: EngineRequest) -> bool:
        """Its client has gone: the request leaves and frees its blocks; what they cache stays hittable.

        vLLM's `finish_requests` between two calls of `schedule()`. Returns False if the request is not here. Whoever
        holds outputs that have not been processed takes it out of their `finishing`.
        """
        if request in self.running:
            self._leave_running(request)
        elif request in self.waiting:
            self.waiting.remove(request)
            self.pool.release(request)  # it holds nothing, but may have been expected back
        else:
            return False
        self._demand_tokens -= request.stop_tokens + self._block_size
        self.blocked = False
        if not self.roomy and 2 * self._demand_tokens < self._room_tokens:
            self._count_no_blocks()
        return True

    def _leave_running(self, request: EngineRequest) -> None:
        """An aborted request leaves RUNNING, with what it wrote registered as far as it is known."""
        group = self.group
        if request in group.members:
            if group.writers:  # what others wrote before it is older
                group.register_written(self.pool, self._lag)
            group.remove(request)
        elif not request.decoding:
            self.prefilling.remove(request)
        del self.running[request]
        if self.roomy:
            return
        if request.decoding:
            self.pool.register(request, (request.num_computed_tokens - self._lag) // self._block_size)
        self.pool.release(request)

    def _count_blocks(self) -> None:
        """There is no longer room for everybody: count the blocks that are held.

        What is free may or may not cache something: nobody can ask for it, and it all goes before what comes later.
        """
        pool, group = self._counting_pool, self.group
        assert pool is not None
        self.roomy = False
        for request, offset in group.members.items():
            group.settle(request, offset)
        held = 0
        for request in self.running:
            request.num_blocks = blocks = self._blocks_of(request)
            held += blocks
            if self._caching:
                known = request.num_computed_tokens - (self._lag if request.decoding else 0)
                request.num_cached_blocks = known // self._block_size
        pool.restart(held)

    def _count_no_blocks(self) -> None:
        """There is room for everybody again."""
        pool = self._counting_pool
        if pool is None or pool.lists_content or self._content_seen:
            return
        self.roomy = True
        pool.restart(0)
