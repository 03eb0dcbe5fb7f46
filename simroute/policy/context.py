"""What routing policies share: the fleet they are built for, the quality floor, and replicas grouped by who may serve.

May import errors and policy.snapshot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from simroute.errors import UsageError
from simroute.policy.snapshot import Decision, Snapshot, VariantInfo

NO_VARIANT = "no variant meets the quality floor"
"""Reason of a rejection (a constant, so that a run can count it as one code)."""
NO_REPLICA = "no replica is ready"
"""Reason of a rejection by a fleet that could serve the request if anything of it were up."""

_BLOCK = 4096
"""Random numbers drawn at a time: one scalar draw of numpy costs as much as 40 numbers of a block."""

T = TypeVar("T")


class Membership:
    """Which replicas take requests now. The router keeps it; what a policy derived from it is told to be forgotten."""

    def __init__(self, ready: Iterable[bool]) -> None:
        self._ready = list(ready)
        self._listeners: list[Callable[[], None]] = []

    def __getitem__(self, replica: int) -> bool:
        return self._ready[replica]

    def listen(self, changed: Callable[[], None]) -> None:
        """Call `changed` after every change."""
        self._listeners.append(changed)

    def forget(self) -> None:
        """Tell nobody any more who has listened so far: the router begins anew, with another policy."""
        self._listeners.clear()

    def set(self, replica: int, ready: bool) -> None:
        """`replica` takes requests from now on, or no longer does."""
        if self._ready[replica] != ready:
            self._ready[replica] = ready
            for changed in self._listeners:
                changed()


@dataclass(frozen=True, slots=True)
class Targets:
    """Latency targets of a request class, seconds; None asks nothing."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None


@dataclass(frozen=True, slots=True)
class PolicyContext:
    """The fleet a policy is built for.

    `variants` holds one entry a pool and `pool_of_replica[r]` the pool of replica r, whether it is up or not;
    `members` says which are (left out: all). `quality_floor` maps a request class to the least quality (0..1) it
    accepts; a class that is not named accepts any. `targets` maps a class, or `default`, to its latency targets.
    `prefix_block_tokens` is how many tokens each of a request's `prefix_ids` stands for (0: no prefixes are known).
    `rng` belongs to this policy alone.
    Raises UsageError when there is no replica, a pool number is out of range or a floor is not in 0..1.
    """

    variants: Sequence[VariantInfo]
    pool_of_replica: Sequence[int]
    rng: np.random.Generator
    quality_floor: Mapping[str, float] = field(default_factory=dict)
    targets: Mapping[str, Targets] = field(default_factory=dict)
    prefix_block_tokens: int = 0
    members: Membership = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.members is None:
            object.__setattr__(self, "members", Membership(True for _ in self.pool_of_replica))
        if not self.pool_of_replica:
            raise UsageError("a routing policy needs at least one replica, got none: give a pool replicas")
        for replica, pool in enumerate(self.pool_of_replica):
            if not 0 <= pool < len(self.variants):
                raise UsageError(f"replica {replica}: its pool must be in 0..{len(self.variants) - 1}, got {pool}")
        for name, floor in self.quality_floor.items():
            if not 0.0 <= floor <= 1.0:
                raise UsageError(f"quality floor of class '{name}': must be in 0..1, got {floor}")

    def replicas_of(self, pools: Sequence[int]) -> tuple[int, ...]:
        """The replicas of these pools that take requests now, in ascending order."""
        members = self.members
        return tuple(r for r, pool in enumerate(self.pool_of_replica) if pool in pools and members[r])

    def targets_of(self, request_class: str) -> Targets:
        """The latency targets of a class: its own, else those of `default`, else none."""
        return self.targets.get(request_class) or self.targets.get("default") or Targets()


