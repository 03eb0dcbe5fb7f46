"""Results of `vllm bench serve --save-result --save-detailed`: one JSON object with a list a request.

Used are `input_lens`, `output_lens`, `start_times` (seconds of a monotonic clock, so arrivals count from the earliest)
and `errors` (a failed request is skipped and counted). May import the formats' base and text, and the workload's trace.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simroute.errors import TraceError
from simroute.workload.formats.base import BadRows, Chunk, Collector, Field, tokens
from simroute.workload.formats.text import beginning, open_text
from simroute.workload.trace import Trace

_FIELDS = (Field("start_times"), tokens("input_lens"), tokens("output_lens"))
_NAMES = tuple(field.name for field in _FIELDS)


class VllmBenchReader:
    """Requests keep the order of their start; there are no prefixes."""

    name = "vllm_bench"

    def sniff(self, path: Path) -> bool:
        """Whether the beginning is a JSON object that holds `input_lens`."""
        text = beginning(path)
        return text.lstrip().startswith("{") and '"input_lens"' in text

    def read(self, path: Path) -> Trace:
        """The trace; see `TraceReader`."""
        columns = _columns(path)
        bad = BadRows(path, unit="request")
        rows = Collector(_FIELDS, bad)
        failed = {k: f"failed: {_last_line(why)}" for k, why in enumerate(columns.pop("errors")) if why}
        rows.add(Chunk(range(len(columns["start_times"])), columns), failed)
        rows.require_rows()
        seconds = rows.numbers("start_times")
        return Trace.build(
            arrival_s=seconds - seconds.min(),
            input_tokens=rows.numbers("input_lens"),
            output_tokens=rows.numbers("output_lens"),
            name=path.stem,
            notes=bad.notes(),
        )


def _last_line(error: object) -> str:
    """What a traceback ends with, cut where it is long."""
    return f"{(str(error).strip().splitlines() or [''])[-1]:.60}"


def _columns(path: Path) -> dict[str, Any]:
    """The lists used. Raises TraceError when the file lacks one."""
    with open_text(path) as file:
        try:
            result = json.load(file)
        except ValueError as error:
            raise TraceError(f"{path}: not one JSON object: {error}") from error
    return detailed_lists(result, path, _NAMES)


def detailed_lists(result: Any, path: Path, names: Sequence[str]) -> dict[str, Any]:
    """The lists `names` of a result, one item a request, all of one length, and `errors` where there are any.

    Raises TraceError when `result` is no JSON object or lacks a list.
    """
    if not isinstance(result, dict):
        raise TraceError(f"{path}: not one JSON object")
    absent = [name for name in names if not isinstance(result.get(name), list)]
    if absent:
        raise TraceError(f"{path}: no list {absent[0]}: run `vllm bench serve` with --save-result --save-detailed")
    lengths = {name: len(result[name]) for name in names}
    if len(set(lengths.values())) > 1:
        raise TraceError(f"{path}: lists of different lengths: {', '.join(f'{k} {n}' for k, n in lengths.items())}")
    errors = result.get("errors")
    known = errors[: lengths[names[0]]] if isinstance(errors, list) else []
    return {**{name: result[name] for name in names}, "errors": known}
