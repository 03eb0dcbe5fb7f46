"""What a benchmark's file does not tell about the engine, and the run directory's tables and meta made with it.

Imports calibration's runs and replay, engine and errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from simroute.calibration.runs import ITERATION_COLUMNS, REQUEST_COLUMNS, Host, Phase, Run, RunMeta, empty_table
from simroute.engine.config import EngineConfig
from simroute.errors import CalibrationError, UsageError

if TYPE_CHECKING:
    import pandas as pd

NOT_RECORDED = "not recorded"
"""What stands in meta.json where neither the file nor the caller tells."""
_IN_META = (
    "num_gpu_blocks",
    "block_size",
    "max_num_seqs",
    "max_num_batched_tokens",
    "max_model_len",
    "async_scheduling",
    "enable_prefix_caching",
)
_DEFAULTS = {each.name: each.default for each in fields(EngineConfig)}


@dataclass(frozen=True, slots=True)
class Described:
    """The engine that was benchmarked, as its owner knows it; `settings` are fields of `EngineConfig`."""

    gpu: str
    scheme: str
    model: str = NOT_RECORDED
    vllm: str = NOT_RECORDED
    tensor_parallel: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """What a file tells: phases, their rows, and what of `Described` it knows better or what a reader must know."""

    phases: Sequence[Phase]
    requests: pd.DataFrame | None = None
    iterations: pd.DataFrame | None = None
    model: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


def run_of(name: str, engine: Described, found: Found) -> Run:
    """The run directory of what was found. Raises UsageError when the size of the KV cache is not known."""
    settings = {**found.settings, **engine.settings}
    if "num_gpu_blocks" not in settings:
        raise UsageError(
            f"{name}: does not say how many KV blocks the engine had: give --set num_gpu_blocks=N (vLLM's log says "
            "'GPU KV cache size: T tokens': N is T divided by block_size)"
        )
    longest = _longest(found.requests)
    assumed = {key: _DEFAULTS[key] for key in _IN_META if key not in settings and key != "num_gpu_blocks"}
    if "max_model_len" in assumed:
        assumed["max_model_len"] = longest or assumed["max_model_len"]
    listing = ", ".join(f"{key} {value}" for key, value in assumed.items())
    notes = [*found.notes, *([f"settings taken as vLLM's defaults: {listing}"] if assumed else [])]
    meta = {
        "gpu": engine.gpu,
        "vllm": engine.vllm,
        "model": found.model if found.model and engine.model == NOT_RECORDED else engine.model,
        "model_config": {},
        "scheme": engine.scheme,
        "tensor_parallel": engine.tensor_parallel,
        "engine_args": {key: value for key, value in settings.items() if key not in _IN_META},
        "dummy_weights": False,
        "host": Host(cpu=NOT_RECORDED, cores=1),
        "phases": tuple(found.phases),
        "notes": tuple(notes),
    }
    known = {key: settings.get(key, assumed.get(key)) for key in _IN_META}
    iterations = empty_table(ITERATION_COLUMNS) if found.iterations is None else found.iterations
    requests = empty_table(REQUEST_COLUMNS) if found.requests is None else found.requests
    return Run(RunMeta.model_validate(meta | known), iterations, requests, name=name)


def request_table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of requests.parquet, each a mapping of its columns."""
    import pandas as pd

    return pd.DataFrame(list(rows), columns=list(REQUEST_COLUMNS))


def iteration_table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of iterations.parquet, each a mapping of the columns that are known; the others are 0."""
    import pandas as pd

    return pd.DataFrame(list(rows), columns=list(ITERATION_COLUMNS)).fillna(0).astype(ITERATION_COLUMNS)


def load_phase(number: int, name: str, requests: Sequence[Mapping[str, Any]]) -> Phase:
    """A load phase around these rows, the rate as it was measured. Raises CalibrationError when there are none."""
    if not requests:
        raise CalibrationError(f"phase {number} '{name}': no request finished")
    arrivals = [row["arrival_s"] for row in requests]
    ends = [row["finish_s"] for row in requests if row["ok"]]
    span_s = max(arrivals) - min(arrivals)
    rate = (len(arrivals) - 1) / span_s if span_s > 0 else None
    return Phase(
        name=name, kind="load", start_s=min(arrivals), end_s=max(ends, default=max(arrivals)), offered_rps=rate
    )


def _longest(requests: pd.DataFrame | None) -> int | None:
    """The context that the longest request needs, room for its last token included."""
    if requests is None or not len(requests):
        return None
    return int((requests["input_tokens"] + requests["output_tokens"]).max()) + 1
