"""A plan's document as tables, the same for the page, Markdown and CSV. Imports the report's other files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from simroute.report.cells import STATE_TONES, Cell, Grid, Header
from simroute.report.plan.words import Document, Plan, broken, by_reach, chosen, fleet, gpus, measured, policy, promised
from simroute.report.text import BASES, UNKNOWN, milliseconds, number, percent, usd
from simroute.units import HOURS_PER_MONTH

_TIGHT = 0.1
"""Less room than this share of a limit is worth a warning."""
_MOST_REFUSED = 8
_CENT = 0.01
UNCHANGED = "none"
_STAGES = {"whole": "whole traffic", "peak": "busiest stretch", "bound": "a bound, not simulated"}


def tiles(document: Document) -> list[tuple[str, str, str]]:
    """The plan in a few numbers, those that are known: (name, value, note)."""
    plan = chosen(document)
    if plan is None:
        return []
    head, room = plan["headlines"], document.get("headroom") or {}
    found = [
        ("USD a month", usd(plan["cost_usd_per_month"]), ""),
        ("GPUs", gpus(plan), ""),
        ("within targets", percent(head["slo_attainment"]), ""),
        ("p99 TTFT", _unit(number(head["ttft_p99_s"]), "s"), ""),
        ("p99 TPOT", _unit(milliseconds(head["tpot_p99_s"]), "ms"), ""),
        ("expected quality", number(head["quality_mean"]), ""),
        ("holds up to", number(room.get("rate_scale")), "times the traffic"),
    ]
    return [tile for tile in found if tile[1] != UNKNOWN]


def buys(plan: Plan) -> Grid:
    """What to buy: a row a pool, and the sum."""
    names = ("pool", "replicas", "each on", "GPUs", "USD an hour", "USD a month", "model", "quantization", "price")
    rows = [
        [
            Cell(str(pool["name"])),
            Cell(f"{pool['replicas']:,}"),
            Cell(f"{pool['tensor_parallel']} x {pool['gpu']}"),
            Cell(f"{pool['tensor_parallel'] * pool['replicas']:,}"),
            Cell(usd(pool["usd_per_hour"] * pool["replicas"])),
            Cell(usd(pool["usd_per_hour"] * pool["replicas"] * HOURS_PER_MONTH)),
            Cell(str(pool["model"])),
            Cell(str(pool["quantization"])),
            Cell(str(pool.get("price_source") or UNKNOWN)),
        ]
        for pool in plan["pools"]
    ]
    if len(rows) > 1:
        replicas = sum(pool["replicas"] for pool in plan["pools"])
        hour = sum(pool["usd_per_hour"] * pool["replicas"] for pool in plan["pools"])
        sums = [Cell(f"{plan['gpus']:,}"), Cell(usd(hour)), Cell(usd(plan["cost_usd_per_month"]))]
        rows.append([Cell("all"), Cell(f"{replicas:,}"), Cell(""), *sums, *[Cell("")] * 3])
    return Grid("What to buy" if plan["meets"] else "The nearest miss", [Header(name) for name in names], rows)


def settings(plan: Plan) -> Grid:
    """Engine settings as simulated, a row each, a column a pool."""
    names = list(dict.fromkeys(name for pool in plan["pools"] for name in pool.get("engine", {})))
    headers = [Header("setting of vLLM"), *(Header(str(pool["name"])) for pool in plan["pools"])]
    rows = [
        [Cell(name), *(Cell(_setting(pool.get("engine", {}).get(name))) for pool in plan["pools"])] for name in names
    ]
    return Grid("Engine settings, as simulated", headers, rows)


def constraints(document: Document) -> Grid:
    """Every promise with what became of it and the room that is left: broken ones, then the one that binds."""
    plan = chosen(document) or {}
    failed = plan.get("violations") or ()
    kept = document.get("binding") or ()
    rows = [[*_promise(check, plan.get("stage")), Cell("broken", "bad"), _loss(check)] for check in failed]
    rows += [[*_promise(check), _room(check.get("margin")), _loss(check)] for check in kept]
    headers = [Header(name) for name in ("promise", "found", "limit", "room left", "judged with")]
    if not any(row[-1].text for row in rows):
        headers, rows = headers[:-1], [row[:-1] for row in rows]
    return Grid("Promises and the room left", headers, rows)


def alternatives(document: Document) -> Grid:
    """The best plan, the runner-up and the rest of the frontier, a row each."""
    columns = ("fleet", "role", "policy", "GPUs", "USD a month", "p99 TTFT, s", "p99 TPOT, ms", "p99 E2E, s")
    headers = [Header(name) for name in (*columns, "within targets", "quality")]
    return Grid("Plans to choose from", headers, [_row(plan, role) for plan, role in _choices(document)])


def refused(document: Document) -> Grid:
    """Fleets that cost less than the plan, one for each choice of variants, and why they are not it."""
    columns = ("cheaper fleet", "policy", "USD a month", "saves", "what breaks", "judged by")
    plan = document.get("best")
    cheaper = [] if plan is None else _cheaper(document, plan)
    rows = [
        [
            Cell(fleet(each)),
            Cell(policy(each)),
            Cell(usd(each["cost_usd_per_month"])),
            Cell(usd((plan or {})["cost_usd_per_month"] - each["cost_usd_per_month"])),
            Cell(broken(each), "bad"),
            Cell(_STAGES.get(each["stage"], str(each["stage"]))),
        ]
        for each in cheaper
    ]
    return Grid("Why nothing cheaper", [Header(name) for name in columns], rows)


def hangs_on(document: Document) -> Grid:
    """What the cheapest fleet would be, and cost, if one thing were otherwise; what moves the bill most first."""
    base = (document.get("best") or {}).get("cost_usd_per_month", 0.0)
    rows = []
    for entry in by_reach(document) if document.get("best") else ():
        for end in (entry["low"], entry["high"]):
            cost = end["cost_usd_per_month"]
            change = "" if cost is None else UNCHANGED if abs(cost - base) < _CENT else f"{cost - base:+,.0f}"
            fewest = (
                Cell("no fleet looked at will do", "bad") if cost is None else Cell(str(end.get("fleet") or UNKNOWN))
            )
            rows.append([Cell(f"{entry['factor']} {end['label']}"), Cell(usd(cost)), Cell(change), fewest])
    headers = [Header(name) for name in ("if", "USD a month", "change", "the cheapest is then")]
    return Grid("What the answer hangs on", headers, rows)


def accuracy(plan: Plan) -> Grid:
    """What each pool's step times rest on, how wrong that was where measured, and whether the load went beyond."""
    columns = ("pool", "step times", "calibration", "error, median", "error, p90", "measured with", "vLLM", "load")
    by_pool = (plan.get("summary") or {}).get("by_pool") or {}
    rows = []
    for pool in plan["pools"]:
        known = pool.get("calibration")
        said = known if isinstance(known, Mapping) else {"file": known}
        error = said.get("error") or {}
        basis = str(pool.get("basis") or UNKNOWN)
        rows.append(
            [
                Cell(str(pool["name"])),
                Cell(BASES.get(basis, basis), "" if basis in ("measured", "composed") else "warn"),
                Cell(str(said.get("file") or "none")),
                Cell(_share(error.get("median"))),
                Cell(_share(error.get("p90"))),
                Cell(measured(said.get("range"))),
                Cell(str(said.get("vllm") or UNKNOWN)),
                _extrapolated(said, by_pool.get(pool["name"])),
            ]
        )
    return Grid("What the numbers rest on", [Header(name) for name in columns], rows)


