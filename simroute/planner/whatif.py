"""`whatif`: a matrix of changes and rates → when does each target break, what does it cost, what to buy next.

Rows are the scenario as it is and one change after the other, columns the traffic at several rates. All cells see the
same random streams. Where a target breaks between two rates, the rate is found by bisection.
Imports errors, scenario and what is below it, and of the planner cache, cells, changes, executor, naming, purchase,
spot and targets.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from simroute.errors import SimrouteError, SimulationError, UnfitError, UsageError
from simroute.planner.execution.cache import Cache
from simroute.planner.execution.executor import Executor, ProcessPool, Progress, portion
from simroute.planner.fleets.naming import said
from simroute.planner.study.cells import TODAY, At, Cells, Variation
from simroute.planner.study.changes import Change, applied
from simroute.planner.study.document import document
from simroute.planner.study.purchase import Buying, Need, first_break
from simroute.planner.study.spot import SUFFIX
from simroute.planner.targets import Constraint
from simroute.results.compare import rank
from simroute.results.stability import Stability
from simroute.scenario.build import Built, build
from simroute.scenario.loader import load
from simroute.scenario.models import PolicySpec, Scenario
from simroute.scenario.replay import cpus
from simroute.scenario.run import chosen

if TYPE_CHECKING:
    import pandas as pd

RATES = (0.5, 1.0, 1.5, 2.0, 3.0, 5.0)
"""Times today's traffic, unless said otherwise."""
PRECISION = 0.1
"""A break is known when the rates on its two sides differ by no more than this share."""
MOST_RATES = 100
BASE = 0
"""The scenario as it is, among the variations."""


@dataclass(frozen=True, slots=True)
class WhatIf:
    """Everything that was found; `document()` is whatif.json."""

    cells: Cells
    rates: tuple[float, ...]
    precision: float
    tried: tuple[str, ...]
    impossible: tuple[tuple[str, str], ...]
    buying: Buying | None

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C cut it short: cells are missing."""
        return self.cells.interrupted

    @property
    def base(self) -> Built:
        """The scenario as it is."""
        return self.cells.variations[BASE].built

    def document(self) -> dict[str, Any]:
        """The whole as plain JSON data (see docs/whatif.md): the same study gives the same document."""
        return document(self.cells, self.rates, self.precision, self.tried, self.impossible, self.buying)

    def frame(self) -> pd.DataFrame:
        """One row a cell: the variation, the rate and its headline numbers."""
        import pandas as pd

        rows = [
            {"variation": row["name"], "policy": row["policy"], "rate": cell["rate"], "meets": cell["meets"]}
            | {"stability": cell["stability"], "cost_usd_per_month": cell["cost_usd_per_month"]}
            | cell["headlines"]
            for row in self.document()["variations"]
            for cell in row["cells"]
            if "headlines" in cell
        ]
        return pd.DataFrame(rows)


def whatif(
    scenario: Scenario | Built | str | os.PathLike[str],
    changes: Iterable[Change] = (),
    *,
    rates: Sequence[float] = RATES,
    policies: Sequence[str] | None = None,
    precision: float = PRECISION,
    buy: bool = True,
    seed: int | None = None,
    exact: bool = False,
    executor: Executor | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> WhatIf:
    """Replay `scenario` (a file, a scenario, or one already built) as it is and with each of `changes`, at `rates`.

    `rates` are times today's traffic; 1 is always among them. Everything runs under the first of `policies` (labels or
    names; left out: the best of the scenario's for today's traffic), and each further one is a change more.
    With `buy`, replicas are added at the first rate at which the scenario as it is breaks, and for each change that
    breaks today's traffic. `executor` runs the cells (default: a process a CPU), `cache` keeps them, `progress` is told
    the share of the work that is done.
    A change that is impossible in this scenario is reported, and the others go on. Raises SimrouteError, before
    anything is replayed, for what the user can mend in scenario, changes, rates and policies.
    """
    steps = _checked(rates, precision)
    if isinstance(scenario, str | os.PathLike):
        scenario = load(os.fspath(scenario))
    built = build(scenario) if isinstance(scenario, Scenario) else scenario
    if seed is not None:
        built = replace(built, scenario=built.scenario.model_copy(update={"seed": seed}))
    told = _Told(progress)
    cells = Cells([], executor or ProcessPool(), cache or Cache(None), exact, steps)
    outcomes = _outcomes(built, [*changes, *(Change(policy=name) for name in (policies or ())[1:])])
    policy, tried = _policy(cells, built, policies, told)
    cells.variations.append(Variation.of("as it is", built, policy))
    impossible = _vary(cells, outcomes)
    buying = Buying(cells)
    try:
        _grid(cells, steps, told.part(0.7))
        _bisect(cells, precision, told.part(0.9))
        if buy:
            buying.look(_needs(cells, steps), told.part(1.0))
    except KeyboardInterrupt:  # between two rounds; within one, the executor hears it
        cells.interrupted = True
    if progress:
        progress(1.0)
    return WhatIf(cells, steps, precision, tried, tuple(impossible), buying if buy else None)


def _checked(rates: Sequence[float], precision: float) -> tuple[float, ...]:
    """The rates in order, today's among them."""
    for rate in rates:
        if not 1e-3 <= rate <= 1e3:
            raise UsageError(f"rate: must be from 0.001 to 1000 times the traffic, got {rate:g}")
    if not 0.001 <= precision <= 1:
        raise UsageError(f"precision: must be from 0.001 to 1, such as 0.1, got {precision:g}")
    steps = tuple(sorted({TODAY, *map(float, rates)}))
    if len(steps) > MOST_RATES:
        raise UsageError(f"rates: at most {MOST_RATES}, got {len(steps)}")
    return steps


