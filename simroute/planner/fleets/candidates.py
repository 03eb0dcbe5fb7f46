"""The fleets that a plan spans: how many of each of its options, what they cost, and what losses leave of them.

Owns `Fleet`, how fleets compare, and `Space`. Imports errors, hardware's catalogue, of scenario models and build, and
of this room naming, options and spec.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from simroute.errors import UsageError
from simroute.hardware import catalogue
from simroute.planner.fleets import naming
from simroute.planner.fleets.options import Option, Unfit, options_of
from simroute.planner.fleets.spec import PlanClass, PlanSpec
from simroute.results.compare import TARGET_ATTAINMENT
from simroute.scenario.build import Built, build
from simroute.scenario.models import ClassSpec, Scenario, SloSpec, Traffic
from simroute.workload.columns import DEFAULT_NAME

SAMPLES = 100
"""Points of a replay's timeline: enough for a chart; of a short trace, more would cost more than the rest."""
Fleet = tuple[tuple[int, int], ...]
"""Option numbers, rising, each with how many replicas."""


@dataclass(frozen=True, slots=True)
class Space:
    """Everything a search needs: what was asked, the options and, for all of them together, what a replay needs."""

    spec: PlanSpec
    options: tuple[Option, ...]
    unfit: tuple[Unfit, ...]
    built: Built

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that send requests."""
        names = self.built.trace.class_names
        return tuple(names[code] for code in np.unique(self.built.trace.class_code))

    @property
    def idle_classes(self) -> list[str]:
        """What is asked for classes that send nothing, a line each."""
        sending = ", ".join(self.classes)
        return [
            f"classes.{name}: no request of this class arrives, so its targets bind nothing (the traffic has {sending})"
            for name in self.spec.classes
            if name != DEFAULT_NAME and name not in self.classes
        ]

    def requests(self, request_class: str) -> int:
        """How many requests of a class arrive."""
        trace = self.built.trace
        return int((trace.class_code == trace.class_names.index(request_class)).sum())

    def attainment(self, request_class: str) -> float:
        """The least share of a class's requests within their targets; without any, of those that complete."""
        wanted = self.wanted(request_class)
        return wanted.attainment if wanted.attainment is not None else TARGET_ATTAINMENT

    def wanted(self, request_class: str) -> PlanClass:
        """What a class asks for, with what it takes from `default`."""
        return self.spec.wanted(request_class)

    def usd_per_month(self, fleet: Fleet) -> float:
        """The bill of a whole fleet, busy or not."""
        return sum(self.options[option].usd_per_month * count for option, count in fleet)

    def gpus(self, fleet: Fleet) -> Counter[str]:
        """GPUs of each kind."""
        found: Counter[str] = Counter()
        for option, count in fleet:
            found[self.options[option].gpu] += self.options[option].gpus * count
        return found

    def key(self, fleet: Fleet, policy: int) -> str:
        """The candidate's name: `3 x A + 2 x B, least_requests`."""
        pools = " + ".join(f"{count} x {self.options[option].name}" for option, count in fleet)
        return f"{pools}, {self.spec.policies[policy].shown}"

    def quota(self, gpu: str) -> int | None:
        """Most GPUs of a kind, None where there is no limit."""
        return next((most for name, most in self.spec.quotas.items() if catalogue.gpu(name).name == gpu), None)

    def policies_for(self, fleet: Fleet) -> tuple[int, ...]:
        """The policies that can route a fleet of these variants: those that name pools need them all."""
        found = []
        for number, policy in enumerate(self.spec.policies):
            if not self.names_pools(number) or naming.refusal(policy, self.called(fleet, number)) is None:
                found.append(number)
        return tuple(found)

    def called(self, fleet: Fleet, policy: int) -> list[str]:
        """What each pool of the fleet is called for a policy."""
        named = [(self.options[option].name, self.options[option].family) for option, _ in fleet]
        return naming.called(self.spec.policies[policy], named)

    def names_pools(self, policy: int) -> bool:
        """Whether the options of a policy name variants or candidates of this plan."""
        spec = self.spec.policies[policy]
        return bool(spec.options) and not naming.said(spec).isdisjoint(_names(self.spec, self.options))

    def refusal(self, fleet: Fleet) -> str | None:
        """`quota`, `budget` or `size` where the fleet breaks a limit that needs no simulation; else None."""
        if sum(count for _, count in fleet) > self.spec.fleets.most_replicas:
            return "size"
        if any(most is not None and n > most for gpu, n in self.gpus(fleet).items() for most in [self.quota(gpu)]):
            return "quota"
        budget = self.spec.budget_usd_per_month
        return "budget" if budget is not None and self.usd_per_month(fleet) > budget * (1 + 1e-12) else None

    def lone_fleets(self) -> Iterator[Fleet]:
        """Every fleet of one option."""
        for number, option in enumerate(self.options):
            for count in range(option.replicas.min, option.replicas.max + 1):
                yield ((number, count),)

    def size(self) -> int:
        """How many candidates there are, fleets times policies, quota and budget left aside."""
        most = self.spec.fleets.most_replicas
        ways = {(0, 0): 1}  # (variants, replicas): fleets
        for option in self.options:
            for (variants, total), fleets in list(ways.items()):
                if variants == self.spec.fleets.most_variants:
                    continue
                for count in range(option.replicas.min, min(option.replicas.max, most - total) + 1):
                    key = (variants + 1, total + count)
                    ways[key] = ways.get(key, 0) + fleets
        return (sum(ways.values()) - 1) * len(self.spec.policies)

    def neighbours(self, fleet: Fleet, step: int) -> list[Fleet]:
        """The fleet with one replica more (or less) of one of its variants, within the options' ranges."""
        found = []
        for place, (option, count) in enumerate(fleet):
            limits = self.options[option].replicas
            if limits.min <= count + step <= limits.max:
                found.append((*fleet[:place], (option, count + step), *fleet[place + 1 :]))
        return [f for f in found if _total(f) <= self.spec.fleets.most_replicas]

    def degraded(self, fleet: Fleet) -> list[Fleet]:
        """The distinct fleets that the losses to be survived can leave, smallest first; empty ones included."""
        return sorted(
            {*self._without_replicas(fleet), *self._without_zones(fleet)} - {fleet},
            key=lambda left: (_total(left), left),
        )

    def _without_replicas(self, fleet: Fleet) -> Iterator[Fleet]:
        losing = self.spec.availability.lose_replicas
        if losing:
            for lost in itertools.product(*(range(min(count, losing) + 1) for _, count in fleet)):
                if sum(lost) == min(losing, _total(fleet)):
                    yield _less(fleet, lost)

    def _without_zones(self, fleet: Fleet) -> Iterator[Fleet]:
        available = self.spec.availability
        zones = len(available.zones)
        for gone in itertools.combinations(range(zones), available.lose_zones) if available.lose_zones else ():
            yield _less(fleet, [sum(place % zones in gone for place in range(count)) for _, count in fleet])


