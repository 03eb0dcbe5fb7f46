"""Results of `vllm bench sweep serve`: a folder of `vllm bench serve` results, a run directory for each server.

A folder of the sweep is called `SERVE--<settings>-BENCH--<settings>` and holds `run=0.json`, `run=1.json`, ...; its
warm-up and its summaries repeat those and are not read. Imports vllm_serve and ingest's other files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from simroute.calibration.ingest import vllm_serve
from simroute.calibration.ingest.described import Described, Found, run_of
from simroute.calibration.ingest.files import read_json
from simroute.calibration.runs import Run
from simroute.engine.config import EngineConfig
from simroute.errors import CalibrationError

_SETTINGS = {each.name for each in fields(EngineConfig)}


def read(folder: Path, engine: Described) -> dict[str, Run]:
    """The runs of a sweep, by the name of their server's settings (empty where the sweep has but one server).

    Raises CalibrationError when there are no results, or results without what is needed.
    """
    if not folder.is_dir():
        raise CalibrationError(f"{folder}: not a folder; give the one that `vllm bench sweep serve` wrote")
    servers: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("run=*.json")):
        if not path.name.endswith(".failure.json"):
            servers.setdefault(_server(path.parent.name), []).append(path)
    if not servers:
        raise CalibrationError(f"{folder}: no results (run=0.json) of `vllm bench sweep serve`")
    alone = len(servers) == 1
    return {"" if alone else name: _run(folder, name, paths, engine) for name, paths in servers.items()}


def _run(folder: Path, server: str, paths: list[Path], engine: Described) -> Run:
    import pandas as pd

    found = []
    settings: dict[str, Any] = {}
    for number, path in enumerate(paths):
        result = read_json(path)
        name = f"{path.parent.name.split('BENCH--')[-1]} {path.stem}"
        found.append(vllm_serve.found(path, result, number, name))
        settings |= _engine_settings(result)
    merged = Found(
        phases=[each.phases[0] for each in found],
        requests=pd.concat([each.requests for each in found], ignore_index=True),
        model=found[0].model,
        settings=settings,
        notes=[note for each in found for note in each.notes],
    )
    run = run_of(str(folder), engine, merged)
    return replace(run, name=f"{folder}: {server}") if server else run


def _server(folder: str) -> str:
    """The part of a folder's name that belongs to the server; empty when it has no settings of its own."""
    name = folder.split("-BENCH--")[0]
    return name.removeprefix("SERVE--") if name.startswith("SERVE--") else ""


def _engine_settings(result: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the engine among those that a sweep adds to a result."""
    named = {str(key).replace("-", "_"): value for key, value in result.items()}
    return {key: named[key] for key in _SETTINGS if isinstance(named.get(key), bool | int)}
