"""Tables of words for the terminal that need no library. Imports nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def aligned(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table: a header, then the rows; the first column to the left, the others to the right."""
    table = [list(headers), *map(list, rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(headers))]
    for row in table:
        cells = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
