"""Whether measured steps are enough to fit, and what to measure where they are not. Imports numpy, errors and steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from simroute.calibration.runs import RunMeta
from simroute.calibration.solve import Floats
from simroute.calibration.steps import Steps
from simroute.errors import CalibrationError

LEAST_STEPS = 12
"""Fewer steps than this cannot tell the terms of a step apart."""
LEAST_SPREAD = 2.0
"""Largest over smallest batch (or context) from which a slope is more than noise."""
SMALLEST_CHUNK = 16
"""Smallest prefill chunk worth measuring: smaller ones cost the same."""
NEAR = 1.5
"""A size counts as measured when one within this ratio was."""


def check_coverage(steps: Steps, metas: Sequence[RunMeta]) -> None:
    """Raise CalibrationError, naming the batch sizes to add, when a term of a step could not be told from `steps`."""
    missing = list(_missing(steps, metas))
    if missing:
        raise CalibrationError(f"too little to fit in {len(steps):,} steps: add {'; '.join(missing)}")


def coverage_notes(steps: Steps, metas: Sequence[RunMeta]) -> list[str]:
    """What the engines would run and was not measured, a sentence each."""
    notes = []
    seqs, tokens = (max(getattr(meta, name) for meta in metas) for name in ("max_num_seqs", "max_num_batched_tokens"))
    most_seqs, most_tokens = steps["decode_seqs"].max(), steps.tokens.max()
    if most_seqs * NEAR < seqs:
        notes.append(
            f"no batch decodes more than {most_seqs:,.0f} of max_num_seqs {seqs:,} requests: extrapolated beyond"
        )
    if most_tokens * NEAR < tokens:
        notes.append(
            f"no batch has more than {most_tokens:,.0f} of max_num_batched_tokens {tokens:,}: extrapolated beyond"
        )
    return notes


def _missing(steps: Steps, metas: Sequence[RunMeta]) -> Iterator[str]:
    """What to add, in the words of a sweep."""
    decode = steps.decodes_only & (steps["decode_seqs"] > 0)
    prefill = ~steps.decodes_only
    seqs, chunks = steps["decode_seqs"][decode], steps["prefill_tokens"][prefill]
    most, largest = (max(getattr(meta, name) for meta in metas) for name in ("max_num_seqs", "max_num_batched_tokens"))
    if _spread(seqs) < min(LEAST_SPREAD, most):
        yield f"decode batches of {_listed(1, most, seqs)} requests"
    elif _spread(steps["decode_context_tokens"][decode] / seqs) < LEAST_SPREAD:
        yield "the same decode batches at contexts a few times as long"
    if _spread(chunks) < min(LEAST_SPREAD, max(largest / SMALLEST_CHUNK, 1.0)):
        yield f"prefill chunks of {_listed(min(SMALLEST_CHUNK, largest), largest, chunks)} tokens"
    if len(steps) < LEAST_STEPS:
        yield f"repetitions: at least {LEAST_STEPS} steps in all"


def _spread(sizes: Floats) -> float:
    return float(sizes.max() / sizes.min()) if len(sizes) else 0.0


def _listed(smallest: int, largest: int, measured: Floats) -> str:
    """Doublings from `smallest` to `largest`, without those that were measured or nearly so."""
    sizes = [smallest]
    while sizes[-1] * 2 < largest:
        sizes.append(sizes[-1] * 2)
    sizes += [largest] * (largest > sizes[-1])
    near = [np.any((measured / NEAR < size) & (measured * NEAR > size)) for size in sizes]
    return ", ".join(f"{size:,}" for size, known in zip(sizes, near, strict=True) if not known)
