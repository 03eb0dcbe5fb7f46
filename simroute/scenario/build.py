"""A scenario as the simulator takes it: one trace, pools of replicas, policies, targets and what is assumed.

May import everything below this room and, of it, models, quality, steptimes and variants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from simroute.errors import UsageError
from simroute.fleet.arrivals import check_block_size
from simroute.fleet.options import FleetOptions
from simroute.fleet.pool import Pool
from simroute.policy.capability import QualityRow, TableQuality
from simroute.policy.context import Membership, PolicyContext, Targets
from simroute.policy.routing import make_policy
from simroute.policy.snapshot import RoutingPolicy
from simroute.results.slo import Slo, slo_for
from simroute.rng import stream
from simroute.scenario.fleet_models import OutageSpec, RouterRestartSpec, StragglerSpec
from simroute.scenario.living import external_pool, fleet_options, living
from simroute.scenario.models import PolicySpec, Scenario, Traffic
from simroute.scenario.quality import Named, given_rows, quality_table
from simroute.scenario.steptimes import basis_notes
from simroute.scenario.variants import Variant, pool_of, variant_of
from simroute.workload.columns import DEFAULT_NAME
from simroute.workload.formats import read_trace
from simroute.workload.merge import merge
from simroute.workload.trace import Trace

MOST_SCRAPES = 10_000_000
"""More scrapes than this in one replay are a mistake: a year's at 3 s."""

Watch = Callable[[RoutingPolicy, PolicyContext], RoutingPolicy]
"""Puts a policy around another, which was made for that context."""


@dataclass(frozen=True, slots=True)
class Built:
    """Everything a replay needs. `notes` says, a line each, what a reader of the results must know."""

    scenario: Scenario
    trace: Trace
    variants: tuple[Variant, ...]
    pools: tuple[Pool, ...]
    external: tuple[Pool, ...]
    slo: Mapping[str, Slo]
    quality_floor: Mapping[str, float]
    assumptions: tuple[QualityRow, ...]
    notes: tuple[str, ...]

    def quality(self, pool: str, request_class: str) -> tuple[float, float, float] | None:
        """(mean, low, high) quality of a pool's answers to a class, None where nothing is known."""
        return next(p.variant.quality.get(request_class) for p in self.fleet if p.name == pool)

    def trace_names(self) -> tuple[str, ...]:
        """The file names of the traces that are replayed, once each."""
        return tuple(dict.fromkeys(Path(source.path).name for source in self.scenario.traffic.traces))

    def stated(self) -> tuple[str, ...]:
        """The assumed qualities that the results rest on, one sentence each."""
        return tuple(
            f"assumed: quality of {row.model} {row.quantization} for {row.request_class} is {row.mean:.3g} "
            f"({row.low:.3g} to {row.high:.3g}): {row.source}"
            for row in self.assumptions
        ) + tuple(
            f"assumed: quality of {spec.model} at {spec.name} for {name} is {mean:.3g}"
            for spec in self.scenario.external
            for name, mean in spec.quality.items()
        )

    @property
    def fleet(self) -> tuple[Pool, ...]:
        """All pools that a policy may send requests to: ours, then other people's endpoints."""
        return (*self.pools, *self.external)

    def members(self) -> Membership:
        """Which replicas take requests at the start."""
        return Membership(place < pool.replicas for pool in self.fleet for place in range(pool.places))

    def policy(
        self, spec: PolicySpec, seed: int, members: Membership | None = None, watch: Watch | None = None
    ) -> RoutingPolicy:
        """A fresh policy for this fleet; every policy draws from the same stream, so comparisons share their luck.

        `members` is what it will be told of replicas that come and go (left out: those of the start stay);
        `watch` may put another policy around it, given the context that it was made for.
        """
        context = PolicyContext(
            variants=[pool.variant for pool in self.fleet],
            pool_of_replica=[i for i, pool in enumerate(self.fleet) for _ in range(pool.places)],
            rng=stream(seed, "policy"),
            quality_floor=self.quality_floor,
            targets=self.targets(),
            prefix_block_tokens=self.trace.prefix_block_tokens,
            members=members or self.members(),
        )
        policy = make_policy(spec.name, spec.options, context)
        return watch(policy, context) if watch else policy

    def targets(self) -> dict[str, Targets]:
        """The latency targets as policies take them."""
        return {name: Targets(slo.ttft_s, slo.tpot_s, slo.e2e_s) for name, slo in self.slo.items()}

    def options(self, spec: PolicySpec, seed: int, members: Membership) -> FleetOptions:
        """How the fleet lives, fresh for one replay under the policy of `spec`."""
        return fleet_options(self.scenario, self.targets(), lambda: self.policy(spec, seed, members))


def build(scenario: Scenario, trace: Trace | None = None) -> Built:
    """Read the traces and look up the hardware; a `trace` given is replayed in place of what the traffic says.

    Raises TraceError, CatalogueError, CalibrationError, CapacityError and UsageError as the rooms below do.
    """
    trace = traffic_of(scenario.traffic) if trace is None else trace
    _check_blocks(scenario, trace)
    _check_scrapes(scenario, trace)
    _check_failures(scenario, trace)
    variants = tuple(variant_of(spec, scenario.calibrations) for spec in scenario.pools)
    names = [Named(v.hardware.model.name, v.hardware.scheme.name) for v in variants]
    matrix = scenario.quality.matrix
    table = quality_table(names, scenario.quality.assumed, given_rows(matrix, names) if matrix else ())
    classes = tuple(dict.fromkeys((*trace.class_names, *scenario.classes)))
    pools = tuple(
        living(pool_of(v, _scores(table, name, classes)), v.spec, v.capacity.weight_bytes)
        for v, name in zip(variants, names, strict=True)
    )
    external = tuple(external_pool(spec, classes) for spec in scenario.external)
    targets = slos(scenario)
    return Built(
        scenario,
        trace,
        variants,
        pools,
        external,
        targets,
        quality_floors(scenario, classes),
        tuple(row for row in table.basis(names, classes) if row.assumed),
        (
            *trace.notes,
            *(note for v in variants for note in v.notes),
            *basis_notes(pools, variants),
            *_doubts(trace, pools, targets),
            *_idle_clients(scenario, trace),
        ),
    )


