"""A plan for the terminal, from the tables of the page: the answer, the plans to choose from, what binds, what is sure.

Works on the document of plan.json, so on a loaded one as well. Imports the report's other files; rich.
"""

from __future__ import annotations

from typing import IO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from simroute.report import plan_cells as cells
from simroute.report.cells import Grid
from simroute.report.plan_words import Document, relaxations, searched, sensitivities
from simroute.report.tables import PLAIN_WIDTH

MOST_UNFIT = 5
"""Candidates that cannot run, named at most."""


def print_plan(document: Document, file: IO[str]) -> None:
    """Print the whole of it to `file`, the answer first."""
    console = Console(file=file, highlight=False)
    if not console.is_terminal:
        console = Console(file=file, highlight=False, width=PLAIN_WIDTH, color_system=None)
    console.print(Text(document["answer"], style="bold"))
    for grid in (cells.alternatives(document), cells.constraints(document)):
        if grid.rows:
            console.print(Text(f"\n{grid.caption}"), soft_wrap=True)
            console.print(_table(grid))
    relax = relaxations(document)
    if relax:
        console.print(Text(f"\nTo make it feasible{', all of these' if len(relax) > 1 else ''}"), soft_wrap=True)
    for line in relax:
        console.print(Text(f"  {line}"), soft_wrap=True)
    for line in ("", *explained(document)):
        console.print(Text(f" {line}".rstrip(), style="dim"), soft_wrap=True)


def _table(grid: Grid) -> Table:
    """The grid, its first column as narrow as the others leave it; they fold their headers, and sums at each `+`."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    first, *others = grid.headers
    table.add_column(first.name, overflow="fold")
    for place, header in enumerate(others, start=1):
        parts = [part for row in grid.rows for part in row[place].text.replace(" + ", " +|").split("|")]
        widest = max(map(len, [*header.name.split(), *parts]))
        table.add_column(header.name, justify="right", width=widest)
    for row in grid.rows:
        table.add_row(*(Text(cell.text) for cell in row))
    return table


def explained(document: Document) -> list[str]:
    """Headroom, what moves the bill, what the search did and proved, candidates that cannot run, notes: a line each."""
    lines = []
    if document["headroom"]:
        lines.append(f"headroom: {document['headroom']['text']}")
    lines += [f"sensitivity: {line}" for line in sensitivities(document)]
    lines.append(f"search: {searched(document)}")
    if gap := document["search"].get("gap"):
        lines.append(f"proof: {gap['text']}")
    unfit = document["unfit"]
    lines += [f"cannot run: {each['name']}: {each['reason']}" for each in unfit[:MOST_UNFIT]]
    if len(unfit) > MOST_UNFIT:
        lines.append(f"cannot run: {len(unfit) - MOST_UNFIT} more, see plan.json")
    return [*lines, *document["notes"], *document["assumptions"]]
