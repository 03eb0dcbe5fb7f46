"""Whether a window of a split replay begins as the window before it ends: queues, batches, memory and caches.

Both replays pass the same instant with the same traffic behind them, one of them for longer, and the first requests
after it are in both. What is left of an older past is what tells them apart. Imports engine and fleet.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simroute.engine.replica import Replica
from simroute.fleet.cluster import Cluster

RUNNING, WAITING, KV = 0, 1, 2
"""Columns of a state."""
CHANCE = 3.0
"""Sums of n independent things differ by about sqrt(n); by more than so many times that, it is not chance."""
LEAST_CACHED = 0.01
"""Share of prompt tokens, found in caches by one replay and not by the other, that is no matter."""

State = NDArray[np.float64]


def state_of(cluster: Cluster) -> State:
    """A row a pool, and one for the router: requests running, requests waiting, KV blocks in use (summed shares)."""
    names = list(dict.fromkeys(slot.pool.name for slot in cluster.slots))
    state = np.zeros((len(names) + 1, 3))
    for slot in cluster.slots:
        replica = slot.replica
        assert isinstance(replica, Replica)
        there = (replica.num_requests_running, replica.num_requests_waiting, replica.kv_cache_usage)
        state[names.index(slot.pool.name)] += there
    if cluster.gateway is not None:
        state[-1, WAITING] = cluster.gateway.held
    return state


def requests_in(state: State) -> int:
    """Requests in the fleet."""
    return int(state[:, [RUNNING, WAITING]].sum())


def same_fill(ended: State, begins: State) -> bool:
    """Whether two states of a fleet differ by no more than chance."""
    most = np.maximum(ended, begins)
    requests = np.sqrt(most[:, RUNNING] + most[:, WAITING])
    kv_use = most[:, KV] / np.sqrt(np.maximum(most[:, RUNNING], 1.0))
    allowed = CHANCE * np.stack([requests, requests, kv_use], axis=1)
    return bool((np.abs(ended - begins) <= allowed).all())


def same_caches(there: NDArray[np.int64], here: NDArray[np.int64], prompts: NDArray[np.int64]) -> bool:
    """Whether the same requests, of these prompt tokens, found about as much in the caches of two replays.

    `there` is -1 where it is not known.
    """
    known = there >= 0
    differences = (there[known] - here[known]).astype(np.float64)
    total = abs(float(differences.sum()))
    chance = CHANCE * float(np.sqrt((differences**2).sum()))
    return total <= max(chance, LEAST_CACHED * float(prompts[known].sum()))
