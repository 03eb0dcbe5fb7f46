"""The columnar trace: what arrives, as a struct of numpy arrays. Imports only errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """n requests in order of arrival.

    Columns (all of length n): `arrival_s` (float64 seconds from the start, non-decreasing, >= 0),
    `input_tokens` (int64, >= 1), `output_tokens` (int64, >= 1), `class_code` / `tenant_code` / `tier_code`
    (int64 indices into `class_names` / `tenant_names` / `tier_names`), `priority` (int64, lower is sooner, as in vLLM),
    `session` (int64, -1 for none).

    Prefixes: request i's chained content ids are `prefix_ids[prefix_offsets[i]:prefix_offsets[i + 1]]`, each for
    `prefix_block_tokens` consecutive tokens of its stream (the prompt, then the answer; the last may be partial).
    Equal ids mean equal tokens from the start of the stream up to the end of that block. Tokens beyond the ids are
    unique to the request. `prefix_block_tokens` is 0 when the trace knows no prefixes.
    `notes` says, a line each, what a reader had to mend (rows skipped, arrivals sorted).
    """

    arrival_s: Floats
    input_tokens: Ints
    output_tokens: Ints
    class_code: Ints
    tenant_code: Ints
    tier_code: Ints
    priority: Ints
    session: Ints
    class_names: tuple[str, ...]
    tenant_names: tuple[str, ...]
    tier_names: tuple[str, ...]
    prefix_offsets: Ints
    prefix_ids: Ints
    prefix_block_tokens: int
    name: str = "trace"
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.arrival_s)