def within(small: Fleet, large: Fleet) -> bool:
    """Whether `large` has at least as much of every option."""
    have = dict(large)
    return all(have.get(option, 0) >= count for option, count in small)


def differs(fleet: Fleet, best: Fleet) -> bool:
    """Whether a fleet is another choice of variants, and not the best one with something added."""
    return [option for option, _ in fleet] != [option for option, _ in best] and not within(best, fleet)


def _total(fleet: Fleet) -> int:
    return sum(count for _, count in fleet)


def _less(fleet: Fleet, lost: Sequence[int]) -> Fleet:
    return tuple((o, n - gone) for (o, n), gone in zip(fleet, lost, strict=True) if n > gone)


def space_of(spec: PlanSpec) -> Space:
    """The options of a plan, its traffic read and its hardware looked up.

    Raises UsageError when no option is left, naming why; TraceError and others as `scenario.build` does.
    """
    options, unfit = options_of(spec)
    if not options:
        why = f"{unfit[0].name}: {unfit[0].reason}"
        more = f" (and {len(unfit) - 1} more)" if len(unfit) > 1 else ""
        raise UsageError(f"candidates: none of {len(unfit)} can run, so there is nothing to search: {why}{more}")
    unrouted = tuple(_unrouted(spec, options))
    if len(unrouted) == len(spec.policies):
        raise UsageError(f"policies: there is nothing to search: {'; '.join(each.reason for each in unrouted)}")
    return Space(spec, options, (*unfit, *unrouted), build(_scenario(spec, options)))


def _names(spec: PlanSpec, options: Sequence[Option]) -> set[str]:
    """What the options of policies may call pools."""
    return {option.name for option in options} | {c.name for c in spec.candidates if c.name is not None}


def _unrouted(spec: PlanSpec, options: Sequence[Option]) -> Iterator[Unfit]:
    """Policies that name what no fleet can have."""
    staffed = {option.name for option in options} | {option.family for option in options}
    names = sorted(_names(spec, options))
    for policy in spec.policies:
        if missing := [name for name in naming.needed(policy, names) if name not in staffed]:
            nobody = " and ".join(f"'{name}'" for name in missing)
            yield Unfit(f"policy {policy.shown}", f"it sends requests to {nobody}, of which no variant can run")


def _scenario(spec: PlanSpec, options: Sequence[Option]) -> Scenario:
    """The plan as a scenario with one pool of one replica for each option."""
    traffic = Traffic(traces=spec.traffic.traces, rate_scale=spec.traffic.rate_scale * spec.traffic.growth)
    return Scenario(
        name=spec.name,
        description=spec.description,
        seed=spec.seed,
        traffic=traffic,
        classes={name: _class(spec.wanted(name)) for name in spec.classes},
        pools=tuple(option.spec for option in options),
        calibrations=spec.calibrations,
        policies=spec.policies,
        router=spec.router,
        quality=spec.quality,
        samples=SAMPLES,
    )


def _class(wanted: PlanClass) -> ClassSpec:
    """What policies and results are told: where only percentiles are limited, each request aims at those limits."""
    slo = wanted.slo or wanted.p99
    return ClassSpec(slo=slo and SloSpec(**slo.model_dump()), quality_floor=wanted.quality_floor)


def fleet_built(space: Space, fleet: Fleet, policy: int, down: Sequence[int] = ()) -> Built:
    """The space's `Built` with the pools of one fleet under one policy, and those of `down` without a replica.

    Raises UsageError for a fleet of no replicas.
    """
    if not fleet:
        raise UsageError("no replica is left")
    built = space.built
    whole = tuple(sorted((*fleet, *((option, 0) for option in down))))
    specs = tuple(space.options[option].spec.model_copy(update={"replicas": count}) for option, count in whole)
    pools = tuple(
        replace(pool, replicas=count, places=max(count, 1), variant=replace(pool.variant, pool=name))
        for (option, count), name in zip(whole, space.called(whole, policy), strict=True)
        for pool in [built.pools[option]]
    )
    scenario = built.scenario.model_copy(update={"pools": specs, "policies": (space.spec.policies[policy],)})
    return replace(built, scenario=scenario, variants=tuple(built.variants[o] for o, _ in whole), pools=pools)
