"""A what-if for the terminal, in Markdown and as CSV, from the tables of the page.

Imports results and the report's other files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from simroute.report import csvfile
from simroute.report import markdown as md
from simroute.report.cells import Grid
from simroute.report.plain import aligned
from simroute.report.text import span
from simroute.report.whatif import cells
from simroute.report.whatif.cells import Document
from simroute.results.headlines import HEADLINES

_NUMBERS = ("stability", "requests_per_s", "cost_usd_per_month", "cost_usd_per_1m_output_tokens")
STAR = "★"
"""Marks a cell that meets every target, where there is more than ASCII."""


def traffic(document: Document) -> str:
    """What was replayed, in one sentence."""
    of = document["traffic"]
    lasting = f" over {span(of['duration_s'])}" if of["duration_s"] else ""
    return f"{' + '.join(of['traces'])}, {of['requests']:,} requests{lasting}"


def terminal(document: Document, counts: Mapping[str, int]) -> str:
    """The answer first, then every table; `counts` are those of the cells."""
    grids = [cells.matrix(document), cells.costs(document), cells.by_rate(document), cells.breaks(document)]
    grids += [cells.bought(document)]
    lines = [document["answer"]]
    for grid in grids:
        lines += ["", *_lines(grid)] if grid.rows else []
    if refused := cells.impossible(document):
        lines += ["", *(f"impossible: {line}" for line in refused)]
    came = f"{counts['cells']} cells: {counts['simulated']} simulated, {counts['reused']} reused"
    came += f", {counts['failed']} failed" if counts["failed"] else ""
    said = [*cells.notes(document), *document["assumptions"]]
    return "\n".join([*lines, "", *(f"note: {line}" for line in said), came])


def _lines(grid: Grid) -> Iterator[str]:
    return aligned([header.name for header in grid.headers], [[cell.text for cell in row] for row in grid.rows])


def markdown(document: Document) -> str:
    """The answer first, then the matrix, what it costs, what to buy, when targets break, and what it all rests on."""
    return "\n".join(_markdown(document)) + "\n"


def _markdown(document: Document) -> Iterator[str]:
    yield f"# {md.escaped(document['scenario'])}: what if"
    yield from ("", f"**{md.escaped(document['answer'])}**", "", md.escaped(traffic(document)), "")
    for badge in cells.badges(document):
        yield f"- {md.escaped(badge.text)}"
    for grid in (cells.matrix(document, STAR), cells.costs(document), cells.bought(document), cells.mended(document)):
        yield from md.table(grid)
    for grid in (cells.by_rate(document, STAR), cells.breaks(document, every=True)):
        yield from md.table(grid)
    yield from md.bullets("Impossible", cells.impossible(document))
    yield from md.bullets("Notes", cells.notes(document))
    yield from md.bullets("Assumed, not measured", document["assumptions"])


def csv_text(document: Document) -> str:
    """A row a cell of the matrix, with its headlines in the units of their names."""
    header = ["variation", "policy", "rate", "meets", *_NUMBERS, *HEADLINES, "violations", "not_replayed"]
    return csvfile.csv_text(header, (_row(row, cell) for row in document["variations"] for cell in row["cells"]))


def _row(variation: Mapping[str, Any], cell: Mapping[str, Any]) -> list[object]:
    broken = "; ".join(each["text"] for each in cell.get("violations", ()))
    row = [variation["name"], variation["policy"], cell["rate"], cell.get("meets"), *map(cell.get, _NUMBERS)]
    return [*row, *map(cell.get("headlines", {}).get, HEADLINES), broken, cell.get("skipped") or cell.get("failed")]
