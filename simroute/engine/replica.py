"""One vLLM replica on SimPy's clock. Owns `Replica`, the seam `Observer` and the event `Wake`.

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
from simroute.engine.scheduler import Scheduler, SchedulerOutput
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

    def gaps(self, first_s: float, last_s: float, steps: int, seqs: int) -> None:
        """Each of `seqs` requests sees `steps` gaps between tokens, in even progression from `first_s` to `last_s`."""


class Wake(simpy.Event):
    """A replica's standing event: queued anew for each schedule point; superseded times are ignored when they come.

    One object serves all of them, so that a schedule point allocates nothing.
    """

    def __init__(self, env: simpy.Environment, on_wake: Callable[[simpy.Event], None]) -> None:
        self.env = env
        self._ok = True
        self._value = None
        self._standing = [on_wake]

    @property
    def callbacks(self) -> list[Callable[[simpy.Event], None]]:  # type: ignore[override]
        """Never used up, as SimPy would have it."""
        return self._standing

    @callbacks.setter
    def callbacks(self, used: object) -> None:
        pass


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
        self._step_time = step_time
        self._observer = observer
        self._async = config.async_scheduling
        self._lag = 1 if config.async_scheduling else 0
        self._end_s = 0.0  # when the last scheduled step ends
        self._completions: deque[tuple[float, list[EngineRequest]]] = deque()  # last tokens in flight
        self._stretch: Stretch | None = None
        self._stretch_steps = 0
        self._wake = Wake(env, self._on_wake)
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
        """Share of usable KV blocks that requests hold now, 0..1."""
        scheduler, stretch = self.scheduler, self._stretch
        used = scheduler.used_blocks
        if stretch is not None:
            scheduled = stretch.scheduled_by(self.env.now)
            if scheduled > stretch.steps:
                self._take_stretch()
                used = scheduler.used_blocks
            elif scheduled:
                used += scheduler.group.blocks_for(min(scheduled, self._stretch_steps))
        return used / scheduler.pool.usable

    def submit(self, request: EngineRequest) -> None:
        """A request arrives now."""
        scheduler = self.scheduler
        scheduler.add(request)
        if self._idle:
            self._idle = False
            self._wake_at(self.env.now)
        elif self._stretch is not None and not scheduler.blocked:
            self._cut(self._stretch)

    # -- the clock ----------------------------------------------------------------------------------------------------

    def _wake_at(self, at_s: float) -> None:
        """The next schedule point is at `at_s`."""
        now = self.env.now
        self._wake_s = at_s
        self._wake_now = self.env.now if at_s <= now else now + (at_s - now)  # what SimPy's clock will show
        self.env.schedule(self._wake, AFTER_ARRIVALS, max(at_s - now, 0.0))

    def _on_wake(self, _: simpy.Event) -> None:
        if self._idle or self.env.now != self._wake_now:
            return
        if self._stretch is not None:
            self._take_stretch()
        self._turn(self._wake_s)

    def _turn(self, now: float) -> None:
        """Process outputs that are due, schedule, and set the next schedule point."""
        scheduler = self.scheduler
        if self._completions:
            self._complete(now)
        while scheduler.running or scheduler.waiting:
            if self._begin_stretch(now):
                return
            next_s = self._step(now)
            if next_s > now:
                if not self._begin_stretch(next_s):
                    self._wake_at(next_s)
                return
        self._idle = True

    def _complete(self, now: float) -> None:
        completions = self._completions
        while completions and completions[0][0] <= now:
            end_s, finishing = completions.popleft()
            self.scheduler.update(finishing)
            for request in finishing:
                self._observer.finished(request, end_s)

    def _step(self, now: float) -> float:
        """Schedule one step now; returns the next schedule point (now, to fill the queue of async scheduling)."""
        out = self.scheduler.schedule()
        before_s = self._end_s
        if not out.total_tokens:
            if before_s <= now and not out.preempted:
                raise SimulationError(self._stuck())
            return max(now, before_s)
        self._execute(out, now)
        if not self._async:
            return self._end_s
        return before_s if before_s > now else now

    def _execute(self, out: SchedulerOutput, now: float) -> None:
        """Account for one scheduled step, which starts when the step before it ends."""
        observer, before_s = self._observer, self._end_s
        duration_s = self._step_time.duration_s(out.batch)
        end_s = self._end_s = max(now, before_s) + duration_s
        self.busy_s += duration_s
        self.steps += 1
        self.prefill_tokens += out.batch.prefill_tokens
        self.output_tokens += out.batch.sampled_seqs
        if out.decoding:
            observer.gaps(end_s - before_s, end_s - before_s, 1, out.decoding)
        for request in out.preempted:
            if request.sampled and request.last_token_s < 0:
                request.last_token_s = before_s
        for request in out.resumed:
            observer.gaps(end_s - request.last_token_s, end_s - request.last_token_s, 1, 1)
            request.last_token_s = -1.0
        for request in out.first:
            observer.first_token(request, end_s)
        if out.finishing:
            self._completions.append((end_s, out.finishing))

    def _stuck(self) -> str:
        scheduler = self.scheduler
        request = scheduler.waiting.head
        return (
            f"request {request.index} ({request.input_tokens} prompt tokens) can never be admitted: "
            f"{scheduler.pool.free} KV blocks of {scheduler.config.block_size} tokens are free and nothing is running; "
            "give the cache more blocks, lower max_model_len or lower the watermark"
        )

    # -- stretches ----------------------------------------------------------------------------------------------------

    def _begin_stretch(self, start_s: float) -> bool:
        """Look ahead from the schedule point `start_s`: if the steps from there only decode, plan them as one."""
        if self.exact:
            return False
        scheduler = self.scheduler
        steps = scheduler.decode_run()
        if not steps:
            return False
        base_s = start_s if start_s > self._end_s else self._end_s
        first_s, growth_s = self._decode_time()
        drain = self._async and scheduler.can_drain_after(steps)
        stretch = Stretch(start_s, base_s, steps, first_s, growth_s, self._lag)
        self._stretch = stretch
        self._stretch_steps = steps + drain
        self._wake_at(stretch.point_s(steps + drain))
        return True

    def _decode_time(self) -> tuple[float, float]:
        """Seconds that the group's next step takes, and how much longer each one after it."""
        group = self.scheduler.group
        size = group.size
        intercept_s, slope_s = self._step_time.decode_line(size)
        return intercept_s + slope_s * (group.context_tokens + size), slope_s * size

    def _cut(self, stretch: Stretch) -> None:
        """An arrival ends the stretch at the next schedule point."""
        point = stretch.next_point(self.env.now)
        if point < self._stretch_steps:
            self._stretch_steps = point
            self._wake_at(stretch.point_s(point))

    def _take_stretch(self) -> None:
        """Carry out the stretch up to where it was cut.

        One step more than it has is the drain: under async scheduling, the step of the others that is scheduled
        before the last tokens of those who stop have arrived.
        """
        stretch = self._stretch
        assert stretch is not None
        self._stretch = None
        steps = self._stretch_steps
        drain = steps > stretch.steps
        if drain:
            steps -= 1
        if steps:
            elapsed_s = stretch.elapsed_s(steps)
            self._decode(steps, stretch.first_s, stretch.growth_s, elapsed_s, stretch.base_s + elapsed_s)
        if drain and self.scheduler.group.size:
            first_s, growth_s = self._decode_time()
            self._decode(1, first_s, growth_s, first_s, self._end_s + first_s)

    def _decode(self, steps: int, first_s: float, growth_s: float, elapsed_s: float, end_s: float) -> None:
        """Account for `steps` steps of the group, ending at `end_s`."""
        seqs = self.scheduler.group.size
        leaving = self.scheduler.run_decode(steps)
        self._end_s = end_s
        self.busy_s += elapsed_s
        self.steps += steps
        self.output_tokens += steps * seqs
        self._observer.gaps(first_s, first_s + (steps - 1) * growth_s, steps, seqs)
        if leaving:
            self._completions.append((end_s, leaving))
