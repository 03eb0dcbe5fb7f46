"""The directory of results: summary.json, requests.parquet, report.html, manifest.json.

Owns the files, their layout and their columns. Imports errors and the rest of results.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simroute.errors import OutputError
from simroute.results.compare import TARGET_ATTAINMENT, Summary, answer, difference, rank
from simroute.results.latency import generated_tokens, latencies
from simroute.results.metrics import rounded
from simroute.results.run import FleetRun, Status
from simroute.results.slo import Slo

if TYPE_CHECKING:
    import pyarrow

SUMMARY, REQUESTS, REPORT, MANIFEST = "summary.json", "requests.parquet", "report.html", "manifest.json"
_INSTEAD = "choose another -o"


@dataclass(frozen=True, slots=True)
class Stored:
    """A directory of results read back; `requests()` reads the large file only when it is asked for."""

    directory: Path
    summary: dict[str, Any]
    manifest: dict[str, Any]

    def requests(self) -> pyarrow.Table:
        """One row for each policy and request (see docs/results.md for the columns)."""
        import pyarrow.parquet

        return pyarrow.parquet.read_table(self.directory / REQUESTS)


def prepare(directory: Path, *, instead: str = _INSTEAD) -> Path:
    """Make `directory` (and its parents) and prove that files can be written there, before hours are spent.

    Raises OutputError, which tells to do something else `instead`.
    """
    with _one_line(directory, instead):
        if directory.exists() and not directory.is_dir():
            raise OutputError(f"{directory}: is a file; give a directory for the results")
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    return directory


def write(
    directory: Path,
    summary: Mapping[str, Any],
    runs: Sequence[FleetRun],
    manifest: Mapping[str, Any],
    report_html: Callable[[], str],
) -> Path:
    """Write all four files into `directory`, over older results; `report_html` is called last.

    `summary` is all of summary.json (`summary_document`); `runs` hold the rows of requests.parquet. Each file appears
    whole or not at all.
    Raises OutputError.
    """
    prepare(directory)
    with _one_line(directory):
        write_text(directory / SUMMARY, json_text(summary))
        write_text(directory / MANIFEST, json_text(manifest))
        _write_requests(directory / REQUESTS, runs)
        write_text(directory / REPORT, report_html())
    return directory


def load(directory: Path) -> Stored:
    """Read results back. Raises OutputError when `directory` does not hold any."""
    try:
        summary, manifest = (json.loads((directory / name).read_text("utf-8")) for name in (SUMMARY, MANIFEST))
    except OSError as error:
        raise OutputError(f"{error.filename}: no results to read: {error.strerror}") from None
    except ValueError as error:
        raise OutputError(f"{directory}: {SUMMARY} or {MANIFEST} is damaged: {error}") from None
    return Stored(directory, summary, manifest)


def summary_document(
    scenario: str, seed: int, slo: Mapping[str, Slo], summaries: Sequence[Summary], notes: Sequence[str] = ()
) -> dict[str, Any]:
    """All of summary.json: the answer, the targets it refers to, and each policy's summary under its name.

    `notes` are about the scenario as a whole (what a trace reader mended, assumptions about quality). The baseline of
    `difference_to_baseline` is the first policy.
    """
    document = {
        "scenario": scenario,
        "seed": seed,
        "answer": answer(summaries),
        "slo": {name: asdict(targets) for name, targets in slo.items()},
        "target_attainment": TARGET_ATTAINMENT,
        "policies": {summary["policy"]: dict(summary) for summary in summaries},
        "ranking": [summary["policy"] for summary in rank(summaries)],
        "difference_to_baseline": {s["policy"]: difference(s, summaries[0]) for s in summaries[1:]},
        "notes": list(notes),
    }
    return rounded(document)  # type: ignore[no-any-return]


def json_text(data: Mapping[str, Any]) -> str:
    """`data` as the JSON text of the files and of `--json`: the same data gives the same bytes."""
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def request_table(run: FleetRun) -> pyarrow.Table:
    """The rows of one policy; latencies are null where undefined, `pool` and `replica` where nothing was routed."""
    import pyarrow as pa

    times, trace, n = latencies(run), run.trace, len(run.trace)
    pools = [r.pool for r in run.replicas]
    columns = {
        "policy": _labels(np.zeros(n, dtype=np.int32), [run.policy]),
        "request": pa.array(np.arange(n, dtype=np.int32)),
        "arrival_s": pa.array(run.arrival_s),
        "ttft_s": pa.array(times.ttft_s, from_pandas=True),
        "tpot_s": pa.array(times.tpot_s, from_pandas=True),
        "e2e_s": pa.array(times.e2e_s, from_pandas=True),
        "status": _labels(run.status, [s.name.lower() for s in Status]),
        "reason": _labels(run.reason_code, run.reasons),
        "tries": pa.array(run.times_asked),
        "attempts": pa.array(run.times_sent),
        "pool": _labels(run.replica, pools),
        "replica": pa.array(run.replica, mask=run.replica < 0),
        "class": _labels(trace.class_code, trace.class_names),
        "tenant": _labels(trace.tenant_code, trace.tenant_names),
        "tier": _labels(trace.tier_code, trace.tier_names),
        "input_tokens": pa.array(trace.input_tokens),
        "output_tokens": pa.array(generated_tokens(run)),
        "preemptions": pa.array(run.preemptions),
        "cached_tokens": pa.array(run.cached_tokens),
    }
    return pa.table(columns)


def _labels(code: np.typing.NDArray[Any], names: Sequence[str]) -> pyarrow.Array:
    """`names[code]` as a dictionary-encoded column, null where the code is negative. Equal names share one entry."""
    import pyarrow as pa

    unique = list(dict.fromkeys(names))
    entry = np.array([unique.index(name) for name in names] or [0], dtype=np.int32)
    return pa.DictionaryArray.from_arrays(
        pa.array(entry[np.maximum(code, 0)], mask=code < 0), pa.array(unique, pa.string())
    )


def _write_requests(path: Path, runs: Sequence[FleetRun]) -> None:
    """One row group a policy, so that no two policies' rows are in memory together."""
    if runs:
        write_tables(path, map(request_table, runs))


def write_tables(path: Path, tables: Iterable[pyarrow.Table]) -> None:
    """Write tables of equal columns, at least one, to the Parquet file `path`, whole or not at all.

    Raises OutputError.
    """
    import pyarrow.parquet as pq

    found = iter(tables)
    first = next(found)
    with (
        _one_line(path.parent),
        _replacing(path) as temporary,
        pq.ParquetWriter(temporary, first.schema) as writer,
    ):
        writer.write_table(first)
        del first
        for table in found:
            writer.write_table(table)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all. Raises OutputError."""
    with _one_line(path.parent), _replacing(path) as temporary:
        temporary.write_text(text, "utf-8")


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A path to write to, put in the place of `path` when all went well and removed otherwise.

    Devices, pipes and what a link leads to are written to as they are: nothing may take their place.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        yield path
        return
    temporary = path.with_name(f".{path.name}.partial")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _one_line(directory: Path, instead: str = _INSTEAD) -> Iterator[None]:
    """Turn what the system says about an unwritable directory into one clear line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{error.filename or directory}: cannot write results: {reason}; {instead}") from None
