"""What policies lost against an oracle: the log of decisions as a table, and its summary.

Imports numpy, pyarrow inside, and workload.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simroute.workload.trace import Trace

if TYPE_CHECKING:
    import pyarrow

Decisions = Mapping[str, NDArray[Any]]
"""One row a decision: `request`, `arrival_s`, `chosen`, `best`, `chosen_s`, `best_s`, `regret_s`; NaN where unknown."""

NOTABLE = 0.1
"""A regret above this share of what the best replica would have taken is counted."""


def joined(parts: Sequence[Decisions]) -> Decisions:
    """The decisions of several logs, one after another."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def regret_summary(decisions: Decisions) -> dict[str, float | int]:
    """How many decisions there were, how many were `rejected`, for how many both times are `predicted`; of those the
    mean and the 99th percentile of the regret in seconds, and the share with a regret above `NOTABLE` of the best."""
    regret_s = decisions["regret_s"]
    known = ~np.isnan(regret_s)
    predicted = int(known.sum())
    regret_s, best_s = regret_s[known], decisions["best_s"][known]
    return {
        "decisions": len(known),
        "rejected": int((decisions["chosen"] < 0).sum()),
        "predicted": predicted,
        "mean_regret_s": float(regret_s.mean()) if predicted else math.nan,
        "p99_regret_s": float(np.percentile(regret_s, 99)) if predicted else math.nan,
        "notable_share": float((regret_s > NOTABLE * best_s).mean()) if predicted else math.nan,
    }


def decision_table(policy: str, trace: Trace, decisions: Decisions) -> pyarrow.Table:
    """The rows of one policy, with class, tenant and tier of each request; null for what is not known."""
    import pyarrow as pa

    request = decisions["request"]
    names = {
        column: pa.array(np.array(coded.names, dtype=object)[coded.code[request]])
        for column, coded in zip(("class", "tenant", "tier"), trace.coded_columns().values(), strict=True)
    }
    replicas = {name: pa.array(decisions[name], mask=decisions[name] < 0) for name in ("chosen", "best")}
    times = {name: pa.array(decisions[name], from_pandas=True) for name in ("chosen_s", "best_s", "regret_s")}
    columns: dict[str, Any] = {
        "policy": pa.array([policy] * len(request)),
        "request": pa.array(request),
        "arrival_s": pa.array(decisions["arrival_s"]),
        **names,
        **replicas,
        **times,
    }
    return pa.table(columns)
