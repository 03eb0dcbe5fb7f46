"""Many independent items of work side by side: the seam `Executor` and its process pool.

An item that fails is tried again, then reported as a `Failure` beside the results of the others; a worker that dies
takes only its own item with it. Imports errors and, of scenario, what `replay` knows of Ctrl-C and CPUs.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol, TypeVar

from simroute.errors import SimrouteError, UsageError, unknown
from simroute.scenario.replay import cpus, interruptible

T = TypeVar("T")
R = TypeVar("R")
Progress = Callable[[float], None]
"""Is told the share of the work that is done: whenever an item is, and now and then meanwhile."""
Stop = Callable[[], bool]
"""Once it returns true, nothing more is begun."""

EXECUTORS = ("processes", "ray")
RETRIES = 1
"""Times that an item is tried again after a failure that may not come again."""
_POLL_S = 0.1
_ORPHAN_S = 5.0


@dataclass(frozen=True, slots=True)
class Failure:
    """An item that gave no result: why, in one line, and how often it was tried."""

    message: str
    attempts: int


class Executor(Protocol):
    """Runs items side by side."""

    def map(
        self,
        fn: Callable[[T], R],
        items: Sequence[T],
        *,
        progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> Iterator[tuple[int, R | Failure]]:
        """(i, `fn(items[i])`) for every item, in the order in which they are done; a `Failure` for one that failed.

        After Ctrl-C, or once `stop()` is true, what is under way is given up and the iteration ends: what is missing
        was not done. A SimrouteError is the item's own fault and not tried again.
        """


class InProcess:
    """One item after the other in this process: for tests, debuggers and small jobs. Ctrl-C waits for the item."""

    def __init__(self, retries: int = RETRIES) -> None:
        self._retries = retries

    def map(
        self,
        fn: Callable[[T], R],
        items: Sequence[T],
        *,
        progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> Iterator[tuple[int, R | Failure]]:
        """See Executor."""
        flag = Flag()
        with interruptible(flag):
            for number, item in enumerate(items):
                if flag.value or (stop is not None and stop()):
                    return
                yield number, self._tried(fn, item)
                if progress:
                    progress((number + 1) / len(items))

    def _tried(self, fn: Callable[[T], R], item: T) -> R | Failure:
        tries = 0
        while True:
            tries += 1
            done, value, again = attempted(fn, item)
            if done:
                return value  # type: ignore[no-any-return]
            if not again or tries > self._retries:
                return Failure(value, tries)


class ProcessPool:
    """Up to `jobs` worker processes (default: one a CPU), which inherit `fn` and the items where the system forks.

    Raises UsageError for less than one job.
    """

    def __init__(self, jobs: int | None = None, retries: int = RETRIES) -> None:
        if jobs is not None and jobs < 1:
            raise UsageError(f"jobs: must be at least 1, got {jobs}")
        self._jobs = jobs
        self._retries = retries

    def map(
        self,
        fn: Callable[[T], R],
        items: Sequence[T],
        *,
        progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> Iterator[tuple[int, R | Failure]]:
        """See Executor."""
        workers = min(self._jobs or cpus(), len(items))
        team = _Team(fn, items, workers, self._retries)
        try:
            yield from watched(team.run, len(items), progress, stop)
        finally:
            team.dismiss()


def portion(progress: Progress | None, start: float, end: float) -> Progress | None:
    """`progress` for a part of the work: that from `start` to `end` of it."""
    return progress and (lambda done: progress(start + (end - start) * done))


class Flag:
    """What a signal handler may set (see `interruptible`)."""

    value = 0


def watched(
    run: Callable[[Stop], Iterator[tuple[int, R | Failure]]], items: int, progress: Progress | None, stop: Stop | None
) -> Iterator[tuple[int, R | Failure]]:
    """The results of `run`, which asks time and again whether to stop: at Ctrl-C, or once `stop()` is true.

    `progress` is told as often, so that a clock beside it moves.
    """
    flag = Flag()
    done = 0

    def stopped() -> bool:
        if progress:
            progress(done / items)
        return flag.value != 0 or (stop is not None and stop())

    with interruptible(flag):
        for found in run(stopped):
            yield found
            done += 1
    if progress and done == items:
        progress(1.0)


def executor_named(name: str, *, jobs: int | None = None, ray_address: str | None = None) -> Executor:
    """The executor called `name`: `processes` (of which there are `jobs`), or `ray` (the cluster at `ray_address`).

    Raises UsageError for another name and for options of the other one, and as the executors themselves do.
    """
    if name not in EXECUTORS:
        raise UsageError(f"--executor: {unknown('executor', name, EXECUTORS)}")
    if name == "ray":
        if jobs is not None:
            raise UsageError("--jobs: on a Ray cluster its CPUs decide: give --jobs or --executor ray")
        from simroute.planner.execution.ray_executor import RayExecutor

        return RayExecutor(ray_address)
    if ray_address is not None:
        raise UsageError("--ray-address: needs --executor ray")
    return ProcessPool(jobs)


def attempted(fn: Callable[[T], R], item: T) -> tuple[bool, Any, bool]:
    """(True, result, False), or (False, the error in one line, whether another try may help)."""
    try:
        return True, fn(item), False
    except SimrouteError as error:
        return False, " ".join(str(error).split()), False
    except Exception as error:
        return False, _said(error), True


def _said(error: Exception) -> str:
    """An exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


