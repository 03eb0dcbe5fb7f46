"""The scorers of `weighted`: each gives every candidate a number in 0..1, the higher the better.

Owns `Scorer`, `SIGNALS` (scores of what a snapshot shows) and the scorers that remember what was sent where.
Formulas are those of llm-d's router (github.com/llm-d/llm-d-router, pkg/epp/framework/plugins/scheduling/scorer).
May import policy.context, policy.snapshot, workload.request and, of this folder, candidates and prefix_index.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from simroute.policy.context import PolicyContext
from simroute.policy.routing.candidates import Candidates, when_down
from simroute.policy.routing.prefix_index import PrefixIndex
from simroute.policy.snapshot import Snapshot
from simroute.workload.request import Request

Scores = NDArray[np.float64]

ROOM_FOR_ADAPTER = 0.8
"""Score of a replica that does not have the adapter but has room for one more; llm-d's lora-affinity-scorer."""


class Scorer(Protocol):
    """Scores candidates for a request."""

    def score(self, request: Request, candidates: Candidates, seen: Sequence[Snapshot]) -> Scores:
        """One number in 0..1 a candidate, by position; `seen` are their snapshots. Not to be written to."""


class Remembering(Scorer, Protocol):
    """A scorer that goes by what was sent where."""

    def chosen(self, request: Request, replica: int) -> None:
        """`request` goes to `replica`."""


def shortest(values: Scores) -> Scores:
    """(most - value) / (most - least): 1 for the least, 0 for the most, 1 for all where all are equal."""
    most, least = values.max(), values.min()
    if most == least:
        return np.ones_like(values)
    scores: Scores = (most - values) / (most - least)
    return scores


def idlest(values: Scores) -> Scores:
    """(most - value) / most: 1 for an idle replica, 0 for the busiest, 1 for all where all are idle."""
    most = values.max()
    if most == 0.0:
        return np.ones_like(values)
    scores: Scores = (most - values) / most
    return scores


def unused(values: Scores) -> Scores:
    """1 - value, for shares of something."""
    scores: Scores = 1.0 - values
    return scores


def below(threshold: int) -> Callable[[Scores], Scores]:
    """0.5 x (1 - value / threshold): 0.5 for an empty queue, 0 from `threshold` on."""

    def score(values: Scores) -> Scores:
        scores: Scores = 0.5 * (1.0 - np.minimum(values, threshold) / threshold)
        return scores

    return score


SIGNALS: dict[str, tuple[str, Callable[[int], Callable[[Scores], Scores]]]] = {
    "queue_depth": ("num_requests_waiting", lambda _: shortest),
    "kv_usage": ("kv_cache_usage", lambda _: unused),
    "active_requests": ("in_flight", lambda _: idlest),
    "running": ("num_requests_running", lambda _: shortest),
    "load": ("num_requests_waiting", below),
}
"""Scorers of one figure of a snapshot: which, and the formula, given the queue length at which `load` is 0."""


class SignalScorer:
    """Scores one figure of the snapshots. Belongs to one set of candidates.

    A scraped figure stands still between two scrapes, so scores are computed anew only when a figure has changed.
    """

    def __init__(self, name: str, queue_threshold: int) -> None:
        figure, formula = SIGNALS[name]
        self._read: Callable[[Snapshot], Any] = attrgetter(figure)
        self._formula = formula(queue_threshold)
        self._figures: list[float] = []
        self._scores: Scores = np.zeros(0)

    def score(self, request: Request, candidates: Candidates, seen: Sequence[Snapshot]) -> Scores:
        """See Scorer."""
        figures = list(map(self._read, seen))
        if figures != self._figures:
            self._figures = figures
            self._scores = self._formula(np.array(figures, dtype=np.float64))
        return self._scores


