"""Balancing by tokens instead of requests. Owns `LeastTokens`.

May import policy.context and policy.snapshot, and workload.request.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import ClassVar

from pydantic import Field, field_validator, model_validator

from simroute.policy.context import BalancerOptions, ByClass, Group, PolicyContext
from simroute.policy.snapshot import Decision, Snapshot
from simroute.workload.columns import DEFAULT_NAME
from simroute.workload.request import Request

_tokens_then_requests = attrgetter("in_flight_tokens", "in_flight")


class LeastTokensOptions(BalancerOptions):
    """How much answers count beside prompts.

    `output_weight`: how many prompt tokens one expected output token weighs. `mean_output_tokens`: a request class,
    or `default`, and the mean length of its answers; a class without either counts as 0.
    """

    output_weight: float = Field(default=0.0, ge=0.0, allow_inf_nan=False)
    mean_output_tokens: Mapping[str, float] = Field(default_factory=dict)

    @field_validator("mean_output_tokens")
    @classmethod
    def _lengths(cls, lengths: Mapping[str, float]) -> Mapping[str, float]:
        for name, tokens in lengths.items():
            if not 0.0 <= tokens < float("inf"):
                raise ValueError(f"class '{name}' must be 0 or more, got {tokens:g}")
        return lengths

    @model_validator(mode="after")
    def _lengths_known(self) -> LeastTokensOptions:
        if self.output_weight > 0.0 and not self.mean_output_tokens:
            raise ValueError("output_weight needs mean_output_tokens: give the mean answer of a class, or of default")
        return self


class LeastTokens:
    """The replica with the fewest prompt tokens in flight; ties go to the fewest requests, then the lowest number.

    With `output_weight`, the output that the requests in flight are expected to give counts too. Which of them have
    finished is taken to be the oldest, since a router counts requests per replica, not classes.
    """

    Options: ClassVar[type[LeastTokensOptions]] = LeastTokensOptions
    counts_tokens: ClassVar[bool] = True

    def __init__(self, options: LeastTokensOptions, context: PolicyContext) -> None:
        fleet = range(len(context.pool_of_replica))
        self._groups = ByClass(context, options, lambda pools: Group(context, pools))
        self._weight = options.output_weight
        self._mean = options.mean_output_tokens
        self._sent: list[deque[float]] = [deque() for _ in fleet]
        self._expected = [0.0 for _ in fleet]

    def choose(self, request: Request, snapshots: Sequence[Snapshot]) -> Decision:
        """The replica with the fewest tokens in flight."""
        group = self._groups[request.request_class]
        if not self._weight:
            return group.least(snapshots, _tokens_then_requests)
        decision = group.least(snapshots, self._load)
        if decision.replica >= 0:
            tokens = self._mean.get(request.request_class, self._mean.get(DEFAULT_NAME, 0.0))
            self._sent[decision.replica].append(tokens)
            self._expected[decision.replica] += tokens
        return decision

    def _load(self, seen: Snapshot) -> tuple[float, int]:
        """Tokens in flight, the expected ones weighted, and requests in flight."""
        replica, in_flight = seen.replica, seen.in_flight
        sent = self._sent[replica]
        while len(sent) > in_flight:
            self._expected[replica] -= sent.popleft()
        if not sent:
            self._expected[replica] = 0.0  # what rounding may have left
        return seen.in_flight_tokens + self._weight * self._expected[replica], in_flight
