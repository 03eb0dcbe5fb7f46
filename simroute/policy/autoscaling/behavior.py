"""How fast and how readily a pool follows its recommendations: Kubernetes' `behavior`, with its defaults.

See "Configurable scaling behavior" in https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/.
Owns `ScaleUp`, `ScaleDown` and `Behavior`. May import policy.autoscaling.limits.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from simroute.policy.autoscaling.limits import Limits, PoolLoad, ZeroGate


class ScalingPolicy(BaseModel):
    """How far the pool may move within `period_s`: by `value` pods, or by `value` percent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["Pods", "Percent"]
    value: int = Field(ge=1)
    period_s: float = Field(gt=0.0, le=1800.0)


class ScalingRules(BaseModel):
    """One direction: of the recommendations in the window the most careful counts, then a policy limits the step.

    `select_policy`: the policy that allows the most change (`Max`), the least (`Min`), or no change (`Disabled`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stabilization_window_s: float = Field(default=0.0, ge=0.0, le=3600.0)
    policies: tuple[ScalingPolicy, ...]
    select_policy: Literal["Max", "Min", "Disabled"] = "Max"

    @field_validator("policies")
    @classmethod
    def _any(cls, policies: tuple[ScalingPolicy, ...]) -> tuple[ScalingPolicy, ...]:
        if not policies:
            raise ValueError("needs at least one policy; to keep the pool as it is, say select_policy: Disabled")
        return policies


class ScaleUp(ScalingRules):
    """Growing: at once, by 4 pods or to the double in 15 s, whichever is more."""

    policies: tuple[ScalingPolicy, ...] = (
        ScalingPolicy(type="Percent", value=100, period_s=15.0),
        ScalingPolicy(type="Pods", value=4, period_s=15.0),
    )


class ScaleDown(ScalingRules):
    """Shrinking: to the largest recommendation of the last 300 s."""

    stabilization_window_s: float = Field(default=300.0, ge=0.0, le=3600.0)
    policies: tuple[ScalingPolicy, ...] = (ScalingPolicy(type="Percent", value=100, period_s=15.0),)


class Behavior:
    """Stabilization windows, limits to each step and limits to the size: from recommendations to replicas.

    Steps are counted as they are seen to be taken: what the pool has grown or shrunk by since the last look, at the
    time of that look. The size at the first look counts as a recommendation.
    """

    def __init__(self, up: ScaleUp, down: ScaleDown, limits: Limits) -> None:
        self._up, self._down, self._limits = up, down, limits
        self._gate = ZeroGate(limits)
        self._window_s = max(up.stabilization_window_s, down.stabilization_window_s)
        self._period_s = max(policy.period_s for policy in (*up.policies, *down.policies))
        self._recommended: deque[tuple[float, int]] = deque()
        self._steps: deque[tuple[float, int]] = deque()
        self._last: tuple[float, int] | None = None

    def settle(self, load: PoolLoad, recommended: int | None, *, active: bool = False) -> int:
        """The replicas wanted when `recommended` are (None: as many as there are).

        `active`: more than requests asks for replicas, so that the pool does not go to zero.
        """
        self._notice(load)
        current, fewest = load.replicas, self._limits.fewest_running
        if current < fewest:
            wanted = fewest
        elif current > self._limits.max_replicas:
            wanted = self._limits.max_replicas
        elif recommended is None:
            wanted = current
        else:
            wanted = self._limited(load, self._stabilized(load, recommended))
        return self._gate.apply(load, wanted, active=active)

    def _notice(self, load: PoolLoad) -> None:
        if self._last is None:
            if load.replicas:  # as Kubernetes does: what is there was asked for by somebody
                self._recommended.append((load.now_s, load.replicas))
        elif load.replicas != self._last[1]:
            self._steps.append((self._last[0], load.replicas - self._last[1]))
        self._last = (load.now_s, load.replicas)
        while self._steps and self._steps[0][0] <= load.now_s - self._period_s:
            self._steps.popleft()

    def _stabilized(self, load: PoolLoad, recommended: int) -> int:
        """The size now, moved no further than the least and the greatest recommendation of the two windows ask."""
        now_s, up_s, down_s = load.now_s, self._up.stabilization_window_s, self._down.stabilization_window_s
        while self._recommended and self._recommended[0][0] <= now_s - self._window_s:
            self._recommended.popleft()
        least = min([r for at_s, r in self._recommended if at_s > now_s - up_s], default=recommended)
        greatest = max([r for at_s, r in self._recommended if at_s > now_s - down_s], default=recommended)
        self._recommended.append((now_s, recommended))
        return min(max(load.replicas, min(least, recommended)), max(greatest, recommended))

    def _limited(self, load: PoolLoad, wanted: int) -> int:
        current = load.replicas
        if wanted > current:
            most = current + self._step(self._up, load, +1)
            return min(wanted, most, self._limits.max_replicas)
        if wanted < current:
            fewest = current - self._step(self._down, load, -1)
            return max(wanted, fewest, self._limits.fewest_running)
        return current

    def _step(self, rules: ScalingRules, load: PoolLoad, sign: int) -> int:
        """How many replicas further the policies of a direction (+1 up, -1 down) allow now, 0 at least.

        A policy counts from the size at the start of its period; a part of a pod is one pod.
        """
        if rules.select_policy == "Disabled":
            return 0
        steps = []
        for policy in rules.policies:
            taken = sum(step for at_s, step in self._steps if at_s > load.now_s - policy.period_s)
            start = load.replicas - taken
            allowed = policy.value if policy.type == "Pods" else -(-start * policy.value // 100)
            steps.append(allowed - sign * taken)
        return max(0, max(steps) if rules.select_policy == "Max" else min(steps))
