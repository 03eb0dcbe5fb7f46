"""A case of accuracy.py: single steps of a real engine, one after another on an otherwise idle server.

Qwen3-32B bf16 on vLLM 0.20.1, one to eight B300: typical latencies in the forward-pass metrics that aiconfigurator
keeps as its reference (Apache-2.0; fpm_golden_runs/fpm_upfront_qwen32_full_once_20260613_194007, read 2026-11-22). A
B300 has the bandwidth, the 16-bit rate and the links of a B200, whose calibrations predict them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from accuracy_figures import Figure, print_table, shipped_calibration

from simroute.calibration.ingest.compose import pairs
from simroute.hardware.fitted import FittedStepTime
from simroute.hardware.steptime import Batch

BATCHES = {
    "1 decodes": Batch(0, 0, 0, 1, 4100, 1),
    "4 decode": Batch(0, 0, 0, 4, 4 * 4100, 4),
    "14 decode": Batch(0, 0, 0, 14, 14 * 4100, 14),
    "prompt of 128": Batch(1, 128, pairs(128, 0), 0, 0, 1),
    "prompt of 1,024": Batch(1, 1024, pairs(1024, 0), 0, 0, 1),
    "prompt of 4,096": Batch(1, 4096, pairs(4096, 0), 0, 0, 1),
    "2 prompts of 4,096": Batch(2, 8192, 2 * pairs(4096, 0), 0, 0, 2),
}
MEASURED_MS = {
    1: (13.5, 14.0, 16.4, 16.0, 52.6, 205.0, 400.0),
    2: (9.0, 9.35, 10.2, 11.0, 33.3, 114.0, 223.6),
    4: (6.06, 6.38, 6.78, 7.95, 23.5, 72.8, 133.9),
    8: (4.52, 4.63, 5.02, 7.53, 17.6, 52.6, 99.9),
}
"""By tensor-parallel size, in the order of `BATCHES`; each decoding request has a context of about 4,100 tokens."""


def figures() -> list[list[Figure]]:
    """A row a batch, a figure a tensor-parallel size."""
    models = {tp: FittedStepTime(shipped_calibration("Qwen3-32B", "bf16", "B200", tp)) for tp in MEASURED_MS}
    return [
        [Figure(name, MEASURED_MS[tp][index], models[tp].duration_s(batch) * 1e3) for tp in MEASURED_MS]
        for index, (name, batch) in enumerate(BATCHES.items())
    ]


def show(data: Path, draws: int) -> list[Figure]:
    """Print the case. No figures to count: two constants were chosen with it in sight."""
    rows = figures()
    print_table(
        ("step, ms: measured / predicted", *(f"TP {tp}" for tp in MEASURED_MS)),
        [(row[0].name, *(f"{one.measured:g} / {one.predicted:.1f} ({one.error:+.0%})" for one in row)) for row in rows],
    )
    decode, prefill = (np.abs([one.error for row in part for one in row]) for part in (rows[:3], rows[3:]))
    print(
        f"\nDecode steps: median |error| {np.median(decode):.1%}, largest {decode.max():.1%}; "
        f"prompts: median {np.median(prefill):.1%}, largest {prefill.max():.1%}"
    )
    return []
