"""Validation against runs whose step times are known: by hand, and from the simulator run step by step."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from calibration import synthetic
from simroute.calibration.replay import parsed_overrides
from simroute.calibration.runs import ITERATION_COLUMNS, Phase, Run, empty_table
from simroute.calibration.validate import NUMBERS, chosen_phases, metrics, validate
from simroute.errors import CalibrationError, UsageError

EXACT = 1e-9
SPREAD = {"median": 0.02, "p90": 0.05, "bias_sd": 0.05}


@pytest.fixture(scope="module")
def run() -> Run:
    return synthetic.run()


def validated(calibration, run, **options):
    return validate(calibration, run, chosen_phases(run), **{"replicates": 0, **options}).document


def errors(document, phase: str) -> dict[str, float | None]:
    found = document["phases"][phase]["metrics"]
    at = {keys: found[keys[0]][keys[1]] if len(keys) == 2 else found[keys[0]] for keys in NUMBERS}
    return {"_".join(keys): entry["error"] for keys, entry in at.items()}


def test_one_request_worked_by_hand():
    """100 tokens of prompt, 3 of answer: one step of prefill, then two that decode at contexts 101 and 102."""
    prefill_s = 5e-3 + (1 + 99 * 19 / 511) * 1e-3 + 20e-9 * 100 * 101 / 2
    decode_s = [5e-3 + 1e-3 + 50e-6 + 400e-9 * context for context in (101, 102)]
    sent_s, overhead_s = 7.0, 3e-3 + 100 * 2e-6
    times_s = sent_s + overhead_s + prefill_s + np.cumsum([0.0, *decode_s])
    row = {
        "phase": 0, "request_id": "r", "arrival_s": sent_s, "input_tokens": 100, "output_tokens": 3,
        "first_token_s": times_s[0], "finish_s": times_s[-1], "chunk_s": times_s, "ok": True, "error": None,
    }  # fmt: skip
    phases = (Phase(name="alone", kind="load", start_s=7.0, end_s=8.0),)
    run = Run(synthetic.meta(phases), empty_table(ITERATION_COLUMNS), pd.DataFrame([row]))
    document = validated(synthetic.calibration(), run)
    found = {name: error for name, error in errors(document, "alone").items() if name != "preemptions"}
    assert max(abs(error) for name, error in found.items() if not name.startswith("itl")) < EXACT
    assert max(abs(error) for error in found.values()) < 1e-3  # gaps are pooled in bins of 0.1%
    ttft = document["phases"]["alone"]["metrics"]["ttft_s"]["p99"]
    assert ttft["predicted"] == pytest.approx(overhead_s + prefill_s, rel=1e-8)


def test_the_engine_behind_the_run_is_predicted_exactly(run):
    document = validated(synthetic.calibration(), run)
    for phase in ("load-0.3", "load-0.6"):
        # Chunks were spaced evenly when they were written down: only the mean gap is the engine's.
        exact = {name: e for name, e in errors(document, phase).items() if not name.startswith("itl_s_p")}
        assert exact.pop("preemptions") is None
        assert max(map(abs, exact.values())) < EXACT
        assert document["phases"][phase]["requests"] == {"sent": 80, "compared": 80}


def test_async_scheduling_is_replayed_as_such():
    truth = synthetic.calibration(async_scheduling=True)
    run = synthetic.run(truth, rates=(5.0,), async_scheduling=True)
    document = validated(truth, run)
    assert document["engine"]["async_scheduling"] is True
    assert abs(errors(document, "load-0.5")["ttft_s_p99"]) < EXACT


def test_slower_steps_show_in_every_latency(run):
    found = errors(validated(synthetic.slower(synthetic.calibration(), 1.2), run), "load-0.6")
    assert found["tpot_s_mean"] == pytest.approx(0.2, abs=0.05)
    assert min(found[name] for name in ("ttft_s_mean", "e2e_s_mean", "e2e_s_p99", "itl_s_mean")) > 0.1


def test_intervals_hold_what_the_error_allows(run):
    wide = validated(synthetic.slower(synthetic.calibration(error=SPREAD), 1.03), run, replicates=20)
    assert wide["intervals"]["share"] > 0.8
    entry = wide["phases"]["load-0.6"]["metrics"]["tpot_s"]["mean"]
    assert entry["low"] < entry["measured"] < entry["predicted"] < entry["high"]
    narrow = validated(synthetic.slower(synthetic.calibration(), 1.03), run, replicates=2)
    assert narrow["intervals"]["share"] < 0.4
    assert "intervals rest on 2 replicates" in narrow["notes"][-1]


def test_intervals_hold_what_the_error_outside_the_engine_allows(run):
    """A client that waits 4 ms more than the calibration says, which that knows to ± 3 ms; steps are exact."""
    request = {"overhead_ms": 7.0, "per_input_token_us": 2.0, "overhead_error_ms": 3.0}
    entry = validated(synthetic.calibration(request=request), run, replicates=20)["phases"]["load-0.6"]["metrics"]
    for latency, held in (("ttft_s", True), ("e2e_s", True), ("tpot_s", True)):
        assert entry[latency]["p50"]["held"] is held
    assert entry["ttft_s"]["p50"]["high"] - entry["ttft_s"]["p50"]["low"] > 0.005
    assert entry["tpot_s"]["p50"]["high"] == pytest.approx(entry["tpot_s"]["p50"]["low"], rel=1e-6)
    assert not validated(synthetic.calibration(request=request | {"overhead_error_ms": None}), run, replicates=2)[
        "phases"
    ]["load-0.6"]["metrics"]["ttft_s"]["p50"]["held"]


def test_an_interval_without_width_holds_what_it_equals(run):
    document = validated(synthetic.calibration(), run, replicates=1)
    assert document["phases"]["load-0.3"]["metrics"]["ttft_s"]["p99"]["held"] is True


def test_the_same_seed_draws_the_same(run):
    calibration = synthetic.calibration(error=SPREAD)
    first, again, other = (validated(calibration, run, replicates=3, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first["phases"] != other["phases"]


def test_requests_cut_off_are_replayed_and_not_compared(run):
    document = validated(synthetic.calibration(), synthetic.cut(run, [3, 79]))
    summary = document["phases"]["load-0.3"]
    assert summary["requests"] == {"sent": 80, "compared": 78}
    assert "2 of 80 requests were cut off" in summary["notes"][0]
    found = errors(document, "load-0.3")
    assert max(abs(found[f"{name}_s_{point}"]) for name in ("ttft", "tpot", "e2e") for point in ("mean", "p99")) < EXACT


def test_requests_that_failed_without_a_token_are_not_replayed(run):
    added = synthetic.cut(run, [0]).requests.iloc[[0]].assign(first_token_s=np.nan, error="HTTP 500")
    requests = pd.concat([run.requests, added], ignore_index=True)
    summary = validated(synthetic.calibration(), replace(run, requests=requests))["phases"]["load-0.3"]
    assert summary["requests"] == {"sent": 81, "compared": 80}
    assert summary["metrics"]["ttft_s"]["p99"]["ape"] < EXACT
    assert "1 requests failed without a token: they are not replayed" in summary["notes"]


def test_few_requests_are_said_to_be_few(run):
    assert "only 80 requests: p99" in validated(synthetic.calibration(), run)["phases"]["load-0.3"]["notes"][0]


def test_settings_can_be_replaced(run):
    small = parsed_overrides(["num_gpu_blocks=66", "max-num-seqs=64"])
    assert small == {"num_gpu_blocks": 66, "max_num_seqs": 64}
    slow = synthetic.slower(synthetic.calibration(), 4)
    document = validated(slow, run, overrides=small)
    assert document["engine"]["num_gpu_blocks"] == 66
    assert document["phases"]["load-0.6"]["metrics"]["preemptions"]["predicted"] > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_gpu_blocks", "must be NAME=VALUE"),
        ("blocks=3", "unknown engine setting 'blocks': did you mean"),
        ("num_gpu_blocks=many", "--set num_gpu_blocks: input should be a valid integer"),
    ],
)
def test_settings_that_are_none(text, message):
    with pytest.raises(UsageError, match=message):
        parsed_overrides([text])


def test_preemptions_and_time_in_iterations_are_compared(run):
    row = dict.fromkeys(ITERATION_COLUMNS, 1) | {"t_s": 100.0, "service_s": 0.01, "phase": 0, "preempted": 2}
    steps = pd.DataFrame([row]).astype(ITERATION_COLUMNS)
    entry = validated(synthetic.calibration(), replace(run, iterations=steps))["phases"]["load-0.3"]["metrics"]
    assert entry["preemptions"]["measured"] == 2
    assert entry["preemptions"]["error"] == -1.0


@pytest.mark.parametrize(
    ("chunks", "note"),
    [(lambda times: times[::4], "a chunk carries"), (lambda times: times[:0], "times of single tokens")],
)
def test_gaps_are_compared_only_where_they_are_of_tokens(run, chunks, note):
    requests = run.requests.assign(chunk_s=[chunks(times) for times in run.requests["chunk_s"]])
    summary = validated(synthetic.calibration(), replace(run, requests=requests))["phases"]["load-0.3"]
    assert summary["metrics"]["itl_s"]["mean"]["measured"] is None
    assert any(note in line for line in summary["notes"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "large"}, "measured on model 'small', but the calibration is for 'large'"),
        ({"scheme": "fp8"}, "measured on scheme 'bf16'"),
        ({"gpu": "H100"}, "measured on GPU 'cpu'"),
        ({"tensor_parallel": 2}, "measured on 1 GPUs, but the calibration is for tensor_parallel 2"),
    ],
)
def test_a_calibration_of_something_else(run, changes, message):
    with pytest.raises(CalibrationError, match=message):
        validated(synthetic.calibration(**changes), run)


def test_what_differs_less_is_noted(run):
    other = synthetic.calibration(vllm="0.26.0", async_scheduling=True, kv_cache_dtype="fp8")
    notes = validated(other, run)["notes"]
    assert [note.split(",")[0] for note in notes] == [
        "the calibration is for vLLM 0.26.0",
        "the calibration is for async scheduling True",
        "the calibration is for KV cache type fp8",
    ]


def test_a_run_that_the_fit_has_seen_is_recognised(run):
    seen = synthetic.calibration(provenance=[{"what": "measured run", "source": "here", "sha256": "abc"}])
    assert validated(seen, run, sha256="def")["notes"] == []
    (note,) = validated(seen, run, sha256="abc")["notes"]
    assert note.startswith("the calibration was fitted on this run (measured run)")


def test_load_beyond_the_measured_range_is_said(run):
    measured = {"tokens": [1, 64], "decode_seqs": [1, 2], "decode_context_tokens": [1, 100], "prefill_pairs": [1, 100]}
    summary = validated(synthetic.calibration(range=measured), run)["phases"]["load-0.6"]
    assert len(summary["extrapolated"]) == 4
    assert validated(synthetic.calibration(), run)["phases"]["load-0.6"]["extrapolated"] == []


def test_phases_are_chosen_by_name_or_load(run):
    assert [p.name for p in chosen_phases(run)] == ["load-0.3", "load-0.6"]
    assert [p.name for p in chosen_phases(run, ["load-0.6"], [0.6])] == ["load-0.6"]
    with pytest.raises(UsageError, match=r"unknown load phase 'load-0.9': did you mean"):
        chosen_phases(run, ["load-0.9"])
    with pytest.raises(UsageError, match=r"--load 0.5: the run has loads 0.3, 0.6"):
        chosen_phases(run, (), [0.5])
    sweep = (Phase(name="sweep", kind="sweep", start_s=0, end_s=1),)
    with pytest.raises(CalibrationError, match="no load phase to validate on"):
        chosen_phases(replace(run, meta=synthetic.meta(sweep)))


def test_a_phase_in_which_nothing_finished(run):
    with pytest.raises(CalibrationError, match=r"phase 'load-0\.3': none of its 80 requests finished"):
        validated(synthetic.calibration(), synthetic.cut(run, list(range(80))))


def test_times_of_different_clocks(run):
    moved = run.requests.assign(arrival_s=run.requests["arrival_s"] + 1e6)
    with pytest.raises(CalibrationError, match="80 requests end before they begin"):
        validated(synthetic.calibration(), replace(run, requests=moved))


def test_an_engine_too_small_for_what_was_served(run):
    with pytest.raises(CalibrationError, match=r"the replay rejects \d+ of 80 requests that were served"):
        validated(synthetic.calibration(), run, overrides={"max_model_len": 128})


def test_every_metric_of_an_assertion_leads_somewhere(run):
    summary = json.loads(json.dumps(validated(synthetic.calibration(), run)["phases"]["load-0.3"]))
    for name, (keys, _) in metrics().items():
        value = summary
        for key in keys:
            assert key in value, name
            value = value[key]