def traffic_of(traffic: Traffic) -> Trace:
    """The scenario's traces, cut, scaled, tagged and merged by arrival."""
    traces = []
    for source in traffic.traces:
        trace = read_trace(source.path, source.format, window_s=source.window_s, seed=source.seed)
        if source.head is not None:
            trace = trace.head(source.head)
        trace = trace.scaled(rate=source.rate_scale * traffic.rate_scale)
        traces.append(trace.tagged(source.request_class, source.tenant, source.tier, source.priority))
    return traces[0] if len(traces) == 1 else merge(traces)


def slos(scenario: Scenario) -> dict[str, Slo]:
    """Targets by class, for each class that has its own, and `default`."""
    return {name: Slo(**wanted.slo.model_dump()) for name, wanted in scenario.classes.items() if wanted.slo is not None}


def quality_floors(scenario: Scenario, classes: Sequence[str]) -> dict[str, float]:
    """Floors of these classes: their own, else that of `default`; classes without are left out."""
    stated = {name: c.quality_floor for name, c in scenario.classes.items() if c.quality_floor is not None}
    default = stated.get(DEFAULT_NAME)
    return {name: floor for name in classes if (floor := stated.get(name, default)) is not None}


def _check_blocks(scenario: Scenario, trace: Trace) -> None:
    """Refuse, before anything runs, KV blocks that cannot hold the trace's prefixes; without a cache none need to."""
    for i, pool in enumerate(scenario.pools):
        if pool.engine.enable_prefix_caching:
            try:
                check_block_size(trace, pool.engine.block_size)
            except UsageError as error:
                raise UsageError(f"pools[{i}].engine: {error}") from None


def _check_scrapes(scenario: Scenario, trace: Trace) -> None:
    """Refuse what would never finish: each look costs time, whether or not a request arrives."""
    router, signals = scenario.router, scenario.router.signals
    looks = [("router.scrape_interval_s", "scrapes", router.scrape_interval_s)]
    looks += [(f"router.signals.{name}.interval_s", "scrapes", spec.interval_s) for name, spec in signals if spec]
    for i, pool in enumerate(scenario.pools):
        if pool.autoscale is not None:
            looks.append((f"pools[{i}].autoscale.interval_s", "decisions", pool.autoscale.interval_s))
    span_s = min(trace.duration_s, scenario.horizon_s or trace.duration_s)
    for where, what, interval_s in looks:
        count = span_s / interval_s if interval_s else 0.0
        if count > MOST_SCRAPES:
            live = "raise it" if what == "decisions" else "raise it, or give 0 to see the present"
            raise UsageError(
                f"{where}: {interval_s:g} s means {count:,.0f} {what} in {span_s:,.0f} s of traffic, "
                f"which would never finish: at most {MOST_SCRAPES:,}; {live}"
            )


def _check_failures(scenario: Scenario, trace: Trace) -> None:
    """Refuse what would go wrong when nobody is there any longer."""
    clients, horizon_s = scenario.clients, scenario.horizon_s or math.inf
    closed = clients.users is not None or clients.wait_in_session  # then the trace's times are no more than a plan
    last_s = math.inf if closed else float(trace.arrival_s[-1])
    end_s, end = (last_s, "last arrival") if last_s <= horizon_s else (horizon_s, "horizon")
    failures = scenario.failures
    planned: dict[str, Sequence[OutageSpec | StragglerSpec | RouterRestartSpec]] = {
        "outages": failures.outages,
        "stragglers": failures.stragglers,
        "router": failures.router,
    }
    for what, items in planned.items():
        for i, item in enumerate(items):
            if item.at_s > end_s:
                raise UsageError(
                    f"failures.{what}[{i}].at_s: {item.at_s:g} s is after the {end} ({end_s:,.0f} s): "
                    f"give a time within the traffic"
                )


def _scores(table: TableQuality, variant: Named, classes: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    return {name: (row.mean, row.low, row.high) for name in classes if (row := table.find(variant, name))}


def _idle_clients(scenario: Scenario, trace: Trace) -> list[str]:
    """What is said of clients and means nothing for this traffic."""
    if scenario.clients.wait_in_session and not (trace.session >= 0).any():
        return ["clients.wait_in_session changes nothing: no request of the traffic belongs to a session"]
    return []


def _doubts(trace: Trace, pools: Sequence[Pool], slo: Mapping[str, Slo]) -> list[str]:
    """What the traffic, the fleet and the targets, seen together, make doubtful."""
    notes = []
    free = [name for name in trace.class_names if slo_for(slo, name) == Slo()]
    if free:
        notes.append(f"no latency targets for class {', '.join(free)}: whatever completes counts as within them")
    longest = max(pool.engine.max_model_len for pool in pools)
    too_long = int((trace.input_tokens >= longest).sum())
    if too_long:
        notes.append(
            f"{too_long:,} of {len(trace):,} requests have prompts of {longest:,} tokens or more, which no pool takes "
            "(max_model_len): they are rejected"
        )
    return notes
