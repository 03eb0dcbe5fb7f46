"""What a router believes is cached: against the pool itself, by hand, and late."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from engine.cases import random_case, with_aborts
from engine.lockstep import abort_step, requests_of
from engine.script import Action, play

from simroute.engine.blocks import BlockPool
from simroute.engine.config import EngineConfig
from simroute.engine.kv_index import KvIndex
from simroute.engine.runs import RunPool
from simroute.engine.scheduler import Scheduler
from simroute.engine.sequence import EngineRequest

POOLS = pytest.mark.parametrize("pool", [BlockPool, RunPool])


def probe(input_tokens: int, *ids: int) -> EngineRequest:
    """A request that only asks."""
    return EngineRequest(10_000, 0.0, input_tokens, 1, prefix_ids=ids)


def publish(scheduler: Scheduler, index: KvIndex) -> None:
    """Tell the index; every block is told once as it comes and once as it goes."""
    there: set[tuple[int, int]] = set()

    def stored(content: int, lo: int, hi: int) -> None:
        blocks = {(content, k) for k in range(lo, hi)}
        assert blocks
        assert not blocks & there
        there.update(blocks)
        index.stored(content, lo, hi, 0.0)

    def removed(content: int, lo: int, hi: int) -> None:
        blocks = {(content, k) for k in range(lo, hi)}
        assert blocks
        assert blocks <= there
        there.difference_update(blocks)
        index.removed(content, lo, hi, 0.0)

    scheduler.pool.listen(stored, removed)


def drive(case: dict[str, Any], pool: type[BlockPool] | type[RunPool], blocks_per_id: int) -> list[int]:
    """Run the case; after each step ask for every prompt, the index and the pool itself. Returns all tokens hit."""
    config = EngineConfig(**case["config"])
    scheduler = Scheduler(config, pool(config.num_gpu_blocks, config.enable_prefix_caching))
    size = config.block_size
    index = KvIndex(size, size * blocks_per_id)
    publish(scheduler, index)
    arrivals = requests_of(case, blocks_per_id)
    requests = [request for _, request in arrivals]
    probes = [request for _, request in requests_of(case, blocks_per_id)]
    for k, asks in enumerate(probes):
        asks.index = 10_000 + k  # (its own content, beyond what has ids, is nowhere)
    in_flight: deque[Any] = deque()
    depth = 2 if config.async_scheduling else 1
    step = 0
    while arrivals or in_flight or scheduler.has_requests:
        while arrivals and arrivals[0][0] <= step:
            scheduler.add(arrivals.popleft()[1])
        if scheduler.has_requests:
            in_flight.append(scheduler.schedule())
            abort_step(scheduler, case, step, requests, in_flight)
        if in_flight and (len(in_flight) == depth or not scheduler.has_requests):
            scheduler.update(in_flight.popleft().finishing)
        hits = [scheduler.pool.find(asks, (asks.input_tokens - 1) // size).blocks * size for asks in probes]
        assert [index.hit_tokens(asks, 0.0) for asks in probes] == hits, f"{case['name']} step {step}"
        step += 1
    return hits


@POOLS
@pytest.mark.parametrize("blocks_per_id", [1, 3])
def test_without_delay_the_index_knows_what_the_pool_knows(pool, blocks_per_id):
    hits = [sum(drive(with_aborts(random_case(seed), seed), pool, blocks_per_id)) for seed in range(40)]
    assert sum(hits) > 1000


@pytest.mark.parametrize("blocks_per_id", [1, 3])
def test_in_the_end_both_pools_have_told_the_same(blocks_per_id):
    """In between, runs tell later what decoding wrote; once everybody has left there is nothing more to tell."""
    for seed in range(40):
        case = with_aborts(random_case(seed), seed)
        assert drive(case, RunPool, blocks_per_id) == drive(case, BlockPool, blocks_per_id)


def test_a_hit_is_the_leading_run_in_whole_blocks():
    """Blocks of 4, ids of 12 tokens: 3 blocks an id. Of 5's content the first two blocks are there, 6's are all."""
    index = KvIndex(4, 12)
    index.stored(5, 0, 2, 0.0)
    index.stored(6, 0, 3, 0.0)
    assert index.hit_tokens(probe(30, 5, 6), 0.0) == 8
    assert index.hit_tokens(probe(30, 6, 5), 0.0) == 12 + 8
    assert index.hit_tokens(probe(30, 9, 6), 0.0) == 0
    index.stored(5, 2, 3, 0.0)
    assert index.hit_tokens(probe(30, 5, 6), 0.0) == 24
    index.removed(6, 1, 3, 0.0)
    assert index.hit_tokens(probe(30, 5, 6), 0.0) == 16


def test_a_hole_ends_the_run():
    index = KvIndex(4, 12)
    index.stored(5, 0, 3, 0.0)
    index.removed(5, 0, 1, 0.0)
    assert index.hit_tokens(probe(30, 5), 0.0) == 0
    index.stored(5, 0, 1, 0.0)
    assert index.hit_tokens(probe(30, 5), 0.0) == 12


@pytest.mark.parametrize(("input_tokens", "hit"), [(9, 8), (8, 4), (5, 4), (4, 0), (1, 0)])
def test_a_token_is_left_to_compute(input_tokens, hit):
    index = KvIndex(4, 4)
    for content in (1, 2, 3):
        index.stored(content, 0, 1, 0.0)
    assert index.hit_tokens(probe(input_tokens, 1, 2, 3), 0.0) == hit


def test_the_last_of_several_ids_stands_for_their_block():
    """Blocks of 8, ids of 4 tokens: the engine knows 2 and 4 of the ids 1, 2, 3, 4, 5."""
    index = KvIndex(8, 4)
    index.stored(2, 0, 1, 0.0)
    assert index.hit_tokens(probe(20, 1, 2, 3, 4, 5), 0.0) == 8
    index.stored(4, 0, 1, 0.0)
    assert index.hit_tokens(probe(20, 1, 2, 3, 4, 5), 0.0) == 16


def test_a_trace_without_ids():
    assert KvIndex(16, 0).hit_tokens(probe(100), 0.0) == 0


def test_events_are_late():
    """Half a second each way: stored at 1 s and evicted at 2 s, it is believed there from 1.5 to 2.5 s."""
    index = KvIndex(4, 4, delay_s=0.5)
    index.stored(1, 0, 1, 1.0)
    assert index.hit_tokens(probe(9, 1), 1.25) == 0
    assert index.hit_tokens(probe(9, 1), 1.5) == 4
    index.removed(1, 0, 1, 2.0)
    assert index.hit_tokens(probe(9, 1), 2.25) == 4
    assert index.hit_tokens(probe(9, 1), 2.5) == 0


def test_a_dead_replica_caches_nothing():
    index = KvIndex(4, 4, delay_s=0.5)
    index.stored(1, 0, 1, 1.0)
    index.stored(2, 0, 1, 1.8)
    assert index.hit_tokens(probe(9, 1), 1.9) == 4
    index.clear()
    assert index.hit_tokens(probe(9, 1, 2), 9.0) == 0


def comes(index: int, at_s: float, *ids: int) -> tuple[float, Action]:
    """A request of 9 tokens, of which two blocks have ids."""
    request = EngineRequest(index, at_s, 9, 1, prefix_ids=ids)
    request.content_blocks = len(ids)
    return at_s, lambda played: played.submit(request)


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "fast"])
@pytest.mark.parametrize(("caching", "believed"), [(True, [0, 8, 8, 4]), (False, [0, 0, 0, 0])])
def test_a_replica_publishes(exact, caching, believed):
    """a's prompt is told at 1 s, when its step is scheduled, and known half a second later.

    Of 4 blocks a held 3; b needs as many at 4 s, and evicts a's second.
    """
    index = KvIndex(4, 4, delay_s=0.5)
    seen: list[int] = []
    publishes: Action = lambda played: played.replica.publish_kv_events(index)  # noqa: E731
    asks: Action = lambda played: seen.append(index.hit_tokens(probe(9, 1, 2), played.replica.env.now))  # noqa: E731
    script = [
        (0.0, publishes),
        comes(0, 1.0, 1, 2),
        comes(1, 4.0, 3, 4),
        *((at_s, asks) for at_s in (1.4, 1.6, 4.4, 4.6)),
    ]
    play(script, exact, num_gpu_blocks=5, max_model_len=16, enable_prefix_caching=caching)
    assert seen == believed
