"""Traces written in simroute's own schema: CSV, JSON lines (each also .gz), Parquet.

May import the native reader's columns and the workload's trace.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Iterator
from itertools import pairwise, repeat
from pathlib import Path

import numpy as np

from simroute.errors import OutputError, UsageError
from simroute.workload.formats.native import COLUMNS, REQUIRED
from simroute.workload.trace import Trace


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


def _write_parquet(trace: Trace, path: Path) -> None:
    """Ids go in as differences, which suits runs of consecutive ids; everything is then compressed with zstd."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: pa.array(getattr(trace, name)) for name in (*REQUIRED, "priority", "session")}
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
