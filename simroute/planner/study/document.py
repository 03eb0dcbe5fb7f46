"""whatif.json: what the cells of a what-if say, as plain JSON data, with the answer and every promise in words.

docs/whatif.md defines every key. Imports results, scenario and, of the planner, cells, purchase and targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from simroute.planner.study.cells import TODAY, At, Cells
from simroute.planner.study.purchase import MOST_REPLAYS, Buying, Offer, Purchase
from simroute.planner.targets import Constraint, broken
from simroute.results.compare import TARGET_ATTAINMENT
from simroute.results.headlines import headlines
from simroute.results.metrics import rounded
from simroute.results.stability import Stability
from simroute.scenario.run import RunResult

_WORDS = {"ttft_s": "p99 TTFT", "tpot_s": "p99 TPOT", "e2e_s": "p99 E2E"}


def document(
    cells: Cells,
    rates: Sequence[float],
    precision: float,
    tried: Sequence[str],
    impossible: Sequence[tuple[str, str]],
    buying: Buying | None,
) -> dict[str, Any]:
    """All of whatif.json."""
    base = cells.variations[0].built
    rows = [_variation(cells, number, rates, buying) for number in range(len(cells.variations))]
    buy = None if buying is None else _buy(cells, buying.bought.get(0, []))
    answer = _answer(rows, buy)
    found = {
        "scenario": base.scenario.name,
        "seed": base.scenario.seed,
        "answer": " ".join(answer),
        "sentences": answer,
        "policy": cells.variations[0].policy.shown,
        "policies_tried": list(tried),
        "rates": list(rates),
        "precision": precision,
        "target_attainment": TARGET_ATTAINMENT,
        "slo": {name: asdict(slo) for name, slo in base.slo.items()},
        "traffic": {
            "traces": list(base.trace_names()),
            "requests": len(base.trace),
            "duration_s": base.trace.duration_s,
        },
        "variations": rows,
        "buy": buy,
        "impossible": [{"name": name, "reason": reason} for name, reason in impossible],
        "interrupted": cells.interrupted,
        "notes": _notes(cells, buying),
        "assumptions": list(base.stated()),
        "manifest": RunResult(base, cells.exact, (), cells.interrupted).manifest(),
    }
    return rounded(found)  # type: ignore[no-any-return]


def _said(constraint: Constraint) -> str:
    """A promise in words: `chat: p99 TTFT at most 1 s`."""
    name, who, limit = constraint
    if name == "slo_attainment":
        return f"{who}: {limit:.0%} of requests within their targets"
    if name == "below_floor_share":
        return f"{who}: at most {limit:.0%} of answers below the quality floor"
    return f"{who}: {_WORDS[name]} at most {limit:g} s"


def _variation(cells: Cells, number: int, rates: Sequence[float], buying: Buying | None) -> dict[str, Any]:
    """One row: its cells by rate, where it breaks, and what to buy so that it bears today's traffic."""
    variation = cells.variations[number]
    bought = buying.bought.get(number, []) if buying and number else []
    holds_to, breaks_at = cells.bracket(number)
    ours = cells.variations[0].built.notes
    return {
        "name": variation.name,
        "policy": variation.policy.shown,
        "holds_to": holds_to,
        "breaks_at": breaks_at,
        "breaks_first": [] if breaks_at is None else _violations(cells, At(number, breaks_at)),
        "cells": _row(cells, number, rates),
        "breaks": [_break(cells, number, constraint) for constraint in variation.constraints],
        "buy": _buy(cells, bought) if bought else None,
        "notes": [note for note in variation.built.notes if not number or note not in ours],
    }


def _row(cells: Cells, number: int, rates: Sequence[float]) -> list[dict[str, Any]]:
    """The cells of a variation by rate; then those that there was no need to replay, then those that failed."""
    known, over = cells.rates(number), cells.overloaded_at(number)
    found = [_cell(cells, At(number, rate)) for rate in known]
    if over is not None:
        beyond = (rate for rate in rates if rate > over and rate not in known)
        found += [{"rate": rate, "skipped": f"OVERLOADED at {over:g}"} for rate in beyond]
    failures = [(at.rate, why) for at, why in cells.failed.items() if at.variation == number and not at.bought]
    return found + [{"rate": rate, "failed": why} for rate, why in sorted(failures)]


def _cell(cells: Cells, at: At) -> dict[str, Any]:
    summary = cells.known[at]
    return {
        "rate": at.rate,
        "meets": cells.holds(at),
        "stability": summary["stability"],
        "requests_per_s": _rate(cells, at),
        "cost_usd_per_month": summary["cost_usd_per_month"],
        "cost_usd_per_1m_output_tokens": summary["cost_usd_per_1m_output_tokens"],
        "headlines": headlines(summary),
        "by_class": {name: _class(part) for name, part in summary["by_class"].items()},
        "by_pool": {
            name: {key: pool[key] for key in ("replicas", "gpu_busy", "stability", "basis", "extrapolated")}
            for name, pool in summary["by_pool"].items()
        },
        "violations": _violations(cells, at),
    }


def _rate(cells: Cells, at: At) -> float | None:
    """Requests a second that arrive."""
    trace = cells.variations[at.variation].built.trace
    return at.rate * len(trace) / trace.duration_s if trace.duration_s else None


