"""Replays in processes: order, errors, interruption; the tasks here are trivial."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from simroute.errors import SimulationError, UsageError
from simroute.scenario.replay import replay

ROOT = Path(__file__).resolve().parents[2]


def _square(item, progress, stop):
    progress(1.0)
    return item * item, os.getpid()


def test_results_keep_the_order_of_the_items_whatever_finishes_first():
    others_done = multiprocessing.Event()

    def task(item, progress, stop):
        if item == 4:
            others_done.set()
        return item if item else (item, others_done.wait(30))[0]

    assert replay(task, 5, jobs=2) == [0, 1, 2, 3, 4]


def test_one_job_stays_in_this_process_and_more_jobs_leave_it():
    assert {pid for _, pid in replay(_square, 3, jobs=1)} == {os.getpid()}
    assert os.getpid() not in {pid for _, pid in replay(_square, 3, jobs=2)}


@pytest.mark.parametrize("jobs", [1, 2])
def test_progress_is_told(jobs):
    seen = []
    replay(_square, 2, jobs=jobs, progress=lambda done: seen.append(list(done)))
    assert seen[-1] == [1.0, 1.0]


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_of_a_task_is_raised_as_it_is(jobs):
    def task(item, progress, stop):
        if item == 1:
            raise UsageError("no such thing")
        return item

    with pytest.raises(UsageError, match="no such thing"):
        replay(task, 3, jobs=jobs)


def test_a_worker_that_dies_is_one_clear_error():
    def task(item, progress, stop):
        os._exit(9)

    with pytest.raises(SimulationError, match="worker process died"):
        replay(task, 2, jobs=2)


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupt_lets_running_items_finish_early_and_starts_no_more(jobs):
    parent = os.getpid()

    def task(item, progress, stop):
        if item == 0:
            os.kill(parent, signal.SIGINT)
        deadline = time.monotonic() + 30
        while not stop():
            assert time.monotonic() < deadline, "the stop flag never came"
        return item

    usual = signal.getsignal(signal.SIGINT)
    results = replay(task, 8, jobs=jobs)
    assert results[0] == 0
    assert results[-1] is None
    assert signal.getsignal(signal.SIGINT) is usual


def test_a_second_interrupt_ends_workers_that_do_not_listen():
    script = textwrap.dedent("""
        import os, signal, time
        from simroute.scenario.replay import replay

        def deaf(item, progress, stop):
            if item == 0:
                for _ in range(2):
                    os.kill(os.getppid(), signal.SIGINT)
                    while not stop():
                        pass
            time.sleep(60)

        replay(deaf, 2, jobs=2)
    """)
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert "KeyboardInterrupt" in done.stderr
    assert time.monotonic() - started < 30
