"""Prints the error of the KV-memory formula against measured vLLM engines, row by row, and with each model held out.

Usage: python benchmarks/kv_memory.py [CSV]. The CSV has one row an engine start, with the columns of the
llm-d-planner accuracy results for vLLM 0.19 (H100-80GB); that release does not subtract CUDA graphs.
"""

from __future__ import annotations

import csv
import statistics
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from simroute.hardware import catalogue
from simroute.hardware.memory import KvCapacity, engine_defaults, kv_blocks
from simroute.units import GIB

DEFAULT = Path(__file__).resolve().parents[1].parent / "shared/data/measured/h100_vllm019_kv_memory.csv"


class Comparison(NamedTuple):
    """One measured engine beside the formula's answer."""

    label: str
    model: str
    measured_blocks: int
    capacity: KvCapacity
    row: dict[str, str]

    @property
    def error(self) -> float:
        """Relative error of the formula's block count."""
        return self.capacity.num_gpu_blocks / self.measured_blocks - 1

    @property
    def parallel(self) -> str:
        """How the engine is split: tensor, pipeline or not at all."""
        return "tensor" if self.row["tp"] != "1.0" else "pipeline" if self.row["pp"] != "1.0" else "single"

    @property
    def activation_residual(self) -> float:
        """Measured minus predicted activation bytes."""
        return float(self.row["activation_memory_gib"]) * GIB - self.capacity.activation_bytes

    @property
    def non_torch_residual(self) -> float:
        """Measured minus predicted non-torch bytes."""
        return float(self.row["non_torch_forward_gib"]) * GIB - self.capacity.non_torch_bytes


def compare(path: Path) -> Iterator[Comparison]:
    """Every engine of the file that started."""
    with path.open(encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            if row["status"] == "ok":
                yield _comparison(row)


def _comparison(row: dict[str, str]) -> Comparison:
    quantized = "fp8" in row["quantization"] or "fp8" in row["model"]
    scheme = "fp8" if quantized else row["dtype"]
    name = row["model"].replace("-fp8-dynamic", "")
    gpu = catalogue.gpu(row["gpu"])
    tp, pp, length = (int(float(row[key])) for key in ("tp", "pp", "max_model_len"))
    tokens, seqs = engine_defaults(gpu)
    capacity = kv_blocks(
        catalogue.model(name),
        catalogue.scheme(scheme),
        gpu,
        tensor_parallel=tp,
        pipeline_parallel=pp,
        gpu_memory_utilization=float(row["gpu_memory_utilization"]),
        kv_cache_dtype=row["kv_cache_dtype"],
        max_model_len=length,
        max_num_batched_tokens=tokens,
        max_num_seqs=seqs,
        subtract_cuda_graphs=False,
    )
    short = name.split("/")[-1].replace("-Instruct", "")
    label = f"{short} {scheme.removeprefix('torch.')} kv={row['kv_cache_dtype']} TP{tp} PP{pp} len={length}"
    return Comparison(label, short, int(float(row["kv_cache_blocks"])), capacity, row)


def held_out_errors(rows: list[Comparison], model: str) -> Iterator[float]:
    """Block-count errors of `model` when the fitted constants come from the other models alone.

    The constants are additive, so refitting one shifts every prediction by the others' mean residual: of the
    workspace (engines without a pipeline, whose table rows show another rank's activations) and of non-torch
    memory among engines that are parallel in the same way. With no such engine the constant stays.
    """
    others = [item for item in rows if item.model != model]
    workspace = _mean_residual(item.activation_residual for item in others if item.parallel != "pipeline")
    for item in rows:
        if item.model == model:
            non_torch = _mean_residual(other.non_torch_residual for other in others if other.parallel == item.parallel)
            kv_bytes = item.capacity.kv_bytes - workspace - non_torch
            yield kv_bytes / item.capacity.kv_bytes * (1 + item.error) - 1


def _mean_residual(residuals: Iterable[float]) -> float:
    """Mean over distinct engines: the table repeats the same engine for several context lengths."""
    distinct = {round(residual) for residual in residuals}
    return statistics.mean(distinct) if distinct else 0.0


def main() -> None:
    """Print one line a row, then the median and the largest error."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    rows = list(compare(path))
    print(f"{'engine':<52}{'measured':>9}{'formula':>9}{'error':>9}   weights GiB    activations GiB  non-torch GiB")
    for item in rows:
        parts = (
            f"{_pair(item.capacity.weight_bytes, item.row['weight_memory_gib'])}    "
            f"{_pair(item.capacity.activation_bytes, item.row['activation_memory_gib'])}      "
            f"{_pair(item.capacity.non_torch_bytes, item.row['non_torch_forward_gib'])}"
        )
        blocks = f"{item.measured_blocks:>9}{item.capacity.num_gpu_blocks:>9}"
        print(f"{item.label:<52}{blocks}{item.error:>+9.2%}   {parts}")
    errors = [abs(item.error) for item in rows]
    print(f"\n{len(rows)} rows: median |error| {statistics.median(errors):.2%}, largest {max(errors):.2%}")
    for model in dict.fromkeys(item.model for item in rows):
        errors = [abs(error) for error in held_out_errors(rows, model)]
        print(f"{model} held out: median |error| {statistics.median(errors):.2%}, largest {max(errors):.2%}")


def _pair(formula_bytes: float, measured_gib: str) -> str:
    return f"{formula_bytes / GIB:5.2f}/{float(measured_gib):5.2f}"


if __name__ == "__main__":
    main()
