"""The cells of a what-if: replays of variations of a scenario at several rates, each done once.

Owns `Variation`, `At` (which replay) and `Cells` (what they gave). Imports errors, scenario and what is below it, and
of the planner cache, executor and targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from simroute import interrupt
from simroute.errors import SimulationError
from simroute.planner.execution.cache import Cache, key_of, replay_document
from simroute.planner.execution.executor import Executor, Failure, Progress
from simroute.planner.targets import Constraint, constraints_of, kept_all
from simroute.results.compare import Summary
from simroute.results.stability import Stability
from simroute.scenario.build import Built
from simroute.scenario.models import PolicySpec
from simroute.scenario.run import replayed

TODAY = 1.0
"""Times today's traffic."""


class At(NamedTuple):
    """One replay: which variation, at how many times its traffic, with one replica more of each of these pools."""

    variation: int
    rate: float
    bought: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Variation:
    """A scenario as changed, the policy that it is replayed under, and what it promises."""

    name: str
    built: Built
    policy: PolicySpec
    constraints: tuple[Constraint, ...]

    @classmethod
    def of(cls, name: str, built: Built, policy: PolicySpec) -> Variation:
        """The variation of what was built, with the promises of its own classes and floors."""
        return cls(name, built, policy, constraints_of(built))


@dataclass(frozen=True, slots=True)
class Replay:
    """Replays a cell of these variations; travels to the workers."""

    variations: Sequence[Variation]
    exact: bool

    def __call__(self, at: At) -> dict[str, Any]:
        """The cell's summary."""
        variation = self.variations[at.variation]
        built = grown(variation.built, at.bought)
        built = replace(built, trace=built.trace.scaled(rate=at.rate))
        fleet, summary = replayed(
            built, variation.policy, exact=self.exact, progress=lambda done: None, stop=lambda: False
        )
        if fleet.interrupted:
            raise SimulationError(f"{variation.name} at {at.rate:g} times the traffic: cut off")
        return summary


def grown(built: Built, bought: Sequence[str]) -> Built:
    """`built` with one replica more for each time that a pool is named."""
    if not bought:
        return built
    pools = tuple(
        replace(pool, replicas=pool.replicas + bought.count(pool.name), places=pool.places + bought.count(pool.name))
        for pool in built.pools
    )
    specs = tuple(
        spec.model_copy(update={"replicas": spec.replicas + bought.count(spec.name)}) for spec in built.scenario.pools
    )
    return replace(built, pools=pools, scenario=built.scenario.model_copy(update={"pools": specs}))


@dataclass(slots=True)
class Cells:
    """What is known of the cells of `variations`; asks for the others through `executor` and keeps them in `cache`.

    `steps` are the rates of the matrix: all variations are asked at each, up to the first that overloads them.
    `failed` says of a cell why there is nothing. `interrupted` says that Ctrl-C came: nothing more is asked.
    """

    variations: list[Variation]
    executor: Executor
    cache: Cache
    exact: bool
    steps: Sequence[float] = ()
    known: dict[At, Summary] = field(default_factory=dict)
    failed: dict[At, str] = field(default_factory=dict)
    simulated: int = 0
    reused: int = 0
    interrupted: bool = False
    _documents: dict[int, dict[str, Any] | None] = field(default_factory=dict)

    def ask(self, wanted: Sequence[At], progress: Progress | None = None) -> None:
        """See that all of these cells are known, or have failed."""
        missing = [at for at in dict.fromkeys(wanted) if at not in self.known and at not in self.failed]
        keys = {at: self._key(at) for at in missing}
        for at, key in keys.items():
            kept = self.cache.get(key) if key else None
            if kept is not None:
                self.known[at] = kept
                self.reused += 1
        missing = [at for at in missing if at not in self.known]
        if self.interrupted or not missing:
            return
        done = 0
        for number, found in self.executor.map(Replay(self.variations, self.exact), missing, progress=progress):
            self._take(missing[number], keys[missing[number]], found)
            done += 1
        self.interrupted = done < len(missing) or interrupt.heard()

    def _take(self, at: At, key: str | None, found: dict[str, Any] | Failure) -> None:
        if isinstance(found, Failure):
            self.failed[at] = found.message
            return
        self.known[at] = found
        self.simulated += 1
        if key:
            self.cache.put(key, found)

    def _key(self, at: At) -> str | None:
        """What the cell is kept under; None where it may not be kept."""
        if at.variation not in self._documents:
            variation = self.variations[at.variation]
            self._documents[at.variation] = replay_document(variation.built, variation.policy, exact=self.exact)
        document = self._documents[at.variation]
        return None if document is None else key_of({"replay": document, "rate": at.rate, "bought": sorted(at.bought)})

    # -- what they say ------------------------------------------------------------------------------------------------

    def rates(self, variation: int) -> list[float]:
        """Rates at which this variation is known, ascending, up to the first step that overloads it, and today's.

        Which steps beyond it are known depends on how many are replayed at once, and is of no interest.
        """
        known = sorted(at.rate for at in self.known if at.variation == variation and not at.bought)
        over = self.overloaded_at(variation)
        return [rate for rate in known if over is None or rate <= over or rate == TODAY]

    def overloaded_at(self, variation: int) -> float | None:
        """The lowest step at which this variation is known to be OVERLOADED."""
        cells = (At(variation, step) for step in self.steps)
        lost = (at.rate for at in cells if self.known.get(at, {}).get("stability") == Stability.OVERLOADED)
        return min(lost, default=None)

    def bracket(self, variation: int, constraint: Constraint | None = None) -> tuple[float | None, float | None]:
        """(the highest rate below the first break, that break) of a constraint, or of all: None where there is none."""
        holds_to = None
        for rate in self.rates(variation):
            if not self.holds(At(variation, rate), constraint):
                return holds_to, rate
            holds_to = rate
        return holds_to, None

    def holds(self, at: At, constraint: Constraint | None = None) -> bool:
        """Whether a known cell keeps the constraint, or all of them."""
        summary = self.known[at]
        if constraint is not None:
            return constraint.holds(summary)
        return kept_all(self.variations[at.variation].constraints, summary)

    def counts(self) -> Mapping[str, int]:
        """How many cells there are, and where they came from."""
        return {
            "cells": len(self.known) + len(self.failed),
            "simulated": self.simulated,
            "reused": self.reused,
            "failed": len(self.failed),
        }
