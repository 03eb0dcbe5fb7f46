"""The least work that requests make on a variant, whatever the engine does: what bounds rest on.

A step's time is g(tokens) + h(sampled rows) + a (query, key) pairs + b context tokens + terms that are never negative,
with g and h rising: true of the estimate and of every calibration. So a token costs at least the least g(t)/t of all
step sizes, and a request at least the sum of its parts, in whatever company it is computed.
Owns `Costs` and `Load`. Imports numpy, hardware's step times and workload.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simroute.engine.config import EngineConfig
from simroute.fleet.pool import Pool
from simroute.hardware.steptime import Batch, StepTimeModel
from simroute.workload.trace import Trace

Floats = NDArray[np.float64]
RESOURCES = ("tokens", "pairs", "context", "sampled")
"""What requests use up: tokens computed, (query, key) pairs of prompts, context read by decode steps, rows sampled."""
_GROWTH = 1.02
"""Step between the sizes that a minimum is looked for at: it is found to within so much, on the safe side."""
_MOST_CHUNKS = 8
_SAFE = 1 - 1e-9
"""Rounding in the simulator's sums must not turn a bound into a refusal."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What one replica of a variant needs at least, in seconds: for one of each of `RESOURCES`, in that order."""

    unit_s: tuple[float, float, float, float]
    step_s: Floats
    """At `sizes`, a step that computes so many tokens of prompts and samples nothing."""
    sizes: NDArray[np.int64]
    max_model_len: int

    def prefill_s(self, tokens: Floats, pairs: Floats) -> Floats:
        """Least time until prompts of so many uncached tokens and pairs are computed, in any chunks; shape (n,)."""
        most = int(self.sizes[-1])
        least = tokens * self.unit_s[0]
        parts = np.full(len(tokens), np.inf)
        for chunks in range(1, _MOST_CHUNKS + 1):  # the largest chunk is at least so large, each other one a step
            largest = np.ceil(tokens / chunks)
            time_s = self._step_s(np.minimum(largest, most)) + (chunks - 1) * self.step_s[0]
            parts = np.where(largest <= most, np.minimum(parts, time_s), parts)
        parts = np.minimum(parts, (_MOST_CHUNKS + 1) * self.step_s[0])
        found: Floats = (np.maximum(least, parts) + pairs * self.unit_s[1] + self.unit_s[3]) * _SAFE
        return found

    def gap_s(self, context_tokens: Floats) -> Floats:
        """Least time between two tokens of a request with so much context; shape (n,)."""
        found: Floats = (self.step_s[0] + self.unit_s[3] + context_tokens * self.unit_s[2]) * _SAFE
        return found

    def _step_s(self, tokens: Floats) -> Floats:
        """The step time at the next smaller of the sizes looked at: never more than the true one."""
        index = np.searchsorted(self.sizes, tokens, side="right") - 1
        found: Floats = self.step_s[np.maximum(index, 0)]
        return found


def costs_of(pool: Pool) -> Costs:
    """The least costs on a replica of `pool`."""
    model, engine = pool.step_time, pool.engine
    sizes = _sizes(engine.max_num_batched_tokens)
    step_s = np.array([_prefill_only_s(model, int(size)) for size in sizes])
    seqs = _sizes(max(_most_seqs(engine), 1))
    rows_s = np.array([_sampling_s(model, int(rows)) for rows in seqs])
    empty = model.duration_s(Batch(1, 1, 0, 0, 0, 0))
    pair_s = (model.duration_s(Batch(1, 1, 1_000_000, 0, 0, 0)) - empty) / 1_000_000
    context_s = model.decode_line(1)[1]
    unit = (_least(sizes, step_s), max(pair_s, 0.0), max(context_s, 0.0), max(_least(seqs, rows_s), 0.0))
    return Costs(unit, step_s, sizes, engine.max_model_len)


def _most_seqs(engine: EngineConfig) -> int:
    return max(engine.max_num_seqs, engine.max_num_active_seqs or 0)


def _sizes(most: int) -> NDArray[np.int64]:
    """1, 2, 3, ..., then ever larger steps up to `most`."""
    count = int(np.log(most) / np.log(_GROWTH)) + 2
    return np.unique(np.append(np.geomspace(1, most, count).astype(np.int64), most))


def _prefill_only_s(model: StepTimeModel, tokens: int) -> float:
    """g(tokens): without what each prompt in the step adds."""
    one, two = (model.duration_s(Batch(seqs, tokens, 0, 0, 0, 0)) for seqs in (1, 2))
    return one - (two - one)


def _sampling_s(model: StepTimeModel, rows: int) -> float:
    """h(rows)."""
    without, with_rows = (model.duration_s(Batch(1, rows, 0, 0, 0, sampled)) for sampled in (0, rows))
    return with_rows - without


def _least(sizes: NDArray[np.int64], times_s: Floats) -> float:
    """At most the least time for one of a step's many: between two sizes, the lower's time over the upper's size."""
    upper = np.append(sizes[1:] - 1, sizes[-1])
    return float((times_s / np.maximum(upper, sizes)).min()) * _SAFE


@dataclass(frozen=True, slots=True)
class Load:
    """What each request of a trace uses at least, shape (n, resources): until its first token, and after it.

    `rejected` are those that no engine takes. `prompt_tokens`, `uncached_tokens` and `answer_tokens` have shape (n,).
    """

    prefill: Floats
    decode: Floats
    prompt_tokens: Floats
    uncached_tokens: Floats
    answer_tokens: Floats
    rejected: NDArray[np.bool_]


def load_of(trace: Trace, max_model_lens: Sequence[int], *, caching: bool) -> Load:
    """The least use of each resource on engines of these limits; what all of them reject uses nothing.

    With `caching`, every block that occurs more than once in the trace is taken to be found in the cache.
    """
    limits = np.sort(np.asarray(max_model_lens, dtype=np.int64))
    taker = np.searchsorted(limits, trace.input_tokens, side="right")  # the smallest limit above the prompt
    rejected = taker == len(limits)
    room = limits[np.minimum(taker, len(limits) - 1)] - trace.input_tokens
    prompt = trace.input_tokens.astype(np.float64)
    answer = np.minimum(trace.output_tokens, np.maximum(room, 1)).astype(np.float64)
    uncached = np.maximum(prompt - _shared_tokens(trace), 1.0) if caching else prompt
    decoded, none = answer - 1, np.zeros(len(trace))
    pairs = uncached * (prompt - uncached) + uncached * (uncached + 1) / 2
    prefill = np.stack([uncached, pairs, none, none + 1], axis=1)
    decode = np.stack([decoded, none, decoded * prompt + decoded * (decoded + 1) / 2, decoded], axis=1)
    prefill[rejected] = decode[rejected] = 0.0
    return Load(prefill, decode, prompt, uncached, answer, rejected)


def _shared_tokens(trace: Trace) -> Floats:
    """Tokens of each prompt in blocks that occur in the trace more than once, shape (n,)."""
    if not trace.has_prefixes:
        return np.zeros(len(trace))
    _, inverse, counts = np.unique(trace.prefix_ids, return_inverse=True, return_counts=True)
    shared = (counts[inverse.reshape(-1)] > 1).astype(np.int64)
    sums = np.concatenate([[0], np.cumsum(shared)])
    blocks = sums[trace.prefix_offsets[1:]] - sums[trace.prefix_offsets[:-1]]
    found: Floats = np.minimum(blocks * trace.prefix_block_tokens, trace.input_tokens).astype(np.float64)
    return found
