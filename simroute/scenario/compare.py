"""`compare`: the policies of a scenario over many worlds that all of them share, so that noise can be told from more.

World 0 is the scenario as it is. In world k the trace is resampled by blocks of time, step times are drawn within
their error and every random stream starts anew; whatever a policy does, it meets the same worlds as the others.
Imports everything below and, of this room, build, loader, models, replay, run and steptimes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from simroute.errors import UsageError, unknown
from simroute.policy.context import PolicyContext
from simroute.policy.routing.oracle import DecisionLog, watched
from simroute.policy.snapshot import RoutingPolicy
from simroute.results.comparison import Outcome, document, kept
from simroute.results.regret import Decisions, decision_table, joined, regret_summary
from simroute.rng import stream
from simroute.scenario.build import Built, build
from simroute.scenario.loader import load
from simroute.scenario.models import PolicySpec, Scenario
from simroute.scenario.replay import Progress, replay
from simroute.scenario.run import RunResult, by_policy, chosen, replayed
from simroute.scenario.steptimes import drawn_pools
from simroute.workload.resample import block_count, resampled

if TYPE_CHECKING:
    import pyarrow

SEEDS, BLOCK_S, LEVEL = 10, 60.0, 0.95
"""Resampled worlds, the length of their blocks and the level of intervals, unless said otherwise."""
MOST_SEEDS = 10_000
FEW_BLOCKS = 20
"""A trace of fewer blocks is hardly resampled at all."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Every policy over the worlds that were replayed under all of them, in the order asked for.

    `summaries` are those of world 0, the trace itself; `outcomes` of worlds 1, 2, ...; `decisions` the logs of world 0,
    where they were asked for. `interrupted` says that Ctrl-C cut the comparison short: worlds are missing.
    """

    built: Built
    exact: bool
    baseline: str
    block_s: float
    level: float
    summaries: Mapping[str, Mapping[str, Any]]
    outcomes: Mapping[str, Sequence[Outcome]]
    decisions: Mapping[str, Decisions]
    interrupted: bool

    @property
    def worlds(self) -> int:
        """Resampled worlds that every policy went through."""
        return len(self.outcomes[self.baseline])

    def document(self) -> dict[str, Any]:
        """The whole of compare.json."""
        return document(
            scenario=self.built.scenario.name,
            seed=self.built.scenario.seed,
            baseline=self.baseline,
            block_s=self.block_s,
            level=self.level,
            summaries=self.summaries,
            outcomes=self.outcomes,
            decisions={label: regret_summary(found) for label, found in self.decisions.items()},
            notes=self._notes(),
            manifest=RunResult(self.built, self.exact, (), self.interrupted).manifest(),
        )

    def decision_tables(self) -> list[pyarrow.Table]:
        """One table a policy, a row for each decision it took in world 0 (see docs/compare.md for the columns)."""
        return [decision_table(label, self.built.trace, found) for label, found in self.decisions.items()]

    def _notes(self) -> list[str]:
        notes = [*self.built.notes, *self.built.stated()]
        blocks = block_count(self.built.trace, self.block_s)
        if blocks < FEW_BLOCKS:
            notes.append(
                f"the trace has {blocks} block(s) of {self.block_s:g} s, so the worlds differ little in their traffic: "
                f"give shorter blocks, {FEW_BLOCKS} of them or more, or a longer trace"
            )
        if self.interrupted:
            notes.append(f"interrupted: {self.worlds} worlds were replayed under every policy")
        return notes


def compare(
    scenario: Scenario | Built | str | os.PathLike[str],
    policies: Sequence[str] | None = None,
    *,
    seeds: int = SEEDS,
    baseline: str | None = None,
    block_s: float = BLOCK_S,
    level: float = LEVEL,
    seed: int | None = None,
    exact: bool = False,
    decisions: bool = False,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Replay `scenario` under each policy on its own trace and in `seeds` resampled worlds, in parallel processes.

    `scenario`, `policies`, `seed`, `exact`, `jobs` and `progress` are as in `run`. The policies are set beside
    `baseline` (a label; left out: the first). `block_s` is the length of the blocks that traffic is resampled by,
    `level` that of the intervals. `decisions` logs every decision on the trace itself beside an oracle's.
    The same arguments give the same comparison, bit by bit. Raises SimrouteError for what the user can mend.
    """
    if isinstance(scenario, str | os.PathLike):
        scenario = load(os.fspath(scenario))
    listed = scenario if isinstance(scenario, Scenario) else scenario.scenario
    specs = chosen(listed, policies)
    first = checked(specs, seeds=seeds, baseline=baseline, level=level)
    built = build(scenario) if isinstance(scenario, Scenario) else scenario
    block_count(built.trace, block_s)
    as_run: dict[str, Any] = {"policies": specs} | ({} if seed is None else {"seed": seed})
    built = replace(built, scenario=built.scenario.model_copy(update=as_run))
    told = by_policy(progress, len(specs)) if progress else None
    task = _Task(built, exact, block_s, decisions)
    found = replay(task, (1 + seeds) * len(specs), jobs=jobs, progress=told)
    return _compared(built, exact, first, block_s, level, found)


