"""Markdown from tables and lists. Imports `cells`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from simroute.report.cells import Grid


def bullets(title: str, lines: Iterable[str]) -> Iterator[str]:
    """A heading and a list below it; nothing where the list is empty."""
    found = [f"- {escaped(line)}" for line in lines]
    if found:
        yield from ("", f"## {title}", "", *found)


def table(grid: Grid) -> Iterator[str]:
    """A heading and a table below it; nothing where it has no rows."""
    if not grid.rows:
        return
    yield from ("", f"## {grid.caption}", "")
    yield f"| {' | '.join(escaped(header.name) for header in grid.headers)} |"
    yield f"|{'---|' * len(grid.headers)}"
    for row in grid.rows:
        yield f"| {' | '.join(escaped(cell.text) for cell in row)} |"


def escaped(text: str) -> str:
    """Text that Markdown takes as it is, on one line."""
    flat = " ".join(str(text).split())
    for sign in "\\`*_|<>[]":
        flat = flat.replace(sign, f"\\{sign}")
    return flat
