"""One vLLM replica on SimPy's clock. Owns `Replica`, the seam `Observer` and `StandingEvent`.

May import the engine's other parts, hardware.steptime and simpy.

Time runs from one *schedule point* to the next. Without async scheduling step i is scheduled when the output of step
i-1 has been processed; with it, when the output of step i-2 has (step i-1 is executing meanwhile). Arrivals join at
the next schedule point.

In exact mode every schedule point is an event. In fast mode a stretch of steps that only decode is one `Stretch` with
a closed form, ended by the first request that stops or the last free KV block, or cut at the step boundary after an
arrival. Both modes ask the same scheduler and give the same times.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

import simpy
from simpy.events import EventPriority

from simroute.engine.blocks import BlockPool
from simroute.engine.config import EngineConfig
from simroute.engine.runs import RunPool
from simroute.engine.scheduler import Scheduler
from simroute.engine.sequence import EngineRequest
from simroute.engine.stretch import Stretch
from simroute.errors import SimulationError
from simroute.hardware.steptime import StepTimeModel

AFTER_ARRIVALS = EventPriority(2)
"""SimPy priority of schedule points: whatever else happens at the same instant happens before them."""


class Observer(Protocol):
    """Told what clients of the replica see."""

    def first_token(self, request: EngineRequest, at_s: float) -> None:
        """The first token of `request` arrives at `at_s` (now or later)."""

    def finished(self, request: EngineRequest, at_s: float) -> None:
        """The last token of `request` arrives now, at `at_s`."""

    def gaps(self, row: tuple[float, float, int, int]) -> None:
        """(first_s, last_s, steps, seqs): each of `seqs` requests sees `steps` gaps between tokens, in even
        progression from `first_s` to `last_s`.
        """


class StandingEvent(simpy.Event):
    """One event that comes up again and again: queued anew for each time, so that a schedule point allocates nothing.

    SimPy takes the callbacks away from an event that it has processed; whoever is called puts them back.
    """

    def __init__(self, env: simpy.Environment, callback: Callable[[simpy.Event], None]) -> None:
        self.env = env
        self._ok = True
        self._value = None
        self.standing = self.callbacks = [callback]


class Replica:
    """An engine with its clock.

    Sums over its life: `busy_s` in which a step was executing, `steps`, `prefill_tokens`, `output_tokens`.
    """

    def __init__(
        self,
        env: simpy.Environment,
        config: EngineConfig,
        step_time: StepTimeModel,
        observer: Observer,
        *,
        exact: bool = False,
    ) -> None:
        self.env = env
        self.exact = exact
        self.scheduler = Scheduler(
            config, (BlockPool if exact else RunPool)(config.num_gpu_blocks, config.enable_prefix_caching)
        )
        self.busy_s = 0.0
        self.steps = 0
        self.prefill_tokens = 0
        self.output_tokens = 0
        self._duration = step_time.duration_s
        self._decode_line = step_time.decode_line
        self._first_token = observer.first_token
        self._finished = observer.finished
        self._gaps = observer.gaps
        self._async = config.async_scheduling
        self._lag = 1 if config.async_scheduling else 0
        self._end_s = 0.0  # when the last scheduled step ends
        self._completions: deque[tuple[float, list[EngineRequest]]] = deque()  # last tokens in flight
        self._stretch: Stretch | None = None
        self._stretch_steps = 0
        self._wake = StandingEvent(env, self._on_wake)
        self._wake_s = self._wake_now = 0.0
        self._idle = True

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
        """Share of usable KV blocks that requests hold now, 0..1. (A stretch that is over is carried out first.)"""
        scheduler, stretch, steps = self.scheduler, self._stretch, 0
        if stretch is not None:
            steps = min(stretch.next_point(self.env.now), self._stretch_steps)
            if steps > stretch.steps:
                self._take_stretch()
                steps = 0
        return scheduler.used_blocks_after(steps) / scheduler.pool.usable

    def submit(self, request: EngineRequest) -> None:
        """A request arrives now."""
        scheduler = self.scheduler
        scheduler.add(request)
        stretch = self._stretch
        if stretch is not None:
            if not scheduler.blocked:  # the stretch ends at the next schedule point
                now = self.env.now
                point = stretch.next_point(now)
                if point < self._stretch_steps:
                    self._stretch_steps = point
                    self._wake_at(stretch.point_s(point), now)
        elif self._idle:
            self._idle = False
            now = self.env.now
            self._wake_at(now, now)

    def settle(self) -> None:
        """The run ends now: carry out what has been scheduled, and count as busy only the time that has passed."""
        now, stretch = self.env.now, self._stretch
        if stretch is not None:
            self._stretch_steps = min(stretch.next_point(now), self._stretch_steps)
            self._take_stretch()
        if self._end_s > now:
            self.busy_s -= self._end_s - now
            self._end_s = now

    # -- the clock ----------------------------------------------------------------------------------------------------

    def _wake_at(self, at_s: float, now: float) -> None:
        """The next schedule point is at `at_s`; what was queued before is superseded."""
        delay_s = at_s - now if at_s > now else 0.0
        self._wake_s = at_s
        self._wake_now = now + delay_s  # what SimPy's clock will show, rounding included
        self.env.schedule(self._wake, AFTER_ARRIVALS, delay_s)

    def _on_wake(self, _: simpy.Event) -> None:
        wake = self._wake
        wake.callbacks = wake.standing
        now = self.env.now
        if now != self._wake_now or self._idle:
            return
        if self._stretch is not None:
            self._take_stretch()
        self._turn(self._wake_s, now)

    def _turn(self, at_s: float, now: float) -> None:
        """Process outputs that are due, schedule, and set the next schedule point.

        `at_s` is the schedule point as reckoned here, `now` as SimPy's clock shows it (they differ by rounding).
        """
        scheduler = self.scheduler
        if self._completions and self._completions[0][0] <= at_s:
            self._complete(at_s)
        while scheduler.running or scheduler.waiting:
            if (scheduler.blocked or not scheduler.waiting) and self._begin_stretch(at_s, now):
                return
            next_s = self._step(at_s)
            if next_s > at_s:
                if not self._begin_stretch(next_s, now):
                    self._wake_at(next_s, now)
                return
        self._idle = True

    def _complete(self, now: float) -> None:
        completions = self._completions
        while completions and completions[0][0] <= now:
            end_s, finishing = completions.popleft()
            self.scheduler.update(finishing)
            for request in finishing:
                self._finished(request, end_s)

    def _step(self, now: float) -> float:
        """Schedule one step now, which starts when the step before it ends.

        Returns the next schedule point: now, if under async scheduling the next step can be queued at once.
        """
        out = self.scheduler.schedule()
        before_s, batch = self._end_s, out.batch
        for request in (*out.preempted, *out.paused) if out.preempted or out.paused else ():
            if request.sampled and request.last_token_s < 0:
                request.last_token_s = before_s
        if not out.total_tokens:
            if before_s <= now and not out.preempted:
                raise SimulationError(self._stuck())
            return max(now, before_s)
        duration_s = self._duration(batch)
        self._end_s = end_s = (before_s if before_s > now else now) + duration_s
        self.busy_s += duration_s
        self.steps += 1
        self.prefill_tokens += batch.prefill_tokens
        self.output_tokens += batch.sampled_seqs
        if out.decoding:
            self._gaps((end_s - before_s, end_s - before_s, 1, out.decoding))
        for request in out.first:
            self._first_token(request, end_s)
        for request in out.resumed:
            gap_s = end_s - request.last_token_s
            self._gaps((gap_s, gap_s, 1, 1))
            request.last_token_s = -1.0
        if out.finishing:
            self._completions.append((end_s, out.finishing))
        if not self._async:
            return end_s
        return before_s if before_s > now else now

    def _stuck(self) -> str:
        scheduler = self.scheduler
        request = next(iter(scheduler.waiting or scheduler.running))
        return (
            f"request {request.index} ({request.input_tokens} prompt tokens) can never be admitted: "
            f"{scheduler.pool.free} KV blocks of {scheduler.config.block_size} tokens are free and nothing is running; "
            "give the cache more blocks, lower max_model_len or lower the watermark"
        )

    # -- stretches ----------------------------------------------------------------------------------------------------

    def _begin_stretch(self, start_s: float, now: float) -> bool:
        """Look ahead from the schedule point `start_s`: if the steps from there only decode, plan them as one."""
        if self.exact:
            return False
        scheduler = self.scheduler
        steps, drain = scheduler.decode_run()
        if not steps:
            return False
        group = scheduler.group
        size = group.size
        intercept_s, slope_s = self._decode_line(size)
        self._stretch = stretch = Stretch(
            start_s,
            start_s if start_s > self._end_s else self._end_s,
            steps,
            intercept_s + slope_s * (group.offsets + size * (group.steps + 1)),
            slope_s * size,
            self._lag,
        )
        if drain:
            steps += 1
        self._stretch_steps = steps
        self._wake_at(stretch.point_s(steps), now)
        return True

    def _take_stretch(self) -> None:
        """Carry out the stretch up to where it was cut.

        One step more than it has is the drain: under async scheduling, the step of the others that is scheduled
        before the last tokens of those who stop have arrived.
        """
        stretch, scheduler = self._stretch, self.scheduler
        assert stretch is not None
        self._stretch = None
        steps = self._stretch_steps
        drain = steps > stretch.steps
        if drain:
            steps -= 1
        if not steps:
            return
        first_s, growth_s, size = stretch.first_s, stretch.growth_s, scheduler.group.size
        elapsed_s = steps * (first_s + growth_s * 0.5 * (steps - 1))
        self._end_s = end_s = stretch.base_s + elapsed_s
        self.busy_s += elapsed_s
        self.steps += steps
        self.output_tokens += steps * size
        self._gaps((first_s, first_s + (steps - 1) * growth_s, steps, size))
        leaving = scheduler.run_decode(steps)
        if leaving:
            self._completions.append((end_s, leaving))
        if drain and scheduler.group.size:
            self._drain()

    def _drain(self) -> None:
        """One step of those who go on."""
        scheduler = self.scheduler
        group = scheduler.group
        size = group.size
        intercept_s, slope_s = self._decode_line(size)
        duration_s = intercept_s + slope_s * (group.offsets + size * (group.steps + 1))
        self._end_s += duration_s
        self.busy_s += duration_s
        self.steps += 1
        self.output_tokens += size
        self._gaps((duration_s, duration_s, 1, size))
        leaving = scheduler.run_decode(1)
        if leaving:
            self._completions.append((self._end_s, leaving))
