"""Another trace that could as well have been: every block of time is replaced by a block from nearby.

Owns the resampling of traces. Imports errors and, of this room, columns, prefixes and trace.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from simroute.errors import UsageError
from simroute.workload.columns import Floats, Ints
from simroute.workload.prefixes import Ragged, run_positions
from simroute.workload.trace import Trace

WINDOW_BLOCKS = 10
"""A block comes from at most so many blocks before or after its place: the time of day stays what it is."""
MOST_BLOCKS = 1_000_000
"""More blocks than this are a mistake in their length."""

_COLUMNS = ("input_tokens", "output_tokens", "class_code", "tenant_code", "tier_code", "priority", "session")


def block_count(trace: Trace, block_s: float) -> int:
    """Into how many blocks of `block_s` seconds the trace falls; 0 when all its requests come at one instant.

    Raises UsageError unless `block_s` is a positive number that makes at most `MOST_BLOCKS` of them.
    """
    if not 0 < block_s < math.inf:
        raise UsageError(f"block: must be a number of seconds above 0, got {block_s:g}")
    blocks = math.ceil(_period_s(trace) / block_s)
    if blocks > MOST_BLOCKS:
        raise UsageError(
            f"block: {block_s:g} s cuts {trace.duration_s:,.0f} s of traffic into {blocks:,} blocks: "
            f"at most {MOST_BLOCKS:,}; give a longer block"
        )
    return blocks


def resampled(trace: Trace, block_s: float, rng: np.random.Generator) -> Trace:
    """A trace of the same length in time, made of blocks of `trace`: a circular, local block bootstrap.

    The block at time t is replaced by the one that starts at t + u, u uniform within `WINDOW_BLOCKS` blocks to either
    side; the trace is taken as a circle, so that each request is drawn once on average, those at the ends included.
    Inside a block requests keep their order and the gaps between them. Where a request is drawn again, what it brought
    to a prefix cache is brought anew: its copies find what it found, but not each other.
    Künsch 1989 (block bootstrap), Politis and Romano 1992 (circular), Paparoditis and Politis 2002 (local).
    Raises UsageError as `block_count` does.
    """
    blocks = block_count(trace, block_s)
    if not blocks:
        return trace
    period_s = _period_s(trace)
    place_s = block_s * np.arange(blocks)
    length_s = np.clip(period_s - place_s, 0.0, block_s)
    reach_s = min(WINDOW_BLOCKS * block_s, period_s / 2)
    from_s = (place_s + rng.uniform(-reach_s, reach_s, blocks)) % period_s
    since_s = trace.arrival_s - trace.arrival_s[0]
    twice_s = np.concatenate([since_s, since_s + period_s])
    first, last = twice_s.searchsorted(from_s), twice_s.searchsorted(from_s + length_s)
    drawn = run_positions(first, last - first)
    if not len(drawn):
        return trace  # (of a handful of requests; a world without any says nothing)
    block = np.repeat(np.arange(blocks), last - first)
    arrival_s = trace.arrival_s[0] + place_s[block] + (twice_s[drawn] - from_s[block])
    return _drawn(trace, drawn % len(trace), np.maximum.accumulate(arrival_s))


def _period_s(trace: Trace) -> float:
    """The circle's length: after the last request comes one more mean gap, then the first again."""
    n = len(trace)
    return trace.duration_s * n / (n - 1) if n > 1 else 0.0


def _drawn(trace: Trace, rows: Ints, arrival_s: Floats) -> Trace:
    """The requests `rows`, which may repeat, at these times."""
    columns = {name: getattr(trace, name)[rows] for name in _COLUMNS}
    prefixes = _prefixes(trace, rows)
    return replace(trace, arrival_s=arrival_s, prefix_offsets=prefixes.offsets, prefix_ids=prefixes.ids, **columns)


def _prefixes(trace: Trace, rows: Ints) -> Ragged:
    """The prefix ids of these rows; a row that comes again gets new ids in place of those that it was first to use.

    The ids that a request is first to use end its chain, so what is left of a chain still means what it meant.
    """
    taken = trace.prefixes.take(rows)
    if not trace.has_prefixes:
        return taken
    lengths = trace.prefixes.lengths
    owner = np.repeat(np.arange(len(trace)), lengths)
    distinct, first, ids = np.unique(trace.prefix_ids, return_index=True, return_inverse=True)
    ids = ids.reshape(-1)
    brought = owner[first][ids] == owner
    positions = run_positions(trace.prefix_offsets[:-1][rows], lengths[rows])
    anew = brought[positions] & np.repeat(_seen_before(rows), taken.lengths)
    renamed = ids[positions].astype(np.int64, copy=False)
    renamed[anew] = len(distinct) + np.arange(np.count_nonzero(anew))
    return Ragged(taken.offsets, renamed)


def _seen_before(rows: Ints) -> NDArray[np.bool_]:
    """Which rows stand in `rows` for the second time or more, shape (n,)."""
    order = np.argsort(rows, kind="stable")
    again = np.zeros(len(rows), dtype=np.bool_)
    again[order[1:]] = rows[order[1:]] == rows[order[:-1]]
    return again
