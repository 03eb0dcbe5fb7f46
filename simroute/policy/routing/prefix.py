"""Routing to where a prompt's prefix is cached: by the router's own memory, or by the engines' KV events.

May import policy.context, policy.snapshot, workload.request and, of this folder, candidates and prefix_index.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from operator import attrgetter
from typing import ClassVar

from pydantic import Field

from simroute.policy.context import BalancerOptions, ByClass, PolicyContext
from simroute.policy.routing.candidates import Candidates
from simroute.policy.routing.prefix_index import PrefixIndex
from simroute.policy.snapshot import Decision, Snapshot
from simroute.workload.request import Request

_in_flight = attrgetter("in_flight")


class PrefixOptions(BalancerOptions):
    """When a cached prefix decides, and when load does.

    `match_threshold`: the share of the prompt (0..1) that must be exceeded for the cache to decide. Load decides when
    the busiest replica has over `balance_abs_threshold` more in flight than the least busy *and* over
    `balance_rel_threshold` times as many. Defaults are those of SGLang's gateway.
    """

    match_threshold: float = Field(default=0.3, ge=0.0, le=1.0)
    balance_abs_threshold: int = Field(default=64, ge=0)
    balance_rel_threshold: float = Field(default=1.5, ge=1.0, allow_inf_nan=False)


class PrefixAffinityOptions(PrefixOptions):
    """How long, and how much, the router believes a replica to remember.

    `ttl_s`: seconds after its last use (None: for ever). `capacity_tokens`: of each replica, the least recently used
    go first (None: its KV cache, or 500,000 tokens where that is unknown).
    """

    ttl_s: float | None = Field(default=600.0, gt=0.0)
    capacity_tokens: int | None = Field(default=None, ge=1)


class _PrefixPolicy(ABC):
    """The replica with the most of the prompt cached, unless that is too little or the load too uneven.

    Of replicas that have as much, the one with the fewest in flight; otherwise the fewest in flight of all. Ties go
    to the lowest number.
    """

    def __init__(self, options: PrefixOptions, context: PolicyContext) -> None:
        self._threshold = options.match_threshold
        self._abs = options.balance_abs_threshold
        self._rel = options.balance_rel_threshold
        self._candidates = ByClass(context, options, partial(Candidates, context))

    def choose(self, request: Request, snapshots: Sequence[Snapshot]) -> Decision:
        """Where most of the prompt is cached, or the replica with the fewest in flight."""
        candidates = self._candidates[request.request_class]
        if not candidates.replicas:
            return candidates.choices[0]
        seen = candidates.seen(snapshots)
        loads = list(map(_in_flight, seen))
        least, most = min(loads), max(loads)
        holders: Sequence[int] = ()
        if most - least <= self._abs or most <= least * self._rel:
            cached_tokens, holders = self._best(request, candidates, seen)
            if cached_tokens <= self._threshold * request.input_tokens:
                holders = ()
        position = min(holders, key=loads.__getitem__) if holders else loads.index(least)
        decision = candidates.choices[position]
        self._chosen(request, decision.replica)
        return decision

    @abstractmethod
    def _best(self, request: Request, candidates: Candidates, seen: Sequence[Snapshot]) -> tuple[int, Sequence[int]]:
        """The most prompt tokens cached on one candidate, and the positions that have them, ascending."""

    def _chosen(self, request: Request, replica: int) -> None:  # noqa: B027 - only one of the two keeps a memory
        """`request` goes to `replica`."""


class PrefixAffinity(_PrefixPolicy):
    """As `_PrefixPolicy`, by what this router sent where: the approximate way, which needs nothing of the engines.

    It forgets a replica that goes down, and blocks that are old or that the replica has no room for (`PrefixIndex`).
    """

    Options: ClassVar[type[PrefixAffinityOptions]] = PrefixAffinityOptions

    def __init__(self, options: PrefixAffinityOptions, context: PolicyContext) -> None:
        super().__init__(options, context)
        self._block_tokens = context.prefix_block_tokens
        self._index = PrefixIndex(context, options.ttl_s, options.capacity_tokens)

    def _best(self, request: Request, candidates: Candidates, seen: Sequence[Snapshot]) -> tuple[int, Sequence[int]]:
        for blocks, mask in self._index.matches(request):
            if mask & candidates.mask:
                return blocks * self._block_tokens, candidates.positions(mask).tolist()
        return 0, ()

    def _chosen(self, request: Request, replica: int) -> None:
        self._index.record(request, replica)


class PrefixPrecise(_PrefixPolicy):
    """As `_PrefixPolicy`, by the KV events that the engines publish: exact, but for events still on their way."""

    Options: ClassVar[type[PrefixOptions]] = PrefixOptions
    reads_kv_events: ClassVar[bool] = True

    def _best(self, request: Request, candidates: Candidates, seen: Sequence[Snapshot]) -> tuple[int, Sequence[int]]:
        hits = [snapshot.prefix_hit_tokens(request) for snapshot in seen]
        most = max(hits)
        return most, [position for position, hit in enumerate(hits) if hit == most]
