"""A small model first, a larger one when its answer is not good enough (FrugalGPT, Chen et al., arXiv:2305.05176).

May import errors, policy.context, policy.routing.draws and policy.snapshot, and workload.request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from simroute.errors import UsageError, unknown
from simroute.policy.context import NO_REPLICA, Group, PolicyContext
from simroute.policy.routing.draws import RequestDraws
from simroute.policy.snapshot import Decision, Snapshot
from simroute.workload.request import Request

DEFAULT = "default"
_in_flight = attrgetter("in_flight")


class CascadeOptions(BaseModel):
    """`chain`: pools in the order in which they are asked (left out: all of them, the cheapest first).

    `accept_rate`: share of answers that the confidence model lets pass, by request class (`default` for the rest),
    as measured on the pools before the last. Left out: the quality of the variant that answered, which is what a
    judge who is never wrong would let pass; 1 where that is not known either.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    chain: tuple[str, ...] = ()
    accept_rate: Mapping[str, Annotated[float, Field(ge=0.0, le=1.0)]] = Field(default_factory=dict)


class Cascade:
    """Asks the first pool of the chain, and the next whenever the answer is not accepted; the last is always accepted.

    Inside a pool the replica with the fewest requests in flight. A pool of which nothing is up is passed over; an
    answer is passed on when nothing further down the chain is up. Whether a pool's answer to a request is accepted is
    drawn, the same on every attempt and under every policy of one seed. Raises UsageError for an unknown pool or one
    that is named twice.
    """

    Options: ClassVar[type[CascadeOptions]] = CascadeOptions

    def __init__(self, options: CascadeOptions, context: PolicyContext) -> None:
        self._draws = RequestDraws(context.rng, "cascade")
        self._accept_rate = options.accept_rate
        self._context = context
        self._chain = _chain(options, context)
        self._step_of_pool = {pool: step for step, pool in enumerate(self._chain)}
        self._regroup()
        context.members.listen(self._regroup)

    def _regroup(self) -> None:
        context = self._context
        self._groups = [Group(context, (pool,)) if context.replicas_of((pool,)) else None for pool in self._chain]

    def choose(self, request: Request, snapshots: Sequence[Snapshot]) -> Decision:
        """The least busy replica of the first pool of the chain that is up."""
        return self._from(0, snapshots) or Decision(-1, NO_REPLICA)

    def review(self, request: Request, replica: int, snapshots: Sequence[Snapshot]) -> Decision | None:
        """None when the answer is accepted or nothing better is up, else the least busy replica of the next pool."""
        step = self._step_of_pool[self._context.pool_of_replica[replica]]
        if step == len(self._chain) - 1 or self.accepts(request, step):
            return None
        return self._from(step + 1, snapshots)

    def accepts(self, request: Request, step: int) -> bool:
        """Whether the answer of the chain's pool number `step` is good enough."""
        return self._draws(request.index, step) < self._rate(request.request_class, step)

    def _rate(self, request_class: str, step: int) -> float:
        rate = self._accept_rate.get(request_class, self._accept_rate.get(DEFAULT))
        if rate is not None:
            return rate
        quality = self._context.variants[self._chain[step]].quality.get(request_class)
        return 1.0 if quality is None else quality[0]

    def _from(self, step: int, snapshots: Sequence[Snapshot]) -> Decision | None:
        for group in self._groups[step:]:
            if group is not None:
                return group.least(snapshots, _in_flight)
        return None


def _chain(options: CascadeOptions, context: PolicyContext) -> tuple[int, ...]:
    """Pool numbers in the order of the chain."""
    variants = context.variants
    names = {variants[p].pool: p for p in sorted(set(context.pool_of_replica))}
    for place, name in enumerate(options.chain):
        if name not in names:
            raise UsageError(f"cascade: chain: {unknown('pool', name, names)}")
        if name in options.chain[:place]:
            raise UsageError(f"cascade: chain: pool '{name}' is named twice; name each once")
    if options.chain:
        return tuple(names[name] for name in options.chain)
    return tuple(sorted(names.values(), key=lambda pool: variants[pool].usd_per_1m_tokens))