@dataclass(slots=True)
class _Worker:
    process: Any
    pipe: Connection
    item: int | None = None


class _Team:
    """The workers of one `map`, the items that wait and those that failed once."""

    def __init__(self, fn: Callable[[Any], Any], items: Sequence[Any], workers: int, retries: int) -> None:
        self._context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        self._fn = fn
        self._items = items
        self._most = workers
        self._retries = retries
        self._waiting = deque(range(len(items)))
        self._tries: Counter[int] = Counter()
        self._workers: list[_Worker] = []

    def run(self, stopped: Stop) -> Iterator[tuple[int, Any]]:
        """Results as they come, until all are there or `stopped()`."""
        while self._waiting or any(worker.item is not None for worker in self._workers):
            if stopped():
                return
            self._hand_out()
            busy = {worker.pipe: worker for worker in self._workers if worker.item is not None}
            for pipe in wait(list(busy), timeout=_POLL_S):
                found = self._take(busy[pipe])  # type: ignore[index]
                if found is not None:
                    yield found

    def dismiss(self) -> None:
        """End all workers, whatever they are doing."""
        for worker in self._workers:
            worker.process.terminate()
            worker.pipe.close()
        for worker in self._workers:
            worker.process.join()
        self._workers.clear()

    def _hand_out(self) -> None:
        for worker in self._workers:
            if worker.item is None and self._waiting:
                self._give(worker)
        while self._waiting and len(self._workers) < self._most:
            self._workers.append(worker := self._hired())
            self._give(worker)

    def _hired(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_work, args=(self._fn, self._items, theirs, os.getpid()), daemon=True, name="simroute-worker"
        )
        process.start()
        theirs.close()  # so that the worker's death closes the last copy, which ends our waiting for it
        return _Worker(process, ours)

    def _give(self, worker: _Worker) -> None:
        worker.item = self._waiting.popleft()
        with suppress(OSError):  # it is dead, which `_take` finds out
            worker.pipe.send(worker.item)

    def _take(self, worker: _Worker) -> tuple[int, Any] | None:
        """What a worker has to say of its item; None where the item will be tried again."""
        item, worker.item = worker.item, None
        assert item is not None
        try:
            done, value, again = worker.pipe.recv()
        except (EOFError, OSError):
            done, value, again = False, self._buried(worker), True
        except Exception as error:  # what was sent is no value here
            done, value, again = False, f"its result cannot be read: {_said(error)}", False
        if done:
            return item, value
        self._tries[item] += 1
        if again and self._tries[item] <= self._retries:
            self._waiting.append(item)
            return None
        return item, Failure(value, self._tries[item])

    def _buried(self, worker: _Worker) -> str:
        self._workers.remove(worker)
        worker.pipe.close()
        worker.process.join()
        return f"its worker process died (exit code {worker.process.exitcode}), perhaps for want of memory"


def _work(fn: Callable[[Any], Any], items: Sequence[Any], pipe: Connection, parent: int) -> None:
    """A worker: does the items whose numbers come through the pipe, until it is ended or left alone.

    Ctrl-C is for its parent to answer.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        while not pipe.poll(_ORPHAN_S):
            if os.getppid() != parent:
                return
        answer = attempted(fn, items[pipe.recv()])
        try:
            pipe.send(answer)
        except Exception as error:
            pipe.send((False, f"its result cannot be sent back: {_said(error)}", False))
