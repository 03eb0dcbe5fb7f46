"""Prefix ids as ragged arrays: row i owns `ids[offsets[i]:offsets[i + 1]]`. Imports only errors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simroute.errors import TraceError

Ints = NDArray[np.int64]
_ROUNDING = 1e-12


class Ragged(NamedTuple):
    """n rows of ids: `offsets` has shape (n + 1,), `ids` shape (offsets[-1],)."""

    offsets: Ints
    ids: Ints

    @property
    def lengths(self) -> Ints:
        """Ids in each row, shape (n,)."""
        return np.diff(self.offsets)

    def take(self, index: Ints) -> Ragged:
        """The rows `index`, in that order."""
        lengths = self.lengths[index]
        return Ragged(offsets_of(lengths), self.ids[run_positions(self.offsets[:-1][index], lengths)])


def empty(rows: int) -> Ragged:
    """`rows` rows without ids."""
    return Ragged(np.zeros(rows + 1, dtype=np.int64), np.zeros(0, dtype=np.int64))


def offsets_of(lengths: Ints) -> Ints:
    """Row boundaries, shape (n + 1,), of rows of these `lengths`."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def run_positions(starts: Ints, lengths: Ints) -> Ints:
    """`starts[i], starts[i] + 1, ...` for `lengths[i]` numbers, one row after another."""
    offsets = offsets_of(lengths)
    return np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1], dtype=np.int64)


def from_rows(rows: Sequence[Sequence[int]]) -> Ragged:
    """Ragged ids of sequences of integers. Raises TraceError when an id is no 64-bit integer."""
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    try:
        ids = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=int(lengths.sum()))
    except (TypeError, ValueError, OverflowError) as error:
        raise TraceError(f"prefixes: every id must be a 64-bit integer: {error}") from None
    return Ragged(offsets_of(lengths), ids)


def check(prefixes: Ragged, block_tokens: int, stream_tokens: Ints) -> None:
    """Raise TraceError unless the ids fit streams (prompt and answer) of `stream_tokens`, shape (n,)."""
    offsets, ids = prefixes
    bounds_fit = len(offsets) == len(stream_tokens) + 1 and offsets[0] == 0 and offsets[-1] == len(ids)
    if not bounds_fit or (offsets[1:] < offsets[:-1]).any():
        raise TraceError(f"prefix_offsets: must rise from 0 to {len(ids)} over {len(stream_tokens) + 1} values")
    if len(ids) and block_tokens < 1:
        raise TraceError(f"prefix_block_tokens: must be at least 1 when there are prefix ids, got {block_tokens}")
    too_many = prefixes.lengths > -(-stream_tokens // max(block_tokens, 1))
    if too_many.any():
        row = int(np.argmax(too_many))
        raise TraceError(
            f"prefix ids: request {row} has {prefixes.lengths[row]} blocks of {block_tokens} tokens, "
            f"but its prompt and answer have only {stream_tokens[row]} tokens"
        )


def covered_tokens(prefixes: Ragged, block_tokens: int, input_tokens: Ints, output_tokens: Ints) -> Ints:
    """Tokens of each stream that its ids describe, shape (n,).

    Ids that end with the prompt's last block are taken to describe the prompt only: what an answer adds to that
    block is unknown in traces that record prompts (Mooncake), and less than one block in those that record both.
    """
    blocks = prefixes.lengths
    prompt_only = blocks == -(-input_tokens // max(block_tokens, 1))
    stream = np.where(prompt_only, input_tokens, input_tokens + output_tokens)
    return np.minimum(blocks * block_tokens, stream)


def densified(ids: Ints) -> tuple[Ints, int]:
    """`ids` renamed to 0..k - 1, and k: room for several traces' ids in one number space."""
    distinct, renamed = np.unique(ids, return_inverse=True)
    return renamed.astype(np.int64, copy=False).reshape(-1), len(distinct)


def split(prefixes: Ragged, block_tokens: int, parts: int, covered: Ints) -> Ragged:
    """Every id as `parts` ids of `block_tokens // parts` tokens each.

    `covered` (shape (n,)) bounds a row: parts of its last block that lie wholly beyond are left out. Ids must be >= 0.
    """
    part_tokens = block_tokens // parts
    fine = (prefixes.ids[:, None] * parts + np.arange(parts, dtype=np.int64)).reshape(-1)
    lengths = np.minimum(prefixes.lengths * parts, -(-covered // part_tokens))
    return Ragged(offsets_of(lengths), fine[run_positions(prefixes.offsets[:-1] * parts, lengths)])


def stretched(prefixes: Ragged, factor: float, described: Ints, most: Ints) -> Ragged:
    """The ids of streams `factor` times as long: what was equal up to some token is equal up to `factor` times that.

    A new block needs an old one that reaches as far: the first of those. Of each row the first `described` ids are
    used and at most `most` are made (shape (n,) both), so that less may be shared than was, by under a block, and
    never more.
    """
    blocks = np.arange(int(most.max(initial=0)), dtype=np.int64)
    source = np.ceil((blocks + 1) / factor * (1 - _ROUNDING)).astype(np.int64) - 1
    place = blocks - np.searchsorted(source, source)  # among the new blocks that have the same source
    lengths = np.minimum(np.searchsorted(source, described), most)
    row_blocks = run_positions(np.zeros(len(lengths), dtype=np.int64), lengths)
    dense, _ = densified(prefixes.ids)
    old = dense[np.repeat(prefixes.offsets[:-1], lengths) + source[row_blocks]]
    return Ragged(offsets_of(lengths), old * (place.max(initial=0) + 1) + place[row_blocks])
