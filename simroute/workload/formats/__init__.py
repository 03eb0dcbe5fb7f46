"""Trace formats: one reader a file, and the registry.

To add one, write a module with a `TraceReader` (azure.py is the shortest) and name it in `_READERS`.
May import the workload's trace and errors.
"""

from __future__ import annotations

import csv
import zlib
from pathlib import Path

from simroute.errors import TraceError, UsageError, unknown
from simroute.workload.formats.azure import AzureReader
from simroute.workload.formats.base import TraceReader
from simroute.workload.formats.burstgpt import BurstGptReader
from simroute.workload.formats.mooncake import MooncakeReader
from simroute.workload.formats.native import NativeReader
from simroute.workload.formats.vllm_bench import VllmBenchReader
from simroute.workload.formats.write import write_trace
from simroute.workload.trace import Trace

__all__ = ["FORMATS", "TraceReader", "read_trace", "sniff_format", "write_trace"]

_READERS: tuple[TraceReader, ...] = (
    NativeReader(),
    AzureReader(),
    MooncakeReader(),
    BurstGptReader(),
    VllmBenchReader(),
)

FORMATS: dict[str, TraceReader] = {reader.name: reader for reader in _READERS}
"""Every format by name, in the order in which a file is tried."""


def read_trace(path: str | Path, format: str | None = None) -> Trace:
    """The trace in a file, its format named or found by looking.

    Raises UsageError for an unknown format, TraceError for a file that is missing, empty, unreadable or of no format.
    """
    path = Path(path)
    if format is not None and format not in FORMATS:
        raise UsageError(unknown("trace format", format, FORMATS))
    _require_content(path)
    try:
        return FORMATS[format or sniff_format(path)].read(path)
    except TraceError as error:
        located = str(error) if str(error).startswith(str(path)) else f"{path}: {error}"
        raise TraceError(located) from error
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise TraceError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def sniff_format(path: Path) -> str:
    """The name of the first format that recognises the file. Raises TraceError when none does."""
    for name, reader in FORMATS.items():
        if reader.sniff(path):
            return name
    raise TraceError(f"{path}: not recognised as any trace format: name one of {', '.join(FORMATS)}")


def _require_content(path: Path) -> None:
    if not path.exists():
        raise TraceError(f"{path}: no such trace file")
    if not path.is_file():
        raise TraceError(f"{path}: is not a file: give a trace file")
    if path.stat().st_size == 0:
        raise TraceError(f"{path}: the file is empty")
