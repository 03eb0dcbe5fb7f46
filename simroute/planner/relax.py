"""When no fleet keeps every promise: the nearest miss, and what would have to be asked less of, by how much.

Imports, of this room, bounds, candidates, evaluate, frontier, judge and search.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from simroute.planner.bounds import Bounds
from simroute.planner.candidates import Space
from simroute.planner.evaluate import Candidate, Verdict
from simroute.planner.frontier import nearest, phrase, relaxation, shown
from simroute.planner.judge import Check, cheap_checks
from simroute.planner.search import Search

MOST_RELAXED = 12
"""Largest fleets replayed whole to see how near an infeasible plan comes."""


def relaxed(search: Search) -> tuple[Verdict | None, list[dict[str, Any]]]:
    """The nearest miss of a plan that no fleet fulfils, and what would have to be asked less of."""
    space, spec = search.space, search.space.spec
    relax = _without_limits(search) if spec.budget_usd_per_month is not None or spec.quotas else None
    if relax is not None:
        return relax
    tops = [_largest(space, o) for o in range(len(space.options))]
    refused = [search.bounds.variants_refused((o,)) for o in range(len(space.options))]
    order = sorted(
        (o for o in range(len(tops)) if tops[o]),
        key=lambda o: (refused[o] == "quality", refused[o] is not None, search.bounds.least(o) / tops[o]),
    )
    if not search.evaluator.stopped:
        asked = [Candidate(((o, tops[o]),), p) for o in order[:3] for p in range(len(spec.policies))]
        search.evaluator.ask_whole(asked[:MOST_RELAXED])
    near = nearest(search.verdicts(), lambda v: space.usd_per_month(v.candidate.fleet))
    broken = [] if near is None else [relaxation(check) for check in near.violations]
    return near, [*_unreachable(space, search.bounds), *broken]


def _largest(space: Space, option: int) -> int:
    """The most replicas of an option that quotas, budget and sizes allow; 0 where they allow none."""
    limits = space.options[option].replicas
    counts = range(limits.max, limits.min - 1, -1)
    return next((n for n in counts if space.refusal(((option, n),)) is None), 0)


def _unreachable(space: Space, bounds: Bounds) -> list[dict[str, Any]]:
    """Quality floors that no variant reaches."""
    found = []
    for c, name in enumerate(space.classes):
        floor = space.built.quality_floor.get(name)
        if floor is not None and not bounds.able[:, c].any():
            scores = [pool.variant.quality[name][0] for pool in space.built.pools if name in pool.variant.quality]
            reach = max(scores, default=0.0)
            text = f"relax the quality floor of {name} from {floor:g} to {reach:g}, the best that any variant reaches"
            found.append({"constraint": "quality_floor", "class": name, "limit": floor, "needed": reach, "text": text})
    return found


def _without_limits(search: Search) -> tuple[Verdict | None, list[dict[str, Any]]] | None:
    """The same search without budget and quotas: the cheapest fleet that would do, and what it breaks."""
    spec = search.space.spec
    free = spec.model_copy(update={"budget_usd_per_month": None, "quotas": {}})
    space = replace(search.space, spec=free)
    evaluator = replace(search.evaluator, space=space, verdicts={})
    wider = Search(evaluator, replace(search.bounds, space=space), search.progress)
    wider.run()
    best = wider.best
    search.evaluator.stopped = evaluator.stopped
    if best is None:
        return None
    fleet = best.candidate.fleet
    limits = [check for check in cheap_checks(search.space, fleet) if not check.kept]
    near = replace(best, checks=(*limits, *best.checks))
    return near, [_limit_relaxation(check) for check in limits]


def _limit_relaxation(check: Check) -> dict[str, Any]:
    text = f"raise {phrase(check)} from {shown(check, check.limit)} to {shown(check, check.value)}"
    return relaxation(check) | {"text": text}
