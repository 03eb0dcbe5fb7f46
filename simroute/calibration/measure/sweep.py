"""The designed sweep: which batches an engine is made to run, so that a fit sees every term by itself and together.

Pure: limits in, points out; knows no server and no clock. Imports only the standard library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

Point = TypeVar("Point")

SMALLEST_CHUNK = 16
HOLD_STEPS = 6
"""Steps for which a staircase keeps each batch size."""
KV_SHARE = 0.8
"""The part of the KV cache that a point may fill: what the sweep measures is steps, not preemption."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the engine allows. `kv_tokens` is the room in its KV cache."""

    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    kv_tokens: int
    block_size: int
    prefix_caching: bool

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt that still leaves room for an answer."""
        return min(self.max_model_len - 2, int(KV_SHARE * self.kv_tokens))


@dataclass(frozen=True, slots=True)
class Prefill:
    """`seqs` prompts at once, each of `context` cached tokens and `tokens` new ones, answered with one token."""

    tokens: int
    context: int
    seqs: int = 1


@dataclass(frozen=True, slots=True)
class Staircase:
    """A batch that decodes and shrinks: `sizes`, the largest first, each for HOLD_STEPS steps, from `context` on."""

    sizes: tuple[int, ...]
    context: int

    def outputs(self) -> list[int]:
        """Tokens that each of the `sizes[0]` requests asks for: the one with index i stays while the size is above i.

        One token comes with the prefill, the rest from decoding.
        """
        return [1 + HOLD_STEPS * sum(size > i for size in self.sizes) for i in range(self.sizes[0])]


@dataclass(frozen=True, slots=True)
class Mixed:
    """`decode_seqs` requests decode from `context` on while prompts of each of `chunks` arrive, one after another."""

    decode_seqs: int
    context: int
    chunks: tuple[int, ...]

    @property
    def output_tokens(self) -> int:
        """Asked of each decoding request: an arriving prompt takes about three steps, and some start late."""
        return 4 * len(self.chunks) + 8


def ladder(low: int, high: int) -> list[int]:
    """low, 1.5 low, 2 low, 3 low, 4 low, ... below `high`, and `high` itself; nothing when high < low."""
    rungs: list[int] = []
    step = low
    while step < high:
        rungs += [step, step * 3 // 2]
        step *= 2
    return sorted({rung for rung in rungs if rung < high} | ({high} if high >= low else set()))


def contexts(limits: Limits) -> list[int]:
    """Context lengths to visit: 0, then whole blocks near 256, 1024, 4096 ... up to the longest prompt."""
    found, context = [0], 256
    while context + SMALLEST_CHUNK <= limits.longest_prompt:
        found.append(max(1, context // limits.block_size) * limits.block_size)
        context *= 4
    return sorted({c for c in found if c + SMALLEST_CHUNK <= limits.longest_prompt})


def prefill_points(limits: Limits) -> list[Prefill]:
    """Chunks of 16 to max_num_batched_tokens at several contexts, and small prompts several at a time.

    Without prefix caching a context comes from chunking: prompts of several times max_num_batched_tokens.
    """
    largest, longest = limits.max_num_batched_tokens, limits.longest_prompt
    chunks = ladder(SMALLEST_CHUNK, min(largest, longest))
    points = [Prefill(tokens, 0) for tokens in chunks]
    if limits.prefix_caching:
        points += [Prefill(n, c) for c in contexts(limits)[1:] for n in chunks[::2] if c + n <= longest]
    points += [Prefill(times * largest, 0) for times in (2, 4, 8) if times * largest <= longest]
    for seqs in ladder(2, min(limits.max_num_seqs, 32))[::2]:
        points += [Prefill(n, 0, seqs) for n in chunks[::4] if seqs * n <= min(largest, KV_SHARE * limits.kv_tokens)]
    return points


def decode_points(limits: Limits, prompt_tokens: float) -> list[Staircase]:
    """A staircase over batches of 1 to max_num_seqs for each context.

    `prompt_tokens` is what may be prefilled for one staircase: long contexts get smaller batches.
    """
    points = []
    for context in [SMALLEST_CHUNK, *contexts(limits)[1:]]:
        most = _most_seqs(limits, context, prompt_tokens, KV_SHARE)
        sizes = tuple(reversed(ladder(1, max(1, min(limits.max_num_seqs, most)))))
        if context + Staircase(sizes, context).outputs()[0] <= limits.max_model_len:
            points.append(Staircase(sizes, context))
    return points


def mixed_points(limits: Limits, prompt_tokens: float) -> list[Mixed]:
    """Batches that decode, joined by prompts of 16 to max_num_batched_tokens; `prompt_tokens` as of decode_points."""
    points = []
    for context in [SMALLEST_CHUNK, *contexts(limits)[1:3]]:
        most = min(limits.max_num_seqs - 1, _most_seqs(limits, context, prompt_tokens, KV_SHARE / 2))
        for seqs in ladder(1, most)[:-1:2] + [most] * (most >= 1):
            largest = min(limits.max_num_batched_tokens - seqs, limits.longest_prompt)
            chunks = tuple(ladder(SMALLEST_CHUNK, largest)[::2])
            point = Mixed(seqs, context, chunks)
            if chunks and context + point.output_tokens <= limits.max_model_len:
                points.append(point)
    return points


def _most_seqs(limits: Limits, context: int, prompt_tokens: float, kv_share: float) -> int:
    """How many prompts of `context` tokens may be prefilled, and fit into that part of the KV cache as they grow."""
    return int(min(prompt_tokens / context, kv_share * limits.kv_tokens / (context + limits.block_size)))


def spread(points: Sequence[Point]) -> list[Point]:
    """The points in an order of which every beginning covers the range: last, first, middle, quarters, eighths, ..."""
    last, bits = len(points) - 1, len(points).bit_length()
    return [points[i] for i in sorted(range(last + 1), key=lambda i: (i != last, f"{i:0{bits}b}"[::-1]))]
