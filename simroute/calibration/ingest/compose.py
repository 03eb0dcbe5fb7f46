"""From a model's kernels to a calibration: steps are composed over a grid of batches, and `StepTerms` fitted to them.

    duration = overhead + kernels of all layers + output head and sampler

Owns the grid of batches and the constants that no kernel table holds. Imports calibration's solve and knots, errors
and hardware.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from simroute.calibration.ingest.kernels import GRAPH_TOKENS, Kernels
from simroute.calibration.knots import candidate_knots, pruned, ramps
from simroute.calibration.solve import nonnegative
from simroute.hardware.calibration import FitError, MeasuredRange, StepTerms
from simroute.hardware.steptime import Batch

Floats = NDArray[np.float64]

GRAPH_SIZES = (1, 2, 4, *range(8, 257, 8), *range(272, GRAPH_TOKENS + 1, 16))
"""vLLM's default CUDA-graph capture sizes."""
CONTEXTS_TOKENS = (32, 128, 512, 1024, 2048, 4096, 8192, 16384)
"""Contexts of the decoding requests of a composed step."""
CHUNKS_TOKENS = (16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
"""Prefill chunks of a composed step: as prompts of their own, and after `CHUNK_STARTS_TOKENS` of the same prompt."""
CHUNK_STARTS_TOKENS = (0, 2048, 8192)
PROMPTS_TOKENS = (128, 512, 1024, 2048)
PROMPTS = (2, 4)
"""Prompts that share a step, their tokens and their number."""
DECODE_SHARE, PREFILL_SHARE = 0.8, 0.1
"""Weight in the fit of steps that only decode and that only prefill; mixed steps have the rest. An engine that answers
prompts of some thousand tokens with some hundred makes several steps of the first kind for each of the others."""
FOLDS = 5
KNOT_TOLERANCE = 0.003
"""A GEMM knot goes when the root mean square error without it is not further off than this."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How large the batches of an engine can get; `kv_tokens` is what its KV cache holds."""

    max_num_batched_tokens: int
    max_num_seqs: int
    kv_tokens: int
    max_model_len: int = 32768


@dataclass(frozen=True, slots=True)
class Overhead:
    """What a step takes beside its kernels, in seconds: every step, and one with a prompt on top."""

    step_s: float
    prompt_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Composed:
    """Terms fitted to composed steps, how well they reproduce those they were not fitted to, and what was covered."""

    step: StepTerms
    median: float
    p90: float
    range: MeasuredRange
    steps: int

    def error(self, bias_sd: float) -> FitError:
        """With the error that a whole run has in common, which kernels alone cannot tell."""
        return FitError(median=self.median, p90=self.p90, bias_sd=bias_sd)


def step_s(kernels: Kernels, batch: Batch, overhead: Overhead) -> float:
    """Seconds of one step of `batch`: every request of it passes the output head, as in vLLM."""
    tokens = batch.prefill_tokens + batch.decode_seqs
    seqs = batch.prefill_seqs + batch.decode_seqs
    overhead_s = overhead.step_s + (overhead.prompt_s if batch.prefill_seqs else 0.0)
    return overhead_s + kernels.tokens_s(tokens) + kernels.attention_s(batch) + kernels.head_s(seqs)


def composed(kernels: Kernels, limits: Limits, overhead: Overhead) -> Composed:
    """Fit `StepTerms`, launched as `overhead` says, to steps of every kind that an engine within `limits` makes."""
    batches, overhead_s = composed_batches(kernels.sizes, limits), overhead.step_s
    seconds = np.array([step_s(kernels, batch, overhead) for batch in batches])
    inputs = np.array([astuple(batch) for batch in batches], dtype=np.float64)
    knots = _knots(kernels, limits)
    step = fitted_terms(inputs, seconds, knots, overhead_s)
    errors = np.concatenate([_errors_of_fold(inputs, seconds, knots, overhead_s, fold) for fold in range(FOLDS)])
    median, p90 = np.quantile(np.abs(errors), (0.5, 0.9)).tolist()
    return Composed(step, median, p90, _range(inputs), len(batches))


def composed_batches(sizes: Floats, limits: Limits) -> list[Batch]:
    """Steps that only decode, only prefill, and do both; as large as `limits` allow."""
    most = limits.max_num_batched_tokens
    decodes = [
        Batch(0, 0, 0, seqs, seqs * context, seqs)
        for seqs, context in product(sizes[sizes <= limits.max_num_seqs].astype(int).tolist(), CONTEXTS_TOKENS)
        if seqs * context <= limits.kv_tokens and context <= limits.max_model_len
    ]
    chunks = [
        Batch(1, chunk, pairs(chunk, start), 0, 0, 1)
        for chunk, start in product(_chunks(sizes, most), CHUNK_STARTS_TOKENS)
        if chunk + start <= min(limits.max_model_len, limits.kv_tokens)
    ]
    prompts = [
        Batch(seqs, seqs * prompt, seqs * pairs(prompt, 0), 0, 0, seqs)
        for prompt, seqs in product(PROMPTS_TOKENS, PROMPTS)
        if seqs * prompt <= most
    ]
    mixed = [
        Batch(
            prefill.prefill_seqs,
            prefill.prefill_tokens,
            prefill.prefill_pairs,
            decode.decode_seqs,
            decode.decode_context_tokens,
            prefill.sampled_seqs + decode.sampled_seqs,
        )
        for prefill, decode in product((*chunks, *prompts), decodes)
        if decode.decode_seqs in (8, 32, 128)
        and decode.decode_context_tokens // decode.decode_seqs in (512, 2048)
        and prefill.prefill_tokens + decode.decode_seqs <= most
    ]
    return [*decodes, *chunks, *prompts, *mixed]


def pairs(chunk: int, start: int) -> int:
    """(Query, key) pairs of a prefill chunk that begins after `start` tokens."""
    return chunk * start + chunk * (chunk + 1) // 2


def _chunks(sizes: Floats, most: int) -> list[int]:
    """Chunks beyond CUDA graphs have any size: all that were measured are taken, next to round ones."""
    measured = {int(size) for size in sizes if size > GRAPH_TOKENS}
    return sorted(chunk for chunk in measured | set(CHUNKS_TOKENS) if chunk <= most)


def fitted_terms(inputs: Floats, seconds: Floats, knots: tuple[int, ...], overhead_s: float) -> StepTerms:
    """The terms nearest to `seconds`, in ratio, none of them negative; `inputs` has a row a step, as in `Batch`.

    What contexts and pairs cost is told by steps that differ in nothing else; the other terms are fitted to what is
    left. Otherwise they would bend to where a measured GEMM is not monotone.
    """
    prefill_seqs, prefill_tokens, prefill_pairs, decode_seqs, context, _ = inputs.T
    context_s = slope_within(decode_seqs, context, seconds, prefill_seqs == 0)
    pair_s = slope_within(prefill_tokens, prefill_pairs, seconds, (decode_seqs == 0) & (prefill_seqs == 1))
    known_s = overhead_s + context * context_s + prefill_pairs * pair_s
    weight = np.sqrt(step_weights(inputs)) / seconds
    matrix = np.column_stack([ramps(prefill_tokens + decode_seqs, knots), prefill_seqs, decode_seqs])
    values = nonnegative(matrix * weight[:, None], (seconds - known_s) * weight)
    gemm_s, (prefill_seq_s, decode_seq_s) = np.cumsum(values[: len(knots)]), values[len(knots) :].tolist()
    return StepTerms(
        launch_ms=overhead_s * 1e3,
        gemm_ms={tokens: float(value) * 1e3 for tokens, value in zip(knots, gemm_s, strict=True)},
        prefill_seq_us=prefill_seq_s * 1e6,
        decode_seq_us=decode_seq_s * 1e6,
        prefill_pair_ns=pair_s * 1e9,
        decode_context_token_ns=context_s * 1e9,
        graph_sizes=GRAPH_SIZES,
    )


def step_weights(inputs: Floats) -> Floats:
    """Weights of the steps, by kind; they sum to 1."""
    prefills, decodes = inputs[:, 0] > 0, inputs[:, 3] > 0
    kinds = ((decodes & ~prefills, DECODE_SHARE), (prefills & ~decodes, PREFILL_SHARE))
    weights: Floats = np.zeros(len(inputs))
    for members, share in (*kinds, (prefills & decodes, 1 - DECODE_SHARE - PREFILL_SHARE)):
        weights[members] = share / max(members.sum(), 1)
    weights /= weights.sum()
    return weights


def slope_within(groups: Floats, x: Floats, seconds: Floats, members: NDArray[np.bool_]) -> float:
    """Seconds a unit of `x` adds, told by `members` of equal `groups`; 0 where none differ.

    Least squares of relative errors, with a level of its own for each group.
    """
    top = bottom = 0.0
    for group in np.unique(groups[members]):
        rows = members & (groups == group)
        weight = seconds[rows] ** -2.0
        x_off = x[rows] - np.average(x[rows], weights=weight)
        top += float((weight * x_off * seconds[rows]).sum())
        bottom += float((weight * x_off**2).sum())
    return max(top / bottom, 0.0) if bottom else 0.0


def predicted_s(step: StepTerms, inputs: Floats) -> Floats:
    """Seconds of each step of `inputs` by `step`, batches as they are (those composed are padded already)."""
    prefill_seqs, prefill_tokens, prefill_pairs, decode_seqs, context, sampled = inputs.T
    rises_ms = np.diff(tuple(step.gemm_ms.values()), prepend=0.0)
    seconds: Floats = (
        (step.launch_ms + ramps(prefill_tokens + decode_seqs, tuple(step.gemm_ms)) @ rises_ms) * 1e-3
        + (prefill_seqs * step.prefill_seq_us + decode_seqs * step.decode_seq_us + sampled * step.sampled_seq_us) * 1e-6
        + (prefill_pairs * step.prefill_pair_ns + context * step.decode_context_token_ns) * 1e-9
    )
    return seconds


def _errors_of_fold(inputs: Floats, seconds: Floats, knots: tuple[int, ...], overhead_s: float, fold: int) -> Floats:
    """Relative errors on every fifth step, by terms fitted to the others."""
    held_out = np.arange(len(seconds)) % FOLDS == fold
    step = fitted_terms(inputs[~held_out], seconds[~held_out], knots, overhead_s)
    errors: Floats = predicted_s(step, inputs[held_out]) / seconds[held_out] - 1
    return errors


def _knots(kernels: Kernels, limits: Limits) -> tuple[int, ...]:
    """Where the curve over tokens bends: the fewest of the measured sizes that keep it within 1 %."""
    sizes = kernels.sizes[kernels.sizes <= limits.max_num_batched_tokens]
    seconds = np.array([kernels.tokens_s(size) for size in sizes])

    def error(knots: Sequence[int]) -> float:
        relative = ramps(sizes, knots) / seconds[:, None]
        return float(np.sqrt(np.mean((relative @ nonnegative(relative, np.ones(len(sizes))) - 1) ** 2)))

    return pruned(candidate_knots(sizes), error, KNOT_TOLERANCE)


def _range(inputs: Floats) -> MeasuredRange:
    _, prefill_tokens, prefill_pairs, decode_seqs, context, _ = inputs.T

    def span(values: Floats) -> tuple[int, int]:
        return int(values.min()), int(values.max())

    return MeasuredRange(
        tokens=span(prefill_tokens + decode_seqs),
        decode_seqs=span(decode_seqs),
        decode_context_tokens=span(context),
        prefill_pairs=span(prefill_pairs),
    )
