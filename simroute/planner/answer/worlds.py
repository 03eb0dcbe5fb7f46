"""What could be otherwise than a plan takes it to be: traffic, lengths, step times, targets, losses; each as a space.

Owns `Factor` and the spaces that its two values make. Imports hardware's step times, scenario and, of this room,
candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from simroute.hardware.steptime import ScaledStepTime
from simroute.planner.fleets.candidates import Space
from simroute.scenario.build import slos
from simroute.scenario.models import SloSpec

SHARE = 0.2
"""How much more and less of traffic, tokens, time and money."""
UNKNOWN_ERROR = 0.1
"""Relative error of step times that are estimated: nobody knows theirs."""


@dataclass(frozen=True, slots=True)
class End:
    """One value of a factor, in words, and the space as it would be with it (None: it is so already)."""

    label: str
    space: Callable[[], Space] | None


@dataclass(frozen=True, slots=True)
class Factor:
    """Something that a plan takes for granted, and two other values that it may have: the easier one is `low`."""

    name: str
    low: End
    high: End


def factors(space: Space) -> Iterator[Factor]:
    """What is varied of a space, what managers ask about first; prices are not among them."""
    less, more = 1 - SHARE, 1 + SHARE
    signs = f"-{SHARE:.0%}", f"+{SHARE:.0%}"

    def varied(
        name: str, labels: tuple[str, str], make: Callable[[Space, float], Space], ends: Sequence[float]
    ) -> Factor:
        low, high = (End(label, partial(make, space, end)) for label, end in zip(labels, ends, strict=True))
        return Factor(name, low, high)

    yield varied("traffic", signs, _busier, (less, more))
    yield varied("step times", _errors(space), _slower, (-1.0, 1.0))
    yield varied("answer tokens", signs, lambda s, f: _longer(s, output_factor=f), (less, more))
    yield varied("prompt tokens", signs, lambda s, f: _longer(s, input_factor=f), (less, more))
    if any(_aimed(space)):
        yield varied("latency targets", (f"{SHARE:.0%} looser", f"{SHARE:.0%} tighter"), _aiming, (more, less))
    lost = space.spec.availability.lose_replicas
    fewer = End(str(lost - 1), lambda: _losing(space, lost - 1)) if lost else End("0", None)
    yield Factor("replicas that may be lost", fewer, End(str(lost + 1), lambda: _losing(space, lost + 1)))


def restricted(space: Space, options: Sequence[int], policies: Sequence[int]) -> Space:
    """The space of these options, in this order, under these policies, whatever the budget."""
    built = space.built
    specs = tuple(built.scenario.pools[option] for option in options)
    chosen = tuple(space.spec.policies[policy] for policy in policies)
    scenario = built.scenario.model_copy(update={"pools": specs, "policies": chosen})
    variants = tuple(built.variants[option] for option in options)
    pools = tuple(built.pools[option] for option in options)
    return Space(
        space.spec.model_copy(update={"policies": chosen, "budget_usd_per_month": None}),
        tuple(space.options[option] for option in options),
        (),
        replace(built, scenario=scenario, variants=variants, pools=pools),
    )


def _busier(space: Space, factor: float) -> Space:
    return replace(space, built=replace(space.built, trace=space.built.trace.scaled(rate=factor)))


def _longer(space: Space, input_factor: float = 1.0, output_factor: float = 1.0) -> Space:
    trace = space.built.trace.scaled(input=input_factor, output=output_factor)
    return replace(space, built=replace(space.built, trace=trace))


def _slower(space: Space, sign: float) -> Space:
    """Every option's step times off by its error, all in the same direction."""
    pools = tuple(
        replace(pool, step_time=ScaledStepTime(pool.step_time, 1 + sign * _error(variant.calibration)))
        for pool, variant in zip(space.built.pools, space.built.variants, strict=True)
    )
    return replace(space, built=replace(space.built, pools=pools))


def _error(found: Any) -> float:
    """The error that a whole run has in common, by the calibration; without one, or where it states none, a guess."""
    return (found and found.calibration.error.bias_sd) or UNKNOWN_ERROR


def _errors(space: Space) -> tuple[str, str]:
    sizes = sorted({_error(variant.calibration) for variant in space.built.variants})
    said = f"{sizes[0]:.0%}" if len(sizes) == 1 else f"{sizes[0] * 100:.0f} to {sizes[-1]:.0%}"
    return f"{said} faster", f"{said} slower"


def _aimed(space: Space) -> Iterator[bool]:
    for name in space.classes:
        wanted = space.wanted(name)
        yield any(slo is not None and any(slo.model_dump().values()) for slo in (wanted.slo, wanted.p99))


def _aiming(space: Space, factor: float) -> Space:
    """All latency limits so many times as long."""
    classes = {name: _with_limits(each, factor) for name, each in space.spec.classes.items()}
    told = {name: _with_limits(each, factor) for name, each in space.built.scenario.classes.items()}
    scenario = space.built.scenario.model_copy(update={"classes": told})
    spec = space.spec.model_copy(update={"classes": classes})
    return replace(space, spec=spec, built=replace(space.built, scenario=scenario, slo=slos(scenario)))


def _with_limits(asked: Any, factor: float) -> Any:
    limits: Mapping[str, SloSpec | None] = {part: getattr(asked, part, None) for part in ("slo", "p99")}
    scaled = {
        part: SloSpec(**{name: None if value is None else value * factor for name, value in slo.model_dump().items()})
        for part, slo in limits.items()
        if slo is not None
    }
    return asked.model_copy(update=scaled)


def _losing(space: Space, replicas: int) -> Space:
    available = space.spec.availability.model_copy(update={"lose_replicas": replicas})
    return replace(space, spec=space.spec.model_copy(update={"availability": available}))
