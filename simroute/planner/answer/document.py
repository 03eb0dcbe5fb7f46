"""The document of a plan, plan.json: the answer in one sentence, what proves it, and what it rests on.

Imports this room, results and, of scenario, run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from simroute.planner.answer.frontier import (
    at_best,
    binding,
    frontier,
    phrase,
    plan_document,
    runner_up,
    shown,
)
from simroute.planner.answer.proof import PROOF, proof
from simroute.planner.answer.relax import relaxed
from simroute.planner.fleets.candidates import Space
from simroute.planner.fleets.evaluate import Candidate, Evaluator, Verdict
from simroute.planner.fleets.judge import Check, worst
from simroute.planner.fleets.search import Search, Stages
from simroute.scenario.run import provenance


def answered(search: Search, progress: Stages) -> dict[str, Any]:
    """The whole document but for the time it took, once what stands behind the best plan is found.

    `progress` is told of that.
    """
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
        "search": _counted(search),
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
        "manifest": _manifest(search),
    }
    less = _with_less(cheaper, bound) if best else ""
    document["answer"] = _sentence(search, best, near, relax, less)
    return document


def _manifest(search: Search) -> dict[str, Any]:
    """What made the document."""
    space, evaluator = search.space, search.evaluator
    asked = {"plan": space.spec.model_dump(mode="json"), "seed": space.spec.seed, "exact": evaluator.exact}
    return asked | {"interrupted": evaluator.stopped, **provenance(space.built)}


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


def _counted(search: Search) -> dict[str, Any]:
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
        check = broken[0]
        if cheaper[0].stage == "peak":
            return f"; with less, {at_best(check)}"
        value, limit = shown(check, check.value), shown(check, check.limit)
        return f"; with less, {phrase(check)} is {value}, and {limit} is promised"
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
