"""Step times from a calibration. Owns `FittedStepTime`; imports only calibration and steptime."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np

from simroute.hardware.calibration import Calibration
from simroute.hardware.steptime import Basis, Batch, Table

_MS = 1e-3
_US = 1e-6
_NS = 1e-9


class FittedStepTime:
    """StepTimeModel of one calibration, by the formula of `StepTerms`; all times in seconds."""

    def __init__(self, calibration: Calibration) -> None:
        self.calibration = calibration
        step = calibration.step
        self._launch_s = step.launch_ms * _MS
        self._prefill_seq_s = step.prefill_seq_us * _US
        self._decode_seq_s = step.decode_seq_us * _US
        self._pair_s = step.prefill_pair_ns * _NS
        self._context_s = step.decode_context_token_ns * _NS
        self._sampled_s = step.sampled_seq_us * _US
        self._graph_sizes = step.graph_sizes
        self._knots = tuple(step.gemm_ms)
        self._knots_s = tuple(value * _MS for value in step.gemm_ms.values())
        self._gemm = Table(self._gemm_s)
        self._padded = Table(self._graph_size)
        self._lines = Table(self._line)

    @property
    def estimated(self) -> bool:
        """Always False: it rests on measurements."""
        return False

    @property
    def basis(self) -> Basis:
        """What the calibration rests on."""
        return self.calibration.basis

    def duration_s(self, batch: Batch) -> float:
        """Seconds one iteration of `batch` takes."""
        prefill_seqs, decode_seqs = batch.prefill_seqs, batch.decode_seqs
        tokens = batch.prefill_tokens + decode_seqs if prefill_seqs else self._padded[decode_seqs]
        return (
            self._gemm[tokens]
            + prefill_seqs * self._prefill_seq_s
            + decode_seqs * self._decode_seq_s
            + batch.prefill_pairs * self._pair_s
            + batch.sampled_seqs * self._sampled_s
            + batch.decode_context_tokens * self._context_s
        )

    def decode_line(self, decode_seqs: int) -> tuple[float, float]:
        """(intercept_s, slope_s_per_context_token) of a step in which `decode_seqs` requests decode one token each."""
        return self._lines[decode_seqs]

    def drawn(self, rng: np.random.Generator) -> FittedStepTime:
        """A step time that the measurements allow as well (`Calibration.drawn`)."""
        return FittedStepTime(self.calibration.drawn(rng))

    def _line(self, decode_seqs: int) -> tuple[float, float]:
        return self.duration_s(Batch(0, 0, 0, decode_seqs, 0, decode_seqs)), self._context_s

    def _graph_size(self, tokens: int) -> int:
        """The CUDA-graph size that a decoding batch runs at: its own where it is beyond the largest."""
        sizes = self._graph_sizes
        index = bisect_left(sizes, tokens)
        return sizes[index] if index < len(sizes) else tokens

    def _gemm_s(self, tokens: int) -> float:
        """The launch and the matrix products: linear between the knots, constant below, with the last slope beyond."""
        return self._launch_s + interpolated(tokens, self._knots, self._knots_s)


def interpolated(tokens: int, knots: tuple[int, ...], values: tuple[float, ...]) -> float:
    """`values` at rising `knots`, read at `tokens`: constant below, linear between, last slope beyond."""
    if tokens <= knots[0] or len(knots) == 1:
        return values[0]
    right = min(bisect_left(knots, tokens), len(knots) - 1)
    share = (tokens - knots[right - 1]) / (knots[right] - knots[right - 1])
    return values[right - 1] + share * (values[right] - values[right - 1])