def _class(part: Mapping[str, Any]) -> dict[str, Any]:
    points = {f"{latency.removesuffix('_s')}_p99_s": part[latency]["p99"] for latency in ("ttft_s", "tpot_s", "e2e_s")}
    return {"slo_attainment": part["slo_attainment"]} | points


def _violations(cells: Cells, at: At) -> list[dict[str, Any]]:
    summary = cells.known[at]
    found = [
        each.violation(summary) | {"text": _said(each)}
        for each in broken(cells.variations[at.variation].constraints, summary)
    ]
    if summary["stability"] == Stability.OVERLOADED:
        over, limit = str(Stability.OVERLOADED), str(Stability.BACKLOGGED)
        said = "stability (more arrives than can be served)"
        found.insert(0, {"constraint": "stability", "class": None, "value": over, "limit": limit, "text": said})
    return found


def _break(cells: Cells, number: int, constraint: Constraint) -> dict[str, Any]:
    holds_to, breaks_at = cells.bracket(number, constraint)
    above = [rate for rate in cells.rates(number) if breaks_at is not None and rate > breaks_at]
    again = [rate for rate in above if cells.holds(At(number, rate), constraint)]
    return {
        "constraint": constraint.constraint,
        "class": constraint.request_class,
        "limit": constraint.limit,
        "text": _said(constraint),
        "holds_to": holds_to,
        "breaks_at": breaks_at,
        "holds_again_at": again,
    }


def _buy(cells: Cells, bought: Sequence[Purchase]) -> dict[str, Any]:
    """What was bought, step by step; empty where nothing breaks."""
    if not bought:
        return {
            "rate": None,
            "steps": [],
            "replicas": {},
            "usd_per_month": 0.0,
            "meets": None,
            "text": "nothing to buy",
        }
    last = bought[-1].best
    replicas = {pool: last.at.bought.count(pool) for pool in dict.fromkeys(last.at.bought)}
    usd = sum(step.best.usd_per_month for step in bought)
    named = _more(replicas)
    rate = bought[0].rate
    of = "today's traffic" if rate == TODAY else f"{rate:g} times the traffic"
    text = f"for {of} buy {named} (${usd:,.0f} a month)"
    if not last.meets:
        text = f"{named} (${usd:,.0f} a month) would still miss the targets at {of}"
    return {
        "rate": rate,
        "steps": [
            {"best": step.best.pool, "offers": [_offer(cells, offer) for offer in step.offers]} for step in bought
        ],
        "replicas": replicas,
        "usd_per_month": usd,
        "meets": last.meets,
        "text": text,
    }


def _offer(cells: Cells, offer: Offer) -> dict[str, Any]:
    return {
        "pool": offer.pool,
        "usd_per_month": offer.usd_per_month,
        "meets": offer.meets,
        "headlines": headlines(cells.known[offer.at]),
        "violations": _violations(cells, offer.at),
    }


def _answer(rows: Sequence[Mapping[str, Any]], buy: Mapping[str, Any] | None) -> list[str]:
    """How far the fleet carries, what breaks first, what to buy, and which changes break today's traffic."""
    base = rows[0]
    if not base["cells"]:
        return ["Nothing was replayed to the end."]
    lead = f"Under {base['policy']} the fleet meets its targets up to {_times(base['holds_to'])} today's traffic"
    if base["breaks_at"] is None:
        lead += ", the highest rate that was tried"
    else:
        if base["holds_to"] is None:
            lead = (
                f"Under {base['policy']} the fleet misses its targets at {_times(base['breaks_at'])} today's traffic, "
            )
            lead += "the lowest rate that was tried"
        lead += f"; {_first(base['breaks_first'])} breaks first, at {_times(base['breaks_at'])}"
    lines = [lead]
    if buy is not None and buy["steps"]:
        lines.append(buy["text"][:1].upper() + buy["text"][1:])
    fine_today = _meets_today(base)
    worse = [_worse(row) for row in rows[1:] if fine_today and _meets_today(row) is False]
    if worse:
        lines.append(f"Changes that break today's traffic: {'; '.join(worse)}")
    return [f"{line}." for line in lines]


def _first(violations: Sequence[Mapping[str, Any]]) -> str:
    named = [violation for violation in violations if violation["class"] is not None]
    return str((named or violations)[0]["text"])


def _worse(row: Mapping[str, Any]) -> str:
    """A change that breaks today's traffic, and what mends it."""
    buy = row["buy"]
    if buy is None:
        return str(row["name"])
    what = f"{_more(buy['replicas'])}, ${buy['usd_per_month']:,.0f} a month"
    return f"{row['name']} ({'buy' if buy['meets'] else 'not borne even with'} {what})"


def _more(replicas: Mapping[str, int]) -> str:
    return " and ".join(f"{count} more of {pool}" for pool, count in replicas.items())


def _times(rate: float | None) -> str:
    return "no part of" if rate is None else f"{rate:.3g} times"


def _meets_today(row: Mapping[str, Any]) -> bool | None:
    found: bool | None = next((cell.get("meets") for cell in row["cells"] if cell["rate"] == TODAY), None)
    return found


def _notes(cells: Cells, buying: Buying | None) -> list[str]:
    notes = list(cells.variations[0].built.notes)
    if buying and buying.cut_short:
        names = ", ".join(cells.variations[number].name for number in buying.cut_short)
        notes.append(
            f"what to buy was not looked for to the end, for want of replays ({MOST_REPLAYS} at most): {names}"
        )
    if cells.interrupted:
        notes.append("interrupted: cells are missing")
    return notes
