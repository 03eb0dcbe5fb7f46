"""How busy a fleet was while its traffic ran: what a replay's samples say of each pool, as plain data.

Imports results.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from simroute.results.run import FleetRun

MOST_INTERVALS = 100
FEWEST_INTERVALS = 12
REQUESTS_AN_INTERVAL = 25
"""Fewer arrivals than this, and chance drowns the rate of an interval."""
_DIGITS = 4


def utilisation(run: FleetRun) -> dict[str, Any]:
    """Arrivals a second and, of each pool, the shares of its time and of its KV cache in use and its replicas.

    `t_s` holds the middle of each interval, from the start of the trace to the end of the run; everything else is as
    long. Empty lists where the run is too short to be sampled.
    """
    timeline = run.timeline
    assert timeline.busy_s is not None
    edges = _edges(len(timeline.t_s), len(run.trace))
    edges_s = timeline.t_s[edges]
    length_s = np.diff(edges_s)
    came = np.searchsorted(np.sort(run.arrival_s), edges_s, side="left")
    pools: dict[str, Any] = {}
    for name in dict.fromkeys(totals.pool for totals in run.replicas):
        members = [number for number, totals in enumerate(run.replicas) if totals.pool == name]
        busy_s = np.diff(timeline.busy_s[edges][:, members].sum(axis=1))
        cache = timeline.kv_usage[edges][:, members].mean(axis=1, dtype=np.float64)
        pools[name] = {
            "busy": _listed(busy_s / (length_s * len(members))),
            "kv_usage": _listed((cache[:-1] + cache[1:]) / 2),
            "replicas": [len(members)] * len(length_s),
        }
    return {
        "t_s": _listed((edges_s[:-1] + edges_s[1:]) / 2),
        "arrivals_rps": _listed(np.diff(came) / length_s),
        "pools": pools,
    }


def _edges(samples: int, requests: int) -> np.ndarray:
    """Samples at which one interval ends and the next begins."""
    wanted = min(max(requests // REQUESTS_AN_INTERVAL, FEWEST_INTERVALS), MOST_INTERVALS)
    return np.unique(np.linspace(0, max(samples - 1, 0), wanted + 1).astype(np.int64))


def _listed(values: np.ndarray) -> list[float]:
    found: list[float] = np.round(values, _DIGITS).tolist()
    return found
