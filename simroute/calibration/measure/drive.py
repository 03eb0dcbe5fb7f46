"""Makes a server run the phases: the sweep's points, the closed loop, the open-loop loads. Gives back the answers.

Knows requests and their times; engine steps and files are the session's. Imports `client`, `load`, `sweep`, rng and
errors.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from simroute import rng
from simroute.calibration.measure.client import Answer, Client
from simroute.calibration.measure.load import Arrival, Lengths, capacity_rps
from simroute.calibration.measure.sweep import Limits, Mixed, Prefill, Staircase, spread
from simroute.errors import CalibrationError

Point = TypeVar("Point")
Found = TypeVar("Found")
Report = Callable[[float], None]

ROUNDS = 4
"""How often the sweep visits a point at most."""
FAILED_SHARE = 0.2
"""More failed requests than this part of a load, and the load is given up."""
OVERTIME_S = 300.0
"""A phase that lasts so much longer than planned hangs."""


class ServerError(CalibrationError):
    """The server failed: what was being measured is lost, what was measured before is kept."""


class Driver:
    """Sends the requests of one phase after another. Prompts are random tokens from `vocabulary`."""

    def __init__(self, client: Client, limits: Limits, vocabulary: range, seed: int) -> None:
        self._client = client
        self._limits = limits
        self._vocabulary = vocabulary
        self._seed = seed
        self._tokens = rng.stream(seed, "prompts")
        self._streams: dict[int, list[int]] = {}
        self._visited: set[int] = set()

    async def warm_up(self) -> float:
        """Everything that is only slow the first time; gives the tokens a second of prefilling.

        Raises ServerError when an answer is not whole, or does not come.
        """
        return await in_time(self._warmed_up(), OVERTIME_S)

    async def _warmed_up(self) -> float:
        largest = min(self._limits.max_num_batched_tokens, self._limits.longest_prompt)
        for tokens in (8, largest // 4 or 1, largest):
            _whole([await self._client.complete(self._fresh(tokens), 4)])
        batch = min(self._limits.max_num_seqs, 64)
        _whole(await asyncio.gather(*(self._client.complete(self._fresh(16), 8) for _ in range(batch))))
        answer = _whole([await self._client.complete(self._fresh(largest), 1)])[0]
        return largest / (answer.chunk_s[0] - answer.arrival_s)

    async def settle(self) -> None:
        """Return when the engine has done what was asked of it, cut requests included, and written it down.

        Raises ServerError when it is not there to do so.
        """
        _whole([await in_time(self._client.complete(self._fresh(2), 1))])

    async def visit(
        self, points: Sequence[Point], run: Callable[[Point], Awaitable[list[Answer]]], budget_s: float, report: Report
    ) -> list[Answer]:
        """Run the points, spread over their range, again and again until `budget_s` is over or ROUNDS are done.

        Raises ServerError when an answer is not whole.
        """
        answers: list[Answer] = []
        begin_s, done = time.monotonic(), 0
        for _ in range(ROUNDS):
            for point in spread(points):
                spent = (time.monotonic() - begin_s) / budget_s
                if spent >= 1:
                    return answers
                report(max(spent, done / (ROUNDS * len(points))))
                answers += _whole(await in_time(run(point), budget_s))
                done += 1
        return answers

    async def prefill(self, point: Prefill) -> list[Answer]:
        """One point of prefills; the first visit to a context fills the prefix cache."""
        answers = []
        if point.context and point.context not in self._visited:
            self._visited.add(point.context)
            answers.append(await self._client.complete(self._stream(0, point.context), 1))
        prompts = [self._stream(0, point.context) + self._fresh(point.tokens) for _ in range(point.seqs)]
        return answers + await asyncio.gather(*(self._client.complete(prompt, 1) for prompt in prompts))

    async def staircase(self, point: Staircase) -> list[Answer]:
        """One shrinking batch; request i always has the same prompt, so that a second visit hits the prefix cache."""
        sends = (
            self._client.complete(self._stream(1 + i, point.context), output)
            for i, output in enumerate(point.outputs())
        )
        return await asyncio.gather(*sends)

    async def mixed(self, point: Mixed) -> list[Answer]:
        """Prompts that arrive one after another while a batch decodes."""
        prompts = [self._stream(1 + i, point.context) for i in range(point.decode_seqs)]
        answers = [self._client.request(prompt, point.output_tokens) for prompt in prompts]
        tasks = [
            asyncio.create_task(self._client.follow(answer, prompt))
            for answer, prompt in zip(answers, prompts, strict=True)
        ]
        try:
            while not all(answer.chunk_s or task.done() for answer, task in zip(answers, tasks, strict=True)):
                await asyncio.sleep(0.002)
            answers += [await self._client.complete(self._fresh(tokens), 1) for tokens in point.chunks]
            await asyncio.gather(*tasks)
        finally:
            await _cancel(tasks)
        return answers

    async def capacity(self, lengths: Lengths, duration_s: float, report: Report) -> tuple[float, list[Answer]]:
        """(requests a second, answers) of a closed loop with max_num_seqs requests in flight.

        What counts is `duration_s` (longer where no token comes in it) from when each of the first ones has its first
        token; then the rest is cut. Raises ServerError when an answer is not whole for another reason than that.
        """
        draws = rng.stream(self._seed, "capacity")
        answers: list[Answer] = []

        async def keep_busy() -> None:
            while True:
                [(tokens, output)] = lengths.draw(1, draws)
                prompt = self._fresh(tokens)
                answers.append(self._client.request(prompt, output))
                _whole([await self._client.follow(answers[-1], prompt)])

        seats = self._limits.max_num_seqs
        begin_s, full_s = time.monotonic(), None
        now_s, came = begin_s, False
        tasks = [asyncio.create_task(keep_busy()) for _ in range(seats)]
        try:
            while full_s is None or now_s < full_s + duration_s or not came:
                for task in (await asyncio.wait(tasks, timeout=min(0.25, duration_s)))[0]:
                    task.result()
                now_s = time.monotonic()
                if full_s is None and all(answer.chunk_s for answer in answers[:seats]):
                    full_s = now_s
                came = full_s is not None and any(full_s <= t for answer in answers for t in answer.chunk_s[-1:])
                if not came and now_s > (full_s or begin_s) + duration_s + OVERTIME_S:
                    raise ServerError(f"{seats} requests at once have no token after {OVERTIME_S:.0f} s")
                report(0.0 if full_s is None else (now_s - full_s) / duration_s)
        finally:
            await _cancel(tasks)
        times = [t for answer in answers for t in answer.chunk_s]
        return capacity_rps(times, full_s, now_s, lengths.mean_output()), answers

    async def load(
        self, arrivals: Sequence[Arrival], duration_s: float, drain_s: float, report: Report
    ) -> list[Answer]:
        """Send each request when it is due and wait for all, at most `drain_s` after `duration_s`; then cut the rest.

        Raises ServerError when the server cannot be reached or fails too many of them.
        """
        begin_s = time.monotonic()
        answers, tasks = [], []
        try:
            for arrival in arrivals:
                prompt = self._fresh(arrival.input_tokens)
                await asyncio.sleep(max(0.0, begin_s + arrival.at_s - time.monotonic()))
                report((time.monotonic() - begin_s) / duration_s)
                answers.append(self._client.request(prompt, arrival.output_tokens))
                tasks.append(asyncio.create_task(self._client.follow(answers[-1], prompt)))
                _bearable(answers, tasks)
            if tasks:
                await asyncio.wait(tasks, timeout=begin_s + duration_s + drain_s - time.monotonic())
            _bearable(answers, tasks)
        finally:
            await _cancel(tasks)
        return answers

    def _fresh(self, count: int) -> list[int]:
        """`count` tokens never sent before, as far as chance allows."""
        drawn: list[int] = self._tokens.integers(self._vocabulary.start, self._vocabulary.stop, count).tolist()
        return drawn

    def _stream(self, slot: int, count: int) -> list[int]:
        """The first `count` tokens of the slot's own text: a longer prompt begins with the shorter one."""
        text = self._streams.setdefault(slot, [])
        if len(text) < count:
            text += self._fresh(count - len(text))
        return text[:count]


def _whole(answers: list[Answer]) -> list[Answer]:
    for answer in answers:
        if answer.error:
            raise ServerError(answer.error)
    return answers


def _bearable(answers: Sequence[Answer], tasks: Sequence[asyncio.Task[Answer]]) -> None:
    """Raise ServerError when the server is gone, or too many of the requests that ended have failed."""
    ended = [answer for answer, task in zip(answers, tasks, strict=True) if task.done()]
    failed = [answer for answer in ended if answer.error]
    gone = [answer for answer in failed if not answer.reached]
    if gone or (len(ended) >= 5 and len(failed) > FAILED_SHARE * len(ended)):
        raise ServerError(f"{len(failed)} of {len(ended)} requests failed, the last with: {(gone or failed)[-1].error}")


async def in_time(answers: Awaitable[Found], budget_s: float = 0.0) -> Found:
    """What is awaited, unless it takes OVERTIME_S longer than `budget_s`: then a ServerError."""
    try:
        return await asyncio.wait_for(answers, budget_s + OVERTIME_S)
    except TimeoutError:
        raise ServerError(f"the server did not answer within {budget_s + OVERTIME_S:.0f} s") from None


async def _cancel(tasks: Sequence[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
