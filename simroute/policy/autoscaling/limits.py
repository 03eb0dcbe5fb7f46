"""What every autoscaler has in common: the load it sees, the limits it keeps, and how a pool gets to zero and back.

Owns `PoolLoad`, the seam `Autoscaler`, `Limits` and `ZeroGate`. May import policy.options.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from simroute.policy.options import NotNegative


@dataclass(frozen=True, slots=True)
class PoolLoad:
    """One pool as its autoscaler sees it at `now_s`.

    Replicas are `ready`, `starting` (ordered, not ready yet) or `draining`. `in_flight` is what the router has sent
    and not seen finished, `held` what waits in the gateway's queue for this pool; `running` and `waiting` are sums
    over the ready replicas and `kv_usage` their mean (0..1), all three as last scraped. `ttft_p90_s` is the 90th
    percentile of the first tokens answered lately, None if none was; `arrivals_per_s` the rate of arrivals lately.
    """

    now_s: float
    ready: int
    starting: int = 0
    draining: int = 0
    in_flight: int = 0
    held: int = 0
    running: int = 0
    waiting: int = 0
    kv_usage: float = 0.0
    ttft_p90_s: float | None = None
    arrivals_per_s: float = 0.0

    @property
    def replicas(self) -> int:
        """The pool's size as Kubernetes counts it: those that drain are already gone."""
        return self.ready + self.starting

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.in_flight or self.held or self.running or self.waiting)


class Autoscaler(Protocol):
    """Says how many replicas a pool should have: no clock and no I/O, but a history of what it has been shown."""

    def desired(self, load: PoolLoad) -> int:
        """The replicas wanted, those that are starting included; `load.now_s` never goes back."""


class Limits(BaseModel):
    """The fewest and most replicas of a pool.

    With `min_replicas: 0` the last replica goes after `cooldown_s` without any work, and the first comes back when a
    request is held. 300 s is KEDA's default (https://keda.sh/docs/latest/reference/scaledobject-spec/).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_replicas: int = Field(default=1, ge=0)
    max_replicas: int = Field(ge=1)
    cooldown_s: NotNegative = 300.0

    @field_validator("max_replicas")
    @classmethod
    def _above_the_minimum(cls, most: int, info: ValidationInfo) -> int:
        fewest = info.data.get("min_replicas", 0)
        if most < fewest:
            raise ValueError(f"must not be below min_replicas {fewest}, got {most}")
        return most

    @property
    def fewest_running(self) -> int:
        """The fewest replicas of a pool that is not at zero."""
        return max(self.min_replicas, 1)


class ZeroGate:
    """Takes a pool to zero and back, as KEDA does on top of an autoscaler that knows only one replica and more."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._last_active_s: float | None = None

    def apply(self, load: PoolLoad, wanted: int, *, active: bool = False) -> int:
        """`wanted`, or 0 or 1 where that is in question.

        `active`: something other than requests asks for replicas, such as a schedule. Idleness counts from the first
        look at the pool, unless it is at zero already.
        """
        if self._limits.min_replicas:
            return wanted
        if active or not load.idle:
            self._last_active_s = load.now_s
            return max(wanted, 1)
        if self._last_active_s is None:
            self._last_active_s = load.now_s
        if load.replicas == 0 or load.now_s - self._last_active_s >= self._limits.cooldown_s:
            return 0
        return max(wanted, 1)
