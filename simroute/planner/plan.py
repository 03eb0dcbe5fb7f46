"""`plan`: the cheapest fleet that keeps every promise, what comes near it, and the document that says so.

Owns `plan`, `PlanResult` and plan.json. Imports this room, results and scenario; pandas where a table is asked for.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simroute.planner.bounds import Bounds
from simroute.planner.cache import Cache
from simroute.planner.candidates import Space, space_of
from simroute.planner.evaluate import Candidate, Evaluator, Verdict
from simroute.planner.executor import Executor, Flag, ProcessPool
from simroute.planner.frontier import (
    binding,
    frontier,
    phrase,
    plan_document,
    runner_up,
    shown,
)
from simroute.planner.judge import Check, worst
from simroute.planner.loading import load_plan
from simroute.planner.plots import Plots
from simroute.planner.proof import PROOF, proof
from simroute.planner.relax import relaxed
from simroute.planner.search import Progress, Search
from simroute.planner.spec import PlanSpec
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
    progress: Progress | None = None,
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
        found = _answered(search, lambda done, what: told(SEARCHED + (1 - SEARCHED) * done, what))
    found["search"]["seconds"] = time.perf_counter() - began
    return PlanResult(rounded(found), evaluator.stopped)


class _Told:
    """Progress as it was told last, to be told again so that a clock beside it moves."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._last = (0.0, "fleets of one variant")

    def __call__(self, done: float, what: str) -> None:
        self._last = (done, what)
        self.again()

    def again(self) -> None:
        """The same as before."""
        if self._progress:
            self._progress(*self._last)


def _answered(search: Search, progress: Progress) -> dict[str, Any]:
    """The whole document but for the time it took."""
    space, evaluator = search.space, search.evaluator
    best = search.best
    ranked = sorted((v for v in search.verdicts() if v.meets), key=search.order)
    document: dict[str, Any] = {"name": space.spec.name, "answer": "", "feasible": best is not None}
    near, relax = (None, []) if best else relaxed(search)
    others = [v for v in ranked if best is not None and v.candidate != best.candidate]
    second = runner_up(best, others) if best else None
    cut = _stopped(evaluator)
    kept = frontier(space, ranked)
    stands = proof(search, best, [*([second] if second else []), *kept], progress) if best else {}
    cheaper = _cheaper(search, best) if best else []
    bound = binding(best, cheaper) if best else []
    document |= {
        "best": best and plan_document(space, best),
        "runner_up": second and plan_document(space, second),
        "frontier": [_short(space, v) for v in kept],
        "evaluated": [_short(space, v) for v in sorted(search.verdicts(), key=search.order)],
        "nearest": near and plan_document(space, near),
        "relax": relax,
        "binding": [check.document(margin=True) for check in bound],
        **{part: stands.get(part) for part in PROOF},
        "search": _told(search),
        "unfit": [unfit._asdict() for unfit in space.unfit],
        **_context(space),
        "notes": [
            *space.built.trace.notes,
            *space.idle_classes,
            *_basis(space, best, second),
            *_unstated(space),
            *search.notes,
            *stands.get("notes", ()),
            *cut,
        ],
    }
    less = _with_less(cheaper, bound) if best else ""
    document["answer"] = _sentence(search, best, near, relax, less)
    return document


def _short(space: Space, verdict: Verdict) -> dict[str, Any]:
    """A plan without its full summary."""
    return plan_document(space, verdict) | {"summary": None}


def _stopped(evaluator: Evaluator) -> list[str]:
    return ["interrupted: fleets that were not simulated may be cheaper"] if evaluator.stopped else []


def _basis(space: Space, *verdicts: Verdict | None) -> list[str]:
    """What the results rest on, as far as it concerns these plans."""
    used = {o for verdict in verdicts if verdict for o, _ in verdict.candidate.fleet}
    names = [space.options[o].name for o in sorted(used)]
    notes = [n for n in space.built.notes if any(f"pool {name}:" in n for name in names)]
    estimated = [space.options[o].name for o in sorted(used) if space.built.pools[o].step_time.estimated]
    return [*notes, *(f"step times of {name} are estimated, not calibrated on this hardware" for name in estimated)]


def _unstated(space: Space) -> list[str]:
    """Variants that a quality floor rules out for no other reason than that nobody has said how good they are."""
    found: dict[str, list[str]] = {}
    for pool in space.built.pools:
        for name in space.classes:
            if name in space.built.quality_floor and name not in pool.variant.quality:
                found.setdefault(name, []).append(pool.name)
    return [
        f"no quality for {name} is known of {', '.join(pools)}: counts as 0; state it under `quality`"
        for name, pools in found.items()
    ]