def checked(specs: Sequence[PolicySpec], *, seeds: int, baseline: str | None, level: float) -> str:
    """The baseline's label. Raises UsageError for too few policies or worlds, an unknown baseline, no sound level."""
    labels = [spec.shown for spec in specs]
    if len(labels) < 2:
        raise UsageError(f"compare: needs two policies or more, got {', '.join(labels)}: name others with --policy")
    if baseline is not None and baseline not in labels:
        raise UsageError(f"baseline: {unknown('policy', baseline, labels)}")
    if not 2 <= seeds <= MOST_SEEDS:
        raise UsageError(f"seeds: must be 2 to {MOST_SEEDS:,}, got {seeds}: an interval needs several worlds")
    if not 0 < level < 1:
        raise UsageError(f"level: must be above 0 and below 1, such as 0.95, got {level:g}")
    return baseline or labels[0]


def world(built: Built, number: int, block_s: float) -> Built:
    """World `number`, the same for every policy; world 0 is `built` itself.

    What the router believes of costs and speeds stays: it knows the calibration, not the truth.
    """
    if not number:
        return built
    scenario = built.scenario
    luck = int(stream(scenario.seed, "world", number, "luck").integers(2**32))
    return replace(
        built,
        scenario=scenario.model_copy(update={"seed": luck}),
        trace=resampled(built.trace, block_s, stream(scenario.seed, "world", number, "traffic")),
        pools=drawn_pools(built.pools, scenario.seed, number),
    )


class _OnTrace(NamedTuple):
    """What is kept of a policy in world 0."""

    summary: Mapping[str, Any]
    decisions: Decisions | None
    interrupted: bool


@dataclass(frozen=True, slots=True)
class _Task:
    """One replay: items go through all policies in world 0, then in world 1, and so on; None if it was cut off."""

    built: Built
    exact: bool
    block_s: float
    decisions: bool

    def __call__(
        self, item: int, progress: Callable[[float], None], stop: Callable[[], bool]
    ) -> _OnTrace | Outcome | None:
        specs = self.built.scenario.policies
        number, policy = divmod(item, len(specs))
        here = world(self.built, number, self.block_s)
        logs: list[DecisionLog] = []

        def watch(policy: RoutingPolicy, context: PolicyContext) -> RoutingPolicy:
            logs.append(watched(policy, context))
            return logs[-1]

        spied = watch if self.decisions and not number else None
        fleet, summary = replayed(here, specs[policy], exact=self.exact, progress=progress, stop=stop, watch=spied)
        if number:
            return None if fleet.interrupted else kept(summary)
        return _OnTrace(summary, joined([log.columns() for log in logs]) if spied else None, fleet.interrupted)


def _compared(
    built: Built, exact: bool, baseline: str, block_s: float, level: float, found: Sequence[_OnTrace | Outcome | None]
) -> Comparison:
    """The comparison from what the items left; a world counts where every policy went through it."""
    labels = [spec.shown for spec in built.scenario.policies]
    rows = [found[start : start + len(labels)] for start in range(0, len(found), len(labels))]
    whole = [[each for each in row if isinstance(each, Outcome)] for row in rows[1:]]
    whole = [row for row in whole if len(row) == len(labels)]
    on_trace = {label: each for label, each in zip(labels, rows[0], strict=True) if isinstance(each, _OnTrace)}
    return Comparison(
        built=built,
        exact=exact,
        baseline=baseline,
        block_s=block_s,
        level=level,
        summaries={label: each.summary for label, each in on_trace.items()},
        outcomes={label: [row[i] for row in whole] for i, label in enumerate(labels)},
        decisions={label: each.decisions for label, each in on_trace.items() if each.decisions is not None},
        interrupted=any(each is None for each in found) or any(each.interrupted for each in on_trace.values()),
    )
