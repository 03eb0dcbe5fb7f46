"""One vLLM replica: the engine core and what the fleet sees of it and does to it. Owns `Replica`.

May import the engine's other parts and hardware.steptime. Clients leave, the engine slows down, it dies: the hot path
in `core.py` knows nothing of that. What is done to a running engine waits for its next schedule point, where another
callback rings in place of the usual one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import isfinite

from simroute.engine.clock import AFTER_SCHEDULES, Clock, StandingEvent
from simroute.engine.config import EngineConfig
from simroute.engine.core import NEVER, EngineCore, Observer
from simroute.engine.kv_index import KvIndex
from simroute.engine.sequence import EngineRequest
from simroute.errors import SimulationError
from simroute.hardware.steptime import ScaledStepTime, StepTimeModel


class Replica(EngineCore):
    """An engine in a fleet. `submit`, `settle` and the sums over its life are those of `EngineCore`."""

    def __init__(
        self,
        env: Clock,
        config: EngineConfig,
        step_time: StepTimeModel,
        observer: Observer,
        *,
        exact: bool = False,
    ) -> None:
        super().__init__(env, config, step_time, observer, exact=exact)
        self._step_time = step_time
        self._changes: list[Callable[[], object]] = []  # to be made at the next schedule point

    # -- what the fleet sees ------------------------------------------------------------------------------------------

    @property
    def num_requests_running(self) -> int:
        """Requests in RUNNING now."""
        return len(self.scheduler.running)

    @property
    def num_requests_waiting(self) -> int:
        """Requests in WAITING now."""
        return len(self.scheduler.waiting)

    @property
    def kv_cache_usage(self) -> float:
        """Share of usable KV blocks that requests hold now, 0..1."""
        scheduler, stretch = self.scheduler, self._stretch
        steps = beyond = 0
        if stretch is not None:
            steps = min(self._next_point(stretch)[0], self._points)
            if steps > stretch.steps:
                beyond = scheduler.group.blocks_beyond_stop()
        return (scheduler.used_blocks_after(steps) - beyond) / scheduler.pool.usable

    @property
    def busy_s(self) -> float:
        """Seconds in which a step was executing, up to now; in a stretch there always is one."""
        now = self.env.now
        return (now if self._stretch is not None else min(self._end_s, now)) - self.idle_s

    def generated_tokens(self, request: EngineRequest) -> int:
        """Tokens of the answer to `request` that have arrived: those of steps that ended before now.

        To be asked of requests that are in the engine. It ends a stretch, so it is not for every day.
        """
        self.settle()
        return self.scheduler.sampled_tokens(request) - self._tokens_in_flight(request)

    def _tokens_in_flight(self, request: EngineRequest) -> int:
        """Of the steps that are scheduled and have not ended, in how many `request` samples a token.

        These are the last one or, under async scheduling, the last two: then the next schedule point is where the one
        before the last ends.
        """
        now, end_s = self.env.now, self._end_s
        if request not in self.scheduler.running or not request.decoding or request.paused:
            return int(request.last_token_s >= now)  # it was in no step since
        if end_s < now:
            return 0
        if any(due_s < end_s and request in finishing for due_s, finishing in self._completions):
            return 1  # its last token comes before the last step
        resumed_s, _ = self._resumed.get(request, (NEVER, NEVER))
        two_steps = self._async and self._wake_s < end_s and resumed_s != end_s
        return min(2 if two_steps else 1, self.scheduler.sampled_tokens(request))

    def publish_kv_events(self, index: KvIndex) -> None:
        """Tell `index` from now on which content becomes hittable here and which is evicted.

        To be called before the first request. Prompts are told when they are scheduled. What decoding does, evictions
        among it, is told step by step in exact mode; in fast mode when a stretch ends, or later where it matters to
        nobody in this engine.
        """
        env = self.env
        self.scheduler.pool.listen(
            lambda content, lo, hi: index.stored(content, lo, hi, env.now),
            lambda content, lo, hi: index.removed(content, lo, hi, env.now),
        )

    # -- what happens to it -------------------------------------------------------------------------------------------

    def abort(self, request: EngineRequest) -> bool:
        """The client of `request` has gone. Returns False, and does nothing, if the request is not in the engine.

        As in vLLM it leaves at the next schedule point, before outputs that arrive there are processed: its blocks are
        freed, and no part of it is reported any more, not even a last token that is in flight. Steps already scheduled
        are carried out with it. `request.generated_tokens` says what the client got; if it got nothing, a first token
        that was announced to the observer never arrives.
        """
        if not self.scheduler.holds(request):
            return False
        request.generated_tokens = self.generated_tokens(request)
        self._at_next_point(partial(self._take_out, request))
        return True

    def slow_down(self, factor: float) -> None:
        """Steps scheduled from the next schedule point on take `factor` times as long as usual (1.0: as usual)."""
        if not (isfinite(factor) and factor > 0):
            raise SimulationError(f"slow_down: the factor must be a positive number, got {factor}")
        step_time = self._step_time if factor == 1.0 else ScaledStepTime(self._step_time, factor)
        self._at_next_point(partial(self._take_step_time, step_time))

    def halt(self) -> list[EngineRequest]:
        """The engine dies now, for good. Returns the unfinished requests, RUNNING before WAITING, each in its order.

        Each has its `generated_tokens` and, where there are any, in `last_token_s` when the last of them came (from
        within an observer: now); requests whose clients have gone are not among them. Steps that were scheduled
        stay counted with their tokens, the seconds they were not carried out do not (from within an observer, a step
        that is on its way may not be counted either). Nothing may be submitted any more.
        """
        now = self.env.now
        self.settle()
        self._make_changes()
        scheduler = self.scheduler
        unfinished = [*scheduler.running, *scheduler.waiting]
        for request in unfinished:
            request.generated_tokens = self.generated_tokens(request)
            resumed_s, before_s = self._resumed.get(request, (NEVER, NEVER))
            if resumed_s >= now:  # the step in which it resumes has not ended
                request.last_token_s = before_s
            elif not 0 <= request.last_token_s < now:  # it was in the last step that has ended
                request.last_token_s = self._passed_s
        for request in unfinished:
            scheduler.abort(request)
        self._completions.clear()
        self._end_s = min(self._end_s, now)
        self._idle = True
        self._wake_s = NEVER
        self._wake.ring = self._stay_dead
        return unfinished

    def _stay_dead(self, now: float) -> None:
        if self.scheduler.has_requests:
            raise SimulationError(f"a request reached an engine that was halted, at {now} s: submit it elsewhere")

    def _at_next_point(self, change: Callable[[], object]) -> None:
        """Make `change` at the next schedule point, or now if the engine is idle."""
        if self._idle:
            change()
            return
        self.settle()
        self._changes.append(change)
        self._wake.ring = self._on_wake_to_change
        if self._wake_s == self.env.now:  # an observer may be asking from within this schedule point
            self._schedule_at(StandingEvent(self.env, self._settle_for_change), AFTER_SCHEDULES, self.env.now)

    def _settle_for_change(self, now: float) -> None:
        """The schedule point of this instant has been: a change that came too late for it is for the next."""
        if self._idle:
            self._make_changes()
        elif self._changes:
            self.settle()

    def _on_wake_to_change(self, now: float) -> None:
        """A schedule point at which something changes first."""
        if now != self._wake_s:
            return
        self._make_changes()
        self._on_wake(now)
        if self._idle and self._end_s > now:  # nobody is left, but a step of those who have gone is still executing
            self._idle = False
            self._wake_at(self._end_s)

    def _make_changes(self) -> None:
        self._wake.ring = self._on_wake
        changes, self._changes = self._changes, []
        for change in changes:
            change()

    def _take_out(self, request: EngineRequest) -> None:
        """An aborted request leaves."""
        self.scheduler.abort(request)
        for _, finishing in self._completions:
            if request in finishing:
                finishing.remove(request)
