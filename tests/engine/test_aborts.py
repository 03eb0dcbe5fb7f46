"""Aborts, step by step: against the executable reference of vLLM's scheduler, and runs against blocks in lock-step."""

from __future__ import annotations

import heapq
import importlib.util
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from engine.cases import ordered, random_case, with_aborts
from engine.lockstep import check_lock_step

from simroute.engine.blocks import BlockPool
from simroute.engine.config import EngineConfig
from simroute.engine.runs import RunPool
from simroute.engine.scheduler import Scheduler
from simroute.engine.sequence import EngineRequest
from simroute.engine.stepper import run_case

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "vllm" / "ref_sched.py"
CASES = 200
BATCH = 25


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    if not REFERENCE.is_file():
        pytest.skip(f"the reference scheduler is not at {REFERENCE}")
    spec = importlib.util.spec_from_file_location("reference_scheduler", REFERENCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def aborted(scheduler: Any, name: str) -> bool:
    """vLLM's `finish_requests` for one request of the reference, which has none of its own."""
    request = scheduler.reqs.pop(name, None)
    if request is None:
        return False
    (scheduler.run if request.state == "R" else scheduler.wait).remove(request)
    if scheduler.pri:
        scheduler.wait = list(scheduler.wait)
        heapq.heapify(scheduler.wait)
    scheduler.free(request)
    return True


def run_reference(reference: ModuleType, case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The reference's own loop, with those who go in a step taken out before the output that arrives there."""
    scheduler = reference.Sched(case["config"])
    rows = sorted(((row["arrival_step"], i, row) for i, row in enumerate(case["requests"])), key=lambda t: t[:2])
    pending, in_flight = deque(rows), deque()
    depth = 2 if case["config"]["async_scheduling"] else 1
    step, flush = 0, False
    while True:
        while pending and pending[0][0] <= step:
            _, i, row = pending.popleft()
            scheduler.add(reference.Req(row, i, scheduler.bs))
        if not in_flight and not scheduler.reqs:
            if not pending:
                return
            step = pending[0][0]
            continue
        record = {"step": step, "scheduled": {}, "start": {}, "samples": [], "admitted": {}, "preempted": []}
        record |= {"running": [r.id for r in scheduler.run], "kv_used_blocks": scheduler.used, "finished": []}
        record["waiting"] = [r.id for r in (sorted(scheduler.wait) if scheduler.pri else scheduler.wait)]
        waits_for_output = True
        if scheduler.reqs or flush:
            out = scheduler.schedule()
            record.update(out)
            in_flight.append(out)
            gone = [row["id"] for row in case["requests"] if row.get("abort_step") == step]
            flush = sum(aborted(scheduler, name) for name in gone) > 0
            waits_for_output = len(in_flight) == depth
        if waits_for_output:
            record["finished"] = scheduler.update(in_flight.popleft())
            flush |= bool(record["finished"])
        yield record | {"kv_used_after": scheduler.used}
        step += 1


def decisions(records: Iterator[dict[str, Any]], keys: set[str]) -> list[dict[str, Any]]:
    return [ordered({key: ({"blocks": {}} | record)[key] for key in keys}) for record in records]


@pytest.mark.parametrize("first", range(0, CASES, BATCH))
def test_random_cases_agree_step_by_step(first, reference):
    keys = {*reference.KEYS, "blocks"}
    for seed in range(first, first + BATCH):
        case = with_aborts(random_case(seed), seed)
        mine = decisions(run_case(case), keys)
        theirs = decisions(run_reference(reference, case), keys)
        for step, (one, other) in enumerate(zip(mine, theirs, strict=False)):
            assert one == other, f"seed {seed}, step {step}"
        assert len(mine) == len(theirs), f"seed {seed}"


@pytest.mark.parametrize("blocks_per_id", [0, 1, 3])
def test_runs_decide_as_blocks_do(blocks_per_id):
    """Whoever is aborted, wherever it is, both pools go on alike, and no block is lost."""
    for seed in range(60):
        check_lock_step(with_aborts(random_case(seed), seed), blocks_per_id)


@pytest.mark.parametrize("blocks_per_id", [1, 2])
def test_also_where_many_write_the_same(blocks_per_id):
    """Three prompts, each with its one answer, which half of the requests quote, over again.

    Whose copy of a block is the older, and is hit, decides what is evicted.
    """
    for seed in range(60):
        case = with_aborts(random_case(seed), seed, share=0.6)
        rows = []
        for i, row in enumerate(case["requests"]):
            prompt = [[100 + i % 3, 9 + 4 * (i % 3)]]
            quotes = [[500 + i % 3, 5 + i % 7], [900 + i, 2]] if i % 2 else []
            arrival_step = row["arrival_step"] // 3
            abort_step = row.get("abort_step", -1) - row["arrival_step"] + arrival_step
            rows.append({"id": row["id"], "prompt_segments": prompt + quotes, "out_seed": 500 + i % 3 + 1000 * (i % 2)})
            rows[-1] |= {"arrival_step": arrival_step, "max_tokens": 20, "priority": row["priority"]}
            rows[-1] |= {"abort_step": abort_step}
        check_lock_step(case | {"requests": rows}, blocks_per_id)


def test_the_cases_abort_requests_wherever_they_can_be():
    met = set()
    for seed in range(60):
        case = with_aborts(random_case(seed), seed)
        records = list(run_case(case))
        ended = {name: record["step"] for record in records for name in record["finished"]}
        for row in case["requests"]:
            name, step = row["id"], row.get("abort_step", -1)
            record = next((record for record in records if record["step"] == step), None)
            if record is None or ended.get(name, step) < step:
                met.add("gone before")
            elif name in record["waiting"]:
                met.add("preempted" if any(name in other["start"] for other in records) else "waiting")
            elif name in record["running"]:
                met.add("decoding" if any(name in other["samples"] for other in records) else "prefilling")
    assert met == {"gone before", "waiting", "preempted", "prefilling", "decoding"}


def scheduler_of(pool: type[BlockPool] | type[RunPool], **more: Any) -> Scheduler:
    settings = {"num_gpu_blocks": 9, "block_size": 4, "max_model_len": 32, "async_scheduling": False} | more
    config = EngineConfig(**settings)
    return Scheduler(config, pool(config.num_gpu_blocks, config.enable_prefix_caching))


def described(request: EngineRequest, *ids: int) -> EngineRequest:
    """The request, its leading blocks described by these ids."""
    request.prefix_ids = ids
    request.content_blocks = len(ids)
    return request


@pytest.mark.parametrize("pool", [BlockPool, RunPool])
def test_what_an_aborted_request_computed_stays_hittable(pool):
    """8 of its 10 prompt tokens are two full blocks with ids: the next with the same prompt begins behind them."""
    scheduler = scheduler_of(pool)
    first = described(EngineRequest(0, 0.0, 10, 5), 7, 8)
    scheduler.add(first)
    scheduler.schedule()
    assert scheduler.used_blocks == 3
    assert scheduler.abort(first)
    assert not scheduler.holds(first)
    assert scheduler.used_blocks == 0
    scheduler.add(described(EngineRequest(0, 1.0, 10, 5), 7, 8))
    assert list(scheduler.schedule().admitted.values()) == [2]


@pytest.mark.parametrize("pool", [BlockPool, RunPool])
def test_a_retry_does_not_find_what_has_no_id(pool):
    """The first attempt is preempted, aborted, and tried again under its index: as if another had come."""
    scheduler = scheduler_of(pool, num_gpu_blocks=10)
    others = [described(EngineRequest(0, 0.0, 12, 9), 1, 2, 3), EngineRequest(1, 0.0, 16, 9)]
    for request in others:
        scheduler.add(request)
    while not scheduler.preemptions:
        scheduler.update(scheduler.schedule().finishing)
    assert list(scheduler.waiting) == [others[1]]
    assert scheduler.abort(others[1])
    assert scheduler.abort(others[0])
    scheduler.add(EngineRequest(1, 1.0, 16, 9))
    assert list(scheduler.schedule().admitted.values()) == [16]


def test_an_unknown_request_is_not_aborted():
    scheduler = scheduler_of(RunPool)
    assert not scheduler.abort(EngineRequest(0, 0.0, 10, 5))


@pytest.mark.parametrize("policy", ["fcfs", "priority"])
def test_room_comes_back(policy):
    """Two requests demand 2 * (28 + 4) tokens of the 32 there are: blocks are counted until both have gone."""
    scheduler = scheduler_of(RunPool, policy=policy)
    requests = [EngineRequest(index, float(index), 8, 20) for index in range(2)]
    for request in requests:
        scheduler.add(request)
    assert not scheduler.roomy
    scheduler.schedule()
    for request in requests:
        scheduler.abort(request)
    assert scheduler.roomy
    assert not scheduler.has_requests
    assert scheduler.used_blocks == 0
