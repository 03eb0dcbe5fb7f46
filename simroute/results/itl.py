"""Inter-token latencies of a whole run in constant memory. Owns `ItlHistogram`; imports nothing of simroute.

`vllm bench serve` pools the gaps between the tokens of all requests and takes percentiles of the pool. A simulated
day has 10^8 such gaps, so they are counted in log-spaced bins of 0.1% relative width instead of being stored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RELATIVE_WIDTH = 1e-3
LOWEST_S = 1e-6
HIGHEST_S = 1e5
"""Gaps below `LOWEST_S` count as zero; those of `HIGHEST_S` and above share the last bin."""

_LOG_STEP = math.log1p(RELATIVE_WIDTH)
_SPACED = math.ceil(math.log(HIGHEST_S / LOWEST_S) / _LOG_STEP)
_ROWS_AT_ONCE = 1 << 16
"""Rows are handled in slices, so that spreading them over bins needs little memory however many come at once."""


class ItlHistogram:
    """A weighted histogram of gaps in seconds: bin 0 is [0, `LOWEST_S`), then log-spaced bins, then an overflow bin.

    `count`, `mean`, the smallest and the largest gap are exact; quantiles are within `RELATIVE_WIDTH` of exact ones.
    """

    __slots__ = ("_counts", "_max_s", "_min_s", "_sum_s")

    def __init__(self) -> None:
        self._counts: Ints = np.zeros(_SPACED + 2, dtype=np.int64)
        self._sum_s = 0.0
        self._min_s = math.inf
        self._max_s = -math.inf

    @property
    def count(self) -> int:
        """The number of gaps."""
        return int(self._counts.sum())

    @property
    def mean(self) -> float:
        """Mean gap in seconds; NaN when empty."""
        count = self.count
        return self._sum_s / count if count else math.nan

    def add(self, first_s: Floats, last_s: Floats, steps: Ints, seqs: Ints) -> None:
        """Count runs of decode steps; all four arrays have shape (rows,).

        Row i stands for `steps[i]` consecutive steps whose durations go evenly from `first_s[i]` to `last_s[i]`
        seconds (non-negative), each a gap seen by `seqs[i]` requests. A single step lasts `first_s[i]`; rows with no
        step or no request count nothing. Give many rows at once: a call costs 0.2 ms, then about 0.5 us a row.
        """
        for start in range(0, len(first_s), _ROWS_AT_ONCE):
            piece = slice(start, start + _ROWS_AT_ONCE)
            self._add_rows(first_s[piece], last_s[piece], steps[piece], seqs[piece])

    def merge(self, other: ItlHistogram) -> None:
        """Count everything `other` has counted."""
        self._counts += other._counts
        self._sum_s += other._sum_s
        self._min_s = min(self._min_s, other._min_s)
        self._max_s = max(self._max_s, other._max_s)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """All that was counted: the bins that hold gaps, how many each, and (sum, least, most) in seconds."""
        bins = np.flatnonzero(self._counts)
        ends_s = np.array([self._sum_s, self._min_s, self._max_s])
        return {"bins": bins, "counts": self._counts[bins], "ends_s": ends_s}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> ItlHistogram:
        """The histogram that gave `arrays`."""
        made = cls()
        made._counts[arrays["bins"]] = arrays["counts"]
        made._sum_s, made._min_s, made._max_s = (float(end_s) for end_s in arrays["ends_s"])
        return made

    def quantile(self, q: float) -> float:
        """The gap below which a share `q` (0..1) lies, interpolated linearly between ranks; NaN when empty."""
        cumulative = np.cumsum(self._counts)
        count = int(cumulative[-1])
        if not count:
            return math.nan
        rank = q * (count - 1)
        below = math.floor(rank)
        low = self._value_at(below, cumulative)
        return low + (rank - below) * (self._value_at(min(below + 1, count - 1), cumulative) - low)

    def _value_at(self, rank: int, cumulative: Ints) -> float:
        """The gap of that rank (0 the smallest), a bin's gaps being taken as evenly spaced inside it."""
        index = int(np.searchsorted(cumulative, rank, side="right"))
        if index == 0:
            return max(0.0, min(self._min_s, LOWEST_S))
        if index > _SPACED:
            return self._max_s
        share = (rank - int(cumulative[index - 1]) + 0.5) / int(self._counts[index])
        value = LOWEST_S * math.exp((index - 1 + share) * _LOG_STEP)
        return min(max(value, self._min_s), self._max_s)

    def _add_rows(self, first_s: Floats, last_s: Floats, steps: Ints, seqs: Ints) -> None:
        kept = (steps > 0) & (seqs > 0)
        if not kept.all():
            first_s, last_s, steps, seqs = first_s[kept], last_s[kept], steps[kept], seqs[kept]
        if not len(steps):
            return
        last_s = np.where(steps == 1, first_s, last_s)
        low_s, high_s = np.minimum(first_s, last_s), np.maximum(first_s, last_s)
        self._sum_s += float((0.5 * (low_s + high_s) * (steps * seqs)).sum())  # (np.dot would start BLAS threads)
        self._min_s = min(self._min_s, float(low_s.min()))
        self._max_s = max(self._max_s, float(high_s.max()))
        low_bin, high_bin = _bins(low_s), _bins(high_s)
        covered = high_bin - low_bin + 1
        single = covered == 1
        np.add.at(self._counts, low_bin[single], (steps * seqs)[single])
        # A few steps far apart are cheaper to place one by one; many steps are counted edge by edge.
        sparse = ~single & (steps <= covered)
        if sparse.any():
            self._place(low_s[sparse], high_s[sparse], steps[sparse], seqs[sparse])
        dense = ~single & (steps > covered)
        if dense.any():
            self._spread(low_s[dense], high_s[dense], steps[dense], seqs[dense], low_bin[dense], covered[dense])

    def _place(self, low_s: Floats, high_s: Floats, steps: Ints, seqs: Ints) -> None:
        """Count every step of every row in its own bin."""
        row, step = _expand(steps)
        gap_s = low_s[row] + (high_s - low_s)[row] * (step / np.maximum(steps[row] - 1, 1))
        np.add.at(self._counts, _bins(gap_s), seqs[row])

    def _spread(self, low_s: Floats, high_s: Floats, steps: Ints, seqs: Ints, low_bin: Ints, covered: Ints) -> None:
        """Count, for each bin a row covers, how many terms of its progression lie there."""
        row, offset = _expand(covered)
        index = low_bin[row] + offset
        upper_edge_s = LOWEST_S * np.exp(index * _LOG_STEP)
        pitch_s = (high_s - low_s) / (steps - 1)
        below = np.ceil((upper_edge_s - low_s[row]) / pitch_s[row]).astype(np.int64)
        np.clip(below, 0, steps[row], out=below)
        last = np.cumsum(covered) - 1
        below[last] = steps
        inside = np.diff(below, prepend=0)
        first = last - covered + 1
        inside[first] = below[first]
        np.add.at(self._counts, index, inside * seqs[row])


def _bins(gap_s: Floats) -> Ints:
    """Bin of each gap: 0 below `LOWEST_S`, `_SPACED` + 1 from `HIGHEST_S` on."""
    position = np.log(np.maximum(gap_s, LOWEST_S * math.exp(-_LOG_STEP)) / LOWEST_S)
    position /= _LOG_STEP
    bins = np.floor(position, out=position).astype(np.int64)
    bins += 1
    return np.clip(bins, 0, _SPACED + 1, out=bins)


def _expand(lengths: Ints) -> tuple[Ints, Ints]:
    """(row, position in the row) of every element of rows of these lengths, laid end to end."""
    row = np.repeat(np.arange(len(lengths)), lengths)
    start = np.cumsum(lengths) - lengths
    return row, np.arange(len(row)) - start[row]
