"""Cases for the stepper: vLLM's golden logs, and random ones that are small enough to be full of trouble.

A case is `{"config": ..., "requests": [...]}`, as `simroute.engine.stepper.run_case` takes it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))
"""Decision logs of vLLM's own scheduler and KV-cache manager (each names its `vllm_version`)."""

FULL_CONFIG = {
    "num_gpu_blocks": 1024,
    "block_size": 16,
    "max_num_batched_tokens": 2048,
    "max_num_seqs": 128,
    "max_model_len": 1024,
    "enable_prefix_caching": True,
    "enable_chunked_prefill": True,
    "policy": "fcfs",
    "long_prefill_token_threshold": 0,
    "long_prefill_token_threshold_adaptive": False,
    "scheduler_reserve_full_isl": True,
    "watermark": 0.0,
    "max_num_active_seqs": None,
    "async_scheduling": False,
}
"""Every setting that a scheduler needs, for drivers that know no defaults."""


def read(path: Path) -> dict[str, Any]:
    """One case with its log."""
    case: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return case


def random_case(seed: int) -> dict[str, Any]:
    """A case in which memory, batch and seats are all scarce, with shared prefixes and quoted answers."""
    rng = random.Random(seed)
    config = FULL_CONFIG | random_config(rng)
    requests = random_requests(rng, config["max_model_len"])
    return {"name": f"random-{seed}", "config": config, "requests": requests}


def random_config(rng: random.Random) -> dict[str, Any]:
    """Engine settings; the cache holds the longest request and at most three more of them."""
    block_size = rng.choice([1, 2, 3, 4, 8, 16])
    max_model_len = rng.choice([40, 100, 180])
    needed = -(-max_model_len // block_size)
    max_num_seqs = rng.randint(1, 10)
    chunked = rng.random() < 0.85
    budget = max(max_num_seqs, rng.choice([6, 12, 24, 50, 100, 250]))
    return {
        "num_gpu_blocks": needed + rng.randint(2, 2 + 3 * needed),
        "block_size": block_size,
        "max_num_batched_tokens": budget if chunked else max(budget, max_model_len),
        "max_num_seqs": max_num_seqs,
        "max_model_len": max_model_len,
        "enable_prefix_caching": rng.random() < 0.7,
        "enable_chunked_prefill": chunked,
        "policy": rng.choice(["fcfs", "priority"]),
        "long_prefill_token_threshold": rng.choice([0, 0, 4, 9, 30]),
        "long_prefill_token_threshold_adaptive": rng.random() < 0.3,
        "scheduler_reserve_full_isl": rng.random() < 0.6,
        "watermark": rng.choice([0.0, 0.0, 0.03, 0.15]),
        "max_num_active_seqs": rng.choice([None, None, max(1, max_num_seqs - 3)]),
        "async_scheduling": rng.random() < 0.5,
    }


def random_requests(rng: random.Random, max_model_len: int) -> list[dict[str, Any]]:
    """3 to 40 requests over 60 steps: some begin alike, some repeat a prompt, some go on from another's answer.

    Answers may be longer than the model allows: they are clipped.
    """
    requests: list[dict[str, Any]] = []
    for i in range(rng.randint(3, 40)):
        segments = _prompt(rng, requests, max_model_len)
        requests.append(
            {
                "id": f"r{i:02d}",
                "arrival_step": rng.randrange(60),
                "prompt_segments": segments,
                "max_tokens": rng.randint(1, 60),
                "priority": rng.randrange(3),
            }
        )
    return requests


def with_aborts(case: dict[str, Any], seed: int, share: float = 0.4) -> dict[str, Any]:
    """The case with clients that go away: so many of them, at any time from their arrival to long after.

    Most go soon, when requests wait or prefill.
    """
    rng = random.Random(f"aborts {seed}")
    rows = [
        row | {"abort_step": row["arrival_step"] + int(rng.expovariate(1 / 15))} if rng.random() < share else row
        for row in case["requests"]
    ]
    return case | {"name": f"{case['name']}-aborts", "requests": rows}


def _prompt(rng: random.Random, earlier: list[dict[str, Any]], max_model_len: int) -> list[list[int]]:
    kind = rng.random()
    own = [200 + len(earlier), rng.randint(1, max_model_len // 3)]
    segments = [own]
    if earlier and kind < 0.1:
        segments = rng.choice(earlier)["prompt_segments"]
    elif earlier and kind < 0.3:  # the next turn of a conversation: prompt, part of the answer, new text
        turn = rng.randrange(len(earlier))
        quoted = rng.randint(1, earlier[turn]["max_tokens"])
        segments = [*earlier[turn]["prompt_segments"], [500 + turn, quoted], own]
    elif kind < 0.8:
        segments = [[rng.randint(1, 3), rng.randint(1, max_model_len // 2)], own]
    return segments if sum(length for _, length in segments) < max_model_len else [own]


def ordered(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with its mappings as lists of pairs: the order of scheduling is a decision too."""
    return {key: list(value.items()) if isinstance(value, dict) else value for key, value in record.items()}
