"""What may be different: one change, or several together, to a scenario that has been built.

Owns what a change may say and how it is applied. A change that names what does not exist is a mistake (UsageError,
ScenarioError); one that the hardware, its prices or the traffic do not allow is a result (UnfitError).
Imports scenario and everything below it, and of the planner spot.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from simroute.errors import SimrouteError, UnfitError, UsageError, unknown
from simroute.planner.study.spot import SpotShare, on_spot
from simroute.rng import stream
from simroute.scenario.build import Built, build, traffic_of
from simroute.scenario.loader import changed
from simroute.scenario.matrix import first_problem
from simroute.scenario.models import Scenario
from simroute.scenario.parts import Count, Name, NonNegative, Part, Positive
from simroute.scenario.variants import look_up
from simroute.workload.trace import Trace
from simroute.yamlfile import YamlError, parse

FOR_EVER_S = 1e9
"""A machine lost for so long is not back before any trace ends."""


class Loss(Part):
    """Machines that are gone from the start: of a zone, or of a pool."""

    zone: Name | None = None
    """All machines of this zone."""
    pool: Name | None = None
    """Machines of this pool."""
    replicas: Count | None = None
    """So many of the pool's (left out: one)."""

    @model_validator(mode="after")
    def _one_of(self) -> Loss:
        if (self.zone is None) == (self.pool is None) or (self.zone is not None and self.replicas is not None):
            raise ValueError("give a zone, or a pool and how many of its replicas")
        return self

    @property
    def written(self) -> str:
        """As the command line has it: `zone=a`, `pool=small:2`."""
        if self.zone:
            return f"zone={self.zone}"
        return f"pool={self.pool}" + (f":{self.replicas}" if self.replicas else "")


class Change(Part):
    """What is different from the scenario as it is; everything given holds together."""

    name: Name | None = None
    """How it is called in the report (left out: what it says)."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Other values in the scenario, by path: `pools[small].gpu: L4`."""
    input: Positive = 1.0
    """Prompts so many times as long."""
    output: Positive = 1.0
    """Answers so many times as long."""
    mix: dict[str, NonNegative] = Field(default_factory=dict)
    """Weights of request classes: 2 doubles a class against the others (left out: 1), at the same requests a second."""
    price: Positive = 1.0
    """GPUs so many times as expensive."""
    lose: Annotated[tuple[Loss, ...], Field()] = ()
    """Machines that are gone."""
    spot: SpotShare | None = None
    """Replicas that move to spot machines; a bare number is the share of them."""
    policy: Name | None = None
    """Another routing policy: one of the scenario's, or any other without options."""

    @model_validator(mode="before")
    @classmethod
    def _bare_values(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("lose"), dict):
            value = {**value, "lose": [value["lose"]]}
        if isinstance(value, dict) and isinstance(value.get("spot"), int | float):
            value = {**value, "spot": {"share": value["spot"]}}
        return value

    @property
    def shown(self) -> str:
        """The name in the report."""
        return self.name or ", ".join(self._said()) or "as it is"

    def _said(self) -> Iterator[str]:
        yield from (f"{path}={json.dumps(value).replace(chr(34), '')}" for path, value in self.set.items())
        for what, factor in (("prompts", self.input), ("answers", self.output), ("prices", self.price)):
            if factor != 1.0:
                yield f"{what} x{factor:g}"
        yield from (f"{name} x{weight:g}" for name, weight in self.mix.items())
        for loss in self.lose:
            yield f"zone {loss.zone} lost" if loss.zone else f"{loss.replicas or 1} of {loss.pool} lost"
        if self.spot:
            yield self.spot.shown
        if self.policy:
            yield f"policy {self.policy}"


def changes_in(text: str, where: str) -> list[Change]:
    """The changes that YAML text holds: a list of them, or one. Raises UsageError, naming `where` and the field."""
    try:
        found = parse(text, text_keys=True).value
    except YamlError as error:
        raise UsageError(f"{where}: not YAML: {error}") from None
    listed = found if isinstance(found, list) else [found]
    try:
        return TypeAdapter(list[Change]).validate_python(listed)
    except ValidationError as error:
        raise UsageError(f"{where}: {first_problem(error)}; a change has {', '.join(Change.model_fields)}") from None


