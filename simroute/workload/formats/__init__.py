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
from simroute.workload.formats.base import DrawingReader, TraceReader
from simroute.workload.formats.burstgpt import BurstGptReader
from simroute.workload.formats.mooncake import MooncakeReader
from simroute.workload.formats.native import NativeReader
from simroute.workload.formats.servegen import ServeGenReader
from simroute.workload.formats.vllm_bench import VllmBenchReader
from simroute.workload.formats.write import write_trace
from simroute.workload.trace import Trace

__all__ = ["FORMATS", "TraceReader", "is_trace_folder", "read_trace", "sniff_format", "write_trace"]

_READERS: tuple[TraceReader, ...] = (
    NativeReader(),
    AzureReader(),
    MooncakeReader(),
    BurstGptReader(),
    VllmBenchReader(),
    ServeGenReader(),
)

FORMATS: dict[str, TraceReader] = {reader.name: reader for reader in _READERS}
"""Every format by name, in the order in which a file is tried."""

FOLDER_FORMATS = ("servegen",)
"""Formats of which a trace may be a folder."""


def read_trace(
    path: str | Path, format: str | None = None, *, window_s: tuple[float, float] | None = None, seed: int = 0
) -> Trace:
    """The trace in a file, its format named or found by looking; of a `window_s`, as `Trace.window` cuts it.

    `seed` is for formats that are drawn from (`DrawingReader`), which also draw no more than the window.
    Raises UsageError for an unknown format and an impossible window, TraceError for a file that is missing, empty,
    unreadable or of no format and for a window in which nothing arrives.
    """
    path = Path(path)
    if format is not None and format not in FORMATS:
        raise UsageError(unknown("trace format", format, FORMATS))
    _require_content(path)
    try:
        reader = FORMATS[format or sniff_format(path)]
        if isinstance(reader, DrawingReader):
            return reader.draw(path, seed, window_s)
        trace = reader.read(path)
    except TraceError as error:
        located = str(error) if str(error).startswith(str(path)) else f"{path}: {error}"
        raise TraceError(located) from error
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise TraceError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return trace if window_s is None else trace.window(*window_s)


def sniff_format(path: Path) -> str:
    """The name of the first format that recognises the file. Raises TraceError when none does."""
    for name in FOLDER_FORMATS if path.is_dir() else FORMATS:
        if FORMATS[name].sniff(path):
            return name
    raise TraceError(f"{path}: not recognised as any trace format: name one of {', '.join(FORMATS)}")


def is_trace_folder(path: Path) -> bool:
    """Whether this is a folder that `read_trace` takes."""
    return path.is_dir() and any(FORMATS[name].sniff(path) for name in FOLDER_FORMATS)


def _require_content(path: Path) -> None:
    if not path.exists():
        raise TraceError(f"{path}: no such trace file")
    if is_trace_folder(path):
        return
    if not path.is_file():
        raise TraceError(f"{path}: is not a file: give a trace file, or a folder of ServeGen's chunk-N-trace.csv")
    if path.stat().st_size == 0:
        raise TraceError(f"{path}: the file is empty")
