"""What a window of a split replay leaves, in little room, and the pieces put together again as one run.

Owns `Span`, `Piece` and `Whole`. Imports results and scenario.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simroute.results.itl import ItlHistogram
from simroute.results.run import FleetRun, ReplicaTotals, Status, Timeline
from simroute.scenario.build import Built
from simroute.workload.trace import Trace

Arrays = dict[str, NDArray[Any]]

ROWS: Mapping[str, tuple[type[np.generic], Any]] = {
    "first_token_s": (np.float64, np.nan),
    "finish_s": (np.float64, np.nan),
    "status": (np.int8, Status.UNFINISHED),
    "replica": (np.int32, -1),
    "preemptions": (np.int32, 0),
    "cached_tokens": (np.int64, 0),
    "reason_code": (np.int32, -1),
    "generated_tokens": (np.int64, 0),
    "left_s": (np.float64, np.nan),
    "tries": (np.int32, 0),
    "attempts": (np.int32, 0),
}
"""The columns of a FleetRun with their types, and what a row has in them until its piece comes."""
SUMS = ("busy_s", "steps", "prefill_tokens", "output_tokens", "preemptions")
"""What is counted for each replica, window by window."""


@dataclass(frozen=True, slots=True)
class Span:
    """Rows `begin` to `end` of the trace, which arrive from `start_s` to `stop_s` (None: to the end of the run).

    Replayed behind the traffic from `from_s` on.
    """

    from_s: float
    start_s: float
    stop_s: float | None
    begin: int
    end: int


@dataclass(slots=True)
class Piece:
    """What a span leaves: its rows, with times as in the trace, and what was counted between its start and its end.

    `rows` are columns as `compact` makes them, without those that a fleet of this kind has not. `begins` and `ends` are
    the fleet's state at the span's start and end (see agreement); `company` holds, for the rows that follow the span
    and were replayed with it, the tokens that they found in a cache (-1: not known).
    """

    rows: Arrays
    reasons: tuple[str, ...]
    itl: ItlHistogram
    timeline: Timeline
    replicas: list[ReplicaTotals]
    end_s: float
    begins: NDArray[np.float64]
    ends: NDArray[np.float64]
    company: NDArray[np.int64]

    def arrays(self) -> Arrays:
        """The piece as arrays without objects, to be kept on disk."""
        plain = {"reasons": self.reasons, "end_s": self.end_s, "replicas": [asdict(each) for each in self.replicas]}
        parts: dict[str, Mapping[str, Any]] = {
            "rows": self.rows,
            "itl": self.itl.arrays(),
            "timeline": {name: column for name, column in _columns(self.timeline).items() if column is not None},
            "state": {"begins": self.begins, "ends": self.ends, "company": compact(self.company)},
        }
        found = {f"{part}.{name}": array for part, arrays in parts.items() for name, array in arrays.items()}
        return found | {"plain": np.array(json.dumps(plain))}

    @classmethod
    def of_arrays(cls, arrays: Arrays) -> Piece:
        """The piece that gave `arrays`. Raises KeyError where some are missing."""
        parts: dict[str, Arrays] = {"rows": {}, "itl": {}, "timeline": {}, "state": {}}
        for name, array in arrays.items():
            part, _, rest = name.partition(".")
            if rest:
                parts[part][rest] = array
        plain = json.loads(str(arrays["plain"]))
        return cls(
            rows=parts["rows"],
            reasons=tuple(plain["reasons"]),
            itl=ItlHistogram.of_arrays(parts["itl"]),
            timeline=Timeline(**parts["timeline"]),
            replicas=[ReplicaTotals(**each) for each in plain["replicas"]],
            end_s=plain["end_s"],
            **parts["state"],
        )


def compact(column: NDArray[Any]) -> NDArray[Any]:
    """The column in few bytes: one value where all are the same, whole numbers as narrow as they fit."""
    if len(column) and (np.isnan(column) if column[0] != column[0] else column == column[0]).all():
        return column[:1].copy()
    if len(column) and np.issubdtype(column.dtype, np.integer):
        narrow = np.promote_types(*(np.min_scalar_type(edge) for edge in (column.min(), column.max())))
        return column.astype(narrow) if narrow.itemsize < column.dtype.itemsize else column.copy()
    return column.copy()


def expanded(rows: Mapping[str, NDArray[Any]], count: int) -> dict[str, Any]:
    """The columns of `count` rows that `compact` made small."""
    found = {}
    for name, column in rows.items():
        found[name] = np.empty(count, dtype=ROWS[name][0])
        found[name][:] = column
    return found


def part_of(run: FleetRun, span: Span) -> FleetRun:
    """The rows of a span alone; everything else is of the whole run."""
    columns = {name: column for name in ROWS if (column := getattr(run, name)) is not None}
    mine = {name: column[span.begin : span.end] for name, column in columns.items()}
    return replace(run, trace=run.trace.select(np.arange(span.begin, span.end)), **mine)


class Whole:
    """One policy's run of the whole trace, filled piece by piece; rows of which there is no piece are unfinished."""

    def __init__(self, built: Built, label: str, spans: Sequence[Span]) -> None:
        self._built = built
        self._label = label
        self._spans = spans
        self._columns: dict[str, NDArray[Any]] = {}
        self._rest: dict[int, Piece] = {}

    def put(self, number: int, piece: Piece) -> None:
        """Window `number` is this; what it was before is forgotten. The piece's rows are taken from it."""
        span = self._spans[number]
        for name, rows in piece.rows.items():
            if name not in self._columns:
                dtype, empty = ROWS[name]
                self._columns[name] = np.full(len(self._built.trace), empty, dtype=dtype)
            self._columns[name][span.begin : span.end] = rows
        self._rest[number] = replace(piece, rows={})

    def rest(self, number: int) -> Piece:
        """What is known of a window but for its rows."""
        return self._rest[number]

    def rows(self, name: str, number: int, most: int | None = None) -> NDArray[Any]:
        """The first `most` rows of a window in the column `name`."""
        span = self._spans[number]
        return self._columns[name][span.begin : span.end][:most]

    def run(self) -> FleetRun:
        """The run, of all pieces."""
        pieces = [self._rest[number] for number in range(len(self._spans))]
        reasons = tuple(dict.fromkeys(reason for piece in pieces for reason in piece.reasons))
        columns: dict[str, Any] = {name: self._columns.get(name) for name in ROWS}
        columns["reason_code"] = codes = columns["reason_code"].copy()
        for piece, span in zip(pieces, self._spans, strict=True):
            table = np.array([*(reasons.index(reason) for reason in piece.reasons), -1], dtype=codes.dtype)
            mine = slice(span.begin, span.end)
            codes[mine] = table[codes[mine]]  # (-1, no reason, is the table's last)
        itl = ItlHistogram()
        for piece in pieces:
            itl.merge(piece.itl)
        end_s = max(piece.end_s for piece in pieces)
        trace = self._built.trace
        return FleetRun(
            trace=trace,
            policy=self._label,
            seed=self._built.scenario.seed,
            **columns,
            reasons=reasons,
            itl=itl,
            timeline=_joined([piece.timeline for piece in pieces]),
            replicas=_totals(trace, [piece.replicas for piece in pieces], columns, self._built, end_s),
            end_s=end_s,
            horizon_s=None,
            interrupted=False,
        )


