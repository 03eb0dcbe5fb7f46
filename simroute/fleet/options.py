"""How a fleet lives: what its router, clients, autoscalers and failures are like. Owns `FleetOptions` and its parts.

Rules that decide (admission, autoscaling) come ready-made: they have a state, so each replay needs fresh ones.
May import fleet.scrape, policy and errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from simroute.fleet.scrape import Signal, Signals, same_signal
from simroute.policy.admission import AdmissionRule
from simroute.policy.autoscaling import Autoscaler
from simroute.policy.gateway_queue import GatewayQueue
from simroute.policy.snapshot import RoutingPolicy

OnLoss = Literal["fail", "retry", "resume"]


@dataclass(frozen=True, slots=True)
class RouterOptions:
    """The router's own time and what it does when a replica dies under a request.

    Each request waits for the router to be free (`throughput_rps`; None: at once), then `latency_s`.
    KV events reach its index after `kv_event_delay_s`.
    `on_loss`: the request `fail`s, is sent again from its start (`retry`) or from the tokens that had come (`resume`),
    at most `most_resends` times.
    """

    latency_s: float = 0.0
    throughput_rps: float | None = None
    kv_event_delay_s: float = 0.0
    on_loss: OnLoss = "retry"
    most_resends: int = 3


@dataclass(frozen=True, slots=True)
class Retries:
    """What a client does when it gets no answer: it asks again `most` times after exponential backoff.

    Retry k (from 0) waits backoff_s * factor^k, at most `longest_s`, times a factor drawn from 1 ± `jitter`.
    `on` are the endings that it does not accept.
    """

    most: int = 0
    backoff_s: float = 1.0
    factor: float = 2.0
    longest_s: float = 60.0
    jitter: float = 0.0
    on: frozenset[Literal["rejected", "failed", "timeout"]] = frozenset({"rejected", "failed", "timeout"})


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How clients behave.

    `timeout_s` by request class, or `default`: how long they wait for a whole answer. A share `cancel_share` of them
    loses interest after a time drawn from an exponential distribution of mean `cancel_after_s`.
    `users`: so many at a time send the trace's requests in order, each as soon as its last one has ended and it has
    thought; the trace's times do not count then. `wait_in_session`: a session's next turn waits for its last answer
    and for the time to think (after a turn of a class in `tools`: of a tool call). Times to think are drawn from
    exponential distributions of mean `think_s` and `tool_s`.
    """

    timeout_s: Mapping[str, float] = field(default_factory=dict)
    cancel_share: float = 0.0
    cancel_after_s: float = 0.0
    retries: Retries = Retries()
    users: int | None = None
    wait_in_session: bool = False
    think_s: float = 0.0
    tools: frozenset[str] = frozenset()
    tool_s: float = 0.0

    @property
    def closed(self) -> bool:
        """Whether arrivals depend on answers."""
        return self.users is not None or self.wait_in_session


@dataclass(frozen=True, slots=True)
class Scaling:
    """One pool's autoscaler, asked every `interval_s`; a replica that drains longer than `drain_s` is stopped."""

    autoscaler: Autoscaler
    interval_s: float = 15.0
    drain_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Crashes:
    """Engines of `pool` (None: of all) crash after times drawn from an exponential distribution of mean `mtbf_s`."""

    mtbf_s: float
    pool: str | None = None


@dataclass(frozen=True, slots=True)
class Outage:
    """At `at_s` machines are lost for `duration_s`: all in `zone`, or in `pool`, or `replicas` of them."""

    at_s: float
    duration_s: float
    zone: str | None = None
    pool: str | None = None
    replicas: int | None = None


@dataclass(frozen=True, slots=True)
class Spot:
    """Machines of `pool` are taken back after times drawn from an exponential distribution of mean `mean_life_s`,
    `notice_s` after a notice on which the replica drains. A new one takes its place after `gap_s`.
    """

    pool: str
    mean_life_s: float
    notice_s: float = 120.0
    gap_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Straggler:
    """From `at_s` on, for `duration_s`, replica `ordinal` of `pool` takes `factor` times as long for every step."""

    at_s: float
    duration_s: float
    pool: str
    ordinal: int
    factor: float


@dataclass(frozen=True, slots=True)
class RouterRestart:
    """At `at_s` the router dies with all its connections and what it knew, and is back after `down_s`."""

    at_s: float
    down_s: float


@dataclass(frozen=True, slots=True)
class Failures:
    """Everything that goes wrong."""

    crashes: Sequence[Crashes] = ()
    outages: Sequence[Outage] = ()
    spot: Sequence[Spot] = ()
    stragglers: Sequence[Straggler] = ()
    router: Sequence[RouterRestart] = ()

    def __bool__(self) -> bool:
        return any((self.crashes, self.outages, self.spot, self.stragglers, self.router))


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """How a fleet lives; by default nothing ever changes and clients wait for ever.

    `remake` makes the routing policy anew: a router that restarts has forgotten everything. `admission` rules are
    asked in order, the first refusal counts. A `queue` holds what comes while the ready replicas are full.
    """

    signals: Signals = field(default_factory=lambda: same_signal(Signal()))
    router: RouterOptions = RouterOptions()
    remake: Callable[[], RoutingPolicy] | None = None
    admission: Sequence[AdmissionRule] = ()
    queue: GatewayQueue | None = None
    clients: ClientOptions = ClientOptions()
    scaling: Mapping[str, Scaling] = field(default_factory=dict)
    failures: Failures = Failures()

    @property
    def plain(self) -> bool:
        """Whether requests go straight to replicas that are always there."""
        return (
            self.router == RouterOptions()
            and not self.admission
            and self.queue is None
            and self.clients == ClientOptions()
            and not self.scaling
            and not self.failures
        )
