"""Items side by side: all results, retries, failures that cost nobody else anything, Ctrl-C."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from simroute.errors import CapacityError, UsageError
from simroute.planner.execution.executor import Executor, Failure, InProcess, ProcessPool

EXECUTORS = [InProcess(), ProcessPool(2)]
by_executor = pytest.mark.parametrize("executor", EXECUTORS, ids=["in_process", "processes"])


def square(number: int) -> int:
    return number * number


@by_executor
def test_every_item_has_its_result(executor: Executor):
    told: list[float] = []
    found = dict(executor.map(square, range(7), progress=told.append))
    assert found == {i: i * i for i in range(7)}
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert set(told) - {0.0, 1.0}, "as results come"


@by_executor
def test_nothing_to_do(executor: Executor):
    assert list(executor.map(square, [])) == []


@by_executor
def test_a_failed_item_is_tried_again(executor: Executor, tmp_path: Path):
    def flaky(item: int) -> int:
        mark = tmp_path / str(item)
        if item == 2 and not mark.exists():
            mark.touch()
            raise RuntimeError("the first time")
        return item

    assert dict(executor.map(flaky, range(4))) == {0: 0, 1: 1, 2: 2, 3: 3}


@by_executor
def test_what_fails_again_is_a_failure_and_the_rest_is_there(executor: Executor):
    def broken(item: int) -> int:
        if item == 1:
            raise RuntimeError("two\nlines")
        return item

    assert dict(executor.map(broken, range(3))) == {0: 0, 1: Failure("RuntimeError: two lines", 2), 2: 2}


@by_executor
def test_an_error_of_the_user_is_not_tried_again(executor: Executor, tmp_path: Path):
    def hopeless(item: int) -> int:
        with (tmp_path / "tries").open("a") as log:
            log.write("x")
        raise CapacityError("does not fit")

    assert dict(executor.map(hopeless, [0])) == {0: Failure("does not fit", 1)}
    assert (tmp_path / "tries").read_text() == "x"


def test_a_worker_that_dies_loses_only_its_item():
    def deadly(item: int) -> int:
        if item == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    found = dict(ProcessPool(2).map(deadly, range(8)))
    failure = found.pop(3)
    assert isinstance(failure, Failure)
    assert failure.attempts == 2
    assert "exit code -9" in failure.message
    assert found == {i: i for i in range(8) if i != 3}


def test_a_worker_that_dies_once_is_replaced(tmp_path: Path):
    def deadly(item: int) -> int:
        mark = tmp_path / str(item)
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    assert dict(ProcessPool(2).map(deadly, range(3))) == {0: 0, 1: 1, 2: 2}


def test_a_result_that_cannot_travel_is_a_failure():
    found = dict(ProcessPool(1).map(lambda item: (lambda: item) if item else item, range(2)))
    assert found[0] == 0
    assert isinstance(found[1], Failure)
    assert "cannot be sent back" in found[1].message


@by_executor
def test_once_stopped_nothing_more_is_begun(executor: Executor):
    found: list[int] = []
    for number, _ in executor.map(square, range(1000), stop=lambda: len(found) >= 3):
        found.append(number)
    assert 3 <= len(found) <= 5


@by_executor
def test_ctrl_c_ends_the_iteration_and_keeps_what_is_done(executor: Executor):
    usual = signal.getsignal(signal.SIGINT)
    found = []
    for number, _ in executor.map(square, range(1000)):
        found.append(number)
        if len(found) == 2:
            os.kill(os.getpid(), signal.SIGINT)
    assert 2 <= len(found) <= 4
    assert signal.getsignal(signal.SIGINT) is usual


def test_leaving_early_ends_the_workers():
    import multiprocessing

    iteration = ProcessPool(2).map(square, range(100))
    next(iteration)
    iteration.close()  # type: ignore[attr-defined]
    assert [p for p in multiprocessing.active_children() if p.name == "simroute-worker"] == []


def test_less_than_one_job_is_refused():
    with pytest.raises(UsageError, match="jobs: must be at least 1, got 0"):
        ProcessPool(0)


class Unreadable:
    """Can be sent, and cannot be read."""

    def __reduce__(self) -> tuple[type[int], tuple[str]]:
        return int, ("no number",)


def test_a_result_that_cannot_be_read_costs_nobody_else_anything():
    found = dict(ProcessPool(2).map(lambda item: Unreadable() if item == 1 else item, range(4)))
    failure = found.pop(1)
    assert found == {0: 0, 2: 2, 3: 3}
    assert isinstance(failure, Failure)
    assert failure.message.startswith("its result cannot be read: ValueError: invalid literal")
