"""The steps of measured runs as arrays to fit: one duration each, start to start, cleaned and grouped.

Owns what counts as a step's duration. Imports numpy, errors and this room's runs and solve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simroute.calibration.runs import Run
from simroute.calibration.solve import Floats
from simroute.errors import CalibrationError

if TYPE_CHECKING:
    import pandas as pd

INPUTS = (
    "prefill_seqs",
    "prefill_tokens",
    "prefill_pairs",
    "decode_seqs",
    "decode_context_tokens",
    "sampled_seqs",
)
"""The columns of an iteration that a step's duration is a function of: the fields of `steptime.Batch`."""
_TIMES = ("duration_s", "between_s", "arrivals")
MOST_UNUSABLE = 0.05
"""Share of iterations without a usable duration from which on the clock, not the engine, is at fault."""
IDLE_GAP_RATIO = 3.0
"""A gap before a batch without decoding requests, so many times the usual, is idle time and not the engine's."""


@dataclass(frozen=True, slots=True)
class Group:
    """Steps measured together: one load phase of a run, or all of its sweep."""

    run: str
    phase: str
    is_load: bool


@dataclass(frozen=True, slots=True)
class Steps:
    """Measured steps, one value each in every array; `group` indexes `groups`.

    `duration_s` is from the output of the step before to this output while the engine is busy: model, sampling, and
    the CPU time between steps (`between_s`) that nothing hides. Under asynchronous scheduling that time is near 0.
    `arrivals` are the requests that clients sent while the step ran: where the server shares cores with the engine,
    reading and tokenizing them slows the step.
    """

    inputs: dict[str, Floats]
    duration_s: Floats
    between_s: Floats
    arrivals: Floats
    group: NDArray[np.int64]
    groups: tuple[Group, ...]
    unusable: int = 0
    """Iterations left out because they had no duration above 0."""

    def __len__(self) -> int:
        return len(self.duration_s)

    def __getitem__(self, name: str) -> Floats:
        return self.inputs[name]

    @property
    def tokens(self) -> Floats:
        """Tokens in each batch."""
        return self["prefill_tokens"] + self["decode_seqs"]

    @property
    def decodes_only(self) -> NDArray[np.bool_]:
        """Batches without prefill: those that CUDA graphs of whole steps serve."""
        return np.asarray(self["prefill_seqs"] == 0)

    @property
    def load(self) -> NDArray[np.bool_]:
        """Steps measured under load."""
        return np.array([group.is_load for group in self.groups], dtype=bool)[self.group]

    def span(self, values: Floats) -> tuple[int, int]:
        """The least and the largest of `values`."""
        return int(values.min()), int(values.max())


def steps_of(runs: Sequence[Run]) -> Steps:
    """The steps of every run, in the order of their runs and outputs.

    Phases that did not end well still count: their steps are steps. Raises CalibrationError when more than a few
    iterations have no duration above 0.
    """
    tables: list[pd.DataFrame] = []
    groups: list[Group] = []
    for run in runs:
        table, found = _of_run(run)
        tables.append(table.assign(group=table["group"] + len(groups)))
        groups += found
    import pandas as pd

    table = pd.concat(tables, ignore_index=True)
    usable = np.isfinite(table["duration_s"]) & (table["service_s"] > 0)
    lost = int((~usable).sum())
    if lost > MOST_UNUSABLE * len(table):
        raise CalibrationError(
            f"{lost:,} of {len(table):,} iterations have no duration above 0: at most {MOST_UNUSABLE:.0%} may; "
            "measure again"
        )
    table = table[usable]
    columns: dict[str, Any] = {name: table[name].to_numpy(np.float64) for name in (*INPUTS, *_TIMES)}
    return Steps(
        {name: columns[name] for name in INPUTS},
        columns["duration_s"],
        columns["between_s"],
        columns["arrivals"],
        table["group"].to_numpy(np.int64),
        tuple(groups),
        lost,
    )


def outputs_s(iterations: pd.DataFrame) -> Floats:
    """When each step's output was there (run clock), from the definition of `service_s`; rows in order of output."""
    begun_s = (iterations["t_s"] + iterations["sched_s"]).to_numpy(np.float64)
    service_s = np.fmax(iterations["service_s"].to_numpy(np.float64), 0.0)
    out_s = np.empty(len(begun_s))
    last_s = -np.inf
    for i, (begin, service) in enumerate(zip(begun_s.tolist(), service_s.tolist(), strict=True)):
        last_s = out_s[i] = max(last_s, begin) + service
    return out_s


def _of_run(run: Run) -> tuple[pd.DataFrame, list[Group]]:
    """The run's iterations with `duration_s`, `between_s` and `group`, and its groups."""
    table = run.iterations
    out_s = outputs_s(table)
    between_s = _between_s(table, out_s)
    names: dict[Group, int] = {}
    numbers = []
    for phase in run.meta.phases:
        is_load = phase.kind == "load"
        group = Group(Path(run.name).name, phase.name if is_load else "sweep", is_load)
        numbers.append(names.setdefault(group, len(names)))
    duration_s = table["service_s"].to_numpy(np.float64) + between_s
    sent_s = np.sort(run.requests["arrival_s"].to_numpy(np.float64))
    return (
        table.assign(
            between_s=between_s,
            duration_s=duration_s,
            arrivals=np.searchsorted(sent_s, out_s) - np.searchsorted(sent_s, out_s - duration_s),
            group=np.array(numbers, dtype=np.int64)[table["phase"].to_numpy()],
        ),
        list(names),
    )


def _between_s(table: pd.DataFrame, out_s: Floats) -> Floats:
    """Seconds from the output before to the end of schedule(), where the engine was not idle in between.

    A batch with decoding requests follows a step at once. Before any other the engine may have waited for a request:
    what is longer than usual there, and what comes first of all, counts as the usual gap.
    """
    begun_s = (table["t_s"] + table["sched_s"]).to_numpy(np.float64)
    gap_s = np.maximum(begun_s - np.concatenate([[np.nan], out_s[:-1]]), 0.0)
    phase = table["phase"].to_numpy()
    first = np.concatenate([[True], phase[1:] != phase[:-1]])
    decodes = (table["decode_seqs"] > 0).to_numpy() & ~first
    usual_s = gap_s[decodes] if decodes.any() else table["sched_s"].to_numpy(np.float64)
    typical_s = float(np.median(usual_s)) if len(usual_s) else 0.0
    limit_s = IDLE_GAP_RATIO * (float(np.quantile(usual_s, 0.9)) if len(usual_s) else 0.0)
    idle = first | (~decodes & (gap_s > limit_s))
    return np.where(idle, typical_s, gap_s)
