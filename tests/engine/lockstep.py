"""One scheduler over each pool, in lock-step: blocks counted in runs decide as blocks with ids do."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from simroute.engine.blocks import BlockPool
from simroute.engine.config import EngineConfig
from simroute.engine.runs import RunPool
from simroute.engine.scheduler import Scheduler
from simroute.engine.sequence import EngineRequest
from simroute.engine.stepper import Contents


def requests_of(case: dict[str, Any], blocks_per_id: int) -> deque[tuple[int, EngineRequest]]:
    """The case's requests by arrival, each content id describing `blocks_per_id` blocks (0: nothing is shared)."""
    contents = Contents(case["config"]["block_size"] * max(blocks_per_id, 1))
    rows = []
    for index, row in enumerate(case["requests"]):
        request = contents.request(index, row)
        request.prefix_ids = request.prefix_ids if blocks_per_id else ()
        request.blocks_per_id = max(blocks_per_id, 1)
        request.content_blocks = len(request.prefix_ids) * blocks_per_id
        rows.append((row["arrival_step"], request))
    return deque(sorted(rows, key=lambda item: (item[0], item[1].index)))


def numbers(requests: Any) -> list[int]:
    return [request.index for request in requests]


def decided(scheduler: Scheduler) -> tuple[Any, dict[str, Any]]:
    """One schedule, and what of it does not depend on how the pool keeps count."""
    out = scheduler.schedule()
    return out, {
        "admitted": {request.index: tokens for request, tokens in out.admitted.items()},
        "preempted": numbers(out.preempted),
        "itself": out.preempted_itself,
        "first": numbers(out.first),
        "resumed": numbers(out.resumed),
        "finishing": numbers(out.finishing),
        "decoding": out.decoding,
        "total_tokens": out.total_tokens,
        "batch": out.batch,
    }


def queues(scheduler: Scheduler) -> dict[str, Any]:
    return {
        "running": numbers(scheduler.running),
        "waiting": numbers(scheduler.waiting),
        "used_blocks": scheduler.used_blocks,
        "preemptions": scheduler.preemptions,
        "prefix": {request.index: request.cached_tokens for request in scheduler.running},
    }


def abort_step(
    scheduler: Scheduler, case: dict[str, Any], step: int, requests: list[EngineRequest], in_flight: deque[Any]
) -> None:
    """Those of `requests` whose clients go in this step leave."""
    for request in requests:
        if case["requests"][request.index].get("abort_step") == step and scheduler.abort(request):
            for out in in_flight:
                out.finishing = [other for other in out.finishing if other is not request]


def drive(case: dict[str, Any], pool: type[BlockPool] | type[RunPool], blocks_per_id: int) -> Iterator[dict[str, Any]]:
    """Run the case step by step; yields queues after each schedule and after each output."""
    config = EngineConfig(**case["config"])
    scheduler = Scheduler(config, pool(config.num_gpu_blocks, config.enable_prefix_caching))
    arrivals = requests_of(case, blocks_per_id)
    requests = [request for _, request in arrivals]
    in_flight: deque[Any] = deque()
    depth = 2 if config.async_scheduling else 1
    step = 0
    while arrivals or in_flight or scheduler.has_requests:
        while arrivals and arrivals[0][0] <= step:
            scheduler.add(arrivals.popleft()[1])
        if scheduler.has_requests:
            out, decision = decided(scheduler)
            in_flight.append(out)
            yield {"step": step} | decision | queues(scheduler)
            abort_step(scheduler, case, step, requests, in_flight)
            yield {"step": step} | queues(scheduler)
        if in_flight and (len(in_flight) == depth or not scheduler.has_requests):
            scheduler.update(in_flight.popleft().finishing)
            yield {"step": step} | queues(scheduler)
        step += 1
    assert not scheduler.pool._own, "somebody who has left is expected back"


def check_lock_step(case: dict[str, Any], blocks_per_id: int = 1) -> list[dict[str, Any]]:
    """Both pools over one case; returns what they agreed on."""
    by_block = list(drive(case, BlockPool, blocks_per_id))
    by_run = list(drive(case, RunPool, blocks_per_id))
    for one, other in zip(by_block, by_run, strict=False):
        assert other == one, f"{case['name']} step {one['step']}"
    assert len(by_run) == len(by_block)
    assert by_block[-1]["used_blocks"] == 0, "blocks were lost"
    return by_block
