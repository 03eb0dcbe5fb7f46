"""Rows of a run from what the plug-in and the client noted, and runs put together from phases. Imports calibration's
`runs` and `plugin`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from simroute.calibration.measure.client import Answer
from simroute.calibration.plugin import COLUMNS
from simroute.calibration.runs import ITERATION_COLUMNS, REQUEST_COLUMNS, Phase, Run, RunMeta, empty_table

if TYPE_CHECKING:
    import pandas as pd

_MICROSECONDS = 6  # decimals worth keeping: the client's clock is no better


def new_run(meta: RunMeta, name: str) -> Run:
    """A run without phases."""
    return Run(meta, empty_table(ITERATION_COLUMNS), empty_table(REQUEST_COLUMNS), name)


def with_phase(run: Run, phase: Phase, iterations: pd.DataFrame, requests: pd.DataFrame, **meta: object) -> Run:
    """`run` and one phase more; `meta` are fields of its meta that change with it."""
    import pandas as pd

    number = len(run.meta.phases)
    tables = []
    for old, new in ((run.iterations, iterations), (run.requests, requests)):
        parts = [table for table in (old, new.assign(phase=number)[old.columns]) if len(table)]
        tables.append(pd.concat(parts, ignore_index=True) if parts else old)
    changed = run.meta.model_copy(update={"phases": (*run.meta.phases, phase), **meta})
    return Run(changed, tables[0], tables[1], run.name)


def without_failed(run: Run) -> Run:
    """`run` without the phases that are not ok, the others numbered anew."""
    kept = [number for number, phase in enumerate(run.meta.phases) if phase.ok]
    renumbered = {old: new for new, old in enumerate(kept)}
    tables = []
    for table in (run.iterations, run.requests):
        rows = table[table["phase"].isin(kept)].reset_index(drop=True)
        tables.append(rows.assign(phase=rows["phase"].map(renumbered).astype("int32")))
    phases = tuple(run.meta.phases[number] for number in kept)
    return Run(run.meta.model_copy(update={"phases": phases}), tables[0], tables[1], run.name)


def iteration_table(rows: Sequence[Sequence[float]], clock_s: float, start_s: float, end_s: float) -> pd.DataFrame:
    """The steps that began in [start_s, end_s] of the run clock, which is the monotonic clock plus `clock_s`."""
    import pandas as pd

    table = pd.DataFrame([list(row) for row in rows], columns=list(COLUMNS))
    table["t_s"] = (table["t_s"].astype(float) + clock_s).round(_MICROSECONDS)
    inside = (table["t_s"] >= start_s) & (table["t_s"] <= end_s) & (table["service_s"] > 0)
    return table[inside].assign(phase=0)[list(ITERATION_COLUMNS)].reset_index(drop=True)


def request_table(answers: Sequence[Answer], clock_s: float) -> pd.DataFrame:
    """One row an answer, in order of arrival; `clock_s` as of `iteration_table`."""
    import pandas as pd

    rows = []
    for answer in sorted(answers, key=lambda answer: answer.arrival_s):
        chunks = [round(t + clock_s, _MICROSECONDS) for t in answer.chunk_s]
        rows.append(
            {
                "phase": 0,
                "request_id": answer.request_id,
                "arrival_s": round(answer.arrival_s + clock_s, _MICROSECONDS),
                "input_tokens": answer.input_tokens,
                "output_tokens": answer.output_tokens,
                "first_token_s": chunks[0] if chunks else None,
                "finish_s": chunks[-1] if chunks and not answer.error else None,
                "chunk_s": chunks,
                "ok": not answer.error,
                "error": answer.error,
            }
        )
    return pd.DataFrame(rows, columns=list(REQUEST_COLUMNS))
