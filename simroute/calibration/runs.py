"""The run directory: what was measured on one engine, as meta.json, iterations.parquet and requests.parquet.

Owns the three files, their columns and the checks on reading; `measure` and `ingest` write runs, `fit` and `validate`
read them. Every time is in seconds on one clock, the run's own. Imports errors only.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from simroute.errors import CalibrationError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

META, ITERATIONS, REQUESTS = "meta.json", "iterations.parquet", "requests.parquet"

ITERATION_COLUMNS = {
    "phase": "int32",  # index in `RunMeta.phases`
    "t_s": "float64",  # schedule() began
    "service_s": "float64",  # from the end of schedule(), or the output before if that was later, to this output
    "sched_s": "float64",  # duration of schedule()
    "prefill_seqs": "int32",
    "prefill_tokens": "int32",
    "prefill_context_tokens": "int64",  # summed: tokens in the KV cache before this chunk
    "prefill_pairs": "int64",  # summed: (query, key) pairs of causal attention
    "decode_seqs": "int32",
    "decode_context_tokens": "int64",  # summed: tokens each query attends to, itself included
    "sampled_seqs": "int32",
    "kv_blocks_used": "int32",
    "running": "int32",
    "waiting": "int32",
    "preempted": "int32",
}
REQUEST_COLUMNS = {
    "phase": "int32",
    "request_id": "string",
    "arrival_s": "float64",  # the client began to send
    "input_tokens": "int32",
    "output_tokens": "int32",  # generated; what was asked for when the request did not finish
    "first_token_s": "float64",  # null when none came
    "finish_s": "float64",  # the last token; null when it did not finish
    "chunk_s": "list",  # the time of every chunk with tokens
    "ok": "bool",
    "error": "string",  # null when ok
}
POSITIVE = {ITERATIONS: ("service_s",), REQUESTS: ("input_tokens", "output_tokens")}
NOT_NEGATIVE: dict[str, tuple[str, ...]] = {
    ITERATIONS: tuple(name for name in ITERATION_COLUMNS if name not in {"t_s", "service_s"}),
    REQUESTS: ("phase",),
}
FINITE = {ITERATIONS: ("t_s", "service_s", "sched_s"), REQUESTS: ("arrival_s",)}
NULLABLE = {"first_token_s", "finish_s", "error"}
CUT = "cut"
"""How the error of a request begins that was cut off, rather than refused: it loaded the engine until then."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Host(_Strict):
    """The machine that ran the engine."""

    cpu: str
    cores: int = Field(ge=1)


class Phase(_Strict):
    """One stretch of a run. `ok` is False when requests of it failed: it is measured again, and not validated on."""

    name: str
    kind: Literal["sweep", "capacity", "load"]
    start_s: float
    end_s: float
    offered_rps: float | None = None
    """Load phases: mean arrival rate."""
    fraction: float | None = None
    """Load phases: `offered_rps` as a fraction of the capacity found."""
    ok: bool = True


