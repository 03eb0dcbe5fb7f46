"""Azure LLM inference traces of 2023 and 2024: CSV of `TIMESTAMP,ContextTokens,GeneratedTokens`.

The 2023 files write `2023-11-16 18:17:03.9799600`, those of 2024 `2024-05-10 00:00:00.009930+00:00`, without the
fraction when it is zero. Further columns (the multimodal trace's NumImages) are ignored.
May import the formats' base and text, and the workload's trace.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from simroute.workload.columns import Floats
from simroute.workload.formats.base import BadRows, Collector, Field, Values, tokens
from simroute.workload.formats.text import csv_chunks, csv_header
from simroute.workload.trace import Trace

_EPOCH = datetime(2023, 1, 1, tzinfo=UTC)
"""Seconds count from here: near enough to the traces for float64 to hold their 100 ns."""


def timestamps(values: Values) -> Floats:
    """ISO 8601 dates as seconds since the start of 2023, UTC unless they say otherwise; NaN for what is no date."""
    try:
        plain = [_without_utc(value) for value in values]  # type: ignore[arg-type]
        dates = np.array(plain, dtype="datetime64[ns]")
    except (TypeError, ValueError, AttributeError):
        return np.array([_seconds(value) for value in values], dtype=np.float64)
    elapsed = dates - np.datetime64(_EPOCH.replace(tzinfo=None), "ns")
    return np.where(np.isnat(dates), np.nan, elapsed.astype(np.int64) / 1e9)


def _without_utc(value: str) -> str:
    """`value` without its zone when that is UTC, as numpy wants it. Raises ValueError for another zone."""
    plain = value.removesuffix("+00:00").removesuffix("Z")
    if "+" in plain or plain.count("-") > 2:
        raise ValueError(value)
    return plain


def _seconds(value: object) -> float:
    try:
        date = datetime.fromisoformat(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return float("nan")
    return ((date if date.tzinfo else date.replace(tzinfo=UTC)) - _EPOCH).total_seconds()


_FIELDS = (
    Field("TIMESTAMP", low=-np.inf, kind="a timestamp", parse=timestamps),
    tokens("ContextTokens"),
    tokens("GeneratedTokens"),
)
_COLUMNS = tuple(field.name for field in _FIELDS)


class AzureReader:
    """Arrivals count from the earliest one; there are no prefixes."""

    name = "azure"

    def sniff(self, path: Path) -> bool:
        """Whether the header names the three columns."""
        return set(_COLUMNS) <= set(csv_header(path))

    def read(self, path: Path) -> Trace:
        """The trace; see `TraceReader`."""
        bad = BadRows(path)
        rows = Collector(_FIELDS, bad)
        for chunk in csv_chunks(path, _COLUMNS, (), bad):
            rows.add(chunk)
        rows.require_rows()
        seconds = rows.numbers("TIMESTAMP")
        return Trace.build(
            arrival_s=np.round(seconds - seconds.min(), 7),
            input_tokens=rows.numbers("ContextTokens"),
            output_tokens=rows.numbers("GeneratedTokens"),
            name=path.stem,
            notes=bad.notes(),
        )
