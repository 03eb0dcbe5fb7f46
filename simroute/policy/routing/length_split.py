"""Pools by length of prompt: short ones never queue behind long ones. May import errors, policy and workload."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from simroute.errors import UsageError, unknown
from simroute.policy.context import NO_REPLICA, PolicyContext
from simroute.policy.pressure import PressureOptions, pressures
from simroute.policy.snapshot import Decision, Snapshot
from simroute.workload.request import Request


class LengthBand(BaseModel):
    """Prompts of at most `up_to_tokens` tokens go to `pool`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    up_to_tokens: int = Field(ge=1)
    pool: str


class LengthSplitOptions(PressureOptions):
    """`splits` by rising length; longer prompts go to `rest` (the first pool unless named).

    `spill`: while its own pool is under pressure a prompt goes to the pool of the next longer prompts that has room.
    """

    splits: tuple[LengthBand, ...] = ()
    rest: str | None = None
    spill: bool = False

    @model_validator(mode="after")
    def _rising(self) -> LengthSplitOptions:
        bounds = [band.up_to_tokens for band in self.splits]
        if bounds != sorted(set(bounds)):
            raise ValueError(f"splits must be of rising up_to_tokens, got {', '.join(map(str, bounds))}")
        return self


class LengthSplit:
    """Each length of prompt has its pool; inside it, the replica with the fewest requests in flight.

    Spilling goes to longer prompts' pools only: a pool for short ones may not take a long one at all. When none of
    those has room the prompt stays in its own pool. Raises UsageError for an unknown pool.
    """

    Options: ClassVar[type[LengthSplitOptions]] = LengthSplitOptions

    def __init__(self, options: LengthSplitOptions, context: PolicyContext) -> None:
        names = [variant.pool for variant in context.variants]
        first = names[context.pool_of_replica[0]]
        wanted = (*(band.pool for band in options.splits), options.rest or first)
        for name in wanted:
            if name not in names:
                raise UsageError(f"length_split: {unknown('pool', name, names)}")
        pools = pressures(options, context, "length_split")
        self._bounds = [band.up_to_tokens for band in options.splits]
        self._pools = [pools[names.index(name)] for name in wanted]
        self._spill = options.spill
        self._decisions = tuple(Decision(r) for r in range(len(context.pool_of_replica)))

    def choose(self, request: Request, snapshots: Sequence[Snapshot]) -> Decision:
        """The least busy replica of the pool for this length of prompt."""
        first = bisect_left(self._bounds, request.input_tokens)
        stay = -1
        for pool in self._pools[first:] if self._spill else (self._pools[first],):
            if not pool.replicas:
                continue
            room = pool.has_room(snapshots)
            if room or not self._spill:
                return self._decisions[pool.least]
            if stay < 0:
                stay = pool.least
        return self._decisions[stay] if stay >= 0 else Decision(-1, NO_REPLICA)
