"""The policies that predict latency: shortest expected wait, within the targets, the cheapest within the targets.

May import policy.context, policy.routing.predict and policy.snapshot, and workload.request.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from operator import attrgetter
from typing import ClassVar, Literal, NamedTuple

from simroute.policy.context import NO_REPLICA, NO_VARIANT, BalancerOptions, ByClass, FloorRule, Group, PolicyContext
from simroute.policy.routing.predict import LATE, Forecasts, PredictionOptions, Rank, TargetOptions
from simroute.policy.snapshot import Decision, Snapshot
from simroute.workload.request import Request

_in_flight_tokens = attrgetter("in_flight_tokens")
_MEETS = 0
_MISSES = 2
_WORST: Rank = (3, 0.0, 0.0)


class ExpectedWaitOptions(PredictionOptions, BalancerOptions):
    """`objective`: what is to be shortest, the time to the first token (`ttft`) or to the end of the answer (`e2e`)."""

    objective: Literal["ttft", "e2e"] = "ttft"


class _Candidates(NamedTuple):
    group: Group
    predictable: bool


class JoinShortestExpectedWait:
    """The replica on which the request is predicted to have its first token, or its answer, soonest.

    Where step times of some variant are not known: the replica with the fewest prompt tokens in flight.
    """

    Options: ClassVar[type[ExpectedWaitOptions]] = ExpectedWaitOptions
    counts_tokens: ClassVar[bool] = True

    def __init__(self, options: ExpectedWaitOptions, context: PolicyContext) -> None:
        self._forecasts = Forecasts(options, context)
        self._wait = attrgetter("ttft_s" if options.objective == "ttft" else "e2e_s")
        self._candidates = ByClass(context, options, partial(self._among, context))

    def _among(self, context: PolicyContext, pools: tuple[int, ...]) -> _Candidates:
        return _Candidates(Group(context, pools), all(context.variants[p].speed is not None for p in pools))

    def choose(self, request: Request, snapshots: Sequence[Snapshot]) -> Decision:
        """The replica with the shortest predicted wait; ties go to the lowest number."""
        group, predictable = self._candidates[request.request_class]
        if not predictable:
            return group.least(snapshots, _in_flight_tokens)
        predicted, wait = self._forecasts.of(request), self._wait
        return group.least(snapshots, lambda seen: wait(predicted(seen)))


class LatencyTargetOptions(TargetOptions, BalancerOptions):
    """Which of the replicas predicted to meet the targets serves, and what happens when none is.

    `prefer`: the one with the least headroom (`packed`) or with the most (`spread`). `when_none_meets`: the `best`,
    which is predicted to miss by least, or `reject`.
    """

    prefer: Literal["packed", "spread"] = "packed"
    when_none_meets: Literal["best", "reject"] = "best"


class LatencyTarget:
    """A replica predicted to meet the class's targets: packed, the one that is nearest to missing them.

    Headroom is what the prediction leaves of the tightest target, as a share of it. Next come replicas of unknown
    speed, the fewest tokens in flight first, then the smallest miss. A class without targets gets its answer soonest.
    """

    Options: ClassVar[type[LatencyTargetOptions]] = LatencyTargetOptions
    counts_tokens: ClassVar[bool] = True

    def __init__(self, options: LatencyTargetOptions, context: PolicyContext) -> None:
        self._slack = options.slack
        self._packed = options.prefer == "packed"
        self._reject = options.when_none_meets == "reject"
        self._forecasts = Forecasts(options, context)
        self._groups = ByClass(context, options, partial(Group, context))

    def choose(self, request: Request, snapshots: Sequence[Snapshot]) -> Decision:
        """The replica that the predictions favour; ties go to the lowest number."""
        rank = self._forecasts.ranking(request, self._slack, packed=self._packed)
        chosen = self._groups[request.request_class].least(snapshots, rank)
        if self._reject and chosen.replica >= 0 and rank(snapshots[chosen.replica])[0] == _MISSES:
            return Decision(-1, LATE)
        return chosen


class CostAwareOptions(TargetOptions, FloorRule):
    """`slack`, what answers are expected to be, and how the quality floor is applied."""


class _PriceLadder(NamedTuple):
    pools: tuple[Group, ...]
    """The cheapest first."""
    nothing: Decision


class CostAware:
    """The cheapest pool (USD per million tokens) that meets the class's floor and is predicted to meet its targets.

    Inside a pool the replica with the most headroom. When no pool is predicted to meet the targets: one of unknown
    speed, or else the replica that is predicted to miss by least.
    """

    Options: ClassVar[type[CostAwareOptions]] = CostAwareOptions
    counts_tokens: ClassVar[bool] = True

    def __init__(self, options: CostAwareOptions, context: PolicyContext) -> None:
        self._slack = options.slack
        self._forecasts = Forecasts(options, context)
        self._ladders = ByClass(context, options, partial(self._ladder, context))

    def _ladder(self, context: PolicyContext, pools: tuple[int, ...]) -> _PriceLadder:
        """These pools by price; the sort is stable, so equal prices keep the order of the scenario."""
        staffed = [p for p in pools if context.replicas_of((p,))]
        by_price = sorted(staffed, key=lambda p: context.variants[p].usd_per_1m_tokens)
        nothing = Decision(-1, NO_REPLICA if pools else NO_VARIANT)
        return _PriceLadder(tuple(Group(context, (p,)) for p in by_price), nothing)

    def choose(self, request: Request, snapshots: Sequence[Snapshot]) -> Decision:
        """The replica with the most headroom in the cheapest pool that is fast enough."""
        ladder = self._ladders[request.request_class]
        rank = self._forecasts.ranking(request, self._slack)
        best, best_rank = ladder.nothing, _WORST
        for group in ladder.pools:
            chosen = group.least(snapshots, rank)
            standing = rank(snapshots[chosen.replica])
            if standing[0] == _MEETS:
                return chosen
            if standing < best_rank:
                best, best_rank = chosen, standing
        return best
