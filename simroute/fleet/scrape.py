"""What the router knows of each replica, and when. Owns `ScrapedReplica`, `Signal`, `snapshot_of` and `scrape`.

May import engine, policy, workload and errors.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import simpy

from simroute.engine.clock import Clock
from simroute.errors import UsageError
from simroute.policy.snapshot import VariantInfo
from simroute.workload.request import Request


@dataclass(frozen=True, slots=True)
class Signal:
    """How a metric comes to the router: read every `interval_s` (0: it always knows), each time up to `jitter_s` late,
    known `delay_s` after that, and lost with probability `loss`.

    Raises UsageError for a delay, jitter or loss of what is always known.
    """

    interval_s: float = 0.0
    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0

    def __post_init__(self) -> None:
        if self.interval_s <= 0 and (self.delay_s or self.jitter_s or self.loss):
            raise UsageError("a signal that is read all the time (interval 0) has no delay, jitter or loss")

    @property
    def live(self) -> bool:
        """Whether the router always knows it."""
        return self.interval_s <= 0


METRICS = ("running", "waiting", "kv_cache_usage")
Signals = Mapping[str, Signal]
"""A signal for each of METRICS."""


def same_signal(signal: Signal) -> Signals:
    """All metrics come alike."""
    return dict.fromkeys(METRICS, signal)


class Metrics(Protocol):
    """What a replica's /metrics page says."""

    @property
    def num_requests_running(self) -> int:
        """`vllm:num_requests_running`."""

    @property
    def num_requests_waiting(self) -> int:
        """`vllm:num_requests_waiting`."""

    @property
    def kv_cache_usage(self) -> float:
        """`vllm:kv_cache_usage_perc`."""


class _Nobody:
    """The metrics of a place where no replica is."""

    num_requests_running = num_requests_waiting = 0
    kv_cache_usage = 0.0


NOBODY: Metrics = _Nobody()


class ScrapedReplica:
    """The `Snapshot` of one replica: the router's counts always exact, the metrics as they came in last.

    The counts of tokens are kept only for a policy that asks for them (`counts_tokens`), `hits` only for one that
    reads KV events. What a policy reads of a thousand replicas for each request are plain attributes.
    """

    __slots__ = (
        "_era",
        "_replica",
        "hits",
        "in_flight",
        "in_flight_tokens",
        "kv_cache_usage",
        "num_requests_running",
        "num_requests_waiting",
        "queued_tokens",
        "replica",
        "variant",
    )

    def __init__(self, number: int, variant: VariantInfo) -> None:
        self.replica = number
        self.variant = variant
        self.in_flight = 0
        self.in_flight_tokens = 0
        self.queued_tokens = 0
        self.hits: Callable[[Request], int] | None = None
        self._replica = NOBODY
        self._era = 0
        self.forget()

    def attach(self, replica: Metrics | None) -> None:
        """Another replica is in this place from now on, or none: nothing is known of it yet."""
        self._replica = replica or NOBODY
        self.forget()

    def forget(self) -> None:
        """Nothing that was read so far is known any more, nor will what is still on its way be."""
        self._era += 1
        self.num_requests_running = self.num_requests_waiting = 0
        self.kv_cache_usage = 0.0

    def read(self, names: Sequence[str]) -> Callable[[], None]:
        """Read these metrics now; calling what is returned makes them known."""
        replica, era = self._replica, self._era
        running, waiting, kv = replica.num_requests_running, replica.num_requests_waiting, replica.kv_cache_usage

        def known() -> None:
            if self._era != era:  # news of a replica that is gone says nothing
                return
            if "running" in names:
                self.num_requests_running = running
            if "waiting" in names:
                self.num_requests_waiting = waiting
            if "kv_cache_usage" in names:
                self.kv_cache_usage = kv

        return known

    def prefix_hit_tokens(self, request: Request) -> int:
        """See Snapshot."""
        return self.hits(request) if self.hits is not None else 0


class LiveReplica(ScrapedReplica):
    """The `Snapshot` of a replica of which some metrics are always known."""

    __slots__ = ("_live",)

    def __init__(self, number: int, variant: VariantInfo, signals: Signals) -> None:
        self._live = tuple(signals[name].live for name in METRICS)
        super().__init__(number, variant)

    @property
    def num_requests_running(self) -> int:
        """See Snapshot."""
        return self._replica.num_requests_running if self._live[0] else _RUNNING.__get__(self)

    @num_requests_running.setter
    def num_requests_running(self, known: int) -> None:
        _RUNNING.__set__(self, known)

    @property
    def num_requests_waiting(self) -> int:
        """See Snapshot."""
        return self._replica.num_requests_waiting if self._live[1] else _WAITING.__get__(self)

    @num_requests_waiting.setter
    def num_requests_waiting(self, known: int) -> None:
        _WAITING.__set__(self, known)

    @property
    def kv_cache_usage(self) -> float:
        """See Snapshot."""
        return self._replica.kv_cache_usage if self._live[2] else _KV.__get__(self)

    @kv_cache_usage.setter
    def kv_cache_usage(self, known: float) -> None:
        _KV.__set__(self, known)


_RUNNING: Any = vars(ScrapedReplica)["num_requests_running"]
_WAITING: Any = vars(ScrapedReplica)["num_requests_waiting"]
_KV: Any = vars(ScrapedReplica)["kv_cache_usage"]
"""Where a scraped replica keeps what it knows."""


def snapshot_of(number: int, variant: VariantInfo, signals: Signals) -> ScrapedReplica:
    """The snapshot of a replica whose metrics come as `signals` say."""
    if any(signals[name].live for name in METRICS):
        return LiveReplica(number, variant, signals)
    return ScrapedReplica(number, variant)


def scrape(env: Clock, snapshots: Sequence[ScrapedReplica], signals: Signals, draws: np.random.Generator) -> None:
    """Keep `snapshots` up to date as `signals` say: metrics that come alike are read together."""
    alike: dict[Signal, list[str]] = {}
    for name in METRICS:
        if not signals[name].live:
            alike.setdefault(signals[name], []).append(name)
    for signal, names in alike.items():
        env.process(_scrapes(env, snapshots, signal, names, draws))


def _scrapes(
    env: Clock, snapshots: Sequence[ScrapedReplica], signal: Signal, names: Sequence[str], draws: np.random.Generator
) -> Generator[simpy.Event, None, None]:
    while True:
        for snapshot in snapshots:
            if signal.loss and draws.random() < signal.loss:
                continue
            late_s = signal.jitter_s * draws.random() if signal.jitter_s else 0.0
            if late_s or signal.delay_s:
                env.process(_scraped(env, snapshot, names, late_s, signal.delay_s))
            else:
                snapshot.read(names)()
        yield env.timeout(signal.interval_s)


def _scraped(
    env: Clock, snapshot: ScrapedReplica, names: Sequence[str], late_s: float, delay_s: float
) -> Generator[simpy.Event, None, None]:
    yield env.timeout(late_s)
    known = snapshot.read(names)
    yield env.timeout(delay_s)
    known()
