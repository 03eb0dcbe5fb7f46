"""The reactive autoscaler, as Kubernetes' HorizontalPodAutoscaler works it out.

Algorithm and defaults are those of https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/
("Algorithm details"). May import policy.options, policy.autoscaling.behavior and policy.autoscaling.limits.
"""

from __future__ import annotations

from math import ceil
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from simroute.policy.autoscaling.behavior import Behavior, ScaleDown, ScaleUp
from simroute.policy.autoscaling.limits import Limits, PoolLoad
from simroute.policy.options import Positive

_ROUNDING = 1e-9
"""How far a quotient of floats may be off: 3.0000000001 replicas are 3, and 1.1 is within 10% of 1."""


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MetricTargets(_Options):
    """What each metric should be: the largest number of replicas that any one asks for counts.

    Requests a replica: `concurrency` (in flight), `held` (in the gateway's queue), `running`, `waiting` (in vLLM).
    Of the pool: `kv_usage` (mean, 0..1) and `ttft_p90_s` (seconds).
    """

    concurrency: Positive | None = None
    held: Positive | None = None
    running: Positive | None = None
    waiting: Positive | None = None
    kv_usage: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    ttft_p90_s: Positive | None = None

    @model_validator(mode="after")
    def _named(self) -> MetricTargets:
        if not any(target is not None for _, target in self):
            raise ValueError(f"names no metric: give at least one of {', '.join(type(self).model_fields)} a target")
        return self


class HpaRules(_Options):
    """`targets` by metric; no step while a metric is within `tolerance` of its target; `scale_up`, `scale_down`."""

    targets: MetricTargets
    tolerance: float = Field(default=0.1, ge=0.0, lt=1.0)
    scale_up: ScaleUp = ScaleUp()
    scale_down: ScaleDown = ScaleDown()


class HpaOptions(HpaRules, Limits):
    """Targets, behaviour and limits."""


def whole_replicas(needed: float) -> int:
    """The least whole number of replicas that is not below `needed`, rounding errors aside."""
    return ceil(needed - _ROUNDING)


class Recommender:
    """How many replicas the metrics ask for, before any behaviour or limit: ceil(replicas x metric / target)."""

    def __init__(self, rules: HpaRules) -> None:
        self._targets = [(metric, target) for metric, target in rules.targets if target is not None]
        self._tolerance = rules.tolerance

    def recommend(self, load: PoolLoad) -> int | None:
        """The most that any metric asks for; None when an unknown metric forbids to shrink, or all are unknown."""
        proposals = [self._proposal(metric, target, load) for metric, target in self._targets]
        known = [replicas for replicas in proposals if replicas is not None]
        most = max(known, default=None)
        unsure = len(known) < len(proposals)
        return None if most is None or (unsure and most < load.replicas) else most

    def _proposal(self, metric: str, target: float, load: PoolLoad) -> int | None:
        if metric == "concurrency":
            return self._of_the_gateway(load.in_flight / target, load)
        if metric == "held":
            return self._of_the_gateway(load.held / target, load)
        if not load.ready:
            return None
        if metric == "ttft_p90_s":
            return self._of_latency(target, load)
        total = load.kv_usage * load.ready if metric == "kv_usage" else getattr(load, metric)
        return self._of_replicas(total / target, load)

    def _steady(self, ratio: float) -> bool:
        return abs(ratio - 1.0) <= self._tolerance + _ROUNDING

    def _of_the_gateway(self, needed: float, load: PoolLoad) -> int:
        """A total that the gateway counts (an external metric with an average value), over every replica ordered."""
        if load.replicas and self._steady(needed / load.replicas):
            return load.replicas
        return whole_replicas(needed)

    def _of_replicas(self, needed: float, load: PoolLoad) -> int:
        """A total over what the ready replicas report (a pods metric).

        Replicas that start report nothing: they count as idle when the pool grows and as loaded to the target when it
        shrinks, and where that turns the direction nothing is done.
        """
        grows = needed >= load.ready
        if needed < load.ready:
            needed += load.starting
        if self._steady(needed / load.replicas) or (needed > load.replicas) != grows:
            return load.replicas
        return whole_replicas(needed)

    def _of_latency(self, target_s: float, load: PoolLoad) -> int | None:
        """One figure for the pool (an external metric with a value), which ready replicas alone account for.

        A pool with nothing to do has no latency, which counts as 0, as KEDA reads an empty answer.
        """
        if load.ttft_p90_s is None:
            return 0 if load.idle else None
        ratio = load.ttft_p90_s / target_s
        return load.replicas if self._steady(ratio) else whole_replicas(ratio * load.ready)


class Hpa:
    """Replicas in proportion to load over target, with Kubernetes' tolerance, windows and policies."""

    Options: ClassVar[type[HpaOptions]] = HpaOptions

    def __init__(self, options: HpaOptions) -> None:
        self._recommender = Recommender(options)
        self._behavior = Behavior(options.scale_up, options.scale_down, options)

    def desired(self, load: PoolLoad) -> int:
        """What the metrics ask for, as far as behaviour and limits let the pool follow."""
        return self._behavior.settle(load, self._recommender.recommend(load))
