"""A calibration's validation for the terminal: measured, predicted and error of every number, a table a load phase.

Owns the words and tables that the page of `validation_page` shows as well. Imports results; rich in `print_validation`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

from simroute.report.cells import Cell, Grid, Header
from simroute.report.text import UNKNOWN, milliseconds, number

Document = Mapping[str, Any]
"""validation.json."""

_LATENCIES = (
    ("TTFT", "ms", "ttft_s", milliseconds),
    ("TPOT", "ms", "tpot_s", milliseconds),
    ("ITL", "ms", "itl_s", milliseconds),
    ("E2E", "s", "e2e_s", number),
)
_TOTALS = (
    ("requests a second", "requests_per_s", number),
    ("output tokens a second", "output_tokens_per_s", number),
    ("duration, s", "duration_s", number),
    ("preemptions", "preemptions", lambda count: UNKNOWN if count is None else f"{count:,.0f}"),
)
_GOOD, _NEAR = 0.05, 0.15
"""Errors up to the first are good, up to the second a warning."""


def title(document: Document) -> str:
    """What was validated on what, in one line."""
    of = document["calibration"]
    tp = f" x{of['tensor_parallel']}" if of["tensor_parallel"] > 1 else ""
    return f"{of['model']} {of['scheme']} on {of['gpu']}{tp}, {of['basis']}, against {document['run']}"


def phase_title(name: str, summary: Mapping[str, Any]) -> str:
    """One load phase: its name, how much of the capacity it offers, its requests."""
    offered = summary["offered_rps"]
    load = "" if summary["fraction"] is None else f", {summary['fraction']:.0%} of capacity"
    rate = "" if offered is None else f", {number(offered)} requests a second"
    requests = summary["requests"]
    return f"{name}: {requests['compared']:,} of {requests['sent']:,} requests compared{load}{rate}"


def verdict(document: Document) -> str:
    """How many measured values lie in their intervals; empty without replicates."""
    counted = document["intervals"]
    if not counted["of"]:
        return ""
    return (
        f"{document['level']:.0%} intervals from {document['replicates']} replicates hold {counted['held']} of "
        f"{counted['of']} measured values ({counted['share']:.0%})"
    )


def remarks(document: Document) -> list[str]:
    """Everything a reader must know, a line each."""
    lines = list(document["notes"])
    for name, summary in document["phases"].items():
        labels = summary["stability"]
        if labels["measured"] != labels["predicted"]:
            lines.append(f"{name}: measured {labels['measured']}, predicted {labels['predicted']}")
        lines += [f"{name}: extrapolated: {reason}" for reason in summary["extrapolated"]]
        lines += [f"{name}: {note}" for note in summary["notes"]]
    return lines


def grid(name: str, summary: Mapping[str, Any], replicated: bool) -> Grid:
    """One row a number: measured, predicted, error and, where there are replicates, the interval."""
    headers = [Header("number"), Header("measured"), Header("predicted"), Header("error")]
    if replicated:
        headers += [Header("interval"), Header("holds it")]
    rows = [_row(label, entry, form, replicated) for label, entry, form in _entries(summary["metrics"])]
    return Grid(phase_title(name, summary), headers, rows)


def print_validation(document: Document, file: IO[str]) -> None:
    """Print a table for each phase, the verdict and the remarks to `file`, readable without colours and when piped."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from simroute.report.tables import PLAIN_WIDTH

    console = Console(file=file, highlight=False)
    if not console.is_terminal:
        console = Console(file=file, highlight=False, width=PLAIN_WIDTH, color_system=None)
    console.print(Text(title(document), style="bold"), soft_wrap=True)
    for name, summary in document["phases"].items():
        shown = grid(name, summary, bool(document["replicates"]))
        console.print(Text(f"\n{shown.caption}"), soft_wrap=True)
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        for position, header in enumerate(shown.headers):
            table.add_column(header.name, justify="right" if position else "left", no_wrap=True)
        for row in shown.rows:
            table.add_row(*(cell.text for cell in row))
        console.print(table)
    for line in filter(None, ("", verdict(document), *remarks(document))):
        console.print(Text(line, style="dim"), soft_wrap=True)


def _entries(metrics: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], Callable[[float | None], str]]]:
    for label, unit, key, form in _LATENCIES:
        for point, entry in metrics[key].items():
            yield f"{label} {point}, {unit}", entry, form
    for label, key, form in _TOTALS:
        yield label, metrics[key], form


def _row(label: str, entry: Mapping[str, Any], form: Callable[[float | None], str], replicated: bool) -> list[Cell]:
    row = [Cell(label), Cell(form(entry["measured"])), Cell(form(entry["predicted"])), _error(entry["error"])]
    if not replicated:
        return row
    held = entry["held"]
    text, tone = (UNKNOWN, "") if held is None else ("yes", "good") if held else ("no", "warn")
    return [*row, Cell(f"[{form(entry['low'])}, {form(entry['high'])}]"), Cell(text, tone)]


def _error(error: float | None) -> Cell:
    if error is None:
        return Cell(UNKNOWN)
    tone = "good" if abs(error) <= _GOOD else "warn" if abs(error) <= _NEAR else "bad"
    return Cell(f"{round(error, 3) + 0.0:+.1%}", tone)  # + 0.0: no minus sign before zero
