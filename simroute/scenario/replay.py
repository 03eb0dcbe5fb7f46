"""Replays in parallel processes: one process a policy, the trace handed over without copying where the system forks.

Owns processes, the workers' Ctrl-C flag and progress; knows nothing of scenarios. Imports errors and interrupt.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from simroute import interrupt
from simroute.errors import SimulationError

Out = TypeVar("Out")
Task = Callable[[int, Callable[[float], None], Callable[[], bool]], Out]
"""`task(i, progress, stop)` does item i: it reports its fraction done and returns early once `stop()` is true."""


Progress = Callable[[Sequence[float]], None]
"""Is told every item's fraction done."""

_POLL_S = 0.1


@dataclass(slots=True)
class _Shared(Generic[Out]):
    """What parent and workers share: the task, one fraction an item, and the flag that asks all to stop.

    Fractions and flag are plain shared memory without a lock, so a signal handler may write at any moment.
    `progress` is set where the work is done in the caller's own process.
    """

    task: Task[Out]
    fractions: Any
    stop_flag: Any
    progress: Progress | None = None

    def do(self, item: int) -> Out | None:
        """Item `item`, here and now; None when all were asked to stop before it began."""
        if self.stop_flag.value:
            return None
        return self.task(item, lambda done: self._report(item, done), lambda: bool(self.stop_flag.value))

    def _report(self, item: int, done: float) -> None:
        self.fractions[item] = done
        if self.progress:
            self.progress(self.fractions)


_worker: _Shared[Any] | None = None


def replay(
    task: Task[Out], items: int, *, jobs: int | None = None, progress: Progress | None = None
) -> list[Out | None]:
    """`task(i, ...)` for i in 0..items-1 in up to `jobs` processes (default: one a CPU); results in order of i.

    One job runs in this process. Ctrl-C asks the running items to finish early and starts no more: None stands for
    what never began. A second Ctrl-C raises KeyboardInterrupt at once. Raises what a task raises, and
    SimulationError when a worker process dies.
    """
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    shared = _Shared(task, context.RawArray("d", items), context.RawValue("b", 0))
    workers = min(jobs or cpus(), items)
    with interruptible(shared.stop_flag):
        if workers > 1:
            return _in_processes(shared, items, workers, context, progress)
        shared.progress = progress
        return [shared.do(item) for item in range(items)]


def _in_processes(
    shared: _Shared[Out], items: int, workers: int, context: Any, progress: Progress | None
) -> list[Out | None]:
    """Workers inherit `shared` when they start, so no trace is ever pickled where processes fork."""
    bystanders = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(shared,))
    try:
        futures: list[Future[Out | None]] = [pool.submit(_do, item) for item in range(items)]
        pending = set(futures)
        while pending:
            if shared.stop_flag.value:
                pending = {future for future in pending if not future.cancel()}
            done, pending = wait(pending, timeout=_POLL_S, return_when=FIRST_EXCEPTION)
            if any(future.exception() for future in done if not future.cancelled()):
                shared.stop_flag.value = 1
            if progress:
                progress(shared.fractions)
        results = [None if future.cancelled() else future.result() for future in futures]
        pool.shutdown()  # (left to the interpreter's end, a pool may be found half closed)
        return results
    except BrokenProcessPool:
        raise SimulationError("a worker process died, perhaps for want of memory: replay fewer policies") from None
    except KeyboardInterrupt:
        for worker in set(multiprocessing.active_children()) - bystanders:
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _begin(shared: _Shared[Any]) -> None:
    """In a worker: remember the shared state; Ctrl-C reaches it through the flag alone."""
    global _worker
    _worker = shared
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _do(item: int) -> Any:
    assert _worker is not None
    return _worker.do(item)


def cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def interruptible(stop_flag: Any) -> Iterator[None]:
    """While inside, the first Ctrl-C sets `stop_flag.value`; the second acts as usual.

    Only the main thread gets signals: elsewhere nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = signal.getsignal(signal.SIGINT)

    def on_interrupt(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, usual)
        stop_flag.value = 1
        interrupt.note()

    # Nothing but the flag hears Ctrl-C from here on; one that came before, and got lost, counts as well.
    signal.signal(signal.SIGINT, on_interrupt)
    try:
        interrupt.check()
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
