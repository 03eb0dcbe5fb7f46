"""When no fleet keeps every promise: the nearest miss, and what would have to be asked less of, by how much.

Imports results and, of the planner, bounds, candidates, evaluate, frontier, judge and search.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from simroute.planner.answer.frontier import nearest, phrase, relaxation, shown
from simroute.planner.fleets.bounds import Bounds
from simroute.planner.fleets.candidates import Space
from simroute.planner.fleets.evaluate import Verdict
from simroute.planner.fleets.judge import Check, cheap_checks
from simroute.planner.fleets.search import Search
from simroute.results.stability import Stability

MOST_RELAXED = 12
"""Largest fleets replayed whole to see how near an infeasible plan comes."""


def relaxed(search: Search) -> tuple[Verdict | None, list[dict[str, Any]]]:
    """The nearest miss of a plan that no fleet fulfils, and what would have to be asked less of.

    Where a budget or quotas count, the cheapest fleet that would do without them; without one, what else is broken.
    """
    spec = search.space.spec
    limited = spec.budget_usd_per_month is not None or bool(spec.quotas)
    wider = _without_limits(search) if limited else search
    near = wider.best or _near(wider)
    search.evaluator.stopped = wider.evaluator.stopped
    limits = [] if near is None else [c for c in cheap_checks(search.space, near.candidate.fleet) if not c.kept]
    if near is not None:
        near = replace(near, checks=(*limits, *near.checks))
    raised = [_limit_relaxation(check) for check in limits]
    if wider.best is not None:
        return near, raised
    floors = [*_unreachable(wider.space, wider.bounds), *_too_long(wider)]
    said = {(each["constraint"], each["class"]) for each in floors}
    broken = () if near is None else near.violations
    open_ = [c for c in broken if c not in limits and (c.constraint, c.request_class) not in said]
    if any(check.constraint == "stability" for check in open_):  # (lateness in a queue that only grows says nothing)
        open_ = [check for check in open_ if check.constraint in ("stability", "quality_floor")]
    other = [_relaxation(search.space, near, check, wider.bounds) for check in open_ if near is not None]
    found = [*floors, *other, *raised]
    return near, found if found or wider.evaluator.stopped else [_nothing_left(wider)]


def _near(search: Search) -> Verdict | None:
    """The least broken of what was replayed whole, the largest fleets among them."""
    space = search.space
    tops = [_largest(space, o) for o in range(len(space.options))]
    refused = [search.bounds.variants_refused((o,)) for o in range(len(space.options))]
    order = sorted(
        (o for o in range(len(tops)) if tops[o]),
        key=lambda o: (refused[o] == "quality", refused[o] is not None, search.bounds.least(o) / tops[o]),
    )
    if not search.evaluator.stopped:
        search.evaluator.ask_whole(search.candidates(((o, tops[o]),) for o in order[:3])[:MOST_RELAXED])
    return nearest(search.verdicts(), lambda v: (_excess(space, v), space.usd_per_month(v.candidate.fleet)))


def _relaxation(space: Space, near: Verdict, check: Check, bounds: Bounds) -> dict[str, Any]:
    """What to relax; where too few requests are in time on the whole fleet, the limits that they would keep to.

    For an OVERLOADED fleet of one variant, the replicas that its bound asks for.
    """
    found = relaxation(check)
    if check.constraint == "stability" and len(near.candidate.fleet) == 1:
        ((option, count),) = near.candidate.fleet
        if (least := bounds.least(option)) > count:
            return found | {"text": f"{found['text']}; of {space.options[option].name} at least {least} are needed"}
    beyond = _beyond(space, near, check.request_class) if check.constraint == "attainment" and not check.loss else {}
    if not beyond:
        return found
    limits = " and ".join(
        f"the {latency.upper()} limit of {check.request_class} from {limit:g} s to {p99_s:.3g} s"
        for latency, (limit, p99_s) in beyond.items()
    )
    text = f"relax {limits} (its p99 there), or {found['text'].removeprefix('relax ')}"
    return found | {"text": text, "slo": {f"{latency}_s": p99_s for latency, (_, p99_s) in beyond.items()}}


def _beyond(space: Space, verdict: Verdict, request_class: str | None) -> dict[str, tuple[float, float]]:
    """Of each latency that a class's requests are held to and whose p99 is beyond it: (limit, p99), in seconds."""
    seen = (verdict.summary or {}).get("by_class", {}).get(request_class, {})
    slo = space.wanted(str(request_class)).slo
    found = {}
    for latency in ("ttft", "tpot", "e2e"):
        limit, p99_s = getattr(slo, f"{latency}_s", None), (seen.get(f"{latency}_s") or {}).get("p99")
        if limit is not None and p99_s is not None and p99_s > limit:
            found[latency] = (limit, p99_s)
    return found


