"""One measurement, phase by phase, into a run directory that is complete after each of them.

    sweep-prefill, sweep-decode, sweep-mixed     the designed batches
    capacity                                     a closed loop with every seat taken
    load-0.3, load-0.6, load-0.9                 open-loop Poisson arrivals at these fractions of the capacity

A phase that is in the directory already is not measured again. Imports the rest of `measure` and calibration's `runs`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from simroute.calibration.measure.client import Answer, Client
from simroute.calibration.measure.describe import Names, describe, from_pages
from simroute.calibration.measure.drive import Driver, Report, ServerError, in_time
from simroute.calibration.measure.load import Lengths, poisson
from simroute.calibration.measure.resume import difference, kept, prepare, went_well
from simroute.calibration.measure.server import Launch, Server, attached, launched
from simroute.calibration.measure.steps import StepReader
from simroute.calibration.measure.sweep import Limits, decode_points, mixed_points, prefill_points
from simroute.calibration.measure.tables import iteration_table, new_run, request_table, with_phase
from simroute.calibration.runs import Phase, Run, RunMeta, write_run
from simroute.errors import CalibrationError

SHARES = {"sweep-prefill": 0.13, "sweep-decode": 0.13, "sweep-mixed": 0.12, "capacity": 0.07}
"""Parts of the budget; the loads share the rest."""
DRAIN_SHARE = 0.25
"""A load's part of its time that is kept for the answers still on their way when arrivals end."""
SMALLEST_VOCABULARY = 64

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. `budget_s` is for everything after the start-up; `duration_s`, if given, for each load."""

    loads: tuple[float, ...] = (0.3, 0.6, 0.9)
    budget_s: float = 420.0
    duration_s: float | None = None
    lengths: Lengths = field(default_factory=Lengths)
    seed: int = 0

    def phases(self) -> list[str]:
        """Names of the phases, in order."""
        return [*SHARES, *(f"load-{fraction:g}" for fraction in self.loads)]

    def seconds(self, phase: str) -> float:
        """What `phase` may take; a load's arrivals last so long, its last answers DRAIN_SHARE longer."""
        if phase in SHARES:
            return SHARES[phase] * self.budget_s
        share = (1 - sum(SHARES.values())) / len(self.loads) / (1 + DRAIN_SHARE)
        return self.duration_s or share * self.budget_s


@dataclass(frozen=True, slots=True)
class Target:
    """The server: one to launch, or the address of one that runs, with the file its plug-in writes."""

    launch: Launch | None = None
    url: str | None = None
    trace_steps: Path | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    tensor_parallel: int | None = None

    def open(self, folder: Path, waiting: Callable[[float], None]) -> AbstractContextManager[Server]:
        """The server while it is measured. Raises CalibrationError."""
        if self.launch:
            return launched(self.launch, folder, waiting)
        assert self.url is not None
        return nullcontext(attached(self.url, self.trace_steps))


def measure(target: Target, plan: Plan, out: Path, names: Names, progress: Progress) -> Run:
    """Measure what `out` does not hold yet, and write it there after each phase. Gives the run as it then is.

    `progress` is told the phase ("start" before the first) and the part of it that is done. Raises CalibrationError:
    for a run of another engine or plan in `out`, a server that does not start, or one that fails; what was measured
    before that is kept.
    """
    held = kept(out, _as_json(plan))
    missing = [name for name in plan.phases() if held is None or name not in {p.name for p in held.meta.phases}]
    if held is not None and not missing:
        return held
    opened = target.open(out, lambda seconds: progress("start", 1 - 0.5 ** (seconds / 30)))
    prepare(out)
    try:
        with opened as server:
            session = _Session(server, plan, target, names, out, held)
            try:
                run = asyncio.run(session.phases(missing, progress))
            except ServerError as error:
                reason = f"the server died{server.last_words()}" if not server.alive() else str(error)
                raise CalibrationError(f"{reason}; {session.so_far()}") from None
    finally:
        with suppress(OSError):
            out.rmdir()  # (where nothing was measured, and no log is left to explain why)
    if server.log:
        server.log.unlink(missing_ok=True)  # it is there to explain failures
    return run


