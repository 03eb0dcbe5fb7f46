"""How long one engine iteration takes. Owns the seam `StepTimeModel`; imports only numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import numpy as np

_Value = TypeVar("_Value")
Basis = Literal["estimated", "measured", "composed", "proxy"]
"""What a step time rests on: datasheets | steps of a real vLLM | kernel tables added up | kernels of which some are
borrowed from another framework's ratios."""


@dataclass(slots=True)
class Batch:
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

    @property
    def basis(self) -> Basis:
        """What the model rests on."""

    def duration_s(self, batch: Batch) -> float:
        """Seconds one iteration of `batch` takes."""

    def decode_line(self, decode_seqs: int) -> tuple[float, float]:
        """(intercept_s, slope_s_per_context_token) of a step in which `decode_seqs` requests decode one token each."""

    def drawn(self, rng: np.random.Generator) -> StepTimeModel:
        """Another model that is as likely as this one, by what is known of its error."""


class Table(dict[int, _Value]):
    """The values of a function of a whole number, each computed when it is first asked for: `table[n]`."""

    def __init__(self, function: Callable[[int], _Value]) -> None:
        super().__init__()
        self._function = function

    def __missing__(self, number: int) -> _Value:
        value = self[number] = self._function(number)
        return value


class ScaledStepTime:
    """A StepTimeModel whose every time is `factor` times that of `model`."""

    def __init__(self, model: StepTimeModel, factor: float) -> None:
        self._model = model
        self.factor = factor
        self._lines = Table(self._line)

    @property
    def estimated(self) -> bool:
        """As of the model."""
        return self._model.estimated

    @property
    def basis(self) -> Basis:
        """As of the model."""
        return self._model.basis

    def duration_s(self, batch: Batch) -> float:
        """Seconds one iteration of `batch` takes."""
        return self.factor * self._model.duration_s(batch)

    def decode_line(self, decode_seqs: int) -> tuple[float, float]:
        """(intercept_s, slope_s_per_context_token) of a step in which `decode_seqs` requests decode one token each."""
        return self._lines[decode_seqs]

    def drawn(self, rng: np.random.Generator) -> StepTimeModel:
        """A draw around the model itself, at the same scale."""
        return ScaledStepTime(self._model.drawn(rng), self.factor)

    def _line(self, decode_seqs: int) -> tuple[float, float]:
        intercept_s, slope_s = self._model.decode_line(decode_seqs)
        return self.factor * intercept_s, self.factor * slope_s
