"""What a router may know of a replica's speed: times of prefill and decode from its step-time model.

Owns `StepSpeed` and `FlatSpeed`, which fit the policies' seam `Speed`. Imports only steptime.
"""

from __future__ import annotations

from dataclasses import dataclass

from simroute.hardware.steptime import Batch, StepTimeModel, Table


class StepSpeed:
    """Prefill and decode times of `model` in steps of at most `max_num_batched_tokens` tokens, all in seconds."""

    def __init__(self, model: StepTimeModel, max_num_batched_tokens: int) -> None:
        self._model = model
        self._budget = max_num_batched_tokens
        self._full_s = [0.0]
        self._prefill = Table(self._prefill_s)

    def prefill_s(self, tokens: int) -> float:
        """Time to compute a prompt of `tokens` tokens, of which none is cached, on a replica that does nothing else.

        The sum of its chunks, each as large as the budget and the last as large as what remains.
        """
        return self._prefill[tokens]

    def decode_s(self, seqs: int, context_tokens: int) -> float:
        """Time of a step in which `seqs` requests with `context_tokens` of context in all decode a token each."""
        intercept_s, slope_s = self._model.decode_line(seqs)
        return intercept_s + slope_s * context_tokens

    def _prefill_s(self, tokens: int) -> float:
        if tokens <= 0:
            return 0.0
        full, budget = (tokens - 1) // self._budget, self._budget
        while len(self._full_s) <= full:
            chunks = len(self._full_s) - 1
            self._full_s.append(self._full_s[-1] + self._chunk_s(chunks * budget, budget, sampled=0))
        return self._full_s[full] + self._chunk_s(full * budget, tokens - full * budget, sampled=1)

    def _chunk_s(self, start: int, tokens: int, sampled: int) -> float:
        """A step that computes `tokens` tokens of a prompt after its first `start`."""
        pairs = tokens * start + tokens * (tokens + 1) // 2
        return self._model.duration_s(Batch(1, tokens, pairs, 0, 0, sampled))


@dataclass(frozen=True, slots=True)
class FlatSpeed:
    """Somebody else's endpoint, of which only latencies are known: the same for every prompt and any load."""

    ttft_s: float
    tpot_s: float

    def prefill_s(self, tokens: int) -> float:
        """Time to first token, whatever the prompt."""
        return self.ttft_s

    def decode_s(self, seqs: int, context_tokens: int) -> float:
        """Time per output token, whatever else it does."""
        return self.tpot_s
