"""The gateway's queue: who waits for a free seat, in which order they leave, and who has waited too long.

Owns `GatewayQueue` and its options. May import errors, policy.admission.rules and policy.options, and
workload.request.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from simroute.errors import SimulationError
from simroute.policy.admission.rules import FleetLoad
from simroute.policy.options import Positive
from simroute.workload.request import Request

GATEWAY_FULL = "the gateway's queue is full"
"""Reason of a refusal (constants, so that a run can count each as one code)."""
TENANT_FULL = "the tenant has too many requests in the gateway's queue"
"""Reason of a refusal."""
WAITED_TOO_LONG = "waited too long in the gateway's queue"
"""Reason with which requests that `expire` returns have ended."""

_SLACK = 64
"""How many outdated entries of a heap are put up with before it is cleared of them."""


class GatewayQueueOptions(BaseModel):
    """When requests are held, how many, for how long, and in which order they leave.

    `order`: `fifo`; `priority` (lower `priority` first, then first come); `fair` between tenants; `priority_fair`
    (lower `priority` first, fair between the tenants of equal priority). `weights` gives a tenant's share under the
    fair orders, 1 unless named. The fleet has room while fewer than `in_flight_per_seat` requests a seat are in
    flight.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    order: Literal["fifo", "priority", "fair", "priority_fair"] = "fifo"
    in_flight_per_seat: Positive = 1.0
    max_held: int | None = Field(default=None, ge=1)
    max_held_per_tenant: int | None = Field(default=None, ge=1)
    max_wait_s: Positive | None = None
    weights: Mapping[str, Positive] = Field(default_factory=dict)


class _Flow:
    """One tenant's requests in a band: first come first served, and how far its service has got in virtual time."""

    __slots__ = ("finish", "requests", "tag", "weight")

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.finish = 0.0
        self.requests: OrderedDict[Request, None] = OrderedDict()
        self.tag = -1  # which of the heap's entries is this flow's own; none while it has no request


class _Band:
    """Start-time fair queueing between flows (Goyal, Vin and Cheng, SIGCOMM 1996), by prompt tokens over weight.

    A flow's next request starts, in virtual time, where the flow's last one finished, or now if the flow had none;
    the least start is served first, and is the virtual time from then on. A request is tagged when it becomes the
    first of its flow, which gives the paper's tags and charges nobody for a request that is removed. With a single
    flow this is first come first served.
    """

    __slots__ = ("_flows", "_heap", "_tags", "_virtual", "held")

    def __init__(self) -> None:
        self._flows: dict[str, _Flow] = {}
        self._heap: list[tuple[float, int, _Flow]] = []
        self._tags = count()
        self._virtual = 0.0
        self.held = 0

    def push(self, request: Request, name: str, weight: float, *, last: bool = True) -> None:
        """Put `request` at the end of the flow `name`, or at its head."""
        flow = self._flows.get(name)
        if flow is None:
            flow = self._flows[name] = _Flow(weight)
        flow.requests[request] = None
        if not last:
            flow.requests.move_to_end(request, last=False)
        self.held += 1
        if len(flow.requests) == 1:
            self._start(flow, max(self._virtual, flow.finish))

    def first(self) -> Request:
        """The request that starts first; of equals, the one whose flow has waited longest for its turn."""
        heap = self._heap
        while heap[0][2].tag != heap[0][1]:
            heappop(heap)
        return next(iter(heap[0][2].requests))

    def pop(self) -> Request:
        """Take out the request that starts first."""
        self.first()
        start, _, flow = heappop(self._heap)
        request, _ = flow.requests.popitem(last=False)
        self.held -= 1
        self._virtual = start
        flow.finish = start + max(request.input_tokens, 1) / flow.weight
        if flow.requests:
            self._start(flow, flow.finish)
        else:
            flow.tag = -1
        return request

    def remove(self, request: Request, name: str) -> None:
        """Take `request` out of the flow `name`; the one behind it inherits its start."""
        flow = self._flows[name]
        del flow.requests[request]
        self.held -= 1
        if not flow.requests:
            flow.tag = -1

    def _start(self, flow: _Flow, start: float) -> None:
        if len(self._heap) > 2 * len(self._flows) + _SLACK:
            self._heap = [entry for entry in self._heap if entry[2].tag == entry[1]]
            heapify(self._heap)
        flow.tag = next(self._tags)
        heappush(self._heap, (start, flow.tag, flow))


class _Place(NamedTuple):
    """Where a held request is."""

    expiry_s: float
    priority: int
    flow: str