def badges(document: Document) -> list[Cell]:
    """What qualifies every number, at the top: feasibility, proof, step times, extrapolation, stability and more."""
    good, plan = document["feasible"], chosen(document)
    found = [Cell("every target is met", "good") if good else Cell("no plan meets every target", "bad")]
    searched = document.get("search") or {}
    if gap := searched.get("gap"):
        found.append(Cell(gap["text"], "good" if searched["exhaustive"] or gap["share"] == 0 else "warn"))
    if plan is not None:
        found += _plan_badges(plan)
    found += [Cell(str(note), "bad") for note in document.get("notes") or () if str(note).startswith("interrupted")]
    return found


def _plan_badges(plan: Plan) -> Iterator[Cell]:
    bases = {str(pool["name"]): str(pool.get("basis")) for pool in plan["pools"]}
    guessed = [name for name, basis in bases.items() if basis in ("estimated", "proxy")]
    if guessed:
        yield Cell(f"step times of {', '.join(guessed)} are not measured", "warn")
    else:
        yield Cell(f"step times {' and '.join(sorted(set(bases.values())))}", "good")
    if any(row[-1].tone == "warn" for row in accuracy(plan).rows):
        yield Cell("extrapolated: some load lies beyond what was measured", "warn")
    if plan.get("stability") not in (None, "STABLE"):
        yield Cell(str(plan["stability"]), STATE_TONES.get(plan["stability"], ""))


