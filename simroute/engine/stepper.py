"""Runs one engine step by step, without a clock: `python -m simroute.engine.stepper CASE.json` prints each decision.

A case is `{"config": {...}, "requests": [...]}` with vLLM's names; see `run_case`. The log has the form of the logs
taken from vLLM's own scheduler, block ids included, and is compared with them in the tests.
May import the engine's parts and errors.
"""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from simroute.engine.blocks import BlockPool
from simroute.engine.config import EngineConfig
from simroute.engine.output import SchedulerOutput
from simroute.engine.scheduler import Scheduler
from simroute.engine.sequence import EngineRequest
from simroute.errors import SimrouteError, UsageError

SEGMENT_STRIDE = 1_000_000
FIRST_OUTPUT_SEED = 500
ORACLE_DEFAULTS = {
    "num_gpu_blocks": 1024,
    "max_num_batched_tokens": 2048,
    "max_num_seqs": 128,
    "async_scheduling": False,
}


def run_case(case: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield one record a step for `case`.

    `config` holds EngineConfig's fields. A request has `id`, `arrival_step`, `max_tokens`, `prompt` (token ids) or
    `prompt_segments` ([seed, n, start=0] stands for the tokens seed * 1e6 + start ...), and optionally `priority`,
    `out_seed` (its k-th answer token is out_seed * 1e6 + k, so that a later prompt can quote it) and `abort_step`
    (its client goes while that step executes: it leaves when it is scheduled, before an output is processed).
    Raises UsageError for a config that vLLM refuses or that has unknown keys.
    """
    return _Stepper(case).run()


class _Stepper:
    """Feeds requests by step number and keeps the steps in flight (one, or two under async scheduling)."""

    def __init__(self, case: Mapping[str, Any]) -> None:
        try:
            config = EngineConfig(**{**ORACLE_DEFAULTS, **case.get("config", {})})
        except TypeError as error:
            raise UsageError(f"config: {error}") from error
        self.config = config
        self.scheduler = Scheduler(config, BlockPool(config.num_gpu_blocks, config.enable_prefix_caching))
        self.names: list[str] = [row["id"] for row in case["requests"]]
        contents = Contents(config.block_size)
        self.pending = deque(
            sorted(
                ((row["arrival_step"], contents.request(i, row)) for i, row in enumerate(case["requests"])),
                key=lambda item: (item[0], item[1].index),
            )
        )
        self.aborts: dict[int, list[EngineRequest]] = {}
        for request in sorted((request for _, request in self.pending), key=attrgetter("index")):
            if (abort_step := case["requests"][request.index].get("abort_step")) is not None:
                self.aborts.setdefault(abort_step, []).append(request)
        self.in_flight: deque[tuple[SchedulerOutput, list[str]]] = deque()  # with the ids that sample
        self.flush = False  # finished ids are reported by one more, empty schedule
        self.queries = self.hits = 0

    def run(self) -> Iterator[dict[str, Any]]:
        step, scheduler = 0, self.scheduler
        while True:
            while self.pending and self.pending[0][0] <= step:
                scheduler.add(self.pending.popleft()[1])
            if not self.in_flight and not scheduler.has_requests:
                if not self.pending:
                    return
                step = self.pending[0][0]
                continue
            yield self._step(step)
            step += 1

    def _step(self, step: int) -> dict[str, Any]:
        scheduler = self.scheduler
        record = self._queues(step)
        if scheduler.has_requests or self.flush:
            self._schedule(record)
            self.flush = self._abort(step)
            if len(self.in_flight) < (2 if self.config.async_scheduling else 1):
                return record | {"finished": [], "output_tokens": {}, "kv_used_after": scheduler.used_blocks}
        output, samples = self.in_flight.popleft()
        scheduler.update(output.finishing)
        self.flush |= bool(output.finishing)
        record["finished"] = self._ids(output.finishing)
        record["output_tokens"] = dict.fromkeys(samples, 1)
        record["kv_used_after"] = scheduler.used_blocks
        record["prefix"] = {"queries": self.queries, "hits": self.hits}
        self.queries = self.hits = 0
        return record

    def _abort(self, step: int) -> bool:
        """Those whose clients go in this step leave. Returns whether there are any."""
        gone = [request for request in self.aborts.get(step, ()) if self.scheduler.abort(request)]
        names = set(self._ids(gone))
        for _ in range(len(self.in_flight) if gone else 0):
            output, samples = self.in_flight.popleft()
            output.finishing = [request for request in output.finishing if request not in gone]
            self.in_flight.append((output, [name for name in samples if name not in names]))
        return bool(gone)

    def _ids(self, requests: Iterable[EngineRequest]) -> list[str]:
        return [self.names[request.index] for request in requests]

    def _queues(self, step: int) -> dict[str, Any]:
        scheduler = self.scheduler
        return {
            "step": step,
            "scheduled": {},
            "start": {},
            "samples": [],
            "admitted": {},
            "preempted": [],
            "running": self._ids(scheduler.running),
            "waiting": self._ids(scheduler.waiting),
            "kv_used_blocks": scheduler.used_blocks,
            "total_tokens": 0,
        }

    def _schedule(self, record: dict[str, Any]) -> None:
        scheduler, names = self.scheduler, self.names
        out = scheduler.schedule()
        record.update(self._queues(record["step"]))
        scheduled = {**out.scheduled, **out.admitted}
        start = {request: request.num_computed_tokens - tokens for request, tokens in scheduled.items()}
        samples = [request for request in scheduled if request.decoding]
        record["scheduled"] = {names[request.index]: tokens for request, tokens in scheduled.items()}
        record["start"] = {names[request.index]: tokens for request, tokens in start.items()}
        record["samples"] = self._ids(samples)
        record["admitted"] = {names[request.index]: start[request] for request in out.admitted}
        new = [request for request in out.admitted if not request.preemptions and self.config.enable_prefix_caching]
        self.queries += sum(request.input_tokens for request in new)
        self.hits += sum(request.cached_tokens for request in new)
        record["preempted"] = self._ids(out.preempted)
        record["total_tokens"] = out.total_tokens
        if out.preempted:
            last = "self" if out.preempted_itself else "other"
            record["preempt_kind"] = ["other"] * (len(out.preempted) - 1) + [last]
        record["blocks"] = {names[request.index]: [block.block_id for block in request.blocks] for request in scheduled}
        self.in_flight.append((out, record["samples"]))


class Contents:
    """Turns token ids into chained content ids, one a block: equal ids for equal tokens from the start."""

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self._ids: dict[tuple[int, tuple[int, ...]], int] = {}

    def request(self, index: int, row: Mapping[str, Any]) -> EngineRequest:
        """The engine's request for row `index` of a case, its prompt and its answer described by content ids."""
        prompt = list(row.get("prompt") or expand_segments(row["prompt_segments"]))
        answer = expand_segments([(row.get("out_seed", FIRST_OUTPUT_SEED + index), row["max_tokens"])])
        request = EngineRequest(
            index,
            row["arrival_step"] + index * 1e-6,
            len(prompt),
            row["max_tokens"],
            priority=row.get("priority", 0),
        )
        request.prefix_ids = self._chain(prompt + answer)
        request.content_blocks = len(request.prefix_ids)
        return request

    def _chain(self, tokens: list[int]) -> list[int]:
        ids: list[int] = []
        parent = -1
        for start in range(0, len(tokens) - self.block_size + 1, self.block_size):
            key = (parent, tuple(tokens[start : start + self.block_size]))
            parent = self._ids.setdefault(key, len(self._ids))
            ids.append(parent)
        return ids


def expand_segments(segments: Iterable[Sequence[int]]) -> list[int]:
    """Token ids of [seed, n, start=0] segments: seed * 1e6 + start, and so on for n tokens."""
    tokens: list[int] = []
    for seed, count, *rest in segments:
        first = seed * SEGMENT_STRIDE + (rest[0] if rest else 0)
        tokens.extend(range(first, first + count))
    return tokens


def main(arguments: Sequence[str]) -> int:
    """Print the log of the case file named on the command line; 2 for a usage or configuration error."""
    if len(arguments) != 1:
        print("usage: python -m simroute.engine.stepper CASE.json", file=sys.stderr)
        return 2
    try:
        case = json.loads(Path(arguments[0]).read_text())
        for record in run_case(case):
            print(json.dumps(record, separators=(",", ":")))
    except (OSError, ValueError, KeyError, SimrouteError) as error:
        print(f"{arguments[0]}: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