class GatewayQueue:
    """Holds requests while the fleet is full. Every method takes O(log n) for n requests held.

    Fairness is between what leaves the queue: send every request through it, those that find room at once too.
    Only prompt tokens are charged, since a gateway does not know how long an answer will be. A band of priority in
    which nobody waits starts anew, with no memory of who was served before.
    """

    Options: ClassVar[type[GatewayQueueOptions]] = GatewayQueueOptions

    def __init__(self, options: GatewayQueueOptions) -> None:
        self._options = options
        self._by_priority = options.order in ("priority", "priority_fair")
        self._by_tenant = options.order in ("fair", "priority_fair")
        self._wait_s = inf if options.max_wait_s is None else options.max_wait_s
        self._held: OrderedDict[Request, _Place] = OrderedDict()  # in the order of arrival, and so of expiry
        self._aside: OrderedDict[Request, None] = OrderedDict()  # of those, whom nobody who is up may serve
        self._bands: dict[int, _Band] = {}
        self._priorities: list[int] = []
        self._listed: set[int] = set()
        self._of_tenant: dict[str, int] = {}
        self._late: list[tuple[float, Request]] = []

    def __len__(self) -> int:
        return len(self._held)

    @property
    def next_expiry_s(self) -> float | None:
        """When `expire` next has something to return, None if that is never."""
        if self._late:
            return self._late[0][0]
        first = next(iter(self._held.values()), None)
        return None if first is None or first.expiry_s == inf else first.expiry_s

    def has_room(self, load: FleetLoad) -> bool:
        """Whether the fleet takes another request now."""
        return load.in_flight < self._options.in_flight_per_seat * load.seats

    def push(self, request: Request, now_s: float) -> str | None:
        """Hold `request`: None, or why it cannot be. Raises SimulationError for one that is held already."""
        if request in self._held:
            raise SimulationError(f"request {request.index}: already held by the gateway; it can be pushed once")
        self._set_aside_late(now_s)
        options, of_tenant = self._options, self._of_tenant.get(request.tenant, 0)
        if options.max_held is not None and len(self._held) >= options.max_held:
            return GATEWAY_FULL
        if options.max_held_per_tenant is not None and of_tenant >= options.max_held_per_tenant:
            return TENANT_FULL
        priority = request.priority if self._by_priority else 0
        flow = request.tenant if self._by_tenant else ""
        self._held[request] = _Place(now_s + self._wait_s, priority, flow)
        self._of_tenant[request.tenant] = of_tenant + 1
        self._band(priority).push(request, flow, options.weights.get(flow, 1.0))
        return None

    def peek(self, now_s: float) -> Request | None:
        """The next request in order that has not waited too long and is not set aside, None when there is none."""
        self._set_aside_late(now_s)
        return self._bands[self._priorities[0]].first() if self._ready() else None

    def pop(self, now_s: float) -> Request | None:
        """Take out the request that `peek` shows."""
        self._set_aside_late(now_s)
        if not self._ready():
            return None
        priority = self._priorities[0]
        band = self._bands[priority]
        request = band.pop()
        if not band.held:
            del self._bands[priority]
        del self._held[request]
        self._forget_tenant(request.tenant)
        return request

    def set_aside(self, request: Request) -> None:
        """Nobody who is up may serve `request`: it stays held, but others pass it until `recall`, and nobody pays."""
        self._take_from_band(request, self._held[request])
        self._aside[request] = None

    def recall(self) -> None:
        """Others are up: whatever was set aside is in its turn again, before what came later."""
        while self._aside:
            request, _ = self._aside.popitem()
            place = self._held[request]
            weight = self._options.weights.get(place.flow, 1.0)
            self._band(place.priority).push(request, place.flow, weight, last=False)

    def remove(self, request: Request) -> bool:
        """Take `request` out (its client gave up); False when it is not held."""
        place = self._held.pop(request, None)
        if place is None:
            return False
        if request in self._aside:
            del self._aside[request]
        else:
            self._take_from_band(request, place)
        self._forget_tenant(request.tenant)
        return True

    def expire(self, now_s: float) -> list[Request]:
        """Take out the requests that have waited `max_wait_s` at `now_s`, the oldest first (`WAITED_TOO_LONG`)."""
        self._set_aside_late(now_s)
        late = [request for _, request in self._late]
        self._late.clear()
        return late

    def _set_aside_late(self, now_s: float) -> None:
        while self._held:
            request, place = next(iter(self._held.items()))
            if place.expiry_s > now_s:
                return
            self.remove(request)
            self._late.append((place.expiry_s, request))

    def _ready(self) -> bool:
        """Whether a request is held that is not set aside; the first of `_priorities` is then one with requests."""
        if not self._bands:
            return False
        while self._priorities[0] not in self._bands:
            self._listed.discard(heappop(self._priorities))
        return True

    def _take_from_band(self, request: Request, place: _Place) -> None:
        band = self._bands[place.priority]
        band.remove(request, place.flow)
        if not band.held:
            del self._bands[place.priority]

    def _band(self, priority: int) -> _Band:
        band = self._bands.get(priority)
        if band is None:
            band = self._bands[priority] = _Band()
            if priority not in self._listed:
                self._listed.add(priority)
                heappush(self._priorities, priority)
        return band

    def _forget_tenant(self, tenant: str) -> None:
        self._of_tenant[tenant] -= 1
        if not self._of_tenant[tenant]:
            del self._of_tenant[tenant]
