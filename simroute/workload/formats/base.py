"""The seam `TraceReader`, and what readers share: checking columns chunk by chunk, counting bad rows.

May import errors and the workload's columns, never a reader.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from simroute.errors import TraceError
from simroute.workload.columns import DEFAULT_NAME, MAX_WHOLE, Coded, Floats
from simroute.workload.trace import Trace

NAMED_BAD_ROWS = 5
"""How many bad rows a note names; the rest are counted."""
SHOWN_CHARACTERS = 40
"""How much of a bad value a note shows."""

Bools = NDArray[np.bool_]
Values = Sequence[object] | NDArray[np.generic]


class TraceReader(Protocol):
    """One trace format."""

    @property
    def name(self) -> str:
        """What `--format` calls it."""

    def sniff(self, path: Path) -> bool:
        """Whether the file looks like this format; reads no more than its beginning."""

    def read(self, path: Path) -> Trace:
        """The file's requests; bad rows are counted in `notes`. Raises TraceError when nothing usable is in it."""


@runtime_checkable
class DrawingReader(TraceReader, Protocol):
    """A format that holds no requests but what to draw them from: rates and distributions."""

    def draw(self, path: Path, seed: int, window_s: tuple[float, float] | None) -> Trace:
        """The requests that arrive in [from, to) seconds, the clock started there (None: all, as `read`), under `seed`.

        The same seed gives the same requests, whatever part of the time is asked for.
        """


class Chunk(NamedTuple):
    """Some rows as columns: `rows` are their numbers in the file, a missing value is None."""

    rows: Sequence[int]
    columns: dict[str, Values]


def as_numbers(values: Values) -> Floats:
    """float64 of shape (n,): NaN where a value is no number (true and false are none)."""
    if isinstance(values, np.ndarray):
        return values.astype(np.float64)
    if bool not in set(map(type, values)):
        try:
            return np.array(values, dtype=np.float64).reshape(len(values))
        except (TypeError, ValueError, OverflowError):
            pass
    return np.array([_as_number(value) for value in values], dtype=np.float64)


def _as_number(value: object) -> float:
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    return float("nan")


@dataclass(frozen=True, slots=True)
class Field:
    """A column of numbers as a file names it: what is allowed, and how its values become float64."""

    name: str
    low: float = 0.0
    whole: bool = False
    default: float | None = None
    kind: str = "a number"
    parse: Callable[[Values], Floats] = as_numbers

    def column(self, values: Values) -> tuple[Floats, Bools]:
        """The numbers and which of them break the rules, both of shape (n,); a default fills in for None and ''."""
        if self.default is not None and not isinstance(values, np.ndarray) and (None in values or "" in values):
            values = [self.default if value is None or value == "" else value for value in values]
        numbers = self.parse(values)
        good = np.isfinite(numbers) & (numbers >= self.low) & (numbers <= MAX_WHOLE)
        if self.whole:
            good &= numbers == np.floor(numbers)
        return numbers, ~good

    def complaint(self, value: object, number: float) -> str:
        """Why `value`, read as `number`, is refused."""
        if value is None:
            return f"{self.name} is missing"
        if not np.isfinite(number):
            return f"{self.name}: {_shown(value)} is not {self.kind}"
        if number < self.low:
            return f"{self.name}: {number:g} is below {self.low:g}"
        if number > MAX_WHOLE:
            return f"{self.name}: {number:g} is above 2^53"
        return f"{self.name}: {number:g} is not a whole number"


