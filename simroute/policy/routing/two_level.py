"""Two-level routing: one policy chooses the variant, another the replica inside it.

May import policy.context and policy.snapshot, and workload.request; the registry where it is used, for it knows
this module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from simroute.policy.context import Membership, PolicyContext
from simroute.policy.snapshot import Decision, Reviewer, RoutingPolicy, Snapshot
from simroute.workload.request import Request


class PolicyChoice(BaseModel):
    """A policy inside another: its `name`, and its `options` if it has any; a bare name will do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    options: Mapping[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class TwoLevelOptions(BaseModel):
    """`variant`: the policy whose choice decides the pool. `replica`: the one that chooses inside it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: PolicyChoice = PolicyChoice(name="quant_aware")
    replica: PolicyChoice = PolicyChoice(name="least_requests")


class TwoLevel:
    """The pool of the replica that the `variant` policy chooses; in it, the replica that the `replica` policy chooses.

    Every pool has a `replica` policy of its own, with its own state and random numbers, which sees the other pools as
    down. Quality floors are the `variant` policy's business alone. An answer is reviewed by the `variant` policy, if
    that reviews answers (`cascade`). Raises UsageError for an unknown policy and for wrong options.
    """

    Options: ClassVar[type[TwoLevelOptions]] = TwoLevelOptions
    counts_tokens: bool = True
    """Of an instance: whether one of the two policies reads the token counts."""
    reads_kv_events: bool = True
    """Of an instance: whether one of the two policies reads `prefix_hit_tokens`."""

    def __init__(self, options: TwoLevelOptions, context: PolicyContext) -> None:
        from simroute.policy.routing import make_policy

        self._pool_of_replica = context.pool_of_replica
        self._variant = make_policy(options.variant.name, options.variant.options, context)
        pools = sorted(set(context.pool_of_replica))
        streams = context.rng.spawn(len(pools))
        self._inside: dict[int, RoutingPolicy] = {
            pool: make_policy(options.replica.name, options.replica.options, _inside(context, pool, rng))
            for pool, rng in zip(pools, streams, strict=True)
        }
        levels = (self._variant, *self._inside.values())
        self.counts_tokens = any(getattr(policy, "counts_tokens", False) for policy in levels)
        self.reads_kv_events = any(getattr(policy, "reads_kv_events", False) for policy in levels)
        if isinstance(self._variant, Reviewer):
            # Only then: whoever has `review` is shown whole answers, and clients wait for them.
            self._reviewer = self._variant
            self.review = self._review

    def choose(self, request: Request, snapshots: Sequence[Snapshot]) -> Decision:
        """The replica chosen inside the chosen pool, or the rejection by either policy."""
        return self._settled(self._variant.choose(request, snapshots), request, snapshots)

    def _review(self, request: Request, replica: int, snapshots: Sequence[Snapshot]) -> Decision | None:
        decision = self._reviewer.review(request, replica, snapshots)
        return None if decision is None else self._settled(decision, request, snapshots)

    def _settled(self, decision: Decision, request: Request, snapshots: Sequence[Snapshot]) -> Decision:
        """`decision` with its replica chosen anew inside its pool."""
        if decision.replica < 0:
            return decision
        return self._inside[self._pool_of_replica[decision.replica]].choose(request, snapshots)


def _inside(context: PolicyContext, pool: int, rng: np.random.Generator) -> PolicyContext:
    """The context of one pool: replicas keep their numbers, and those of other pools are never up.

    So the same snapshots serve both levels, and decisions need no translation.
    """
    replicas = [r for r, p in enumerate(context.pool_of_replica) if p == pool]
    members = Membership(p == pool and context.members[r] for r, p in enumerate(context.pool_of_replica))

    def mirror() -> None:
        for replica in replicas:
            members.set(replica, context.members[replica])

    context.members.listen(mirror)
    return replace(context, rng=rng, quality_floor={}, members=members)
