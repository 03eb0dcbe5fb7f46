"""A plan for the terminal, from the tables of the page: the answer, the plans to choose from, what binds, what is sure.

Works on the document of plan.json, so on a loaded one as well. Imports the report's other files; rich.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from simroute.report.cells import Cell, Grid, Header
from simroute.report.plan import cells
from simroute.report.plan.words import Document, relaxations, searched, sensitivities
from simroute.report.tables import PLAIN_WIDTH

MOST_UNFIT = 5
"""Candidates that cannot run, named at most."""
WIDE = 110
"""Columns of a terminal that has room for fleets and policies beside their numbers."""
_CHOSEN = (0, 2, 1, 3)
"""Columns of the plans to choose from that are told above their numbers: fleet, policy, role and GPUs."""
_UNBOUNDED = 10_000
_LONG = 12


def print_plan(document: Document, file: IO[str]) -> None:
    """Print the whole of it to `file`, the answer first."""
    console = Console(file=file, highlight=False)
    if not console.is_terminal:
        console = Console(file=file, highlight=False, width=PLAIN_WIDTH, color_system=None)
    console.print(Text(document["answer"], style="bold"))
    for grid, above in ((cells.alternatives(document), _CHOSEN), (cells.constraints(document), ())):
        if grid.rows:
            console.print(Text(f"\n{grid.caption}"), soft_wrap=True)
            for part in _fitted(console, grid, above):
                console.print(part)
    relax = relaxations(document)
    if relax:
        console.print(Text(f"\nTo make it feasible{', all of these' if len(relax) > 1 else ''}"), soft_wrap=True)
    for line in relax:
        console.print(Text(f"  {line}"), soft_wrap=True)
    for line in ("", *explained(document)):
        console.print(Text(f" {line}".rstrip(), style="dim"), soft_wrap=True)


def _fitted(console: Console, grid: Grid, above: Sequence[int]) -> Iterator[Table | Text]:
    """The table; on a narrow terminal the columns `above` are told above it, by the numbers of their rows.

    What is too long in its last column is named once below it, where the table has no room for it.
    """
    if console.width < WIDE and above:
        for number, row in enumerate(grid.rows, start=1):
            yield Text(f"{number}: {', '.join(text for place in above if (text := row[place].text))}")
        left = [place for place in range(len(grid.headers)) if place not in above]
        rows = [[Cell(str(n)), *(row[place] for place in left)] for n, row in enumerate(grid.rows, start=1)]
        grid = Grid(grid.caption, [Header(""), *(grid.headers[place] for place in left)], rows)
    table = _table(grid)
    if console.measure(table, options=console.options.update(width=_UNBOUNDED)).maximum <= console.width:
        yield table
        return
    texts = list(dict.fromkeys(row[-1].text for row in grid.rows if len(row[-1].text) > _LONG))
    marks = {text: f"({number})" for number, text in enumerate(texts, start=1)}
    rows = [[*row[:-1], Cell(marks.get(row[-1].text, row[-1].text))] for row in grid.rows]
    yield _table(Grid(grid.caption, grid.headers, rows))
    for text, mark in marks.items():
        yield Text(f"{mark} {text}")


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