class RunMeta(_Strict):
    """meta.json: the engine as it ran, and the phases. Two attributes differ from their keys in the file
    (`schema_version` is "schema", `hf_config` is "model_config"): pydantic keeps those names for itself.
    """

    schema_version: Literal[1] = Field(default=1, validation_alias="schema", serialization_alias="schema")
    gpu: str
    driver: str | None = None
    vllm: str
    model: str
    hf_config: dict[str, Any] = Field(validation_alias="model_config", serialization_alias="model_config")
    scheme: str
    tensor_parallel: int = Field(default=1, ge=1)
    engine_args: dict[str, Any] = Field(default_factory=dict)
    num_gpu_blocks: int = Field(ge=1)
    block_size: int = Field(ge=1)
    max_num_seqs: int = Field(ge=1)
    max_num_batched_tokens: int = Field(ge=1)
    max_model_len: int = Field(ge=1)
    async_scheduling: bool
    enable_prefix_caching: bool
    dummy_weights: bool
    startup_s: float | None = None
    """Seconds from starting the server's process until it answers."""
    load_s: float | None = None
    """Seconds of start-up spent on loading the weights."""
    host: Host
    started_unix_s: float = 0.0
    """The run clock's zero."""
    capacity_rps: float | None = None
    plan: dict[str, Any] = Field(default_factory=dict)
    """The options it was measured with: a resumed run must have the same."""
    notes: tuple[str, ...] = ()
    phases: tuple[Phase, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """One measured engine. `iterations` and `requests` have the columns named above, in this order."""

    meta: RunMeta
    iterations: pd.DataFrame
    requests: pd.DataFrame
    name: str = "run"

    def phase(self, name: str) -> Run:
        """This run with the rows of phase `name` only (the meta keeps every phase). Raises CalibrationError."""
        return self._rows({self._index(name)})

    def of_kind(self, kind: str) -> Run:
        """This run with the rows of the phases of this kind only."""
        return self._rows({i for i, phase in enumerate(self.meta.phases) if phase.kind == kind})

    def loads(self) -> tuple[Phase, ...]:
        """The load phases that went well, in the order in which they were measured."""
        return tuple(phase for phase in self.meta.phases if phase.kind == "load" and phase.ok)

    def _index(self, name: str) -> int:
        names = [phase.name for phase in self.meta.phases]
        if name not in names:
            raise CalibrationError(f"{self.name}: no phase '{name}': has {', '.join(names) or 'none'}")
        return names.index(name)

    def _rows(self, phases: set[int]) -> Run:
        tables = (t[t["phase"].isin(phases)].reset_index(drop=True) for t in (self.iterations, self.requests))
        iterations, requests = tables
        return replace(self, iterations=iterations, requests=requests)


def read_run(path: Path) -> Run:
    """Read and check a run directory; rows of phases that meta.json does not list (a write cut short) are left out.

    Raises CalibrationError, which names the file and the column, field or row at fault.
    """
    if not path.is_dir():
        raise CalibrationError(f"{path}: not a run directory; `simroute calibrate measure -o {path} ...` writes one")
    meta = read_meta(path / META)
    iterations = _read_table(path / ITERATIONS, ITERATION_COLUMNS)
    requests = _read_table(path / REQUESTS, REQUEST_COLUMNS)
    whole = replace(Run(meta, iterations, requests), name=str(path))
    return whole._rows(set(range(len(meta.phases))))


def write_run(run: Run, path: Path) -> None:
    """Write a run directory over an older one. Each file appears whole or not at all; meta.json comes last.

    Raises CalibrationError when a column is missing or the files cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        _write_table(run.iterations, ITERATION_COLUMNS, path / ITERATIONS)
        _write_table(run.requests, REQUEST_COLUMNS, path / REQUESTS)
        text = json.dumps(run.meta.model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=False) + "\n"
        temporary = _temporary(path / META)
        temporary.write_text(text, "utf-8")
        os.replace(temporary, path / META)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CalibrationError(f"{error.filename or path}: cannot write the run: {reason}; choose another -o") from None


def empty_table(columns: dict[str, str]) -> pd.DataFrame:
    """A table of these columns without rows."""
    return _schema(columns).empty_table().to_pandas()


def read_meta(path: Path) -> RunMeta:
    """The meta.json at `path`. Raises CalibrationError."""
    try:
        return RunMeta.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CalibrationError(f"{path}: cannot read: {error.strerror}; is this a run directory?") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise CalibrationError(f"{path}:{field}: {first['msg']}") from None


def _read_table(path: Path, columns: dict[str, str]) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise CalibrationError(f"{path}: cannot read: {reason}") from None
    return _checked(_cast(table, columns, path), path)


def _cast(table: pa.Table, columns: dict[str, str], path: Path) -> pa.Table:
    """The named columns of `table`, in order, as the types they should have."""
    import pyarrow as pa

    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise CalibrationError(f"{path}: missing column{'s' * (len(missing) > 1)} {', '.join(missing)}")
    arrays = []
    for field in _schema(columns):
        try:
            arrays.append(table.column(field.name).cast(field.type))
        except pa.ArrowException:
            got = table.column(field.name).type
            raise CalibrationError(f"{path}: column {field.name}: must be {field.type}, got {got}") from None
    return pa.table(arrays, schema=_schema(columns))


def _checked(table: pa.Table, path: Path) -> pd.DataFrame:
    frame = table.to_pandas()
    for name in table.column_names:
        if name not in NULLABLE and table.column(name).null_count:
            raise CalibrationError(f"{path}: column {name}: has {table.column(name).null_count} empty values")
    rules: tuple[tuple[Mapping[str, tuple[str, ...]], str, Callable[[Any], Any]], ...] = (
        (POSITIVE, "above 0", lambda values: values > 0),
        (NOT_NEGATIVE, "at least 0", lambda values: values >= 0),
        (FINITE, "a finite number", lambda values: values.abs() < math.inf),
    )
    for columns, allowed, holds in rules:
        for name in columns[path.name]:
            wrong = frame.index[~holds(frame[name])]
            if len(wrong):
                got, such = frame[name][wrong[0]], f"{len(wrong)} such"
                raise CalibrationError(f"{path}: row {wrong[0]}: {name}: must be {allowed}, got {got:g} ({such})")
    return frame


def _write_table(frame: pd.DataFrame, columns: dict[str, str], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = _cast(pa.Table.from_pandas(frame, preserve_index=False), columns, path)
    temporary = _temporary(path)
    try:
        pq.write_table(table, temporary, compression="zstd", compression_level=9)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _schema(columns: dict[str, str]) -> pa.Schema:
    import pyarrow as pa

    types = {"list": pa.list_(pa.float64()), "bool": pa.bool_(), "string": pa.string()}
    return pa.schema([(name, types.get(kind) or pa.type_for_alias(kind)) for name, kind in columns.items()])


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")
