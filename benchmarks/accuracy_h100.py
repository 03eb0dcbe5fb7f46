"""A case of accuracy.py: closed loops of one engine on two, four and eight H100."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from accuracy_figures import Figure, print_table, replicates, roofline_of

from simroute.calibration.closed_loop import ClosedLoop, closed_loop
from simroute.calibration.ingest.build import from_op_tables, named_replica
from simroute.engine.config import EngineConfig
from simroute.hardware import catalogue
from simroute.hardware.calibration import Calibration
from simroute.hardware.fitted import FittedStepTime
from simroute.hardware.memory import kv_blocks
from simroute.hardware.steptime import StepTimeModel
from simroute.rng import stream

TABLES = "op_tables"
MAX_MODEL_LEN, MAX_NUM_BATCHED_TOKENS = 10240, 8192


@dataclass(frozen=True, slots=True)
class Row:
    """One measured closed loop: mean times in ms."""

    tensor_parallel: int
    input_tokens: int
    output_tokens: int
    concurrency: int
    ttft_ms: float
    tpot_ms: float


class H100Llama70B:
    """Llama-3.1-70B fp8 on vLLM 0.10.2 (InferenceMAX's runs of October 2025, in aiconfigurator's silicon sample).

    As their scripts say: 10 requests a client, all clients at once, lengths even between 0.8 and 1 of the nominal ones,
    prefix caching off, asynchronous scheduling, 8,192 batched tokens, max_num_seqs as many as clients,
    max_model_len 10,240, 0.9 of the memory. The scripts ask for a KV cache in fp8, but the times are those of one in 16
    bits: with 64 clients on 2 GPUs and long answers, requests waited 31 s for room that one in fp8 would have had.
    """

    title = "H100, vLLM 0.10.2, Llama-3.1-70B fp8: closed loops of 4 to 64 clients"
    file = "measured/h100_llama70b_fp8_vllm_closed_loop.csv"
    requests_per_client = 10
    least_share = 0.8
    fitted_concurrency = 4

    vllm = "0.10.2"

    def __init__(self, data: Path, kv_cache_dtype: str = "auto") -> None:
        self.data = data
        self.kv_cache_dtype = kv_cache_dtype
        with (data / self.file).open(encoding="utf-8", newline="") as handle:
            self.rows = [
                Row(
                    int(float(row["tp_size"])),
                    int(row["isl"]),
                    int(row["osl"]),
                    int(row["concurrency"]),
                    float(row["silicon_ttft_ms"]),
                    float(row["silicon_tpot_ms"]),
                )
                for row in csv.DictReader(handle)
            ]

    @cached_property
    def calibrations(self) -> dict[int, Calibration]:
        """By tensor-parallel size: composed as those that come with simroute, but for this version of vLLM."""
        sizes = sorted({row.tensor_parallel for row in self.rows})
        replicas = {tp: named_replica("Llama-3.1-70B", "fp8", "H100", tp, self.kv_cache_dtype) for tp in sizes}
        tables = self.data / TABLES
        return {tp: from_op_tables(tables, replica, TABLES, vllm=self.vllm) for tp, replica in replicas.items()}

    def loop(self, row: Row, step_time: StepTimeModel) -> ClosedLoop:
        """The row replayed, with lengths drawn the same way for every step time."""
        rng = stream(0, "closed loop", row.tensor_parallel, row.output_tokens, row.concurrency)
        count = row.concurrency * self.requests_per_client
        lengths = [
            rng.integers(round(self.least_share * most), most + 1, count).tolist()
            for most in (row.input_tokens, row.output_tokens)
        ]
        requests, terms = list(zip(*lengths, strict=True)), self.calibrations[row.tensor_parallel].request
        return closed_loop(self._engine(row), step_time, requests, row.concurrency, terms)

    def figures(self, draws: int) -> list[tuple[Row, Figure, Figure]]:
        """Every row with its mean TPOT and mean TTFT, in ms."""
        return [(row, *self._row_figures(row, draws)) for row in self.rows]

    def _row_figures(self, row: Row, draws: int) -> tuple[Figure, Figure]:
        calibration = self.calibrations[row.tensor_parallel]
        drawn = replicates(calibration, draws, f"h100 {row.tensor_parallel}")
        loops = [self.loop(row, FittedStepTime(one)) for one in drawn]
        predicted, roofline = self.loop(row, FittedStepTime(calibration)), self.loop(row, roofline_of(calibration))

        def figure(name: str, measured_ms: float, mean_ms: Callable[[ClosedLoop], float]) -> Figure:
            replicated = tuple(map(mean_ms, loops))
            return Figure(name, measured_ms, mean_ms(predicted), replicated, roofline=mean_ms(roofline))

        return figure("TPOT", row.tpot_ms, mean_tpot_ms), figure("TTFT", row.ttft_ms, mean_ttft_ms)

    def fitted_launch_ms(self) -> float:
        """What a step costs beside its kernels, with which the rows with 4 clients are right in the mean of ratios.

        The one constant that rests on these rows. Time per output token moves with it one to one.
        """
        rows = [row for row in self.rows if row.concurrency == self.fitted_concurrency]
        loops = [self.loop(row, FittedStepTime(self.calibrations[row.tensor_parallel])) for row in rows]
        measured_ms = np.array([row.tpot_ms for row in rows])
        missing = 1 - np.array([mean_tpot_ms(loop) for loop in loops]) / measured_ms
        launch_ms = next(iter(self.calibrations.values())).step.launch_ms
        return launch_ms + float(np.mean(missing) / np.mean(1 / measured_ms))

    def _engine(self, row: Row) -> EngineConfig:
        capacity = kv_blocks(
            catalogue.model("Llama-3.1-70B"),
            catalogue.scheme("fp8"),
            catalogue.gpu("H100"),
            tensor_parallel=row.tensor_parallel,
            gpu_memory_utilization=0.9,
            kv_cache_dtype=self.kv_cache_dtype,
            subtract_cuda_graphs=False,
            max_model_len=MAX_MODEL_LEN,
            max_num_batched_tokens=MAX_NUM_BATCHED_TOKENS,
            max_num_seqs=row.concurrency,
        )
        return EngineConfig(
            num_gpu_blocks=capacity.num_gpu_blocks,
            max_model_len=MAX_MODEL_LEN,
            max_num_batched_tokens=MAX_NUM_BATCHED_TOKENS,
            max_num_seqs=row.concurrency,
            enable_prefix_caching=False,
        )


def mean_tpot_ms(loop: ClosedLoop) -> float:
    """Mean over requests."""
    return float(np.nanmean(loop.tpot_s)) * 1e3


def mean_ttft_ms(loop: ClosedLoop) -> float:
    """Mean over requests."""
    return float(loop.ttft_s.mean()) * 1e3


def show(data: Path, draws: int) -> list[Figure]:
    """Print the case; returns its figures, without the rows that a constant was fitted to."""
    case = H100Llama70B(data)
    rows = case.figures(draws)
    print_table(
        ("TP, in / out, clients", "TPOT ms", "predicted", "error", "TTFT ms", "predicted", "error"),
        [
            (
                f"{row.tensor_parallel}, {row.input_tokens} / {row.output_tokens}, {row.concurrency}",
                *(
                    text
                    for one in figures
                    for text in (f"{one.measured:.1f}", f"{one.predicted:.1f}", f"{one.error:+.1%}")
                ),
            )
            for row, *figures in rows
        ],
    )
    unseen = [figures for row, *figures in rows if row.concurrency != case.fitted_concurrency]
    print("\nEvery row:", _summary([figures for _, *figures in rows]))
    print("Rows that nothing was fitted to:", _summary(unseen))
    print("Roofline, every row:", _summary([[as_roofline(one) for one in figures] for _, *figures in rows]))
    print("Targets: TPOT median 5 %, largest 15 %; TTFT median 20 %")
    launch_ms, fitted_ms = next(iter(case.calibrations.values())).step.launch_ms, case.fitted_launch_ms()
    print(f"Beside its kernels a step costs {launch_ms:g} ms; fitted to the rows with 4 clients: {fitted_ms:.2f}")
    other = H100Llama70B(data, "fp8")
    print("With a KV cache in fp8 instead:", _summary([figures for _, *figures in other.figures(0)]))
    return [figure for figures in unseen for figure in figures]


def as_roofline(figure: Figure) -> Figure:
    """The same measured number beside the roofline's prediction."""
    return replace(figure, predicted=figure.roofline)


def _summary(rows: Sequence[Sequence[Figure]]) -> str:
    tpot, ttft = (np.abs([figures[index].error for figures in rows]) for index in (0, 1))
    return (
        f"TPOT median |error| {np.median(tpot):.1%}, largest {tpot.max():.1%}; "
        f"TTFT median {np.median(ttft):.1%}, largest {ttft.max():.1%}"
    )
