"""The engine core: a scheduler's steps on SimPy's clock. Owns `EngineCore` and the seam `Observer`.

May import the engine's other parts (not the replica) and hardware.steptime.

Time runs from one *schedule point* to the next. Without async scheduling step i is scheduled when the output of step
i-1 has been processed; with it, when the output of step i-2 has (step i-1 is executing meanwhile). Arrivals join at
the next schedule point.

In exact mode every schedule point is an event. In fast mode a stretch of steps that only decode is one `Stretch` with
a closed form, ended by the first request that stops or the last free KV block, or cut at the step boundary after an
arrival. Both modes ask the same scheduler and give the same times.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from math import inf, nextafter
from typing import Protocol

from simroute.engine.blocks import BlockPool
from simroute.engine.clock import AFTER_ARRIVALS, Clock, StandingEvent
from simroute.engine.config import EngineConfig
from simroute.engine.runs import RunPool
from simroute.engine.scheduler import Scheduler
from simroute.engine.sequence import EngineRequest
from simroute.engine.stretch import Stretch
from simroute.errors import SimulationError
from simroute.hardware.steptime import StepTimeModel

NEVER = -1.0


class Observer(Protocol):
    """Told what clients of the replica see."""

    def first_token(self, index: int, at_s: float) -> None:
        """The first token of request number `index` arrives at `at_s` (now or later).

        It does not if the request is aborted, or the engine dies, before `at_s`: whoever recorded it must strike it
        out then (see `Replica.abort`).
        """

    def finished(self, request: EngineRequest, at_s: float) -> None:
        """The last token of `request` arrives now, at `at_s`."""

    def gaps(self, row: tuple[float, float, int, int]) -> None:
        """(first_s, last_s, steps, seqs): each of `seqs` requests sees `steps` gaps between tokens, in even
        progression from `first_s` to `last_s`.
        """


class EngineCore:
    """An engine's loop: process outputs that are due, schedule, set the next schedule point.

    Sums over its life: `idle_s` in which no step was executing, `steps`, `prefill_tokens`, `output_tokens`.
    """

    def __init__(
        self,
        env: Clock,
        config: EngineConfig,
        step_time: StepTimeModel,
        observer: Observer,
        *,
        exact: bool = False,
    ) -> None:
        self.env = env
        self.scheduler = Scheduler(
            config, (BlockPool if exact else RunPool)(config.num_gpu_blocks, config.enable_prefix_caching)
        )
        self.idle_s = 0.0
        self.steps = 0
        self.prefill_tokens = 0
        self.output_tokens = 0
        self._schedule_at = env.schedule_at
        self._first_token = observer.first_token
        self._finished = observer.finished
        self._gaps = observer.gaps
        self._async = config.async_scheduling
        self._lag = 1 if config.async_scheduling else 0
        self._end_s = 0.0  # when the last scheduled step ends
        self._completions: deque[tuple[float, list[EngineRequest]]] = deque()  # last tokens in flight
        self._resumed: dict[EngineRequest, tuple[float, float]] = {}  # of late: when that step ends, the token before
        self._stretch: Stretch | None = None
        self._points = 0  # schedule points until the stretch ends
        self._planned_s = NEVER  # when a stretch was last planned that begins at once
        self._wake = StandingEvent(env, self._on_wake)
        self._wake_s = NEVER
        self._passed_s = NEVER  # the last schedule point, where tokens came last (within a stretch: once it is settled)
        self._idle = True
        self._take_step_time(step_time)

    def _take_step_time(self, step_time: StepTimeModel) -> None:
        self._duration = step_time.duration_s
        self._decode_line = step_time.decode_line

    def submit(self, request: EngineRequest) -> None:
        """A request arrives now."""
        scheduler = self.scheduler
        scheduler.add(request)
        stretch = self._stretch
        if stretch is not None:
            if not scheduler.blocked:  # the stretch ends at the next schedule point
                now = self.env.now
                point, at_s = stretch.next_point(now)
                if at_s == now == self._planned_s:
                    point, at_s = stretch.next_point(nextafter(now, inf))
                if point < self._points:
                    self._points = point
                    self._wake_at(at_s)
        elif self._idle:
            self._idle = False
            self._wake_at(self.env.now)

    def settle(self) -> None:
        """Carry out what has been scheduled by now; what is left of a stretch is planned anew at its next point."""
        stretch = self._stretch
        if stretch is not None:
            point, at_s = self._next_point(stretch)
            if point:
                self._passed_s = stretch.point_s(point - 1)
            if point < self._points:
                self._points = point
                self._wake_at(at_s)
            self._take_stretch(stretch)
            if self._points > stretch.steps and self.scheduler.group.size:
                self._drain()

    def _next_point(self, stretch: Stretch) -> tuple[int, float]:
        """The stretch's next schedule point: the first at or after now, unless that of this very instant has been."""
        now = self.env.now
        point, at_s = stretch.next_point(now)
        if at_s == now == self._planned_s:
            return stretch.next_point(nextafter(now, inf))
        return point, at_s

    # -- the clock ----------------------------------------------------------------------------------------------------

    def _wake_at(self, at_s: float) -> None:
        """The next schedule point is at `at_s`; what was queued before is superseded."""
        self._wake_s = at_s
        self._schedule_at(self._wake, AFTER_ARRIVALS, at_s)

    def _on_wake(self, now: float) -> None:
        """Carry out what was planned, process outputs that are due, schedule, and set the next schedule point."""
        if now != self._wake_s:
            return
        self._passed_s = now
        scheduler, stretch = self.scheduler, self._stretch
        if stretch is not None:
            self._take_stretch(stretch)
            if self._points > stretch.steps and scheduler.group.size:
                if scheduler.roomy and not scheduler.waiting:  # nothing keeps that step out of the next stretch
                    self._complete(now)
                    if self._begin_stretch(stretch.start_s):
                        self._planned_s = now
                        return
                self._drain()
        if self._completions:
            self._complete(now)
        while scheduler.running or scheduler.waiting:
            if (not scheduler.waiting or scheduler.blocked) and self._begin_stretch(now):
                self._planned_s = now
                return
            next_s = self._step(now)
            if next_s > now:
                if not self._begin_stretch(next_s):
                    self._wake_at(next_s)
                return
        self._idle = True
        self._wake_s = NEVER

    def _complete(self, now: float) -> None:
        """Process the outputs with last tokens that have arrived by now (there are some on their way)."""
        completions = self._completions
        while completions:
            end_s, finishing = completions[0]
            if end_s > now:
                return
            completions.popleft()
            self.scheduler.update(finishing)
            for request in finishing:
                self._finished(request, end_s)

    def _step(self, now: float) -> float:
        """Schedule one step now, which starts when the step before it ends.

        Returns the next schedule point: now, if under async scheduling the next step can be queued at once.
        """
        out = self.scheduler.schedule()
        before_s = start_s = self._end_s
        if out.preempted or out.paused:
            for request in (*out.preempted, *out.paused):
                if request.sampled and request.last_token_s < 0:
                    request.last_token_s = before_s
        batch = out.batch
        prefill_tokens = batch.prefill_tokens
        if not prefill_tokens and not batch.decode_seqs:
            if before_s <= now and not out.preempted:
                raise SimulationError(self._stuck())
            return max(now, before_s)
        if before_s < now:
            self.idle_s += now - before_s
            start_s = now
        self._end_s = end_s = start_s + self._duration(batch)
        self.steps += 1
        self.prefill_tokens += prefill_tokens
        self.output_tokens += batch.sampled_seqs
        if out.decoding:
            gap_s = end_s - before_s
            self._gaps((gap_s, gap_s, 1, out.decoding))
        for request in out.first:
            self._first_token(request.index, end_s)
        if out.resumed:
            self._resume(out.resumed, now)
        if out.finishing:
            self._completions.append((end_s, out.finishing))
        return start_s if self._async else end_s

    def _resume(self, requests: Iterable[EngineRequest], now: float) -> None:
        """In the step that was just scheduled `requests` sample again, who had been preempted or paused."""
        end_s = self._end_s
        self._resumed = {request: times for request, times in self._resumed.items() if times[0] >= now}
        for request in requests:
            before_s = request.last_token_s
            self._gaps((end_s - before_s, end_s - before_s, 1, 1))
            self._resumed[request] = end_s, before_s
            request.last_token_s = -1.0

    def _stuck(self) -> str:
        scheduler = self.scheduler
        request = next(iter(scheduler.waiting or scheduler.running))
        return (
            f"request {request.index} ({request.input_tokens} prompt tokens) can never be admitted: "
            f"{scheduler.pool.free} KV blocks of {scheduler.config.block_size} tokens are free and nothing is running; "
            "give the cache more blocks, lower max_model_len or lower the watermark"
        )

    # -- stretches ----------------------------------------------------------------------------------------------------

    def _begin_stretch(self, start_s: float) -> bool:
        """Look ahead from the schedule point `start_s`: if the steps from there only decode, plan them as one."""
        scheduler = self.scheduler
        steps, points = scheduler.decode_run()
        if not steps:
            return False
        group = scheduler.group
        size = group.size
        decode_line, schedule_at = self._decode_line, self._schedule_at  # (a call of an attribute is slower than both)
        intercept_s, slope_s = decode_line(size)
        base_s = self._end_s
        if base_s < start_s:
            self.idle_s += start_s - base_s
            base_s = start_s
        half_s = slope_s * size * 0.5
        linear_s = intercept_s + slope_s * (group.offsets + size * (group.steps + 1)) - half_s
        self._stretch = Stretch(start_s, base_s, steps, linear_s, half_s, self._lag)
        self._points = points
        points -= self._lag
        self._wake_s = at_s = base_s + points * (linear_s + half_s * points)
        schedule_at(self._wake, AFTER_ARRIVALS, at_s)
        return True

    def _take_stretch(self, stretch: Stretch) -> None:
        """Carry out the stretch up to where it was cut.

        One schedule point more than it has steps: under async scheduling the next step of the others is scheduled
        before the last tokens of those who stop have arrived. That step is the first of the next stretch.
        """
        self._stretch = None
        steps = self._points
        if steps > stretch.steps:
            steps = stretch.steps
        elif not steps:
            return
        linear_s, half_s = stretch.linear_s, stretch.half_s
        scheduler = self.scheduler
        group = scheduler.group
        size = group.size
        self._end_s = end_s = stretch.base_s + steps * (linear_s + half_s * steps)
        self.steps += steps
        self.output_tokens += steps * size
        gaps = self._gaps
        gaps((linear_s + half_s, linear_s + half_s * (2 * steps - 1), steps, size))
        if not scheduler.roomy:
            scheduler.take_blocks(steps)
        group.steps = reached = group.steps + steps
        if reached == group.next_stop:
            self._completions.append((end_s, scheduler.leave()))

    def _drain(self) -> None:
        """One step of those who go on, scheduled while the last tokens of others are in flight."""
        scheduler = self.scheduler
        group = scheduler.group
        size = group.size
        if not size:  # the engine was halted a moment ago
            return
        intercept_s, slope_s = self._decode_line(size)
        duration_s = intercept_s + slope_s * (group.offsets + size * (group.steps + 1))
        self._end_s += duration_s
        self.steps += 1
        self.output_tokens += size
        self._gaps((duration_s, duration_s, 1, size))
        if not scheduler.roomy:
            scheduler.take_blocks(1)
        group.steps += 1
        if group.steps == group.next_stop:
            self._completions.append((self._end_s, scheduler.leave()))
