"""Consistent hashing with bounded loads: a session keeps its replica, and no replica gets too many.

May import policy.context, policy.snapshot, workload.request and, of this folder, candidates, hashing and prefix_index.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from operator import attrgetter
from typing import ClassVar, Literal

from pydantic import Field

from simroute.policy.context import BalancerOptions, ByClass, PolicyContext
from simroute.policy.routing.candidates import Candidates
from simroute.policy.routing.hashing import Points, stable_hash
from simroute.policy.routing.prefix_index import whole_blocks
from simroute.policy.snapshot import Decision, Snapshot
from simroute.workload.request import Request

_in_flight = attrgetter("in_flight")
_ROUNDING = 1e-9
"""Taken off before rounding up: 2.2 x 25 / 11 is 5 in decimals, but a little more in floating point."""


class SessionAffinityOptions(BalancerOptions):
    """What is hashed, and how far above the mean a replica's load may go.

    `key`: the request's `session`, its `tenant`, or the `prefix` of its prompt (its first `prefix_blocks` blocks).
    `load_factor`: no replica gets more than ceil(load_factor x requests in flight / replicas); None sets no bound.
    `virtual_nodes`: points of each replica on the ring; more of them spread keys more evenly.
    """

    key: Literal["session", "tenant", "prefix"] = "session"
    load_factor: float | None = Field(default=1.25, ge=1.0, allow_inf_nan=False)
    virtual_nodes: int = Field(default=128, ge=1, le=4096)
    prefix_blocks: int = Field(default=1, ge=1)


class _Ring(Candidates):
    """The candidates on a ring of hashes."""

    __slots__ = ("decisions", "ring")

    def __init__(self, context: PolicyContext, points: Points, pools: Sequence[int]) -> None:
        super().__init__(context, pools)
        self.ring = points.ring(self.replicas)
        self.decisions = {decision.replica: decision for decision in self.choices}


class SessionAffinity:
    """The replica that owns the request's key on a ring of hashes, or the next one on it that has room.

    Room is fewer in flight than ceil(load_factor x (m + 1) / n), m being all requests in flight on n replicas
    (Mirrokni, Thorup, Zadimoghaddam 2016, arXiv:1608.01350): some replica always has it. A request without a key
    goes to the replica with the fewest in flight. When a replica leaves, its keys alone move; when one comes, it
    takes about 1/n of all keys.
    """

    Options: ClassVar[type[SessionAffinityOptions]] = SessionAffinityOptions

    def __init__(self, options: SessionAffinityOptions, context: PolicyContext) -> None:
        points = Points(len(context.pool_of_replica), options.virtual_nodes)
        self._options = options
        self._block_tokens = context.prefix_block_tokens
        self._rings = ByClass(context, options, lambda pools: _Ring(context, points, pools))

    def choose(self, request: Request, snapshots: Sequence[Snapshot]) -> Decision:
        """The owner of the request's key, or the first after it that has room."""
        ring = self._rings[request.request_class]
        if not ring.replicas:
            return ring.choices[0]
        seen = ring.seen(snapshots)
        key = self._key(request)
        if key is None:
            return ring.decisions[min(seen, key=_in_flight).replica]
        owners = ring.ring.walk(stable_hash(key))
        factor = self._options.load_factor
        if factor is None:
            return ring.decisions[next(owners)]
        room = ceil(factor * (sum(map(_in_flight, seen)) + 1) / len(seen) - _ROUNDING)
        return ring.decisions[next(owner for owner in owners if snapshots[owner].in_flight < room)]

    def _key(self, request: Request) -> str | None:
        """What is hashed; None for a request that has none of it."""
        options = self._options
        if options.key == "session":
            return f"session {request.session}" if request.session >= 0 else None
        if options.key == "tenant":
            return f"tenant {request.tenant}"
        # Ids are chained, so the last of them stands for all before it.
        ids = whole_blocks(request, self._block_tokens)[0][: options.prefix_blocks]
        return f"prefix {ids[-1]}" if len(ids) else None
