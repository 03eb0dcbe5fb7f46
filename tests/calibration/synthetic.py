"""A calibration with round numbers, and runs that a simulated engine with known step times leaves behind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from simroute.calibration.replay import _TheOne, engine_config
from simroute.calibration.runs import ITERATION_COLUMNS, REQUEST_COLUMNS, Host, Phase, Run, RunMeta, empty_table
from simroute.fleet.cluster import simulate
from simroute.fleet.pool import Pool
from simroute.hardware.calibration import Calibration
from simroute.hardware.fitted import FittedStepTime
from simroute.policy.snapshot import VariantInfo
from simroute.results.run import FleetRun
from simroute.workload.trace import Trace

ENGINE = {"num_gpu_blocks": 400, "block_size": 16, "max_num_seqs": 16, "max_num_batched_tokens": 512}


def calibration(**changes: object) -> Calibration:
    """Steps of 5 ms and more; `bias_sd` 0 unless changed, so that every draw is the same."""
    data = {
        "model": "small",
        "scheme": "bf16",
        "gpu": "cpu",
        "vllm": "0.32.0",
        "async_scheduling": False,
        "basis": "measured",
        "step": {
            "launch_ms": 5.0,
            "gemm_ms": {1: 1.0, 512: 20.0},
            "decode_seq_us": 50.0,
            "prefill_pair_ns": 20.0,
            "decode_context_token_ns": 400.0,
        },
        "request": {"overhead_ms": 3.0, "per_input_token_us": 2.0},
        "range": {
            "tokens": [1, 512],
            "decode_seqs": [1, 16],
            "decode_context_tokens": [1, 8000],
            "prefill_pairs": [1, 200_000],
        },
        "error": {"median": 0.01, "p90": 0.03, "bias_sd": 0.0},
    }
    return Calibration.model_validate({**data, **changes})


def meta(phases: tuple[Phase, ...], **changes: object) -> RunMeta:
    """An engine of the size of `ENGINE`."""
    values = {
        "gpu": "cpu",
        "vllm": "0.32.0",
        "model": "small",
        "hf_config": {},
        "scheme": "bf16",
        "max_model_len": 1024,
        "async_scheduling": False,
        "enable_prefix_caching": False,
        "dummy_weights": True,
        "host": Host(cpu="a cpu", cores=2),
        "phases": phases,
        **ENGINE,
    }
    return RunMeta(**{**values, **changes})


def poisson(rate: float, requests: int, seed: int) -> Trace:
    """Open-loop arrivals with prompts and answers of mixed lengths."""
    rng = np.random.default_rng(seed)
    return Trace.build(
        arrival_s=np.cumsum(rng.exponential(1 / rate, requests)),
        input_tokens=rng.integers(20, 400, requests),
        output_tokens=rng.integers(2, 80, requests),
    )


def engine_run(trace: Trace, truth: Calibration, described: RunMeta) -> FleetRun:
    """What an engine with the step times of `truth` does with `trace`, one step after another."""
    variant = VariantInfo("pool", "small", "bf16", "cpu", 1, 0.0, 0.0, 16, {})
    pool = Pool("pool", 1, variant, engine_config(described, {}), FittedStepTime(truth), 1)
    return simulate(trace, [pool], _TheOne(), policy_name="engine", seed=0, exact=True)


def request_rows(phase: int, start_s: float, of: FleetRun, truth: Calibration) -> pd.DataFrame:
    """requests.parquet of one phase, as a client would record it: chunks evenly spaced."""
    trace = of.trace
    terms = truth.request
    extra_s = terms.overhead_ms * 1e-3 + terms.per_input_token_us * 1e-6 * trace.input_tokens
    first_s, last_s = of.first_token_s + extra_s + start_s, of.finish_s + extra_s + start_s
    chunks = [np.linspace(a, b, n) for a, b, n in zip(first_s, last_s, trace.output_tokens, strict=True)]
    columns = {
        "phase": phase,
        "request_id": [f"r{phase}-{i}" for i in range(len(trace))],
        "arrival_s": trace.arrival_s + start_s,
        "input_tokens": trace.input_tokens,
        "output_tokens": trace.output_tokens,
        "first_token_s": first_s,
        "finish_s": last_s,
        "chunk_s": chunks,
        "ok": True,
        "error": None,
    }
    return pd.DataFrame(columns)[list(REQUEST_COLUMNS)]


def run(truth: Calibration | None = None, rates: tuple[float, ...] = (3.0, 6.0), **changes: object) -> Run:
    """Load phases at these rates, on an engine with the step times of `truth`; capacity taken as 10 a second."""
    truth = truth or calibration()
    phases = tuple(
        Phase(name=f"load-{rate / 10:g}", kind="load", start_s=0, end_s=0, offered_rps=rate, fraction=rate / 10)
        for rate in rates
    )
    described = meta(phases, **changes)
    tables, start_s = [], 100.0
    for number, rate in enumerate(rates):
        of = engine_run(poisson(rate, 80, number), truth, described)
        tables.append(request_rows(number, start_s, of, truth))
        start_s += of.end_s + 10.0
    return Run(described, empty_table(ITERATION_COLUMNS), pd.concat(tables, ignore_index=True), name="run")


def slower(truth: Calibration, factor: float) -> Calibration:
    """The same calibration with every step `factor` times as long."""
    values = {name: value * factor for name, value in truth.step.values().items()}
    return truth.model_copy(update={"step": truth.step.with_values(values)})


def cut(of: Run, rows: list[int]) -> Run:
    """`of` with these requests cut off before they finished."""
    requests = of.requests.copy()
    requests.loc[rows, ["finish_s", "ok", "error"]] = [np.nan, False, "cut off"]
    return replace(of, requests=requests)
