"""Blocks counted in runs decide as blocks with ids do: one scheduler over each pool, in lock-step.

The pool with ids is held to vLLM by the golden logs and the reference; this carries the proof over to the fast one.
"""

from __future__ import annotations

import pytest
from engine.cases import FULL_CONFIG, random_case
from engine.lockstep import check_lock_step
from hypothesis import given, settings
from hypothesis import strategies as st


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