class PrefixScorer:
    """The share of the prompt's whole blocks that the replica has cached, by what this router sent there."""

    def __init__(self, index: PrefixIndex) -> None:
        self._index = index

    def score(self, request: Request, candidates: Candidates, seen: Sequence[Snapshot]) -> Scores:
        """See Scorer."""
        scores = np.zeros(len(candidates.replicas))
        _, total = self._index.known(request)
        for blocks, mask in self._index.matches(request):
            scores[candidates.positions(mask)] = blocks / total
        return scores

    def chosen(self, request: Request, replica: int) -> None:
        """See Remembering."""
        self._index.record(request, replica)


class PrecisePrefixScorer:
    """The share of the prompt's tokens that the replica has cached, by the engines' KV events."""

    def score(self, request: Request, candidates: Candidates, seen: Sequence[Snapshot]) -> Scores:
        """See Scorer."""
        hits = np.array([snapshot.prefix_hit_tokens(request) for snapshot in seen], dtype=np.float64)
        scores: Scores = hits / request.input_tokens
        return scores


class SessionScorer:
    """1 for the replica to which the session's last request went, if that is no longer ago than `ttl_s`; else 0."""

    def __init__(self, context: PolicyContext, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._bound: OrderedDict[int, tuple[int, float]] = OrderedDict()
        when_down(context, self._forget)

    def score(self, request: Request, candidates: Candidates, seen: Sequence[Snapshot]) -> Scores:
        """See Scorer."""
        scores = np.zeros(len(candidates.replicas))
        self._expire(request.arrival_s)
        if request.session in self._bound:
            replica, _ = self._bound[request.session]
            scores[candidates.positions(1 << replica)] = 1.0
        return scores

    def chosen(self, request: Request, replica: int) -> None:
        """See Remembering."""
        if request.session >= 0:
            self._bound[request.session] = (replica, request.arrival_s)
            self._bound.move_to_end(request.session)

    def _expire(self, now_s: float) -> None:
        while self._bound:
            session, (_, used_s) = next(iter(self._bound.items()))
            if used_s + self._ttl_s > now_s:
                return
            del self._bound[session]

    def _forget(self, replica: int) -> None:
        for session in [session for session, (where, _) in self._bound.items() if where == replica]:
            del self._bound[session]


class LoraScorer:
    """1 where the adapter (the request's tenant) is loaded, 0.8 where one more has room, else 0.

    The router's own guess: a replica holds the `max_loras` adapters that were last asked of it.
    """

    def __init__(self, context: PolicyContext, max_loras: int) -> None:
        fleet = len(context.pool_of_replica)
        self._max_loras = max_loras
        self._loaded: list[OrderedDict[str, None]] = [OrderedDict() for _ in range(fleet)]
        self._holders: dict[str, int] = {}
        self._otherwise = np.full(fleet, ROOM_FOR_ADAPTER)
        when_down(context, self._forget)

    def score(self, request: Request, candidates: Candidates, seen: Sequence[Snapshot]) -> Scores:
        """See Scorer."""
        scores: Scores = self._otherwise[candidates.numbers]
        scores[candidates.positions(self._holders.get(request.tenant, 0))] = 1.0
        return scores

    def chosen(self, request: Request, replica: int) -> None:
        """See Remembering."""
        loaded, adapter = self._loaded[replica], request.tenant
        if adapter not in loaded:
            if len(loaded) == self._max_loras:
                self._holders[loaded.popitem(last=False)[0]] ^= 1 << replica
            self._holders[adapter] = self._holders.get(adapter, 0) | 1 << replica
            loaded[adapter] = None
            self._otherwise[replica] = ROOM_FOR_ADAPTER if len(loaded) < self._max_loras else 0.0
        loaded.move_to_end(adapter)

    def _forget(self, replica: int) -> None:
        for adapter in self._loaded[replica]:
            self._holders[adapter] ^= 1 << replica
        self._loaded[replica].clear()
        self._otherwise[replica] = ROOM_FOR_ADAPTER
