"""Blocks counted in runs decide as blocks with ids do: one scheduler over each pool, in lock-step.

The pool with ids is held to vLLM by the golden logs and the reference; this carries the proof over to the fast one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
from engine.cases import FULL_CONFIG, random_case
from hypothesis import given, settings
from hypothesis import strategies as st

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


def drive(case: dict[str, Any], pool: type[BlockPool] | type[RunPool], blocks_per_id: int) -> Iterator[dict[str, Any]]:
    """Run the case step by step; yields queues after each schedule and after each output."""
    config = EngineConfig(**case["config"])
    scheduler = Scheduler(config, pool(config.num_gpu_blocks, config.enable_prefix_caching))
    arrivals = requests_of(case, blocks_per_id)
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
        if in_flight and (len(in_flight) == depth or not scheduler.has_requests):
            scheduler.update(in_flight.popleft().finishing)
            yield {"step": step} | queues(scheduler)
        step += 1


def check_lock_step(case: dict[str, Any], blocks_per_id: int = 1) -> list[dict[str, Any]]:
    """Both pools over one case; returns what they agreed on."""
    by_block = list(drive(case, BlockPool, blocks_per_id))
    by_run = list(drive(case, RunPool, blocks_per_id))
    for one, other in zip(by_block, by_run, strict=False):
        assert other == one, f"{case['name']} step {one['step']}"
    assert len(by_run) == len(by_block)
    assert by_block[-1]["used_blocks"] == 0, "blocks were lost"
    return by_block


@pytest.mark.parametrize("first", range(0, 120, 20))
def test_runs_decide_as_blocks_do(first):
    for seed in range(first, first + 20):
        check_lock_step(random_case(seed))


@pytest.mark.parametrize("blocks_per_id", [2, 3, 7])
def test_also_when_an_id_stands_for_several_blocks(blocks_per_id):
    for seed in range(40):
        check_lock_step(random_case(seed), blocks_per_id)


def test_also_where_nothing_is_shared_and_pauses_empty_the_engine():
    """Three bursts with an empty engine between them; only a preempted request comes back to what it computed."""
    hits = 0
    for seed in range(60):
        case = random_case(seed)
        for index, row in enumerate(case["requests"]):
            row["arrival_step"] += 1000 * (index % 3)
        hits += sum(sum(state["prefix"].values()) for state in check_lock_step(case, blocks_per_id=0))
    assert hits == 0  # (counted at first admissions)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(1_000, 1_000_000_000), blocks_per_id=st.sampled_from([0, 1, 1, 2, 4]))
def test_also_for_drawn_cases(seed, blocks_per_id):
    check_lock_step(random_case(seed), blocks_per_id)


def test_also_in_a_cache_that_thrashes():
    """Four conversations of growing length over 60 blocks: nearly every allocation evicts, divides or revives runs."""
    config = FULL_CONFIG | {"num_gpu_blocks": 61, "block_size": 4, "max_model_len": 140, "max_num_seqs": 6}
    requests = [
        {
            "id": f"{turn}.{talk}",
            "arrival_step": 12 * turn + talk,
            "prompt_segments": [
                segment for t in range(turn + 1) for segment in ([10 + talk, 9, 9 * t], [500 + talk, 5])
            ],
            "max_tokens": 16,
            "out_seed": 500 + talk,
        }
        for turn in range(7)
        for talk in range(4)
    ]
    for asynchronous in (False, True):
        case = {"name": "conversations", "config": config | {"async_scheduling": asynchronous}, "requests": requests}
        log = check_lock_step(case)
        assert log[-1]["preemptions"] > 3
        hits = {index: tokens for state in log for index, tokens in state["prefix"].items()}
        assert len(hits) == len(requests)
        queried = sum(segment[1] for request in requests for segment in request["prompt_segments"])
        assert 0.1 < sum(hits.values()) / queried < 0.9
