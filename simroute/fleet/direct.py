"""The router of a fleet that never changes: each request goes straight to a replica. Owns `Direct`.

The short way of `Gateway`, for the common case: nothing here is looked at that a request does not need.
May import engine, fleet's other files, policy and results.
"""

from __future__ import annotations

from simroute.engine.sequence import EngineRequest
from simroute.fleet.gateway import TOO_LONG
from simroute.fleet.site import Site
from simroute.policy.snapshot import RoutingPolicy
from simroute.results.run import Status


class Direct:
    """In front of a `Site` of replicas that are always up. See Observer for what engines tell it."""

    def __init__(self, site: Site, policy: RoutingPolicy) -> None:
        recorder = site.recorder
        self._site = site
        self._choose = policy.choose
        self._recorder = recorder
        self._snapshots = site.snapshots
        self._replica_of = recorder.replica
        self._finish_s = recorder.finish_s
        self._describe = site.arrivals.describe
        self._doors = [(slot.pool.engine, slot.snapshot, slot) for slot in site.slots]
        self.first_token = recorder.first_token_s.__setitem__
        self.gaps = recorder.gaps
        self.outstanding = 0

    def take(self, request: EngineRequest) -> None:
        """A client sends `request` now."""
        try:
            decision = self._choose(request, self._snapshots)
        except (Exception, SystemExit) as error:
            raise self._site.fault(request, error) from error
        index = request.index
        try:
            number, reason = decision
            if number < 0:
                if not isinstance(reason, str):
                    raise TypeError(reason)
                self._recorder.unanswered(index, Status.REJECTED, reason)
                return
            engine, snapshot, slot = self._doors[number]
        except (TypeError, ValueError, IndexError):
            raise self._site.fault(request, decision) from None
        self._replica_of[index] = number
        if request.input_tokens >= engine.max_model_len:  # vLLM answers HTTP 400
            self._recorder.unanswered(index, Status.REJECTED, TOO_LONG)
            return
        if request.prefix_ids and engine.enable_prefix_caching:
            self._describe(request, engine.block_size)
        self.outstanding += 1
        snapshot.in_flight += 1
        slot.replica.submit(request)  # type: ignore[union-attr]

    def finished(self, request: EngineRequest, at_s: float) -> None:
        """See Observer: the router learns it at once, the response having passed through it."""
        index = request.index
        self._finish_s[index] = at_s
        if request.cached_tokens or request.preemptions:
            self._recorder.history(request)
        self._snapshots[self._replica_of[index]].in_flight -= 1
        self.outstanding -= 1
        if not self.outstanding:
            self._site.over()
