"""KV blocks by hand: who holds which, what is hit, what is evicted first. Blocks have 4 tokens, block 0 is null."""

from __future__ import annotations

from typing import Any

from simroute.engine.stepper import run_case

CONFIG = {"block_size": 4, "num_gpu_blocks": 9, "max_model_len": 32, "max_num_batched_tokens": 64, "max_num_seqs": 4}


def request(name: str, step: int, segments: list[list[int]], max_tokens: int = 1, **more: Any) -> dict[str, Any]:
    return {"id": name, "arrival_step": step, "prompt_segments": segments, "max_tokens": max_tokens, **more}


def log(*requests: dict[str, Any], **config: Any) -> list[dict[str, Any]]:
    return list(run_case({"config": CONFIG | config, "requests": list(requests)}))


def blocks_of(records: list[dict[str, Any]], name: str) -> list[int]:
    """The blocks a request held in the first step it was scheduled."""
    return next(record["blocks"][name] for record in records if name in record.get("blocks", {}))


def hit_of(records: list[dict[str, Any]], name: str) -> int:
    return next(record["admitted"][name] for record in records if name in record["admitted"])


def test_blocks_are_given_from_the_head_and_grow_with_the_context():
    """5 prompt tokens take blocks 1 and 2; the 4th answer token is computed at position 9, in block 3."""
    records = log(request("a", 0, [[1, 5]], 6))
    assert [record["blocks"]["a"] for record in records[:6]] == [[1, 2]] * 4 + [[1, 2, 3]] * 2
    assert [record["scheduled"]["a"] for record in records] == [5, 1, 1, 1, 1, 1]
    assert records[5]["finished"] == ["a"]
    assert records[5]["kv_used_after"] == 0


def test_an_aligned_full_hit_computes_its_last_block_again():
    """b's 8 tokens are all cached, but something must be computed to sample from: one block of them."""
    records = log(request("a", 0, [[1, 8]]), request("b", 3, [[1, 8]]))
    assert hit_of(records, "b") == 4
    assert blocks_of(records, "b")[0] == blocks_of(records, "a")[0]


def test_a_request_hits_what_an_earlier_one_of_the_same_step_registers():
    records = log(request("a", 0, [[1, 12]]), request("b", 0, [[1, 8], [2, 4]]))
    assert records[0]["admitted"] == {"a": 0, "b": 8}
    assert blocks_of(records, "b")[:2] == blocks_of(records, "a")[:2]


def test_answers_are_cached_too():
    """a computes 4 + 5 - 1 tokens: its second block holds answer tokens, which the next turn quotes."""
    records = log(request("a", 0, [[1, 4]], 5), request("b", 9, [[1, 4], [500, 5], [2, 3]]))
    assert hit_of(records, "b") == 8


def test_the_end_of_a_chain_is_evicted_first():
    """8 blocks: a leaves 3 cached, b takes 5 that cache nothing and 1 of a's. It is a's last; 8 tokens remain."""
    records = log(request("a", 0, [[1, 12]]), request("b", 3, [[2, 24]]), request("c", 6, [[1, 12], [3, 4]]))
    assert set(blocks_of(records, "a")) & set(blocks_of(records, "b")) == {blocks_of(records, "a")[-1]}
    assert hit_of(records, "c") == 8


def test_the_least_recently_freed_chain_is_evicted_first():
    """a and b cache 3 blocks each and 2 stay empty; a is used once more; c needs 5 blocks and takes b's."""
    again = request("a2", 6, [[1, 13]])
    records = log(request("a", 0, [[1, 12]]), request("b", 3, [[2, 12]]), again, request("c", 9, [[3, 20]]))
    assert set(blocks_of(records, "b")) < set(blocks_of(records, "c"))
    assert not set(blocks_of(records, "a")) & set(blocks_of(records, "c"))


def test_without_prefix_caching_nothing_is_hit():
    records = log(request("a", 0, [[1, 12]]), request("b", 3, [[1, 12]]), enable_prefix_caching=False)
    assert hit_of(records, "b") == 0


def test_the_gate_asks_for_the_whole_prompt():
    """a holds 5 of 8 blocks from step 1 on: b's first chunk of 4 tokens would fit, its 20 tokens do not, so c waits."""
    arrivals = request("a", 0, [[1, 16]], 4), request("b", 1, [[2, 20]]), request("c", 1, [[3, 2]])
    gated = log(*arrivals, long_prefill_token_threshold=4)
    assert [list(record["admitted"]) for record in gated[:5]] == [["a"], [], [], [], ["b", "c"]]
    assert gated[1]["waiting"] == ["b", "c"]
    freely = log(*arrivals, long_prefill_token_threshold=4, scheduler_reserve_full_isl=False)
    assert freely[1]["admitted"] == {"b": 0, "c": 0}
    assert freely[1]["scheduled"] == {"a": 1, "b": 4, "c": 2}


def test_the_watermark_keeps_blocks_free_unless_nobody_runs():
    """int(0.3 * 9) = 2 blocks must stay free: a alone may take all 8, b may join a only where 2 more are left."""
    alone = log(request("a", 0, [[1, 31]]), watermark=0.3)
    assert list(alone[0]["admitted"]) == ["a"]
    beside = log(request("a", 0, [[1, 8]], 3), request("b", 0, [[2, 20]]), watermark=0.3)
    assert list(beside[0]["admitted"]) == ["a"]
    fitting = log(request("a", 0, [[1, 8]], 3), request("b", 0, [[2, 16]]), watermark=0.3)
    assert list(fitting[0]["admitted"]) == ["a", "b"]
