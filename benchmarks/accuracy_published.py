"""A case of accuracy.py: throughput at full load, beside published figures whose load is not stated in full."""

from __future__ import annotations

from pathlib import Path

from accuracy_figures import Figure, print_table, roofline_of

from simroute.calibration.ingest.build import from_op_tables, named_replica
from simroute.hardware.fitted import FittedStepTime
from simroute.hardware.memory import kv_blocks
from simroute.hardware.reference import reference_tokens_per_s

PUBLISHED_TOKENS_PER_S = {"bf16": 13_300, "fp8": 16_500, "awq-int4": 9_800}
"""Qwen3-8B on one H100 at full load (GPUStack's performance lab). Its load is not stated in full."""


def show(data: Path, draws: int) -> list[Figure]:
    """Print throughputs at full load beside published ones. No figures to count: the lengths are chosen to be alike."""
    rows = []
    for scheme, measured in PUBLISHED_TOKENS_PER_S.items():
        replica = named_replica("Qwen3-8B", scheme, "H100")
        capacity = kv_blocks(
            replica.model,
            replica.scheme,
            replica.gpu,
            max_model_len=8192,
            max_num_batched_tokens=8192,
            max_num_seqs=1024,
        )
        calibration = from_op_tables(data / "op_tables", replica, "aiconfigurator")
        predicted, roofline = (
            reference_tokens_per_s(step_time, capacity, max_num_seqs=512, input_tokens=300, output_tokens=300)
            for step_time in (FittedStepTime(calibration), roofline_of(calibration))
        )
        difference = f"{predicted / measured - 1:+.0%}"
        rows.append((scheme, f"{measured:,}", f"{predicted:,.0f}", difference, f"{roofline / measured - 1:+.0%}"))
    print_table(("", "published tokens/s", "512 requests of 300 + 300 tokens", "difference", "roofline"), rows)
    return []
