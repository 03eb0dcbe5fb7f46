"""vLLM's V1 scheduler for one engine (full attention, no speculative decoding, LoRA or connectors).

Owns `Scheduler`. May import the engine's other parts (not those that know the clock) and hardware.steptime's `Batch`;
knows nothing of SimPy or wall time. Who is there between two steps, and how they come and go, is in `queues.py`.

`schedule()` decides one step exactly as vLLM does. Over a `RunPool`, which counts blocks, the requests that merely
decode are kept in a `DecodeGroup`: a step in which all of them can advance costs no loop over them; one in which KV
blocks or budget run short dissolves the group and takes the literal path. The decisions are the same, step by step.
"""

from __future__ import annotations

from itertools import count
from operator import attrgetter

from simroute.engine.blocks import NO_HIT, Hit, KVPool
from simroute.engine.config import EngineConfig
from simroute.engine.output import SchedulerOutput
from simroute.engine.queues import Queues
from simroute.engine.sequence import EngineRequest
from simroute.hardware.steptime import Batch

Counts = tuple[int, int, int, int, int, int]
"""The fields of a Batch while it is being put together."""
_by_admission = attrgetter("admission")


class Scheduler(Queues):
    """One step's decisions over the requests of `Queues`."""

    def __init__(self, config: EngineConfig, pool: KVPool) -> None:
        super().__init__(config, pool)
        self._max_tokens = config.max_num_batched_tokens
        self._chunked = config.enable_chunked_prefill
        self._reserve_all = config.scheduler_reserve_full_isl
        self._max_running = config.max_num_active_seqs or config.max_num_seqs
        self._admissions = count(1)
        self._pauses = False  # somebody missed the last step

    # -- one step -------------------------------------------------------------------------------------------------

    def schedule(self) -> SchedulerOutput:
        """Decide one step: advance RUNNING, then admit from WAITING."""
        out = SchedulerOutput()
        group = self.group
        threshold = self._prefill_threshold() if self._threshold else 0
        self.blocked = False
        size = group.size
        budget = self._max_tokens - size
        together = self.roomy and budget >= 0 and not self.prefilling and not self._pauses
        if together:
            group.steps += 1
        else:
            budget = self._advance_group(out, threshold) if size and not self._pauses else -1
            together = budget >= 0
            if not together:
                self._dissolve_group()
                budget = self._advance_literally(out, threshold)
                self._note_pauses(out)
        out.decoding = size = group.size
        counts = (0, 0, 0, size, group.offsets + size * group.steps, size)
        if out.scheduled:
            counts = self._carry_out(out, counts)
        if self.waiting and budget > 0 and not out.preempted:
            counts = self._admit(out, counts, threshold, budget)
        out.batch = Batch(*counts)
        if size and group.steps == group.next_stop:
            out.finishing = [*self.leave(), *out.finishing]
            out.finishing.sort(key=_by_admission)
        if not together and self._counting_pool is not None:
            self._form_group()
        return out

    def _prefill_threshold(self) -> int:
        """The most tokens a request may prefill in this step while others queue (0: no limit)."""
        threshold = self._threshold
        eligible = len(self.running) + len(self.waiting)
        if eligible <= 1:
            return 0
        if self.config.long_prefill_token_threshold_adaptive:
            return max(threshold, self.config.max_num_batched_tokens // eligible)
        return threshold

    def _wanted_tokens(self, request: EngineRequest, threshold: int, budget: int) -> int:
        """Tokens a running request gets, given the budget left."""
        wanted = request.target_tokens - request.num_computed_tokens
        if 0 < threshold < wanted:
            wanted = threshold
        return min(wanted, budget, self._max_model_len - request.num_computed_tokens - 1)

    def _growth(self, request: EngineRequest, tokens: int) -> int:
        slots = min(request.num_computed_tokens + tokens, self._max_model_len)
        return max(-(-slots // self._block_size) - request.num_blocks, 0)

    def _known_tokens(self, request: EngineRequest) -> int:
        """Tokens whose values the scheduler has seen: under async scheduling not the one still in flight."""
        return request.target_tokens - (self._lag if request.decoding else 0)

    def _grant(self, out: SchedulerOutput, request: EngineRequest, tokens: int) -> None:
        """Allocate for `tokens` more tokens of a running request (the blocks are known to be free)."""
        if not out.scheduled:
            out.scheduled = {}
        out.scheduled[request] = tokens
        if self.roomy:
            return
        self.pool.grow(request, self._growth(request, tokens))
        computed = request.num_computed_tokens + tokens
        self.pool.register(request, min(computed, self._known_tokens(request)) // self._block_size)

    def _advance_literally(self, out: SchedulerOutput, threshold: int) -> int:
        """Go through RUNNING in order, preempting where blocks run out. Returns the budget left."""
        budget = self._max_tokens
        preempted: list[EngineRequest] = []
        running = self.running
        for request in list(running):
            if budget <= 0:
                break
            if request not in running or request.drained:
                continue
            tokens = self._wanted_tokens(request, threshold, budget)
            if tokens <= 0:
                continue
            while not self.roomy and request in running and self._growth(request, tokens) > self.pool.free:
                victim = self._victim()
                budget += out.scheduled.pop(victim, 0)
                self._preempt(victim)
                preempted.append(victim)
            if request not in running:
                out.preempted_itself = True
                break
            self._grant(out, request, tokens)
            budget -= tokens
        if preempted:
            out.preempted = preempted
        return budget

    def _note_pauses(self, out: SchedulerOutput) -> None:
        """The next step is literal too if anybody missed this one: it counts as resumed there."""
        self._pauses = False
        if len(out.scheduled) == len(self.running):
            return
        out.paused = [r for r in self.running if r.decoding and r not in out.scheduled and not r.drained]
        for request in out.paused:
            request.paused = self._pauses = True

    def _victim(self) -> EngineRequest:
        if not self._in_order:
            return max(self.running, key=lambda request: (request.priority, request.arrival_s))
        return next(reversed(self.running))

    def _preempt(self, request: EngineRequest) -> None:
        del self.running[request]
        self.pool.release(request, comes_back=not request.drained)
        request.num_computed_tokens = 0
        request.paused = False
        request.preemptions += 1
        self.preemptions += 1
        if request.decoding:
            request.decoding = False
        else:
            self.prefilling.remove(request)
        self.waiting.push_back(request)

    def _admit(self, out: SchedulerOutput, counts: Counts, threshold: int, budget: int) -> Counts:
        """Take from the head of WAITING while it fits; the first that does not fit blocks the rest.

        There is a head and a budget. Returns the batch's counts with what was admitted.
        """
        waiting, running, roomy = self.waiting, self.running, self.roomy
        seqs, prefill_tokens, pairs, decode_seqs, context, sampled = counts
        start = 0
        while True:
            if len(running) >= self._max_running:
                self.blocked = True
                break
            request = waiting.head
            target = tokens = request.target_tokens
            hit = NO_HIT
            if not roomy and self._caching:
                if self.group.writes_for(request):
                    self.group.register_written(self.pool, self._lag)
                hit = self.pool.find(request, (target - 1) // self._block_size)
                tokens -= hit.blocks * self._block_size
            if threshold and threshold < tokens:
                tokens = threshold
            if tokens > budget:
                if not self._chunked:
                    break
                tokens = budget
            if not roomy:
                if not self._fits(target, hit, tokens):
                    self.blocked = True
                    break
                start = self._allocate(request, hit, tokens)
            waiting.pop_head()
            budget -= tokens
            seqs += 1
            prefill_tokens += tokens
            pairs += tokens * start + tokens * (tokens + 1) // 2
            running[request] = None
            out.admitted[request] = tokens
            request.admission = next(self._admissions)
            request.num_computed_tokens = computed = start + tokens
            if computed < target:
                self.prefilling.append(request)
            else:
                sampled += 1
                self._sample(out, request, computed)
            if not waiting or budget <= 0:
                break
        return seqs, prefill_tokens, pairs, decode_seqs, context, sampled

    def _fits(self, target: int, hit: Hit, tokens: int) -> bool:
        """Whether there are blocks to admit a request of `target` tokens with these hit blocks and `tokens` more."""
        size = self._block_size
        slots = target if self._reserve_all else hit.blocks * size + tokens
        needed = -(-slots // size) - hit.blocks + hit.free  # hit blocks that are free now must be taken
        return needed + (self._watermark_blocks if self.running else 0) <= self.pool.free

    def _allocate(self, request: EngineRequest, hit: Hit, tokens: int) -> int:
        """Give a request its hit blocks, and blocks for `tokens` tokens of prefill. Returns the tokens hit."""
        pool, size = self.pool, self._block_size
        if hit.blocks:
            pool.attach(request, hit)
            if not request.preemptions:
                request.cached_tokens = hit.blocks * size
        computed = hit.blocks * size + tokens
        pool.grow(request, -(-computed // size) - hit.blocks)
        pool.register(request, computed // size)
        return hit.blocks * size

    # -- the group of decoding requests -----------------------------------------------------------------------------

    def decode_run(self) -> tuple[int, int]:
        """How many further steps only decode, with nobody admitted, finished or preempted before the last of them.

        (0, 0) when the next step must be decided by `schedule()`: among others while a last token is still in flight.
        The second number is how many steps are certain to be scheduled: under async scheduling one more, if those
        steps end in somebody's last and there is room for one more step of the others while that last token is in
        flight (its request holds its seat and blocks, so WAITING stays blocked).
        """
        group, waiting = self.group, self.waiting
        size = group.size
        if size != len(self.running) or not size or (waiting and not self.blocked) or size > self._max_tokens:
            return 0, 0
        limit = group.next_stop - group.steps
        if self.roomy:
            return limit, limit + self._lag
        to_stop = limit
        hits_to_come = bool(waiting) and self.group.writes_for(waiting.head)
        if hits_to_come:  # look at the head again when there is more that it can hit
            limit = min(limit, group.steps_before_content(self._lag))
        steps = group.steps_within(self.pool.free, limit + 1)
        if steps <= limit:
            return steps, steps
        return limit, limit + (self._lag if limit == to_stop and not hits_to_come else 0)

    def take_blocks(self, steps: int) -> None:
        """The blocks that so many steps of the group take, bounded by `decode_run`."""
        assert self._counting_pool is not None
        self._counting_pool.take(self.group.blocks_for(steps))

    def leave(self) -> list[EngineRequest]:
        """Members whose last token is scheduled leave the group, with what they wrote registered."""
        group = self.group
        if self.roomy:
            return group.pop_leaving()
        if len(group.writing) < sum(group.writing.values()):  # some write the same: who was first decides
            self.group.register_written(self.pool, self._lag)
        left = group.pop_leaving()
        for request in left:
            request.num_blocks = self._blocks_of(request)
            self.pool.register(request, (request.num_computed_tokens - self._lag) // self._block_size)
        return left

    def _advance_group(self, out: SchedulerOutput, threshold: int) -> int:
        """One step of the group and of the prefills. Returns the budget left, or -1 (and does nothing) when the
        literal path might do otherwise: when blocks run short, or budget where the order of RUNNING decides.

        Without a threshold the order does not matter: an unfinished prefill has used up the budget of its step, so
        that nobody was admitted after it. It stands last, and the members are served first.
        """
        group = self.group
        budget = self._max_tokens - group.size
        blocks = group_blocks = 0 if self.roomy else group.blocks_for(1)
        chunks: list[tuple[EngineRequest, int]] = []
        for request in self.prefilling:  # (seldom any)
            tokens = self._wanted_tokens(request, threshold, max(budget, 0))
            if threshold and tokens < self._wanted_tokens(request, threshold, budget + 1):
                return -1
            if tokens > 0:
                chunks.append((request, tokens))
                budget -= tokens
                blocks += self._growth(request, tokens)
        if budget < 0:
            return -1
        if blocks > self.pool.free and not self.roomy:
            alone = group.size == len(self.running) and self._in_order
            if not alone or group.writers:
                return -1
            self._preempt_the_last(out, blocks)
        elif group_blocks and self._counting_pool is not None:
            self._counting_pool.take(group_blocks)
        group.steps += 1
        for request, tokens in chunks:
            if self.group.writes_for(request):
                group.register_written(self.pool, self._lag, request.admission)
            self._grant(out, request, tokens)
        return budget

    def _preempt_the_last(self, out: SchedulerOutput, blocks: int) -> None:
        """Members that need a block take one, `blocks` in all, in order; whoever finds none preempts the last.

        The last of RUNNING has not had its turn then, or is the one that finds none.
        """
        pool, group = self._counting_pool, self.group
        assert pool is not None
        while blocks > pool.free:
            blocks -= pool.free
            pool.take(pool.free)
            victim = next(reversed(self.running))
            group.remove(victim)
            if not victim.num_computed_tokens % self._block_size:  # it would have taken one itself
                blocks -= 1
                out.preempted_itself = not blocks
            pool.register(victim, (victim.num_computed_tokens - self._lag) // self._block_size)
            self._preempt(victim)
            out.preempted = [*out.preempted, victim]
        pool.take(blocks)

    def _dissolve_group(self) -> None:
        self.group.register_written(self.pool, self._lag)
        lag = self._lag
        for request in self.group.dissolve():
            if not self.roomy:
                self.pool.register(request, (request.num_computed_tokens - lag) // self._block_size)

    def _carry_out(self, out: SchedulerOutput, counts: Counts) -> Counts:
        """Advance what was scheduled of RUNNING. Returns the batch's counts with that."""
        prefill_seqs, prefill_tokens, pairs, decode_seqs, context, sampled = counts
        for request, tokens in out.scheduled.items():
            start = request.num_computed_tokens
            request.num_computed_tokens = computed = start + tokens
            if tokens == 1 and start >= request.input_tokens:
                decode_seqs += 1
                context += computed
            else:
                prefill_seqs += 1
                prefill_tokens += tokens
                pairs += tokens * start + tokens * (tokens + 1) // 2
            if computed >= request.target_tokens:
                sampled += 1
                if not request.decoding:
                    self.prefilling.remove(request)
                self._sample(out, request, computed)
        return prefill_seqs, prefill_tokens, pairs, decode_seqs, context, sampled

    def _sample(self, out: SchedulerOutput, request: EngineRequest, computed: int) -> None:
        """A request samples a token: its first, its first for a while, or one more."""
        request.target_tokens = computed + 1
        if not request.decoding:
            request.decoding = True
            if computed > request.input_tokens:
                out.resumed = [*out.resumed, request]
            else:
                out.first.append(request)
        elif request.paused:
            request.paused = False
            out.resumed = [*out.resumed, request]
        else:
            out.decoding += 1
        if computed >= request.stop_tokens - 1:
            out.finishing = [*out.finishing, request]
        elif self._counting_pool is not None:
            self.group.join(request)

    def _form_group(self) -> None:
        """After a literal step: those who did not join when they sampled, do."""
        group = self.group
        if self._pauses or group.size + len(self.prefilling) == len(self.running):
            return
        for request in self.running:
            if request.decoding and not request.drained and request not in group.members:
                group.join(request)
