"""What lies beyond the measured range, from runs built by hand."""

import numpy as np
import pytest
from results.runs import make_replica, make_run, make_trace, reject

from simroute.hardware.calibration import MeasuredRange
from simroute.results.extrapolation import StepTimes, extrapolated
from simroute.results.metrics import summarise

INSIDE = {"tokens": 100, "decode_seqs": 8, "decode_context_tokens": 8000, "prefill_pairs": 5050}


def step_times(max_num_batched_tokens=2048, basis="measured", **limits):
    spans = {name: (1, limit) for name, limit in (INSIDE | limits).items()}
    return StepTimes(basis, MeasuredRange(**spans), 16, max_num_batched_tokens)


@pytest.fixture
def run():
    """Two replicas of 1,000 blocks in two pools; the first, alone busy, runs up to 8 requests in half its cache."""
    replicas = [make_replica(0, "busy"), make_replica(1, "idle")]
    found = make_run(make_trace([0.0, 1.0, 2.0]), [0.1] * 3, [1.0] * 3, replicas=replicas)
    found.timeline.running[2, 0] = 8
    found.timeline.kv_usage[1, 0] = 0.5
    return found


def test_what_was_measured_is_not_extrapolated(run):
    assert extrapolated(run, {"busy": step_times(), "idle": step_times()}) == {"busy": [], "idle": []}


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("decode_seqs", "8 requests decoding at once, measured up to 7"),
        ("decode_context_tokens", "8,000 tokens of context in a batch, measured up to 7,999"),
        ("tokens", "100 tokens in a batch, measured up to 99"),
        ("prefill_pairs", "5,050 pairs of prefill attention in a batch, measured up to 5,049"),
    ],
)
def test_each_limit_is_compared_by_pool(run, what, reason):
    found = extrapolated(run, {"busy": step_times(**{what: INSIDE[what] - 1}), "idle": step_times(**{what: 0})})
    assert found == {"busy": [reason], "idle": []}


def test_a_batch_ends_at_the_budget_and_its_last_chunk_sees_the_whole_prompt(run):
    known = step_times(max_num_batched_tokens=30, tokens=29, prefill_pairs=0)
    tokens, pairs = extrapolated(run, {"busy": known})["busy"]
    assert tokens.startswith("30 tokens in a batch")
    # The last 30 of 100 tokens, each with the 70 before them, and with one another.
    assert pairs.startswith(f"{30 * 70 + 30 * 31 // 2:,} pairs")


def test_cached_prompts_and_rejected_requests_are_not_computed(run):
    run.cached_tokens[:] = 96
    assert extrapolated(run, {"busy": step_times(tokens=4)}) == {"busy": []}
    run.cached_tokens[1] = 0
    assert extrapolated(run, {"busy": step_times(tokens=4)})["busy"] != []
    reject(run, 1)
    assert extrapolated(run, {"busy": step_times(tokens=4)}) == {"busy": []}


def test_the_summary_says_it_by_pool_and_in_a_note(run):
    known = {"busy": step_times(decode_seqs=4), "idle": StepTimes("estimated", None, 16, 2048)}
    summary = summarise(run, {}, lambda _pool, _class: None, step_times=known)
    reason = "8 requests decoding at once, measured up to 4"
    assert summary["extrapolated"] == [f"pool busy: {reason}"]
    assert f"extrapolated: pool busy: {reason}" in summary["notes"]
    assert [summary["by_pool"][p]["basis"] for p in ("busy", "idle")] == ["measured", "estimated"]
    assert [summary["by_pool"][p]["extrapolated"] for p in ("busy", "idle")] == [[reason], []]


def test_a_run_without_requests_extrapolates_nothing():
    empty = make_run(make_trace([]), [], [], replica=[], end_s=1.0)
    empty.timeline.running = np.zeros((0, 1), dtype=np.int32)
    empty.timeline.kv_usage = np.zeros((0, 1), dtype=np.float32)
    assert extrapolated(empty, {"h100": step_times(tokens=1)}) == {"h100": []}
