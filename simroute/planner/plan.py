"""`plan`: the cheapest fleet that keeps every promise, what comes near it, and the document that says so.

Owns `plan` and `PlanResult`. Imports this room, results and scenario; pandas where a table is asked for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simroute.planner.answer.document import answered
from simroute.planner.answer.plots import Plots
from simroute.planner.execution.cache import Cache
from simroute.planner.execution.executor import Executor, Flag, ProcessPool
from simroute.planner.fleets.bounds import Bounds
from simroute.planner.fleets.candidates import space_of
from simroute.planner.fleets.evaluate import Evaluator
from simroute.planner.fleets.loading import load_plan
from simroute.planner.fleets.search import Search, Stages
from simroute.planner.fleets.spec import PlanSpec
from simroute.results.metrics import rounded
from simroute.scenario.replay import interruptible

if TYPE_CHECKING:
    import pandas

PLAN = "plan.json"
SEARCHED = 0.65
"""Share of the progress that the search is; headroom, curve and sensitivity are the rest."""


@dataclass(frozen=True)
class PlanResult:
    """What a search found. `document` is all of plan.json; `interrupted` says that Ctrl-C cut it short."""

    document: Mapping[str, Any]
    interrupted: bool

    @property
    def feasible(self) -> bool:
        """Whether any fleet keeps every promise."""
        return bool(self.document["feasible"])

    @property
    def best(self) -> Mapping[str, Any] | None:
        """The cheapest plan that does, as in plan.json."""
        return self.document["best"]  # type: ignore[no-any-return]

    @property
    def plot(self) -> Plots:
        """Its charts as plotly figures: `.plot.frontier()`, `.curve()`, `.day()` and `.sensitivity()`."""
        return Plots(self.document)

    @cached_property
    def frontier(self) -> pandas.DataFrame:
        """The Pareto frontier, a row a plan: id, policy, gpus, cost_usd_per_month and the headlines."""
        import pandas

        rows = [
            {"id": p["id"], "policy": p["policy"]["label"], "gpus": p["gpus"]}
            | {"cost_usd_per_month": p["cost_usd_per_month"]}
            | p["headlines"]
            for p in self.document["frontier"]
        ]
        return pandas.DataFrame(rows)


def plan(
    spec: PlanSpec | str | os.PathLike[str],
    *,
    seed: int | None = None,
    exact: bool = False,
    executor: Executor | None = None,
    cache: Cache | str | os.PathLike[str] | None = None,
    progress: Stages | None = None,
    stop: Callable[[], bool] | None = None,
) -> PlanResult:
    """The cheapest of a plan's fleets that keeps every promise.

    `spec` is a plan file or a plan; `seed` stands in for its own. `executor` runs the replays (left out: a process a
    CPU), `cache` keeps their results (a folder, or left out: nowhere), `progress` is told the share done and what is
    being done, and once `stop()` is true what is finished is kept. The same plan gives the same answer, however many
    processes there are. Raises SimrouteError for what the user can mend.
    """
    if not isinstance(spec, PlanSpec):
        spec = load_plan(os.fspath(spec))
    spec = spec if seed is None else spec.model_copy(update={"seed": seed})
    began = time.perf_counter()
    space = space_of(spec)
    kept = cache if isinstance(cache, Cache) else Cache(None if cache is None else Path(cache))
    flag, told = Flag(), _Told(progress)

    def stopping() -> bool:
        told.again()  # (asked time and again while replays run)
        return flag.value != 0 or (stop is not None and stop())

    evaluator = Evaluator(space, executor or ProcessPool(), kept, stopping, exact)
    search = Search(evaluator, Bounds(space), lambda done, what: told(SEARCHED * done, what))
    with interruptible(flag):
        search.run()
        found = answered(search, lambda done, what: told(SEARCHED + (1 - SEARCHED) * done, what))
    found["search"]["seconds"] = time.perf_counter() - began
    return PlanResult(rounded(found), evaluator.stopped)


class _Told:
    """Progress as it was told last, to be told again so that a clock beside it moves."""

    def __init__(self, progress: Stages | None) -> None:
        self._progress = progress
        self._last = (0.0, "fleets of one variant")

    def __call__(self, done: float, what: str) -> None:
        self._last = (done, what)
        self.again()

    def again(self) -> None:
        """The same as before."""
        if self._progress:
            self._progress(*self._last)
