"""Writes the calibrations that are composed from public kernel tables and come with simroute.

Usage: python benchmarks/shipped_calibrations.py [--data DIR] [--output DIR] [--only GPU]. DIR holds op_tables/
(aiconfigurator's layout) and measured/rtx4090_profile/ (LLMServingSim's); neither comes with simroute. The same data
give the same files. What cannot be composed is printed with its reason.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from simroute.calibration.ingest.build import Replica, from_layer_profile, from_op_tables, named_replica
from simroute.errors import CalibrationError, CapacityError, UsageError
from simroute.hardware import catalogue
from simroute.hardware.calibration import Calibration
from simroute.hardware.calibration_file import calibration_path, save_calibration

ROOT = Path(__file__).resolve().parents[1]
GPUS = ("A100-80GB", "L40S", "H100", "H200", "B200", "RTX-PRO-6000")
MODELS = ("Llama-3.1-8B", "Llama-3.3-70B", "Qwen2.5-7B", "Qwen3-32B", "Qwen3-30B-A3B")
TENSOR_PARALLEL = (1, 2, 4, 8)
PROXIES = ("w8a8-int8", "awq-int4", "w4a16")
PROXY_GPUS = ("A100-80GB", "L40S", "H100", "H200")
FP8_CACHE_SIZES, PROXY_SIZES = 3, 2
"""FP8 caches and proxies are composed for so many of the smallest tensor-parallel sizes that fit."""
TABLES = "ai-dynamo/aiconfigurator @ 095f58a51c4c (Apache-2.0)"
PROFILE = "casys-kaist/LLMServingSim @ 5daddb21a545 (MIT)"
PROFILE_VLLM = "0.19.0"
RETRIEVED = "2026-11-22"


def main() -> None:
    """Compose and write all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data")
    parser.add_argument("--output", type=Path, default=ROOT / "calibration")
    parser.add_argument("--only", choices=(*GPUS, "RTX-4090"), help="one GPU")
    arguments = parser.parse_args()
    written = 0
    for calibration in calibrations(arguments.data, arguments.only):
        names = (calibration.model, calibration.scheme, calibration.gpu, calibration.tensor_parallel)
        path = calibration_path(arguments.output, *names, calibration.kv_cache_dtype)
        save_calibration(calibration, path)
        written += 1
    print(f"{written} calibrations written to {arguments.output}")


def calibrations(data: Path, only: str | None) -> Iterator[Calibration]:
    """Every calibration that the data allow."""
    for gpu in GPUS if only is None else {only} & set(GPUS):
        for model in MODELS:
            yield from _of(data / "op_tables", gpu, model)
    if only in (None, "RTX-4090"):
        replica = named_replica("Llama-3.1-8B", "bf16", "RTX-4090")
        profile = data / "measured/rtx4090_profile"
        yield from_layer_profile(profile, replica, PROFILE, PROFILE_VLLM, RETRIEVED)


def _of(tables: Path, gpu: str, model: str) -> Iterator[Calibration]:
    yield from _composed(tables, gpu, model, "bf16", len(TENSOR_PARALLEL))
    if "fp8" in catalogue.gpu(gpu).flops:
        yield from _composed(tables, gpu, model, "fp8", len(TENSOR_PARALLEL))
        yield from _composed(tables, gpu, model, "fp8", FP8_CACHE_SIZES, "fp8")
    if gpu in PROXY_GPUS:
        for scheme in PROXIES:
            yield from _composed(tables, gpu, model, scheme, PROXY_SIZES)


def _composed(
    tables: Path, gpu: str, model: str, scheme: str, most: int, kv_cache_dtype: str | None = None
) -> Iterator[Calibration]:
    """Those of the `most` smallest tensor-parallel sizes that fit."""
    done = 0
    for tensor_parallel in TENSOR_PARALLEL:
        replica = named_replica(model, scheme, gpu, tensor_parallel, kv_cache_dtype)
        if done == most or not _fits(replica):
            continue
        done += 1
        try:
            yield from_op_tables(tables, replica, TABLES, RETRIEVED)
        except CalibrationError as error:
            print(f"left out: {model} {scheme} on {tensor_parallel} x {gpu}: {error}")


def _fits(replica: Replica) -> bool:
    try:
        replica.limits()
    except (CapacityError, UsageError):
        return False
    return True


if __name__ == "__main__":
    main()
