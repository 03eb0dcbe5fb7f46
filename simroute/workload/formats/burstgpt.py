"""BurstGPT traces: CSV of `Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type`.

Release 2 adds `Session ID` and `Elapsed time`. Timestamps are seconds on a clock of months, so arrivals count from the
earliest one. A failed request has 0 response tokens: such rows are skipped and counted. The log type (`Conversation
log`, `API log`) becomes the tenant: it tells two populations apart, but not what a request is about.
May import the formats' base and text, and the workload's trace.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simroute.workload.columns import DEFAULT_NAME, Coded, Ints
from simroute.workload.formats.base import BadRows, Collector, Field, tokens
from simroute.workload.formats.text import csv_chunks, csv_header
from simroute.workload.trace import Trace

_FIELDS = (Field("Timestamp"), tokens("Request tokens"), tokens("Response tokens"))
_REQUIRED = tuple(field.name for field in _FIELDS)
_NAMES = ("Log Type", "Session ID")


class BurstGptReader:
    """Sessions are numbered in order of appearance; there are no prefixes."""

    name = "burstgpt"

    def sniff(self, path: Path) -> bool:
        """Whether the header names the three columns of numbers."""
        return set(_REQUIRED) <= set(csv_header(path))

    def read(self, path: Path) -> Trace:
        """The trace; see `TraceReader`."""
        bad = BadRows(path)
        rows = Collector(_FIELDS, bad, _NAMES)
        for chunk in csv_chunks(path, _REQUIRED, _NAMES, bad):
            rows.add(chunk)
        rows.require_rows()
        seconds = rows.numbers("Timestamp")
        return Trace.build(
            arrival_s=seconds - seconds.min(),
            input_tokens=rows.numbers("Request tokens"),
            output_tokens=rows.numbers("Response tokens"),
            tenant=rows.names("Log Type"),
            session=_sessions(rows.names("Session ID")),
            name=path.stem,
            notes=bad.notes(),
        )


def _sessions(named: Coded) -> Ints:
    """Session numbers, -1 where the file names none."""
    numbers = np.arange(len(named.names), dtype=np.int64)
    if DEFAULT_NAME in named.names:
        numbers[named.names.index(DEFAULT_NAME)] = -1
    return numbers[named.code]