def _columns(timeline: Timeline) -> dict[str, NDArray[Any] | None]:
    return {field.name: getattr(timeline, field.name) for field in fields(timeline)}


def _joined(parts: Sequence[Timeline]) -> Timeline:
    columns = [_columns(part) for part in parts]
    found = {name: [each[name] for each in columns] for name in columns[0]}
    return Timeline(**{name: None if values[0] is None else np.concatenate(values) for name, values in found.items()})  # type: ignore[arg-type]


def _totals(
    trace: Trace, pieces: Sequence[Sequence[ReplicaTotals]], columns: Mapping[str, Any], built: Built, end_s: float
) -> list[ReplicaTotals]:
    """The sums of every replica over all pieces; it was paid for, and up, from the first second to the last."""
    caching = [pool.engine.enable_prefix_caching for pool in built.fleet for _ in range(pool.places)]
    replica, admitted = columns["replica"], columns["status"] != Status.REJECTED
    found = []
    for number, parts in enumerate(zip(*pieces, strict=True)):
        sums: dict[str, Any] = {name: sum(getattr(part, name) for part in parts) for name in SUMS}
        mine = admitted & (replica == number) & caching[number]
        tokens = (int(trace.input_tokens[mine].sum()), int(columns["cached_tokens"][mine].sum()))
        prefix = dict(zip(("prefix_queried_tokens", "prefix_hit_tokens"), tokens, strict=True))
        found.append(replace(parts[0], **sums, **prefix, billed_s=end_s, ready_s=end_s, starts=1))
    return found
