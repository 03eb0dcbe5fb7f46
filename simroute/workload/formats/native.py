"""simroute's own trace schema as CSV, JSON lines (each also .gz) and Parquet: reading and writing.

Columns: `arrival_s`, `input_tokens`, `output_tokens` (required), `request_class`, `tenant`, `tier`, `priority`,
`session`, `prefix_block_tokens` (the same in every row that gives it), `prefix_ids` (optional).
In CSV the ids are separated by blanks and `7..9` stands for `7 8 9`; elsewhere they are a list.
May import the formats' base and the workload's trace.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simroute.errors import OutputError, TraceError, UsageError
from simroute.workload.formats.base import (
    BadRows,
    Chunk,
    Collector,
    Field,
    csv_chunks,
    csv_header,
    first_record,
    json_chunks,
    tokens,
)
from simroute.workload.prefixes import Ragged, empty, from_rows, offsets_of
from simroute.workload.trace import Trace

if TYPE_CHECKING:
    import pyarrow as pa

_REQUIRED = ("arrival_s", "input_tokens", "output_tokens")
_NAMES = ("request_class", "tenant", "tier")
_NUMBERS = ("priority", "session", "prefix_block_tokens")
_OPTIONAL = (*_NAMES, *_NUMBERS, "prefix_ids")
COLUMNS = (*_REQUIRED, *_OPTIONAL)
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
        """Whether it is Parquet, or text that names the required columns."""
        return _is_parquet(path) or set(_REQUIRED) <= {*csv_header(path)} | first_record(path).keys()

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


def write_trace(trace: Trace, path: str | Path) -> None:
    """Write `trace` in the form that the name asks for: .csv, .jsonl (each also with .gz) or .parquet.

    Reading it again gives the same fingerprint; the trace's name and notes are not written.
    Raises UsageError for another ending, OutputError when the file cannot be written.
    """
    path = Path(path)
    name = path.name.lower()
    try:
        if name.endswith(".parquet"):
            _write_parquet(trace, path)
        elif name.endswith((".csv", ".csv.gz")):
            _write_text(path, _csv_lines(trace))
        elif name.endswith((".jsonl", ".jsonl.gz")):
            _write_text(path, _json_lines(trace))
        else:
            raise UsageError(f"{path}: a trace is written as .csv, .csv.gz, .jsonl, .jsonl.gz or .parquet")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def _chunks(path: Path, bad: BadRows) -> Iterator[tuple[Chunk, Ragged, dict[int, str]]]:
    """Chunks, their prefix ids, and a reason for each position whose ids are unusable."""
    if _is_parquet(path):
        yield from _parquet_chunks(path)
        return
    text = json_chunks(path, COLUMNS, bad) if first_record(path) else csv_chunks(path, _REQUIRED, _OPTIONAL, bad)
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
            absent = [name for name in _REQUIRED if name not in present]
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
    if name not in batch.schema.names or name == "prefix_ids":
        return [None] * len(batch)
    column = batch.column(name)
    if name in _NAMES:
        # Several times as fast as to_pylist, which goes through a pyarrow object for each value.
        return column.to_numpy(zero_copy_only=False).tolist()
    if column.null_count:
        return column.to_pylist()
    return column.to_numpy(zero_copy_only=False)


def _arrow_ids(batch: pa.RecordBatch) -> Ragged:
    if "prefix_ids" not in batch.schema.names:
        return empty(len(batch))
    column = batch.column("prefix_ids")
    lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return Ragged(offsets_of(lengths), column.flatten().to_numpy(zero_copy_only=False).astype(np.int64))


def _write_parquet(trace: Trace, path: Path) -> None:
    """Ids go in as differences, which suits runs of consecutive ids; everything is then compressed with zstd."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: pa.array(getattr(trace, name)) for name in (*_REQUIRED, "priority", "session")}
    for name, (code, names) in trace.coded_columns().items():
        columns[name] = pa.DictionaryArray.from_arrays(pa.array(code.astype(np.int32)), pa.array(names, pa.string()))
    columns["prefix_ids"] = pa.ListArray.from_arrays(
        pa.array(trace.prefix_offsets.astype(np.int32)), pa.array(trace.prefix_ids)
    )
    columns["prefix_block_tokens"] = pa.array(np.full(len(trace), trace.prefix_block_tokens))
    encodings = {"prefix_ids.list.element": "DELTA_BINARY_PACKED", "session": "DELTA_BINARY_PACKED"}
    with path.open("wb") as file:
        pq.write_table(
            pa.table({name: columns[name] for name in COLUMNS}),
            file,
            compression="zstd",
            compression_level=19,
            use_dictionary=[name for name in COLUMNS if name not in ("arrival_s", "session", "prefix_ids")],
            column_encoding={"arrival_s": "BYTE_STREAM_SPLIT", **encodings},
        )


def _write_text(path: Path, lines: Iterator[str]) -> None:
    if path.suffix == ".gz":
        # Neither name nor time in the header: the same trace gives the same bytes.
        with path.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
            packed.writelines(line.encode() for line in lines)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            file.writelines(lines)


def _csv_lines(trace: Trace) -> Iterator[str]:
    line = io.StringIO()
    writer = csv.writer(line, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in _rows(trace, _id_words(trace)):
        writer.writerow(row)
        yield line.getvalue()
        line.seek(0)
        line.truncate()
    # Without rows there is still the header.
    yield line.getvalue()


def _json_lines(trace: Trace) -> Iterator[str]:
    bounds = trace.prefix_offsets.tolist()
    ids = (trace.prefix_ids[first:last].tolist() for first, last in pairwise(bounds))
    return (json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n" for row in _rows(trace, ids))


def _rows(trace: Trace, prefix_ids: Iterable[object]) -> Iterator[tuple[object, ...]]:
    """Rows as plain Python values in the order of COLUMNS, with `prefix_ids` as given."""
    coded = trace.coded_columns()
    columns: dict[str, Iterable[object]] = {
        "prefix_ids": prefix_ids,
        "prefix_block_tokens": repeat(trace.prefix_block_tokens, len(trace)),
        **{name: map(column.names.__getitem__, column.code.tolist()) for name, column in coded.items()},
    }
    return zip(*(columns[name] if name in columns else getattr(trace, name).tolist() for name in COLUMNS), strict=True)


def _id_words(trace: Trace) -> Iterator[str]:
    """The ids of each request as text; two or more consecutive ones as `first..last`."""
    ids = trace.prefix_ids
    opens = np.diff(ids, prepend=0) != 1
    opens[trace.prefix_offsets[:-1][trace.prefixes.lengths > 0]] = True
    starts = np.flatnonzero(opens)
    lasts = ids[np.append(starts, len(ids))[1:] - 1].tolist()
    words = [
        f"{first}..{last}" if last > first else str(first)
        for first, last in zip(ids[starts].tolist(), lasts, strict=True)
    ]
    bounds = np.searchsorted(starts, trace.prefix_offsets).tolist()
    return (" ".join(words[first:last]) for first, last in pairwise(bounds))
