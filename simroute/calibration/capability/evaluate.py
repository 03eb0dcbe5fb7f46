"""Exact-match evaluation of a served model: every task is asked once, and each request class gets its share of rights.

May import policy, errors and, of this room, endpoint and tasks.
"""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from simroute.calibration.capability.endpoint import Endpoint
from simroute.calibration.capability.lm_eval import Z_90
from simroute.calibration.capability.tasks import Task
from simroute.errors import UsageError, unknown
from simroute.policy.capability import QualityRow

_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One accuracy for each request class, how many tasks it rests on, and what the model replied to each task."""

    rows: tuple[QualityRow, ...]
    tasks: tuple[int, ...]
    replies: tuple[str, ...]


def evaluate(
    endpoint: Endpoint,
    tasks: Sequence[Task],
    model: str,
    quantization: str,
    *,
    served: str | None = None,
    source: str = "tasks",
    concurrency: int = 8,
    progress: Callable[[float], None] | None = None,
) -> Evaluated:
    """Ask every task, up to `concurrency` at a time, and count the exact matches by request class.

    `served` is the model's id at the endpoint (left out: the first that it lists); `source` names the tasks in the
    rows. The interval is Wilson's, at 90%. Raises UsageError when the endpoint fails or does not serve the model.
    """
    ids = endpoint.models()
    if served is None:
        if not ids:
            raise UsageError(f"{endpoint.host}: serves no models: name one with --served")
        served = ids[0]
    elif ids and served not in ids:
        raise UsageError(f"{endpoint.host}: {unknown('served model', served, ids)}")
    replies = _replies(endpoint, served, tasks, concurrency, progress)
    rows, counts = [], []
    for name in dict.fromkeys(task.request_class for task in tasks):
        asked = [(task, reply) for task, reply in zip(tasks, replies, strict=True) if task.request_class == name]
        right = sum(task.is_right(reply) for task, reply in asked)
        low, high = wilson(right, len(asked))
        said = f"exact match on {len(asked):,} tasks of {source}, served as {served}"
        rows.append(QualityRow(model, quantization, name, right / len(asked), low, high, said))
        counts.append(len(asked))
    return Evaluated(tuple(rows), tuple(counts), tuple(replies))


def wilson(right: int, asked: int) -> tuple[float, float]:
    """Wilson's score interval of a share, at 90% (E. B. Wilson, JASA 22, 1927); it holds the share itself."""
    share, z2 = right / asked, Z_90**2 / asked
    middle = share + z2 / 2
    margin = math.sqrt(share * (1 - share) * z2 + z2**2 / 4)
    low, high = (middle - margin) / (1 + z2), (middle + margin) / (1 + z2)
    return max(0.0, min(low, share)), min(1.0, max(high, share))


def _replies(
    endpoint: Endpoint,
    served: str,
    tasks: Sequence[Task],
    concurrency: int,
    progress: Callable[[float], None] | None,
) -> list[str]:
    """The reply to each task. The first failure, or Ctrl-C, ends it: threads that still wait do not hold it up."""
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    answered: queue.SimpleQueue[tuple[int, str | Exception]] = queue.SimpleQueue()
    over = threading.Event()
    for number in range(len(tasks)):
        waiting.put(number)

    def work() -> None:
        while not over.is_set():
            try:
                number = waiting.get_nowait()
            except queue.Empty:
                return
            task = tasks[number]
            try:
                answered.put((number, endpoint.reply(served, task.conversation(), task.max_tokens)))
            except Exception as error:
                answered.put((number, error))

    for _ in range(min(concurrency, len(tasks))):
        threading.Thread(target=work, daemon=True).start()
    replies: dict[int, str] = {}
    try:
        while len(replies) < len(tasks):
            try:
                number, reply = answered.get(timeout=_LOOK_S)
            except queue.Empty:
                continue
            if isinstance(reply, Exception):
                raise reply
            replies[number] = reply
            if progress:
                progress(len(replies) / len(tasks))
    finally:
        over.set()
    return [replies[number] for number in range(len(tasks))]
