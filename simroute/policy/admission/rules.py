"""The rules of admission, and what they see: `FleetLoad` and the seam `AdmissionRule`.

May import errors, policy.context, policy.options and policy.pressure, and workload.request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from simroute.errors import UsageError
from simroute.policy.context import Targets
from simroute.policy.options import Positive
from simroute.policy.pressure import Band
from simroute.workload.request import Request

QUEUE_FULL = "too many requests in the fleet"
"""Reason of a refusal by `queue_limit`, which vLLM answers with status 503 (reasons are constants: one code each)."""
TOO_LATE = "the predicted wait exceeds the deadline"
"""Reason of a refusal by `deadline`."""
TIER_SHED = "the tier is shed at this load"
"""Reason of a refusal by `tier_shed`."""


@dataclass(slots=True)
class FleetLoad:
    """What the gateway knows of the whole fleet; the fleet keeps it up to date.

    `seats` is the sum of `max_num_seqs` over the ready replicas, `in_flight` what the router has sent and not seen
    finished, `held` what waits in the gateway's queue, `waiting` vLLM's own queues as last scraped and
    `completions_per_s` the rate of requests finished lately (0: none was).
    """

    ready_replicas: int = 0
    seats: int = 0
    in_flight: int = 0
    held: int = 0
    waiting: int = 0
    completions_per_s: float = 0.0


class AdmissionRule(Protocol):
    """Lets requests into the fleet or refuses them; no clock and no I/O."""

    def admit(self, request: Request, load: FleetLoad, now_s: float) -> str | None:
        """None to let `request` in at `now_s` (which never goes back), or why it is refused."""


class RuleOptions(BaseModel):
    """Options of a rule: frozen, and nothing but what they name."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class AlwaysOptions(RuleOptions):
    """`always` has none."""


class Always:
    """Lets every request in."""

    Options: ClassVar[type[AlwaysOptions]] = AlwaysOptions

    def __init__(self, options: AlwaysOptions, targets: Mapping[str, Targets]) -> None:
        pass

    def admit(self, request: Request, load: FleetLoad, now_s: float) -> str | None:
        """None, whatever the load."""
        return None


class QueueLimitOptions(RuleOptions):
    """Which requests are counted, and how many there may be: for each ready replica, in all, or both."""

    signal: Literal["in_flight", "waiting", "held"] = "in_flight"
    per_replica: int | None = Field(default=None, ge=1)
    total: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _limits(self) -> QueueLimitOptions:
        if self.per_replica is None and self.total is None:
            raise ValueError("needs per_replica or total, got neither")
        return self


class QueueLimit:
    """Refuses when the requests counted reach the limit, as vLLM does with `--max-num-queued-reqs` (status 503).

    vLLM counts `in_flight`, waiting and running, in each server (https://github.com/vllm-project/vllm/pull/49445);
    here the gateway counts the fleet. While nothing is ready, `per_replica` allows as many as for one replica.
    """

    Options: ClassVar[type[QueueLimitOptions]] = QueueLimitOptions

    def __init__(self, options: QueueLimitOptions, targets: Mapping[str, Targets]) -> None:
        self._count = attrgetter(options.signal)
        self._per_replica = options.per_replica
        self._total = options.total

    def admit(self, request: Request, load: FleetLoad, now_s: float) -> str | None:
        """Refuses when as many are there already."""
        count = self._count(load)
        if self._total is not None and count >= self._total:
            return QUEUE_FULL
        if self._per_replica is not None and count >= self._per_replica * max(load.ready_replicas, 1):
            return QUEUE_FULL
        return None


class DeadlineOptions(RuleOptions):
    """`deadline_s` by request class (or `default`); classes it leaves out have the scenario's latency `target`.

    A request is refused when its predicted wait exceeds its deadline times `factor`.
    """

    deadline_s: Mapping[str, Positive] = Field(default_factory=dict)
    target: Literal["ttft_s", "e2e_s"] = "ttft_s"
    factor: Positive = 1.0


class Deadline:
    """Refuses what would wait too long: the queue ahead over the rate at which the fleet finishes requests.

    By Little's law that is the wait of the last in the queue. Before anything has finished there is no rate, and
    everything is let in. Raises UsageError when no class has a deadline.
    """

    Options: ClassVar[type[DeadlineOptions]] = DeadlineOptions

    def __init__(self, options: DeadlineOptions, targets: Mapping[str, Targets]) -> None:
        targets_s: dict[str, float | None] = {name: getattr(each, options.target) for name, each in targets.items()}
        deadlines_s = targets_s | dict(options.deadline_s)
        if all(limit_s is None for limit_s in deadlines_s.values()):
            raise UsageError(
                f"deadline: no class has a deadline: give deadline_s, or give a class a target for {options.target}"
            )
        self._deadlines_s = {name: s and s * options.factor for name, s in deadlines_s.items()}
        self._default_s = self._deadlines_s.get("default")

    def admit(self, request: Request, load: FleetLoad, now_s: float) -> str | None:
        """Refuses when the predicted wait is longer than the class allows."""
        longest_s = self._deadlines_s.get(request.request_class, self._default_s)
        if longest_s is None or load.completions_per_s <= 0.0:
            return None
        return TOO_LATE if load.held + load.waiting > longest_s * load.completions_per_s else None


class TierShedOptions(RuleOptions):
    """`tiers`: the occupancy at which a tier is shed (`enter`) and below which it is let in again (`leave`)."""

    tiers: Mapping[str, Band]

    @field_validator("tiers")
    @classmethod
    def _named(cls, tiers: Mapping[str, Band]) -> Mapping[str, Band]:
        if not tiers:
            raise ValueError("names no tier: give each tier that may be shed its enter and leave")
        return tiers


class TierShed:
    """Sheds tiers one after another as the fleet fills, and lets them in again, with hysteresis.

    Occupancy is what is in flight or held, over the seats; every request moves the hysteresis of every tier. A tier
    that is not named is never shed, and none is while no replica is ready.
    """

    Options: ClassVar[type[TierShedOptions]] = TierShedOptions

    def __init__(self, options: TierShedOptions, targets: Mapping[str, Targets]) -> None:
        self._bands = dict(options.tiers)
        self._shed = dict.fromkeys(options.tiers, False)

    def admit(self, request: Request, load: FleetLoad, now_s: float) -> str | None:
        """Refuses the tiers that are shed at this load."""
        if load.seats <= 0:
            return None
        occupancy = (load.in_flight + load.held) / load.seats
        for tier, band in self._bands.items():
            self._shed[tier] = occupancy >= (band.leave if self._shed[tier] else band.enter)
        return TIER_SHED if self._shed.get(request.tier) else None