def _policy(cells: Cells, built: Built, names: Sequence[str] | None, told: _Told) -> tuple[PolicySpec, tuple[str, ...]]:
    """The policy of all cells, and which were tried for it: the best for today's traffic, unless one is named."""
    specs = chosen(built.scenario, names)
    if names or len(specs) == 1:
        return specs[0], ()
    trial = Cells([Variation.of("as it is", built, spec) for spec in specs], cells.executor, cells.cache, cells.exact)
    trial.ask([At(i, TODAY) for i in range(len(specs))], told.part(0.1))
    cells.simulated, cells.reused, cells.interrupted = trial.simulated, trial.reused, trial.interrupted
    if not trial.known:
        reasons = "; ".join(dict.fromkeys(trial.failed.values())) or "interrupted"
        raise SimulationError(f"no policy of the scenario could be replayed: {reasons}")
    best = rank(list(trial.known.values()))[0]
    found = next(at.variation for at, summary in trial.known.items() if summary is best)
    cells.known[At(BASE, TODAY)] = best
    return specs[found], tuple(spec.shown for spec in specs)


def _outcomes(built: Built, changes: Sequence[Change]) -> list[tuple[Change, Built | UnfitError]]:
    """What becomes of the scenario under each change. Raises UsageError for one that names what does not exist."""
    found: list[tuple[Change, Built | UnfitError]] = []
    for change in changes:
        try:
            if change.policy:
                chosen(built.scenario, [change.policy])
            found.append((change, applied(built, change)))
        except UnfitError as error:
            found.append((change, error))
        except SimrouteError as error:
            named = f"change {change.name}: " if change.name else ""
            raise UsageError(named + _one_line(error)) from error
    return found


def _vary(cells: Cells, outcomes: Sequence[tuple[Change, Built | UnfitError]]) -> list[tuple[str, str]]:
    """Add a variation for each change that can be; gives (name, reason) of the others."""
    base = cells.variations[BASE]
    impossible = []
    for change, built in outcomes:
        try:
            if isinstance(built, UnfitError):
                raise built
            policy = chosen(built.scenario, [change.policy])[0] if change.policy else base.policy
            _check_split(base.built, built, policy)
            built.policy(policy, built.scenario.seed)  # options that do not fit the changed fleet are found here
        except SimrouteError as error:
            impossible.append((change.shown, _one_line(error)))
        else:
            cells.variations.append(Variation.of(change.shown, built, policy))
    return impossible


def _check_split(before: Built, after: Built, policy: PolicySpec) -> None:
    """Refuse a pool in two parts under a policy that was told of one: it would send the other nothing."""
    old = {pool.name for pool in before.pools}
    for name in (pool.name for pool in after.pools if pool.name not in old):
        whole = name.removesuffix(SUFFIX)
        if whole in old and whole in said(policy) and name not in said(policy):
            raise UnfitError([f"spot: policy {policy.shown} names pool {whole} and would send nothing to {name}"])


def _one_line(error: SimrouteError) -> str:
    return "; ".join(str(error).splitlines())


def _needs(cells: Cells, steps: Sequence[float]) -> list[Need]:
    """The first break of the scenario as it is, and today's traffic of every change that breaks it."""
    rate = first_break(cells, BASE, steps)
    found = [] if rate is None else [Need(BASE, rate)]
    today = (At(number, TODAY) for number in range(BASE + 1, len(cells.variations)))
    return found + [Need(at.variation, at.rate) for at in today if at in cells.known and not cells.holds(at)]


def _grid(cells: Cells, steps: Sequence[float], progress: Progress | None) -> None:
    """Every variation at every rate, from the lowest up; beyond the first OVERLOADED one only today's is of use."""
    ahead = {number: list(steps) for number in range(len(cells.variations))}
    of = len(ahead) * len(steps)
    while ahead and not cells.interrupted:
        depth = -(-cpus() // len(ahead))
        before = of - sum(map(len, ahead.values()))
        wave = [At(number, rate) for number, left in ahead.items() for rate in left[:depth]]
        cells.ask(wave, portion(progress, before / of, (before + len(wave)) / of))
        for number, left in list(ahead.items()):
            over = any(
                cells.known.get(At(number, rate), {}).get("stability") == Stability.OVERLOADED for rate in left[:depth]
            )
            del left[:depth]
            ahead[number] = left = [rate for rate in left if rate == TODAY] if over else left
            if not left:
                del ahead[number]


def _bisect(cells: Cells, precision: float, progress: Progress | None) -> None:
    """Narrow every break of the scenario as it is, and the first one of each variation."""
    rounds = 0
    while not cells.interrupted:
        middles = [
            At(number, middle)
            for number, variation in enumerate(cells.variations)
            for constraint in (None, *(variation.constraints if number == BASE else ()))
            if (middle := _middle(cells, number, constraint, precision)) is not None
        ]
        middles = [at for at in dict.fromkeys(middles) if at not in cells.failed]
        if not middles:
            return
        cells.ask(middles, portion(progress, 1 - 0.5**rounds, 1 - 0.5 ** (rounds + 1)))
        rounds += 1


def _middle(cells: Cells, number: int, constraint: Constraint | None, precision: float) -> float | None:
    """The rate to look at next between the two sides of a break; None when it is known well enough."""
    low, high = cells.bracket(number, constraint)
    if low is None or high is None or high <= low * (1 + precision):
        return None
    middle = float(f"{math.sqrt(low * high):.3g}")
    return middle if low < middle < high else None


class _Told:
    """Progress of the whole, of which stage after stage is a part."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._done = 0.0

    def part(self, end: float) -> Progress | None:
        """Progress of the stage that ends at the share `end`."""
        if self._progress is None:
            return None
        start, self._done = self._done, end
        return portion(self._progress, start, end)
