"""simroute's own trace schema as CSV, JSON lines (each also .gz) and Parquet: the columns, and reading them.

Columns: `arrival_s`, `input_tokens`, `output_tokens` (required), `request_class`, `tenant`, `tier`, `priority`,
`session`, `prefix_block_tokens` (the same in every row that gives it), `prefix_ids` (optional).
In CSV the ids are separated by blanks and `7..9` stands for `7 8 9`; elsewhere they are a list.
May import the formats' base and text, and the workload's trace.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simroute.errors import TraceError
from simroute.workload.formats.base import BadRows, Chunk, Collector, Field, tokens
from simroute.workload.formats.text import csv_chunks, csv_header, first_record, json_chunks
from simroute.workload.prefixes import Ragged, empty, from_rows, offsets_of
from simroute.workload.trace import Trace

if TYPE_CHECKING:
    import pyarrow as pa

REQUIRED = ("arrival_s", "input_tokens", "output_tokens")
_NAMES = ("request_class", "tenant", "tier")
_NUMBERS = ("priority", "session", "prefix_block_tokens")
_OPTIONAL = (*_NAMES, *_NUMBERS, "prefix_ids")
COLUMNS = (*REQUIRED, *_OPTIONAL)
"""Every column, in the order written."""

MAX_RUN = 1 << 20
"""Longest run `first..last` of ids: no prompt has so many blocks, so a longer one is damage."""

_FIELDS = (
    Field("arrival_s"),
    tokens("input_tokens"),
    tokens("output_tokens"),
    Field("priority", low=-np.inf, whole=True, default=0),
    Field("session", low=-1, whole=True, default=-1),
    Field("prefix_block_tokens", whole=True, default=0),
)


class NativeReader:
    """Arrivals keep the file's clock; the kind of file is found by its content, not by its name."""

    name = "native"

    def sniff(self, path: Path) -> bool:
        """Whether it is Parquet, or text that names the required columns, or all but one: reading then says which."""
        named = {*csv_header(path)} | first_record(path).keys()
        return _is_parquet(path) or len(named.intersection(REQUIRED)) >= len(REQUIRED) - 1

    def read(self, path: Path) -> Trace:
        """The trace; see `TraceReader`."""
        bad = BadRows(path, unit="row" if _is_parquet(path) else "line")
        rows = Collector(_FIELDS, bad, _NAMES)
        parts = []
        for chunk, ids, wrong in _chunks(path, bad):
            keep = rows.add(chunk, wrong)
            parts.append(ids.take(np.flatnonzero(keep)))
        rows.require_rows()
        prefixes = Ragged(
            offsets_of(np.concatenate([part.lengths for part in parts])), np.concatenate([part.ids for part in parts])
        )
        return Trace.build(
            arrival_s=rows.numbers("arrival_s"),
            input_tokens=rows.numbers("input_tokens"),
            output_tokens=rows.numbers("output_tokens"),
            request_class=rows.names("request_class"),
            tenant=rows.names("tenant"),
            tier=rows.names("tier"),
            priority=rows.numbers("priority"),
            session=rows.numbers("session"),
            prefixes=prefixes,
            prefix_block_tokens=_block_tokens(rows),
            name=path.name.split(".")[0],
            notes=bad.notes(),
        )


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def _chunks(path: Path, bad: BadRows) -> Iterator[tuple[Chunk, Ragged, dict[int, str]]]:
    """Chunks, their prefix ids, and a reason for each position whose ids are unusable."""
    if _is_parquet(path):
        yield from _parquet_chunks(path)
        return
    text = json_chunks(path, COLUMNS, bad) if first_record(path) else csv_chunks(path, REQUIRED, _OPTIONAL, bad)
    for chunk in text:
        yield chunk, *_parsed_ids(chunk.columns["prefix_ids"])


def _parsed_ids(values: Sequence[object] | np.ndarray[Any, Any]) -> tuple[Ragged, dict[int, str]]:
    if not any(values):
        return empty(len(values)), {}
    rows: list[list[int]] = []
    wrong = {}
    for position, value in enumerate(values):
        try:
            rows.append(_ids_of(value))
        except ValueError:
            rows.append([])
            wrong[position] = f"prefix_ids: {value!r:.40} is no list of integers"
    return from_rows(rows), wrong


def _ids_of(value: object) -> list[int]:
    """The ids in one cell: None, a list, or text such as `3 7..9`. Raises ValueError for anything else."""
    if value is None or value == "":
        return []
    if isinstance(value, str):
        ids: list[int] = []
        for word in value.split():
            first, _, last = word.partition("..")
            run = range(int(first), int(last or first) + 1)
            if not 0 < len(run) <= MAX_RUN:
                raise ValueError(value)
            ids.extend(run)
        return ids
    if isinstance(value, list) and set(map(type, value)) <= {int}:
        return value
    raise ValueError(value)


def _block_tokens(rows: Collector) -> int:
    sizes = np.unique(rows.numbers("prefix_block_tokens"))
    sizes = sizes[sizes > 0]
    if len(sizes) > 1:
        raise TraceError(f"prefix_block_tokens: must be the same in every row, found {sizes[0]:g} and {sizes[1]:g}")
    return int(sizes[0]) if len(sizes) else 0


def _parquet_chunks(path: Path) -> Iterator[tuple[Chunk, Ragged, dict[int, str]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            present = [name for name in COLUMNS if name in file.schema_arrow.names]
            absent = [name for name in REQUIRED if name not in present]
            if absent:
                raise TraceError(f"{path}: column {absent[0]} is missing")
            first = 1
            for batch in file.iter_batches(columns=present):
                rows = range(first, first + len(batch))
                first += len(batch)
                yield Chunk(rows, {name: _arrow_values(batch, name) for name in COLUMNS}), _arrow_ids(batch), {}
    except pa.ArrowException as error:
        raise TraceError(f"{path}: cannot be read as Parquet: {error}") from error


def _arrow_values(batch: pa.RecordBatch, name: str) -> Any:
    """A column as an array of numbers, or as a list where it has nulls or holds something else."""
    import pyarrow as pa

    if name not in batch.schema.names or name == "prefix_ids":
        return [None] * len(batch)
    column = batch.column(name)
    if name in _NAMES:
        # Several times as fast as to_pylist, which goes through a pyarrow object for each value.
        return column.to_numpy(zero_copy_only=False).tolist()
    numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    return column.to_numpy(zero_copy_only=False) if numeric and not column.null_count else column.to_pylist()


def _arrow_ids(batch: pa.RecordBatch) -> Ragged:
    """The ids of a batch. Raises TraceError when the column does not hold lists of 64-bit integers."""
    import pyarrow as pa

    if "prefix_ids" not in batch.schema.names:
        return empty(len(batch))
    column = batch.column("prefix_ids")
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        raise TraceError(f"prefix_ids: must be lists of integers, got {column.type}")
    ids = column.flatten()
    if ids.null_count or not pa.types.is_integer(ids.type):
        raise TraceError(f"prefix_ids: must be lists of integers, got {column.type} with {ids.null_count} nulls")
    lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return Ragged(offsets_of(lengths), ids.to_numpy(zero_copy_only=False).astype(np.int64))
