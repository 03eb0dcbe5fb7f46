"""A capability matrix as a table for the terminal. Imports scenario's matrix and rich."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import IO

from rich import box
from rich.console import Console
from rich.table import Table

from simroute.report.tables import PLAIN_WIDTH
from simroute.report.text import BASES, ESTIMATED, ESTIMATED_MARK, UNKNOWN, number, usd
from simroute.scenario.matrix import Matrix, MatrixRow

_COLUMNS: list[tuple[str, Callable[[MatrixRow], str]]] = [
    ("\nload", lambda row: f"{row.load:g}"),
    ("request\ntokens", lambda row: f"{row.input_tokens}x{row.output_tokens}"),
    ("\nreq/s", lambda row: number(row.requests_per_s)),
    ("TTFT ms\np50", lambda row: number(row.ttft_p50_ms)),
    ("\np99", lambda row: number(row.ttft_p99_ms)),
    ("TPOT ms\np50", lambda row: number(row.tpot_p50_ms)),
    ("\np99", lambda row: number(row.tpot_p99_ms)),
    ("output\ntokens/s", lambda row: number(row.throughput_tok_s)),
    ("USD per\n1M tokens", lambda row: usd(row.cost_per_1m_tokens)),
    ("\nstable", lambda row: ("yes" if row.is_stable else "no") + " !" * bool(row.extrapolated)),
]


def print_matrix(matrix: Matrix, file: IO[str], notes: Sequence[str] = ()) -> None:
    """Print the rows, the accuracies of each variant and the notes to `file`."""
    console = Console(file=file, highlight=False)
    if not console.is_terminal:
        console = Console(file=file, highlight=False, width=max(PLAIN_WIDTH, console.width), color_system=None)
    console.print(_loads(matrix.rows))
    console.print(_variants(matrix.rows))
    for note in (*_legend(matrix.rows), *notes):
        console.print(f" {note}", style="dim", soft_wrap=True, markup=False)


def _loads(rows: Sequence[MatrixRow]) -> Table:
    table = _table("variant", [header for header, _ in _COLUMNS])
    shown = ""
    for row in rows:
        # A variant is named on its first row only.
        table.add_row("" if row.variant_id == shown else row.variant_id, *(form(row) for _, form in _COLUMNS))
        shown = row.variant_id
    return table


def _variants(rows: Sequence[MatrixRow]) -> Table:
    """One row a variant: basis, price, and accuracy by request class."""
    variants = {row.variant_id: row for row in rows}
    classes = sorted({name for row in rows for name in row.accuracy})
    table = _table("variant", ["\nstep times", "USD\nan hour", *(f"accuracy\n{name}" for name in classes)])
    for name, row in variants.items():
        figures = [row.accuracy.get(each) for each in classes]
        known = (f"{number(f.mean)}{' ?' * f.assumed}" if f else UNKNOWN for f in figures)
        table.add_row(name, BASES.get(row.basis, row.basis), usd(row.usd_per_hour), *known)
    return table


def _table(title: str, headers: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column(f"\n{title}\n", no_wrap=True)
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    return table


def _legend(rows: Sequence[MatrixRow]) -> Iterator[str]:
    if any(row.basis == "estimated" for row in rows):
        yield f"{ESTIMATED_MARK} {ESTIMATED}"
    if any(row.extrapolated for row in rows):
        yield "! extrapolated: the load lies beyond what was measured (the file says in what)"
    if any(figure.assumed for row in rows for figure in row.accuracy.values()):
        yield "? assumed (the file says why)"
