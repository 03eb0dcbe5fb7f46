"""`run`: replay a scenario's traffic under each of its policies and summarise. Imports everything below and this room.

All policies see the same trace and draw from the same random streams, so their differences are theirs alone. With
replicates, each policy is replayed again with step times drawn anew within their error, which gives intervals.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from simroute.errors import UsageError
from simroute.fleet.cluster import simulate
from simroute.policy.routing import policy_class
from simroute.results.intervals import Replicate, kept, with_intervals
from simroute.results.manifest import trace_sha256, versions
from simroute.results.metrics import summarise
from simroute.results.run import FleetRun
from simroute.results.store import summary_document
from simroute.scenario.build import Built, Watch, build
from simroute.scenario.check_fleet import idle_policy
from simroute.scenario.loader import load
from simroute.scenario.models import PolicySpec, Scenario
from simroute.scenario.replay import Progress, replay
from simroute.scenario.steptimes import drawn_pools, step_times


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """What one policy left behind: its request log and the numbers of summary.json."""

    fleet: FleetRun
    summary: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RunResult:
    """Results of every policy that was started, in the order asked for.

    `built.scenario` is the scenario as it ran: with the policies chosen and the seed used.
    `interrupted` says that Ctrl-C cut the run short: the last results may be partial (each says so) and policies that
    had not begun are missing. Intervals then rest on the replicates that were done (each summary says how many).
    """

    built: Built
    exact: bool
    results: tuple[PolicyResult, ...]
    interrupted: bool

    @property
    def seed(self) -> int:
        """The seed of every random stream of the run."""
        return self.built.scenario.seed

    def summary(self) -> dict[str, Any]:
        """The whole of summary.json."""
        summaries = [result.summary for result in self.results]
        notes = (*self.built.notes, *self.built.stated())
        return summary_document(self.built.scenario.name, self.seed, self.built.slo, summaries, notes)

    def manifest(self) -> dict[str, Any]:
        """What made the results: the scenario as it ran, seed, exact or not, versions, fingerprints of the inputs."""
        return {
            "scenario": self.built.scenario.model_dump(mode="json"),
            "seed": self.seed,
            "exact": self.exact,
            "interrupted": self.interrupted,
            **provenance(self.built),
        }


def provenance(built: Built) -> dict[str, Any]:
    """Versions of what can move a number, and fingerprints of the traffic and of every pool's calibration."""
    calibrations = {v.spec.name: v.calibration for v in built.variants if v.calibration}
    return {
        "versions": versions(),
        "trace_sha256": trace_sha256(built.trace),
        "calibrations": {pool: {"path": c.name, "sha256": c.sha256} for pool, c in calibrations.items()},
    }


