"""Draws fleets and traces in which an engine meets everything it can do; small enough for hundreds of runs."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from fleet.fleets import GPU_LIKE, make_pool

from simroute.fleet.pool import Pool
from simroute.workload.trace import Trace


def drawn_fleet(rng: random.Random) -> list[Pool]:
    """One or two pools of one to three engines, whose settings have the block size in common."""
    block_size = rng.choice([1, 2, 4, 8, 16])
    return [
        make_pool(rng.randint(1, 3), GPU_LIKE, f"pool{number}", **drawn_engine(rng, block_size))
        for number in range(rng.choice([1, 1, 2]))
    ]


def drawn_engine(rng: random.Random, block_size: int) -> dict[str, Any]:
    """Settings in which memory, batch and seats are scarce.

    The cache holds the longest request and up to four more, but now and then it has room for nearly everybody.
    """
    max_model_len = rng.choice([50, 100, 200, 400])
    needed = -(-max_model_len // block_size)
    max_num_seqs = rng.randint(1, 24)
    budget = max(max_num_seqs, rng.choice([8, 16, 33, 64, 200]))
    chunked = rng.random() < 0.85
    return {
        "num_gpu_blocks": needed + rng.randint(2, 2 + rng.choice([1, 2, 4, 30]) * needed),
        "block_size": block_size,
        "max_num_batched_tokens": budget if chunked else max(budget, max_model_len),
        "max_num_seqs": max_num_seqs,
        "max_model_len": max_model_len,
        "enable_prefix_caching": rng.random() < 0.75,
        "enable_chunked_prefill": chunked,
        "policy": rng.choice(["fcfs", "priority"]),
        "long_prefill_token_threshold": rng.choice([0, 0, 5, 12, 40]),
        "long_prefill_token_threshold_adaptive": rng.random() < 0.3,
        "scheduler_reserve_full_isl": rng.random() < 0.7,
        "watermark": rng.choice([0.0, 0.0, 0.05, 0.2]),
        "max_num_active_seqs": rng.choice([None, None, max(1, max_num_seqs - 2)]),
        "async_scheduling": rng.random() < 0.6,
    }


def drawn_trace(rng: random.Random, pools: list[Pool]) -> Trace:
    """5 to 90 requests at a rate from idle to overload, some at one instant, some after a pause.

    Most have content that others share or quote. Some answers do not fit the context (they are clipped), and in a
    second pool some prompts may not (they are rejected).
    """
    numbers = np.random.default_rng(rng.getrandbits(32))
    longest = max(pool.engine.max_model_len for pool in pools)
    requests = rng.randint(5, 90)
    prompts = numbers.integers(1, longest // 2, requests)
    answers = numbers.integers(1, longest // 2 + 20, requests)
    gaps_s = numbers.exponential(1 / rng.choice([1.0, 3.0, 10.0, 50.0]), requests)
    gaps_s[numbers.random(requests) < 0.15] = 0.0
    gaps_s[numbers.random(requests) < 0.03] += 5.0
    block_tokens = drawn_id_tokens(rng, pools[0].engine.block_size)
    return Trace.build(
        arrival_s=np.cumsum(gaps_s),
        input_tokens=prompts,
        output_tokens=answers,
        priority=numbers.integers(0, 3, requests),
        prefixes=drawn_prefixes(rng, prompts.tolist(), answers.tolist(), block_tokens),
        prefix_block_tokens=block_tokens,
    )


def drawn_id_tokens(rng: random.Random, block_size: int) -> int:
    """Tokens of one content id: a multiple of the KV block, or a divisor."""
    divisors = [size for size in (1, 2, 4, 8) if block_size % size == 0]
    return rng.choice([block_size, 2 * block_size, 4 * block_size, rng.choice(divisors)])


def drawn_prefixes(rng: random.Random, prompts: list[int], answers: list[int], block_tokens: int) -> list[list[int]]:
    """Chained ids from a random tree, narrow near its root; for half of the requests they describe the answer too.

    One trace in four has no ids at all, another has them only in its second half.
    """
    first = rng.choice([0, 0, len(prompts) // 2, len(prompts)])
    tree: dict[tuple[int, ...], int] = {}
    rows: list[list[int]] = [[] for _ in range(first)]
    for prompt, answer in zip(prompts[first:], answers[first:], strict=True):
        described = prompt + (answer if rng.random() < 0.5 else 0)
        branches, shared_depth = rng.choice([1, 2, 3]), rng.choice([2, 4, 9])
        path: tuple[int, ...] = ()
        row: list[int] = []
        for depth in range(-(-described // block_tokens)):
            path += (rng.randrange(branches if depth < shared_depth else 1000),)
            row.append(tree.setdefault(path, len(tree)))
        rows.append(row)
    return rows
