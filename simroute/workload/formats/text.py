"""Text files as columns: opening, a look at the beginning, CSV and JSON lines in chunks.

May import errors and the formats' base.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from simroute.errors import TraceError
from simroute.workload.formats.base import BadRows, Chunk, Values

CHUNK_ROWS = 1 << 13
"""Rows held as Python objects at a time: bounds memory for files of any length, and fits a processor's cache."""
MAX_CELL_CHARACTERS = 1 << 24
"""Longest cell of a CSV file: more is taken for a broken file."""
SNIFFED_CHARACTERS = 1 << 20
SNIFFED_LINES = 10
"""How far a file is read to recognise it: a bad first row must not hide its format."""


def open_text(path: Path, errors: str = "strict") -> io.TextIOWrapper:
    """The file as UTF-8 text (a byte-order mark is skipped), unzipped when its name ends in .gz."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", errors=errors, newline="")
    return path.open(encoding="utf-8-sig", errors=errors, newline="")


def beginning(path: Path) -> str:
    """The first part of the text for a look at the format, whatever the file is; empty when it cannot be read."""
    try:
        with open_text(path, errors="replace") as file:
            return file.read(SNIFFED_CHARACTERS)
    except (EOFError, OSError, zlib.error):
        return ""


def csv_header(path: Path) -> list[str]:
    """The cells of the first line; empty when there are none."""
    try:
        return next(csv.reader(beginning(path).splitlines()[:1]), [])
    except csv.Error:
        return []


def first_record(path: Path) -> dict[str, object]:
    """The first JSON object, one a line, among the first lines; empty when there is none."""
    lines = beginning(path).splitlines()[:SNIFFED_LINES]
    return next((record for line in lines if (record := _json_object(line))), {})


def _json_object(line: str) -> dict[str, object]:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def csv_chunks(path: Path, required: Sequence[str], optional: Sequence[str], bad: BadRows) -> Iterator[Chunk]:
    """The columns wanted of a CSV file; an optional column that is absent is None throughout.

    Raises TraceError when a required column is absent. Rows with more cells than the header are bad, blank lines none.
    """
    # The limit is the csv module's own, and global; a cell of prefix ids may pass its default of 128 KiB.
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    with open_text(path) as file:
        reader = csv.reader(file)
        header = next(reader, [])
        absent = [name for name in required if name not in header]
        if absent:
            raise TraceError(f"{path}: column {absent[0]} is missing, the header has {', '.join(header) or 'nothing'}")
        wanted = {name: header.index(name) for name in (*required, *optional) if name in header}
        numbers, rows = _csv_rows(reader, len(header), bad)
        while rows:
            columns: dict[str, Values] = {name: [row[k] for row in rows] for name, k in wanted.items()}
            for name in optional:
                columns.setdefault(name, [None] * len(rows))
            yield Chunk(numbers, columns)
            numbers, rows = _csv_rows(reader, len(header), bad)


def _csv_rows(reader: Any, width: int, bad: BadRows) -> tuple[list[int], list[list[str | None]]]:
    """Up to CHUNK_ROWS rows and their line numbers, short rows filled up with None."""
    numbers: list[int] = []
    rows: list[list[str | None]] = []
    for row in reader:
        if len(row) > width:
            bad.add(reader.line_num, f"{len(row)} cells under {width} columns")
        elif row:
            if len(row) < width:
                row.extend([None] * (width - len(row)))
            numbers.append(reader.line_num)
            rows.append(row)
            if len(rows) == CHUNK_ROWS:
                break
    return numbers, rows


def json_chunks(path: Path, names: Sequence[str], bad: BadRows) -> Iterator[Chunk]:
    """The values `names` of a file with one JSON object a line; what an object lacks is None."""
    with open_text(path) as file:
        records = _json_records(file, bad)
        while some := list(islice(records, CHUNK_ROWS)):
            columns: dict[str, Values] = {name: [record.get(name) for _, record in some] for name in names}
            yield Chunk([row for row, _ in some], columns)


def _json_records(lines: Iterable[str], bad: BadRows) -> Iterator[tuple[int, dict[str, object]]]:
    for row, line in enumerate(lines, start=1):
        if line.isspace():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            bad.add(row, f"not JSON: {error}")
            continue
        if isinstance(record, dict):
            yield row, record
        else:
            bad.add(row, "not a JSON object")
