"""Single columns of a trace: checking numbers, coding names. Imports only errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simroute.errors import TraceError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DEFAULT_NAME = "default"
"""The request class, tenant or tier of a request that names none."""
MAX_WHOLE = 2.0**53
"""Numbers up to here are exact in float64; anything above is taken for damage."""


class Coded(NamedTuple):
    """A column of names: row i is `names[code[i]]`. `code` has shape (n,)."""

    code: Ints
    names: tuple[str, ...]

    def canonical(self) -> Coded:
        """The same column with sorted, used names only: equal columns have equal canonical codes."""
        used = np.unique(self.code)
        names = sorted({self.names[code] for code in used})
        position = {name: k for k, name in enumerate(names)}
        lookup = np.zeros(len(self.names), dtype=np.int64)
        lookup[used] = [position[self.names[code]] for code in used]
        return Coded(lookup[self.code], tuple(names))


Names = str | Sequence[str] | Coded
"""How a column of names may be given: one name for all rows, one a row, or coded already."""


def encode(what: str, value: Names | None, rows: int) -> Coded:
    """The column `what` as canonical codes. Raises TraceError unless `value` is one name or one a row."""
    if value is None:
        value = DEFAULT_NAME
    if isinstance(value, str):
        return Coded(np.zeros(rows, dtype=np.int64), (value,))
    if isinstance(value, Coded):
        _same_length(what, len(value.code), rows)
        return value.canonical()
    _same_length(what, len(value), rows)
    position: dict[str, int] = {}
    code = np.fromiter((position.setdefault(str(name), len(position)) for name in value), dtype=np.int64, count=rows)
    return Coded(code, tuple(position)).canonical()


def number_column(what: str, value: ArrayLike, rows: int | None = None, *, low: float, whole: bool) -> Floats:
    """`value` as float64 of shape (n,): all in [`low`, 2^53] and, if `whole`, without a fraction.

    A single number stands for all `rows`. Raises TraceError naming the first request that breaks the rule.
    """
    try:
        column = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TraceError(f"{what}: must be numbers: {error}") from None
    if column.ndim == 0 and rows is not None:
        column = np.full(rows, column)
    if column.ndim != 1:
        raise TraceError(f"{what}: must have one dimension, has {column.ndim}")
    if rows is not None:
        _same_length(what, len(column), rows)
    bad = ~(np.isfinite(column) & (column >= low) & (column <= MAX_WHOLE))
    if whole:
        bad |= column != np.floor(column)
    if bad.any():
        first = int(np.argmax(bad))
        kind = "whole numbers" if whole else "finite numbers"
        raise TraceError(f"{what}: must be {kind} from {low:g} to 2^53, request {first} has {column[first]:g}")
    return column


def whole_column(what: str, value: ArrayLike | None, rows: int, default: int) -> Ints:
    """`value` as int64 of shape (rows,), `default` everywhere when it is None. Raises TraceError for non-integers."""
    if value is None:
        return np.full(rows, default, dtype=np.int64)
    column = np.asarray(value)
    if column.dtype.kind not in "iu":
        return number_column(what, value, rows, low=-np.inf, whole=True).astype(np.int64)
    if column.ndim == 0:
        return np.full(rows, column, dtype=np.int64)
    _same_length(what, len(column), rows)
    return column.astype(np.int64)


def out_of_order(arrival_s: Floats) -> int:
    """How many arrivals come before one that stands above them."""
    if len(arrival_s) < 2:
        return 0
    return int(np.count_nonzero(arrival_s[1:] < np.maximum.accumulate(arrival_s)[:-1]))


def _same_length(what: str, got: int, rows: int) -> None:
    if got != rows:
        raise TraceError(f"{what}: has {got} values for {rows} requests")