def _shown(value: object) -> str:
    """`value` as it stands in the file, cut where it is long."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."


def tokens(name: str) -> Field:
    """A column of token counts: whole numbers of at least 1 (an engine neither prefills nor generates nothing)."""
    return Field(name, low=1.0, whole=True)


class BadRows:
    """Counts the rows of one file that cannot be used, and names the first few."""

    def __init__(self, path: Path, unit: str = "line") -> None:
        self.count = 0
        self._path = path
        self._unit = unit
        self._named: list[tuple[int, str]] = []

    def add(self, row: int, why: str) -> None:
        """Count row number `row`, refused because of `why`."""
        self.count += 1
        insort(self._named, (row, why))
        del self._named[NAMED_BAD_ROWS:]

    def notes(self) -> tuple[str, ...]:
        """One line that says what was skipped, or nothing."""
        if not self.count:
            return ()
        return (f"{self._path}: skipped {self.count:,} bad row{'s'[: self.count != 1]}: {self._listing()}",)

    def _listing(self) -> str:
        more = ", ..." if self.count > len(self._named) else ""
        return ", ".join(f"{self._unit} {row} ({why})" for row, why in self._named) + more

    def nothing_left(self) -> TraceError:
        """The error for a file of which no row is usable."""
        why = f"all {self.count:,} rows are bad: {self._listing()}" if self.count else "the file holds no requests"
        return TraceError(f"{self._path}: {why}")


class Collector:
    """Gathers the good rows of a file chunk by chunk: checked numbers, and names coded on the way."""

    def __init__(self, fields: Sequence[Field], bad: BadRows, names: Sequence[str] = ()) -> None:
        self.rows = 0
        self._fields = fields
        self._bad = bad
        self._numbers: dict[str, list[Floats]] = {field.name: [] for field in fields}
        self._codes: dict[str, list[NDArray[np.int64]]] = {name: [] for name in names}
        self._positions: dict[str, dict[str, int]] = {name: {} for name in names}

    def add(self, chunk: Chunk, more_bad: dict[int, str] | None = None) -> Bools:
        """Keep the good rows of `chunk` and say which they are; `more_bad` gives a reason for positions refused."""
        columns = {field.name: field.column(chunk.columns[field.name]) for field in self._fields}
        refused = np.zeros(len(chunk.rows), dtype=np.bool_)
        for _, bad in columns.values():
            refused |= bad
        more_bad = {**self._nameless(chunk), **(more_bad or {})}
        refused[list(more_bad)] = True
        for position in np.flatnonzero(refused).tolist():
            self._bad.add(chunk.rows[position], self._reason(chunk, columns, position, more_bad))
        keep = ~refused
        kept = np.flatnonzero(keep).tolist()
        for name, (numbers, _) in columns.items():
            self._numbers[name].append(numbers[keep])
        for name in self._codes:
            self._codes[name].append(self._coded(name, [chunk.columns[name][k] for k in kept]))
        self.rows += int(keep.sum())
        return keep

    def numbers(self, name: str) -> Floats:
        """The good rows of a field, shape (rows,)."""
        return np.concatenate(self._numbers[name])

    def names(self, name: str) -> Coded:
        """The good rows of a column of names."""
        return Coded(np.concatenate(self._codes[name]), tuple(self._positions[name]))

    def require_rows(self) -> None:
        """Raise TraceError when no good row was found."""
        if not self.rows:
            raise self._bad.nothing_left()

    def _nameless(self, chunk: Chunk) -> dict[int, str]:
        """Positions at which a column of names holds a list or a mapping."""
        found = {}
        for name in self._codes:
            values = chunk.columns[name]
            if not {list, dict}.isdisjoint(map(type, values)):
                wrong = (k for k, value in enumerate(values) if isinstance(value, list | dict))
                found.update({k: f"{name}: {_shown(values[k])} is not text" for k in wrong})
        return found

    def _coded(self, name: str, values: Values) -> NDArray[np.int64]:
        """Codes of a column of hashable values; None and '' go by the default name."""
        positions = self._positions[name]
        code_of = {}
        for value in dict.fromkeys(values):
            label = DEFAULT_NAME if value is None or value == "" else str(value)
            code_of[value] = positions.setdefault(label, len(positions))
        return np.fromiter(map(code_of.__getitem__, values), dtype=np.int64, count=len(values))

    def _reason(
        self, chunk: Chunk, columns: dict[str, tuple[Floats, Bools]], position: int, more_bad: dict[int, str]
    ) -> str:
        if position in more_bad:
            return more_bad[position]
        field = next(field for field in self._fields if columns[field.name][1][position])
        return field.complaint(chunk.columns[field.name][position], float(columns[field.name][0][position]))
