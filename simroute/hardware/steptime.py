"""How long one engine iteration takes. Owns the seam `StepTimeModel`; imports only errors and units."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Batch(NamedTuple):
    """What one iteration computes, summed over its requests.

    A request decodes when it is scheduled for exactly one token past its prompt; everything else is prefill
    (chunks, recomputation after preemption, the tail of a prefix hit).
    `prefill_pairs` is the number of (query, key) pairs: sum of n*start + n*(n+1)/2 over chunks of n tokens.
    `decode_context_tokens` is the sum of context lengths, the new token included.
    """

    prefill_seqs: int
    prefill_tokens: int
    prefill_pairs: int
    decode_seqs: int
    decode_context_tokens: int
    sampled_seqs: int


class StepTimeModel(Protocol):
    """Time of one iteration, start to start when the engine is busy.

    `duration_s` must be linear in `decode_context_tokens` for an otherwise fixed batch: that is what gives k
    decode-only steps a closed form. For a batch that only decodes, duration_s(batch) ==
    intercept + slope * decode_context_tokens with (intercept, slope) = decode_line(decode_seqs).
    """

    @property
    def estimated(self) -> bool:
        """True until the model rests on a calibration."""

    def duration_s(self, batch: Batch) -> float:
        """Seconds one iteration of `batch` takes."""

    def decode_line(self, decode_seqs: int) -> tuple[float, float]:
        """(intercept_s, slope_s_per_context_token) of a step in which `decode_seqs` requests decode one token each."""
