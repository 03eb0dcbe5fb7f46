"""A plan as Markdown, and its candidates as CSV. Imports results and the report's other files."""

from __future__ import annotations

from collections.abc import Iterator

from simroute.report import csvfile
from simroute.report import markdown as md
from simroute.report.plan import cells, words
from simroute.report.plan.words import Document, Plan
from simroute.results.headlines import HEADLINES

_COLUMNS = ("id", "fleet", "policy", "gpus", "gpu_kinds", "cost_usd_per_month", *HEADLINES, "stability", "stage")


def markdown(document: Document) -> str:
    """The answer first, then what to buy, how near the limits are, the alternatives and what it all rests on."""
    return "\n".join(_lines(document)) + "\n"


def csv_text(document: Document) -> str:
    """A row a candidate that was judged, cheapest first, with its headlines in the units of their names."""
    return csvfile.csv_text([*_COLUMNS, "meets", "role", "violations"], map(_row, _judged(document)))


def _row(judged: tuple[Plan, str]) -> list[object]:
    plan, role = judged
    row = [plan["id"], words.fleet(plan), words.policy(plan), plan["gpus"], words.gpus(plan)]
    row += [plan["cost_usd_per_month"], *map(plan["headlines"].get, HEADLINES)]
    return [*row, plan.get("stability"), plan.get("stage"), plan["meets"], role, words.broken(plan)]


def _judged(document: Document) -> Iterator[tuple[Plan, str]]:
    """Every plan of the document once, with its role in it, by cost."""
    named = (("best", "best"), ("runner_up", "runner-up"), ("nearest", "nearest miss"))
    roles = {plan["id"]: "frontier" for plan in document.get("frontier") or ()}
    roles |= {document[key]["id"]: role for key, role in reversed(named) if document.get(key)}
    plans = [document[key] for key, _ in named if document.get(key)]
    plans += [*(document.get("frontier") or ()), *(document.get("evaluated") or ())]
    unique = {plan["id"]: plan for plan in reversed(plans)}
    for plan in sorted(unique.values(), key=lambda plan: (plan["cost_usd_per_month"], plan["id"])):
        yield plan, roles.get(plan["id"], "")


def _lines(document: Document) -> Iterator[str]:
    plan = words.chosen(document)
    yield f"# {md.escaped(document['name'])}"
    yield from ("", f"**{md.escaped(document['answer'])}**", "", words.traffic(document))
    for badge in cells.badges(document):
        yield f"- {md.escaped(badge.text)}"
    relax = words.relaxations(document)
    yield from md.bullets(f"To make it feasible{', all of these' if len(relax) > 1 else ''}", relax)
    if plan is not None:
        yield from md.table(cells.buys(plan))
        yield from ("", f"Routing policy: {md.escaped(words.policy(plan))}.")
    if room := document.get("headroom"):
        yield from ("", f"Headroom: {md.escaped(room['text'])}.")
    for grid in (cells.constraints(document), cells.alternatives(document), cells.refused(document)):
        yield from md.table(grid)
    yield from md.table(cells.hangs_on(document))
    if plan is not None:
        yield from md.table(cells.accuracy(plan))
        yield from md.table(cells.settings(plan))
    yield from md.bullets("Assumed, not measured", document.get("assumptions") or ())
    yield from md.bullets("Notes", document.get("notes") or ())
    if said := words.searched(document):
        yield from ("", f"Searched: {md.escaped(said)}.")
