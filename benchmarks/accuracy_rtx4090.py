"""A case of accuracy.py: one overloaded engine on a RTX 4090, open loop."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from accuracy_figures import Figure, print_table, replicates, roofline_of, shipped_calibration
from numpy.typing import NDArray

from simroute.engine.config import EngineConfig
from simroute.fleet.cluster import simulate
from simroute.fleet.pool import Pool
from simroute.hardware.fitted import FittedStepTime
from simroute.hardware.steptime import StepTimeModel
from simroute.policy.snapshot import Decision, Snapshot, VariantInfo
from simroute.workload.request import Request
from simroute.workload.trace import Trace

Floats = NDArray[np.float64]


class Rtx4090:
    """300 ShareGPT requests on vLLM 0.19, Llama-3.1-8B bf16, prefix caching on (LLMServingSim's run).

    Requests arrive at their wall-clock `arrival_time`; the other stamps are of a monotonic clock, which is aligned
    where a request was queued soonest after it arrived. KV blocks are given, as the engine reported them.
    """

    title = "RTX 4090, vLLM 0.19, Llama-3.1-8B bf16: 300 requests at 10/s, 2,588 KV blocks"
    run = "measured/rtx4090_llama31_8b_vllm019/vllm"
    tokens = "measured/sharegpt-llama-3.1-8b-300-sps10.jsonl"
    targets: ClassVar[dict[str, float]] = {
        "TTFT p50, s": 0.03,
        "TTFT p99, s": 0.06,
        "TPOT mean, ms": 0.03,
        "TPOT p99, ms": 0.06,
        "E2E p99, s": 0.06,
        "makespan, s": 0.03,
    }

    def __init__(self, data: Path) -> None:
        with (data / self.run / "requests.jsonl").open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        with (data / self.tokens).open(encoding="utf-8") as lines:
            prompts = [json.loads(line) for line in lines]
        meta = json.loads((data / self.run / "meta.json").read_text("utf-8"))
        clock = min(row["queued_ts"] - row["arrival_time"] for row in rows)
        order = sorted(range(len(rows)), key=lambda index: rows[index]["arrival_time"])
        rows, prompts = [rows[index] for index in order], [prompts[index] for index in order]
        start_s = rows[0]["arrival_time"] + clock
        self.trace = Trace.build(
            arrival_s=np.array([row["arrival_time"] + clock - start_s for row in rows]),
            input_tokens=np.array([row["input_toks"] for row in rows]),
            output_tokens=np.array([row["output_toks"] for row in rows]),
            prefixes=block_ids([row["input_tok_ids"] + row["output_tok_ids"] for row in prompts], 16),
            prefix_block_tokens=16,
            name="RTX 4090",
        )
        self.first_token_s = np.array([row["first_token_ts"] - start_s for row in rows])
        self.finish_s = np.array([row["last_token_ts"] - start_s for row in rows])
        self.engine = EngineConfig(
            num_gpu_blocks=meta["kv_cache"]["num_gpu_blocks"],
            max_num_batched_tokens=meta["engine_kwargs"]["max_num_batched_tokens"],
            max_num_seqs=meta["engine_kwargs"]["max_num_seqs"],
            max_model_len=meta["engine_kwargs"]["max_model_len"],
        )
        self.calibration = shipped_calibration("Llama-3.1-8B", "bf16", "RTX-4090")

    def figures(self, draws: int) -> list[Figure]:
        """Measured and predicted, one figure a target."""
        measured = self._numbers(self.first_token_s, self.finish_s)
        predicted = self._predicted(FittedStepTime(self.calibration))
        drawn = [self._predicted(FittedStepTime(one)) for one in replicates(self.calibration, draws, "rtx4090")]
        roofline = self._predicted(roofline_of(self.calibration))
        return [
            Figure(name, measured[name], predicted[name], tuple(one[name] for one in drawn), target, roofline[name])
            for name, target in self.targets.items()
        ]

    def _predicted(self, step_time: StepTimeModel) -> dict[str, float]:
        variant = VariantInfo("replica", "Llama-3.1-8B", "bf16", "RTX-4090", 1, 0.0, 0.0, self.engine.max_num_seqs, {})
        pool = Pool("replica", 1, variant, self.engine, step_time, 1)
        run = simulate(self.trace, [pool], OnlyReplica(), policy_name="only", seed=0)
        return self._numbers(run.first_token_s, run.finish_s)

    def _numbers(self, first_token_s: Floats, finish_s: Floats) -> dict[str, float]:
        ttft_s, e2e_s = first_token_s - self.trace.arrival_s, finish_s - self.trace.arrival_s
        tpot_ms = 1e3 * (finish_s - first_token_s) / (self.trace.output_tokens - 1)
        return {
            "TTFT p50, s": float(np.median(ttft_s)),
            "TTFT p99, s": float(np.quantile(ttft_s, 0.99)),
            "TPOT mean, ms": float(tpot_ms.mean()),
            "TPOT p99, ms": float(np.quantile(tpot_ms, 0.99)),
            "E2E p99, s": float(np.quantile(e2e_s, 0.99)),
            "makespan, s": float(finish_s.max()),
        }


class OnlyReplica:
    """The policy of a fleet of one replica."""

    def choose(self, request: Request, snapshots: Sequence[Snapshot]) -> Decision:
        """Always replica 0."""
        return Decision(0)


def block_ids(streams: Sequence[Sequence[int]], block_tokens: int) -> list[list[int]]:
    """Chained content ids of each token stream: equal ids where streams are equal up to the end of the block."""
    known: dict[tuple[int, tuple[int, ...]], int] = {}
    rows = []
    for stream_ids in streams:
        before, row = -1, []
        for begin in range(0, len(stream_ids), block_tokens):
            block = (before, tuple(stream_ids[begin : begin + block_tokens]))
            before = known.setdefault(block, len(known))
            row.append(before)
        rows.append(row)
    return rows


def show(data: Path, draws: int) -> list[Figure]:
    """Print the case; returns its figures."""
    figures = Rtx4090(data).figures(draws)
    print_table(
        ("", "measured", "predicted", "error", "target", "90 % interval", "roofline"),
        [
            (
                figure.name,
                f"{figure.measured:.1f}",
                f"{figure.predicted:.1f}",
                f"{figure.error:+.1%}",
                f"{figure.target:.0%}",
                "{:.1f} to {:.1f}".format(*figure.interval) if figure.replicates else "",
                f"{figure.roofline / figure.measured - 1:+.1%}",
            )
            for figure in figures
        ],
    )
    return figures