class FloorRule(BaseModel):
    """How a quality floor is applied.

    `quality_bound`: which figure must reach the floor, the `mean` or the `low` end of its interval.
    `when_no_variant`: what happens to a class whose floor nothing reaches: the `best` variants there are, or `reject`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    quality_bound: Literal["mean", "low"] = "mean"
    when_no_variant: Literal["best", "reject"] = "best"

    def pools_for(self, context: PolicyContext, request_class: str) -> tuple[int, ...]:
        """The pools with replicas that may serve `request_class`, ascending; empty when it must be rejected.

        A variant without a quality figure for the class counts as 0.
        """
        pools = tuple(sorted(set(context.pool_of_replica)))
        floor = context.quality_floor.get(request_class)
        if floor is None:
            return pools
        which = 0 if self.quality_bound == "mean" else 1
        quality = {p: context.variants[p].quality.get(request_class, (0.0, 0.0, 0.0))[which] for p in pools}
        admissible = tuple(p for p in pools if quality[p] >= floor)
        if admissible or self.when_no_variant == "reject":
            return admissible
        best = max(quality.values())
        return tuple(p for p in pools if quality[p] == best)


class BalancerOptions(FloorRule):
    """Options of the policies that spread load: over all replicas, or only those that meet the class's floor."""

    respect_quality_floor: bool = False

    def pools_for(self, context: PolicyContext, request_class: str) -> tuple[int, ...]:
        """As `FloorRule.pools_for`, or every pool unless `respect_quality_floor` is set."""
        if self.respect_quality_floor:
            return super().pools_for(context, request_class)
        return tuple(sorted(set(context.pool_of_replica)))


class ByClass(dict[str, T], Generic[T]):
    """A policy's state by request class, built when a class is first seen and again when the replicas change.

    Classes that may use the same pools share one state: a rotation, for example, runs on across them.
    """

    def __init__(self, context: PolicyContext, rule: FloorRule, build: Callable[[tuple[int, ...]], T]) -> None:
        super().__init__()
        self._context = context
        self._rule = rule
        self._build = build
        self._by_pools: dict[tuple[int, ...], T] = {}
        context.members.listen(self.forget)

    def forget(self) -> None:
        """Build everything anew when it is next asked for: other replicas are up."""
        self.clear()
        self._by_pools.clear()

    def __missing__(self, request_class: str) -> T:
        pools = self._rule.pools_for(self._context, request_class)
        if pools not in self._by_pools:
            self._by_pools[pools] = self._build(pools)
        state = self[request_class] = self._by_pools[pools]
        return state


class Group:
    """Replicas among which a policy may choose: those of `pools` that take requests now.

    `choices` holds the ready-made decision for each of them, ascending, and is never empty: with no replica it holds
    the rejection alone. Ready-made because building a tuple takes as long as choosing.
    """

    __slots__ = ("_decisions", "_replicas", "_whole_fleet", "choices")

    def __init__(self, context: PolicyContext, pools: Sequence[int]) -> None:
        fleet = range(len(context.pool_of_replica))
        self._decisions = tuple(Decision(r) for r in fleet)
        self._replicas = context.replicas_of(pools)
        self._whole_fleet = len(self._replicas) == len(fleet)
        rejection = Decision(-1, NO_REPLICA if pools else NO_VARIANT)
        self.choices = tuple(self._decisions[r] for r in self._replicas) or (rejection,)

    def least(self, snapshots: Sequence[Snapshot], load: Callable[[Snapshot], Any]) -> Decision:
        """The replica with the least `load` (any ordered value); equal loads go to the lowest replica number."""
        if self._whole_fleet:
            return self._decisions[min(snapshots, key=load).replica]
        if not self._replicas:
            return self.choices[0]
        return self._decisions[min(map(snapshots.__getitem__, self._replicas), key=load).replica]


def uniforms(rng: np.random.Generator) -> Iterator[float]:
    """Endless uniform numbers in [0, 1), drawn from `rng` in blocks."""
    while True:
        yield from rng.random(_BLOCK).tolist()