def changes_at(path: Path) -> list[Change]:
    """The changes that a YAML file holds. Raises UsageError as `changes_in`, and where it cannot be read."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"{path}: cannot be read: {reason}") from None
    return changes_in(text, str(path))


def applied(built: Built, change: Change) -> Built:
    """`built` with the change.

    Raises UnfitError for a change of things that all exist and still cannot be, UsageError and ScenarioError for one
    that names what does not exist, or gives a value that is never allowed.
    """
    scenario = changed(built.scenario, change.set)
    notes: list[str] = []
    if change.spot:
        scenario, notes = on_spot(scenario, change.spot)
    scenario = changed(scenario, _prices(scenario, change.price))
    scenario = _without(scenario, change.lose)
    same = scenario.traffic == built.scenario.traffic
    trace = built.trace if same else traffic_of(scenario.traffic)
    trace = mixed(trace, change.mix, scenario.seed).scaled(input=change.input, output=change.output)
    try:
        found = build(scenario, trace)
    except SimrouteError as error:
        raise UnfitError(str(error).splitlines()) from error
    return replace(found, notes=(*found.notes, *notes))


def mixed(trace: Trace, weights: Mapping[str, float], seed: int) -> Trace:
    """`trace` with its classes in other shares, at the same requests a second.

    Requests of the classes that shrink against the others are dropped at random, and what is left follows faster, so
    the trace is shorter; no request is invented. Raises UsageError for a class that the trace does not have, and when
    nothing would be left.
    """
    if not weights:
        return trace
    for name in weights:
        if name not in trace.class_names:
            raise UsageError(f"--mix {name}: {unknown('request class', name, trace.class_names)}")
    weight = np.array([weights.get(name, 1.0) for name in trace.class_names])[trace.class_code]
    if not weight.any():
        raise UsageError("--mix: every request has weight 0: give a class of the trace a weight above 0")
    kept = stream(seed, "mix").random(len(trace)) < weight / weight.max()
    if not kept.any():
        raise UsageError(f"--mix: none of the {len(trace):,} requests would be left: give weights nearer to each other")
    left = trace.select(kept)
    note = f"{trace.name}: another mix of classes, by {len(left):,} of {len(trace):,} requests"
    return replace(left.scaled(rate=len(trace) / len(left)), notes=(*left.notes, note))


def _prices(scenario: Scenario, factor: float) -> dict[str, Any]:
    """Every pool's price of a GPU, times `factor`, as values to set."""
    if factor == 1.0:
        return {}
    found = enumerate(scenario.pools)
    return {f"pools[{i}].price": {"usd_per_gpu_hour": look_up(pool).usd_per_gpu_hour * factor} for i, pool in found}


def _without(scenario: Scenario, losses: Sequence[Loss]) -> Scenario:
    """The scenario with these machines gone from its first second to its last. Raises UsageError: there are not any."""
    if not losses:
        return scenario
    _check_losses(scenario, losses)
    outages = list(scenario.model_dump(mode="json")["failures"]["outages"])
    for loss in losses:
        where = {"zone": loss.zone} if loss.zone else {"pool": loss.pool, "replicas": loss.replicas or 1}
        outages.append({"at_s": 0.0, "duration_s": FOR_EVER_S, **where})
    return changed(scenario, {"failures.outages": outages})


def _check_losses(scenario: Scenario, losses: Sequence[Loss]) -> None:
    """Refuse to lose what is not there, and more than there is."""
    replicas = {pool.name: pool.replicas for pool in scenario.pools}
    zones = {zone for pool in scenario.pools for zone in pool.zones}
    for loss in losses:
        if loss.zone is not None and loss.zone not in zones:
            raise UsageError(f"--lose {loss.written}: {unknown('zone', loss.zone, zones)}")
        if loss.pool is not None and loss.pool not in replicas:
            raise UsageError(f"--lose {loss.written}: {unknown('pool', loss.pool, replicas)}")
    for name, there in replicas.items():
        lost = [loss for loss in losses if loss.pool == name]
        if sum(loss.replicas or 1 for loss in lost) > there:
            asked = " ".join(f"--lose {loss.written}" for loss in lost)
            raise UsageError(f"{asked}: pool {name} has {there} replica(s): lose so many or fewer")