def _choices(document: Document) -> Iterator[tuple[Plan, str]]:
    seen = set()
    for plan, role in ((document.get("best"), "best"), (document.get("runner_up"), "runner-up")):
        if plan is not None:
            seen.add(plan["id"])
            yield plan, role
    if document.get("best") is None and (near := document.get("nearest")) is not None:
        seen.add(near["id"])
        yield near, "nearest miss"
    for plan in sorted(document.get("frontier") or (), key=lambda plan: plan["cost_usd_per_month"]):
        if plan["id"] not in seen:
            yield plan, "frontier"


def _row(plan: Plan, role: str) -> list[Cell]:
    head = plan["headlines"]
    return [
        Cell(fleet(plan)),
        Cell(role, "good" if role == "best" else ""),
        Cell(policy(plan)),
        Cell(gpus(plan)),
        Cell(usd(plan["cost_usd_per_month"])),
        Cell(number(head["ttft_p99_s"])),
        Cell(milliseconds(head["tpot_p99_s"])),
        Cell(number(head["e2e_p99_s"])),
        Cell(percent(head["slo_attainment"])),
        Cell(number(head["quality_mean"])),
    ]


def _cheaper(document: Document, best: Plan) -> list[Plan]:
    """Of each choice of variants the dearest fleet that costs less and fails, under the best plan's policy if asked."""
    cost = best["cost_usd_per_month"]
    failed = [p for p in document.get("evaluated") or () if not p["meets"] and p["cost_usd_per_month"] < cost]
    found: dict[tuple[str, ...], Plan] = {}
    for each in sorted(failed, key=lambda p: (-p["cost_usd_per_month"], p["policy"] != best["policy"])):
        found.setdefault(tuple(str(pool["name"]) for pool in each["pools"]), each)
    return list(found.values())[:_MOST_REFUSED]


def _promise(check: Mapping[str, Any], stage: str | None = None) -> list[Cell]:
    return [Cell(text) for text in promised(check, stage)]


def _room(margin: float | None) -> Cell:
    """The share of a limit, or of what may be missed, that is left; the bar is what is used of it."""
    if margin is None:
        return Cell(UNKNOWN)
    tone = "bad" if margin < 0 else "warn" if margin < _TIGHT else "good"
    return Cell(f"{margin:.0%}" if margin >= _TIGHT else f"{margin:.1%}", tone, min(max(1 - margin, 0.0), 1.0))


def _loss(check: Mapping[str, Any]) -> Cell:
    """What the fleet had lost when it was judged."""
    return Cell(str(check.get("loss") or ""))


def _extrapolated(said: Mapping[str, Any], summary: Mapping[str, Any] | None) -> Cell:
    reasons = said.get("extrapolated") or (summary or {}).get("extrapolated")
    if reasons:
        listed = isinstance(reasons, Sequence) and not isinstance(reasons, str)
        return Cell("extrapolated" + (f": {', '.join(map(str, reasons))}" if listed else ""), "warn")
    known = said.get("file") and (summary is not None or "extrapolated" in said)
    return Cell("within what was measured", "good") if known else Cell(UNKNOWN)


def _share(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.1%}"


def _setting(value: Any) -> str:
    return UNKNOWN if value is None else f"{value:,}" if isinstance(value, int) and value > 999 else str(value)


def _unit(text: str, unit: str) -> str:
    return text if text == UNKNOWN else f"{text} {unit}"