def run(
    scenario: Scenario | Built | str | os.PathLike[str],
    policies: Sequence[str] | None = None,
    *,
    seed: int | None = None,
    exact: bool = False,
    replicates: int | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Replay `scenario` (a file, a scenario, or one already built) under each policy, in parallel processes.

    `policies` are labels of the scenario's policies or names of others; `seed` and `replicates` stand in for the
    scenario's. `jobs` bounds the processes (default: one a CPU). `exact` runs the engines step by step: same times,
    slower. `progress` is told the fraction done of every policy. The same arguments give the same results, bit by bit.
    Raises SimrouteError for what the user can mend.
    """
    if isinstance(scenario, str | os.PathLike):
        scenario = load(os.fspath(scenario))
    built = build(scenario) if isinstance(scenario, Scenario) else scenario
    specs = chosen(built.scenario, policies)
    if replicates is not None and replicates < 0:
        raise UsageError(f"replicates: must be at least 0, got {replicates}")
    as_run: dict[str, Any] = {"policies": specs}
    as_run |= {} if seed is None else {"seed": seed}
    as_run |= {} if replicates is None else {"replicates": replicates}
    notes = [said for spec in specs if (said := idle_policy(spec, built.scenario.external))]
    built = replace(built, scenario=built.scenario.model_copy(update=as_run), notes=(*built.notes, *notes))
    rounds = 1 + built.scenario.replicates
    told = by_policy(progress, len(specs)) if progress else None
    found = replay(_Task(built, exact), rounds * len(specs), jobs=jobs, progress=told)
    results = tuple(
        _finished(result, found[item :: len(specs)], built)
        for item, result in enumerate(found[: len(specs)])
        if isinstance(result, PolicyResult)
    )
    interrupted = any(result is None for result in found) or any(result.fleet.interrupted for result in results)
    return RunResult(built, exact, results, interrupted)


def by_policy(progress: Progress, policies: int) -> Progress:
    """`progress` told of policies, given that of every replay: round after round, each through all policies."""

    def tell(fractions: Sequence[float]) -> None:
        rounds = len(fractions) // policies
        progress([sum(fractions[policy::policies]) / rounds for policy in range(policies)])

    return tell


def _finished(result: PolicyResult, rounds: Sequence[object], built: Built) -> PolicyResult:
    """A policy's result with the trace that stayed here, and with the intervals that its replicates give."""
    replicates = [found for found in rounds if isinstance(found, Replicate)]
    summary = with_intervals(result.summary, replicates) if replicates else result.summary
    return PolicyResult(replace(result.fleet, trace=built.trace), summary)


def chosen(scenario: Scenario, names: Sequence[str] | None) -> tuple[PolicySpec, ...]:
    """The scenario's policies, or those of these labels or names; a policy it does not list runs without options.

    Raises UsageError for a name that is neither, and for a policy of your own that cannot be imported.
    """
    if not names:
        return scenario.policies
    listed = {spec.name: spec for spec in reversed(scenario.policies)} | {p.shown: p for p in scenario.policies}
    specs: dict[str, PolicySpec] = {}
    for name in names:
        if name not in listed:
            policy_class(name, listed)
        spec = listed.get(name) or PolicySpec(name=name)
        specs[spec.shown] = spec
    return tuple(specs.values())


@dataclass(frozen=True, slots=True)
class _Task:
    """One replay on the shared trace, which never travels back from a worker.

    Items 0 to policies - 1 are the policies as they are; then comes the first replicate of each, the second, and so
    on. Of a replicate only the headline numbers are kept: None where it was cut off.
    """

    built: Built
    exact: bool

    def __call__(
        self, item: int, progress: Callable[[float], None], stop: Callable[[], bool]
    ) -> PolicyResult | Replicate | None:
        built, scenario = self.built, self.built.scenario
        number, policy = divmod(item, len(scenario.policies))
        if number:
            built = replace(built, pools=drawn_pools(built.pools, scenario.seed, number))
        spec = scenario.policies[policy]
        fleet, summary = replayed(built, spec, exact=self.exact, progress=progress, stop=stop)
        if number:
            return None if fleet.interrupted else kept(summary)
        return PolicyResult(replace(fleet, trace=built.trace.head(1)), summary)


def replayed(
    built: Built,
    spec: PolicySpec,
    *,
    exact: bool,
    progress: Callable[[float], None],
    stop: Callable[[], bool],
    watch: Watch | None = None,
) -> tuple[FleetRun, dict[str, Any]]:
    """One policy's replay of what was built, with its pools, its trace and its scenario's seed, and the summary.

    `watch` is as in `Built.policy`; `progress` and `stop` as in `replay`.
    """
    scenario, members = built.scenario, built.members()
    fleet = simulate(
        built.trace,
        built.fleet,
        built.policy(spec, scenario.seed, members, watch),
        policy_name=spec.shown,
        seed=scenario.seed,
        members=members,
        options=built.options(spec, scenario.seed, members),
        exact=exact,
        horizon_s=scenario.horizon_s,
        samples=scenario.samples,
        progress=progress,
        stop=stop,
    )
    summary = summarise(fleet, built.slo, built.quality, built.quality_floor, step_times(built.pools))
    progress(1.0)
    return fleet, summary
