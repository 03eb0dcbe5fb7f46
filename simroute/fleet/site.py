"""What all parts of one simulation share: clock, places, what the router sees and asks, what is recorded. Owns `Site`.

May import engine, fleet's other files (none that is given a `Site`), policy, errors and workload.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from simroute.engine.clock import Clock
from simroute.engine.sequence import EngineRequest
from simroute.errors import SimrouteError
from simroute.fleet.arrivals import Arrivals
from simroute.fleet.lifecycle import Boot, Lifecycle, Lost
from simroute.fleet.options import FleetOptions
from simroute.fleet.pool import Pool
from simroute.fleet.recorder import Recorder
from simroute.fleet.scrape import ScrapedReplica, Signal, same_signal, snapshot_of
from simroute.fleet.slot import Slot
from simroute.policy.context import Membership
from simroute.policy.guard import policy_fault
from simroute.workload.trace import Trace

Ask = Callable[[EngineRequest, Sequence[ScrapedReplica]], Any]


class Site:
    """One simulation's clock, traffic and places. `over` is called when a request has ended: it may be the last.

    `boot` and `lost` are as in `Lifecycle`. `snapshots` are what policies see: a tuple, for nobody may change it.
    """

    def __init__(
        self,
        trace: Trace,
        pools: Sequence[Pool],
        policy_name: str,
        seed: int,
        members: Membership,
        options: FleetOptions,
        *,
        exact: bool,
        boot: Boot,
        lost: Lost,
        over: Callable[[], None],
    ) -> None:
        self.env = Clock()
        self.trace = trace
        self.seed = seed
        self.members = members
        self.options = options
        self.over = over
        self.recorder = Recorder(trace)
        self.arrivals = Arrivals(trace, only_shared=options.plain and not exact)  # (a retry shares all with the try)
        self.slots = _places(pools, options)
        self.snapshots = tuple(slot.snapshot for slot in self.slots)
        self.life = Lifecycle(self.env, self.slots, members, boot, lost)
        self._policy_name = policy_name

    def decide(self, ask: Ask, request: EngineRequest, method: str = "choose") -> tuple[int, str]:
        """What `ask` (the policy's `method`) answers for `request`.

        Raises SimulationError, naming policy and request, when it fails or sends the request where nobody is.
        """
        try:
            answer = ask(request, self.snapshots)
        except (Exception, SystemExit) as error:
            raise self.fault(request, error, method) from error
        try:
            number, reason = answer
            ready = isinstance(reason, str) if number < 0 else number < len(self.slots) and self.members[number]
        except (TypeError, ValueError):
            ready = False
        if not ready:
            raise self.fault(request, answer, method)
        return number, reason

    def fault(self, request: EngineRequest, got: object, method: str = "choose") -> SimrouteError:
        """The error for a policy that raised `got`, or answered it; its own words if it chose them."""
        if isinstance(got, SimrouteError):
            return got
        ready = (slot.number for slot in self.slots if self.members[slot.number])
        return policy_fault(self._policy_name, request, got, ready, method=method)


def _places(pools: Sequence[Pool], options: FleetOptions) -> list[Slot]:
    slots: list[Slot] = []
    for pool in pools:
        signals = options.signals if pool.external is None else same_signal(Signal())
        for ordinal in range(pool.places):
            snapshot = snapshot_of(len(slots), pool.variant, signals)
            slots.append(Slot(len(slots), ordinal, pool, snapshot))
    return slots