class _Session:
    """Measures against one server. `run` grows by a phase at a time and is what the directory holds."""

    def __init__(self, server: Server, plan: Plan, target: Target, names: Names, out: Path, kept: Run | None) -> None:
        self._server = server
        self._plan = plan
        self._target = target
        self._names = names
        self._out = out
        self._client = Client(server.url, server.model)
        self._steps = StepReader(server.steps) if server.steps else None
        self._clock_s = 0.0
        self._prefill_rate = 0.0
        self.run = kept

    def so_far(self) -> str:
        """What is kept, for a message."""
        phases = [phase.name for phase in self.run.meta.phases] if self.run else []
        if not phases:
            return "nothing had been measured"
        return f"{', '.join(phases)} kept in {self._out}: the same command goes on from there"

    async def phases(self, names: list[str], progress: Progress) -> Run:
        """Measure these phases."""
        run, driver = await self._begin()
        progress("start", 1.0)
        for name in names:
            run = self.run = await self._phase(run, driver, name, lambda done, name=name: progress(name, done))  # type: ignore[misc]
            write_run(run, self._out)
            progress(name, 1.0)
        return run

    async def _begin(self) -> tuple[Run, Driver]:
        """Learn what the engine is, warm it up, and make sure that it is the one that `run` holds."""
        first = await in_time(self._client.complete([1] * 8, 2))
        if first.error:
            raise ServerError(first.error)
        header: dict[str, Any] = {}
        if self._steps:
            header = self._steps.header()
            engine = header["engine"]
        else:
            target = self._target
            limits = (target.max_num_seqs, target.max_num_batched_tokens, target.tensor_parallel or 1)
            engine = await from_pages(self._client, *limits)
        launch = self._target.launch
        dummy = bool(launch and launch.dummy_weights) or engine.get("load_format") == "dummy"
        meta = describe(engine, self._names, self._server.model, dummy_weights=dummy)
        run = self.run = self._joined(meta)
        self._clock_s = time.time() - time.monotonic() - run.meta.started_unix_s
        vocabulary = int(_text_config(meta.hf_config).get("vocab_size", 32_000))
        if vocabulary < SMALLEST_VOCABULARY:
            raise CalibrationError(f"vocab_size: must be at least {SMALLEST_VOCABULARY}, got {vocabulary}")
        driver = Driver(self._client, _limits(meta), range(10, vocabulary - 10), self._plan.seed)
        self._prefill_rate = await driver.warm_up()
        return run, driver

    def _joined(self, meta: RunMeta) -> Run:
        """The run to go on with: a new one, or the one in the directory if this is the same engine."""
        launch = self._target.launch
        if launch:
            meta = meta.model_copy(update={"engine_args": {**meta.engine_args, "command_line": list(launch.args)}})
        if self.run is None:
            server, plan = self._server, _as_json(self._plan)
            facts = {
                "startup_s": server.startup_s,
                "load_s": server.load_s,
                "started_unix_s": time.time(),
                "plan": plan,
            }
            return new_run(meta.model_copy(update=facts), str(self._out))
        old = self.run.meta
        differs = difference(old, meta)
        if differs:
            raise CalibrationError(f"{self._out}: holds a run of another engine: {differs}; choose another -o")
        if old.num_gpu_blocks == meta.num_gpu_blocks:
            return self.run
        note = f"resumed with {meta.num_gpu_blocks:,} KV blocks in place of {old.num_gpu_blocks:,}"
        return replace(self.run, meta=old.model_copy(update={"notes": (*old.notes, note)}))

    async def _phase(self, run: Run, driver: Driver, name: str, report: Report) -> Run:
        """Measure one phase and give the run with it."""
        self._read_steps()  # what came before does not count
        start_s = self._now()
        part: dict[str, Any] = {"name": name, "kind": name.partition("-")[0]}
        changes: dict[str, Any] = {}
        if name.startswith("sweep"):
            answers = await self._sweep(driver, name, report)
        elif name == "capacity":
            rate, answers = await driver.capacity(self._lengths(run), self._plan.seconds(name), report)
            changes["capacity_rps"] = round(rate, 4)
        else:
            part["fraction"] = float(name.removeprefix("load-"))
            part["offered_rps"] = round(part["fraction"] * (run.meta.capacity_rps or 0.0), 6)
            answers = await self._load(run, driver, name, part["offered_rps"], report)
            part["ok"] = went_well(answers)
        end_s = self._now()
        await driver.settle()
        steps = iteration_table(self._read_steps(), self._clock_s, start_s, end_s)
        phase = Phase(start_s=round(start_s, 6), end_s=round(end_s, 6), **part)
        return with_phase(run, phase, steps, request_table(answers, self._clock_s), **changes)

    async def _sweep(self, driver: Driver, name: str, report: Report) -> list[Answer]:
        assert self.run is not None
        limits, budget_s = _limits(self.run.meta), self._plan.seconds(name)
        if name == "sweep-prefill":
            return await driver.visit(prefill_points(limits), driver.prefill, budget_s, report)
        # Half of the time may go into filling the cache, and the longest contexts take most of that.
        prompt_tokens = self._prefill_rate * budget_s / 6
        if name == "sweep-decode":
            return await driver.visit(decode_points(limits, prompt_tokens), driver.staircase, budget_s, report)
        return await driver.visit(mixed_points(limits, prompt_tokens), driver.mixed, budget_s, report)

    async def _load(self, run: Run, driver: Driver, name: str, rate: float, report: Report) -> list[Answer]:
        duration_s = self._plan.seconds(name)
        seed = self._plan.seed + 1 + self._plan.phases().index(name)
        arrivals = poisson(rate, duration_s, self._lengths(run), seed)
        return await driver.load(arrivals, duration_s, DRAIN_SHARE * duration_s + 10, report)

    def _lengths(self, run: Run) -> Lengths:
        """The plan's lengths, cut to what the engine accepts."""
        wanted, room = self._plan.lengths, run.meta.max_model_len - 8
        max_input = min(wanted.max_input, room * 2 // 3)
        return replace(wanted, max_input=max_input, max_output=min(wanted.max_output, room - max_input))

    def _now(self) -> float:
        return time.monotonic() + self._clock_s

    def _read_steps(self) -> list[list[float]]:
        return self._steps.read() if self._steps else []


def _as_json(plan: Plan) -> dict[str, Any]:
    """The plan as meta.json holds it."""
    return {**asdict(plan), "loads": list(plan.loads)}


def _text_config(config: dict[str, Any]) -> dict[str, Any]:
    """Where a multimodal model's config keeps what is about text."""
    return {**config, **(config.get("text_config") or {})}


def _limits(meta: RunMeta) -> Limits:
    return Limits(
        max_num_seqs=meta.max_num_seqs,
        max_num_batched_tokens=meta.max_num_batched_tokens,
        max_model_len=meta.max_model_len,
        kv_tokens=(meta.num_gpu_blocks - 1) * meta.block_size,
        block_size=meta.block_size,
        prefix_caching=meta.enable_prefix_caching,
    )
