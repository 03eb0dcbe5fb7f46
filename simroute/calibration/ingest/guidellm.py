"""Reports of guidellm (`benchmarks.json`, versions 0.4 to 0.8): a load phase for each benchmark of the report.

Used of each request are its token counts and the times (Unix seconds) at which it was sent and its first and last
token came; times of single tokens are not in the report, so ITL is not known. Of a request that was cut off, the
answer's length is what was asked for. Imports ingest's other files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simroute.calibration.ingest.described import Described, Found, load_phase, request_table, run_of
from simroute.calibration.ingest.files import count, read_json, seconds
from simroute.calibration.runs import CUT, Run
from simroute.errors import CalibrationError

_STATUSES = ("successful", "incomplete", "errored")
_CLOSED = {"synchronous", "concurrent", "throughput"}
"""Strategies in which a request is sent when another has ended."""


def read(path: Path, engine: Described) -> Run:
    """The run of one report. Raises CalibrationError for what it cannot use."""
    import pandas as pd

    report = read_json(path)
    benchmarks = report.get("benchmarks") if isinstance(report, dict) else None
    if not isinstance(benchmarks, list) or not benchmarks:
        raise CalibrationError(f"{path}: not a guidellm report: no list of benchmarks")
    phases, tables = [], []
    notes: list[str] = []
    for number, benchmark in enumerate(benchmarks):
        name = _name(benchmark, number)
        rows = _requests(path, benchmark, number, name, notes)
        phases.append(load_phase(number, name, rows))
        tables.append(request_table(rows))
    start_s = min(phase.start_s for phase in phases)
    moved = [p.model_copy(update={"start_s": p.start_s - start_s, "end_s": p.end_s - start_s}) for p in phases]
    requests = pd.concat(tables, ignore_index=True)
    for column in ("arrival_s", "first_token_s", "finish_s"):
        requests[column] -= start_s
    return run_of(str(path), engine, Found(moved, requests, model=_model(report), notes=notes))


def _requests(path: Path, benchmark: Any, number: int, name: str, notes: list[str]) -> list[dict[str, Any]]:
    """The rows of one benchmark; what it does not tell becomes a note."""
    where = f"{path}: benchmark {number}"
    groups = benchmark.get("requests") if isinstance(benchmark, dict) else None
    if not isinstance(groups, dict) or not groups.get("successful"):
        raise CalibrationError(f"{where}: no successful requests{_reason(groups)}")
    strategy = _strategy(benchmark).get("type_")
    if strategy in _CLOSED:
        notes.append(f"{name}: a closed loop: each request was sent when another ended, and is replayed at that time")
    rows = []
    lost = 0
    for status in _STATUSES:
        for place, request in enumerate(groups.get(status) or []):
            row = _row(request, number, f"{name}-{status}-{place}", f"{where}: {status} request {place}", status)
            rows += [row] if row is not None else []
            lost += row is None
    if lost:
        notes.append(f"{name}: {lost} requests that did not finish are left out: their lengths are not known")
    return rows


def _row(request: Any, phase: int, request_id: str, where: str, status: str) -> dict[str, Any] | None:
    """One row; None for a request that did not finish and whose lengths or start are unknown."""
    if not isinstance(request, dict):
        raise CalibrationError(f"{where}: must be an object, got {request!r}")
    timings = _part(_part(request, "info"), "timings")
    ok = status == "successful"
    sent = timings.get("request_start", request.get("start_time"))
    tokens_in = request.get("prompt_tokens", _part(request, "input_metrics").get("text_tokens"))
    tokens_out = request.get("output_tokens", _part(request, "output_metrics").get("text_tokens"))
    if not ok and (sent is None or not tokens_in):
        return None
    first = timings.get("first_token_iteration", request.get("first_token_time"))
    last = timings.get("last_token_iteration", request.get("last_token_time"))
    return {
        "phase": phase,
        "request_id": request_id,
        "arrival_s": seconds(sent, f"{where}: request_start"),
        "input_tokens": count(tokens_in, f"{where}: prompt_tokens"),
        "output_tokens": count(tokens_out if ok else _asked(request) or tokens_out or 1, f"{where}: output_tokens"),
        "first_token_s": seconds(first, f"{where}: first_token_iteration") if ok or first is not None else None,
        "finish_s": seconds(last, f"{where}: last_token_iteration") if ok else None,
        "chunk_s": [],
        "ok": ok,
        "error": None if ok else f"{CUT}: {status}" if status == "incomplete" else status,
    }


def _asked(request: Mapping[str, Any]) -> int | None:
    """The tokens that the request asked for, where the report keeps what was sent."""
    try:
        body = _part(json.loads(request.get("request_args") or "{}"), "body")
    except (TypeError, ValueError):
        return None
    asked = body.get("max_tokens", body.get("max_completion_tokens"))
    return asked if isinstance(asked, int) and asked > 0 else None


def _reason(groups: Any) -> str:
    """Why there is none that succeeded: what the first failed with, or that the report keeps no requests."""
    failed = [request for request in _part({"": groups}, "").get("errored") or [] if isinstance(request, dict)]
    if not failed:
        return "; keep them in the report (its requests are empty)"
    said = _part(failed[0], "info").get("error") or failed[0].get("error") or "an error"
    return f": {len(failed)} failed, the first with: {' '.join(str(said).split())[:200]}"


def _strategy(benchmark: Any) -> Mapping[str, Any]:
    return _part(_part(benchmark, "config"), "strategy")


def _name(benchmark: Any, number: int) -> str:
    """The strategy and its rate, such as `poisson-2.5`, with the benchmark's number where there is none."""
    strategy = _strategy(benchmark)
    kind, rate = strategy.get("type_", "benchmark"), strategy.get("rate")
    return f"{number}-{kind}" + (f"-{rate:g}" if isinstance(rate, int | float) else "")


def _model(report: Mapping[str, Any]) -> str | None:
    """The model that the report names, where it does."""
    for benchmark in report["benchmarks"]:
        backend = _part(_part(benchmark, "config"), "backend")
        if isinstance(backend.get("model"), str):
            return str(backend["model"])
    return None


def _part(of: Any, key: str) -> Mapping[str, Any]:
    """The object under `key`; empty where there is none."""
    value = of.get(key) if isinstance(of, dict) else None
    return value if isinstance(value, dict) else {}
