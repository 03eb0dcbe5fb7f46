"""Mooncake traces: one JSON object a line with `timestamp` (ms), `input_length`, `output_length`, `hash_ids`.

A hash id stands for 512 tokens of the prompt and everything before them, so the ids serve as prefix ids as they are.
Timestamps are bucketed (3 s in the conversation trace): requests of one timestamp are spread evenly up to the next.
May import the formats' base and text, and the workload's trace.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from simroute.workload.columns import Floats
from simroute.workload.formats.base import BadRows, Chunk, Collector, Field, tokens
from simroute.workload.formats.text import first_record, json_chunks
from simroute.workload.prefixes import from_rows
from simroute.workload.trace import Trace

BLOCK_TOKENS = 512
"""Tokens behind one hash id."""

_FIELDS = (Field("timestamp"), tokens("input_length"), tokens("output_length"))
_NAMES = tuple(field.name for field in _FIELDS)


def spread(arrival_s: Floats) -> tuple[Floats, int, int]:
    """Sorted arrivals, those of one bucket moved evenly over the time up to the next bucket.

    The last bucket is taken to be as wide as the median one; a single bucket has no width and stays.
    Returns the new arrivals, shape (n,), and how many arrivals shared how many timestamps.
    """
    starts, counts = np.unique(arrival_s, return_counts=True)
    widths = np.diff(starts)
    widths = np.append(widths, np.median(widths) if len(widths) else 0.0)
    place = np.arange(len(arrival_s)) - np.repeat(np.cumsum(counts) - counts, counts)
    moved = arrival_s + place * np.repeat(widths / counts, counts)
    shared = counts > 1
    return moved, int(counts[shared].sum()), int(shared.sum())


class MooncakeReader:
    """Arrivals keep the file's clock, in seconds; requests without `hash_ids` share nothing."""

    name = "mooncake"

    def sniff(self, path: Path) -> bool:
        """Whether the first line is an object with a timestamp and both lengths."""
        return set(_NAMES) <= first_record(path).keys()

    def read(self, path: Path) -> Trace:
        """The trace; see `TraceReader`."""
        bad = BadRows(path)
        rows = Collector(_FIELDS, bad)
        ids: list[Any] = []
        for chunk in json_chunks(path, (*_NAMES, "hash_ids"), bad):
            blocks = [[] if found is None else found for found in chunk.columns["hash_ids"]]
            keep = rows.add(chunk, _wrong_ids(chunk, blocks))
            ids.extend(blocks[k] for k in np.flatnonzero(keep))
        rows.require_rows()
        trace = Trace.build(
            arrival_s=rows.numbers("timestamp") / 1e3,
            input_tokens=rows.numbers("input_length"),
            output_tokens=rows.numbers("output_length"),
            prefixes=from_rows(ids),
            prefix_block_tokens=BLOCK_TOKENS,
            name=path.stem,
            notes=bad.notes(),
        )
        return _spread_trace(trace, path)


def _spread_trace(trace: Trace, path: Path) -> Trace:
    arrival_s, requests, buckets = spread(trace.arrival_s)
    if not requests:
        return trace
    note = f"{path}: {requests:,} arrivals in {buckets:,} shared timestamps: spread evenly up to the next timestamp"
    return replace(trace, arrival_s=arrival_s, notes=(*trace.notes, note))


def _wrong_ids(chunk: Chunk, rows: list[object]) -> dict[int, str]:
    """Positions whose ids are no list of integers, or more than the prompt has blocks."""
    wrong = {}
    for k, (found, length) in enumerate(zip(rows, chunk.columns["input_length"], strict=True)):
        if not isinstance(found, list) or not set(map(type, found)) <= {int}:
            wrong[k] = "hash_ids: must be a list of integers"
        elif isinstance(length, int) and len(found) > -(-length // BLOCK_TOKENS):
            wrong[k] = f"hash_ids: {len(found)} ids for {length} tokens of {BLOCK_TOKENS} a block"
    return wrong
