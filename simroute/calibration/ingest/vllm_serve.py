"""Results of `vllm bench serve --save-result --save-detailed`: one JSON object, a load phase of requests.

Used are the lists `start_times`, `input_lens`, `output_lens`, `ttfts`, `itls` and, where present, `latencies` (all in
seconds; vLLM 0.10 and later). Requests that failed carry no length and are left out, with a note.
Imports the reader of the same files in workload, and ingest's other files.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

from simroute.calibration.ingest.described import Described, Found, load_phase, request_table, run_of
from simroute.calibration.ingest.files import count, read_json, seconds
from simroute.calibration.runs import Run
from simroute.errors import CalibrationError
from simroute.workload.formats.vllm_bench import detailed_lists

LISTS = ("start_times", "input_lens", "output_lens", "ttfts", "itls")


def read(path: Path, engine: Described) -> Run:
    """The run of one result file. Raises CalibrationError or TraceError for a file that lacks what is needed."""
    return run_of(str(path), engine, found(path, read_json(path), 0, path.stem))


def found(path: Path, result: Any, phase: int, name: str) -> Found:
    """The load phase in `result`, the content of `path`, as phase number `phase` of a run."""
    columns = detailed_lists(result, path, LISTS)
    columns["latencies"] = _latencies(path, result, len(columns["ttfts"]))
    errors = columns.pop("errors")
    rows = []
    failed = 0
    for i, values in enumerate(zip(*columns.values(), strict=True)):
        if (i < len(errors) and errors[i]) or not columns["output_lens"][i]:
            failed += 1
        else:
            of = dict(zip(columns, values, strict=True))
            rows.append(_row(of, phase, f"{name}-{i}", f"{path}: request {i}"))
    if not rows:
        raise CalibrationError(f"{path}: all of its {failed} requests failed")
    start_s = min(row["arrival_s"] for row in rows)
    rows = [_shifted(row, start_s) for row in rows]
    notes = [f"{path.name}: {failed} requests failed and are left out"] if failed else []
    if result.get("max_concurrency"):
        notes.append(
            f"{path.name}: a closed loop of {result['max_concurrency']}: each request was sent when another ended, "
            "and is replayed at that time"
        )
    model = result.get("model_id")
    return Found([load_phase(phase, name, rows)], request_table(rows), model=str(model) if model else None, notes=notes)


def _latencies(path: Path, result: Mapping[str, Any], n: int) -> list[Any]:
    """The list `latencies`, which old versions do not write: None for each request."""
    given = result.get("latencies")
    if given is None:
        return [None] * n
    if not isinstance(given, list) or len(given) != n:
        raise CalibrationError(f"{path}: latencies: must be a list of {n}, as ttfts is")
    return given


def _row(of: Mapping[str, Any], phase: int, request_id: str, where: str) -> dict[str, Any]:
    arrival_s = seconds(of["start_times"], f"{where}: start_times")
    first_token_s = arrival_s + seconds(of["ttfts"], f"{where}: ttfts")
    if not isinstance(of["itls"], list):
        raise CalibrationError(f"{where}: itls: must be a list of gaps in seconds, got {of['itls']!r}")
    gaps = (seconds(gap, f"{where}: itls") for gap in of["itls"])
    chunk_s = list(accumulate(gaps, initial=first_token_s))
    latency = of["latencies"]
    finish_s = chunk_s[-1] if latency is None else arrival_s + seconds(latency, f"{where}: latencies")
    return {
        "phase": phase,
        "request_id": request_id,
        "arrival_s": arrival_s,
        "input_tokens": count(of["input_lens"], f"{where}: input_lens"),
        "output_tokens": count(of["output_lens"], f"{where}: output_lens"),
        "first_token_s": first_token_s,
        "finish_s": max(finish_s, first_token_s),
        "chunk_s": chunk_s,
        "ok": True,
        "error": None,
    }


def _shifted(row: dict[str, Any], start_s: float) -> dict[str, Any]:
    """The row on a clock that starts at `start_s`."""
    moved = {name: row[name] - start_s for name in ("arrival_s", "first_token_s", "finish_s")}
    return row | moved | {"chunk_s": [at_s - start_s for at_s in row["chunk_s"]]}