def _excess(space: Space, verdict: Verdict) -> float:
    """How many times their limits the p99s are, all together: what tells apart fleets on which nothing is in time."""
    if verdict.summary is None or verdict.summary["stability"] == Stability.OVERLOADED:
        return math.inf
    beyond = [pair for name in space.classes for pair in _beyond(space, verdict, name).values()]
    return sum(p99_s / limit for limit, p99_s in beyond)


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
            reach = max(scores, default=None)
            if reach is None:
                text = f"no quality for {name} is known of any variant: state it under `quality`, or drop the floor"
            else:
                text = (
                    f"relax the quality floor of {name} from {floor:g} to {reach:g}, the best that any variant reaches"
                )
            found.append(_advice("quality_floor", name, floor, reach, text))
    return found


def _too_long(search: Search) -> list[dict[str, Any]]:
    """Classes that have more prompts which no variant takes than may be missed."""
    space, trace = search.space, search.space.built.trace
    longest = max(pool.engine.max_model_len for pool in space.built.pools)
    found = []
    for limits, name in zip(search.bounds.limits, space.classes, strict=True):
        count = int((trace.input_tokens[limits.members] >= longest).sum())
        share, limit = 1 - count / space.requests(name), space.attainment(name)
        if share < limit:
            text = (
                f"{count:,} of {space.requests(name):,} prompts of {name} are longer than any variant takes "
                f"({longest:,} tokens): raise engine.max_model_len, or promise {name} at most {share:.2%}"
            )
            found.append(_advice("attainment", name, limit, share, text))
    return found


def _nothing_left(search: Search) -> dict[str, Any]:
    """Where nothing could be replayed to come near: a loss leaves every fleet empty, or every replay failed."""
    errors = [verdict.error for verdict in search.verdicts() if verdict.error]
    if errors and any(search.bounds.refusal(fleet) is None for fleet in search.space.lone_fleets()):
        return _advice("simulation", None, None, None, f"every replay failed: {errors[0]}")
    lost = "every fleet here would be lost whole: allow more replicas in `candidates` and `fleets`, or lose fewer"
    return _advice("availability", None, None, None, lost)


def _advice(
    constraint: str, request_class: str | None, limit: float | None, needed: float | None, text: str
) -> dict[str, Any]:
    return {"constraint": constraint, "class": request_class, "limit": limit, "needed": needed, "text": text}


def _without_limits(search: Search) -> Search:
    """The same search without budget and quotas."""
    spec = search.space.spec
    free = spec.model_copy(update={"budget_usd_per_month": None, "quotas": {}})
    space = replace(search.space, spec=free)
    wider = Search(
        replace(search.evaluator, space=space, verdicts={}), replace(search.bounds, space=space), search.progress
    )
    wider.run()
    return wider


def _limit_relaxation(check: Check) -> dict[str, Any]:
    text = f"raise {phrase(check)} from {shown(check, check.limit)} to {shown(check, check.value)}"
    return relaxation(check) | {"text": text}