def _context(space: Space) -> dict[str, Any]:
    """What was asked, and what it rests on."""
    trace = space.built.trace
    classes = {name: space.wanted(name).model_dump(mode="json") for name in space.classes}
    for name, wanted in classes.items():
        wanted["attainment"] = space.attainment(name)
    spec = space.spec
    return {
        "slo": classes,
        "constraints": {
            "budget_usd_per_month": spec.budget_usd_per_month,
            "quotas": dict(spec.quotas),
            "availability": spec.availability.model_dump(mode="json"),
            "floor_share": spec.floor_share,
        },
        "traffic": {
            "traces": list(space.built.trace_names()),
            "requests": len(trace),
            "seconds": trace.duration_s,
            "requests_per_s": len(trace) / max(trace.duration_s, 1e-9),
            "input_tokens_mean": float(trace.input_tokens.mean()),
            "output_tokens_mean": float(trace.output_tokens.mean()),
            "growth": spec.traffic.growth,
            "classes": {name: space.requests(name) for name in space.classes},
        },
        "seed": spec.seed,
        "assumptions": list(space.built.stated()),
    }


def _told(search: Search) -> dict[str, Any]:
    """What the search did with its candidates."""
    space, tally = search.space, search.evaluator.tally
    candidates, known = space.size(), {verdict.candidate for verdict in search.verdicts()}
    pruned: Counter[str] = Counter()
    for fleet in space.lone_fleets():
        reason, routed = space.refusal(fleet) or search.bounds.refusal(fleet), space.policies_for(fleet)
        for policy in range(len(space.spec.policies)):
            why = reason or (None if policy in routed else "policy")
            if why is not None and Candidate(fleet, policy) not in known:
                pruned[why] += 1
    asked = len(known)
    pruned["not_needed"] = max(candidates - sum(pruned.values()) - asked, 0)
    return {
        "candidates": candidates,
        "options": len(space.options),
        "pruned": {reason: n for reason, n in pruned.items() if n},
        "asked": asked,
        "simulated": tally.simulated,
        "reused": tally.reused,
        "failed": tally.failed,
        "exhaustive": search.exhaustive,
        "gap": search.gap and search.gap.document(),
    }


def _cheaper(search: Search, best: Verdict) -> list[Verdict]:
    """Fleets of the same variants and policy, cheaper than the best, that were asked about: the dearest of them."""
    used = [option for option, _ in best.candidate.fleet]
    cost = search.space.usd_per_month(best.candidate.fleet)
    found = [
        v
        for v in search.verdicts()
        if [o for o, _ in v.candidate.fleet] == used
        and v.candidate.policy == best.candidate.policy
        and search.space.usd_per_month(v.candidate.fleet) < cost
    ]
    return sorted(found, key=lambda v: -search.space.usd_per_month(v.candidate.fleet))[: len(used)]


def _with_less(cheaper: Sequence[Verdict], bound: Sequence[Check]) -> str:
    """What keeps the best plan from being smaller: what its nearest cheaper neighbour breaks, else the least room."""
    broken = sorted((c for v in cheaper[:1] for c in v.violations if c.value is not None), key=lambda c: c.margin)
    if broken:
        worst_off = broken[0]
        most = "at best " if cheaper[0].stage == "peak" else ""
        value, limit = shown(worst_off, worst_off.value), shown(worst_off, worst_off.limit)
        return f"; with less, {phrase(worst_off)} is {most}{value}, and {limit} is promised"
    tight = next(iter(bound), None)
    return "" if tight is None else f"; least room has {phrase(tight)}: {shown(tight, tight.value)}"


def _sentence(
    search: Search,
    best: Verdict | None,
    near: Verdict | None,
    relax: Sequence[Mapping[str, Any]],
    less: str,
) -> str:
    """The answer, first thing on every page."""
    space = search.space
    if best is not None:
        fleet, policy = best.candidate
        counts = " + ".join(f"{count} x {space.options[option].name}" for option, count in fleet)
        gpus = ", ".join(f"{count} {gpu}" for gpu, count in space.gpus(fleet).items())
        text = f"Buy {counts} ({gpus}) under {space.spec.policies[policy].shown}: "
        text += f"${space.usd_per_month(fleet):,.0f} a month"
        text += less
        return text + "."
    text = f"No fleet {'here' if search.exhaustive else 'that was simulated'} keeps every promise"
    if near is not None and worst(near.checks) > 0:
        text += (
            f": the nearest is {space.key(*near.candidate)}, ${space.usd_per_month(near.candidate.fleet):,.0f} a month"
        )
    if relax:
        more = f" (and {len(relax) - 1} more, all of them)" if len(relax) > 1 else ""
        text += f"; {relax[0]['text']}{more}"
    return text + "."
